"""How many images are done: on a terminal or in the log, and as an artifact in Prefect's UI."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console

from tasks.core.runtime.progress import CountCallback, background_updates, progress_counter

UPDATE_EVERY_S = 3.0  # an update takes about 10 ms


@contextmanager
def ui_progress(logger: Any, what: str) -> Iterator[CountCallback]:
    """What shows how many images are done of how many."""
    with progress_counter(Console(stderr=True), logger.info) as here, ui_progress_artifact(logger, what) as in_ui:

        def show(done: int, in_all: int) -> None:
            here(done, in_all)
            in_ui(done, in_all)

        yield show


@contextmanager
def ui_progress_artifact(logger: Any, what: str) -> Iterator[CountCallback]:
    """A progress artifact that follows the work; a server that is lost, which Prefect asks for a minute, ends that."""
    artifact: UUID | None = None

    def show(percent: float) -> None:
        nonlocal artifact
        if artifact is None:
            artifact = UUID(str(create_progress_artifact(percent, key=what, description=what.capitalize())))
        else:
            update_progress_artifact(artifact, percent)

    def give_up(error: Exception) -> None:
        logger.warning(f"Prefect's UI no longer shows how far {what} is: {error}")

    with background_updates(show, give_up, UPDATE_EVERY_S) as note:
        yield lambda done, in_all: note(100 * done / in_all)

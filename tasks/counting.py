"""How many images are done: on a terminal or in the log, and as an artifact in Prefect's UI."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console

from tasks.core.counting import ShowCount, counting

UPDATE_EVERY_S = 3.0  # an update takes about 10 ms


@contextmanager
def shown_count(logger: Any, what: str) -> Iterator[ShowCount]:
    """What shows how many images are done of how many."""
    in_ui = count_in_ui(logger, what)
    with counting(Console(stderr=True), logger.info) as here:

        def show(done: int, in_all: int) -> None:
            here(done, in_all)
            in_ui(done, in_all)

        yield show


def count_in_ui(logger: Any, what: str) -> ShowCount:
    """Moves a progress artifact every few seconds; a server that is lost ends that, and no more than that."""
    artifact: UUID | None = None
    next_at = 0.0

    def show(done: int, in_all: int) -> None:
        nonlocal artifact, next_at
        if time.monotonic() < next_at:
            return
        percent = 100 * done / in_all
        try:
            if artifact is None:
                artifact = UUID(str(create_progress_artifact(percent, key=what, description=what.capitalize())))
            update_progress_artifact(artifact, percent)
            next_at = time.monotonic() + UPDATE_EVERY_S
        except Exception as error:  # noqa: BLE001 - the UI is no reason to lose hours of work
            logger.warning(f"Prefect's UI no longer shows how far {what} is: {error}")
            next_at = float("inf")

    return show

"""Progress on a terminal and as an artifact in Prefect's UI."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.core.runtime.logs import logger
from tasks.core.runtime.progress import BarCallback, background_updates, progress_bar

UPDATE_EVERY_S = 3.0  # an update takes about 10 ms


@contextmanager
def progress(key: str) -> Iterator[BarCallback]:
    """A callback that shows progress on a terminal and in Prefect's UI."""
    with progress_artifact(key) as update_artifact, progress_bar() as update_bar:

        def show(done: int, total: int, text: str = "") -> None:
            update_bar(done, total, text)
            update_artifact(done, total)

        yield show


@contextmanager
def progress_artifact(key: str) -> Iterator[Callable[[int, int], None]]:
    """A callback that updates a progress artifact, in a thread: a lost server would block for a minute."""
    artifact: UUID | None = None

    def show(percent: float) -> None:
        nonlocal artifact
        if artifact is None:
            artifact = UUID(str(create_progress_artifact(percent, key=key, description=key.capitalize())))
        else:
            update_progress_artifact(artifact, percent)

    def give_up(error: Exception) -> None:
        logger.warning(f"Prefect's UI no longer shows the progress of {key}: {error}")

    with background_updates(show, give_up, UPDATE_EVERY_S) as update:
        yield lambda done, total: update(100 * done / total)

"""Progress on a terminal and as an artifact in Prefect's UI."""

import contextvars
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from tasks.core.runtime.logs import logger
from tasks.core.runtime.progress import BarCallback, progress_bar

UPDATE_EVERY_S = 3.0  # an update takes about 10 ms
LAST_UPDATE_TIMEOUT_S = 0.5


@contextmanager
def progress(key: str) -> Iterator[BarCallback]:
    """A callback that shows progress; a thread updates the UI, because a lost server would block for a minute."""
    newest, is_over = deque[float](maxlen=1), Event()
    context = contextvars.copy_context()  # Prefect keeps the current run in it
    thread = Thread(target=context.run, args=[_update_artifact, key, newest, is_over], daemon=True)
    with progress_bar() as update_bar:

        def show(done: int, total: int, text: str = "") -> None:
            update_bar(done, total, text)
            newest.append(100 * done / total)

        thread.start()
        try:
            yield show
        finally:
            is_over.set()
            thread.join(LAST_UPDATE_TIMEOUT_S)


def _update_artifact(key: str, newest: deque[float], is_over: Event) -> None:
    artifact, is_last = None, False
    try:
        while not is_last:
            is_last = is_over.wait(UPDATE_EVERY_S)
            if newest and artifact:
                update_progress_artifact(artifact, newest.pop())  # type: ignore[arg-type]
            elif newest:
                artifact = create_progress_artifact(newest.pop(), key=key, description=key.capitalize())
    except Exception as error:  # noqa: BLE001 - whatever Prefect's client raises
        logger.warning(f"Prefect's UI no longer shows the progress of {key}: {error}")

"""How many images are done: on a terminal or in the log, and as an artifact in Prefect's UI."""

import contextvars
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from rich.console import Console

from tasks.core.counting import ShowCount, counting

UPDATE_EVERY_S = 3.0  # an update takes about 10 ms
PATIENCE_S = 0.5  # for the last update, when the work itself is done


@contextmanager
def shown_count(logger: Any, what: str) -> Iterator[ShowCount]:
    """What shows how many images are done of how many."""
    with counting(Console(stderr=True), logger.info) as here, counted_in_ui(logger, what) as in_ui:

        def show(done: int, in_all: int) -> None:
            here(done, in_all)
            in_ui(done, in_all)

        yield show


@contextmanager
def counted_in_ui(logger: Any, what: str) -> Iterator[ShowCount]:
    """A progress artifact that follows the work from a thread of its own, every few seconds and at the end.

    A server that is slow or lost holds nothing up: Prefect asks it for a minute before it gives up.
    """
    follower = _Follower(logger, what)
    context = contextvars.copy_context()  # which tells whose artifact it is
    thread = threading.Thread(target=context.run, args=[follower.follow], name=f"{what} in the UI", daemon=True)
    thread.start()
    try:
        yield follower.note
    finally:
        follower.ended.set()
        thread.join(PATIENCE_S)


class _Follower:
    def __init__(self, logger: Any, what: str) -> None:
        self.ended = threading.Event()
        self._logger, self._what = logger, what
        self._percent: float | None = None

    def note(self, done: int, in_all: int) -> None:
        self._percent = 100 * done / in_all

    def follow(self) -> None:
        try:
            self._update()
        except Exception as error:  # noqa: BLE001 - the UI is no reason to lose hours of work
            self._logger.warning(f"Prefect's UI no longer shows how far {self._what} is: {error}")

    def _update(self) -> None:
        artifact: UUID | None = None
        shown: float | None = None
        is_last = False
        while not is_last:
            is_last = self.ended.wait(UPDATE_EVERY_S)
            percent = self._percent
            if percent is None or percent == shown:
                continue
            if artifact is None:
                created = create_progress_artifact(percent, key=self._what, description=self._what.capitalize())
                artifact = UUID(str(created))
            else:
                update_progress_artifact(artifact, percent)
            shown = percent

"""Progress: a bar on a terminal, and updates from a background thread."""

import contextvars
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from tasks.core.runtime.logs import log_handler, logger

Update = TypeVar("Update")
MIN_COUNT_TO_LOG = 1_000
LOG_LINES = 10
LAST_UPDATE_TIMEOUT_S = 0.5
COUNTS: tuple[ProgressColumn, ...] = (TaskProgressColumn(), MofNCompleteColumn())
BYTES: tuple[ProgressColumn, ...] = (DownloadColumn(), TransferSpeedColumn())


class BarCallback(Protocol):
    """Called with how many items, or bytes, are done, of how many, and with the text beside the bar."""

    def __call__(self, done: int, total: int, text: str = "") -> None: ...


@contextmanager
def progress_bar(columns: tuple[ProgressColumn, ...] = COUNTS, console: Console | None = None) -> Iterator[BarCallback]:
    """A callback that moves a bar on a terminal, below the log lines; elsewhere it does nothing."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda *_, **__: None
        return
    text_column = TextColumn("{task.description}", markup=False)
    with Progress(BarColumn(), *columns, text_column, TimeRemainingColumn(), console=console, transient=True) as bar:
        task = bar.add_task("", total=None, start=False)

        def show(done: int, total: int, text: str = "") -> None:
            bar.start_task(task)
            bar.update(task, completed=done, total=total, description=text)

        with log_handler(lambda _: bar.stop(), first=True), log_handler(lambda _: bar.start()):
            yield show


def log_tenths(done: int, total: int) -> None:
    """Log the progress at every tenth of many images, where no terminal shows it."""
    is_tenth = done < total and done % -(-total // LOG_LINES) == 0
    if total >= MIN_COUNT_TO_LOG and is_tenth and not sys.stderr.isatty():
        logger.info(f"predict: {done:,} of {total:,} images")


@contextmanager
def background_updates(
    show: Callable[[Update], None], on_error: Callable[[Exception], None], every_s: float
) -> Iterator[Callable[[Update], None]]:
    """A callback for updates; a thread passes the newest one to `show` every `every_s` seconds and at the end.

    An error of `show` is passed to `on_error` and ends the updates.
    """
    newest: deque[Update] = deque(maxlen=1)
    is_over = threading.Event()

    def show_updates() -> None:
        is_last = False
        try:
            while not is_last:
                is_last = is_over.wait(every_s)
                if newest:
                    show(newest.pop())
        except Exception as error:  # noqa: BLE001 - it is passed on
            on_error(error)

    context = contextvars.copy_context()  # Prefect keeps the current run in it
    thread = threading.Thread(target=context.run, args=[show_updates], name="background-updates", daemon=True)
    thread.start()
    try:
        yield newest.append
    finally:
        is_over.set()
        thread.join(LAST_UPDATE_TIMEOUT_S)

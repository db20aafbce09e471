"""Progress: a bar on a terminal, a few log lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

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

MIN_COUNT_TO_LOG = 1_000
LOG_LINES = 10
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

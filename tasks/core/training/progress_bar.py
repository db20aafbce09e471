"""A progress bar for a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Columns

from tasks.core.store.artifact import Log
from tasks.core.training.monitor import Progress, ProgressCallback


@contextmanager
def progress_bar(console: Console, log: Log) -> Iterator[tuple[ProgressCallback, Log]]:
    """What moves a bar on the console, and what says a line without tearing it."""
    columns = (BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Columns(*columns, TimeRemainingColumn(), console=console, transient=True) as bar:
        task, speed = bar.add_task("", total=None, start=False), _speedometer()

        def show(progress: Progress) -> None:
            bar.start_task(task)
            words = in_words(progress, speed(progress.images_done))
            bar.update(task, completed=progress.images_done, total=progress.images_in_all, description=words)

        def say(line: str) -> None:
            bar.stop()
            log(line)
            bar.start()

        yield show, say


def in_words(progress: Progress, images_per_s: float) -> str:
    words = f"loss {progress.loss:.3f}, {progress.accuracy:.1%} right"
    if progress.validation_accuracy is not None:
        words += f", held out {progress.validation_accuracy:.1%}"
    return f"{words}, {images_per_s:,.0f} images/s"


def _speedometer() -> Callable[[int], float]:
    """Images a second since the first word, which after an interruption is not where training began."""
    first: list[tuple[float, int]] = []

    def speed(images_done: int) -> float:
        first.append((time.monotonic(), images_done)) if not first else None
        since, before = first[0]
        return (images_done - before) / max(time.monotonic() - since, 1e-9)

    return speed

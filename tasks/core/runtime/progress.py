"""Progress: a bar on a terminal, a few lines elsewhere, and updates from a background thread."""

import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

CountCallback = Callable[[int, int], None]
FEW = 1_000
LINES = 10
Note = TypeVar("Note")
PATIENCE_S = 0.5  # for the last note, when the work itself is done


@contextmanager
def progress_counter(console: Console, log: Callable[[str], None]) -> Iterator[CountCallback]:
    """What shows, image by image, how many are done of how many."""
    if not console.is_terminal:
        yield lambda done, in_all: _say_tenths(done, in_all, log)
        return
    columns = (BarColumn(), TaskProgressColumn(), MofNCompleteColumn(), TextColumn("images"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, in_all: bar.update(task, completed=done, total=in_all)


def _say_tenths(done: int, in_all: int, log: Callable[[str], None]) -> None:
    if in_all >= FEW and done < in_all and done % -(-in_all // LINES) == 0:
        log(f"{done:,} of {in_all:,} images")


@contextmanager
def background_updates(
    show: Callable[[Note], None], give_up: Callable[[Exception], None], every_s: float
) -> Iterator[Callable[[Note], None]]:
    """What takes notes of how far work is; `show` gets the newest one every few seconds, and the last.

    An error of `show` is for `give_up`, and ends it.
    """
    newest: deque[Note] = deque(maxlen=1)
    ended = threading.Event()

    def follow() -> None:
        is_last = False
        try:
            while not is_last:
                is_last = ended.wait(every_s)
                if newest:
                    show(newest.pop())
        except Exception as error:  # noqa: BLE001 - it is passed on
            give_up(error)

    context = contextvars.copy_context()  # where Prefect keeps which run this is
    thread = threading.Thread(target=context.run, args=[follow], name="following", daemon=True)
    thread.start()
    try:
        yield newest.append
    finally:
        ended.set()
        thread.join(PATIENCE_S)

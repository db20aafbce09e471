"""How many images are done: a bar on a terminal, a few quiet lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

ShowCount = Callable[[int, int], None]
FEW = 1_000
LINES = 10


@contextmanager
def counting(console: Console, log: Callable[[str], None]) -> Iterator[ShowCount]:
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

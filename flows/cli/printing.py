"""Prints results: text for people, JSON for programs."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from pydantic_core import to_json
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

Result = TypeVar("Result")
Item = TypeVar("Item")


def print_result(result: Result, print_text: Callable[[Result], None], *, json: bool) -> None:
    if json:
        print(to_json(result, indent=1, inf_nan_mode="null").decode())
    else:
        print_text(result)


def print_table(lines: Sequence[Sequence[str]]) -> None:
    """Print aligned columns; a terminal cuts lines that are too long. (Rich takes a second for 1,000 lines.)"""
    widths, columns = [max(map(len, column)) for column in zip(*lines, strict=True)], _terminal_columns()
    for cells in lines:
        line = "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        print(line if len(line) <= columns else f"{line[: columns - 1]}…")


def print_facts(facts: Mapping[str, str | None]) -> None:
    """Print names and values, without those that are None; a terminal wraps long values."""
    indent = max(map(len, facts)) + 2
    wrapper = textwrap.TextWrapper(
        _terminal_columns(), subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    for name, value in facts.items():
        if value is not None:
            print(wrapper.fill(f"{name:{indent}}{value}"))


def with_spinner(pieces: Iterable[tuple[str, Item]]) -> Iterator[Item]:
    """Yield the items of named pieces, and show on a terminal which piece is in progress."""
    columns = (SpinnerColumn(), TextColumn("{task.completed} checked: {task.description}"))
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("")
        for name, item in pieces:
            progress.update(task, description=name, advance=1)
            yield item


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: `1 image`, `2,000 images`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def format_time(time: str) -> str:
    """Return an ISO time in UTC, up to seconds."""
    return f"{time[:19].replace('T', ' ')} UTC"


def _terminal_columns() -> int:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize

"""The table: a row for each measurement, and how several values of one are told."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured, their side and ours, what it comes to, what was to be reached, and how it was measured."""

    what: str
    theirs: str = "–"
    ours: str = "–"
    figure: str = "–"
    goal: str = "–"
    note: str = ""
    failed: bool = False


HEADINGS = ("what", "theirs", "ours", "figure", "goal")


def as_markdown(rows: Sequence[Row]) -> str:
    """A Markdown table, whose columns stand below each other on a terminal too, then the notes."""
    cells = [HEADINGS, *([getattr(row, name).replace("|", "/") for name in HEADINGS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [" | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    lines.insert(1, " | ".join("-" * width for width in widths))
    notes = [f"- {row.what}: {row.note}\n" for row in rows if row.note]
    return "".join(f"| {line} |\n" for line in lines) + ("\n" + "".join(notes) if notes else "")


def seconds(values: Sequence[float]) -> str:
    """Median and range: `3.10 s (2.95–3.24)`."""
    return _spread([_number(value) for value in _median_and_range(values)], " s", len(values))


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> str:
    """How many times as fast, pair by pair: median and range."""
    found = [their / our for their, our in zip(theirs, ours, strict=True)]
    return _spread([_number(value) for value in _median_and_range(found)], " times as fast", len(found))


def percent(values: Sequence[float]) -> str:
    """Median and range of shares in [0, 1]: `54.1% (53.8–54.6)`."""
    return _spread([f"{100 * value:.1f}" for value in _median_and_range(values)], "%", len(values))


def _median_and_range(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _spread(texts: Sequence[str], unit: str, count: int) -> str:
    median, low, high = texts
    return f"{median}{unit}" + (f" ({low}–{high})" if count > 1 else "")


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"

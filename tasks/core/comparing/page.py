"""The comparison as one page that needs no other file, and its numbers for machines beside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from tasks.core.charts import difference_chart, reliability_comparison
from tasks.core.comparing import words
from tasks.core.comparing.flips import AT_ONCE, Flips
from tasks.core.comparing.output import numbers_beside
from tasks.core.comparing.runs import ComparedRun
from tasks.core.comparing.summary import Summary, summarize
from tasks.core.comparison import Comparison
from tasks.core.dataset import load_dataset
from tasks.core.files import replacing
from tasks.core.output import make_output_folder
from tasks.core.pages import rendering
from tasks.core.store import Store


@dataclass(frozen=True)
class Pair:
    """What the page of two runs shows beside numbers."""

    flips: Flips
    difference_chart: str
    reliability_chart: str


def write_comparison(output: Path, store: Store, runs: Sequence[ComparedRun]) -> Summary:
    """Leave the page at `output`, and its numbers beside it as JSON: byte for byte the same for the same runs."""
    numbers = numbers_beside(output)
    make_output_folder(output.parent)
    summary = summarize(runs)
    pair = _pair(store, summary, *runs) if len(runs) == 2 else None
    page = rendering.render("comparison.html.j2", summary=summary, words=words, pair=pair, at_once=AT_ONCE)
    with replacing(output) as page_file, replacing(numbers) as numbers_file:
        page_file.write_text(page, encoding="utf-8", newline="\n")
        numbers_file.write_text(summary.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
    return summary


def _pair(store: Store, summary: Summary, first: ComparedRun, second: ComparedRun) -> Pair:
    calibrations = {first.letter: first.calibration, second.letter: second.calibration}
    return Pair(
        flips=Flips(
            dataset=load_dataset(store.open(first.dataset)),
            letters=(first.letter, second.letter),
            first=first.predictions,
            second=second.predictions,
        ),
        difference_chart=difference_chart(changes_of(summary.changes[0].comparison)),
        reliability_chart=reliability_comparison(calibrations),
    )


def changes_of(comparison: Comparison) -> pd.DataFrame:
    """All images first, then class by class."""
    rows = [("all", comparison.difference), *((each.class_name, each.difference) for each in comparison.per_class)]
    return pd.DataFrame([{"name": name, **asdict(difference)} for name, difference in rows])

"""The comparison as one page that needs no other file, and its numbers for machines beside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd

from tasks.core.data.dataset import load_dataset
from tasks.core.evaluation.paired import Comparison
from tasks.core.reports import html
from tasks.core.reports.charts import difference_chart, reliability_comparison
from tasks.core.reports.compare import formatting
from tasks.core.reports.compare.flips import AT_ONCE, Flips
from tasks.core.reports.compare.runs import ComparedRun
from tasks.core.reports.compare.summary import Summary, summarize
from tasks.core.reports.output_files import make_output_folder, numbers_file
from tasks.core.runtime.files import atomic_write
from tasks.core.store import Store


@dataclass(frozen=True)
class Pair:
    """What the page of two runs shows beside numbers."""

    flips: Flips
    difference_chart: str
    reliability_chart: str


def write_comparison(output: Path, store: Store, runs: Sequence[ComparedRun]) -> Summary:
    """Leave the page at `output`, and its numbers beside it as JSON: byte for byte the same for the same runs."""
    json_file = numbers_file(output)
    make_output_folder(output.parent)
    summary = summarize(runs)
    pair = _pair(store, summary, *runs) if len(runs) == 2 else None
    page = html.render("comparison.html.j2", summary=summary, formatting=formatting, pair=pair, at_once=AT_ONCE)
    with atomic_write(output) as page_file, atomic_write(json_file) as aside:
        page_file.write_text(page, encoding="utf-8", newline="\n")
        aside.write_text(summary.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
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

"""Writes a comparison as a self-contained page, with its numbers as JSON next to it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.core.data.dataset import load_dataset
from tasks.core.reports import html
from tasks.core.reports.charts import difference_chart, reliability_comparison
from tasks.core.reports.compare import formatting
from tasks.core.reports.compare.flips import UNFOLDED_IMAGES, find_flips
from tasks.core.reports.compare.runs import ComparedRun
from tasks.core.reports.compare.summary import Summary, summarize
from tasks.core.reports.output_files import comparison_files, make_output_folder
from tasks.core.runtime.files import atomic_write
from tasks.core.store import Store


def write_comparison(output: Path, store: Store, runs: Sequence[ComparedRun]) -> Summary:
    """Write the page to `output` and its numbers next to it; the same runs give the same bytes."""
    page_path, json_path = comparison_files(output)
    make_output_folder(output.parent, "--html")
    summary = summarize(runs)
    pair = _pair(store, summary, *runs) if len(runs) == 2 else None
    page = html.render(
        "comparison.html.j2", summary=summary, formatting=formatting, pair=pair, unfolded=UNFOLDED_IMAGES
    )
    with atomic_write(page_path) as page_file, atomic_write(json_path) as json_file:
        page_file.write_text(page, encoding="utf-8", newline="\n")
        json_file.write_text(summary.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")
    return summary


def _pair(store: Store, summary: Summary, first: ComparedRun, second: ComparedRun) -> dict[str, Any]:
    dataset = load_dataset(store.open(first.dataset))
    return {
        "flips": find_flips(dataset, first.predictions, second.predictions),
        "difference_chart": difference_chart(summary.changes[0].comparison),
        "reliability_chart": reliability_comparison({run.letter: run.calibration for run in (first, second)}),
    }

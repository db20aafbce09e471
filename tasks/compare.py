"""Compare: several runs on one page, and the summary in Prefect's UI."""

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.core.reports.compare import formatting
from tasks.core.reports.compare.page import write_comparison
from tasks.core.reports.compare.runs import load_runs
from tasks.core.reports.output_files import comparison_files
from tasks.core.runtime.logs import logger
from tasks.core.store import Store
from tasks.ui import best_effort


@task(task_run_name="compare", cache_policy=NO_CACHE)
def compare(store: Store, runs: Sequence[str], output: Path) -> str:
    """Write the comparison page, and its numbers as JSON beside it; returns the verdicts in words."""
    summary = write_comparison(output, store, load_runs(store, runs))
    for line in formatting.log_lines(summary):
        logger.info(line)
    logger.info("compare: wrote %s and %s", *comparison_files(output))
    with best_effort("this comparison"):
        create_markdown_artifact(formatting.markdown(summary), key="comparison", description="Comparison of the runs")
    return formatting.verdicts(summary)

"""Compare: several runs on one page, and what that comes to in Prefect's UI."""

from collections.abc import Sequence
from pathlib import Path

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from tasks.core.reports.compare import formatting
from tasks.core.reports.compare.page import write_comparison
from tasks.core.reports.compare.runs import load_runs
from tasks.core.reports.output_files import numbers_file
from tasks.core.store import Store
from tasks.ui import best_effort


@task(task_run_name="compare", cache_policy=NO_CACHE)
def compare(store: Store, runs: Sequence[str], output: Path) -> str:
    """Write the page that compares runs, and its numbers beside it; returns the verdicts in words."""
    logger = get_run_logger()
    summary = write_comparison(output, store, load_runs(store, runs))
    for line in formatting.lines(summary):
        logger.info(line)
    logger.info(f"written: {output}, and its numbers: {numbers_file(output)}")
    with best_effort(logger, "this comparison"):
        create_markdown_artifact(formatting.markdown(summary), key="comparison", description="How the runs compare")
    return formatting.verdicts(summary)

"""Report: one page for people, numbers for machines, and both in Prefect's UI."""

import json
from collections.abc import Mapping
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.pipeline import report_stage
from tasks.core.promotion_gate import Verdict
from tasks.core.reports.report import summary_markdown
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state


@task(task_run_name="report", cache_policy=NO_CACHE)
def report(
    store: Store, artifacts: Mapping[str, ArtifactRef], verdict: Verdict, pinned: bool, refresh: bool
) -> State[ArtifactRef]:
    """Write the report, then show its summary in Prefect's UI."""
    logger = get_run_logger()
    outcome = store.get_or_create(report_stage(store, artifacts, verdict, pinned), logger.info, refresh=refresh)
    try:
        _show_in_ui(store, outcome.ref, artifacts["per_class"])
    except Exception as error:  # noqa: BLE001 - the files are safe; a server that is gone must not undo the run
        logger.warning(f"Prefect's UI does not show this run's tables: {error}")
    return completed_state(outcome)


def _show_in_ui(store: Store, report: ArtifactRef, per_class: ArtifactRef) -> None:
    table: list[dict[str, Any]] = json.loads(
        read_table(store.open(per_class) / "per_class.parquet").to_json(orient="records")
    )
    metrics = json.loads((store.open(report) / "metrics.json").read_text(encoding="utf-8"))
    create_table_artifact(table, key="per-class", description="Accuracy for each class on the test images")
    create_markdown_artifact(summary_markdown(metrics), key="report", description="What the run came to")

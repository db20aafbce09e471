"""Report: one page for people, numbers for machines, and both in Prefect's UI."""

import json
from typing import Any

from prefect import task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.pipeline_run import Pipeline
from tasks.core.promotion_gate import Verdict
from tasks.core.reports.report import summary_markdown
from tasks.core.runtime.parquet import read_table
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import best_effort, completed_state


@task(task_run_name="report", cache_policy=NO_CACHE)
def report(pipeline: Pipeline, verdict: Verdict) -> State[ArtifactRef]:
    """Write the report, then show its summary in Prefect's UI."""
    outcome = pipeline.build("report", verdict=verdict)
    with best_effort("this run's tables"):
        _show_in_ui(pipeline)
    return completed_state(outcome)


def _show_in_ui(pipeline: Pipeline) -> None:
    per_class = read_table(pipeline.payload("per_class") / "per_class.parquet")
    table: list[dict[str, Any]] = json.loads(per_class.to_json(orient="records"))
    metrics = json.loads((pipeline.payload("report") / "metrics.json").read_text(encoding="utf-8"))
    create_table_artifact(table, key="per-class", description="Accuracy for each class on the test images")
    create_markdown_artifact(summary_markdown(metrics), key="report", description="Summary of the run")

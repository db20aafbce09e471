"""Real runs on tiny images, stage by stage as the pipeline declares them, without Prefect."""

from dataclasses import replace
from pathlib import Path

from tasks.core.config import Settings
from tasks.core.pipeline import STAGES
from tasks.core.pipeline_run import Pipeline, plan_run
from tasks.core.promotion_gate import promotion_gate
from tasks.core.store import open_store
from tasks.core.store.runs import RunRecord, recording_run


def tiny_run(store: Path | str, settings: Settings) -> RunRecord:
    """One whole run of the pipeline, in this process."""
    opened = replace(open_store(store), refresh=settings.refresh)
    with recording_run(opened, settings.to_record(), {}) as run:
        pipeline = Pipeline(plan_run(settings), run)
        for artifact in STAGES:
            if artifact != "report":
                pipeline.build(artifact)
        with promotion_gate(run, settings.promote, settings.tolerance) as verdict:
            pipeline.build("report", verdict=verdict)
    return run.record

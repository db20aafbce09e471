"""Evaluate: predictions for the test images, and the per-class table."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.evaluation.evaluate import log_accuracy, log_scores
from tasks.core.evaluation.metrics import read_scores
from tasks.core.pipeline_run import Pipeline
from tasks.core.runtime.parquet import read_table
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state


@task(task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate(pipeline: Pipeline) -> State[tuple[ArtifactRef, ArtifactRef]]:
    """Predict every test image, and summarize by class."""
    predictions, per_class = pipeline.build("predictions"), pipeline.build("per_class")
    folder = pipeline.payload("per_class")
    log_accuracy(read_table(folder / "per_class.parquet"))
    log_scores(read_scores(folder))
    return completed_state(predictions, per_class)

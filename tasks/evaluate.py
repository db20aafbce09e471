"""Evaluate: predictions and the per-class table from the stored weights."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.evaluation.evaluate import log_accuracy, log_scores
from tasks.core.evaluation.metrics import read_scores
from tasks.core.pipeline import per_class_stage, predictions_stage
from tasks.core.runtime.parquet import read_table
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.training.trainer import Training
from tasks.ui import completed_state


@task(task_run_name="evaluate", cache_policy=NO_CACHE)
def evaluate(
    store: Store, dataset: ArtifactRef, weights: ArtifactRef, training: Training, refresh: bool
) -> State[tuple[ArtifactRef, ArtifactRef]]:
    """Predict every test image, and sum up by class."""
    log = get_run_logger().info
    stage = predictions_stage(store, dataset, weights, training.recipe, training.hardware.device)
    predictions = store.get_or_create(stage, log, refresh=refresh)
    per_class = store.get_or_create(per_class_stage(store, predictions.ref), log, refresh=refresh)
    folder = store.open(per_class.ref)
    log_accuracy(read_table(folder / "per_class.parquet"), log)
    log_scores(read_scores(folder), log)
    return completed_state(predictions, per_class)

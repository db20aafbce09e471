"""Train: weights from the dataset."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.pipeline import weights_stage
from tasks.core.runtime.device import describe_hardware
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.training.trainer import Training
from tasks.prefect_patches import acknowledged_cancels
from tasks.training_progress import training_progress
from tasks.ui import completed_state


@task(task_run_name="train {training.recipe.name} with seed {training.seed}", cache_policy=NO_CACHE)
def train(store: Store, dataset: ArtifactRef, training: Training, refresh: bool) -> State[ArtifactRef]:
    """Train the network by a recipe."""
    logger = get_run_logger()
    recipe = training.recipe
    logger.info(f"training runs on {describe_hardware(training.hardware, recipe.precision, recipe.compile)}")
    with acknowledged_cancels(), training_progress(logger) as (show, say):
        return completed_state(store.get_or_create(weights_stage(store, dataset, training, show), say, refresh=refresh))

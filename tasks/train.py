"""Train: weights from the dataset."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.pipeline_run import Pipeline
from tasks.core.runtime.device import describe_hardware
from tasks.core.runtime.logs import logger
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state
from tasks.ui_progress import progress


@task(
    task_run_name="train {pipeline.plan.training.recipe.name} with seed {pipeline.plan.training.seed}",
    cache_policy=NO_CACHE,
)
def train(pipeline: Pipeline) -> State[ArtifactRef]:
    """Train the network by a recipe."""
    training = pipeline.plan.training
    hardware = describe_hardware(training.hardware, training.recipe.precision, training.recipe.compile)
    logger.info(f"train: on {hardware}")
    with progress("training") as show:
        return completed_state(pipeline.build("weights", lambda at: show(at.images_done, at.total_images, str(at))))

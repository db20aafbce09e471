"""Train: weights from the dataset."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.config import Recipe
from tasks.core.device import choose_device, describe_device
from tasks.core.stages import weights_stage
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.showing import shown


@task(task_run_name="train {recipe.name} with seed {seed}", cache_policy=NO_CACHE)
def train(
    store: Store, dataset: ArtifactRef, recipe: Recipe, seed: int, device: str, refresh: bool
) -> State[ArtifactRef]:
    """Train the network by a recipe."""
    logger, chosen = get_run_logger(), choose_device(device)
    logger.info(f"training runs on {describe_device(chosen)}")
    return shown(store.get_or_create(weights_stage(store, dataset, recipe, seed, chosen), logger.info, refresh=refresh))

"""Normalize and cache: the archive, checked and laid out as arrays."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.config import Normalization
from tasks.core.identity import NOT_CIFAR10, read_identity
from tasks.core.stages import dataset_stage
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.showing import shown


@task(task_run_name="normalize and cache", cache_policy=NO_CACHE)
def normalize_and_cache(store: Store, raw: ArtifactRef, refresh: bool) -> State[ArtifactRef]:
    """Check the archive and keep its images as arrays."""
    logger = get_run_logger()
    outcome = store.get_or_create(dataset_stage(store, raw, Normalization()), logger.info, refresh=refresh)
    if read_identity(store.open(outcome.ref)).generated:
        logger.warning(NOT_CIFAR10)
    return shown(outcome)

"""Normalize and cache: the archive, checked and laid out as arrays, and what these are like."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.config import Normalization
from tasks.core.data.checks import load_checks, log_checks
from tasks.core.data.identity import NOT_CIFAR10
from tasks.core.pipeline import data_checks_stage, dataset_stage
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state


@task(task_run_name="normalize and cache", cache_policy=NO_CACHE)
def normalize_and_cache(store: Store, raw: ArtifactRef, refresh: bool) -> State[tuple[ArtifactRef, ArtifactRef]]:
    """Check the archive, keep its images as arrays, and look for what is odd about them."""
    logger = get_run_logger()
    dataset = store.get_or_create(dataset_stage(store, raw, Normalization()), logger.info, refresh=refresh)
    found = store.get_or_create(data_checks_stage(store, dataset.ref), logger.info, refresh=refresh)
    checks = load_checks(store.open(found.ref))
    log_checks(checks, logger.info)
    if checks.generated_images:
        logger.warning(NOT_CIFAR10)
    return completed_state(dataset, found)

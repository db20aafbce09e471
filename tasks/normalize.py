"""Normalize and cache: check the archive, store its images as arrays, and check the images."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from tasks.core.data.checks import load_checks, log_checks
from tasks.core.data.identity import NOT_CIFAR10
from tasks.core.pipeline_run import Pipeline
from tasks.core.runtime.logs import logger
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state


@task(task_run_name="normalize and cache", cache_policy=NO_CACHE)
def normalize_and_cache(pipeline: Pipeline) -> State[tuple[ArtifactRef, ArtifactRef]]:
    """Store the archive's images as arrays, and look for duplicates among them."""
    dataset, data_checks = pipeline.build("dataset"), pipeline.build("data_checks")
    checks = load_checks(pipeline.payload("data_checks"))
    log_checks(checks)
    if checks.generated_images:
        logger.warning(NOT_CIFAR10)
    return completed_state(dataset, data_checks)

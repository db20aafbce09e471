"""Download: the archive, from its source."""

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run

from tasks.core.data.downloader import TransferBroken
from tasks.core.pipeline_run import Pipeline
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state

RETRY_DELAYS_S = [2.0, 8.0, 32.0]


async def _is_worth_a_retry(_: object, __: TaskRun, state: State) -> bool:
    """Retry a transfer that broke after bytes had arrived; without any network a retry cannot help."""
    return isinstance(await state.aresult(raise_on_failure=False), TransferBroken)


@task(
    task_run_name="download",
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=_is_worth_a_retry,
    cache_policy=NO_CACHE,
)
def download(pipeline: Pipeline) -> State[ArtifactRef]:
    """Fetch the archive once."""
    return completed_state(pipeline.download(is_last_attempt=task_run.run_count > len(RETRY_DELAYS_S)))

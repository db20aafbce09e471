"""Download: the archive, from wherever it comes."""

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run

from tasks.core.acquisition import acquire_archive
from tasks.core.config import StageName
from tasks.core.data.downloader import TransferBroken
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef
from tasks.ui import completed_state

RETRY_DELAYS_S = [2.0, 8.0, 32.0]


async def _bytes_came(_: object, __: TaskRun, state: State) -> bool:
    """A transfer that broke is worth another try; a network that is not there is not."""
    return isinstance(await state.aresult(raise_on_failure=False), TransferBroken)


@task(
    task_run_name="download",
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=_bytes_came,
    cache_policy=NO_CACHE,
)
def download(
    store: Store, source: str, sha256: str | None, fallback: str | None, refresh: StageName | None
) -> State[ArtifactRef]:
    """Fetch the archive once."""
    last_try = task_run.run_count > len(RETRY_DELAYS_S)
    log = get_run_logger().info
    return completed_state(acquire_archive(store, source, sha256, fallback, log, refresh=refresh, last_try=last_try))

"""A look at all that a run stands on: environment, Prefect, device, disk and store."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import httpx

from tasks.core.config import PROJECT, cache_folder, is_bucket, strip_credentials
from tasks.core.errors import CifarFlowError
from tasks.core.frozen_model import FrozenModel

if TYPE_CHECKING:
    from prefect.client.schemas.responses import DeploymentResponse

ROOMY_BYTES = 2_000_000_000  # the archive, the arrays made of it, and a few runs
PATIENCE_S = 5
POOL, FLOW = "cifar", "cifar"


class Check(FrozenModel):
    """What was found, and what to do about it: `bad` must be seen to, `note` may be meant so."""

    name: str
    state: Literal["ok", "note", "bad"]
    found: str
    advice: str = ""


def examine(location: str) -> Iterator[Check]:
    """Every check in turn, those that take longest last."""
    yield _python()
    yield _versions()
    yield _disk(location)
    yield from _store(location)
    yield from _prefect()
    yield _device()


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if Path(sys.prefix) == Path(sys.base_prefix):
        return Check(name="Python", state="note", found=f"{found}, no virtual environment", advice="use `make`'s .venv")
    return Check(name="Python", state="ok", found=found)


def _versions() -> Check:
    """What is installed against what was tested."""
    tested_file = PROJECT / "constraints.txt"
    if not tested_file.is_file():
        return Check(
            name="versions", state="note", found=f"no constraints.txt in {PROJECT}", advice="run from a checkout"
        )
    lines = [line.partition("==") for line in tested_file.read_text(encoding="utf-8").splitlines() if "==" in line]
    differ = [
        f"{name} {installed} instead of {tested}"
        for name, _, tested in lines
        if (installed := _installed(name)) not in (None, tested.strip())
    ]
    if differ:
        return Check(name="versions", state="note", found=", ".join(differ), advice="touch constraints.txt; make lint")
    return Check(name="versions", state="ok", found=f"all {len(lines)} as in constraints.txt")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _disk(location: str) -> Check:
    folder = cache_folder() if is_bucket(location) else Path(location)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:,.1f} GB free in {folder}"
    if free > ROOMY_BYTES:
        return Check(name="disk", state="ok", found=found)
    advice = f"a first run takes {ROOMY_BYTES / 1e9:.0f} GB: free some (`cifar gc`), or give --store"
    return Check(name="disk", state="bad", found=found, advice=advice)


def _store(location: str) -> Iterator[Check]:
    from tasks.core.store.current import open_store, read_current
    from tasks.core.store.history import history
    from tasks.core.store.opening import NoStore
    from tasks.core.store.promotion_log import find_gaps
    from tasks.core.store.runs import read_records, run_ids
    from tasks.core.store.storage import QUARANTINE

    said: list[str] = []
    try:
        store = open_store(location, said.append, must_exist=True)
        there, current, rows = run_ids(store), read_current(store), history(store)
    except CifarFlowError as error:
        words, _, advice = str(error).partition("; ")
        state = "note" if isinstance(error, NoStore) else "bad"
        yield Check(name="store", state=state, found=words.removeprefix("store "), advice=advice)
        return
    running = sum(row.status == "running" for row in rows)
    found = f"{location}: {len(rows)} runs, {running} in progress, current {current.run if current else 'none'}"
    yield Check(name="store", state="ok", found=found, advice="`cifar verify` hashes all of it")
    if unreadable := set(there) - {row.run for row in rows}:
        found = f"records of runs that cannot be read: {len(unreadable)}"
        yield Check(name="store", state="bad", found=found, advice="`cifar verify` says which")
    for wrong, advice in find_gaps(store, read_records(store)):
        yield Check(name="store", state="bad", found=wrong, advice=advice)
    for line in said:
        words, _, advice = line.partition("; ")
        yield Check(name="store", state="bad", found=words, advice=advice)
    if set_aside := len(store.storage.folders(QUARANTINE)) + len(store.storage.names(QUARANTINE)):
        found = f"{set_aside} damaged pieces were set aside in {QUARANTINE}"
        yield Check(name="store", state="note", found=found, advice="check the disk; delete what you do not need")


def _prefect() -> Iterator[Check]:
    """The server, and whether a deployment's runs would find this project and a worker."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    configured = get_current_settings().api.url
    if not configured:
        found = "no server is configured: each run starts one of its own"
        yield Check(name="Prefect", state="ok", found=found, advice="for deployments: make ui, and set PREFECT_API_URL")
        return
    url, flow = strip_credentials(configured), FlowFilter(name=FlowFilterName(any_=[FLOW]))
    no_patience = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with no_patience, get_client(sync_client=True, httpx_settings={"timeout": PATIENCE_S}) as client:
        try:
            server = client.api_version()
            deployments = client.read_deployments(flow_filter=flow)
            pools = [pool.name for pool in client.read_work_pools()]
            workers = client.read_workers_for_work_pool(POOL) if POOL in pools else []
        except (httpx.HTTPError, ValueError) as error:
            found = f"{url}: {(str(error) or type(error).__name__).splitlines()[0]}"
            yield Check(name="Prefect", state="bad", found=found, advice="start it (make ui), or unset PREFECT_API_URL")
            return
    yield _server(url, server, ours=version("prefect"))
    if not deployments:
        yield Check(name="deployment", state="note", found="none is registered", advice="make deploy")
    for deployment in deployments:
        yield _deployment(deployment)
    online = [worker.name for worker in workers if worker.status == "ONLINE"]
    if online:
        yield Check(name="worker", state="ok", found=", ".join(online))
    elif deployments:
        yield Check(name="worker", state="note", found=f"none of pool {POOL} is online", advice="make worker")


def _server(url: str, server: str, ours: str) -> Check:
    found = f"server {server} at {url}, client {ours}"
    if server == ours:
        return Check(name="Prefect", state="ok", found=found)
    return Check(name="Prefect", state="note", found=found, advice="install the same version on both sides")


def _deployment(deployment: "DeploymentResponse") -> Check:
    """Whether the folder that a worker goes to is there, for a worker on this machine."""
    name = f"deployment {deployment.name}"
    steps = [step for each in deployment.pull_steps or [] for step in each.values()]
    folders = [step["directory"] for step in steps if "directory" in step]
    lost = [folder for folder in folders if not os.path.isdir(folder)]  # noqa: PTH112 - a server's text, not our path
    if lost:
        return Check(name=name, state="bad", found=f"its worker's folder {lost[0]} is not here", advice="make deploy")
    return Check(name=name, state="ok", found=f"its worker's folder is {folders[0] if folders else 'of its own'}")


def _device() -> Check:
    import torch

    from tasks.core.runtime.device import choose_device, describe_device

    chosen = choose_device("auto")
    found = f"{describe_device(chosen)}; torch {torch.__version__}"
    if chosen.type == "cpu" and shutil.which("nvidia-smi"):
        advice = "the driver is there, but torch does not see a GPU: compare `nvidia-smi` with torch.version.cuda"
        return Check(name="device", state="bad", found=f"{found} (CUDA {torch.version.cuda})", advice=advice)
    return Check(name="device", state="ok", found=found)

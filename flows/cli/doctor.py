"""The `doctor` command: checks the environment, Prefect, the device, the disk and the store."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.markup import escape

from flows.cli.options import JsonOption, StoreOption
from flows.cli.printing import print_result
from tasks.core.config import PROJECT, cache_folder, is_bucket, store_location, strip_credentials
from tasks.core.errors import CifarFlowError
from tasks.core.runtime.logs import log_handler
from tasks.core.store import open_store
from tasks.core.store.current import read_current
from tasks.core.store.history import history
from tasks.core.store.opening import NoStore
from tasks.core.store.promotion_log import find_gaps
from tasks.core.store.runs import read_records, run_ids
from tasks.core.store.storage import QUARANTINE

FIRST_RUN_BYTES = 2_000_000_000  # the archive, the dataset, and a few runs
TIMEOUT_S = 5
POOL, FLOW = "cifar", "cifar"
COLORS = {"ok": "green", "note": "yellow", "bad": "red"}
State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Check:
    """A check and what to do about it: `bad` needs an action, a `note` may be intended."""

    name: str
    state: State
    found: str
    advice: str = ""


def doctor(*, store: StoreOption = None, json: JsonOption = False) -> int:
    """Check environment, Prefect, device, disk and store; exit code 1 if something needs an action."""
    checks = list(run_checks(store_location(store)))
    print_result(checks, print_checks, json=json)
    return int(any(check.state == "bad" for check in checks))


def print_checks(checks: Sequence[Check]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for check in checks:
        color = COLORS[check.state]
        advice = f" → {check.advice}" if check.advice else ""
        console.print(f"[{color}]{check.state:4}[/{color}]  {check.name}: {escape(check.found)}{escape(advice)}")


def run_checks(location: str) -> Iterator[Check]:
    """Run every check, the slow ones last."""
    yield _check_python()
    yield _check_versions()
    yield _check_disk(location)
    yield from _check_store(location)
    yield from _check_prefect()
    yield _check_device()


def _check_python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    if Path(sys.prefix) == Path(sys.base_prefix):
        return Check("Python", "note", f"{found}, not a virtual environment", "use the .venv that `make` creates")
    return Check("Python", "ok", found)


def _check_versions() -> Check:
    constraints = PROJECT / "constraints.txt"
    if not constraints.is_file():
        return Check("versions", "note", f"no constraints.txt in {PROJECT}", "run from a checkout")
    lines = [line.partition("==") for line in constraints.read_text(encoding="utf-8").splitlines() if "==" in line]
    differences = []
    for name, _, tested in lines:
        with suppress(PackageNotFoundError):
            if version(name) != tested:
                differences.append(f"{name} {version(name)} instead of {tested}")
    if differences:
        return Check("versions", "note", ", ".join(differences), "touch constraints.txt; make lint")
    return Check("versions", "ok", f"all {len(lines)} as in constraints.txt")


def _check_disk(location: str) -> Check:
    folder = cache_folder() if is_bucket(location) else Path(location)
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    found = f"{free_bytes / 1e9:,.1f} GB free in {folder}"
    if free_bytes > FIRST_RUN_BYTES:
        return Check("disk", "ok", found)
    needed = f"a first run needs {FIRST_RUN_BYTES / 1e9:.0f} GB"
    return Check("disk", "bad", found, f"{needed}: free some space (`cifar gc`), or give another --store")


def _check_store(location: str) -> Iterator[Check]:
    repairs: list[str] = []
    try:
        with log_handler(lambda record: repairs.append(record.getMessage())):
            store = open_store(location, must_exist=True)
        ids, current, rows = run_ids(store), read_current(store), history(store)
    except CifarFlowError as error:
        state: State = "note" if isinstance(error, NoStore) else "bad"
        yield Check("store", state, error.problem, error.advice or "`cifar verify` checks every file")
        return
    running = sum(row.status == "running" for row in rows)
    found = f"{location}: {len(rows)} runs, {running} in progress, current {current.run if current else 'none'}"
    yield Check("store", "ok", found, "`cifar verify` checks every file")
    if unreadable := set(ids) - {row.run for row in rows}:
        yield Check("store", "bad", f"unreadable run records: {len(unreadable)}", "`cifar verify` lists them")
    for problem, advice in find_gaps(store, read_records(store)):
        yield Check("store", "bad", problem, advice)
    for repair in repairs:
        yield Check("store", "bad", repair.removeprefix("store: "), "`cifar verify` checks every file")
    if damaged := len(store.storage.folders(QUARANTINE)) + len(store.storage.names(QUARANTINE)):
        found = f"{damaged} damaged files or folders in {QUARANTINE}"
        yield Check("store", "note", found, "check the disk; delete what you do not need")


def _check_prefect() -> Iterator[Check]:
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowFilter, FlowFilterName
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

    configured_url = get_current_settings().api.url
    if not configured_url:
        advice = "for deployments: make ui, and set PREFECT_API_URL"
        yield Check("Prefect", "ok", "no server is configured: each run starts its own", advice)
        return
    url, flow = strip_credentials(configured_url), FlowFilter(name=FlowFilterName(any_=[FLOW]))
    no_retries = temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0})
    with no_retries, get_client(sync_client=True, httpx_settings={"timeout": TIMEOUT_S}) as client:
        try:
            server_version = client.api_version()
            deployments = client.read_deployments(flow_filter=flow)
            pools = [pool.name for pool in client.read_work_pools()]
            workers = client.read_workers_for_work_pool(POOL) if POOL in pools else []
        except (httpx.HTTPError, ValueError) as error:
            found = f"{url}: {(str(error) or type(error).__name__).splitlines()[0]}"
            yield Check("Prefect", "bad", found, "start it (make ui), or unset PREFECT_API_URL")
            return
    client_version = version("prefect")
    is_same = server_version == client_version
    found = f"server {server_version} at {url}, client {client_version}"
    advice = "" if is_same else "install the same version of server and client"
    yield Check("Prefect", "ok" if is_same else "note", found, advice)
    if not deployments:
        yield Check("deployment", "note", "none is registered", "make deploy")
    for deployment in deployments:
        yield _check_deployment(f"deployment {deployment.name}", deployment.pull_steps or [])
    online = [worker.name for worker in workers if worker.status == "ONLINE"]
    if online:
        yield Check("worker", "ok", ", ".join(online))
    elif deployments:
        yield Check("worker", "note", f"none of pool {POOL} is online", "make worker")


def _check_deployment(name: str, pull_steps: list[dict[str, Any]]) -> Check:
    folders = [step["directory"] for steps in pull_steps for step in steps.values() if "directory" in step]
    missing = [folder for folder in folders if not os.path.isdir(folder)]  # noqa: PTH112 - text from a server
    if missing:
        return Check(name, "bad", f"its folder {missing[0]} does not exist here", "make deploy")
    return Check(name, "ok", f"its folder is {folders[0] if folders else 'the default of its worker'}")


def _check_device() -> Check:
    import torch

    from tasks.core.runtime.device import choose_device, describe_device

    device = choose_device("auto")
    found = f"{describe_device(device)}; torch {torch.__version__}"
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        advice = "PyTorch does not find the GPU of the driver: compare `nvidia-smi` with torch.version.cuda"
        return Check("device", "bad", f"{found} (CUDA {torch.version.cuda})", advice)
    return Check("device", "ok", found)

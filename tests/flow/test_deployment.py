"""The deployment, on a real server and a real worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pipeline import Pipeline, copy_of_project
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, StateType
from prefect.settings import PREFECT_API_URL, temporary_settings
from waiting import wait_for

DEPLOYMENT = "cifar/tutorial"


def prefect(pipeline: Pipeline, *arguments: str, exit_code: int = 0) -> str:
    command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
    done = subprocess.run(
        command,
        cwd=pipeline.project,
        env=pipeline.environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == exit_code, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def deployed(prefect_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """The deployments of prefect.yaml on a server, and a worker that runs what is started there."""
    folder = tmp_path_factory.mktemp("deployed")
    project = copy_of_project(folder / "project")
    environment = {
        "PREFECT_API_URL": prefect_url,
        "PYTHONPATH": str(project),
        "CIFAR_FLOW_STORE": "",  # the default one
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }
    pipeline = Pipeline(project / "artifacts", folder / "home", folder, project, environment)
    prefect(pipeline, "work-pool", "create", "cifar", "--type", "process", "--overwrite")
    prefect(pipeline, "deploy", "--all")
    log = folder / "worker.log"
    with log.open("w") as output:
        worker = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cifar"],
            cwd=folder,
            env=pipeline.environ(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        wait_for(lambda: "started" in log.read_text(), "the worker")
        yield pipeline
    finally:
        os.killpg(worker.pid, 9)
        worker.wait()


def test_a_deployment_run_lands_in_the_projects_store(deployed: Pipeline, archive: Path) -> None:
    printed = prefect(deployed, "deployment", "run", DEPLOYMENT, "--watch", "-p", f"source={archive}", "-p", "epochs=1")
    assert "finished successfully" in printed
    [record] = deployed.records()
    assert record["status"] == "completed"
    assert record["settings"]["epochs"] == 1
    assert (deployed.store / "per_class.parquet").is_file()


@pytest.mark.parametrize("parameter", ["epochs=0", "epohcs=3", "promote=maybe"])
def test_wrong_parameters_are_refused_before_a_run_exists(deployed: Pipeline, parameter: str) -> None:
    before = len(deployed.records())
    prefect(deployed, "deployment", "run", DEPLOYMENT, "-p", parameter, exit_code=1)
    assert len(deployed.records()) == before


def test_a_run_cancelled_in_training_is_cancelled_and_never_crashed(
    deployed: Pipeline, archive: Path, prefect_url: str
) -> None:
    unfinished = deployed.store / ".work" / "unfinished"
    parameters = {"source": str(archive), "epochs": 500, "batch_size": 1}
    with temporary_settings({PREFECT_API_URL: prefect_url}), get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        flow_run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        wait_for(lambda: any(unfinished.glob("*/checkpoint.pt")), "the first checkpoint")
        client.set_flow_run_state(flow_run.id, State(type=StateType.CANCELLING))

        def states() -> set[StateType]:
            return {state.type for state in client.read_flow_run_states(flow_run.id)}

        wait_for(lambda: StateType.CANCELLED in states(), "the run to be cancelled")
        assert StateType.CRASHED not in states()
    assert deployed.records()[-1]["status"] == "interrupted"


def test_a_run_that_fails_says_so_to_whoever_watches(deployed: Pipeline) -> None:
    missing = "source=/no/such/archive"
    printed = prefect(deployed, "deployment", "run", DEPLOYMENT, "--watch", "-p", missing, exit_code=1)
    assert "Failed" in printed

"""The server of our own: nothing is left of it, however a run ends."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from pipeline import Pipeline
from waiting import wait_for

from flows.local_server import LocalServer

LONG = ("--epochs", 500)


def started(pipeline: Pipeline, archive: Path) -> "subprocess.Popen[str]":
    """A run in mid-training."""
    process = pipeline.start("--source", archive, *LONG)
    assert process.stdout is not None
    for line in process.stdout:
        if "loss:" in line:
            return process
    raise AssertionError(f"the run ended with {process.wait()} before it trained")


def children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return not state.stdout.startswith("Z")


def test_after_a_signal_nothing_is_left_running_and_the_next_run_works(pipeline: Pipeline, archive: Path) -> None:
    for number, exit_code, status in (
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, -signal.SIGTERM, "interrupted"),
        (signal.SIGKILL, -signal.SIGKILL, "running"),
    ):
        process = started(pipeline, archive)
        servers = children(process.pid)
        assert servers
        os.killpg(process.pid, number)  # as a terminal does on Ctrl-C
        printed, _ = process.communicate(timeout=30)
        assert process.returncode == exit_code
        assert "Traceback" not in printed
        assert pipeline.records()[-1]["status"] == status
        wait_for(lambda: not any(map(alive, servers)), "the end of the local server", timeout_s=10)  # noqa: B023

    pipeline.run("--source", archive)
    assert [record["status"] for record in pipeline.records()] == ["interrupted", "interrupted", "killed", "completed"]


def test_a_first_run_on_an_empty_prefect_home_is_quiet(pipeline: Pipeline, archive: Path, tmp_path: Path) -> None:
    fresh = Pipeline(pipeline.store, tmp_path / "home", pipeline.cwd)
    printed = fresh.run("--source", archive)
    assert "Traceback" not in printed
    assert "locked" not in printed
    assert "ERROR" not in printed


def test_the_current_folder_may_have_modules_of_the_same_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flows", "tasks"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError\n")
    monkeypatch.chdir(tmp_path)
    server = LocalServer.start()
    try:
        server.wait_until_ready()
    finally:
        server.end()


def test_a_server_that_is_configured_is_used(pipeline: Pipeline, archive: Path, prefect_url: str) -> None:
    configured = Pipeline(pipeline.store, pipeline.home, pipeline.cwd, environment={"PREFECT_API_URL": prefect_url})
    process = configured.start("--source", archive, *LONG)
    assert process.stdout is not None
    for line in process.stdout:
        if "loss:" in line:
            break
    assert children(process.pid) == []
    process.kill()
    process.wait()


def test_a_configured_server_that_does_not_answer_is_one_line(pipeline: Pipeline, archive: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
    lost = Pipeline(pipeline.store, pipeline.home, pipeline.cwd, environment={"PREFECT_API_URL": url})
    [line] = lost.run("--source", archive, exit_code=1).splitlines()
    assert line.startswith(f"error: Prefect's server: expected an answer from {url}, got ")
    assert line.endswith("; start it (make ui), or unset PREFECT_API_URL")
    assert not pipeline.store.exists()

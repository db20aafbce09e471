"""The `cifar` command as a real process: exit codes, a terminal, a pipe, a Prefect server."""

import json
import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path

import pytest
from pipeline import Pipeline, built, copy_of_project, hits
from places import FolderPlace, flip_a_bit

from flows.cli.doctor import Check, run_checks
from tasks.core.store import open_store
from tasks.core.store.history import find_run

CIFAR = Path(sys.executable).with_name("cifar")
LIGHT = """
import sys
from flows.cli.main import main
assert main(sys.argv[1:]) == 0
print({"torch", "prefect", "pandas", "numpy"} & set(sys.modules), file=sys.stderr)
"""

Cifar = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def shell(artifacts: Path, prefect_home: Path, tmp_path: Path) -> Pipeline:
    """An environment whose store is a copy of the one of two real runs, and that knows of no Prefect server."""
    return Pipeline(artifacts, prefect_home, cwd=tmp_path)


@pytest.fixture
def cifar(shell: Pipeline) -> Cifar:
    def run(*arguments: str, exit_code: int = 0, **environment: str) -> "subprocess.CompletedProcess[str]":
        environ = shell.environ() | environment
        done = subprocess.run(
            [CIFAR, *arguments], env=environ, cwd=shell.cwd, capture_output=True, text=True, check=False
        )
        assert done.returncode == exit_code, done.stderr
        return done

    return run


def weights_of(store: Path, run: str) -> str:
    return str(find_run(open_store(store), run).artifacts["weights"])


# Exit codes and imports


def test_success_exits_with_0_and_prints_nothing_to_stderr(cifar: Cifar) -> None:
    for arguments in (["history"], ["verify"], ["compare", "previous", "current"], ["--help"], ["--version"]):
        done = cifar(*arguments)
        assert done.stdout
        assert done.stderr == ""


def test_wrong_input_exits_with_2_and_one_line_on_stderr(cifar: Cifar) -> None:
    for arguments in (["show", "nope"], ["gc"], ["run", "--epochs", "0"], ["run", "--source", "no/such/file"]):
        done = cifar(*arguments, exit_code=2)
        assert done.stdout == ""
        [line] = done.stderr.splitlines()
        assert line.startswith("error: ")


def test_damage_exits_with_1_and_is_named(cifar: Cifar, artifacts: Path) -> None:
    damaged = weights_of(artifacts, "current")
    flip_a_bit(FolderPlace(artifacts), f"{damaged}/cifar_net.pth")

    assert cifar("verify", exit_code=1).stdout.startswith(f"{damaged}: cifar_net.pth is damaged")
    done = cifar("path", "weights", exit_code=1)
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    assert line.startswith(f"error: {damaged}: cifar_net.pth is damaged")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["compare", "--help"],
        ["export", "--help"],
        ["history"],
        ["show", "current"],
        ["path", "per_class"],
        ["verify"],
    ],
)
def test_light_commands_import_no_heavy_libraries(shell: Pipeline, arguments: list[str]) -> None:
    command = [sys.executable, "-c", LIGHT, *arguments]
    done = subprocess.run(command, env=shell.environ(), cwd=shell.cwd, capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


# Terminals and pipes


def test_lines_fit_a_terminal_of_80_columns(shell: Pipeline) -> None:
    run, weights = find_run(open_store(shell.store), "current").run, weights_of(shell.store, "current")
    for arguments in (["history"], ["show", "current"], ["compare", "previous", "current"], ["show", weights]):
        lines = shown_on_terminal(shell, *arguments).splitlines()
        assert max(map(len, lines)) <= 80
        assert any(run in line for line in lines)


def shown_on_terminal(shell: Pipeline, *arguments: str, columns: int = 80) -> str:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    environ = {name: value for name, value in shell.environ().items() if name != "COLUMNS"}
    with subprocess.Popen([CIFAR, *arguments], stdout=theirs, env=environ, cwd=shell.cwd) as process:
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    return shown.decode()


def test_a_closed_pipe_is_no_error(shell: Pipeline) -> None:
    """As in `cifar history | head -1`."""
    [record, *_] = sorted((shell.store / "runs").iterdir())
    for number in range(1_000):
        run = f"20250101-{number:06}-abcdef"
        (shell.store / "runs" / f"{run}.json").write_text(record.read_text().replace(record.stem, run))
    with subprocess.Popen(
        [CIFAR, "history"], env=shell.environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"run ")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_characters_outside_the_encoding_are_replaced(cifar: Cifar) -> None:
    printed = cifar("promote", "previous", "--why", "from → to", PYTHONIOENCODING="latin-1").stdout
    assert printed.endswith(": from ? to)\n")


def test_a_full_output_device_is_one_line(shell: Pipeline) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [CIFAR, "history"], env=shell.environ(), stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == "error: stdout: No space left on device; write it to another place\n"


# run


def test_run_reuses_the_artifacts_of_the_library(
    cifar: Cifar, archive: Path, prefect_url: str, artifacts: Path
) -> None:
    before = len(list((artifacts / "runs").iterdir()))

    done = cifar("run", "--source", str(archive), "--epochs", "1", "--seed", "2", PREFECT_API_URL=prefect_url)

    log = done.stdout + done.stderr
    assert built(log) == []
    assert hits(log) == ["dataset", "data_checks", "weights", "predictions", "per_class", "report"]
    assert len(list((artifacts / "runs").iterdir())) == before + 1


def test_explain_names_what_changed_in_the_code(cifar: Cifar, archive: Path, tmp_path: Path) -> None:
    project = copy_of_project(tmp_path / "project")
    model = project / "tasks" / "core" / "models" / "tutorial_net.py"
    text = model.read_text(encoding="utf-8")
    changed = text.replace("self.pool(torch.relu(self.conv1", "self.pool(torch.tanh(self.conv1")
    assert changed != text
    model.write_text(f"# a comment\n{changed}", encoding="utf-8")
    settings = ["--source", str(archive), "--epochs", "1", "--seed", "2"]

    lines = cifar("run", "--explain", *settings, PYTHONPATH=str(project)).stdout.splitlines()

    assert lines[1].startswith("normalize: cache hit dataset/")
    change = "code tasks/core/models/tutorial_net.py: Net changed"
    assert lines[3] == f"train: rebuilding, {change}"
    assert lines[4] == f"evaluate: rebuilding, input weights will be rebuilt, {change}"


# doctor


def test_doctor_finds_a_running_server(cifar: Cifar, prefect_url: str, artifacts: Path) -> None:
    checks = {
        check["name"]: check for check in json.loads(cifar("doctor", "--json", PREFECT_API_URL=prefect_url).stdout)
    }

    assert {"Python", "versions", "disk", "store", "Prefect", "device"} <= set(checks)
    assert all(set(check) == {"name", "state", "found", "advice"} for check in checks.values())
    assert checks["Prefect"]["state"] == "ok"
    assert f"at {prefect_url}, client " in checks["Prefect"]["found"]
    assert checks["store"]["found"].startswith(f"{artifacts}: 2 runs, 0 in progress, current ")
    assert all(check["advice"] for check in checks.values() if check["state"] != "ok")


def test_doctor_exits_with_1_if_the_server_does_not_answer(cifar: Cifar) -> None:
    printed = cifar("doctor", exit_code=1, PREFECT_API_URL="http://user:secret@127.0.0.1:9/api").stdout

    [line] = [line for line in printed.splitlines() if " Prefect: " in line]
    assert line.startswith("bad   Prefect: http://127.0.0.1:9/api: ")
    assert line.endswith(" → start it (make ui), or unset PREFECT_API_URL")
    assert "secret" not in printed


def test_doctor_needs_no_server_and_creates_no_store(cifar: Cifar, tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere" / "artifacts"

    lines = cifar("doctor", "--store", str(nowhere)).stdout.splitlines()

    assert any(line.startswith("ok    Prefect: no server is configured") for line in lines)
    [store] = [line for line in lines if " store: " in line]
    assert store.startswith(f"note  store: store {nowhere}: there is none yet → give another one by --store")
    assert not nowhere.parent.exists()


def store_checks(artifacts: Path) -> list[Check]:
    """The checks of the store, without the slow checks after them."""
    checks = takewhile(lambda check: check.name != "Prefect", run_checks(str(artifacts)))
    return [check for check in checks if check.name == "store"]


def test_doctor_and_history_count_unreadable_records(cifar: Cifar, artifacts: Path) -> None:
    [record, _] = sorted((artifacts / "runs").iterdir())
    record.write_text("{")
    with (artifacts / "promotions.jsonl").open("a") as log:
        log.write("{torn\n")

    states = {check.found: check.state for check in store_checks(artifacts)}
    history = cifar("history")

    assert states["unreadable run records: 1"] == "bad"
    assert states["promotions.jsonl: 1 lines cannot be read"] == "bad"
    assert history.stderr == "unreadable run records, not listed: 1; see `cifar verify`\n"


def test_doctor_reports_a_store_of_another_format(artifacts: Path) -> None:
    (artifacts / "store.json").write_text('{"format": 99}')
    [check] = store_checks(artifacts)
    assert (check.state, check.found) == ("bad", f"store {artifacts}: expected format 1, got 99")


def test_exit_handlers_run_before_the_process_exits() -> None:
    code = "import atexit, flows.cli.main as cli\n"
    code += "cli.main = lambda arguments: print(arguments) or atexit.register(print, 'bye') and 3\n"
    code += "atexit.register(print, 'not printed')\ncli.start()"
    done = subprocess.run([sys.executable, "-c", code, "--seed", "5"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (3, "['--seed', '5']\nbye\n", "")

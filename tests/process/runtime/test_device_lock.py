"""The lock of a device, which ends with its process: real processes that wait and are killed."""

import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from killing import PRINT_LOG, Process, kill, kill_at_every_step, next_line, python_process, resume

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime import device_lock

HOLDER = f"""
import os, sys
from pathlib import Path
from tasks.core.runtime import device_lock
{PRINT_LOG}
device_lock.SHARED_FOLDER = Path(sys.argv[1])
if len(sys.argv) > 3:
    os.setuid(int(sys.argv[3]))
os.umask(0o077)
try:
    with device_lock.device_lock(sys.argv[2].split()):
        print("locked", flush=True)
        sys.stdin.readline()
except KeyboardInterrupt:
    print("interrupted")
"""
WAITING = "train: waiting for gpu, another process trains on it"
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the locks, which does not exist yet."""
    monkeypatch.setattr(device_lock, "SHARED_FOLDER", tmp_path / "devices")
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "cache"))
    return device_lock.SHARED_FOLDER


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def start(processes: ExitStack, folder: Path, devices: str = "gpu", *user: int) -> Process:
    """Start a process that locks devices and waits for a line of input."""
    return processes.enter_context(python_process(HOLDER, folder, devices, *user))


def start_holder(processes: ExitStack, folder: Path, devices: str = "gpu", *user: int) -> Process:
    process = start(processes, folder, devices, *user)
    assert next_line(process) == "locked"
    return process


def check_is_free(*devices: str) -> None:
    with device_lock.device_lock(devices):
        pass


@pytest.mark.usefixtures("folder")
def test_a_free_device_is_locked_without_a_log_line(log: list[str]) -> None:
    check_is_free("gpu")
    check_is_free("gpu")

    assert log == []


def test_a_waiting_run_logs_it_once_and_is_next(folder: Path, processes: ExitStack) -> None:
    first = start_holder(processes, folder)
    second = start(processes, folder)

    assert next_line(second) == WAITING
    assert resume(first) == []
    assert next_line(second) == "locked"


def test_a_change_of_the_holder_is_not_logged_again(folder: Path, processes: ExitStack) -> None:
    first = start_holder(processes, folder)
    waiting = [start(processes, folder) for _ in range(2)]
    for process in waiting:
        assert next_line(process) == WAITING

    kill(first)
    for process in waiting:
        assert process.stdin
        process.stdin.write("go on\n")
        process.stdin.flush()

    assert [next_line(process) for process in waiting] == ["locked", "locked"]


def test_a_killed_holder_frees_its_device(folder: Path, processes: ExitStack) -> None:
    first = start_holder(processes, folder)
    second = start(processes, folder)
    assert next_line(second) == WAITING

    kill(first)

    assert next_line(second) == "locked"


def test_a_forked_child_of_a_killed_holder_does_not_keep_the_device(folder: Path, processes: ExitStack) -> None:
    forking = HOLDER.replace("sys.stdin.readline()", "os.fork() or print(os.getpid(), flush=True); sys.stdin.read()")
    holder = processes.enter_context(python_process(forking, folder, "gpu"))
    assert next_line(holder) == "locked"
    child = int(next_line(holder))

    kill(holder)

    check_is_free("gpu")
    os.kill(child, signal.SIGKILL)  # it was alive all the time


def test_a_kill_at_any_step_blocks_no_other_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "cache"))
    act = """
from tasks.core.runtime import device_lock

def act(root):
    root.mkdir(exist_ok=True)
    device_lock.SHARED_FOLDER = root / "devices"
    with device_lock.device_lock(["one", "two"]):
        pass
"""
    for root in kill_at_every_step(act, tmp_path / "nothing", tmp_path / "copies"):
        monkeypatch.setattr(device_lock, "SHARED_FOLDER", root / "devices")
        check_is_free("one", "two")
        assert stat.S_IMODE(device_lock.SHARED_FOLDER.stat().st_mode) == 0o777


def test_ctrl_c_ends_the_wait(folder: Path, processes: ExitStack) -> None:
    holder = start_holder(processes, folder)
    waiting = start(processes, folder)
    next_line(waiting)

    waiting.send_signal(signal.SIGINT)

    assert next_line(waiting) == "interrupted"
    assert waiting.wait() == 0
    assert resume(holder) == []


def test_an_interrupted_holder_frees_its_device(folder: Path, processes: ExitStack) -> None:
    holder = start_holder(processes, folder)

    holder.send_signal(signal.SIGINT)

    assert next_line(holder) == "interrupted"
    check_is_free("gpu")


@pytest.mark.usefixtures("folder")
def test_a_device_is_free_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), device_lock.device_lock(["gpu"]):
        _ = 1 / 0

    check_is_free("gpu")


def test_two_devices_do_not_wait_for_each_other(folder: Path, processes: ExitStack) -> None:
    one = start_holder(processes, folder, "a")

    start_holder(processes, folder, "b")

    assert resume(one) == []


@pytest.mark.parametrize("order", ["a b", "b a", "b a b"])
def test_several_devices_are_locked_in_one_order(folder: Path, processes: ExitStack, order: str) -> None:
    holder_of_b = start_holder(processes, folder, "b")
    both = start(processes, folder, order)
    assert next_line(both) == "train: waiting for b, another process trains on it"

    other = start(processes, folder, "a")
    assert next_line(other) == "train: waiting for a, another process trains on it"

    resume(holder_of_b)
    assert next_line(both) == "locked"
    resume(both)
    assert next_line(other) == "locked"


def test_all_users_may_write_to_the_folder_and_its_locks(folder: Path, processes: ExitStack) -> None:
    start_holder(processes, folder)

    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in [folder, *folder.iterdir()]} == {
        "devices": "0o777",
        "gpu.lock": "0o666",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
@pytest.mark.parametrize("users", [(0, NOBODY), (NOBODY, 0), (NOBODY, NOBODY - 1)])
def test_two_users_wait_for_each_other(processes: ExitStack, users: tuple[int, int]) -> None:
    # Other users cannot enter pytest's own folder. A killed process may still be closing its last file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        Path(root).chmod(0o1777)
        folder = Path(root) / "devices"
        first = start_holder(processes, folder, "gpu", users[0])
        second = start(processes, folder, "gpu", users[1])
        assert next_line(second) == WAITING
        kill(first)
        assert next_line(second) == "locked"
        third = start(processes, folder, "gpu", users[0])
        assert next_line(third) == WAITING


@pytest.mark.parametrize("obstacle", ["a file", "a link", "no folder above"])
def test_the_locks_are_in_the_users_folder_without_a_shared_one(
    folder: Path, tmp_path: Path, processes: ExitStack, obstacle: str, monkeypatch: pytest.MonkeyPatch, log: list[str]
) -> None:
    if obstacle == "a file":
        folder.write_text("in the way")
    elif obstacle == "a link":
        folder.symlink_to(tmp_path)
    else:
        folder = tmp_path / "absent" / "devices"
        monkeypatch.setattr(device_lock, "SHARED_FOLDER", folder)
    line = f"train: cannot write to {folder}; training runs of other users on this device are not detected"

    check_is_free("gpu")

    assert log == [line]
    first = start(processes, folder)
    assert [next_line(first), next_line(first)] == [line, "locked"]
    second = start(processes, folder)
    assert [next_line(second), next_line(second)] == [line, WAITING]


def test_a_lock_that_cannot_be_opened_is_an_error_of_one_line(folder: Path) -> None:
    check_is_free("gpu")
    (folder / "gpu.lock").unlink(missing_ok=True)
    (folder / "gpu.lock").mkdir()

    with pytest.raises(EnvironmentFailure) as caught:
        check_is_free("gpu")

    expected = "expected a lock file for all users, got Is a directory; delete it"
    assert str(caught.value) == f"{folder / 'gpu.lock'}: {expected}"


def test_a_cpu_is_not_locked(folder: Path) -> None:
    import torch

    assert device_lock.lock_names(torch.device("cpu"), 4) == ()
    assert device_lock.lock_names(torch.device("mps")) == ("mps",)
    check_is_free()
    assert not folder.exists()

"""A device is leased by a lock that dies with its process: real processes that wait, and are killed."""

import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from filelock import FileLock
from killing import Process, go_on, killed, killed_at_every_step, next_line, started

from tasks.core.errors import EnvironmentFailure
from tasks.core.runtime import device_lock

LEASING = """
import os, sys
from pathlib import Path
from tasks.core.runtime import device_lock

device_lock.FOLDER = Path(sys.argv[1])
if len(sys.argv) > 4:
    os.setuid(int(sys.argv[4]))
os.umask(0o077)
try:
    with device_lock.device_lock(sys.argv[3].split(), sys.argv[2], lambda line: print(line, flush=True)):
        print("has it", flush=True)
        sys.stdin.readline()
except KeyboardInterrupt:
    print("interrupted")
"""
NOBODY = 65534


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the locks are; nothing has made it yet."""
    monkeypatch.setattr(device_lock, "FOLDER", tmp_path / "devices")
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "cache"))
    return device_lock.FOLDER


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def leasing(processes: ExitStack, folder: Path, holder: str, devices: str = "gpu", *user: int) -> Process:
    return processes.enter_context(started(LEASING, folder, holder, devices, *user))


def holding(processes: ExitStack, folder: Path, holder: str, devices: str = "gpu") -> Process:
    process = leasing(processes, folder, holder, devices)
    assert next_line(process) == "has it"
    return process


def check_is_free(*devices: str) -> None:
    with device_lock.device_lock(devices, "this test", pytest.fail):  # which a first word on waiting ends
        pass


def lines_of_lease(*devices: str) -> list[str]:
    """What is logged in leasing devices here and now."""
    log: list[str] = []
    with device_lock.device_lock(devices, "this test", log.append):
        return log


@pytest.mark.usefixtures("folder")
def test_a_free_device_is_had_without_a_word() -> None:
    check_is_free("gpu")
    check_is_free("gpu")


def test_who_waits_says_for_whom_and_has_the_device_next(folder: Path, processes: ExitStack) -> None:
    first = holding(processes, folder, "run one of ann@box")
    second = leasing(processes, folder, "run two of bob@box")

    assert next_line(second) == f"waiting for gpu, which run one of ann@box (process {first.pid}) is using"
    assert go_on(first) == []
    assert next_line(second) == "has it"


def test_who_waits_says_so_again_when_the_holder_changes(folder: Path, processes: ExitStack) -> None:
    holders = [holding(processes, folder, "the first")]
    waiting = [leasing(processes, folder, name) for name in ("one", "another")]
    for process in waiting:
        assert next_line(process) == f"waiting for gpu, which the first (process {holders[0].pid}) is using"

    go_on(holders[0])
    told = {process: next_line(process) for process in waiting}

    [winner] = [process for process, line in told.items() if line == "has it"]
    [loser] = [process for process in waiting if process != winner]
    name = ("one", "another")[waiting.index(winner)]
    assert told[loser] == f"waiting for gpu, which {name} (process {winner.pid}) is using"
    go_on(winner)
    assert next_line(loser) == "has it"


def test_a_killed_holder_frees_its_device_and_is_not_named_again(folder: Path, processes: ExitStack) -> None:
    first = holding(processes, folder, "the killed one")
    second = leasing(processes, folder, "the second")
    assert "the killed one" in next_line(second)

    killed(first)

    assert next_line(second) == "has it"
    third = leasing(processes, folder, "the third")
    assert next_line(third) == f"waiting for gpu, which the second (process {second.pid}) is using"


def test_what_a_killed_holder_signed_is_not_believed_of_a_free_device(folder: Path, processes: ExitStack) -> None:
    killed(holding(processes, folder, "the killed one"))

    assert (folder / "gpu.holder").is_file()
    check_is_free("gpu")


def test_a_signature_that_the_holder_is_about_to_replace_is_not_believed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()
    taken, signatures = device_lock._taken, iter(["a killed one", "the holder", "the holder", "the holder"])

    def while_the_holder_signs(lock: FileLock) -> bool:
        if signature := next(signatures, None):
            (folder / "gpu.holder").write_text(signature)
            return False
        return taken(lock)

    monkeypatch.setattr(device_lock, "_taken", while_the_holder_signs)

    assert lines_of_lease("gpu") == ["waiting for gpu, which the holder is using"]


def test_a_process_that_a_killed_holder_forked_does_not_keep_its_device(folder: Path, processes: ExitStack) -> None:
    forking = LEASING.replace("sys.stdin.readline()", "os.fork() or print(os.getpid(), flush=True); sys.stdin.read()")
    holder = processes.enter_context(started(forking, folder, "the parent", "gpu"))
    assert next_line(holder) == "has it"
    child = int(next_line(holder))

    killed(holder)

    check_is_free("gpu")
    os.kill(child, signal.SIGKILL)  # it was there all the time


def test_killed_at_any_step_it_blocks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "cache"))
    act = """
import sys
from tasks.core.runtime import device_lock

def act(root):
    root.mkdir(exist_ok=True)
    device_lock.FOLDER = root / "devices"
    with device_lock.device_lock(["one", "two"], "the killed one", lambda line: sys.exit(line)):
        pass
"""
    for root in killed_at_every_step(act, tmp_path / "nothing", tmp_path / "copies"):
        monkeypatch.setattr(device_lock, "FOLDER", root / "devices")
        check_is_free("one", "two")
        assert stat.S_IMODE(device_lock.FOLDER.stat().st_mode) == 0o777


def test_waiting_ends_at_ctrl_c(folder: Path, processes: ExitStack) -> None:
    holder = holding(processes, folder, "the holder")
    waiting = leasing(processes, folder, "the waiting one")
    next_line(waiting)

    waiting.send_signal(signal.SIGINT)

    assert next_line(waiting) == "interrupted"
    assert waiting.wait() == 0
    assert go_on(holder) == []


def test_a_holder_that_is_interrupted_leaves_no_name(folder: Path, processes: ExitStack) -> None:
    holder = holding(processes, folder, "the holder")

    holder.send_signal(signal.SIGINT)

    assert next_line(holder) == "interrupted"
    assert sorted(path.name for path in folder.iterdir()) == ["gpu.lock"]


@pytest.mark.usefixtures("folder")
def test_a_device_is_free_again_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), device_lock.device_lock(["gpu"], "this test", print):
        _ = 1 / 0

    check_is_free("gpu")


def test_two_devices_do_not_wait_for_each_other(folder: Path, processes: ExitStack) -> None:
    one = holding(processes, folder, "one", "a")

    holding(processes, folder, "two", "b")

    assert go_on(one) == []


@pytest.mark.parametrize("order", ["a b", "b a", "b a b"])
def test_several_devices_are_taken_in_one_order(folder: Path, processes: ExitStack, order: str) -> None:
    of_b = holding(processes, folder, "the holder of b", "b")
    both = leasing(processes, folder, "the one that wants both", order)
    assert next_line(both) == f"waiting for b, which the holder of b (process {of_b.pid}) is using"

    other = leasing(processes, folder, "the other", "a")
    assert next_line(other) == f"waiting for a, which the one that wants both (process {both.pid}) is using"

    go_on(of_b)
    assert next_line(both) == "has it"
    go_on(both)
    assert next_line(other) == "has it"


def test_a_signature_is_shown_as_one_line_without_control_characters(folder: Path, processes: ExitStack) -> None:
    holder = holding(processes, folder, "a name\n\x1b[31m with colour")
    waiting = leasing(processes, folder, "the waiting one")

    assert next_line(waiting) == f"waiting for gpu, which a name[31m with colour (process {holder.pid}) is using"


@pytest.mark.parametrize("kind", ["nothing", "a pipe", "a link", "a folder"])
def test_a_holder_whose_name_cannot_be_read_is_another_process(folder: Path, processes: ExitStack, kind: str) -> None:
    holding(processes, folder, "the holder")
    signature = folder / "gpu.holder"
    signature.unlink()
    if kind == "a pipe":
        os.mkfifo(signature)
    elif kind == "a link":
        (folder / "secret").write_text("a secret")
        signature.symlink_to(folder / "secret")
    elif kind == "a folder":
        signature.mkdir()

    waiting = leasing(processes, folder, "the waiting one")

    assert next_line(waiting) == "waiting for gpu, which another process is using"


def test_a_signature_overwrites_nothing_that_a_link_leads_to(folder: Path, tmp_path: Path) -> None:
    check_is_free("gpu")
    (tmp_path / "precious").write_text("precious")
    (folder / "gpu.holder").symlink_to(tmp_path / "precious")

    check_is_free("gpu")
    assert (tmp_path / "precious").read_text() == "precious"


def test_all_may_write_to_the_folder_and_to_the_locks_in_it(folder: Path, processes: ExitStack) -> None:
    holding(processes, folder, "one whose umask lets nobody in")

    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in [folder, *folder.iterdir()]} == {
        "devices": "0o777",
        "gpu.lock": "0o666",
        "gpu.holder": "0o644",
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
@pytest.mark.parametrize("users", [(0, NOBODY), (NOBODY, 0), (NOBODY, NOBODY - 1)])
def test_two_users_wait_for_each_other(processes: ExitStack, users: tuple[int, int]) -> None:
    # Not pytest's own folder, which lets no other user in; a process that was killed may still be at its last file.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as root:
        Path(root).chmod(0o1777)
        folder = Path(root) / "devices"
        first = leasing(processes, folder, "one user", "gpu", users[0])
        assert next_line(first) == "has it"
        second = leasing(processes, folder, "another user", "gpu", users[1])
        assert next_line(second) == f"waiting for gpu, which one user (process {first.pid}) is using"
        killed(first)
        assert next_line(second) == "has it"
        third = leasing(processes, folder, "one user again", "gpu", users[0])
        assert next_line(third) == f"waiting for gpu, which another user (process {second.pid}) is using"


@pytest.mark.parametrize("obstacle", ["a file", "a link", "no folder above"])
def test_without_a_folder_for_all_the_locks_are_in_the_users_own(
    folder: Path, tmp_path: Path, processes: ExitStack, obstacle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "a file":
        folder.write_text("in the way")
    elif obstacle == "a link":
        folder.symlink_to(tmp_path)
    else:
        folder = tmp_path / "absent" / "devices"
        monkeypatch.setattr(device_lock, "FOLDER", folder)
    said = f"{folder} cannot be written to, so other users' runs on this machine's devices are not seen"

    assert lines_of_lease("gpu") == [said]

    first = leasing(processes, folder, "the first")
    assert [next_line(first), next_line(first)] == [said, "has it"]
    second = leasing(processes, folder, "the second")
    assert next_line(second) == said
    assert next_line(second) == f"waiting for gpu, which the first (process {first.pid}) is using"


def test_a_lock_that_cannot_be_opened_is_an_error_of_one_line(folder: Path) -> None:
    check_is_free("gpu")
    (folder / "gpu.lock").unlink()
    (folder / "gpu.lock").mkdir()

    with pytest.raises(EnvironmentFailure, match=r"gpu\.lock: expected a lock for all, got Is a directory; delete it"):
        lines_of_lease("gpu")


def test_a_cpu_is_not_leased(folder: Path) -> None:
    import torch

    assert device_lock.lock_names(torch.device("cpu"), 4) == ()
    assert device_lock.lock_names(torch.device("mps")) == ("mps",)
    check_is_free()
    assert not folder.exists()

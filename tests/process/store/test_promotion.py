"""Promotions and rollbacks: kills at every step, and two processes at the same time."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from killing import PRINT_LOG, kill_at_every_step, next_line, python_process, resume, skip_to_line
from places import FolderPlace, Place
from promotions import actions, current, files_of, finished, logged, root_files
from tiny_artifacts import build_artifact, finish_run, identity_of, run_payloads

from tasks.core.store import open_store
from tasks.core.store.opening import open_without_repair
from tasks.core.store.promotion_log import read_log, standing_runs
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import ROOT_FILES

PROMOTE = """
from tiny_artifacts import finished_run
def act(root):
    finished_run(root, "two")
"""
REPAIR = """
from tasks.core.store import open_store
def act(root):
    open_store(root)
"""
ROLL_BACK = """
from tasks.core.store import open_store
from tasks.core.store.current import roll_back
from tasks.core.store.history import find_run
def act(root):
    store = open_store(root)
    roll_back(store, find_run(store, "previous"), "unfair")
"""
PROMOTE_BY_HAND = ROLL_BACK.replace("roll_back", "promote_run")


@pytest.fixture
def ready(folder: FolderPlace) -> FolderPlace:
    """A store with run "one" promoted, and the artifacts of runs "two" and "three"."""
    finished(folder, "one")
    for word in ("two", "three"):
        for name, payload in run_payloads(word, identity_of()).items():
            build_artifact(folder.open(), name, payload)
    return folder


def status_of(place: Place, run: str) -> str:
    status: str = place.json(f"runs/{run}.json")["status"]
    return status


def check_current_run(place: Place, words: Mapping[str, str]) -> str:
    """Check root files, log and record against `current.json`; the word of its run."""
    run = current(place).run
    word = words.get(run, "two")
    assert root_files(place) == files_of(word)
    assert status_of(place, run) == "completed"
    promotions = [entry["run"] for entry in logged(place) if entry["action"] == "promote"]
    assert len(promotions) == len(set(promotions)) == (1 if word == "one" else 2)
    assert promotions[-1] == run
    return word


def test_a_promotion_killed_at_any_step_shows_one_run_only(ready: FolderPlace, tmp_path: Path) -> None:
    """A run that is killed after the rename of current.json counts as promoted and completed."""
    words, before = {current(ready).run: "one"}, ready.all("runs/")
    current_words: list[str] = []
    ended: set[tuple[str, ...]] = set()

    for root in kill_at_every_step(PROMOTE, ready.root, tmp_path / "killed"):
        place = FolderPlace(root)
        new = [name for name in place.names() if name.startswith("runs/2") and name not in before]
        running = [name for name in new if place.json(name)["status"] == "running"]

        open_store(root)

        word = check_current_run(place, words)
        with recording_run(place.open(), {}, {}):
            end = (word, *(place.json(name)["status"] for name in running))
        if end not in ended:
            finished(place, "three")
            assert root_files(place) == files_of("three")
        current_words.append(word)
        ended.add(end)

    assert current_words == sorted(current_words)
    assert ended == {("one",), ("one", "killed"), ("two", "completed"), ("two",)}


@pytest.mark.parametrize(("act", "action"), [(ROLL_BACK, "rollback"), (PROMOTE_BY_HAND, "promote")])
def test_a_killed_promotion_by_hand_is_completed_or_undone(
    folder: FolderPlace, tmp_path: Path, act: str, action: str
) -> None:
    one, two = finished(folder, "one", "two")
    current_words = []

    for root in kill_at_every_step(act, folder.root, tmp_path / "killed"):
        place = FolderPlace(root)
        open_store(root)
        word = {one.run: "one", two.run: "two"}[current(place).run]
        current_words.append(word)
        assert root_files(place) == files_of(word)
        assert actions(place) == ["promote", "promote"] + ([action] if word == "one" else [])
        assert standing_runs(read_log(place.open()))[-1] == current(place).run
        assert {status_of(place, run.run) for run in (one, two)} == {"completed"}
        assert [path.name for path in root.glob(".*") if path.is_file()] == []

    assert current_words == sorted(current_words, reverse=True)
    assert set(current_words) == {"one", "two"}


@pytest.fixture
def stale(ready: FolderPlace, tmp_path: Path) -> FolderPlace:
    """A store in which run "two" was killed right after the rename of current.json."""
    copy = FolderPlace(tmp_path / "stale")
    shutil.copytree(ready.root, copy.root)
    finished(ready, "two")
    shutil.copyfile(ready.root / "current.json", copy.root / "current.json")
    shutil.copytree(ready.root / "runs", copy.root / "runs", dirs_exist_ok=True)
    record = f"runs/{current(copy).run}.json"
    copy.write(record, json.dumps(copy.json(record) | {"status": "running", "finished": None}).encode())
    return copy


def test_a_repair_of_the_root_may_be_killed_at_any_step(stale: FolderPlace, tmp_path: Path) -> None:
    words = {logged(stale)[0]["run"]: "one"}

    for root in kill_at_every_step(REPAIR, stale.root, tmp_path / "killed"):
        open_store(root)

        assert check_current_run(FolderPlace(root), words) == "two"
        assert [path.name for path in root.glob(".*") if path.is_file()] == []


def test_opening_the_store_completes_an_interrupted_promotion(stale: FolderPlace) -> None:
    words = {logged(stale)[0]["run"]: "one"}

    open_store(stale.root)

    assert check_current_run(stale, words) == "two"


def test_an_interrupted_promotion_is_logged_before_the_next_one(stale: FolderPlace) -> None:
    """A store that was opened before the interruption completes it, too."""
    interrupted = current(stale).run

    with recording_run(open_without_repair(stale.root), {}, {}) as third:
        finish_run(third, "three", identity_of(), "auto")

    assert [entry["run"] for entry in logged(stale)][1:] == [interrupted, third.record.run]
    assert status_of(stale, interrupted) == "completed"


def test_an_interrupted_promotion_of_lost_files_blocks_no_other(stale: FolderPlace, log: list[str]) -> None:
    stale.lose(current(stale).artifacts["weights"])

    open_store(stale.root)

    assert len(log) == 1
    assert "weights/" in log[0]
    finished(stale, "three")
    assert root_files(stale) == files_of("three")


# At the same time

GATE = (
    PRINT_LOG
    + """
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
from tiny_artifacts import finish_run, identity_of

def wait():
    print("building the report", flush=True)
    sys.stdin.readline()

root, word, speed = sys.argv[1:]
with recording_run(open_store(root), {}, {}) as run:
    finish_run(run, word, identity_of(), before_report=wait if speed == "slowly" else lambda: None)
"""
)


def test_two_runs_pass_the_gate_one_after_the_other(place: Place) -> None:
    with python_process(GATE, place.location, "one", "slowly") as first:
        skip_to_line(first, "building the report")
        with python_process(GATE, place.location, "two", "at once") as second:
            skip_to_line(second, "store: waiting for another run to release promotion")
            [*_, one], [*_, two] = resume(first), resume(second)

    [first_run, second_run] = [entry["run"] for entry in logged(place)]
    assert one.startswith(f"run {first_run} ")
    assert one.endswith(": promoted: it is the first finished run in this store")
    assert two.startswith(f"run {second_run} ")
    assert two.endswith(f", in place of run {first_run}")
    assert root_files(place) == files_of("two")


REPAIR_AND_STOP = """
import os, signal, sys
from pathlib import Path
from tasks.core.store import open_store

def stop_before_the_first_root_file(event, arguments):
    if event == "os.rename" and Path(arguments[1]).name == "per_class.parquet":
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop_before_the_first_root_file)
open_store(Path(sys.argv[1]))
"""


def test_a_repair_of_the_root_never_undoes_a_promotion(folder: FolderPlace) -> None:
    finished(folder, "one")
    for name in ROOT_FILES:
        folder.delete(name)
    with python_process(REPAIR_AND_STOP, folder.root) as repairing:
        assert os.WIFSTOPPED(os.waitpid(repairing.pid, os.WUNTRACED)[1])
        with python_process(GATE, folder.root, "two", "at once") as promoting:
            skip_to_line(promoting, "run ", "store: waiting")  # it is promoted, or it waits
            repairing.send_signal(signal.SIGCONT)
            resume(promoting)
            resume(repairing)

    assert root_files(folder) == files_of("two")


APPENDING = """
import sys
from tasks.core.store import open_store
from tasks.core.store.promotion_log import LogEntry, append_entry
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    append_entry(store, LogEntry(action="refuse", run=f"{sys.argv[2]} {number}", at="", who="", why=""))
"""


def test_two_processes_append_to_the_log_at_once(place: Place, tmp_path: Path) -> None:
    """Each process has its own locks, as on two machines."""
    machines = [{"CIFAR_FLOW_CACHE": tmp_path / name} for name in ("one", "two")]
    with (
        python_process(APPENDING, place.location, "one", **machines[0]) as one,
        python_process(APPENDING, place.location, "two", **machines[1]) as two,
    ):
        for process in (one, two):
            assert next_line(process) == "ready"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go on\n")
            process.stdin.flush()
        assert resume(one) == resume(two) == []

    runs = [entry["run"] for entry in logged(place)]
    assert sorted(runs) == sorted(f"{name} {number}" for name in ("one", "two") for number in range(20))

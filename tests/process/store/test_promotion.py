"""Promotions and rollbacks that are killed at any step, and those of two processes at the same time."""

import json
import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from killing import go_on, killed_at_every_step, next_line, started
from places import FolderPlace, Place
from promotions import actions, current, files_of, finished, logged, root_files
from tiny_artifacts import finish, identity_of, make_artifact, quiet, results

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
RESTORE = """
from tasks.core.store import open_store
def act(root):
    open_store(root)
"""
ROLL_BACK = """
from tasks.core.store import open_store
from tasks.core.store.current import roll_back
from tasks.core.store.history import find_run
from tiny_artifacts import quiet
def act(root):
    store = open_store(root)
    roll_back(store, find_run(store, "previous"), "unfair", quiet)
"""
PROMOTE_BY_HAND = ROLL_BACK.replace("roll_back", "promote_run")


@pytest.fixture
def ready(folder: FolderPlace) -> FolderPlace:
    """A store in which run "one" is promoted, and all that runs "two" and "three" will make is there."""
    finished(folder, "one")
    for word in ("two", "three"):
        for name, payload in results(word, identity_of()).items():
            make_artifact(folder.open(), name, payload)
    return folder


def status_of(place: Place, run: str) -> str:
    status: str = place.json(f"runs/{run}.json")["status"]
    return status


def check_that_all_is_of_the_current_run(place: Place, words: Mapping[str, str]) -> str:
    """Root files, log and record agree with `current.json`; the word of its run."""
    run = current(place).run
    word = words.get(run, "two")
    assert root_files(place) == files_of(word)
    assert status_of(place, run) == "completed"
    promotions = [entry["run"] for entry in logged(place) if entry["action"] == "promote"]
    assert len(promotions) == len(set(promotions)) == (1 if word == "one" else 2)
    assert promotions[-1] == run
    return word


def test_a_promotion_killed_at_any_step_is_of_the_old_run_or_of_the_new_one(ready: FolderPlace, tmp_path: Path) -> None:
    """The commit point is current.json: a run killed after it was promoted and is completed, whatever is missing."""
    words, before = {current(ready).run: "one"}, ready.all("runs/")
    stood: list[str] = []
    ended: set[tuple[str, ...]] = set()

    for root in killed_at_every_step(PROMOTE, ready.root, tmp_path / "killed"):
        place = FolderPlace(root)
        new = [name for name in place.names() if name.startswith("runs/2") and name not in before]
        running = [name for name in new if place.json(name)["status"] == "running"]

        open_store(root, quiet)

        word = check_that_all_is_of_the_current_run(place, words)
        with recording_run(place.open(), {}, {}, quiet):
            end = (word, *(place.json(name)["status"] for name in running))
        if end not in ended:
            finished(place, "three")
            assert root_files(place) == files_of("three")
        stood.append(word)
        ended.add(end)

    assert stood == sorted(stood)
    assert ended == {("one",), ("one", "killed"), ("two", "completed"), ("two",)}


@pytest.mark.parametrize(("act", "action"), [(ROLL_BACK, "rollback"), (PROMOTE_BY_HAND, "promote")])
def test_what_is_done_by_hand_and_killed_at_any_step_is_finished_or_undone(
    folder: FolderPlace, tmp_path: Path, act: str, action: str
) -> None:
    one, two = finished(folder, "one", "two")
    stood = []

    for root in killed_at_every_step(act, folder.root, tmp_path / "killed"):
        place = FolderPlace(root)
        open_store(root, quiet)
        word = {one.run: "one", two.run: "two"}[current(place).run]
        stood.append(word)
        assert root_files(place) == files_of(word)
        assert actions(place) == ["promote", "promote"] + ([action] if word == "one" else [])
        assert standing_runs(read_log(place.open()))[-1] == current(place).run
        assert {status_of(place, run.run) for run in (one, two)} == {"completed"}
        assert [path.name for path in root.glob(".*") if path.is_file()] == []

    assert stood == sorted(stood, reverse=True)
    assert set(stood) == {"one", "two"}


@pytest.fixture
def stale(ready: FolderPlace, tmp_path: Path) -> FolderPlace:
    """A store in which run "two" was killed when it was promoted: all but current.json is still as before."""
    copy = FolderPlace(tmp_path / "stale")
    shutil.copytree(ready.root, copy.root)
    finished(ready, "two")
    shutil.copyfile(ready.root / "current.json", copy.root / "current.json")
    shutil.copytree(ready.root / "runs", copy.root / "runs", dirs_exist_ok=True)
    record = f"runs/{current(copy).run}.json"
    copy.write(record, json.dumps(copy.json(record) | {"status": "running", "finished": None}).encode())
    return copy


def test_putting_the_root_right_may_be_killed_at_any_step(stale: FolderPlace, tmp_path: Path) -> None:
    words = {logged(stale)[0]["run"]: "one"}

    for root in killed_at_every_step(RESTORE, stale.root, tmp_path / "killed"):
        open_store(root, quiet)

        assert check_that_all_is_of_the_current_run(FolderPlace(root), words) == "two"
        assert [path.name for path in root.glob(".*") if path.is_file()] == []


def test_opening_the_store_for_a_run_finishes_a_promotion_that_was_cut_short(stale: FolderPlace) -> None:
    words = {logged(stale)[0]["run"]: "one"}

    open_store(stale.root, quiet)

    assert check_that_all_is_of_the_current_run(stale, words) == "two"


def test_a_promotion_that_was_cut_short_is_on_record_before_the_next_one(stale: FolderPlace) -> None:
    """Whoever opened the store before it was cut short does not settle it by opening."""
    cut_short = current(stale).run

    with recording_run(open_without_repair(stale.root, quiet), {}, {}, quiet) as third:
        finish(third, "three", identity_of(), "auto", quiet)

    assert [entry["run"] for entry in logged(stale)][1:] == [cut_short, third.record.run]
    assert status_of(stale, cut_short) == "completed"


def test_a_promotion_of_lost_files_that_was_cut_short_does_not_stop_the_next_one(stale: FolderPlace) -> None:
    stale.lose(current(stale).artifacts["weights"])
    log: list[str] = []

    open_store(stale.root, log.append)
    finished(stale, "three")

    assert len(log) == 1
    assert "weights/" in log[0]
    assert root_files(stale) == files_of("three")


# At the same time

JUDGING = """
import sys
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
from tiny_artifacts import finish, identity_of

def tell(line):
    print(line, flush=True)

def wait():
    tell("making the report")
    sys.stdin.readline()

root, word, speed = sys.argv[1:]
with recording_run(open_store(root), {}, {}) as run:
    finish(run, word, identity_of(), log=tell, before_report=wait if speed == "slowly" else lambda: None)
"""


def test_two_runs_are_judged_one_after_the_other(place: Place) -> None:
    with started(JUDGING, place.location, "one", "slowly") as first:
        assert next_line(first) == "making the report"
        with started(JUDGING, place.location, "two", "at once") as second:
            assert next_line(second) == "waiting for another run, which works on promotion"
            [one], [two] = go_on(first), go_on(second)

    [first_run, second_run] = [entry["run"] for entry in logged(place)]
    assert one.startswith(f"run {first_run} ")
    assert one.endswith("is promoted: it is the first finished run in this store")
    assert two.startswith(f"run {second_run} ")
    assert two.endswith(f", in place of run {first_run}")
    assert root_files(place) == files_of("two")


RESTORE_AND_STOP = """
import os, signal, sys
from pathlib import Path
from tasks.core.store import open_store

def stop_before_the_first_root_file(event, arguments):
    if event == "os.rename" and Path(arguments[1]).name == "per_class.parquet":
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop_before_the_first_root_file)
open_store(Path(sys.argv[1]))
"""


def test_putting_the_root_right_never_undoes_a_promotion_that_another_process_makes(folder: FolderPlace) -> None:
    finished(folder, "one")
    for name in ROOT_FILES:
        folder.delete(name)
    with started(RESTORE_AND_STOP, folder.root) as restoring:
        assert os.WIFSTOPPED(os.waitpid(restoring.pid, os.WUNTRACED)[1])
        with started(JUDGING, folder.root, "two", "at once") as judging:
            next_line(judging)  # it is promoted, or it waits
            restoring.send_signal(signal.SIGCONT)
            go_on(judging)
            go_on(restoring)

    assert root_files(folder) == files_of("two")


APPENDING = """
import sys
from tasks.core.store import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    store.append("log.jsonl", f"{sys.argv[2]} {number}")
"""


def test_lines_that_two_processes_append_at_once_are_all_there(place: Place, tmp_path: Path) -> None:
    """Each with locks of its own, as on two machines."""
    machines = [{"CIFAR_FLOW_CACHE": tmp_path / name} for name in ("one", "two")]
    with (
        started(APPENDING, place.location, "one", **machines[0]) as one,
        started(APPENDING, place.location, "two", **machines[1]) as two,
    ):
        for process in (one, two):
            assert next_line(process) == "ready"
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write("go on\n")
            process.stdin.flush()
        assert go_on(one) == go_on(two) == []

    lines = place.read("log.jsonl").decode().splitlines()
    assert sorted(lines) == sorted(f'"{name} {number}"' for name in ("one", "two") for number in range(20))

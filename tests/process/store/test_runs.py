"""Run records, in a folder and in a bucket: there from a run's start, with how it ended, whichever way that was."""

import json
import platform
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from killing import go_on, killed, killed_at_every_step, next_line, started
from places import BucketPlace, FolderPlace, Place
from tiny_artifacts import make_artifact

from tasks.core.errors import InputError
from tasks.core.store import Store, open_store
from tasks.core.store.runs import mark_killed_runs, read_record, read_records, recording_run

RUNNING = """
import signal, sys
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs in its background ignore Ctrl-C
with recording_run(open_store(sys.argv[1]), {"seed": 1}, {}) as run:
    print(run.record.run, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def on_record(place: Place, run: str) -> dict[str, Any]:
    record: dict[str, Any] = place.json(f"runs/{run}.json")
    return record


def ended_with(place: Place, error: BaseException) -> dict[str, Any]:
    """The record of a run in which `error` was raised, after it went through."""
    runs: list[str] = []

    def fail() -> None:
        with recording_run(place.open(), {}, {}) as run:
            runs.append(run.record.run)
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    return on_record(place, runs[0])


def test_a_run_is_on_record_from_its_start(place: Place, store: Store) -> None:
    with recording_run(store, {"seed": 7, "source": "synthetic"}, {"flow_run": "1234"}) as run:
        record = on_record(place, run.record.run)

    assert record["status"] == "running"
    assert record["finished"] is None
    assert record["settings"] == {"seed": 7, "source": "synthetic"}
    assert record["facts"] == {"flow_run": "1234"}
    assert record["who"].endswith(f"@{platform.node()}")
    assert record["versions"]["python"] == platform.python_version()


def test_a_run_that_comes_to_its_end_is_completed(place: Place, store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        pass

    record = on_record(place, run.record.run)
    assert (record["status"], record["error"]) == ("completed", None)
    assert record["started"] <= record["finished"]


def test_what_a_run_uses_is_on_record_at_once(place: Place, store: Store) -> None:
    ref = make_artifact(store, "weights", {"cifar_net.pth": b"weights"})

    with recording_run(store, {}, {}) as run:
        run.keep(ref)

        assert on_record(place, run.record.run)["artifacts"] == {"weights": ref.model_dump()}


def test_what_a_run_makes_is_made_in_its_name(store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        ref = make_artifact(run.store, "weights", {"cifar_net.pth": b"weights"})

    manifest = store.manifest(ref.name, ref.version)
    assert manifest is not None
    assert manifest.made.run == run.record.run


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("source: expected an archive, got a folder"), "source: expected an archive, got a folder"),
        (ZeroDivisionError("division by zero"), "ZeroDivisionError: division by zero"),
    ],
)
def test_a_run_that_fails_says_why(place: Place, error: Exception, words: str) -> None:
    record = ended_with(place, error)

    assert (record["status"], record["error"]) == ("failed", words)
    assert record["finished"] is not None


def test_an_error_of_several_lines_is_recorded_in_one(place: Place) -> None:
    record = ended_with(place, RuntimeError("CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA\n"))

    assert record["error"].startswith("RuntimeError: CUDA error: an illegal memory access")
    assert "\n" not in record["error"]


def test_a_run_that_is_stopped_is_interrupted(place: Place) -> None:
    record = ended_with(place, KeyboardInterrupt())

    assert (record["status"], record["error"]) == ("interrupted", "KeyboardInterrupt")
    assert record["finished"] is not None


def test_ctrl_c_interrupts_a_run(place: Place) -> None:
    with started(RUNNING, place.location) as process:
        run = next_line(process)
        process.send_signal(signal.SIGINT)
        process.wait()

    assert on_record(place, run)["status"] == "interrupted"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_is_found_by_the_next_one(place: Place, store: Store, sign: signal.Signals) -> None:
    with started(RUNNING, place.location) as process:
        run = next_line(process)
        process.send_signal(sign)
        process.wait()
    assert on_record(place, run)["status"] == "running"

    with recording_run(store, {}, {}):
        record = on_record(place, run)

    assert record["status"] == "killed"
    assert record["settings"] == {"seed": 1}


def test_a_live_run_is_not_taken_for_a_killed_one(place: Place, store: Store) -> None:
    with started(RUNNING, place.location) as process:
        run = next_line(process)

        with recording_run(store, {}, {}) as other:
            assert on_record(place, run)["status"] == "running"
        mark_killed_runs(store)

        assert on_record(place, run)["status"] == "running"
        go_on(process)
    assert on_record(place, run)["status"] == "completed"
    assert on_record(place, other.record.run)["status"] == "completed"


def test_a_live_run_of_the_same_user_with_locks_elsewhere_is_not_taken_for_a_killed_one(
    bucket: BucketPlace, tmp_path: Path
) -> None:
    with started(RUNNING, bucket.location, CIFAR_FLOW_CACHE=tmp_path / "another cache") as process:
        run = next_line(process)

        with recording_run(bucket.open(), {}, {}):
            assert on_record(bucket, run)["status"] == "running"
        go_on(process)
    assert on_record(bucket, run)["status"] == "completed"


def test_a_killed_run_is_told_by_whoever_names_its_cache_in_another_way(
    bucket: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    with started(RUNNING, bucket.location) as process:
        run = next_line(process)
        killed(process)
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "link"))

    mark_killed_runs(bucket.open())

    assert on_record(bucket, run)["status"] == "killed"


def test_two_runs_in_one_process_leave_each_other_alone(place: Place, store: Store) -> None:
    with recording_run(store, {}, {}) as outer:
        with recording_run(store, {}, {}):
            pass

        assert on_record(place, outer.record.run)["status"] == "running"


def test_how_a_run_ended_is_not_rewritten_by_later_runs(place: Place, store: Store) -> None:
    with recording_run(store, {}, {}) as completed:
        pass
    failed = ended_with(place, ValueError("no"))
    before = [on_record(place, completed.record.run), failed]

    mark_killed_runs(store)

    assert [on_record(place, record["run"]) for record in before] == before


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff\xfe", b'{"run": "x"}'])
def test_a_garbled_record_does_not_stop_the_next_run(place: Place, store: Store, garbage: bytes) -> None:
    place.write("runs/20260101-000000-abcdef.json", garbage)

    with recording_run(store, {}, {}) as run:
        pass

    assert on_record(place, run.record.run)["status"] == "completed"


RUN = """
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
from tiny_artifacts import make_artifact
def act(root):
    with recording_run(open_store(root), {}, {}) as run:
        run.keep(make_artifact(run.store, "x", {"x": b"x"}))
"""


def test_a_run_killed_at_any_step_has_a_whole_record_or_none(folder: FolderPlace, tmp_path: Path) -> None:
    make_artifact(folder.open(), "x", {"x": b"x"})
    endings = []

    for root in killed_at_every_step(RUN, folder.root, tmp_path / "killed"):
        reopened = open_store(root)
        mark_killed_runs(reopened)
        endings.append([FolderPlace(root).json(name)["status"] for name in FolderPlace(root).all("runs/")])
        assert [path.name for path in (root / "runs").glob(".*")] == []

    assert endings == sorted(endings, key=lambda statuses: [[], ["killed"], ["completed"]].index(statuses))
    assert endings[0] == []
    assert ["killed"] in endings
    assert endings[-1] == ["completed"]


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_an_ended_run_leaves_no_lock_behind(place: Place, store: Store, error: BaseException | None) -> None:
    if error:
        ended_with(place, error)
    else:
        with recording_run(store, {}, {}):
            pass

    assert list((store.storage.local / "locks").glob("run-*")) == []


def test_the_records_are_read_oldest_first_without_what_is_garbled(place: Place, store: Store) -> None:
    kept = []
    for _ in range(3):
        with recording_run(store, {}, {}) as run:
            kept.append(run.record)
    place.write("runs/20260101-000000-abcdef.json", b"{")

    assert read_records(store) == sorted(kept, key=lambda record: (record.started, record.run))
    assert read_record(store, "20260101-000000-abcdef") is None
    assert read_record(store, "unknown") is None


def test_a_record_from_before_runs_had_scores_is_still_read(place: Place, store: Store) -> None:
    with recording_run(store, {"seed": 1}, {}) as run:
        pass
    old = {
        name: value
        for name, value in on_record(place, run.record.run).items()
        if name not in ("dataset", "score", "collected")
    }
    place.write(f"runs/{run.record.run}.json", json.dumps(old).encode())

    record = read_record(store, run.record.run)

    assert record is not None
    assert (record.settings, record.score, record.dataset) == ({"seed": 1}, None, None)


# Other machines


def running_elsewhere(place: Place, started: datetime) -> str:
    """The id of a run that is `running` by its record, and of whose lock there is no trace here."""
    with recording_run(place.open(), {}, {}) as run:
        pass
    record = on_record(place, run.record.run)
    changed = {"status": "running", "finished": None, "who": "somebody@elsewhere", "started": started.isoformat()}
    place.write(f"runs/{run.record.run}.json", json.dumps(record | changed).encode())
    return run.record.run


@pytest.mark.parametrize(
    ("age", "status"),
    [
        (timedelta(), "running"),
        (timedelta(days=6, hours=23), "running"),
        (timedelta(days=7, hours=1), "killed"),
    ],
)
def test_in_a_bucket_another_machines_run_is_left_alone_for_a_week(
    bucket: BucketPlace, age: timedelta, status: str
) -> None:
    run = running_elsewhere(bucket, datetime.now(UTC) - age)

    with recording_run(bucket.open(), {}, {}):
        assert on_record(bucket, run)["status"] == status


def test_in_a_folder_the_locks_of_other_machines_are_believed(folder: FolderPlace) -> None:
    run = running_elsewhere(folder, datetime.now(UTC))

    with recording_run(folder.open(), {}, {}):
        assert on_record(folder, run)["status"] == "killed"

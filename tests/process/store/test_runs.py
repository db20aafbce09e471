"""Run records, in a folder and in a bucket: written from the start, with the status at the end."""

import json
import platform
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from killing import kill, kill_at_every_step, next_line, python_process, resume
from places import BucketPlace, FolderPlace, Place
from tiny_artifacts import build_artifact

from tasks.core.errors import InputError
from tasks.core.store import Store, open_store
from tasks.core.store.runs import mark_killed_runs, read_record, read_records, recording_run

RUNNING = """
import signal, sys
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background processes ignore Ctrl-C
with recording_run(open_store(sys.argv[1]), {"seed": 1}, {}) as run:
    print(run.record.run, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def record_of(place: Place, run: str) -> dict[str, Any]:
    record: dict[str, Any] = place.json(f"runs/{run}.json")
    return record


def fail_with(place: Place, error: BaseException) -> dict[str, Any]:
    """The record of a run that ended with `error`, which is passed on."""
    runs: list[str] = []

    def fail() -> None:
        with recording_run(place.open(), {}, {}) as run:
            runs.append(run.record.run)
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    return record_of(place, runs[0])


def test_a_run_is_recorded_from_its_start(place: Place, store: Store) -> None:
    with recording_run(store, {"seed": 7, "source": "synthetic"}, {"flow_run": "1234"}) as run:
        record = record_of(place, run.record.run)

    assert record["status"] == "running"
    assert record["finished"] is None
    assert record["settings"] == {"seed": 7, "source": "synthetic"}
    assert record["facts"] == {"flow_run": "1234"}
    assert record["who"].endswith(f"@{platform.node()}")
    assert record["versions"]["python"] == platform.python_version()


def test_a_run_without_an_error_is_completed(place: Place, store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        pass

    record = record_of(place, run.record.run)
    assert (record["status"], record["error"]) == ("completed", None)
    assert record["started"] <= record["finished"]


def test_artifacts_are_recorded_at_once(place: Place, store: Store) -> None:
    ref = build_artifact(store, "weights", {"cifar_net.pth": b"weights"})

    with recording_run(store, {}, {}) as run:
        run.add_artifacts(ref)

        assert record_of(place, run.record.run)["artifacts"] == {"weights": ref.model_dump()}


def test_a_manifest_names_the_run_that_built_it(store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        ref = build_artifact(run.store, "weights", {"cifar_net.pth": b"weights"})

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
def test_a_failed_run_records_its_error(place: Place, error: Exception, words: str) -> None:
    record = fail_with(place, error)

    assert (record["status"], record["error"]) == ("failed", words)
    assert record["finished"] is not None


def test_an_error_of_several_lines_is_recorded_on_one(place: Place) -> None:
    record = fail_with(place, RuntimeError("CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA\n"))

    assert record["error"].startswith("RuntimeError: CUDA error: an illegal memory access")
    assert "\n" not in record["error"]


def test_a_stopped_run_is_interrupted(place: Place) -> None:
    record = fail_with(place, KeyboardInterrupt())

    assert (record["status"], record["error"]) == ("interrupted", "KeyboardInterrupt")
    assert record["finished"] is not None


def test_ctrl_c_interrupts_a_run(place: Place) -> None:
    with python_process(RUNNING, place.location) as process:
        run = next_line(process)
        process.send_signal(signal.SIGINT)
        process.wait()

    assert record_of(place, run)["status"] == "interrupted"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_is_marked_by_the_next_one(place: Place, store: Store, sign: signal.Signals) -> None:
    with python_process(RUNNING, place.location) as process:
        run = next_line(process)
        process.send_signal(sign)
        process.wait()
    assert record_of(place, run)["status"] == "running"

    with recording_run(store, {}, {}):
        record = record_of(place, run)

    assert record["status"] == "killed"
    assert record["settings"] == {"seed": 1}


def test_a_live_run_is_not_marked_as_killed(place: Place, store: Store) -> None:
    with python_process(RUNNING, place.location) as process:
        run = next_line(process)

        with recording_run(store, {}, {}) as other:
            assert record_of(place, run)["status"] == "running"
        mark_killed_runs(store)

        assert record_of(place, run)["status"] == "running"
        resume(process)
    assert record_of(place, run)["status"] == "completed"
    assert record_of(place, other.record.run)["status"] == "completed"


def test_a_live_run_with_locks_elsewhere_is_not_marked_as_killed(bucket: BucketPlace, tmp_path: Path) -> None:
    with python_process(RUNNING, bucket.location, CIFAR_FLOW_CACHE=tmp_path / "another cache") as process:
        run = next_line(process)

        with recording_run(bucket.open(), {}, {}):
            assert record_of(bucket, run)["status"] == "running"
        resume(process)
    assert record_of(bucket, run)["status"] == "completed"


def test_a_killed_run_is_marked_through_a_link_to_its_cache(
    bucket: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    with python_process(RUNNING, bucket.location) as process:
        run = next_line(process)
        kill(process)
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "link"))

    mark_killed_runs(bucket.open())

    assert record_of(bucket, run)["status"] == "killed"


def test_two_runs_in_one_process_do_not_interfere(place: Place, store: Store) -> None:
    with recording_run(store, {}, {}) as outer:
        with recording_run(store, {}, {}):
            pass

        assert record_of(place, outer.record.run)["status"] == "running"


def test_the_status_of_an_ended_run_does_not_change(place: Place, store: Store) -> None:
    with recording_run(store, {}, {}) as completed:
        pass
    failed = fail_with(place, ValueError("no"))
    before = [record_of(place, completed.record.run), failed]

    mark_killed_runs(store)

    assert [record_of(place, record["run"]) for record in before] == before


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff\xfe", b'{"run": "x"}'])
def test_a_damaged_record_does_not_stop_the_next_run(place: Place, store: Store, garbage: bytes) -> None:
    place.write("runs/20260101-000000-abcdef.json", garbage)

    with recording_run(store, {}, {}) as run:
        pass

    assert record_of(place, run.record.run)["status"] == "completed"


RUN = """
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
from tiny_artifacts import build_artifact
def act(root):
    with recording_run(open_store(root), {}, {}) as run:
        run.add_artifacts(build_artifact(run.store, "x", {"x": b"x"}))
"""


def test_a_record_killed_at_any_step_is_complete_or_absent(folder: FolderPlace, tmp_path: Path) -> None:
    build_artifact(folder.open(), "x", {"x": b"x"})
    endings = []

    for root in kill_at_every_step(RUN, folder.root, tmp_path / "killed"):
        reopened = open_store(root)
        mark_killed_runs(reopened)
        endings.append([FolderPlace(root).json(name)["status"] for name in FolderPlace(root).all("runs/")])
        assert [path.name for path in (root / "runs").glob(".*")] == []

    assert endings == sorted(endings, key=lambda statuses: [[], ["killed"], ["completed"]].index(statuses))
    assert endings[0] == []
    assert ["killed"] in endings
    assert endings[-1] == ["completed"]


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_an_ended_run_leaves_no_lock(place: Place, store: Store, error: BaseException | None) -> None:
    if error:
        fail_with(place, error)
    else:
        with recording_run(store, {}, {}):
            pass

    assert list((store.storage.local / "locks").glob("run-*")) == []


def test_readable_records_are_read_oldest_first(place: Place, store: Store) -> None:
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
        for name, value in record_of(place, run.record.run).items()
        if name not in ("dataset", "score", "collected")
    }
    place.write(f"runs/{run.record.run}.json", json.dumps(old).encode())

    record = read_record(store, run.record.run)

    assert record is not None
    assert (record.settings, record.score, record.dataset) == ({"seed": 1}, None, None)


# Other machines


def running_elsewhere(place: Place, started: datetime) -> str:
    """The id of a run that is recorded as `running`, without a lock on this machine."""
    with recording_run(place.open(), {}, {}) as run:
        pass
    record = record_of(place, run.record.run)
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
def test_in_a_bucket_a_run_elsewhere_counts_as_live_for_a_week(
    bucket: BucketPlace, age: timedelta, status: str
) -> None:
    run = running_elsewhere(bucket, datetime.now(UTC) - age)

    with recording_run(bucket.open(), {}, {}):
        assert record_of(bucket, run)["status"] == status


def test_in_a_folder_locks_are_shared_between_machines(folder: FolderPlace) -> None:
    run = running_elsewhere(folder, datetime.now(UTC))

    with recording_run(folder.open(), {}, {}):
        assert record_of(folder, run)["status"] == "killed"

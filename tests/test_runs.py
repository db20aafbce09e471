"""Run records: on disk from a run's start, with how it ended, whichever way that was."""

import json
import platform
import signal
from pathlib import Path
from typing import Any

import pytest
from killing import go_on, killed_at_every_step, next_line, started
from tiny_artifacts import make_artifact

from tasks.core.errors import InputError
from tasks.core.runs import close_killed, recorded_run
from tasks.core.store import Store, open_store

RUNNING = """
import signal, sys
from pathlib import Path
from tasks.core.runs import recorded_run
from tasks.core.store import open_store
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell has what runs in its background ignore Ctrl-C
with recorded_run(open_store(Path(sys.argv[1])), {"seed": 1}, {}) as run:
    print(run.record.run, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


def on_disk(store: Store, run: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((store.root / "runs" / f"{run}.json").read_text(encoding="utf-8"))
    return record


def ended_with(store: Store, error: BaseException) -> dict[str, Any]:
    """The record of a run in which `error` was raised, after it went through."""
    runs: list[str] = []

    def fail() -> None:
        with recorded_run(store, {}, {}) as run:
            runs.append(run.record.run)
            raise error

    with pytest.raises(type(error)) as raised:
        fail()
    assert raised.value is error
    return on_disk(store, runs[0])


def test_a_run_is_on_record_from_its_start(store: Store) -> None:
    with recorded_run(store, {"seed": 7, "source": "synthetic"}, {"flow_run": "1234"}) as run:
        record = on_disk(store, run.record.run)

    assert record["status"] == "running"
    assert record["finished"] is None
    assert record["settings"] == {"seed": 7, "source": "synthetic"}
    assert record["facts"] == {"flow_run": "1234"}
    assert record["who"].endswith(f"@{platform.node()}")
    assert record["versions"]["python"] == platform.python_version()


def test_a_run_that_comes_to_its_end_is_completed(store: Store) -> None:
    with recorded_run(store, {}, {}) as run:
        pass

    record = on_disk(store, run.record.run)
    assert (record["status"], record["error"]) == ("completed", None)
    assert record["started"] <= record["finished"]


def test_what_a_run_uses_is_on_record_at_once(store: Store) -> None:
    ref = make_artifact(store, "weights", {"cifar_net.pth": b"weights"})

    with recorded_run(store, {}, {}) as run:
        run.keep(ref)

        assert on_disk(store, run.record.run)["artifacts"] == {"weights": ref.model_dump()}


def test_what_a_run_makes_is_made_in_its_name(store: Store) -> None:
    with recorded_run(store, {}, {}) as run:
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
def test_a_run_that_fails_says_why(store: Store, error: Exception, words: str) -> None:
    record = ended_with(store, error)

    assert (record["status"], record["error"]) == ("failed", words)
    assert record["finished"] is not None


def test_an_error_of_several_lines_is_recorded_in_one(store: Store) -> None:
    record = ended_with(store, RuntimeError("CUDA error: an illegal memory access\nCompile with TORCH_USE_CUDA_DSA\n"))

    assert record["error"].startswith("RuntimeError: CUDA error: an illegal memory access")
    assert "\n" not in record["error"]


def test_a_run_that_is_stopped_is_interrupted(store: Store) -> None:
    record = ended_with(store, KeyboardInterrupt())

    assert (record["status"], record["error"]) == ("interrupted", "KeyboardInterrupt")
    assert record["finished"] is not None


def test_ctrl_c_interrupts_a_run(store: Store) -> None:
    with started(RUNNING, store.root) as process:
        run = next_line(process)
        process.send_signal(signal.SIGINT)
        process.wait()

    assert on_disk(store, run)["status"] == "interrupted"


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_is_found_by_the_next_one(store: Store, sign: signal.Signals) -> None:
    with started(RUNNING, store.root) as process:
        run = next_line(process)
        process.send_signal(sign)
        process.wait()
    assert on_disk(store, run)["status"] == "running"

    with recorded_run(store, {}, {}):
        record = on_disk(store, run)

    assert record["status"] == "killed"
    assert record["settings"] == {"seed": 1}


def test_a_live_run_is_not_taken_for_a_killed_one(store: Store) -> None:
    with started(RUNNING, store.root) as process:
        run = next_line(process)

        with recorded_run(store, {}, {}) as other:
            assert on_disk(store, run)["status"] == "running"
        close_killed(store)

        assert on_disk(store, run)["status"] == "running"
        go_on(process)
    assert on_disk(store, run)["status"] == "completed"
    assert on_disk(store, other.record.run)["status"] == "completed"


def test_two_runs_in_one_process_leave_each_other_alone(store: Store) -> None:
    with recorded_run(store, {}, {}) as outer:
        with recorded_run(store, {}, {}):
            pass

        assert on_disk(store, outer.record.run)["status"] == "running"


def test_how_a_run_ended_is_not_rewritten_by_later_runs(store: Store) -> None:
    with recorded_run(store, {}, {}) as completed:
        pass
    failed = ended_with(store, ValueError("no"))
    before = [on_disk(store, completed.record.run), failed]

    close_killed(store)

    assert [on_disk(store, record["run"]) for record in before] == before


@pytest.mark.parametrize("garbage", [b"", b"{", b"\xff\xfe", b'{"run": "x"}'])
def test_a_garbled_record_does_not_stop_the_next_run(store: Store, garbage: bytes) -> None:
    (store.root / "runs").mkdir()
    (store.root / "runs" / "20260101-000000-abcdef.json").write_bytes(garbage)

    with recorded_run(store, {}, {}) as run:
        pass

    assert on_disk(store, run.record.run)["status"] == "completed"


RUN = """
from tasks.core.runs import recorded_run
from tasks.core.store import open_store
from tiny_artifacts import make_artifact
def act(root):
    with recorded_run(open_store(root), {}, {}) as run:
        run.keep(make_artifact(run.store, "x", {"x": b"x"}))
"""


def test_a_run_killed_at_any_step_has_a_whole_record_or_none(store: Store, tmp_path: Path) -> None:
    make_artifact(store, "x", {"x": b"x"})
    endings = []

    for root in killed_at_every_step(RUN, store.root, tmp_path / "killed"):
        reopened = open_store(root)
        close_killed(reopened)
        records = [on_disk(reopened, path.stem) for path in (root / "runs").glob("*.json")]
        endings.append([record["status"] for record in records])
        assert [path.name for path in (root / "runs").glob(".*")] == []

    assert endings == sorted(endings, key=lambda statuses: [[], ["killed"], ["completed"]].index(statuses))
    assert endings[0] == []
    assert ["killed"] in endings
    assert endings[-1] == ["completed"]


@pytest.mark.parametrize("error", [None, ValueError("no"), KeyboardInterrupt()])
def test_an_ended_run_leaves_no_lock_behind(store: Store, error: BaseException | None) -> None:
    if error:
        ended_with(store, error)
    else:
        with recorded_run(store, {}, {}):
            pass

    assert list((store.work / "locks").glob("run-*")) == []

"""Two machines on one store in a bucket, which do not share locks."""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from killing import PRINT_LOG, Process, next_line, python_process, resume, wait_until
from places import SOAK, BucketPlace, flip_a_bit, read_payload
from promotions import current, files_of, finished, logged, root_files
from tiny_artifacts import build_of, finish_run, finished_run, identity_of

from tasks.core.errors import EnvironmentFailure
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Build, Outcome
from tasks.core.store.bucket import Bucket
from tasks.core.store.current import promote_run
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import LOG, MANIFEST

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}
OTHER_BYTES = {"a.bin": b"other bytes", "b.bin": b"the bytes of b"}


def machine(tmp_path: Path, name: str) -> dict[str, object]:
    """The environment of a process with its own cache and user name."""
    return {"CIFAR_FLOW_CACHE": tmp_path / name, "LOGNAME": name}


def send_line(*processes: Process) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()


# In two processes

BUILD = (
    PRINT_LOG
    + """
from tasks.core.store.artifact import Build, Key
from tasks.core.store import open_store

def fill(folder):
    for name in ("a.bin", "b.bin", "c.bin"):
        (folder / name).write_bytes(f"{name} of {sys.argv[2]}".encode())
    print("built", flush=True)
    sys.stdin.readline()

store = open_store(sys.argv[1])
outcome = store.get_or_create(Build(Key(name="x"), fill))
print(outcome.ref.model_dump_json())
"""
)


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
def test_two_machines_that_build_one_version_use_the_first(bucket: BucketPlace, tmp_path: Path, together: bool) -> None:
    printed: dict[str, list[str]] = {}
    with (
        python_process(BUILD, bucket.location, "one", **machine(tmp_path, "one")) as one,
        python_process(BUILD, bucket.location, "two", **machine(tmp_path, "two")) as two,
    ):
        for process in (one, two):
            assert next_line(process) == "x: building for the first time"
            assert next_line(process) == "built"
        if together:
            send_line(one, two)
        printed = {"one": resume(one), "two": resume(two)}

    [winner] = [name for name, lines in printed.items() if len(lines) == 1]
    [loser] = {"one", "two"} - {winner}
    assert together or winner == "one"
    ref = ArtifactRef.model_validate_json(printed[winner][0])
    assert printed[loser] == [f"x: using {ref}, built by another machine meanwhile", printed[winner][0]]
    assert read_payload(bucket.open(), ref) == {
        name: f"{name} of {winner}".encode() for name in ("a.bin", "b.bin", "c.bin")
    }
    assert bucket.open().versions("x") == [ref.version]
    again = bucket.open().get_or_create(build_of(PAYLOAD))
    assert (again.is_cache_hit, again.ref) == (True, ref)


GATE = """
import sys
from tasks.core.errors import CifarFlowError
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
from tiny_artifacts import finish_run, identity_of

def wait():
    print(run.record.run, flush=True)
    sys.stdin.readline()

try:
    with recording_run(open_store(sys.argv[1]), {}, {}) as run:
        finish_run(run, sys.argv[2], identity_of(), before_report=wait)
except CifarFlowError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("before", [[], ["zero"]], ids=["nothing before", "a run before"])
def test_the_slower_of_two_promotions_has_to_run_again(bucket: BucketPlace, tmp_path: Path, before: list[str]) -> None:
    earlier = [record.run for record in finished(bucket, *before)]
    with (
        python_process(GATE, bucket.location, "one", **machine(tmp_path, "one")) as one,
        python_process(GATE, bucket.location, "two", **machine(tmp_path, "two")) as two,
    ):
        first, second = next_line(one), next_line(two)
        assert resume(two) == []
        [error] = resume(one)

    words = f"run {first}: another machine promoted a run meanwhile; run again, so that the gate compares with that one"
    assert error == f"EnvironmentFailure {words}"
    assert current(bucket).run == second
    assert root_files(bucket) == files_of("two")
    assert [entry["run"] for entry in logged(bucket)] == [*earlier, second]
    loser = bucket.json(f"runs/{first}.json")
    assert (loser["status"], loser["error"], loser["verdict"]) == ("failed", words, None)
    assert bucket.json(f"runs/{second}.json")["status"] == "completed"


REPAIR_AND_STOP = """
import os, signal, sys
from pathlib import Path
from tasks.core.store import open_store

def stop_before_the_first_root_file(event, arguments):
    if event == "open" and Path(str(arguments[0])).name == "per_class.parquet" and arguments[1] in ("r", "rb"):
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop_before_the_first_root_file)
open_store(sys.argv[1])
"""


def went_on_to_its_end(process: Process) -> bool:
    process.send_signal(signal.SIGCONT)
    return process.poll() is not None


def test_a_slow_repair_of_the_root_never_undoes_a_promotion(bucket: BucketPlace, tmp_path: Path) -> None:
    finished(bucket, "one")
    for name in files_of("one"):
        bucket.delete(name)
    with python_process(REPAIR_AND_STOP, bucket.location, **machine(tmp_path, "slow")) as slow:
        assert os.WIFSTOPPED(os.waitpid(slow.pid, os.WUNTRACED)[1])
        finished(bucket, "two")
        wait_until(lambda: went_on_to_its_end(slow))
        assert slow.returncode == 0

    assert root_files(bucket) == files_of("two")


def test_a_live_run_on_another_machine_is_not_marked_as_killed(bucket: BucketPlace, tmp_path: Path) -> None:
    with python_process(GATE, bucket.location, "one", **machine(tmp_path, "one")) as one:
        run = next_line(one)
        finished(bucket, "two")

        assert bucket.json(f"runs/{run}.json")["status"] == "running"


# The other machine acts at each moment in turn


class Other:
    """Another machine, which acts at the n-th call."""

    def __init__(self, cache: Path, wanted: int, act: Callable[[], Any]) -> None:
        self.cache, self.wanted, self.act = cache, wanted, act
        self.moments = 0
        self.result: Any = None

    def __call__(self) -> None:
        self.moments += 1
        if self.moments == self.wanted:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("CIFAR_FLOW_CACHE", str(self.cache))
                self.result = self.act()


@dataclass(frozen=True)
class BetweenRequests(Bucket):
    """A bucket on which the other machine may act before each request."""

    other: Callable[[], None]

    @property
    def _fs(self) -> object:
        self.other()
        return super()._fs


@dataclass(frozen=True)
class AfterALookAtTheLog(Bucket):
    """A bucket on which the other machine may act after each read of the promotion log."""

    other: Callable[[], None]

    def read(self, name: str) -> bytes | None:
        content = super().read(name)
        if name == LOG:
            self.other()
        return content


def damage(bucket: BucketPlace, ref: ArtifactRef) -> None:
    flip_a_bit(bucket, bucket.name_of(ref, "a.bin"))


def damage_the_manifest(bucket: BucketPlace, ref: ArtifactRef) -> None:
    bucket.write(f"{ref}/{MANIFEST}", b"{")


def damage_the_manifest_of_a_run(bucket: BucketPlace, ref: ArtifactRef) -> None:
    with recording_run(bucket.open(), {}, {}) as run:
        run.add_artifacts(ref)
    damage_the_manifest(bucket, ref)


def build_in(bucket: BucketPlace, stage: Build) -> Outcome:
    return Store(Bucket(bucket.location)).get_or_create(stage)


# (damage before, our bytes, their bytes). A version that one machine repaired may still be quarantined by the other.
SITUATIONS = [
    (None, PAYLOAD, OTHER_BYTES),
    (damage, PAYLOAD, PAYLOAD),
    (damage_the_manifest_of_a_run, PAYLOAD, PAYLOAD),
    (None, PAYLOAD, PAYLOAD),
    (damage, PAYLOAD, OTHER_BYTES),
    (damage, OTHER_BYTES, OTHER_BYTES),
    (damage_the_manifest, PAYLOAD, OTHER_BYTES),
]


@pytest.mark.parametrize(("before", "ours", "theirs"), SITUATIONS if SOAK else SITUATIONS[:3])
def test_two_builds_of_one_version_never_lose_a_result(
    bucket: BucketPlace,
    tmp_path: Path,
    log: list[str],
    before: Callable[[BucketPlace, ArtifactRef], None] | None,
    ours: dict[str, bytes],
    theirs: dict[str, bytes],
) -> None:
    for moment in count(1):
        name = f"x{moment}"
        if before:
            before(bucket, build_in(bucket, build_of(PAYLOAD, name)).ref)
        other = Other(tmp_path / "other", moment, partial(build_in, bucket, build_of(theirs, name)))
        store = Store(BetweenRequests(bucket.location, other))

        log.clear()
        made = store.get_or_create(build_of(ours, name))

        if other.moments < moment:
            break
        now = Store(Bucket(bucket.location))
        for ref in (made.ref, other.result.ref):
            assert read_payload(now, ref) in (ours, theirs), f"{moment}: {log}"
        assert now.versions(name) == [made.ref.version]
        assert before in (damage_the_manifest, damage_the_manifest_of_a_run) or not any(
            "its manifest is lost" in line for line in log
        )
    assert moment > 12


def test_the_log_ends_with_the_current_run_of_two_machines(bucket: BucketPlace, tmp_path: Path) -> None:
    for moment in count(1):
        place = bucket.beside(str(moment))
        other = Other(tmp_path / "other", moment, partial(finished_run, place.location, "two"))
        place.open()
        store = Store(AfterALookAtTheLog(place.location, other))
        with suppress(EnvironmentFailure), recording_run(store, {}, {}) as run:  # the slower one has to run again
            finish_run(run, "one", identity_of())

        if other.moments < moment:
            break
        promoted = [entry["run"] for entry in logged(place)]
        assert promoted[-1] == current(place).run
        assert sorted(promoted) == sorted({*promoted, other.result.record.run})
    assert moment > 4


def test_a_promotion_by_hand_is_refused_during_another_one(bucket: BucketPlace, tmp_path: Path) -> None:
    [one, _] = finished(bucket, "one", "two")
    other = Other(tmp_path / "other", 2, partial(finished_run, bucket.location, "three"))

    with pytest.raises(EnvironmentFailure, match="another machine promoted a run meanwhile; look at it, and try again"):
        promote_run(Store(AfterALookAtTheLog(bucket.location, other)), one, "by hand")

    assert current(bucket).run == other.result.record.run

"""Two machines that work on one store in a bucket at once, and see nothing of each other's locks."""

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
from killing import Process, go_on, next_line, started, wait_until
from places import SOAK, BucketPlace, flip_a_bit, payload_of
from promotions import current, files_of, finished, logged, root_files
from tiny_artifacts import finish, finished_run, identity_of, quiet, stage_of

from tasks.core.errors import EnvironmentFailure
from tasks.core.store import Store
from tasks.core.store.artifact import ArtifactRef, Outcome, Stage
from tasks.core.store.bucket import Bucket
from tasks.core.store.current import promote_run
from tasks.core.store.runs import recording_run
from tasks.core.store.storage import LOG, MANIFEST

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}
OTHER_BYTES = {"a.bin": b"other bytes", "b.bin": b"the bytes of b"}


def machine(tmp_path: Path, name: str) -> dict[str, object]:
    """The environment of a process that shares nothing but the bucket with those of other names."""
    return {"CIFAR_FLOW_CACHE": tmp_path / name, "LOGNAME": name}


def tell_to_go_on(*processes: Process) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()


# Each a process of its own

MAKING = """
import sys
from tasks.core.store.artifact import Key, Stage
from tasks.core.store import open_store

def build(folder, log):
    for name in ("a.bin", "b.bin", "c.bin"):
        (folder / name).write_bytes(f"{name} of {sys.argv[2]}".encode())
    log("built")
    sys.stdin.readline()

store = open_store(sys.argv[1])
outcome = store.get_or_create(Stage(Key(name="x"), build), lambda line: print(line, flush=True))
print(outcome.ref.model_dump_json())
"""


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
def test_of_two_machines_that_make_one_version_with_other_bytes_one_wins_and_both_use_it(
    bucket: BucketPlace, tmp_path: Path, together: bool
) -> None:
    printed: dict[str, list[str]] = {}
    with (
        started(MAKING, bucket.location, "one", **machine(tmp_path, "one")) as one,
        started(MAKING, bucket.location, "two", **machine(tmp_path, "two")) as two,
    ):
        for process in (one, two):
            assert next_line(process) == "x runs for the first time"
            assert next_line(process) == "built"
        if together:
            tell_to_go_on(one, two)
        printed = {"one": go_on(one), "two": go_on(two)}

    [winner] = [name for name, lines in printed.items() if len(lines) == 1]
    [loser] = {"one", "two"} - {winner}
    assert together or winner == "one"
    ref = ArtifactRef.model_validate_json(printed[winner][0])
    assert printed[loser] == [f"{ref} was made by another machine meanwhile, and is used", printed[winner][0]]
    assert payload_of(bucket.open(), ref) == {
        name: f"{name} of {winner}".encode() for name in ("a.bin", "b.bin", "c.bin")
    }
    assert bucket.open().versions("x") == [ref.version]
    again = bucket.open().get_or_create(stage_of(PAYLOAD), quiet)
    assert (again.reused, again.ref) == (True, ref)


JUDGING = """
import sys
from tasks.core.errors import CifarFlowError
from tasks.core.store.runs import recording_run
from tasks.core.store import open_store
from tiny_artifacts import finish, identity_of

def wait():
    print(run.record.run, flush=True)
    sys.stdin.readline()

try:
    with recording_run(open_store(sys.argv[1]), {}, {}) as run:
        finish(run, sys.argv[2], identity_of(), before_report=wait)
except CifarFlowError as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize("before", [[], ["zero"]], ids=["nothing before", "a run before"])
def test_of_two_machines_that_promote_at_once_one_is_told_to_be_judged_again(
    bucket: BucketPlace, tmp_path: Path, before: list[str]
) -> None:
    earlier = [record.run for record in finished(bucket, *before)]
    with (
        started(JUDGING, bucket.location, "one", **machine(tmp_path, "one")) as one,
        started(JUDGING, bucket.location, "two", **machine(tmp_path, "two")) as two,
    ):
        first, second = next_line(one), next_line(two)
        assert go_on(two) == []
        [said] = go_on(one)

    words = f"run {first}: another machine promoted a run meanwhile; run again to be judged against that one"
    assert said == f"WorldError {words}"
    assert current(bucket).run == second
    assert root_files(bucket) == files_of("two")
    assert [entry["run"] for entry in logged(bucket)] == [*earlier, second]
    loser = bucket.json(f"runs/{first}.json")
    assert (loser["status"], loser["error"], loser["verdict"]) == ("failed", words, None)
    assert bucket.json(f"runs/{second}.json")["status"] == "completed"


RESTORE_AND_STOP = """
import os, signal, sys
from pathlib import Path
from tasks.core.store import open_store
from tiny_artifacts import quiet

def stop_before_the_first_root_file(event, arguments):
    if event == "open" and Path(str(arguments[0])).name == "per_class.parquet" and arguments[1] in ("r", "rb"):
        os.kill(os.getpid(), signal.SIGSTOP)

sys.addaudithook(stop_before_the_first_root_file)
open_store(sys.argv[1], quiet)
"""


def went_on_to_its_end(process: Process) -> bool:
    process.send_signal(signal.SIGCONT)
    return process.poll() is not None


def test_a_machine_that_puts_the_root_right_slowly_does_not_undo_another_ones_promotion(
    bucket: BucketPlace, tmp_path: Path
) -> None:
    finished(bucket, "one")
    for name in files_of("one"):
        bucket.delete(name)
    with started(RESTORE_AND_STOP, bucket.location, **machine(tmp_path, "slow")) as slow:
        assert os.WIFSTOPPED(os.waitpid(slow.pid, os.WUNTRACED)[1])
        finished(bucket, "two")
        wait_until(lambda: went_on_to_its_end(slow))
        assert slow.returncode == 0

    assert root_files(bucket) == files_of("two")


def test_a_run_that_goes_on_elsewhere_is_left_alone(bucket: BucketPlace, tmp_path: Path) -> None:
    with started(JUDGING, bucket.location, "one", **machine(tmp_path, "one")) as one:
        run = next_line(one)
        finished(bucket, "two")

        assert bucket.json(f"runs/{run}.json")["status"] == "running"


# The other one acts at each moment in turn


class Other:
    """Another machine, which does something once, at the wanted one of the moments that it is told of."""

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
    """A bucket to which the other machine turns right before this one asks it for something."""

    other: Callable[[], None]

    @property
    def _fs(self) -> object:
        self.other()
        return super()._fs


@dataclass(frozen=True)
class AfterALookAtTheLog(Bucket):
    """The same, right after this machine has read the log of promotions."""

    other: Callable[[], None]

    def read(self, name: str) -> bytes | None:
        content = super().read(name)
        if name == LOG:
            self.other()
        return content


def damage(bucket: BucketPlace, ref: ArtifactRef) -> None:
    flip_a_bit(bucket, bucket.name_of(ref, "a.bin"))


def lose_the_manifest(bucket: BucketPlace, ref: ArtifactRef) -> None:
    bucket.write(f"{ref}/{MANIFEST}", b"{")


def lose_the_manifest_of_what_a_run_has(bucket: BucketPlace, ref: ArtifactRef) -> None:
    with recording_run(bucket.open(), {}, {}, quiet) as run:
        run.keep(ref)
    lose_the_manifest(bucket, ref)


def made_in(bucket: BucketPlace, stage: Stage) -> Outcome:
    return Store(Bucket(bucket.location)).get_or_create(stage, quiet)


# What one has just healed, another one with other bytes may still set aside, and the first is told to run again.
SITUATIONS = [
    (None, PAYLOAD, OTHER_BYTES),
    (damage, PAYLOAD, PAYLOAD),
    (lose_the_manifest_of_what_a_run_has, PAYLOAD, PAYLOAD),
    (None, PAYLOAD, PAYLOAD),
    (damage, PAYLOAD, OTHER_BYTES),
    (damage, OTHER_BYTES, OTHER_BYTES),
    (lose_the_manifest, PAYLOAD, OTHER_BYTES),
]


@pytest.mark.parametrize(("before", "ours", "theirs"), SITUATIONS if SOAK else SITUATIONS[:3])
def test_whenever_another_machine_makes_the_same_version_what_both_have_made_is_there(
    bucket: BucketPlace,
    tmp_path: Path,
    before: Callable[[BucketPlace, ArtifactRef], None] | None,
    ours: dict[str, bytes],
    theirs: dict[str, bytes],
) -> None:
    for moment in count(1):
        name, said = f"x{moment}", list[str]()
        if before:
            before(bucket, made_in(bucket, stage_of(PAYLOAD, name)).ref)
        other = Other(tmp_path / "other", moment, partial(made_in, bucket, stage_of(theirs, name)))
        store = Store(BetweenRequests(bucket.location, other))

        made = store.get_or_create(stage_of(ours, name), said.append)

        if other.moments < moment:
            break
        now = Store(Bucket(bucket.location))
        for ref in (made.ref, other.result.ref):
            assert payload_of(now, ref) in (ours, theirs), f"{moment}: {said}"
        assert now.versions(name) == [made.ref.version]
        assert before in (lose_the_manifest, lose_the_manifest_of_what_a_run_has) or not any(
            "its manifest is lost" in line for line in said
        )
    assert moment > 12


def test_whenever_another_machine_promotes_a_run_the_log_ends_with_the_current_one(
    bucket: BucketPlace, tmp_path: Path
) -> None:
    for moment in count(1):
        place = bucket.beside(str(moment))
        other = Other(tmp_path / "other", moment, partial(finished_run, place.location, "two"))
        place.open()
        store = Store(AfterALookAtTheLog(place.location, other))
        with suppress(EnvironmentFailure), recording_run(store, {}, {}) as run:  # which is not judged against that one
            finish(run, "one", identity_of())

        if other.moments < moment:
            break
        promoted = [entry["run"] for entry in logged(place)]
        assert promoted[-1] == current(place).run
        assert sorted(promoted) == sorted({*promoted, other.result.record.run})
    assert moment > 4


def test_who_promotes_by_hand_while_another_machine_does_is_told_to_look_at_that(
    bucket: BucketPlace, tmp_path: Path
) -> None:
    [one, _] = finished(bucket, "one", "two")
    other = Other(tmp_path / "other", 2, partial(finished_run, bucket.location, "three"))

    with pytest.raises(EnvironmentFailure, match="another machine promoted a run meanwhile; look at it, and try again"):
        promote_run(Store(AfterALookAtTheLog(bucket.location, other)), one, "by hand", quiet)

    assert current(bucket).run == other.result.record.run

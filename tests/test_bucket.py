"""What only a store in a bucket has: other machines, whose locks nobody sees, and copies on this one."""

import os
import pickle
import secrets
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
from killing import Process, go_on, next_line, started, wait_until
from places import BucketPlace, flip_a_bit, payload_of
from promotions import current, files_of, finished, logged, root_files
from tiny_artifacts import finished_run, quiet, stage_of

from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.artifact import ArtifactRef
from tasks.core.store.history import history

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.fixture
def store(bucket: BucketPlace) -> Store:
    return bucket.open()


def machine(tmp_path: Path, name: str) -> dict[str, object]:
    """The environment of a process that shares nothing but the bucket with those of other names."""
    return {"CIFAR_FLOW_CACHE": tmp_path / name, "LOGNAME": name}


def tell_to_go_on(*processes: Process) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go on\n")
        process.stdin.flush()


# Two machines

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
from tasks.core.errors import ExpectedError
from tasks.core.store.runs import recorded_run
from tasks.core.store import open_store
from tiny_artifacts import finish, identity_of

def wait():
    print(run.record.run, flush=True)
    sys.stdin.readline()

try:
    with recorded_run(open_store(sys.argv[1]), {}, {}) as run:
        finish(run, sys.argv[2], identity_of(), before_report=wait)
except ExpectedError as error:
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


# Killed in the middle

UPLOADING = """
import os, signal, sys
from pathlib import Path
from tasks.core.store import open_store
from tiny_artifacts import quiet, stage_of

reads = 0

def kill_before_the_upload(event, arguments):
    global reads
    if event == "open" and Path(str(arguments[0])).name == "b.bin" and arguments[1] in ("r", "rb"):
        reads += 1
        if reads == 2:  # the first one took its digest
            os.kill(os.getpid(), signal.SIGKILL)

store = open_store(sys.argv[1])
sys.addaudithook(kill_before_the_upload)
store.get_or_create(stage_of({"a.bin": b"half of a", "b.bin": b"half of b"}), quiet)
"""


def test_an_uploader_that_is_killed_leaves_no_version_and_the_next_run_publishes(bucket: BucketPlace) -> None:
    with started(UPLOADING, bucket.location) as process:
        assert process.wait() == -9
    [left] = bucket.all("x/")
    assert left.endswith("/a.bin")

    store = bucket.open()

    assert store.versions("x") == []
    assert store.manifests("x") == []
    outcome = store.get_or_create(stage_of(PAYLOAD), quiet)
    assert not outcome.reused
    assert outcome.ref.version == stage_of(PAYLOAD).key.version
    assert payload_of(store, outcome.ref) == PAYLOAD
    assert store.get_or_create(stage_of(PAYLOAD), quiet).reused


# Copies on this machine


def copies(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


def written_at(folder: Path) -> Mapping[str, tuple[int, int]]:
    """Which files lie in a folder, each told from any that is written in its place."""
    found = {path.name: path.stat() for path in folder.iterdir() if path.is_file()}
    return {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in found.items()}


def test_a_copy_is_used_as_long_as_the_object_is_the_same(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    before = written_at(store.open(ref))

    assert written_at(store.open(ref)) == before


def test_spoilt_bytes_in_the_bucket_are_found_although_the_copy_is_whole(bucket: BucketPlace, store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    folder, name = store.open(ref), bucket.name_of(ref, "a.bin")
    flip_a_bit(bucket, name)

    with pytest.raises(DamagedArtifact, match=r"a\.bin is damaged"):
        store.open(ref)

    bucket.write(name, PAYLOAD["a.bin"])
    assert store.open(ref) == folder
    assert payload_of(store, ref) == PAYLOAD


@pytest.mark.parametrize("spoilt", [b"THE BYTES OF A", b"the bytes of", b""])
def test_a_spoilt_copy_is_fetched_again(store: Store, spoilt: bytes) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    copy = store.open(ref) / "a.bin"
    before = copy.stat()
    copy.write_bytes(spoilt)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert store.open(ref) == copy.parent
    assert payload_of(store, ref) == PAYLOAD


def test_copies_that_are_gone_are_fetched_again(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    for path in store.open(ref).iterdir():
        path.unlink()

    assert payload_of(store, ref) == PAYLOAD


def test_what_stands_beside_a_copy_may_be_garbled(store: Store) -> None:
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    for name, path in copies(store.open(ref)).items():
        if name not in PAYLOAD:
            path.write_bytes(b"\xff garbage")

    assert payload_of(store, ref) == PAYLOAD


def test_another_cache_is_filled_anew(bucket: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [record] = finished(bucket, "one")
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "another"))

    bucket.open()

    assert root_files(bucket) == files_of("one")
    for ref in record.artifacts.values():
        assert bucket.open().open(ref).is_relative_to(tmp_path / "another")


def test_all_that_a_run_leaves_on_this_machine_is_in_the_cache(
    bucket: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    before = written_at(Path("/"))

    finished(bucket, *(f"never said before: {secrets.token_hex(4)}" for _ in range(2)))
    bucket.open()

    assert list(Path.cwd().iterdir()) == []
    assert written_at(Path("/")) == before
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "elsewhere"}


# Where in a bucket


def test_a_whole_bucket_may_be_a_store(bucket: BucketPlace) -> None:
    bucket.server.client().create_bucket(Bucket="whole")
    runs = [finished_run("s3://whole", word).record.run for word in ("one", "two")]

    store = open_store("s3://whole")

    assert sorted(row.run for row in history(store)) == sorted(runs)
    assert store.artifacts() == ["dataset", "per_class", "predictions", "report", "weights"]
    assert store.storage.read("cifar_net.pth") == files_of("two")["cifar_net.pth"]


def test_a_slash_at_the_end_does_not_make_another_store(bucket: BucketPlace, store: Store) -> None:
    assert open_store(f"{bucket.location}/") == store


def test_stores_whose_names_begin_alike_are_told_apart(bucket: BucketPlace, store: Store) -> None:
    other = open_store(f"{bucket.location}2")
    other.get_or_create(stage_of(PAYLOAD, "y"), quiet)
    ref = store.get_or_create(stage_of(PAYLOAD), quiet).ref
    store.get_or_create(stage_of(PAYLOAD, "xx"), quiet)

    assert store.artifacts() == ["x", "xx"]
    assert store.versions("x") == [ref.version]
    assert other.artifacts() == ["y"]


def test_a_store_takes_no_connection_along(store: Store) -> None:
    assert len(pickle.dumps(store)) < 1000

"""What only a store in a bucket has: uploads that are killed, copies on this machine, neighbours."""

import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path

import pytest
from killing import started
from places import BucketPlace, flip_a_bit, payload_of
from promotions import files_of, finished, root_files
from tiny_artifacts import finished_run, quiet, stage_of

from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.history import history

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.fixture
def store(bucket: BucketPlace) -> Store:
    return bucket.open()


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

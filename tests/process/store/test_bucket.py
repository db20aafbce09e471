"""A store in a bucket only: killed uploads, copies on this machine, prefixes."""

import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path

import pytest
from killing import python_process
from places import BucketPlace, flip_a_bit, read_payload
from promotions import files_of, finished, root_files
from tiny_artifacts import build_of, finished_run

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
from tiny_artifacts import build_of

reads = 0

def kill_before_the_upload(event, arguments):
    global reads
    if event == "open" and Path(str(arguments[0])).name == "b.bin" and arguments[1] in ("r", "rb"):
        reads += 1
        if reads == 2:  # the first one took its digest
            os.kill(os.getpid(), signal.SIGKILL)

store = open_store(sys.argv[1])
sys.addaudithook(kill_before_the_upload)
store.get_or_create(build_of({"a.bin": b"half of a", "b.bin": b"half of b"}))
"""


def test_a_killed_upload_leaves_no_version_and_the_next_run_publishes(bucket: BucketPlace) -> None:
    with python_process(UPLOADING, bucket.location) as process:
        assert process.wait() == -9
    [left] = bucket.all("x/")
    assert left.endswith("/a.bin")

    store = bucket.open()

    assert store.versions("x") == []
    assert store.manifests("x") == []
    outcome = store.get_or_create(build_of(PAYLOAD))
    assert not outcome.is_cache_hit
    assert outcome.ref.version == build_of(PAYLOAD).key.version
    assert read_payload(store, outcome.ref) == PAYLOAD
    assert store.get_or_create(build_of(PAYLOAD)).is_cache_hit


# Copies on this machine


def copies(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir()}


def written_at(folder: Path) -> Mapping[str, tuple[int, int]]:
    """The files in a folder, each with inode and time, which a rewrite changes."""
    found = {path.name: path.stat() for path in folder.iterdir() if path.is_file()}
    return {name: (facts.st_ino, facts.st_mtime_ns) for name, facts in found.items()}


def test_a_local_copy_is_reused_while_the_object_is_unchanged(store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    before = written_at(store.open(ref))

    assert written_at(store.open(ref)) == before


def test_damage_in_the_bucket_is_found_despite_an_intact_copy(bucket: BucketPlace, store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    folder, name = store.open(ref), bucket.name_of(ref, "a.bin")
    flip_a_bit(bucket, name)

    with pytest.raises(DamagedArtifact, match=r"a\.bin is damaged"):
        store.open(ref)

    bucket.write(name, PAYLOAD["a.bin"])
    assert store.open(ref) == folder
    assert read_payload(store, ref) == PAYLOAD


@pytest.mark.parametrize("damaged", [b"THE BYTES OF A", b"the bytes of", b""])
def test_a_damaged_copy_is_downloaded_again(store: Store, damaged: bytes) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    copy = store.open(ref) / "a.bin"
    before = copy.stat()
    copy.write_bytes(damaged)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert store.open(ref) == copy.parent
    assert read_payload(store, ref) == PAYLOAD


def test_a_missing_copy_is_downloaded_again(store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    for path in store.open(ref).iterdir():
        path.unlink()

    assert read_payload(store, ref) == PAYLOAD


def test_a_damaged_note_beside_a_copy_does_no_harm(store: Store) -> None:
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    for name, path in copies(store.open(ref)).items():
        if name not in PAYLOAD:
            path.write_bytes(b"\xff garbage")

    assert read_payload(store, ref) == PAYLOAD


def test_an_empty_cache_is_filled_again(bucket: BucketPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [record] = finished(bucket, "one")
    monkeypatch.setenv("CIFAR_FLOW_CACHE", str(tmp_path / "another"))

    bucket.open()

    assert root_files(bucket) == files_of("one")
    for ref in record.artifacts.values():
        assert bucket.open().open(ref).is_relative_to(tmp_path / "another")


def test_a_run_writes_only_to_the_cache_of_this_machine(
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
    assert store.artifact_names() == ["dataset", "per_class", "predictions", "report", "weights"]
    assert store.storage.read("cifar_net.pth") == files_of("two")["cifar_net.pth"]


def test_a_trailing_slash_is_ignored(bucket: BucketPlace, store: Store) -> None:
    assert open_store(f"{bucket.location}/") == store


def test_a_prefix_of_another_prefix_is_another_store(bucket: BucketPlace, store: Store) -> None:
    other = open_store(f"{bucket.location}2")
    other.get_or_create(build_of(PAYLOAD, "y"))
    ref = store.get_or_create(build_of(PAYLOAD)).ref
    store.get_or_create(build_of(PAYLOAD, "xx"))

    assert store.artifact_names() == ["x", "xx"]
    assert store.versions("x") == [ref.version]
    assert other.artifact_names() == ["y"]


def test_a_pickled_store_holds_no_connection(store: Store) -> None:
    assert len(pickle.dumps(store)) < 1000

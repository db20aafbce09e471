"""Builds that fail, are killed, or run at the same time, in a folder and in a bucket."""

import os
import time
from pathlib import Path

import pytest
from killing import PRINT_LOG, kill, next_line, python_process, resume
from places import BUCKET_IN_SOAK, FolderPlace, Place, contents, read_payload, staging_folders
from tiny_artifacts import build_of

from tasks.core.store.artifact import ArtifactRef, Build, Key

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_build_that_raises_leaves_nothing_behind(place: Place, error: BaseException) -> None:
    def fail(folder: Path) -> None:
        (folder / "a.bin").write_bytes(b"half of it")
        raise error

    store = place.open()
    with pytest.raises(type(error)):
        store.get_or_create(Build(Key(name="x"), fail))

    assert staging_folders(store) == []
    assert place.versions("x") == {}
    assert read_payload(store, store.get_or_create(build_of(PAYLOAD)).ref) == PAYLOAD


BUILDING = (
    PRINT_LOG
    + """
from tasks.core.store.artifact import Build, Key
from tasks.core.store import open_store

def fill(folder):
    (folder / "a.bin").write_bytes(b"the bytes of a")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "b.bin").write_bytes(b"the bytes of b")

store = open_store(sys.argv[1])
outcome = store.get_or_create(Build(Key(name="x"), fill))
print(outcome.ref.model_dump_json())
"""
)


@BUCKET_IN_SOAK
def test_a_killed_build_leaves_no_version_and_the_next_one_builds(place: Place) -> None:
    with python_process(BUILDING, place.location) as process:
        assert next_line(process) == "x: building for the first time"
        assert next_line(process) == "building"
        kill(process)

    store = place.open()

    assert staging_folders(store) == []
    assert place.versions("x") == {}
    outcome = store.get_or_create(build_of(PAYLOAD))
    assert not outcome.is_cache_hit
    assert read_payload(store, outcome.ref) == PAYLOAD


def test_opening_the_store_does_not_disturb_a_live_build(folder: FolderPlace) -> None:
    with python_process(BUILDING, folder.location) as process:
        next_line(process)
        assert next_line(process) == "building"

        store = folder.open()

        assert [contents(folder) for folder in staging_folders(store)] == [{"a.bin": b"the bytes of a"}]
        [line] = resume(process)
    assert read_payload(store, ArtifactRef.model_validate_json(line)) == PAYLOAD


def test_two_processes_build_the_same_version_once(place: Place) -> None:
    with python_process(BUILDING, place.location) as first:
        next_line(first)
        assert next_line(first) == "building"
        with python_process(BUILDING, place.location) as second:
            waits = next_line(second)
            [made], [reused] = resume(first), resume(second)

    assert waits == f"store: waiting for another run to release x-{build_of(PAYLOAD).key.version}"
    assert made == reused
    assert read_payload(place.open(), ArtifactRef.model_validate_json(made)) == PAYLOAD


def test_a_process_that_waits_for_a_killed_one_builds_instead(folder: FolderPlace) -> None:
    with python_process(BUILDING, folder.location) as first:
        next_line(first)
        assert next_line(first) == "building"
        with python_process(BUILDING, folder.location) as second:
            assert next_line(second).startswith("store: waiting for another run")
            kill(first)
            assert next_line(second) == "x: building for the first time"
            assert next_line(second) == "building"
            [line] = resume(second)

    assert read_payload(folder.open(), ArtifactRef.model_validate_json(line)) == PAYLOAD


# Checkpoints


def checkpoints(place: Place, days_ago: int) -> Path:
    """The checkpoints that a killed build left."""
    work = place.open().work_folder(build_of(PAYLOAD).key)
    work.mkdir(parents=True)
    (work / "half").write_text("half done")
    long_ago = time.time() - days_ago * 24 * 3600
    os.utime(work, (long_ago, long_ago))
    return work


def test_checkpoints_stay_until_the_build_succeeds(place: Place) -> None:
    work = checkpoints(place, days_ago=20)
    seen: list[str] = []

    def build(folder: Path) -> None:
        seen.append((work / "half").read_text())
        (folder / "a.bin").write_bytes(b"whole")

    place.open().get_or_create(Build(build_of(PAYLOAD).key, build))

    assert seen == ["half done"]
    assert not work.exists()


def test_checkpoints_are_removed_after_weeks_without_use(place: Place) -> None:
    work = checkpoints(place, days_ago=31)
    place.open()
    assert not work.exists()

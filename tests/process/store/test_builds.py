"""Builds that fail, are killed, or meet another one, for a store in a folder and in a bucket."""

import os
import time
from pathlib import Path

import pytest
from killing import go_on, killed, next_line, started
from places import BUCKET_BY_SOAK, FolderPlace, Place, contents, payload_of, staged
from tiny_artifacts import quiet, stage_of

from tasks.core.store.artifact import ArtifactRef, Key, Log, Stage

PAYLOAD = {"a.bin": b"the bytes of a", "b.bin": b"the bytes of b"}


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_a_build_that_raises_leaves_nothing_behind(place: Place, error: BaseException) -> None:
    def fail(folder: Path, _: Log) -> None:
        (folder / "a.bin").write_bytes(b"half of it")
        raise error

    store = place.open()
    with pytest.raises(type(error)):
        store.get_or_create(Stage(Key(name="x"), fail), quiet)

    assert staged(store) == []
    assert place.versions("x") == {}
    assert payload_of(store, store.get_or_create(stage_of(PAYLOAD), quiet).ref) == PAYLOAD


BUILDING = """
import sys
from tasks.core.store.artifact import Key, Stage
from tasks.core.store import open_store

def build(folder, log):
    (folder / "a.bin").write_bytes(b"the bytes of a")
    print("building", flush=True)
    sys.stdin.readline()
    (folder / "b.bin").write_bytes(b"the bytes of b")

store = open_store(sys.argv[1])
outcome = store.get_or_create(Stage(Key(name="x"), build), lambda line: print(line, flush=True))
print(outcome.ref.model_dump_json())
"""


@BUCKET_BY_SOAK
def test_a_killed_build_leaves_no_version_and_the_next_one_builds(place: Place) -> None:
    with started(BUILDING, place.location) as process:
        assert next_line(process) == "x runs for the first time"
        assert next_line(process) == "building"
        killed(process)

    store = place.open()

    assert staged(store) == []
    assert place.versions("x") == {}
    outcome = store.get_or_create(stage_of(PAYLOAD), quiet)
    assert not outcome.reused
    assert payload_of(store, outcome.ref) == PAYLOAD


def test_opening_the_store_leaves_a_live_build_alone(folder: FolderPlace) -> None:
    with started(BUILDING, folder.location) as process:
        next_line(process)
        assert next_line(process) == "building"

        store = folder.open()

        assert [contents(folder) for folder in staged(store)] == [{"a.bin": b"the bytes of a"}]
        [line] = go_on(process)
    assert payload_of(store, ArtifactRef.model_validate_json(line)) == PAYLOAD


def test_two_processes_that_want_the_same_version_build_it_once(place: Place) -> None:
    with started(BUILDING, place.location) as first:
        next_line(first)
        assert next_line(first) == "building"
        with started(BUILDING, place.location) as second:
            waits = next_line(second)
            [made], [reused] = go_on(first), go_on(second)

    assert waits == f"waiting for another run, which works on x-{stage_of(PAYLOAD).key.version}"
    assert made == reused
    assert payload_of(place.open(), ArtifactRef.model_validate_json(made)) == PAYLOAD


def test_who_waits_for_a_process_that_is_killed_builds_instead(folder: FolderPlace) -> None:
    with started(BUILDING, folder.location) as first:
        next_line(first)
        assert next_line(first) == "building"
        with started(BUILDING, folder.location) as second:
            assert next_line(second).startswith("waiting for another run")
            killed(first)
            assert next_line(second) == "x runs for the first time"
            assert next_line(second) == "building"
            [line] = go_on(second)

    assert payload_of(folder.open(), ArtifactRef.model_validate_json(line)) == PAYLOAD


# Unfinished work


def left_off(place: Place, days_ago: int) -> Path:
    """What a killed process left of a stage for the next try."""
    work = place.open().unfinished(stage_of(PAYLOAD).key)
    work.mkdir(parents=True)
    (work / "half").write_text("half done")
    long_ago = time.time() - days_ago * 24 * 3600
    os.utime(work, (long_ago, long_ago))
    return work


def test_unfinished_work_waits_for_the_next_try_and_goes_when_that_is_done(place: Place) -> None:
    work = left_off(place, days_ago=20)
    seen: list[str] = []

    def build(folder: Path, _: Log) -> None:
        seen.append((work / "half").read_text())
        (folder / "a.bin").write_bytes(b"whole")

    place.open().get_or_create(Stage(stage_of(PAYLOAD).key, build), quiet)

    assert seen == ["half done"]
    assert not work.exists()


def test_unfinished_work_that_nobody_went_on_with_for_weeks_is_swept_away(place: Place) -> None:
    work = left_off(place, days_ago=31)
    place.open()
    assert not work.exists()

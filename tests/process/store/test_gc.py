"""Garbage collection: what stays, what is removed, and kills at every step."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killing import kill, kill_at_every_step, next_line, python_process
from places import BUCKET_IN_SOAK, FOLDER_ONLY, FolderPlace, Place, read_payload
from tiny_artifacts import build_artifact, build_of, refreshing

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.store import ArtifactRef, Store
from tasks.core.store.current import promote_run, roll_back
from tasks.core.store.gc import Plan, collect_garbage
from tasks.core.store.history import find_artifact, find_run, history
from tasks.core.store.runs import recording_run
from tasks.core.store.verify import verify

COLLECT = """
from tasks.core.store import open_store
from tasks.core.store.gc import collect_garbage
def act(root):
    collect_garbage(open_store(root), 1, dry_run=False)
"""
RUNNING = """
import sys
from tasks.core.store import open_store
from tasks.core.store.runs import recording_run
from tiny_artifacts import build_artifact
with recording_run(open_store(sys.argv[1]), {}, {}) as run:
    run.add_artifacts(build_artifact(run.store, "weights", {"cifar_net.pth": b"of a killed run"}))
    print(run.record.run, flush=True)
    sys.stdin.readline()
"""


def collected(place: Place, keep: int) -> Plan:
    return collect_garbage(place.open(), keep, dry_run=False)


def planned(place: Place, keep: int) -> Plan:
    return collect_garbage(place.open(), keep, dry_run=True)


def whole(store: Store, run: str) -> bool:
    """Whether every byte of a run's artifacts is in the store."""
    return all(read_payload(store, ref) for ref in find_run(store, run).artifacts.values())


def wrong(store: Store) -> list[str]:
    return [finding.wrong for _, findings in verify(store) for finding in findings]


# Kept artifacts


def test_only_the_newest_runs_keep_their_artifacts(place: Place, finished: Callable[..., str]) -> None:
    runs = [finished(word, "never") for word in ("one", "two", "three", "four")]

    plan = collected(place, 2)

    assert plan.runs == tuple(runs[:2])
    assert plan.kept == tuple(runs[2:])
    assert {garbage.name for garbage in plan.versions} == {"weights", "predictions", "per_class", "report"}
    assert all(whole(place.open(), run) for run in runs[2:])
    assert wrong(place.open()) == []


@BUCKET_IN_SOAK
def test_a_version_shared_with_a_kept_run_stays(place: Place, finished: Callable[..., str]) -> None:
    finished("one", "never")
    newest = find_run(place.open(), finished("two", "never"))

    collected(place, 1)

    assert set(place.versions("dataset")) == {newest.artifacts["dataset"].version}


@BUCKET_IN_SOAK
def test_promoted_and_rolled_back_runs_keep_their_artifacts(place: Place, finished: Callable[..., str]) -> None:
    one, two, three = (finished(word) for word in ("one", "two", "three"))
    roll_back(place.open(), find_run(place.open(), two), "unfair")
    refused, by_hand = finished("four", "never"), finished("five", "never")
    promote_run(place.open(), find_run(place.open(), by_hand), "by hand")

    plan = collected(place, 0)

    assert plan.runs == (refused,)
    assert all(whole(place.open(), run) for run in (one, two, three, by_hand))
    assert wrong(place.open()) == []


@BUCKET_IN_SOAK
def test_ancestors_of_a_kept_artifact_stay(place: Place) -> None:
    """The run recorded a second attempt, but its predictions were built from the first one with the same bytes."""
    store = place.open()

    def build(name: str, *inputs: ArtifactRef, refresh: bool = False) -> ArtifactRef:
        stage = build_of({"file": name.encode()}, name, inputs={ref.name: ref.sha256 for ref in inputs})
        return refreshing(store, refresh).get_or_create(replace(stage, inputs=inputs)).ref

    first = build("weights", build("dataset"))
    predictions = build("predictions", first)
    second = build("weights", refresh=True)
    with recording_run(store, {}, {}) as run:
        run.add_artifacts(second, predictions)

    assert collected(place, 1).versions == ()
    assert store.open(first)


@BUCKET_IN_SOAK
def test_unused_versions_are_removed(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    orphan = build_artifact(place.open(), "weights", {"cifar_net.pth": b"of a run that was killed"})

    [garbage] = collected(place, 9).versions

    assert (garbage.name, garbage.version) == (orphan.name, orphan.version)


@BUCKET_IN_SOAK
def test_a_folder_that_is_not_a_version_stays(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    place.write("notes/2026/june.txt", b"mine")

    assert collected(place, 0).versions == ()
    assert place.read("notes/2026/june.txt") == b"mine"


@BUCKET_IN_SOAK
def test_failed_runs_count_among_the_newest(place: Place, finished: Callable[..., str]) -> None:
    older = finished("one", "never")
    with pytest.raises(ZeroDivisionError), recording_run(place.open(), {}, {}) as failed:
        raise ZeroDivisionError

    plan = collected(place, 1)

    assert (plan.kept, plan.runs) == ((failed.record.run,), (older,))


# Refusals


@BUCKET_IN_SOAK
def test_nothing_is_removed_while_a_run_is_in_progress(place: Place, finished: Callable[..., str]) -> None:
    finished("one", "never")
    with recording_run(place.open(), {}, {}) as run:
        before = place.all()

        with pytest.raises(EnvironmentFailure) as raised:
            collected(place, 0)

        assert str(raised.value) == (
            f"gc: run {run.record.run} of {run.record.who} is in progress; nothing was removed; try later"
        )
        assert place.all() == before
        assert run.record.run in planned(place, 0).kept


@BUCKET_IN_SOAK
def test_a_killed_run_is_not_in_progress(place: Place) -> None:
    with python_process(RUNNING, place.location) as process:
        run = next_line(process)
        kill(process)

    plan = collected(place, 0)

    assert plan.runs == (run,)
    assert [garbage.name for garbage in plan.versions] == ["weights"]


@BUCKET_IN_SOAK
def test_nothing_is_removed_with_an_unreadable_record(place: Place, finished: Callable[..., str]) -> None:
    run = finished("one")
    finished("two")
    place.write(f"runs/{run}.json", b"")
    before = place.all()

    with pytest.raises(EnvironmentFailure, match=f"gc: the record of run {run} cannot be read"):
        collected(place, 0)

    assert place.all() == before


def refused_untouched(place: Place) -> str:
    """The error of a collection that changes nothing."""
    place.open()  # repairs what it can
    before = place.all()
    with pytest.raises(EnvironmentFailure) as raised:
        collected(place, 0)
    assert place.all() == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


@BUCKET_IN_SOAK
def test_nothing_is_removed_with_a_torn_log_line(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    finished("two")
    torn, *rest = place.read("promotions.jsonl").splitlines(keepends=True)
    place.write("promotions.jsonl", torn[:-9] + b"\n" + b"".join(rest))

    assert refused_untouched(place) == (
        "gc: promotions.jsonl: 1 lines cannot be read; nothing was removed; restore it from a backup, or delete them"
    )


@BUCKET_IN_SOAK
def test_nothing_is_removed_while_the_log_lacks_a_promoted_run(place: Place, finished: Callable[..., str]) -> None:
    one = finished("one")
    finished("two")
    place.delete("promotions.jsonl")

    assert refused_untouched(place) == (
        f"gc: promotions.jsonl: 1 runs that were promoted by their records are missing, such as {one}; "
        "nothing was removed; restore it from a backup, or `cifar promote` them again"
    )


@BUCKET_IN_SOAK
def test_a_lost_line_of_a_promotion_by_hand_is_noticed(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    by_hand = finished("by hand", "never")
    promote_run(place.open(), find_run(place.open(), by_hand), "fewer cats")
    finished("two")
    lines = place.read("promotions.jsonl").splitlines(keepends=True)
    place.write("promotions.jsonl", b"".join(line for line in lines if b"fewer cats" not in line))

    assert find_run(place.open(), by_hand).verdict == "promoted: fewer cats"
    assert f"1 runs that were promoted by their records are missing, such as {by_hand}" in refused_untouched(place)


@BUCKET_IN_SOAK
@pytest.mark.parametrize("word", ["one", "two"])
def test_nothing_is_removed_while_a_promoted_run_has_no_record(
    place: Place, finished: Callable[..., str], word: str
) -> None:
    runs = {each: finished(each) for each in ("one", "two")}
    place.delete(f"runs/{runs[word]}.json")

    assert refused_untouched(place) == (
        f"gc: run {runs[word]}: it was promoted, and has no record; nothing was removed; "
        "restore runs/ from a backup, or delete it in promotions.jsonl"
    )


@BUCKET_IN_SOAK
def test_promoting_again_completes_a_lost_log(place: Place, finished: Callable[..., str]) -> None:
    one, two = finished("one"), finished("two")
    place.delete("promotions.jsonl")

    for run in (one, two):
        promote_run(place.open(), find_run(place.open(), run), "by hand")

    assert collected(place, 0).versions == ()


# Numbers


@BUCKET_IN_SOAK
def test_a_dry_run_reports_the_same_and_changes_nothing(place: Place, finished: Callable[..., str]) -> None:
    for word in ("one", "two", "three"):
        finished(word, "never")
    before = place.all()

    plan = planned(place, 1)

    assert place.all() == before
    assert collected(place, 1) == plan
    freed = {name: content for name, content in before.items() if name not in place.names()}
    assert plan.bytes == sum(garbage.bytes for garbage in plan.versions) == sum(map(len, freed.values()))
    assert {"/".join(name.split("/")[:2]) for name in freed} == {f"{g.name}/{g.version}" for g in plan.versions}
    assert list((place.open().storage.local / "staging").glob("*")) == []


@BUCKET_IN_SOAK
def test_a_second_collection_removes_nothing(place: Place, finished: Callable[..., str]) -> None:
    for word in ("one", "two"):
        finished(word, "never")
    kept = collected(place, 1).kept

    assert collected(place, 1) == Plan(kept=kept, runs=(), versions=(), bytes=0)


# Collected runs


@BUCKET_IN_SOAK
def test_collected_runs_stay_in_the_history_without_artifacts(place: Place, finished: Callable[..., str]) -> None:
    run, newest = finished("one", "never"), finished("two", "never")
    collected(place, 1)
    store = place.open()

    assert [(row.run, row.collected) for row in history(store)] == [(newest, False), (run, True)]
    assert find_run(store, run).collected
    with pytest.raises(InputError, match=f"run {run}: its artifacts were collected on .*; run it again"):
        find_artifact(store, run, "weights")
    with pytest.raises(InputError, match=f"run {run}: expected a completed run, got one whose artifacts were"):
        promote_run(store, find_run(store, run), "by hand")


@BUCKET_IN_SOAK
def test_a_collected_artifact_is_rebuilt_by_the_next_run(place: Place, finished: Callable[..., str]) -> None:
    run = finished("one", "never")
    collected(place, 0)

    again = finished("one", "never")

    assert find_run(place.open(), again).artifacts == find_run(place.open(), run).artifacts
    assert whole(place.open(), again)


# Killed


@FOLDER_ONLY
def test_a_collection_killed_at_any_step_is_completed_by_the_next(
    folder: FolderPlace, finished: Callable[..., str], tmp_path: Path
) -> None:
    promoted, rolled_back_run, newest = finished("one"), finished("two", "never"), finished("three", "never")
    expected = planned(folder, 1)
    assert expected.runs == (rolled_back_run,)

    for root in kill_at_every_step(COLLECT, folder.root, tmp_path / "killed"):
        place = FolderPlace(root)
        assert wrong(place.open()) == []

        collected(place, 1)

        assert wrong(place.open()) == []
        assert not any(place.all(f"{garbage.name}/{garbage.version}/") for garbage in expected.versions)
        assert all(whole(place.open(), run) for run in (promoted, newest))
        assert [row.collected for row in history(place.open())] == [False, True, False]
        assert list((root / ".work" / "staging").glob("*")) == []
        assert list(root.rglob(".*.*.*")) == []  # what was half written

"""Garbage collection: what is kept, what goes, and that nothing is lost or left over wherever it is killed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killing import killed, killed_at_every_step, next_line, started
from places import BUCKET_BY_SOAK, IN_A_FOLDER, FolderPlace, Place, payload_of
from tiny_artifacts import finished_run, make_artifact, quiet, stage_of

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.store import ArtifactRef, Store
from tasks.core.store.current import promote_run, roll_back
from tasks.core.store.gc import Plan, collect_garbage
from tasks.core.store.history import artifact_of, find_run, history
from tasks.core.store.runs import recording_run
from tasks.core.store.verify import verify

COLLECT = """
from tasks.core.store import open_store
from tasks.core.store.gc import collect_garbage
from tiny_artifacts import quiet
def act(root):
    collect_garbage(open_store(root), 1, quiet, dry_run=False)
"""
RUNNING = """
import sys
from tasks.core.store import open_store
from tasks.core.store.runs import recording_run
from tiny_artifacts import make_artifact, quiet
with recording_run(open_store(sys.argv[1]), {}, {}, quiet) as run:
    run.keep(make_artifact(run.store, "weights", {"cifar_net.pth": b"of a killed run"}))
    print(run.record.run, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def finished(place: Place) -> Callable[..., str]:
    """Finishes a run of the given word and policy; its id."""

    def finish(word: str, policy: str = "auto") -> str:
        return finished_run(place.location, word, policy=policy).record.run  # type: ignore[arg-type]

    return finish


def collected(place: Place, keep: int) -> Plan:
    return collect_garbage(place.open(), keep, quiet, dry_run=False)


def planned(place: Place, keep: int) -> Plan:
    return collect_garbage(place.open(), keep, quiet, dry_run=True)


def whole(store: Store, run: str) -> bool:
    """Whether every byte of a run's artifacts is there."""
    return all(payload_of(store, ref) for ref in find_run(store, run).artifacts.values())


def wrong(store: Store) -> list[str]:
    return [finding.wrong for _, findings in verify(store) for finding in findings]


# What is kept


def test_the_newest_runs_keep_their_artifacts_and_older_ones_give_theirs_up(
    place: Place, finished: Callable[..., str]
) -> None:
    runs = [finished(word, "never") for word in ("one", "two", "three", "four")]

    plan = collected(place, 2)

    assert plan.runs == tuple(runs[:2])
    assert plan.kept == tuple(runs[2:])
    assert {garbage.name for garbage in plan.versions} == {"weights", "predictions", "per_class", "report"}
    assert all(whole(place.open(), run) for run in runs[2:])
    assert wrong(place.open()) == []


@BUCKET_BY_SOAK
def test_what_a_kept_run_shares_with_a_collected_one_stays(place: Place, finished: Callable[..., str]) -> None:
    finished("one", "never")
    newest = find_run(place.open(), finished("two", "never"))

    collected(place, 1)

    assert set(place.versions("dataset")) == {newest.artifacts["dataset"].version}


@BUCKET_BY_SOAK
def test_every_run_that_was_ever_promoted_or_rolled_back_keeps_its_artifacts(
    place: Place, finished: Callable[..., str]
) -> None:
    one, two, three = (finished(word) for word in ("one", "two", "three"))
    roll_back(place.open(), find_run(place.open(), two), "unfair", quiet)
    refused, by_hand = finished("four", "never"), finished("five", "never")
    promote_run(place.open(), find_run(place.open(), by_hand), "by hand", quiet)

    plan = collected(place, 0)

    assert plan.runs == (refused,)
    assert all(whole(place.open(), run) for run in (one, two, three, by_hand))
    assert wrong(place.open()) == []


@BUCKET_BY_SOAK
def test_what_a_kept_artifact_was_made_from_stays_though_no_record_names_it(place: Place) -> None:
    """A second attempt with the same bytes: the predictions in the record were made from the first one."""
    store = place.open()

    def made(name: str, *inputs: ArtifactRef, refresh: bool = False) -> ArtifactRef:
        stage = stage_of({"file": name.encode()}, name, inputs={ref.name: ref.sha256 for ref in inputs})
        return store.get_or_create(replace(stage, inputs=inputs), quiet, refresh=refresh).ref

    first = made("weights", made("dataset"))
    predictions = made("predictions", first)
    second = made("weights", refresh=True)
    with recording_run(store, {}, {}, quiet) as run:
        run.keep(second, predictions)

    assert collected(place, 1).versions == ()
    assert store.open(first)


@BUCKET_BY_SOAK
def test_versions_that_no_run_has_go(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    orphan = make_artifact(place.open(), "weights", {"cifar_net.pth": b"of a run that was killed"})

    [garbage] = collected(place, 9).versions

    assert (garbage.name, garbage.version) == (orphan.name, orphan.version)


@BUCKET_BY_SOAK
def test_a_folder_that_is_no_version_is_left_alone(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    place.write("notes/2026/june.txt", b"mine")

    assert collected(place, 0).versions == ()
    assert place.read("notes/2026/june.txt") == b"mine"


@BUCKET_BY_SOAK
def test_failed_runs_count_among_the_newest(place: Place, finished: Callable[..., str]) -> None:
    older = finished("one", "never")
    with pytest.raises(ZeroDivisionError), recording_run(place.open(), {}, {}, quiet) as failed:
        raise ZeroDivisionError

    plan = collected(place, 1)

    assert (plan.kept, plan.runs) == ((failed.record.run,), (older,))


# What it is refused for


@BUCKET_BY_SOAK
def test_nothing_is_touched_while_a_run_is_in_progress(place: Place, finished: Callable[..., str]) -> None:
    finished("one", "never")
    with recording_run(place.open(), {}, {}, quiet) as run:
        before = place.all()

        with pytest.raises(EnvironmentFailure) as raised:
            collected(place, 0)

        assert str(raised.value) == (
            f"gc: run {run.record.run} of {run.record.who} is in progress; nothing was touched; try later"
        )
        assert place.all() == before
        assert run.record.run in planned(place, 0).kept


@BUCKET_BY_SOAK
def test_a_run_whose_process_was_killed_is_not_in_progress(place: Place) -> None:
    with started(RUNNING, place.location) as process:
        run = next_line(process)
        killed(process)

    plan = collected(place, 0)

    assert plan.runs == (run,)
    assert [garbage.name for garbage in plan.versions] == ["weights"]


@BUCKET_BY_SOAK
def test_nothing_is_touched_while_a_record_cannot_be_read(place: Place, finished: Callable[..., str]) -> None:
    run = finished("one")
    finished("two")
    place.write(f"runs/{run}.json", b"")
    before = place.all()

    with pytest.raises(EnvironmentFailure, match=f"gc: the record of run {run} cannot be read"):
        collected(place, 0)

    assert place.all() == before


def refused_untouched(place: Place) -> str:
    """What a collection is refused with, which touches nothing."""
    place.open()  # puts right what can be
    before = place.all()
    with pytest.raises(EnvironmentFailure) as raised:
        collected(place, 0)
    assert place.all() == before
    assert "\n" not in str(raised.value)
    return str(raised.value)


@BUCKET_BY_SOAK
def test_nothing_is_touched_while_a_line_of_the_log_is_torn(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    finished("two")
    torn, *rest = place.read("promotions.jsonl").splitlines(keepends=True)
    place.write("promotions.jsonl", torn[:-9] + b"\n" + b"".join(rest))

    assert refused_untouched(place) == (
        "gc: promotions.jsonl: 1 lines cannot be read; nothing was touched; restore it from a backup, or delete them"
    )


@BUCKET_BY_SOAK
def test_nothing_is_touched_while_the_log_lacks_a_promoted_run(place: Place, finished: Callable[..., str]) -> None:
    one = finished("one")
    finished("two")
    place.delete("promotions.jsonl")

    assert refused_untouched(place) == (
        f"gc: promotions.jsonl: it lacks 1 of the runs that were promoted by their records, as {one}; "
        "nothing was touched; restore it from a backup, or `cifar promote` them again"
    )


@BUCKET_BY_SOAK
def test_a_run_that_was_promoted_by_hand_is_not_forgotten_with_its_line(
    place: Place, finished: Callable[..., str]
) -> None:
    finished("one")
    by_hand = finished("by hand", "never")
    promote_run(place.open(), find_run(place.open(), by_hand), "fewer cats", quiet)
    finished("two")
    lines = place.read("promotions.jsonl").splitlines(keepends=True)
    place.write("promotions.jsonl", b"".join(line for line in lines if b"fewer cats" not in line))

    assert find_run(place.open(), by_hand).verdict == "promoted: fewer cats"
    assert f"it lacks 1 of the runs that were promoted by their records, as {by_hand}" in refused_untouched(place)


@BUCKET_BY_SOAK
@pytest.mark.parametrize("word", ["one", "two"])
def test_nothing_is_touched_while_a_promoted_run_has_no_record(
    place: Place, finished: Callable[..., str], word: str
) -> None:
    runs = {each: finished(each) for each in ("one", "two")}
    place.delete(f"runs/{runs[word]}.json")

    assert refused_untouched(place) == (
        f"gc: run {runs[word]}: it was promoted, and has no record; nothing was touched; "
        "restore runs/ from a backup, or delete it in promotions.jsonl"
    )


@BUCKET_BY_SOAK
def test_a_run_that_is_promoted_again_is_back_on_a_log_that_was_lost(
    place: Place, finished: Callable[..., str]
) -> None:
    one, two = finished("one"), finished("two")
    place.delete("promotions.jsonl")

    for run in (one, two):
        promote_run(place.open(), find_run(place.open(), run), "by hand", quiet)

    assert collected(place, 0).versions == ()


# Numbers


@BUCKET_BY_SOAK
def test_a_dry_run_changes_nothing_and_names_the_same_versions_and_bytes(
    place: Place, finished: Callable[..., str]
) -> None:
    for word in ("one", "two", "three"):
        finished(word, "never")
    before = place.all()

    plan = planned(place, 1)

    assert place.all() == before
    assert collected(place, 1) == plan
    freed = {name: content for name, content in before.items() if name not in place.names()}
    assert plan.bytes == sum(garbage.bytes for garbage in plan.versions) == sum(map(len, freed.values()))
    assert {"/".join(name.split("/")[:2]) for name in freed} == {f"{g.name}/{g.version}" for g in plan.versions}
    assert list((place.open().storage.local / "trash").glob("*")) == []


@BUCKET_BY_SOAK
def test_a_second_collection_finds_nothing_to_do(place: Place, finished: Callable[..., str]) -> None:
    for word in ("one", "two"):
        finished(word, "never")
    kept = collected(place, 1).kept

    assert collected(place, 1) == Plan(kept=kept, runs=(), versions=(), bytes=0)


# Collected runs


@BUCKET_BY_SOAK
def test_collected_runs_stay_in_the_history_and_say_so_when_their_artifacts_are_wanted(
    place: Place, finished: Callable[..., str]
) -> None:
    run, newest = finished("one", "never"), finished("two", "never")
    collected(place, 1)
    store = place.open()

    assert [(row.run, row.collected) for row in history(store)] == [(newest, False), (run, True)]
    assert find_run(store, run).collected
    with pytest.raises(InputError, match=f"run {run}: its artifacts were collected on .*; run it again"):
        artifact_of(store, run, "weights")
    with pytest.raises(InputError, match=f"run {run}: expected a completed run, got one whose artifacts were"):
        promote_run(store, find_run(store, run), "by hand", quiet)


@BUCKET_BY_SOAK
def test_what_was_collected_is_made_anew_by_the_next_run_that_needs_it(
    place: Place, finished: Callable[..., str]
) -> None:
    run = finished("one", "never")
    collected(place, 0)

    again = finished("one", "never")

    assert find_run(place.open(), again).artifacts == find_run(place.open(), run).artifacts
    assert whole(place.open(), again)


# Killed


@IN_A_FOLDER
def test_a_collection_killed_at_any_step_leaves_a_store_that_verifies_and_a_second_one_finishes(
    folder: FolderPlace, finished: Callable[..., str], tmp_path: Path
) -> None:
    promoted, rolled_back_run, newest = finished("one"), finished("two", "never"), finished("three", "never")
    expected = planned(folder, 1)
    assert expected.runs == (rolled_back_run,)

    for root in killed_at_every_step(COLLECT, folder.root, tmp_path / "killed"):
        place = FolderPlace(root)
        assert wrong(place.open()) == []

        collected(place, 1)

        assert wrong(place.open()) == []
        assert not any(place.all(f"{garbage.name}/{garbage.version}/") for garbage in expected.versions)
        assert all(whole(place.open(), run) for run in (promoted, newest))
        assert [row.collected for row in history(place.open())] == [False, True, False]
        assert list((root / ".work" / "trash").glob("*")) == []
        assert list(root.rglob(".*.*.*")) == []  # what was half written

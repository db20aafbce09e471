"""The current run, in a folder and in a bucket: its files at the root, and the ways to another one."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from places import BUCKET_BY_SOAK, FolderPlace, Place, delete, empty, flip_a_bit, halve, overwrite, truncate
from promotions import actions, current, files_of, finished, logged, root_files
from tiny_artifacts import finished_run, identity_of, make_artifact, quiet, results

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.promotion_gate import RESULT_ARTIFACTS, promotion_gate
from tasks.core.runtime.environment import who
from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.current import (
    ROOT_FILES,
    Current,
    CurrentRunUnknown,
    promote_run,
    read_current,
    roll_back,
)
from tasks.core.store.history import find_run
from tasks.core.store.promotion_log import read_log, rollback_reasons, standing_runs
from tasks.core.store.runs import Run, RunRecord, recording_run

Spoil = Callable[[Place, str], None]


# The root files


def test_a_promoted_run_stands_at_the_root(place: Place) -> None:
    log: list[str] = []

    record = finished_run(place.location, "one", log=log.append).record

    assert root_files(place) == files_of("one")
    now = current(place)
    assert (now.run, now.artifacts, now.identity) == (record.run, record.artifacts, identity_of())
    [line] = log
    assert line.startswith(f"run {record.run} ")
    assert line.endswith("is promoted: it is the first finished run in this store")


@BUCKET_BY_SOAK
def test_the_latest_run_takes_the_place_of_the_one_before(place: Place) -> None:
    _, second = finished(place, "one", "two")

    assert root_files(place) == files_of("two")
    assert current(place).run == second.run


def test_root_files_are_files_of_their_own(folder: FolderPlace) -> None:
    """Whatever is done to a root file does no harm to the version that it came from."""
    [record] = finished(folder, "one")
    for name in ROOT_FILES:
        assert not (folder.root / name).is_symlink()
        with (folder.root / name).open("ab") as file:
            file.write(b"scribble")

    store = folder.open()

    for ref in record.artifacts.values():
        store.open(ref)


@BUCKET_BY_SOAK
@pytest.mark.parametrize("damage", [delete, overwrite, truncate, flip_a_bit])
def test_damaged_root_files_are_put_right(place: Place, damage: Spoil) -> None:
    finished(place, "one")
    for name in ROOT_FILES:
        damage(place, name)

    place.open()

    assert root_files(place) == files_of("one")
    assert actions(place) == ["promote"]


def test_root_files_that_are_right_are_not_written_again(folder: FolderPlace) -> None:
    finished(folder, "one")
    before = {path.name: path.stat().st_ino for path in folder.root.iterdir() if path.is_file()}

    folder.open()

    assert {path.name: path.stat().st_ino for path in folder.root.iterdir() if path.is_file()} == before


def test_a_store_without_a_promoted_run_has_nothing_to_put_right(place: Place) -> None:
    finished_run(place.location, "one", policy="never")

    place.open()

    assert root_files(place) == {}
    assert actions(place) == ["refuse"]


@BUCKET_BY_SOAK
def test_a_refused_run_is_complete_and_on_the_log_and_changes_no_root_file(place: Place) -> None:
    finished_run(place.location, "one", identity_of("archive"))
    before = place.read("current.json")

    refused = finished_run(place.location, "two", identity_of("generated", "made up")).record

    assert root_files(place) == files_of("one")
    assert place.read("current.json") == before
    assert refused.status == "completed"
    assert refused.verdict is not None
    assert refused.verdict.startswith("not promoted: generated images ranks below archive images")
    assert actions(place) == ["promote", "refuse"]
    assert logged(place)[1]["run"] == refused.run
    assert refused.verdict.endswith(logged(place)[1]["why"])


@BUCKET_BY_SOAK
def test_a_run_with_the_same_results_keeps_the_promoted_one(place: Place) -> None:
    [first] = finished(place, "one")
    log: list[str] = []

    again = finished_run(place.location, "one", log=log.append).record

    assert current(place).run == first.run
    assert actions(place) == ["promote"]
    assert again.status == "completed"
    assert f"run {again.run} " in log[0]
    assert "is the same as the promoted one, which stays: " in log[0]


@BUCKET_BY_SOAK
def test_every_promotion_is_one_line_of_the_log(place: Place) -> None:
    records = finished(place, "one", "two", "one")
    place.open()

    assert actions(place) == ["promote"] * 3
    assert [entry["run"] for entry in logged(place)] == [record.run for record in records]
    assert [entry["who"] for entry in logged(place)] == [record.who for record in records]


@BUCKET_BY_SOAK
def test_a_run_whose_report_fails_is_not_promoted(place: Place) -> None:
    finished(place, "one")
    store = place.open()
    failed: list[Run] = []

    def fail() -> None:
        with recording_run(store, {}, {}) as run:
            failed.append(run)
            for name in RESULT_ARTIFACTS:
                run.keep(make_artifact(store, name, results("two", identity_of())[name]))
            with promotion_gate(run, "auto", 1.0, quiet):
                raise ZeroDivisionError("in the report")

    with pytest.raises(ZeroDivisionError):
        fail()

    assert root_files(place) == files_of("one")
    assert actions(place) == ["promote"]
    assert failed[0].record.verdict is None
    finished(place, "three")
    assert root_files(place) == files_of("three")


@BUCKET_BY_SOAK
def test_a_refusal_needs_nothing_of_the_promoted_run_that_is_lost(place: Place) -> None:
    [record] = finished(place, "one")
    place.lose(record.artifacts["weights"])

    refused = finished_run(place.location, "two", policy="never")

    assert refused.record.status == "completed"
    assert root_files(place) == files_of("one")


@BUCKET_BY_SOAK
def test_the_same_results_stand_in_for_a_promoted_run_whose_versions_are_lost(place: Place) -> None:
    [record] = finished(place, "one")
    make_artifact(place.open(), "weights", results("one", identity_of())["weights"], refresh=True)
    place.lose(record.artifacts["weights"])
    place.delete("cifar_net.pth")

    [again] = finished(place, "one")

    assert again.status == "completed"
    assert root_files(place) == files_of("one")


def test_a_promoted_run_whose_files_are_lost_does_not_keep_the_store_from_being_opened(place: Place) -> None:
    [record] = finished(place, "one")
    log: list[str] = []
    place.lose(record.artifacts["weights"])

    open_store(place.location, log.append)

    [line] = log
    assert "weights/" in line


# A lost current.json


@BUCKET_BY_SOAK
@pytest.mark.parametrize("damage", [delete, halve])
def test_a_lost_current_json_is_restored_from_the_log_and_the_runs_record(place: Place, damage: Spoil) -> None:
    finished(place, "one", "two")
    finished_run(place.location, "three", policy="never")
    whole, log = place.all(), list[str]()
    damage(place, "current.json")
    spoilt = place.all().get("current.json")

    open_store(place.location, log.append)

    assert {name: content for name, content in place.all().items() if not name.startswith(".quarantine/")} == whole
    assert list(place.all(".quarantine/current.json-").values()) == ([spoilt] if spoilt else [])
    [line] = log
    how = "garbled, and set aside" if spoilt else "missing"
    assert line.startswith(f"current.json was {how}: by promotions.jsonl, the current run is {current(place).run}; ")


@BUCKET_BY_SOAK
def test_a_current_json_that_was_lost_after_a_rollback_is_of_the_run_that_was_gone_back_to(place: Place) -> None:
    one, _ = finished(place, "one", "two")
    before = rolled_back_to(place.open(), one)
    place.delete("current.json")

    assert current(place) == before


@BUCKET_BY_SOAK
def test_the_gate_is_not_switched_off_by_a_lost_current_json(place: Place) -> None:
    finished_run(place.location, "good", correct=[True] * 400)
    place.delete("current.json")

    poor = finished_run(place.location, "poor", correct=[False] * 400).record

    assert str(poor.verdict).startswith("not promoted: 0.00% against 100.00% of run ")
    assert root_files(place)["cifar_net.pth"] == b"weights of good"


def lose_the_log(place: Place, _: RunRecord) -> None:
    place.delete("promotions.jsonl")


def tear_the_log(place: Place, _: RunRecord) -> None:
    place.write("promotions.jsonl", place.read("promotions.jsonl") + b'{"action": "promote", "ru')


def lose_the_record(place: Place, record: RunRecord) -> None:
    place.delete(f"runs/{record.run}.json")


@BUCKET_BY_SOAK
@pytest.mark.parametrize(
    ("damage", "lose"), [(delete, lose_the_log), (overwrite, tear_the_log), (empty, lose_the_record)]
)
def test_a_current_json_that_cannot_be_restored_stops_all_promotions_but_those_by_hand(
    place: Place, damage: Spoil, lose: Callable[[Place, RunRecord], None]
) -> None:
    one, two = finished(place, "one", "two")
    damage(place, "current.json")
    lose(place, two)
    log: list[str] = []

    open_store(place.location, log.append)
    with pytest.raises(CurrentRunUnknown) as raised:
        finished_run(place.location, "three")

    got = "something else" if damage is overwrite else "nothing"
    assert str(raised.value).endswith(
        f"/current.json: expected the current run, got {got}; name it by `cifar promote RUN`"
    )
    assert log == [str(raised.value)]
    assert root_files(place) == files_of("two")

    promoted_by_hand(place.open(), one)

    assert current(place).run == one.run
    assert root_files(place) == files_of("one")
    finished(place, "three")
    assert root_files(place) == files_of("three")


@pytest.mark.parametrize("words", [[], ["refused"]])
def test_a_store_without_any_promotion_lacks_no_current_json(place: Place, words: list[str]) -> None:
    for word in words:
        finished_run(place.location, word, policy="never")
    log: list[str] = []

    assert read_current(open_store(place.location, log.append)) is None
    assert log == []


# By hand


def promoted_by_hand(store: Store, record: RunRecord) -> Current:
    return promote_run(store, record, "because I say so", quiet)


def rolled_back_to(store: Store, record: RunRecord) -> Current:
    return roll_back(store, record, "because I say so", quiet)


@BUCKET_BY_SOAK
def test_a_run_that_was_refused_can_be_promoted_by_hand(place: Place) -> None:
    finished(place, "one")
    refused = finished_run(place.location, "two", policy="never").record

    before = datetime.now(UTC)
    promoted_by_hand(place.open(), refused)

    assert root_files(place) == files_of("two")
    *_, entry = logged(place)
    assert datetime.fromisoformat(entry.pop("at")) >= before.replace(microsecond=0)
    assert entry == {"action": "promote", "run": refused.run, "who": who(), "why": "because I say so"}


def test_a_rollback_brings_the_run_before_back_and_says_who_when_and_why(place: Place) -> None:
    one, two = finished(place, "one", "two")

    before = datetime.now(UTC)
    rolled_back_to(place.open(), one)

    assert root_files(place) == files_of("one")
    assert current(place).artifacts == one.artifacts
    *_, entry = logged(place)
    assert datetime.fromisoformat(entry.pop("at")) >= before.replace(microsecond=0)
    said = {"who": who(), "why": "because I say so"}
    assert entry == {"action": "rollback", "run": one.run, "instead_of": two.run} | said


@BUCKET_BY_SOAK
def test_rolling_back_twice_goes_back_two_and_then_no_further(place: Place) -> None:
    one, *_ = finished(place, "one", "two", "three")

    for _ in range(2):
        rolled_back_to(place.open(), find_run(place.open(), "previous"))

    assert current(place).run == one.run
    assert root_files(place) == files_of("one")
    with pytest.raises(InputError, match=r"run previous: expected 2 or more promoted runs in .*, got 1"):
        find_run(place.open(), "previous")
    with pytest.raises(EnvironmentFailure):
        rolled_back_to(place.open(), one)


@BUCKET_BY_SOAK
def test_a_run_may_be_promoted_again_after_a_rollback(place: Place) -> None:
    one, two = finished(place, "one", "two")
    rolled_back_to(place.open(), one)

    promoted_by_hand(place.open(), two)

    assert root_files(place) == files_of("two")
    assert standing_runs(read_log(place.open())) == [one.run, two.run]
    assert rollback_reasons(read_log(place.open())) == {}


@BUCKET_BY_SOAK
def test_a_rollback_to_any_other_than_the_run_before_is_refused(place: Place) -> None:
    _, two = finished(place, "one", "two")
    before = place.all()

    with pytest.raises(EnvironmentFailure, match="another run was promoted meanwhile"):
        rolled_back_to(place.open(), two)

    assert place.all() == before


BY_HAND = [promoted_by_hand, rolled_back_to]


@BUCKET_BY_SOAK
@pytest.mark.parametrize("act", BY_HAND)
@pytest.mark.parametrize(
    "state", [{"status": "failed"}, {"status": "running"}, {"dataset": None}, {"artifacts": {}}, {"collected": "then"}]
)
def test_only_a_completed_run_with_all_its_artifacts_can_be_brought_back(
    place: Place, act: Callable[[Store, RunRecord], Current], state: dict[str, Any]
) -> None:
    one, _ = finished(place, "one", "two")
    before = place.all()

    with pytest.raises(InputError, match=f"run {one.run}: expected a completed run, got one"):
        act(place.open(), one.model_copy(update=state))

    assert place.all() == before


@BUCKET_BY_SOAK
def test_a_run_with_damaged_files_is_not_brought_back(place: Place) -> None:
    one, _ = finished(place, "one", "two")
    flip_a_bit(place, place.name_of(one.artifacts["weights"], "cifar_net.pth"))
    before = place.all()

    for act in BY_HAND:
        with pytest.raises(DamagedArtifact, match=f"{one.artifacts['weights']}: cifar_net.pth is damaged"):
            act(place.open(), one)

    assert place.all() == before

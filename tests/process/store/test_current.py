"""The current run, in a folder and in a bucket: its files at the root, promotions and rollbacks."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from places import BUCKET_IN_SOAK, FolderPlace, Place, delete, empty, flip_a_bit, halve, overwrite, truncate
from promotions import actions, current, files_of, finished, logged, root_files
from tiny_artifacts import build_artifact, finished_run, identity_of, run_payloads

from tasks.core.errors import EnvironmentFailure, InputError
from tasks.core.promotion_gate import RESULT_ARTIFACTS, promotion_gate
from tasks.core.runtime.environment import current_user
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

Damage = Callable[[Place, str], None]


# The root files


def test_a_promoted_runs_files_are_at_the_root(place: Place, log: list[str]) -> None:
    record = finished_run(place.location, "one").record

    assert root_files(place) == files_of("one")
    now = current(place)
    assert (now.run, now.artifacts, now.identity) == (record.run, record.artifacts, identity_of())
    assert log[-1] == f"run {record.run} on archive images: promoted: it is the first finished run in this store"


@BUCKET_IN_SOAK
def test_a_later_run_replaces_the_current_one(place: Place) -> None:
    _, second = finished(place, "one", "two")

    assert root_files(place) == files_of("two")
    assert current(place).run == second.run


def test_root_files_are_independent_copies(folder: FolderPlace) -> None:
    """Whatever is done to a root file does no harm to the version that it came from."""
    [record] = finished(folder, "one")
    for name in ROOT_FILES:
        assert not (folder.root / name).is_symlink()
        with (folder.root / name).open("ab") as file:
            file.write(b"scribble")

    store = folder.open()

    for ref in record.artifacts.values():
        store.open(ref)


@BUCKET_IN_SOAK
@pytest.mark.parametrize("damage", [delete, overwrite, truncate, flip_a_bit])
def test_damaged_root_files_are_restored(place: Place, damage: Damage) -> None:
    finished(place, "one")
    for name in ROOT_FILES:
        damage(place, name)

    place.open()

    assert root_files(place) == files_of("one")
    assert actions(place) == ["promote"]


def test_intact_root_files_are_not_rewritten(folder: FolderPlace) -> None:
    finished(folder, "one")
    before = {path.name: path.stat().st_ino for path in folder.root.iterdir() if path.is_file()}

    folder.open()

    assert {path.name: path.stat().st_ino for path in folder.root.iterdir() if path.is_file()} == before


def test_a_store_without_a_promoted_run_has_no_root_files(place: Place) -> None:
    finished_run(place.location, "one", policy="never")

    place.open()

    assert root_files(place) == {}
    assert actions(place) == ["refuse"]


@BUCKET_IN_SOAK
def test_a_refused_run_is_logged_and_changes_no_root_file(place: Place) -> None:
    finished_run(place.location, "one", identity_of("archive"))
    before = place.read("current.json")

    refused = finished_run(place.location, "two", identity_of("generated", "made up")).record

    assert root_files(place) == files_of("one")
    assert place.read("current.json") == before
    assert refused.status == "completed"
    assert refused.promotion == "refuse"
    assert refused.verdict is not None
    assert refused.verdict.startswith("not promoted: generated images ranks below archive images")
    assert actions(place) == ["promote", "refuse"]
    assert logged(place)[1]["run"] == refused.run
    assert refused.verdict.endswith(logged(place)[1]["why"])


@BUCKET_IN_SOAK
def test_a_run_with_the_same_results_keeps_the_current_one(place: Place, log: list[str]) -> None:
    [first] = finished(place, "one")

    again = finished_run(place.location, "one").record

    assert current(place).run == first.run
    assert actions(place) == ["promote"]
    assert again.status == "completed"
    assert log[-1].startswith(f"run {again.run} on archive images: same results as the current run, which stays: ")
    assert again.promotion == "keep"


@BUCKET_IN_SOAK
def test_every_promotion_is_one_log_line(place: Place) -> None:
    records = finished(place, "one", "two", "one")
    place.open()

    assert actions(place) == ["promote"] * 3
    assert [entry["run"] for entry in logged(place)] == [record.run for record in records]
    assert [entry["who"] for entry in logged(place)] == [record.who for record in records]


@BUCKET_IN_SOAK
def test_a_run_whose_report_fails_is_not_promoted(place: Place) -> None:
    finished(place, "one")
    store = place.open()
    failed: list[Run] = []

    def fail() -> None:
        with recording_run(store, {}, {}) as run:
            failed.append(run)
            for name in RESULT_ARTIFACTS:
                run.add_artifacts(build_artifact(store, name, run_payloads("two", identity_of())[name]))
            with promotion_gate(run, "auto", 1.0):
                raise ZeroDivisionError("in the report")

    with pytest.raises(ZeroDivisionError):
        fail()

    assert root_files(place) == files_of("one")
    assert actions(place) == ["promote"]
    assert failed[0].record.verdict is None
    finished(place, "three")
    assert root_files(place) == files_of("three")


@BUCKET_IN_SOAK
def test_a_refusal_needs_no_file_of_the_current_run(place: Place) -> None:
    [record] = finished(place, "one")
    place.lose(record.artifacts["weights"])

    refused = finished_run(place.location, "two", policy="never")

    assert refused.record.status == "completed"
    assert root_files(place) == files_of("one")


@BUCKET_IN_SOAK
def test_the_same_results_replace_lost_versions_of_the_current_run(place: Place) -> None:
    [record] = finished(place, "one")
    build_artifact(place.open(), "weights", run_payloads("one", identity_of())["weights"], refresh=True)
    place.lose(record.artifacts["weights"])
    place.delete("cifar_net.pth")

    [again] = finished(place, "one")

    assert again.status == "completed"
    assert root_files(place) == files_of("one")


def test_a_store_opens_although_the_current_runs_files_are_lost(place: Place, log: list[str]) -> None:
    [record] = finished(place, "one")
    log.clear()
    place.lose(record.artifacts["weights"])

    open_store(place.location)

    [line] = log
    assert "weights/" in line


# A lost current.json


@BUCKET_IN_SOAK
@pytest.mark.parametrize("damage", [delete, halve])
def test_a_lost_current_json_is_restored_from_log_and_record(place: Place, damage: Damage, log: list[str]) -> None:
    finished(place, "one", "two")
    finished_run(place.location, "three", policy="never")
    whole = place.all()
    log.clear()
    damage(place, "current.json")
    damaged = place.all().get("current.json")

    open_store(place.location)

    assert {name: content for name, content in place.all().items() if not name.startswith(".quarantine/")} == whole
    assert list(place.all(".quarantine/current.json-").values()) == ([damaged] if damaged else [])
    cause = "was damaged, and is in .quarantine" if damaged else "was missing"
    run = current(place).run
    words = (
        f"store: restored current.json, which {cause}; by promotions.jsonl, the current run is {run}; check the disk"
    )
    assert log == [words]


@BUCKET_IN_SOAK
def test_a_current_json_lost_after_a_rollback_is_restored(place: Place) -> None:
    one, _ = finished(place, "one", "two")
    before = rolled_back_to(place.open(), one)
    place.delete("current.json")

    assert current(place) == before


@BUCKET_IN_SOAK
def test_the_gate_works_after_a_lost_current_json(place: Place) -> None:
    finished_run(place.location, "good", correct=[True] * 400)
    place.delete("current.json")

    poor = finished_run(place.location, "poor", correct=[False] * 400).record

    assert str(poor.verdict).startswith("not promoted: 0.00% against 100.00% of the best promoted run ")
    assert root_files(place)["cifar_net.pth"] == b"weights of good"


def lose_the_log(place: Place, _: RunRecord) -> None:
    place.delete("promotions.jsonl")


def tear_the_log(place: Place, _: RunRecord) -> None:
    place.write("promotions.jsonl", place.read("promotions.jsonl") + b'{"action": "promote", "ru')


def lose_the_record(place: Place, record: RunRecord) -> None:
    place.delete(f"runs/{record.run}.json")


@BUCKET_IN_SOAK
@pytest.mark.parametrize(
    ("damage", "lose"), [(delete, lose_the_log), (overwrite, tear_the_log), (empty, lose_the_record)]
)
def test_an_unknown_current_run_allows_only_promotions_by_hand(
    place: Place, damage: Damage, lose: Callable[[Place, RunRecord], None], log: list[str]
) -> None:
    one, two = finished(place, "one", "two")
    damage(place, "current.json")
    lose(place, two)
    log.clear()

    open_store(place.location)
    [line] = log
    with pytest.raises(CurrentRunUnknown) as raised:
        finished_run(place.location, "three")

    got = "something else" if damage is overwrite else "nothing"
    assert str(raised.value).endswith(
        f"/current.json: expected the current run, got {got}; name it by `cifar promote RUN`"
    )
    assert line == f"store: {raised.value}"
    assert root_files(place) == files_of("two")

    promoted_by_hand(place.open(), one)

    assert current(place).run == one.run
    assert root_files(place) == files_of("one")
    finished(place, "three")
    assert root_files(place) == files_of("three")


@pytest.mark.parametrize("words", [[], ["refused"]])
def test_a_store_without_promotions_needs_no_current_json(place: Place, words: list[str], log: list[str]) -> None:
    for word in words:
        finished_run(place.location, word, policy="never")
    log.clear()

    assert read_current(open_store(place.location)) is None
    assert log == []


# By hand


def promoted_by_hand(store: Store, record: RunRecord) -> Current:
    return promote_run(store, record, "because I say so")


def rolled_back_to(store: Store, record: RunRecord) -> Current:
    return roll_back(store, record, "because I say so")


@BUCKET_IN_SOAK
def test_a_refused_run_can_be_promoted_by_hand(place: Place) -> None:
    finished(place, "one")
    refused = finished_run(place.location, "two", policy="never").record

    before = datetime.now(UTC)
    promoted_by_hand(place.open(), refused)

    assert root_files(place) == files_of("two")
    *_, entry = logged(place)
    assert datetime.fromisoformat(entry.pop("at")) >= before.replace(microsecond=0)
    assert entry == {"action": "promote", "run": refused.run, "who": current_user(), "why": "because I say so"}


def test_a_rollback_is_logged_with_user_time_and_reason(place: Place) -> None:
    one, two = finished(place, "one", "two")

    before = datetime.now(UTC)
    rolled_back_to(place.open(), one)

    assert root_files(place) == files_of("one")
    assert current(place).artifacts == one.artifacts
    *_, entry = logged(place)
    assert datetime.fromisoformat(entry.pop("at")) >= before.replace(microsecond=0)
    expected = {"who": current_user(), "why": "because I say so"}
    assert entry == {"action": "rollback", "run": one.run, "instead_of": two.run} | expected


@BUCKET_IN_SOAK
def test_two_rollbacks_go_back_two_runs(place: Place) -> None:
    one, *_ = finished(place, "one", "two", "three")

    for _ in range(2):
        rolled_back_to(place.open(), find_run(place.open(), "previous"))

    assert current(place).run == one.run
    assert root_files(place) == files_of("one")
    with pytest.raises(InputError, match=r"run previous: expected 2 or more promoted runs in .*, got 1"):
        find_run(place.open(), "previous")
    with pytest.raises(EnvironmentFailure):
        rolled_back_to(place.open(), one)


@BUCKET_IN_SOAK
def test_a_rolled_back_run_can_be_promoted_again(place: Place) -> None:
    one, two = finished(place, "one", "two")
    rolled_back_to(place.open(), one)

    promoted_by_hand(place.open(), two)

    assert root_files(place) == files_of("two")
    assert standing_runs(read_log(place.open())) == [one.run, two.run]
    assert rollback_reasons(read_log(place.open())) == {}


@BUCKET_IN_SOAK
def test_a_rollback_to_another_than_the_previous_run_is_refused(place: Place) -> None:
    _, two = finished(place, "one", "two")
    before = place.all()

    with pytest.raises(EnvironmentFailure, match="another run was promoted meanwhile"):
        rolled_back_to(place.open(), two)

    assert place.all() == before


BY_HAND = [promoted_by_hand, rolled_back_to]


@BUCKET_IN_SOAK
@pytest.mark.parametrize("act", BY_HAND)
@pytest.mark.parametrize(
    "state", [{"status": "failed"}, {"status": "running"}, {"dataset": None}, {"artifacts": {}}, {"collected": "then"}]
)
def test_only_a_complete_run_can_be_promoted_by_hand(
    place: Place, act: Callable[[Store, RunRecord], Current], state: dict[str, Any]
) -> None:
    one, _ = finished(place, "one", "two")
    before = place.all()

    with pytest.raises(InputError, match=f"run {one.run}: expected a completed run, got one"):
        act(place.open(), one.model_copy(update=state))

    assert place.all() == before


@BUCKET_IN_SOAK
def test_a_run_with_damaged_files_is_not_promoted_by_hand(place: Place) -> None:
    one, _ = finished(place, "one", "two")
    flip_a_bit(place, place.name_of(one.artifacts["weights"], "cifar_net.pth"))
    before = place.all()

    for act in BY_HAND:
        with pytest.raises(DamagedArtifact, match=f"{one.artifacts['weights']}: cifar_net.pth is damaged"):
            act(place.open(), one)

    assert place.all() == before

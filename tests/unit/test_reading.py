"""Reading a store from a notebook: tables, history and weights of any run."""

import doctest
from pathlib import Path

import pandas as pd
import pytest
import torch
from places import FolderPlace, Place, copy_store, flip_a_bit
from tiny_artifacts import finished_run, identity_of, quiet

from tasks.core import reading
from tasks.core.errors import InputError
from tasks.core.evaluation.paired import IncomparableRuns, compare
from tasks.core.store import DamagedArtifact, Store, open_store
from tasks.core.store.gc import collect_garbage
from tasks.core.store.history import find_run
from tasks.core.store.history import history as history_rows
from tasks.core.store.runs import recording_run


@pytest.fixture
def store(place: Place, two_runs: Path) -> Store:
    """Two real runs, wherever a store may be."""
    copy_store(FolderPlace(two_runs), place)
    return place.open()


def incomparable(store: Store, first: str, second: str) -> str:
    """The one line that two runs are not compared for."""
    with pytest.raises(IncomparableRuns) as raised:
        reading.compare_runs(store, first, second)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_the_documented_examples_give_what_they_say(two_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(two_runs.parent)

    results = doctest.testmod(reading)

    assert results.failed == 0
    assert results.attempted >= 9


def test_tables_and_weights_of_the_current_run_are_those_at_the_root(two_runs: Path, store: Store) -> None:
    for name, table in (("per_class", reading.per_class(store)), ("predictions", reading.predictions(store))):
        pd.testing.assert_frame_equal(table, pd.read_parquet(two_runs / f"{name}.parquet"))
    state = torch.load(two_runs / "cifar_net.pth")
    assert reading.weights(store).keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in reading.weights(store).items())


def test_scores_are_those_of_the_runs_own_tables(store: Store) -> None:
    per_class, calibration, scores = reading.per_class(store), reading.calibration(store), reading.scores(store)
    assert scores["accuracy"].value == reading.predictions(store)["correct"].mean()
    assert scores["macro_f1"].value == pytest.approx(per_class["f1"].mean())
    gaps = (calibration["accuracy"] - calibration["confidence"]).abs() * calibration["images"]
    assert scores["expected_calibration_error"].value == pytest.approx(gaps.sum() / per_class["support"].sum())
    assert scores != reading.scores(store, "previous")


def test_any_run_is_read_by_its_id_or_by_how_that_begins(store: Store) -> None:
    previous = find_run(store, "previous").run
    for read in (reading.per_class, reading.predictions):
        pd.testing.assert_frame_equal(read(store, previous), read(store, "previous"))
        pd.testing.assert_frame_equal(read(store, previous[:-1]), read(store, "previous"))
    assert not torch.equal(reading.weights(store)["fc3.bias"], reading.weights(store, "previous")["fc3.bias"])


def test_a_mistyped_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"in {tmp_path / 'typo'}, got 0"):
        reading.per_class(open_store(tmp_path / "typo"))


def test_a_runs_two_tables_agree(store: Store) -> None:
    per_class, predictions = reading.per_class(store, "previous"), reading.predictions(store, "previous")

    right = predictions.groupby("label", observed=False)["correct"].sum()
    assert list(right.reindex(per_class["class"])) == list(per_class["correct"])


def test_the_history_has_a_row_for_each_run_with_its_accuracy_and_times_that_pandas_knows(store: Store) -> None:
    frame = reading.history(store)

    assert list(frame["run"]) == [row.run for row in history_rows(store)]
    assert frame.loc[0, "accuracy"] == reading.predictions(store)["correct"].mean()
    assert (frame["accuracy_low"] < frame["accuracy"]).all()
    assert (frame["accuracy"] < frame["accuracy_high"]).all()
    assert str(frame["started"].dtype).endswith("UTC]")
    assert frame["started"].is_monotonic_decreasing


def test_the_history_of_an_empty_store_has_its_columns(place: Place) -> None:
    frame = reading.history(place.open())

    assert len(frame) == 0
    assert {"run", "started", "who", "recipe", "dataset", "accuracy", "standing"} <= set(frame.columns)
    assert str(frame["started"].dtype).endswith("UTC]")


# Comparing


def test_two_runs_are_compared_by_their_predictions(store: Store) -> None:
    comparison = reading.compare_runs(store, "previous", "current")

    assert comparison == compare(reading.predictions(store, "previous"), reading.predictions(store))
    assert comparison.images == 100
    assert comparison.second_correct - comparison.first_correct == comparison.fixed - comparison.broken


def test_a_run_is_equal_to_itself(store: Store) -> None:
    comparison = reading.compare_runs(store, "current", find_run(store, "current").run)

    assert (comparison.fixed, comparison.broken, comparison.changed_mistakes) == (0, 0, 0)


def test_runs_on_other_images_are_not_compared_though_their_labels_are_equal(place: Place) -> None:
    mine, yours = identity_of("archive", "mine"), identity_of("archive", "yours")
    one, two = (finished_run(place.location, "one", images).record.run for images in (mine, yours))

    assert incomparable(place.open(), one, two) == (
        "comparison: expected two runs on the same images, "
        f"got archive images {mine.sha256[:12]} and archive images {yours.sha256[:12]}; see `cifar history`"
    )


def test_a_run_that_came_to_nothing_is_not_compared(place: Place) -> None:
    finished_run(place.location, "one")
    with pytest.raises(ZeroDivisionError), recording_run(place.open(), {}, {}, quiet) as failed:
        raise ZeroDivisionError

    assert " and a failed run;" in incomparable(place.open(), "current", failed.record.run)
    assert "got a failed run and a failed run;" in incomparable(place.open(), failed.record.run, failed.record.run)


# Errors


def test_a_collected_run_says_so_in_place_of_its_tables(place: Place) -> None:
    old = finished_run(place.location, "one", policy="never").record.run
    new = finished_run(place.location, "two", policy="never").record.run
    store = place.open()
    collect_garbage(store, 1, quiet, dry_run=False)

    with pytest.raises(InputError, match=f"run {old}: its artifacts were collected on .*; run it again"):
        reading.predictions(store, old)
    with pytest.raises(InputError, match=f"run {old}: its artifacts were collected on .*; run it again"):
        reading.compare_runs(store, old, new)


def test_a_store_without_a_promoted_run_has_no_current_tables(place: Place) -> None:
    with pytest.raises(InputError, match=f"run current: expected 1 or more promoted runs in {place.location}, got 0"):
        reading.per_class(place.open())


def test_every_byte_is_checked_before_it_is_read(place: Place, store: Store) -> None:
    reading.per_class(store)
    flip_a_bit(place, place.name_of(find_run(store, "current").artifacts["per_class"], "per_class.parquet"))

    with pytest.raises(DamagedArtifact, match=r"per_class\.parquet is damaged: .*; run again to have it made anew"):
        reading.per_class(store)


def test_reading_changes_nothing(place: Place, store: Store) -> None:
    before = place.all()

    reading.per_class(store)
    reading.predictions(store, "previous")
    reading.scores(store)
    reading.calibration(store)
    reading.weights(store)
    reading.history(store)
    reading.compare_runs(store, "previous", "current")

    assert place.all() == before

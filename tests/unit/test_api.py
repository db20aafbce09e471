"""The public API: tables, history, weights and networks of any run; every byte is checked."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from places import FolderPlace, Place, copy_store, flip_a_bit
from run_tables import run_of
from tiny_artifacts import finished_run, identity_of

import tasks
from tasks.core import api
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
        api.Store(store).compare(first, second)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_tables_and_weights_of_the_current_run_are_those_at_the_root(two_runs: Path, store: Store) -> None:
    for name, table in (("per_class", run_of(store).per_class), ("predictions", run_of(store).predictions)):
        pd.testing.assert_frame_equal(table, pd.read_parquet(two_runs / f"{name}.parquet"))
    state = torch.load(two_runs / "cifar_net.pth")
    assert run_of(store).weights.keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in run_of(store).weights.items())


def test_scores_are_those_of_the_runs_own_tables(store: Store) -> None:
    per_class, calibration, scores = run_of(store).per_class, run_of(store).calibration, run_of(store).scores
    assert scores["accuracy"].value == run_of(store).predictions["correct"].mean()
    assert scores["macro_f1"].value == pytest.approx(per_class["f1"].mean())
    gaps = (calibration["accuracy"] - calibration["confidence"]).abs() * calibration["images"]
    assert scores["expected_calibration_error"].value == pytest.approx(gaps.sum() / per_class["support"].sum())
    assert scores != run_of(store, "previous").scores


def test_any_run_is_read_by_its_id_or_by_how_that_begins(store: Store) -> None:
    previous = find_run(store, "previous").run
    for name in (previous, previous[:-1]):
        pd.testing.assert_frame_equal(run_of(store, name).predictions, run_of(store, "previous").predictions)
    assert not torch.equal(run_of(store).weights["fc3.bias"], run_of(store, "previous").weights["fc3.bias"])


def test_a_mistyped_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"in {tmp_path / 'typo'}, got 0"):
        _ = run_of(open_store(tmp_path / "typo")).per_class


def test_a_runs_two_tables_agree(store: Store) -> None:
    per_class, predictions = run_of(store, "previous").per_class, run_of(store, "previous").predictions

    right = predictions.groupby("label", observed=False)["correct"].sum()
    assert list(right.reindex(per_class["class"])) == list(per_class["correct"])


def test_the_history_has_a_row_for_each_run_with_accuracy_and_times(store: Store) -> None:
    frame = api.Store(store).runs()

    assert list(frame["run"]) == [row.run for row in history_rows(store)]
    assert frame.loc[0, "accuracy"] == run_of(store).predictions["correct"].mean()
    assert (frame["accuracy_low"] < frame["accuracy"]).all()
    assert (frame["accuracy"] < frame["accuracy_high"]).all()
    assert str(frame["started"].dtype).endswith("UTC]")
    assert frame["started"].is_monotonic_decreasing


def test_the_history_of_an_empty_store_has_its_columns(place: Place) -> None:
    frame = api.Store(place.open()).runs()

    assert len(frame) == 0
    assert {"run", "started", "who", "recipe", "dataset", "accuracy", "standing"} <= set(frame.columns)
    assert str(frame["started"].dtype).endswith("UTC]")


# Comparing


def test_two_runs_are_compared_by_their_predictions(store: Store) -> None:
    comparison = api.Store(store).compare("previous", "current")

    assert comparison == compare(run_of(store, "previous").predictions, run_of(store).predictions)
    assert comparison.images == 100
    assert comparison.second_correct - comparison.first_correct == comparison.fixed - comparison.broken


def test_a_run_is_equal_to_itself(store: Store) -> None:
    comparison = api.Store(store).compare("current", find_run(store, "current").run)

    assert (comparison.fixed, comparison.broken, comparison.changed_mistakes) == (0, 0, 0)


def test_runs_on_other_images_are_not_compared_even_with_equal_labels(place: Place) -> None:
    mine, yours = identity_of("archive", "mine"), identity_of("archive", "yours")
    one, two = (finished_run(place.location, "one", images).record.run for images in (mine, yours))

    assert incomparable(place.open(), one, two) == (
        "compare: expected runs on the same images, "
        f"got archive images {mine.sha256[:12]} and archive images {yours.sha256[:12]}; see `cifar history`"
    )


def test_a_run_that_came_to_nothing_is_not_compared(place: Place) -> None:
    finished_run(place.location, "one")
    with pytest.raises(ZeroDivisionError), recording_run(place.open(), {}, {}) as failed:
        raise ZeroDivisionError

    assert " and a failed run;" in incomparable(place.open(), "current", failed.record.run)
    assert "got a failed run and a failed run;" in incomparable(place.open(), failed.record.run, failed.record.run)


# Errors


def test_a_collected_run_says_so_in_place_of_its_tables(place: Place) -> None:
    old = finished_run(place.location, "one", policy="never").record.run
    new = finished_run(place.location, "two", policy="never").record.run
    store = place.open()
    collect_garbage(store, 1, dry_run=False)

    with pytest.raises(InputError, match=f"run {old}: its artifacts were collected on .*; run it again"):
        _ = run_of(store, old).predictions
    with pytest.raises(InputError, match=f"run {old}: its artifacts were collected on .*; run it again"):
        api.Store(store).compare(old, new)


def test_a_store_without_a_promoted_run_has_no_current_tables(place: Place) -> None:
    with pytest.raises(InputError, match=f"run current: expected 1 or more promoted runs in {place.location}, got 0"):
        _ = run_of(place.open()).per_class


def test_every_byte_is_checked_before_it_is_read(place: Place, store: Store) -> None:
    _ = run_of(store).per_class
    flip_a_bit(place, place.name_of(find_run(store, "current").artifacts["per_class"], "per_class.parquet"))

    with pytest.raises(DamagedArtifact, match=r"per_class\.parquet is damaged: .*; run again to rebuild it"):
        _ = run_of(store).per_class


def test_reading_changes_nothing(place: Place, store: Store) -> None:
    before = place.all()

    _ = run_of(store).per_class
    _ = run_of(store, "previous").predictions
    _ = run_of(store).scores
    _ = run_of(store).calibration
    _ = run_of(store).weights
    api.Store(store).runs()
    api.Store(store).compare("previous", "current")

    assert place.all() == before


# The public entry point


def test_a_run_has_its_tables(two_runs: Path) -> None:
    run = tasks.open_store(two_runs).run()
    assert run.per_class["support"].sum() == len(run.predictions) == 100
    assert run.calibration["images"].sum() == 100
    assert run.training["step"].iloc[-1] == 100
    assert run.data_checks.train.images == 400
    assert isinstance(run.duplicates, pd.DataFrame)
    assert run.scores["accuracy"].value == pytest.approx(run.predictions["correct"].mean())


def test_a_run_is_found_by_its_role_its_id_and_the_beginning_of_it(two_runs: Path) -> None:
    store = tasks.open_store(two_runs)
    previous = store.run("previous")
    assert store.run(previous.id).id == previous.id != store.run("current").id
    assert previous.settings["seed"] == 1
    assert repr(previous) == f"Run(id='{previous.id}')"


def test_a_runs_network_is_loaded_in_eval_mode(two_runs: Path) -> None:
    run = tasks.open_store(two_runs).run()
    network = run.model()
    assert not network.training
    torch.testing.assert_close(dict(network.state_dict()), run.weights, rtol=0, atol=0)
    assert run.weights["fc3.bias"].shape == (10,)


def test_a_report_is_a_file(two_runs: Path) -> None:
    report = tasks.open_store(two_runs).run("previous").report
    assert report.name == "report.html"
    assert report.is_file()


def test_a_store_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="store"):
        tasks.open_store(tmp_path / "nothing")


def test_the_location_follows_the_environment(two_runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_FLOW_STORE", str(two_runs))
    assert len(tasks.open_store().runs()) == 2


def test_importing_it_loads_neither_prefect_nor_torch_nor_pandas() -> None:
    code = "import sys, tasks; tasks.open_store; print([n for n in ('prefect', 'torch', 'pandas') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_tables_are_read_without_torch(two_runs: Path) -> None:
    code = "import sys, tasks; tasks.open_store(sys.argv[1]).run().per_class; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, two_runs], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"

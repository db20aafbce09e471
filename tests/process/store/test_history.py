"""The history of a store: finding runs by name, their rows and standings."""

from collections.abc import Callable

import pytest
from killing import kill, next_line, python_process
from places import BUCKET_IN_SOAK, Place
from tiny_artifacts import finished_run, identity_of

from tasks.core.errors import InputError
from tasks.core.evaluation.intervals import wilson_interval
from tasks.core.store import DamagedArtifact, Store
from tasks.core.store.current import promote_run, roll_back
from tasks.core.store.history import describe_recipe, find_artifact, find_run, history, payload_path
from tasks.core.store.runs import recording_run

RUNNING = """
import sys
from tasks.core.store import open_store
from tasks.core.store.runs import recording_run
with recording_run(open_store(sys.argv[1]), {}, {}) as run:
    print(run.record.run, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def store(place: Place) -> Store:
    return place.open()


def run_standings(store: Store) -> dict[str, str | None]:
    return {row.run: row.standing for row in history(store)}


def roll_back_one(store: Store) -> None:
    roll_back(store, find_run(store, "previous"), "unfair")


def refused(store: Store, name: str) -> str:
    """The one-line error for a name."""
    with pytest.raises(InputError) as raised:
        find_run(store, name)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# Runs by name


@BUCKET_IN_SOAK
def test_a_run_is_found_by_its_id_or_its_beginning(store: Store, finished: Callable[..., str]) -> None:
    runs = [finished("one"), finished("two")]

    for run in runs:
        assert find_run(store, run).run == run
        assert find_run(store, run[:-1]).run == run


@BUCKET_IN_SOAK
def test_a_full_id_wins_over_a_longer_id_with_the_same_beginning(
    place: Place, store: Store, finished: Callable[..., str]
) -> None:
    run = finished("one")
    place.write(f"runs/{run}0.json", place.read(f"runs/{run}.json").replace(run.encode(), f"{run}0".encode()))

    assert find_run(store, run).run == run
    assert find_run(store, f"{run}0").run == f"{run}0"


@BUCKET_IN_SOAK
def test_current_and_previous_follow_promotions(store: Store, finished: Callable[..., str]) -> None:
    one, two, three = (finished(word) for word in ("one", "two", "three"))
    finished("four", "never")

    assert find_run(store, "current").run == three
    assert find_run(store, "previous").run == two

    promote_run(store, find_run(store, one), "by hand")
    assert find_run(store, "current").run == one
    assert find_run(store, "previous").run == three


@BUCKET_IN_SOAK
def test_previous_moves_back_with_each_rollback(store: Store, finished: Callable[..., str]) -> None:
    one, two, _ = (finished(word) for word in ("one", "two", "three"))

    roll_back_one(store)
    assert (find_run(store, "current").run, find_run(store, "previous").run) == (two, one)

    roll_back_one(store)
    assert find_run(store, "current").run == one
    assert "run previous: expected 2 or more promoted runs in" in refused(store, "previous")


@BUCKET_IN_SOAK
def test_a_rolled_back_run_comes_back_only_by_a_promotion(store: Store, finished: Callable[..., str]) -> None:
    one, two = finished("one"), finished("two")
    roll_back_one(store)

    promote_run(store, find_run(store, two), "fair after all")

    assert (find_run(store, "current").run, find_run(store, "previous").run) == (two, one)


def test_current_and_previous_need_promoted_runs(store: Store, finished: Callable[..., str]) -> None:
    finished("one", "never")

    for name, count in (("current", 1), ("previous", 2)):
        assert refused(store, name) == (
            f"run {name}: expected {count} or more promoted runs in {store.storage.location}, "
            "got 0; see `cifar history`"
        )


@pytest.mark.parametrize("name", ["", "nothing", "2", "../runs", "weights"])
def test_an_unknown_run_name_is_refused_on_one_line(store: Store, name: str) -> None:
    assert refused(store, name) == (
        f"run {name!r}: expected the id of a run in {store.storage.location}, or its beginning; see `cifar history`"
    )


@BUCKET_IN_SOAK
def test_an_empty_name_never_matches_the_only_run(store: Store, finished: Callable[..., str]) -> None:
    finished("one")

    refused(store, "")


@BUCKET_IN_SOAK
def test_an_ambiguous_beginning_lists_the_newest_matches(store: Store, finished: Callable[..., str]) -> None:
    runs = sorted(finished(word) for word in ("one", "two", "three", "four"))

    words = refused(store, "20")

    assert words.startswith("run '20': expected the beginning of one run's id, got 4 (")
    assert words.endswith("); give more of it")
    assert [run for run in runs if run in words] == runs[1:]


@BUCKET_IN_SOAK
def test_an_unreadable_record_is_reported_and_has_no_row(
    place: Place, store: Store, finished: Callable[..., str]
) -> None:
    lost, one = finished("lost"), finished("one")
    place.write(f"runs/{lost}.json", b'{"run": ')

    assert refused(store, lost) == f"run {lost}: its record cannot be read; see `cifar verify`"
    assert [row.run for row in history(store)] == [one]


# Rows


@BUCKET_IN_SOAK
def test_rows_are_newest_first_even_within_one_second(store: Store, finished: Callable[..., str]) -> None:
    runs = [finished(str(number)) for number in range(6)]

    assert [row.run for row in history(store)] == runs[::-1]


def test_an_empty_store_has_an_empty_history(store: Store) -> None:
    assert history(store) == []


def test_a_row_has_user_time_dataset_and_accuracy(place: Place) -> None:
    record = finished_run(place.location, "one", identity_of(), correct=[True] * 9 + [False] * 3).record

    [row] = history(place.open())

    low, high = wilson_interval(9, 12)
    assert (row.accuracy, row.accuracy_low, row.accuracy_high) == (0.75, low, high)
    assert (row.run, row.started, row.who) == (record.run, record.started, record.who)
    assert (row.status, row.dataset, row.collected) == ("completed", "archive images", False)


def test_a_failed_run_has_a_row_without_accuracy(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), recording_run(store, {"recipe": "tutorial"}, {}):
        raise ZeroDivisionError

    [row] = history(store)

    assert (row.status, row.recipe, row.standing) == ("failed", "tutorial", None)
    assert (row.accuracy, row.accuracy_low, row.accuracy_high, row.dataset) == (None, None, None, None)


def test_a_run_in_progress_has_a_row(store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        assert [(row.run, row.status) for row in history(store)] == [(run.record.run, "running")]


def test_a_killed_run_shows_at_once_and_nothing_is_written(place: Place, store: Store) -> None:
    with python_process(RUNNING, place.location) as process:
        run = next_line(process)
        assert [row.status for row in history(store)] == ["running"]
        kill(process)
    before = place.all()

    assert [row.status for row in history(store)] == ["killed"]
    assert find_run(store, run).status == "killed"
    assert place.all() == before


def test_the_recipe_is_shown_with_the_settings_that_differ() -> None:
    settings = {"recipe": "tutorial", "epochs": 3, "batch_size": None, "learning_rate": None, "seed": 0, "store": "/x"}

    assert describe_recipe(settings) == "tutorial, epochs 3, seed 0"
    settings |= {"flip": "random", "nesterov": True, "validation": 0, "devices": 1, "deterministic": False}
    assert describe_recipe(settings) == "tutorial, epochs 3, nesterov True, flip random, seed 0"
    settings |= {"validation": 5_000, "devices": 2, "deterministic": True}
    assert describe_recipe(settings).endswith("flip random, validation 5000, devices 2, deterministic True, seed 0")


# Standings


def test_standings_follow_promotions_refusals_and_rollbacks(store: Store, finished: Callable[..., str]) -> None:
    one, two = finished("one"), finished("two")
    three = finished("three", "never")
    assert run_standings(store) == {one: "promoted", two: "current", three: "refused"}

    roll_back_one(store)
    assert run_standings(store) == {one: "current", two: "rolled back", three: "refused"}

    promote_run(store, find_run(store, three), "by hand")
    assert run_standings(store) == {one: "promoted", two: "rolled back", three: "current"}

    promote_run(store, find_run(store, two), "fair after all")
    assert run_standings(store) == {one: "promoted", two: "current", three: "promoted"}


@BUCKET_IN_SOAK
def test_a_run_with_the_current_results_has_no_standing(store: Store, finished: Callable[..., str]) -> None:
    one, again = finished("one"), finished("one")

    assert run_standings(store) == {one: "current", again: None}


@BUCKET_IN_SOAK
def test_a_torn_log_line_loses_only_itself(place: Place, store: Store, finished: Callable[..., str]) -> None:
    one, two, three = (finished(word) for word in ("one", "two", "three"))
    first, _, third = place.read("promotions.jsonl").splitlines()
    place.write("promotions.jsonl", b"\n".join([first, b'{"action": "pro', third]) + b"\n")

    assert run_standings(store) == {one: "promoted", two: None, three: "current"}
    assert find_run(store, "previous").run == one


# Artifacts by name


@BUCKET_IN_SOAK
def test_an_artifact_is_found_by_run_and_name(place: Place) -> None:
    record = finished_run(place.location, "one").record
    store = place.open()

    assert find_artifact(store, "current", "weights") == record.artifacts["weights"]
    with pytest.raises(InputError) as raised:
        find_artifact(store, record.run, "wieghts")
    assert str(raised.value) == (
        f"run {record.run}: expected one of its artifacts (dataset, per_class, predictions, report, weights), "
        "got 'wieghts'"
    )


def test_a_run_without_artifacts_is_reported_as_such(store: Store) -> None:
    with recording_run(store, {}, {}) as run:
        pass

    with pytest.raises(InputError, match=r"expected one of its artifacts \(none\), got 'weights'"):
        find_artifact(store, run.record.run, "weights")


@BUCKET_IN_SOAK
def test_a_payload_path_is_the_table_the_only_file_or_the_folder(place: Place) -> None:
    report = finished_run(place.location, "one").record.artifacts["report"]
    store = place.open()

    assert payload_path(store, "current", "per_class").read_bytes() == b"classes of one"
    assert payload_path(store, "current", "weights").read_bytes() == b"weights of one"
    assert payload_path(store, "current", "report") == store.open(report)


@BUCKET_IN_SOAK
def test_a_payload_path_belongs_to_the_named_run(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    finished("two")

    assert payload_path(place.open(), "previous", "per_class").read_bytes() == b"classes of one"


@BUCKET_IN_SOAK
def test_damaged_bytes_have_no_payload_path(place: Place) -> None:
    ref = finished_run(place.location, "one").record.artifacts["per_class"]
    assert payload_path(place.open(), "current", "per_class")
    place.write(place.name_of(ref, "per_class.parquet"), b"classes of two")

    with pytest.raises(DamagedArtifact, match=r"per_class\.parquet is damaged"):
        payload_path(place.open(), "current", "per_class")


@BUCKET_IN_SOAK
def test_reading_the_history_changes_nothing(place: Place, finished: Callable[..., str]) -> None:
    finished("one")
    finished("two")
    before, store = place.all(), place.open()

    history(store)
    find_run(store, "previous")
    payload_path(store, "current", "weights")

    assert place.all() == before

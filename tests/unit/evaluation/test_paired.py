"""The paired comparison of two runs, on tables that are read from Parquet files."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tasks.core.errors import InputError
from tasks.core.evaluation.intervals import mcnemar_p, paired_difference
from tasks.core.evaluation.paired import Comparison, IncomparableRuns, compare
from tasks.core.evaluation.tables import predictions_table
from tasks.core.runtime.parquet import read_table, write_table

ANIMALS = ("zebra", "ant", "bee")


def predictions(
    folder: Path, labels: list[int], predicted: list[int], classes: tuple[str, ...] = ANIMALS
) -> pd.DataFrame:
    """Return the table of a network with a confidence of 90% in each prediction."""
    probabilities = np.full((len(labels), len(classes)), 0.1 / (len(classes) - 1), np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.9
    write_table(
        folder / "predictions.parquet", predictions_table(np.array(labels, np.uint8), probabilities, classes), {}
    )
    return read_table(folder / "predictions.parquet")


@pytest.fixture
def by_hand(tmp_path: Path) -> Comparison:
    """Four zebras: both correct, fixed, broken, fixed. Three ants: changed mistake, same mistake, both correct."""
    labels = [0, 0, 0, 0, 1, 1, 1]
    first = predictions(tmp_path, labels, [0, 1, 0, 2, 0, 2, 1])
    second = predictions(tmp_path, labels, [0, 0, 2, 0, 2, 2, 1])
    return compare(first, second)


def test_the_numbers_for_all_images_equal_those_by_hand(by_hand: Comparison) -> None:
    assert (by_hand.images, by_hand.first_correct, by_hand.second_correct) == (7, 3, 4)
    assert (by_hand.first_accuracy, by_hand.second_accuracy) == (3 / 7, 4 / 7)
    assert (by_hand.fixed, by_hand.broken, by_hand.changed_mistakes) == (2, 1, 1)
    assert by_hand.difference == paired_difference(both=2, first_only=1, second_only=2, neither=2)
    assert by_hand.mcnemar_p == mcnemar_p(1, 2) == 1


def test_the_numbers_per_class_equal_those_by_hand(by_hand: Comparison) -> None:
    zebra, ant = by_hand.per_class
    assert (zebra.class_name, zebra.images, zebra.first_correct, zebra.second_correct) == ("zebra", 4, 2, 3)
    assert (zebra.fixed, zebra.broken, zebra.changed_mistakes) == (2, 1, 0)
    assert zebra.difference == paired_difference(both=1, first_only=1, second_only=2, neither=0)
    assert (ant.class_name, ant.images, ant.first_correct, ant.second_correct) == ("ant", 3, 1, 1)
    assert (ant.fixed, ant.broken, ant.changed_mistakes) == (0, 0, 1)
    assert (ant.difference.value, ant.mcnemar_p) == (0, 1)


def test_a_class_without_test_images_is_left_out(by_hand: Comparison) -> None:
    assert [row.class_name for row in by_hand.per_class] == ["zebra", "ant"]  # no bee; label order, not the alphabet's


def test_numbers_equal_those_of_slow_counting(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    classes = tuple(f"class {number}" for number in range(12))
    labels = rng.integers(0, 12, 500)
    answers = [np.where(rng.random(500) < share, labels, rng.integers(0, 12, 500)).tolist() for share in (0.4, 0.6)]
    first, second = (predictions(tmp_path, labels.tolist(), answer, classes) for answer in answers)
    comparison = compare(first, second)
    assert [row.class_name for row in comparison.per_class] == list(classes)
    for number, row in enumerate((*comparison.per_class, comparison)):
        of_class = [i for i in range(500) if number == 12 or labels[i] == number]
        rows = [(labels[i], answers[0][i], answers[1][i]) for i in of_class]
        assert row.images == len(rows)
        assert row.first_correct == sum(one == label for label, one, _ in rows)
        assert row.second_correct == sum(two == label for label, _, two in rows)
        assert row.fixed == sum(one != label == two for label, one, two in rows)
        assert row.broken == sum(one == label != two for label, one, two in rows)
        assert row.changed_mistakes == sum(len({label, one, two}) == 3 for label, one, two in rows)
        assert row.difference.value == pytest.approx(row.second_accuracy - row.first_accuracy)
        assert row.mcnemar_p == mcnemar_p(row.broken, row.fixed)


def test_a_run_compared_with_itself_shows_no_change(tmp_path: Path) -> None:
    table = predictions(tmp_path, [0, 1, 2, 2], [0, 2, 2, 1])
    comparison = compare(table, table)
    assert (comparison.fixed, comparison.broken, comparison.changed_mistakes) == (0, 0, 0)
    assert (comparison.difference.value, comparison.mcnemar_p) == (0, 1)
    assert comparison.difference.low < 0 < comparison.difference.high


def test_swapping_the_runs_swaps_fixed_and_broken(tmp_path: Path) -> None:
    first, second = (predictions(tmp_path, [0, 1, 2, 2], answer) for answer in ([0, 1, 0, 1], [0, 0, 2, 2]))
    there, back = compare(first, second), compare(second, first)
    assert (there.fixed, there.broken) == (back.broken, back.fixed) == (2, 1)
    assert there.difference.value == -back.difference.value == 0.25
    assert there.mcnemar_p == back.mcnemar_p


def test_classes_are_compared_by_name_in_any_order(tmp_path: Path) -> None:
    first = predictions(tmp_path, [0, 1, 1], [0, 2, 2], ("zebra", "ant", "bee"))
    second = predictions(tmp_path, [2, 1, 1], [1, 0, 2], ("bee", "ant", "zebra"))
    comparison = compare(first, second)
    assert (comparison.first_correct, comparison.second_correct) == (1, 0)
    assert (comparison.broken, comparison.changed_mistakes) == (1, 1)  # the first ant was and is taken for a bee


def test_json_has_every_number_by_name_and_reads_back(by_hand: Comparison) -> None:
    text = by_hand.model_dump_json()
    values = json.loads(text, parse_constant=pytest.fail)  # NaN and Infinity are not valid JSON
    assert values["difference"] == {
        "value": pytest.approx(1 / 7),
        "low": by_hand.difference.low,
        "high": by_hand.difference.high,
    }
    assert [(row["class_name"], row["fixed"]) for row in values["per_class"]] == [("zebra", 2), ("ant", 0)]
    assert Comparison.model_validate_json(text) == by_hand


def test_different_numbers_of_test_images_are_refused(tmp_path: Path) -> None:
    first, second = predictions(tmp_path, [0] * 1_200, [0] * 1_200), predictions(tmp_path, [0, 1], [0, 1])
    with pytest.raises(IncomparableRuns, match=r"^compare: expected .* got 1,200 and 2 images; compare runs on .*"):
        compare(first, second)


def test_different_labels_are_refused_with_the_first_one(tmp_path: Path) -> None:
    first, second = (predictions(tmp_path, labels, [0, 0, 0, 0]) for labels in ([0, 1, 2, 0], [0, 1, 1, 1]))
    with pytest.raises(IncomparableRuns, match=r"got different labels for 2 of 4 images \(image 2 is bee and ant\);"):
        compare(first, second)


def test_different_class_names_are_different_labels(tmp_path: Path) -> None:
    first = predictions(tmp_path, [0, 1], [0, 1], ("zebra", "ant"))
    second = predictions(tmp_path, [0, 1], [0, 1], ("zebra", "cow"))
    with pytest.raises(IncomparableRuns, match=r"for 1 of 2 images \(image 1 is ant and cow\)"):
        compare(first, second)


def test_incomparable_runs_are_an_input_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        compare(predictions(tmp_path, [0], [0]), predictions(tmp_path, [1], [0]))
    assert "\n" not in str(caught.value)

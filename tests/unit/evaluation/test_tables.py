"""The Parquet tables: columns, numbers compared with slow counting, and metadata."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.data.archive import TUTORIAL_CLASSES
from tasks.core.evaluation.intervals import Z_95, wilson_interval
from tasks.core.evaluation.schemas import PER_CLASS
from tasks.core.evaluation.tables import confusion_matrix, per_class_table, predictions_table
from tasks.core.runtime.parquet import read_facts, read_table, write_table
from tasks.core.training.curve import TrainingPoint, training_table

FACTS: dict[str, JsonValue] = {
    "artifact": "predictions",
    "inputs": {"weights": "ab" * 32},
    "seed": 1,
    "dataset": {"name": "Kühe 牛"},
}


def predict(labels: list[int], predicted: list[int], classes: list[str]) -> pa.Table:
    """Return a predictions table with a confidence of 90% in each prediction."""
    probabilities = np.full((len(labels), len(classes)), 0.1 / (len(classes) - 1), np.float32)
    probabilities[np.arange(len(labels)), predicted] = 0.9
    return predictions_table(np.array(labels, np.uint8), probabilities, classes)


def on_disk(table: pa.Table, folder: Path) -> pd.DataFrame:
    """Write and read the table, as a user does."""
    write_table(folder / "table.parquet", table, FACTS)
    return read_table(folder / "table.parquet")


def per_class(labels: list[int], predicted: list[int], classes: list[str], folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = summarize(on_disk(predict(labels, predicted, classes), folder)).to_pylist()
    return rows


def summarize(predictions: pd.DataFrame) -> pa.Table:
    return per_class_table(confusion_matrix(predictions), list(predictions["label"].cat.categories))


def random_predictions(classes: int, images: int) -> tuple[list[int], list[int]]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes, images)
    guesses = rng.integers(0, classes, images)
    return labels.tolist(), np.where(rng.random(images) < 0.5, labels, guesses).tolist()


# Columns


def test_per_class_columns_are_as_documented(tmp_path: Path) -> None:
    frame = on_disk(predict([0, 1], [0, 0], ["ant", "bee"]), tmp_path)
    write_table(tmp_path / "per_class.parquet", summarize(frame), {})
    schema = pq.read_schema(tmp_path / "per_class.parquet")
    assert list(zip(schema.names, map(str, schema.types), strict=True)) == [
        ("class_index", "int16"),
        ("class", "string"),
        ("support", "int32"),
        ("correct", "int32"),
        ("accuracy", "double"),
        ("accuracy_low", "double"),
        ("accuracy_high", "double"),
        ("precision", "double"),
        ("f1", "double"),
        ("confused_with", "string"),
        ("confused_count", "int32"),
        ("precision_low", "double"),
        ("precision_high", "double"),
        ("f1_low", "double"),
        ("f1_high", "double"),
    ]


def test_predictions_columns_are_as_documented(tmp_path: Path) -> None:
    write_table(tmp_path / "predictions.parquet", predict([0, 9], [0, 3], TUTORIAL_CLASSES), {})
    schema = pq.read_schema(tmp_path / "predictions.parquet")
    assert schema.names[:5] == ["index", "label", "predicted", "correct", "confidence"]
    assert schema.names[5:] == [f"prob_{name}" for name in TUTORIAL_CLASSES]
    assert (schema.names[5], schema.names[-1]) == ("prob_plane", "prob_truck")
    for name in ("label", "predicted"):
        assert pa.types.is_dictionary(schema.field(name).type)
        assert schema.field(name).type.value_type == pa.string()
    others = {name: str(schema.field(name).type) for name in schema.names if name not in ("label", "predicted")}
    assert others.pop("index") == "int32"
    assert others.pop("correct") == "bool"
    assert set(others.values()) == {"float"}  # Arrow's word for float32


def test_training_columns_are_as_documented() -> None:
    table = training_table(
        [TrainingPoint(2_000, 1, 2.18, 0.001, 0.17), TrainingPoint(2_001, 1, 2.1, 0.001, 0.25, 2.2, 0.2)]
    )
    assert dict(zip(table.schema.names, map(str, table.schema.types), strict=True)) == {
        "step": "int32",
        "epoch": "int32",
        "running_loss": "double",
        "learning_rate": "double",
        "running_accuracy": "double",
        "validation_loss": "double",
        "validation_accuracy": "double",
    }
    assert list(table.to_pylist()[0].values()) == [2_000, 1, 2.18, 0.001, 0.17, None, None]
    assert list(table.to_pylist()[1].values()) == [2_001, 1, 2.1, 0.001, 0.25, 2.2, 0.2]


# Predictions


def test_a_row_has_prediction_and_probabilities(tmp_path: Path) -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], np.float32)
    frame = on_disk(predictions_table(np.array([2, 0], np.uint8), probabilities, ["ant", "bee", "cow"]), tmp_path)
    assert frame["index"].tolist() == [0, 1]
    assert frame["label"].tolist() == ["cow", "ant"]
    assert frame["predicted"].tolist() == ["bee", "ant"]
    assert frame["correct"].tolist() == [False, True]
    assert np.array_equal(frame["confidence"].to_numpy(), probabilities.max(axis=1))
    assert np.array_equal(frame[["prob_ant", "prob_bee", "prob_cow"]].to_numpy(), probabilities)


def test_pandas_reads_labels_as_ordered_categories(tmp_path: Path) -> None:
    classes = ["zebra", "cow", "bee", "ant"]
    frame = on_disk(predict([2, 2, 1], [1, 1, 1], classes), tmp_path)
    for name in ("label", "predicted"):
        assert isinstance(frame[name].dtype, pd.CategoricalDtype)
        assert frame[name].cat.categories.tolist() == classes


def test_predictions_join_with_the_per_class_table_by_name(tmp_path: Path) -> None:
    labels, predicted = random_predictions(10, 200)
    frame = on_disk(predict(labels, predicted, TUTORIAL_CLASSES), tmp_path)
    table = summarize(frame).to_pandas()
    joined = frame.astype({"label": "str"}).merge(table, left_on="label", right_on="class")
    assert len(joined) == 200
    assert np.array_equal(np.sort(joined["class_index"]), np.sort(labels))


# Classes


def test_the_numbers_of_a_small_table_equal_those_by_hand(tmp_path: Path) -> None:
    classes = ["ant", "bee", "cow", "dog"]
    #         four ants:  2 right, 1 bee, 1 cow | three bees: all right | two cows: both taken for bees | one dog: right
    labels, predicted = [0, 0, 0, 0, 1, 1, 1, 2, 2, 3], [0, 0, 1, 2, 1, 1, 1, 1, 1, 3]
    ant, bee, cow, dog = per_class(labels, predicted, classes, tmp_path)

    assert (ant["class_index"], ant["class"], ant["support"], ant["correct"]) == (0, "ant", 4, 2)
    assert (ant["accuracy"], ant["precision"]) == (2 / 4, 2 / 2)
    assert ant["f1"] == pytest.approx(2 * (2 / 4) * 1 / (2 / 4 + 1))
    assert (ant["accuracy_low"], ant["accuracy_high"]) == pytest.approx((0.150039, 0.849961), abs=1e-6)
    assert (ant["confused_with"], ant["confused_count"]) == ("bee", 1)  # of bee and cow, the first in label order

    assert (bee["accuracy"], bee["precision"], bee["confused_with"], bee["confused_count"]) == (1, 3 / 6, None, 0)
    assert bee["f1"] == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert (cow["accuracy"], cow["precision"], cow["f1"]) == (0, 0, 0)
    assert (cow["confused_with"], cow["confused_count"]) == ("bee", 2)
    assert (dog["support"], dog["accuracy"], dog["precision"], dog["f1"]) == (1, 1, 1, 1)


@pytest.mark.parametrize(("classes", "images"), [(2, 50), (7, 400), (30, 100)])
def test_numbers_equal_those_of_slow_counting(tmp_path: Path, classes: int, images: int) -> None:
    labels, predicted = random_predictions(classes, images)
    pairs = list(zip(labels, predicted, strict=True))
    for index, row in enumerate(per_class(labels, predicted, [f"class {n}" for n in range(classes)], tmp_path)):
        right = sum(label == index == answer for label, answer in pairs)
        of_class = sum(label == index for label, _ in pairs)
        answered = sum(answer == index for _, answer in pairs)
        mistakes = [sum(pair == (index, other) for pair in pairs) for other in range(classes) if other != index]
        assert (row["support"], row["correct"]) == (of_class, right)
        assert row["accuracy"] == (right / of_class if of_class else None)
        assert row["precision"] == (right / answered if answered else None)
        assert row["confused_count"] == max(mistakes)
        if max(mistakes):
            confused = int(row["confused_with"].removeprefix("class "))
            assert sum(pair == (index, confused) for pair in pairs) == max(mistakes)
            assert confused != index


def test_the_confusion_matrix_has_labels_in_rows(tmp_path: Path) -> None:
    matrix: NDArray[np.int64] = confusion_matrix(on_disk(predict([0, 0, 1], [1, 1, 2], ["a", "b", "c"]), tmp_path))
    assert matrix.tolist() == [[0, 2, 0], [0, 0, 1], [0, 0, 0]]


def test_a_class_that_was_never_predicted_has_no_precision(tmp_path: Path) -> None:
    ant, bee = per_class([0, 1, 1], [0, 0, 0], ["ant", "bee"], tmp_path)
    assert bee["precision"] is None
    assert bee["accuracy"] == 0
    assert ant["precision"] == pytest.approx(1 / 3)


def test_a_class_without_test_images_has_no_accuracy(tmp_path: Path) -> None:
    _, bee, cow = per_class([0, 0], [0, 1], ["ant", "bee", "cow"], tmp_path)
    for row in (bee, cow):
        assert (row["support"], row["correct"]) == (0, 0)
        assert [row[name] for name in ("accuracy", "accuracy_low", "accuracy_high", "confused_with")] == [None] * 4
        assert row["confused_count"] == 0
    assert bee["precision"] == 0  # it was predicted, wrongly
    assert (cow["precision"], cow["f1"]) == (None, None)


def test_undefined_numbers_are_null_and_not_nan(tmp_path: Path) -> None:
    frame = on_disk(predict([0, 0], [0, 0], ["ant", "bee"]), tmp_path)
    write_table(tmp_path / "per_class.parquet", summarize(frame), {})
    bee = pq.read_table(tmp_path / "per_class.parquet").to_pylist()[1]
    assert [bee[name] for name in ("accuracy", "precision", "f1", "confused_with")] == [None] * 4


def test_two_hundred_classes_keep_their_order_and_columns(tmp_path: Path) -> None:
    classes = [f"class {number}" for number in reversed(range(200))]
    labels, predicted = random_predictions(200, 300)
    frame = on_disk(predict(labels, predicted, classes), tmp_path)
    table = summarize(frame)
    assert table.schema.equals(PER_CLASS, check_metadata=True)
    assert table["class"].to_pylist() == classes
    assert table["class_index"].to_pylist() == list(range(200))
    assert sum(table["support"].to_pylist()) == 300
    assert frame.columns[5:].tolist() == [f"prob_{name}" for name in classes]
    assert frame["label"].tolist() == [classes[label] for label in labels]


def test_long_class_names_stay_in_label_order(tmp_path: Path) -> None:
    classes = [f"{number:03d}" + "x" * 20_000 for number in reversed(range(100))]  # too much for Parquet's dictionary
    labels, predicted = random_predictions(100, 50)
    rows = per_class(labels, predicted, classes, tmp_path)
    assert [row["class"] for row in rows] == classes
    assert [row["support"] for row in rows] == [labels.count(index) for index in range(100)]


# The files


def test_a_file_contains_its_facts(tmp_path: Path) -> None:
    on_disk(predict([0], [0], ["ant", "bee"]), tmp_path)
    assert read_facts(tmp_path / "table.parquet") == FACTS


def test_the_order_of_the_facts_does_not_change_the_bytes(tmp_path: Path) -> None:
    table = predict([0, 1], [0, 0], ["ant", "bee"])
    write_table(tmp_path / "one.parquet", table, FACTS)
    write_table(tmp_path / "two.parquet", table, dict(reversed(list(FACTS.items()))))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


# The interval


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (
            81,
            263,
            0.2553,
            0.3662,
        ),  # the first four: Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (0, 10, 0.0, 0.2775),
        (5, 10, 0.2366, 0.7634),
        (10, 10, 0.7225, 1.0),
    ],
)
def test_the_interval_equals_published_wilson_intervals(correct: int, total: int, low: float, high: float) -> None:
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "total"), [(1, 3), (37, 100), (5_400, 10_000), (999, 1_000)])
def test_the_limits_are_z_standard_errors_from_the_proportion(correct: int, total: int) -> None:
    share = correct / total
    for end in wilson_interval(correct, total):
        assert abs(share - end) / math.sqrt(end * (1 - end) / total) == pytest.approx(Z_95)


def test_the_interval_contains_the_proportion_and_stays_in_range() -> None:
    for total in range(1, 60):
        for correct in range(total + 1):
            low, high = wilson_interval(correct, total)
            assert 0 <= low <= correct / total <= high <= 1
            assert low < high


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (-1, 5), (6, 5)])
def test_invalid_counts_are_refused_with_both_named(correct: int, total: int) -> None:
    with pytest.raises(ValueError, match=f"got correct {correct} of total {total}"):
        wilson_interval(correct, total)

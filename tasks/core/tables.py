"""The Parquet tables: their columns, and what each file says of itself."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.near_duplicates import Pairs
from tasks.core.statistics import wilson_interval

METADATA_KEY = b"cifar_flow"

PER_CLASS_SCHEMA = pa.schema(
    [
        ("class_index", pa.int16()),
        ("class", pa.string()),
        ("support", pa.int32()),
        ("correct", pa.int32()),
        ("accuracy", pa.float64()),
        ("accuracy_low", pa.float64()),
        ("accuracy_high", pa.float64()),
        ("precision", pa.float64()),
        ("f1", pa.float64()),
        ("confused_with", pa.string()),
        ("confused_count", pa.int32()),
    ]
)


class TrainingPoint(NamedTuple):
    """What training came to since the point before, after `step` steps in all; accuracies are in [0, 1].

    At the end of an epoch, if images are held out, what the network makes of them.
    """

    step: int
    epoch: int
    running_loss: float
    learning_rate: float
    running_accuracy: float
    validation_loss: float | None = None
    validation_accuracy: float | None = None


def write_table(path: Path, table: pa.Table, facts: Mapping[str, JsonValue]) -> None:
    """Write a table that says by itself what it is: `facts` stand as JSON in the file's metadata."""
    metadata = {METADATA_KEY: json.dumps(dict(facts), sort_keys=True).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path, compression="zstd")


def read_table(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def read_facts(path: Path) -> dict[str, JsonValue]:
    """What a table of ours says of itself."""
    facts: dict[str, JsonValue] = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    return facts


def training_table(curve: Sequence[TrainingPoint]) -> pa.Table:
    whole = ("step", "epoch")
    schema = pa.schema([(name, pa.int32() if name in whole else pa.float64()) for name in TrainingPoint._fields])
    return pa.Table.from_pylist([point._asdict() for point in curve], schema=schema)


def predictions_table(
    labels: NDArray[np.uint8], probabilities: NDArray[np.float32], classes: Sequence[str]
) -> pa.Table:
    """One row an image; `probabilities` is [N, classes]."""
    predicted = probabilities.argmax(axis=1)
    columns: dict[str, Any] = {
        "index": pa.array(np.arange(len(labels)), pa.int32()),
        "label": _class_names(labels, classes),
        "predicted": _class_names(predicted, classes),
        "correct": pa.array(labels == predicted),
        "confidence": pa.array(probabilities.max(axis=1), pa.float32()),
    }
    columns |= {f"prob_{name}": pa.array(probabilities[:, i], pa.float32()) for i, name in enumerate(classes)}
    return pa.table(columns)


def duplicates_table(
    exact: Pairs, near: Pairs, train_labels: NDArray[np.uint8], test_labels: NDArray[np.uint8], classes: Sequence[str]
) -> pa.Table:
    """One row a pair; places count the training images and then the test images."""
    both = Pairs._make(np.concatenate(column) for column in zip(exact, near, strict=True))
    labels, train = np.concatenate([train_labels, test_labels]), len(train_labels)
    columns: dict[str, Any] = {}
    for name, places in (("first", both.first), ("second", both.second)):
        in_test = places >= train
        columns[f"{name}_split"] = pa.DictionaryArray.from_arrays(pa.array(in_test, pa.int8()), ["train", "test"])
        columns[f"{name}_index"] = pa.array(places - train * in_test, pa.int32())
        columns[f"{name}_label"] = _class_names(labels[places], classes)
    columns |= {
        "labels_differ": pa.array(labels[both.first] != labels[both.second]),
        "exact": pa.array(np.arange(len(both.first)) < len(exact.first)),
        "mirrored": pa.array(both.mirrored),
        "correlation": pa.array(both.correlation),
        "structure": pa.array(both.structure),
    }
    return pa.table(columns).take(pa.array(np.lexsort((both.second, both.first))))


def _class_names(indices: NDArray[Any], classes: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), pa.array(classes, pa.string()))


def confusion_matrix(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Counts [label, predicted], in label order."""
    classes = len(predictions["label"].cat.categories)
    cells = predictions["label"].cat.codes.astype("int64") * classes + predictions["predicted"].cat.codes
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class_table(predictions: pd.DataFrame) -> pa.Table:
    """One row a class, in label order; a number that nothing defines is null."""
    matrix = confusion_matrix(predictions)
    classes = [str(name) for name in predictions["label"].cat.categories]
    rows = [_class_row(index, classes, matrix) for index in range(len(classes))]
    return pa.Table.from_pylist(rows, schema=PER_CLASS_SCHEMA)


def _class_row(index: int, classes: Sequence[str], matrix: NDArray[np.int64]) -> dict[str, Any]:
    mistakes = matrix[index].copy()
    mistakes[index] = 0
    support, predicted, correct = int(matrix[index].sum()), int(matrix[:, index].sum()), int(matrix[index, index])
    low, high = wilson_interval(correct, support) if support else (None, None)
    return {
        "class_index": index,
        "class": classes[index],
        "support": support,
        "correct": correct,
        "accuracy": correct / support if support else None,
        "accuracy_low": low,
        "accuracy_high": high,
        "precision": correct / predicted if predicted else None,
        "f1": 2 * correct / (support + predicted) if support + predicted else None,
        "confused_with": classes[mistakes.argmax()] if mistakes.any() else None,
        "confused_count": int(mistakes.max()),
    }

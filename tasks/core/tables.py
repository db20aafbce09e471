"""The Parquet tables: their rows, and what each file says of itself."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.columns import CALIBRATION, DUPLICATES, PER_CLASS, PROBABILITY, TRAINING, predictions_columns
from tasks.core.metrics import CalibrationBin
from tasks.core.pairs import Pairs
from tasks.core.statistics import f1_interval, wilson_interval

METADATA_KEY = b"cifar_flow"

ROW_GROUP = 50_000  # rows: few enough to be held, enough for a reader to skip by


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
    write_parts(path, table.schema, [table], facts)


def write_parts(path: Path, schema: pa.Schema, parts: Iterable[pa.Table], facts: Mapping[str, JsonValue]) -> None:
    """Write one table of parts that are made as they are written, so that no more than one of them is held."""
    with writing(path, schema, facts) as writer:
        for part in parts:
            writer.write_table(part, row_group_size=ROW_GROUP)


@contextmanager
def writing(path: Path, schema: pa.Schema, facts: Mapping[str, JsonValue]) -> Iterator[pq.ParquetWriter]:
    """What writes a table of that schema part by part."""
    metadata = {METADATA_KEY: json.dumps(dict(facts), sort_keys=True).encode()}
    with pq.ParquetWriter(path, schema.with_metadata(metadata), compression="zstd") as writer:
        yield writer


def read_table(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def read_facts(path: Path) -> dict[str, JsonValue]:
    """What a table of ours says of itself."""
    facts: dict[str, JsonValue] = json.loads(pq.read_schema(path).metadata[METADATA_KEY])
    return facts


def training_table(curve: Sequence[TrainingPoint]) -> pa.Table:
    return pa.Table.from_pylist([point._asdict() for point in curve], schema=TRAINING)


def predictions_table(
    labels: NDArray[np.uint8] | None, probabilities: NDArray[np.float32], classes: Sequence[str], first: int = 0
) -> pa.Table:
    """One row an image, from image number `first` on; `probabilities` is [N, classes].

    Where nobody knows the labels, they and `correct` are null.
    """
    predicted, count = probabilities.argmax(axis=1), len(probabilities)
    columns: list[Any] = [
        np.arange(first, first + count, dtype=np.int32),
        _class_names(pa.nulls(count) if labels is None else labels, classes),
        _class_names(predicted, classes),
        pa.nulls(count, pa.bool_()) if labels is None else labels == predicted,
        probabilities.max(axis=1),
        *np.ascontiguousarray(probabilities.T),
    ]
    return pa.table(columns, schema=predictions_columns(classes))


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
    return pa.table(columns, schema=DUPLICATES).take(pa.array(np.lexsort((both.second, both.first))))


def _class_names(indices: NDArray[Any] | pa.Array, classes: Sequence[str]) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int16()), pa.array(classes, pa.string()))


def predicted_classes(path: Path) -> tuple[str, ...]:
    """The classes of a predictions table, in label order."""
    names = pq.read_schema(path).names
    return tuple(name.removeprefix(PROBABILITY) for name in names if name.startswith(PROBABILITY))


def read_probabilities(path: Path, images_at_once: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """The labels [N] and probabilities [N, classes] of a predictions table, some images after the others."""
    classes = predicted_classes(path)
    columns = [f"{PROBABILITY}{name}" for name in classes]
    with pq.ParquetFile(path, pre_buffer=False) as file:  # which would hold the whole file
        for batch in file.iter_batches(images_at_once, columns=["label", *columns]):
            labels = pc.index_in(batch["label"].dictionary_decode(), pa.array(classes))
            yield labels.to_numpy().astype(np.intp), np.stack([batch[name].to_numpy() for name in columns], axis=1)


def confusion_matrix(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Counts [label, predicted], in label order."""
    classes = len(predictions["label"].cat.categories)
    cells = predictions["label"].cat.codes.astype("int64") * classes + predictions["predicted"].cat.codes
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class_table(confusion: NDArray[np.int64], classes: Sequence[str]) -> pa.Table:
    """One row a class, in label order, from the counts [label, predicted]; a number that nothing defines is null."""
    rows = [_class_row(index, classes, confusion) for index in range(len(classes))]
    return pa.Table.from_pylist(rows, schema=PER_CLASS)


def _class_row(index: int, classes: Sequence[str], confusion: NDArray[np.int64]) -> dict[str, Any]:
    mistakes = confusion[index].copy()
    mistakes[index] = 0
    support, predicted = int(confusion[index].sum()), int(confusion[:, index].sum())
    correct = int(confusion[index, index])
    claimed = support + predicted
    return {
        "class_index": index,
        "class": classes[index],
        "support": support,
        "correct": correct,
        **_share("accuracy", correct, support),
        **_share("precision", correct, predicted),
        "f1": 2 * correct / claimed if claimed else None,
        **_ends("f1", f1_interval(correct, claimed) if claimed else None),
        "confused_with": classes[mistakes.argmax()] if mistakes.any() else None,
        "confused_count": int(mistakes.max()),
    }


def calibration_table(bins: Sequence[CalibrationBin]) -> pa.Table:
    """One row a bin, in order of confidence; of a bin without images only its bounds are told."""
    rows = [
        {
            "low": low,
            "high": high,
            "images": images,
            "confidence": confidence / images if images else None,
            **_share("accuracy", correct, images),
        }
        for low, high, images, correct, confidence in bins
    ]
    return pa.Table.from_pylist(rows, schema=CALIBRATION)


def _share(name: str, part: int, whole: int) -> dict[str, float | None]:
    """A proportion and its interval; all null where the whole is nothing."""
    ends = wilson_interval(part, whole) if whole else None
    return {name: part / whole if whole else None, **_ends(name, ends)}


def _ends(name: str, ends: tuple[float, float] | None) -> dict[str, float | None]:
    low, high = ends or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}

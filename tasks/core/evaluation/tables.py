"""The rows of the evaluation tables."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.evaluation.intervals import f1_interval, wilson_interval
from tasks.core.evaluation.metrics import CalibrationBin
from tasks.core.evaluation.schemas import CALIBRATION, PER_CLASS, PROBABILITY, predictions_columns
from tasks.core.runtime.parquet import class_names


def predictions_table(
    labels: NDArray[np.uint8] | None, probabilities: NDArray[np.float32], classes: Sequence[str], first: int = 0
) -> pa.Table:
    """One row an image, from image number `first` on; `probabilities` is [N, classes].

    Where nobody knows the labels, they and `correct` are null.
    """
    predicted, count = probabilities.argmax(axis=1), len(probabilities)
    columns: list[Any] = [
        np.arange(first, first + count, dtype=np.int32),
        class_names(pa.nulls(count) if labels is None else labels, classes),
        class_names(predicted, classes),
        pa.nulls(count, pa.bool_()) if labels is None else labels == predicted,
        probabilities.max(axis=1),
        *np.ascontiguousarray(probabilities.T),
    ]
    return pa.table(columns, schema=predictions_columns(classes))


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

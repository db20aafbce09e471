"""The evaluation tables: predictions, per class, and calibration."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tasks.core.evaluation.intervals import Estimate, f1_estimate, proportion_estimate
from tasks.core.evaluation.metrics import BIN_EDGES
from tasks.core.evaluation.schemas import CALIBRATION, PER_CLASS, PROBABILITY_PREFIX, predictions_columns
from tasks.core.runtime.parquet import class_names


def predictions_table(
    labels: NDArray[np.uint8] | None, probabilities: NDArray[np.float32], classes: Sequence[str], first: int = 0
) -> pa.Table:
    """Return one row per image, with indices from `first` on; without labels, `label` and `correct` are null.

    Args:
        probabilities: float32 [N, classes].
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
    """Return the class names of a predictions table, in label order."""
    names = pq.read_schema(path).names
    return tuple(name.removeprefix(PROBABILITY_PREFIX) for name in names if name.startswith(PROBABILITY_PREFIX))


def read_probabilities(path: Path, batch_size: int) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
    """Yield the labels [N] and probabilities [N, classes] of a predictions table, batch by batch."""
    classes = predicted_classes(path)
    columns = [f"{PROBABILITY_PREFIX}{name}" for name in classes]
    with pq.ParquetFile(path, pre_buffer=False) as file:  # a buffer would hold the whole file
        for batch in file.iter_batches(batch_size, columns=["label", *columns]):
            labels = pc.index_in(batch["label"].dictionary_decode(), pa.array(classes))
            yield labels.to_numpy().astype(np.intp), np.stack([batch[name].to_numpy() for name in columns], axis=1)


def confusion_matrix(predictions: pd.DataFrame) -> NDArray[np.int64]:
    """Return the counts [label, predicted], in label order."""
    classes = len(predictions["label"].cat.categories)
    cells = predictions["label"].cat.codes.astype("int64") * classes + predictions["predicted"].cat.codes
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def per_class_table(confusion: NDArray[np.int64], classes: Sequence[str]) -> pa.Table:
    """Return one row per class, in label order, from the counts [label, predicted]; undefined numbers are null."""
    support, predicted = confusion.sum(axis=1).tolist(), confusion.sum(axis=0).tolist()
    correct = confusion.diagonal().tolist()
    mistakes = confusion - np.diag(confusion.diagonal())
    rows = [
        {
            "class_index": index,
            "class": name,
            "support": support[index],
            "correct": correct[index],
            **_estimate_columns("accuracy", proportion_estimate, correct[index], support[index]),
            **_estimate_columns("precision", proportion_estimate, correct[index], predicted[index]),
            **_estimate_columns("f1", f1_estimate, correct[index], support[index] + predicted[index]),
            "confused_with": classes[mistakes[index].argmax()] if mistakes[index].any() else None,
            "confused_count": int(mistakes[index].max()),
        }
        for index, name in enumerate(classes)
    ]
    return pa.Table.from_pylist(rows, schema=PER_CLASS)


def calibration_table(bins: NDArray[np.float64]) -> pa.Table:
    """Return one row per bin of a ScoreAccumulator, in order of confidence; undefined numbers are null."""
    rows = [
        {
            "low": low,
            "high": high,
            "images": int(images),
            "confidence": confidence / images if images else None,
            **_estimate_columns("accuracy", proportion_estimate, int(correct), int(images)),
        }
        for (low, high), images, correct, confidence in zip(pairwise(BIN_EDGES.tolist()), *bins.tolist(), strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=CALIBRATION)


def _estimate_columns(
    name: str, estimate: Callable[[int, int], Estimate], correct: int, total: int
) -> dict[str, float | None]:
    value, low, high = astuple(estimate(correct, total)) if total else (None, None, None)
    return {name: value, f"{name}_low": low, f"{name}_high": high}

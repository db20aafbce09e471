"""Predicts image files batch by batch, and writes the tables and the gallery."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.errors import InputError
from tasks.core.evaluation.tables import predictions_table
from tasks.core.inference.classifier import Classifier
from tasks.core.inference.image_decoding import Picture, Unreadable, decode
from tasks.core.inference.image_files import as_text
from tasks.core.inference.summary import PredictionSummary
from tasks.core.reports.output_files import make_output_folder, prediction_files
from tasks.core.runtime.files import atomic_write
from tasks.core.runtime.parquet import make_schema, table_writer
from tasks.core.runtime.progress import log_tenths

ShowCount = Callable[[int, int], None]  # images done, images in total
BATCH_SIZE = 256
MAX_THREADS = 8  # each may hold a whole image
PATH = ("path", pa.string(), "path of the image file; bytes that are not UTF-8 are written as \\xff")
UNREADABLE = make_schema([PATH, ("reason", pa.string(), "why the file cannot be read")])


def predict_files(folder: Path, paths: Sequence[str], classifier: Classifier, show: ShowCount) -> PredictionSummary:
    """Write `predictions.parquet`, `unreadable.parquet` and `gallery.html`; existing files are replaced on success.

    Memory holds the paths and one batch of images of 32x32 pixels.

    Raises:
        InputError: No image can be read. Only `unreadable.parquet` is written.
    """
    page_path, unreadable_path, predictions_path = prediction_files(folder)
    make_output_folder(folder)
    classes = classifier.lineage.classes
    summary = PredictionSummary(classifier.run, str(classifier.weights), classifier.lineage, len(paths))
    schema = _predictions([], np.empty((0, len(classes)), np.float32), classes, 0).schema
    metadata = classifier.facts()
    with atomic_write(page_path) as page, atomic_write(predictions_path) as predictions_file:
        with (
            atomic_write(unreadable_path) as unreadable_file,
            table_writer(predictions_file, schema, {"artifact": "predictions", **metadata}) as predictions,
            table_writer(unreadable_file, UNREADABLE, {"artifact": "unreadable", **metadata}) as unreadable,
        ):
            for pictures, failures in _decode_batches(paths, show):
                if pictures:
                    probabilities = classifier.probabilities(np.stack([picture.pixels_chw for picture in pictures]))
                    predictions.write_table(_predictions(pictures, probabilities, classes, summary.images))
                    summary.add(pictures, probabilities)
                if failures:
                    rows = [{"path": as_text(file.path), "reason": file.reason} for file in failures]
                    unreadable.write_table(pa.Table.from_pylist(rows, UNREADABLE))
                    summary.add_unreadable(failures)
        if not summary.images:
            got = f"{summary.unreadable:,} unreadable"
            raise InputError("images", expected="a readable image", got=got, advice=f"see {unreadable_path}")
        page.write_text(summary.render_page(), encoding="utf-8", newline="\n")
    return summary


def _decode_batches(paths: Sequence[str], show: ShowCount) -> Iterator[tuple[list[Picture], list[Unreadable]]]:
    """Yield the readable and the unreadable files of each batch; Pillow decodes in several threads."""
    threads = min(os.cpu_count() or 1, MAX_THREADS)
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's: the reason of a failure names the problem
        for start in range(0, len(paths), BATCH_SIZE):
            pictures, failures = list[Picture](), list[Unreadable]()
            for done, image in enumerate(pool.map(decode, paths[start : start + BATCH_SIZE]), start + 1):
                pictures.append(image) if isinstance(image, Picture) else failures.append(image)
                show(done, len(paths))
                log_tenths(done, len(paths))
            yield pictures, failures


def _predictions(
    pictures: Sequence[Picture], probabilities: NDArray[np.float32], classes: Sequence[str], first_index: int
) -> pa.Table:
    paths = pa.array([as_text(picture.path) for picture in pictures], pa.string())
    return predictions_table(None, probabilities, classes, first_index).add_column(1, UNREADABLE.field("path"), paths)

"""Predicting images of one's own: from files to a table and a gallery, batch by batch."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.errors import InputError
from tasks.core.evaluation.tables import predictions_table
from tasks.core.inference.classifier import Classifier
from tasks.core.inference.gallery import Overview
from tasks.core.inference.image_decoding import Picture, Unreadable, decode
from tasks.core.inference.image_files import as_text
from tasks.core.reports.output_files import make_output_folder, prediction_files
from tasks.core.runtime.files import atomic_write
from tasks.core.runtime.parquet import make_schema, table_writer
from tasks.core.runtime.progress import CountCallback

BATCH_SIZE = 256
MOST_THREADS = 8  # each may hold a whole image
PATH = ("path", pa.string(), "the image file's; bytes that are not UTF-8 are spelt \\xff")
UNREADABLE = make_schema([PATH, ("reason", pa.string(), "why it cannot be read")])


def predict_files(folder: Path, paths: Sequence[str], classifier: Classifier, show: CountCallback) -> Overview:
    """Leave `predictions.parquet`, `unreadable.parquet` and `gallery.html` in `folder`, none before all are done.

    Beside the paths, no more than a batch of small images is held. InputError if no image can be read, and then
    `unreadable.parquet` alone is left.
    """
    page_path, failures_path, answers_path = prediction_files(folder)
    make_output_folder(folder)
    classes = classifier.lineage.classes
    overview = Overview(classifier.run, str(classifier.weights), classifier.lineage, len(paths))
    answers = _answers([], np.empty((0, len(classes)), np.float32), classes, 0)
    with atomic_write(page_path) as page, atomic_write(answers_path) as answers_file:
        with (
            atomic_write(failures_path) as failures_file,
            table_writer(
                answers_file, answers.schema, {"artifact": "predictions", **classifier.facts()}
            ) as write_answers,
            table_writer(failures_file, UNREADABLE, {"artifact": "unreadable", **classifier.facts()}) as write_failures,
        ):
            for pictures, failures in _decoded(paths, show):
                if pictures:
                    probabilities = classifier.probabilities(np.stack([picture.pixels_chw for picture in pictures]))
                    write_answers.write_table(_answers(pictures, probabilities, classes, overview.images))
                    overview.add(pictures, probabilities)
                if failures:
                    write_failures.write_table(_failures(failures))
                    overview.add_unreadable(failures)
        if not overview.images:
            raise InputError(
                f"images: expected one or more that can be read, got {overview.unreadable:,} that cannot; "
                f"the reasons are in {failures_path}"
            )
        page.write_text(overview.page(), encoding="utf-8", newline="\n")
    return overview


def _decoded(paths: Sequence[str], show: CountCallback) -> Iterator[tuple[list[Picture], list[Unreadable]]]:
    """Batches of what can be read and of what cannot; several threads decode, as Pillow lets them."""
    threads = min(os.cpu_count() or 1, MOST_THREADS)
    with ThreadPoolExecutor(threads) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's: what is wrong with a file is in its reason
        for start in range(0, len(paths), BATCH_SIZE):
            pictures, failures = list[Picture](), list[Unreadable]()
            for done, found in enumerate(pool.map(decode, paths[start : start + BATCH_SIZE]), start + 1):
                pictures.append(found) if isinstance(found, Picture) else failures.append(found)
                show(done, len(paths))
            yield pictures, failures


def _answers(
    pictures: Sequence[Picture], probabilities: NDArray[np.float32], classes: Sequence[str], first_index: int
) -> pa.Table:
    """The columns of every `predictions.parquet`, and each image's path behind its index."""
    paths = pa.array([as_text(picture.path) for picture in pictures], pa.string())
    return predictions_table(None, probabilities, classes, first_index).add_column(1, UNREADABLE.field("path"), paths)


def _failures(unreadable: Sequence[Unreadable]) -> pa.Table:
    paths, reasons = [as_text(file.path) for file in unreadable], [file.reason for file in unreadable]
    return pa.table({"path": paths, "reason": reasons}, UNREADABLE)

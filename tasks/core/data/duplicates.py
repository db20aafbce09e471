"""Duplicates within a dataset: its training images and then its test images are counted as one row."""

import hashlib
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.data.dataset import Dataset, Images
from tasks.core.data.near_duplicates import Indices, Pairs, find_near_duplicates
from tasks.core.runtime.parquet import CLASS_NAME, class_names, make_schema

DUPLICATES = make_schema(
    [
        *(
            column
            for which in ("first", "second")
            for column in (
                (f"{which}_split", pa.dictionary(pa.int8(), pa.string()), f"where the {which} image is: train or test"),
                (f"{which}_index", pa.int32(), f"the {which} image's place there"),
                (f"{which}_label", CLASS_NAME, f"name of the {which} image's class"),
            )
        ),
        ("labels_differ", pa.bool_(), "whether the two are labelled otherwise"),
        ("exact", pa.bool_(), "whether all their bytes are equal"),
        ("mirrored", pa.bool_(), "whether one is like the other's mirror image"),
        (
            "correlation",
            pa.float64(),
            "Pearson's, over all pixels and channels of both at 16×16, each channel less its mean",
        ),
        ("structure", pa.float64(), "SSIM's structure term in grey, mean over sixteen blocks of them"),
    ]
)


class JoinedImages:
    """The training images and then the test images, as far as they are `kept`, read from where they lie."""

    def __init__(self, dataset: Dataset, kept: Indices) -> None:
        self.train, self.test, self.kept = dataset.train_images, dataset.test_images, kept

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, places: slice | Indices) -> Images:
        wanted = self.kept[places]
        in_train = wanted < len(self.train)
        images = np.empty((len(wanted), *self.train.shape[1:]), np.uint8)
        images[in_train] = self.train[wanted[in_train]]
        images[~in_train] = self.test[wanted[~in_train] - len(self.train)]
        return images


def find_first_copies(dataset: Dataset) -> Indices:
    """For each image, of the training images and then of the test images, the first one that has the same bytes."""
    seen: dict[bytes, int] = {}
    found = [
        seen.setdefault(hashlib.sha256(image.tobytes()).digest(), place)
        for place, image in enumerate(chain(dataset.train_images, dataset.test_images))
    ]
    return np.array(found, np.int64)


def exact_pairs(first_copies: Indices) -> Pairs:
    """Each later copy with the first one."""
    second = np.flatnonzero(first_copies < np.arange(len(first_copies)))
    alike = np.ones(len(second))
    return Pairs(first_copies[second], second, np.zeros(len(second), bool), alike, alike)


def near_pairs(dataset: Dataset, first_copies: Indices) -> tuple[Pairs, bool]:
    """Near-duplicates among the images that are not copies of earlier ones."""
    distinct = np.flatnonzero(first_copies == np.arange(len(first_copies)))
    pairs, complete = find_near_duplicates(JoinedImages(dataset, distinct))
    return pairs._replace(first=distinct[pairs.first], second=distinct[pairs.second]), complete


def count_test_images_in_training(near: Pairs, first_copies: Indices, train: int) -> int:
    """How many test images have a duplicate among the first `train` images, exact or near."""
    across = near.second[(near.first < train) & (near.second >= train)]
    originals = first_copies[train:]
    return int(((originals < train) | np.isin(originals, across)).sum())


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
        columns[f"{name}_label"] = class_names(labels[places], classes)
    columns |= {
        "labels_differ": pa.array(labels[both.first] != labels[both.second]),
        "exact": pa.array(np.arange(len(both.first)) < len(exact.first)),
        "mirrored": pa.array(both.mirrored),
        "correlation": pa.array(both.correlation),
        "structure": pa.array(both.structure),
    }
    return pa.table(columns, schema=DUPLICATES).take(pa.array(np.lexsort((both.second, both.first))))

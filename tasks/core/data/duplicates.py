"""Duplicates within a dataset; indices count the training images first and then the test images."""

import hashlib
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.core.data.dataset import Dataset, Images
from tasks.core.data.near_duplicates import Indices, Pairs, find_near_duplicates
from tasks.core.runtime.parquet import CLASS_NAME, class_names, make_schema

SPLIT_NAME = pa.dictionary(pa.int8(), pa.string())
DUPLICATES = make_schema(
    [
        ("first_split", SPLIT_NAME, "split of the first image: train or test"),
        ("first_index", pa.int32(), "index of the first image in its split"),
        ("first_label", CLASS_NAME, "class name of the first image"),
        ("second_split", SPLIT_NAME, "split of the second image: train or test"),
        ("second_index", pa.int32(), "index of the second image in its split"),
        ("second_label", CLASS_NAME, "class name of the second image"),
        ("labels_differ", pa.bool_(), "whether the two images have different labels"),
        ("exact", pa.bool_(), "whether all bytes are equal"),
        ("mirrored", pa.bool_(), "whether the second image matches when mirrored"),
        ("correlation", pa.float64(), "Pearson correlation of both at 16×16 pixels, each channel's mean removed"),
        ("structure", pa.float64(), "SSIM's structure term of both in grey, mean over sixteen blocks"),
    ]
)


def read_images(dataset: Dataset, indices: Indices) -> Images:
    """Read some of a dataset's images, in the order of the indices."""
    train, test = dataset.train_images, dataset.test_images
    in_train = indices < len(train)
    images = np.empty((len(indices), *train.shape[1:]), np.uint8)
    images[in_train], images[~in_train] = train[indices[in_train]], test[indices[~in_train] - len(train)]
    return images


def find_first_copies(dataset: Dataset) -> Indices:
    """Return for each image the index of the first image with the same bytes."""
    first_by_digest: dict[bytes, int] = {}
    first_copies = [
        first_by_digest.setdefault(hashlib.sha256(image.tobytes()).digest(), index)
        for index, image in enumerate(chain(dataset.train_images, dataset.test_images))
    ]
    return np.array(first_copies, np.int64)


def find_exact_pairs(first_copies: Indices) -> Pairs:
    """Pair each later copy with the first one."""
    second = np.flatnonzero(first_copies < np.arange(len(first_copies)))
    ones = np.ones(len(second))
    return Pairs(first_copies[second], second, np.zeros(len(second), bool), ones, ones)


def find_near_pairs(dataset: Dataset, first_copies: Indices) -> tuple[Pairs, bool]:
    """Search the images that are no copies of earlier ones; the second result is false if the search stopped early."""
    distinct = np.flatnonzero(first_copies == np.arange(len(first_copies)))
    return find_near_duplicates(partial(read_images, dataset), distinct)


def count_test_images_in_training(near: Pairs, first_copies: Indices, train_count: int) -> int:
    """Count the test images that have an exact or near-duplicate among the training images."""
    near_copies = near.second[(near.first < train_count) & (near.second >= train_count)]
    originals = first_copies[train_count:]
    return int(((originals < train_count) | np.isin(originals, near_copies)).sum())


def build_duplicates_table(exact: Pairs, near: Pairs, dataset: Dataset) -> pa.Table:
    """Build a table with one row per pair, sorted by both indices."""
    pairs = Pairs._make(np.concatenate(column) for column in zip(exact, near, strict=True))
    labels, train_count = np.concatenate([dataset.train_labels, dataset.test_labels]), len(dataset.train_labels)
    columns: dict[str, Any] = {}
    for name, indices in (("first", pairs.first), ("second", pairs.second)):
        in_test = indices >= train_count
        columns[f"{name}_split"] = pa.DictionaryArray.from_arrays(pa.array(in_test, pa.int8()), ["train", "test"])
        columns[f"{name}_index"] = pa.array(indices - train_count * in_test, pa.int32())
        columns[f"{name}_label"] = class_names(labels[indices], dataset.classes)
    columns |= {
        "labels_differ": pa.array(labels[pairs.first] != labels[pairs.second]),
        "exact": pa.array(np.arange(len(pairs.first)) < len(exact.first)),
        "mirrored": pa.array(pairs.mirrored),
        "correlation": pa.array(pairs.correlation),
        "structure": pa.array(pairs.structure),
    }
    return pa.table(columns, schema=DUPLICATES).take(pa.array(np.lexsort((pairs.second, pairs.first))))

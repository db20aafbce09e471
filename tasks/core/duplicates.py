"""Duplicates within a dataset: its training images and then its test images are counted as one row."""

import hashlib
from itertools import chain

import numpy as np

from tasks.core.dataset import Dataset, Images
from tasks.core.near_duplicates import find_near_duplicates
from tasks.core.pairs import Indices, Pairs


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

"""The data checks artifact: what is worth knowing of a dataset before its results are believed.

Nothing found here stops a run: what breaks the contract, the archive's reader has refused already.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.data.dataset import Dataset, Images, Labels, load_dataset
from tasks.core.data.duplicates import (
    count_test_images_in_training,
    duplicates_table,
    exact_pairs,
    find_first_copies,
    near_pairs,
)
from tasks.core.data.identity import Identity
from tasks.core.data.near_duplicates import LEAST_CORRELATION, LEAST_STRUCTURE, Pairs
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime.parquet import write_table
from tasks.core.store.artifact import Log

CHUNK = 500  # images in float64 at once
DECIMALS = 2


class Spread(FrozenModel):
    """A number that each image has, over all of them, in grey levels from 0 to 255."""

    lowest: float
    median: float
    highest: float


class PartChecks(FrozenModel):
    """The training or the test images; brightness is an image's mean over all its bytes, contrast their deviation."""

    images: int
    per_class: dict[str, int]
    brightness: Spread
    contrast: Spread


class PairCounts(FrozenModel):
    """How many pairs, by where their images are, and how many of all of them have two labels."""

    within_train: int
    within_test: int
    train_and_test: int
    labels_differ: int

    @property
    def pairs(self) -> int:
        return self.within_train + self.within_test + self.train_and_test


class NearDuplicates(PairCounts):
    """`complete` is false where so many images look alike that the search was given up."""

    least_correlation: float = LEAST_CORRELATION
    least_structure: float = LEAST_STRUCTURE
    complete: bool


class DataChecks(FrozenModel):
    """What `data_checks.json` holds; `test_images_in_training` have a duplicate there, exact or near."""

    dataset: Identity
    generated_images: bool
    train: PartChecks
    test: PartChecks
    exact_duplicates: PairCounts
    near_duplicates: NearDuplicates
    test_images_in_training: int


def build_data_checks(folder: Path, stored: Path, inputs: Mapping[str, JsonValue]) -> None:
    """Leave `data_checks.json` and `duplicates.parquet` of a stored dataset in `folder`."""
    dataset = load_dataset(stored)
    first_copies = find_first_copies(dataset)
    exact = exact_pairs(first_copies)
    near, complete = near_pairs(dataset, first_copies)
    checks = DataChecks(
        dataset=dataset.identity,
        generated_images=dataset.identity.generated,
        train=_check_part(dataset.train_images, dataset.train_labels, dataset.classes),
        test=_check_part(dataset.test_images, dataset.test_labels, dataset.classes),
        exact_duplicates=PairCounts(**_counts(exact, dataset)),
        near_duplicates=NearDuplicates(**_counts(near, dataset), complete=complete),
        test_images_in_training=count_test_images_in_training(near, first_copies, len(dataset.train_labels)),
    )
    facts: dict[str, JsonValue] = {
        "artifact": "data_checks",
        "inputs": dict(inputs),
        "dataset": dataset.identity.model_dump(),
        "generated_images": dataset.identity.generated,
    }
    table = duplicates_table(exact, near, dataset.train_labels, dataset.test_labels, dataset.classes)
    write_table(folder / "duplicates.parquet", table, facts)
    content = json.dumps(checks.model_dump(), indent=1, sort_keys=True, ensure_ascii=False)
    (folder / "data_checks.json").write_text(content + "\n", encoding="utf-8", newline="\n")


def load_checks(folder: Path) -> DataChecks:
    return DataChecks.model_validate_json((folder / "data_checks.json").read_bytes())


def log_checks(checks: DataChecks, log: Log) -> None:
    exact, near = checks.exact_duplicates, checks.near_duplicates
    log(
        f"data checks: {exact.pairs:,} exact duplicates, {'' if near.complete else 'at least '}{near.pairs:,} "
        f"near-duplicate pairs, {near.train_and_test:,} of them across train and test; see data_checks.json"
    )


def describe_checks(checks: DataChecks) -> dict[str, str]:
    """The checks for the report: what was looked at, and what was found."""
    near = checks.near_duplicates
    unfinished = "" if near.complete else "; so many look alike that the search was given up"
    share = checks.test_images_in_training / checks.test.images
    words = {
        "exact duplicates": _pairs_in_words(checks.exact_duplicates),
        "near-duplicates": _pairs_in_words(near) + unfinished,
        "test images in training": f"{checks.test_images_in_training:,} ({share:.1%}), exactly or nearly",
    }
    for name, part in (("training", checks.train), ("test", checks.test)):
        words[f"{name} images"] = (
            f"{_classes_in_words(part.per_class)}; brightness {_spread_in_words(part.brightness)}, "
            f"contrast {_spread_in_words(part.contrast)}"
        )
    return words


def _counts(pairs: Pairs, dataset: Dataset) -> dict[str, int]:
    train = len(dataset.train_labels)
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    return {
        "within_train": int((pairs.second < train).sum()),
        "within_test": int((pairs.first >= train).sum()),
        "train_and_test": int(((pairs.first < train) & (pairs.second >= train)).sum()),
        "labels_differ": int((labels[pairs.first] != labels[pairs.second]).sum()),
    }


def _check_part(images: Images, labels: Labels, classes: tuple[str, ...]) -> PartChecks:
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    chunks = [images[start : start + CHUNK].reshape(-1, images[0].size) for start in range(0, len(images), CHUNK)]
    return PartChecks(
        images=len(images),
        per_class=dict(zip(classes, counts, strict=True)),
        brightness=_spread(np.concatenate([chunk.mean(axis=1) for chunk in chunks])),
        contrast=_spread(np.concatenate([chunk.std(axis=1) for chunk in chunks])),
    )


def _spread(values: NDArray[Any]) -> Spread:
    lowest, median, highest = np.round(np.quantile(values, [0, 0.5, 1]), DECIMALS).tolist()
    return Spread(lowest=lowest, median=median, highest=highest)


def _pairs_in_words(found: PairCounts) -> str:
    if not found.pairs:
        return "none"
    return (
        f"{found.pairs:,} pairs: {found.within_train:,} within training, {found.within_test:,} within test, "
        f"{found.train_and_test:,} across; {found.labels_differ:,} with two labels"
    )


def _classes_in_words(per_class: Mapping[str, int]) -> str:
    fewest, most = min(per_class, key=per_class.__getitem__), max(per_class, key=per_class.__getitem__)
    if per_class[fewest] == per_class[most]:
        return f"{per_class[most]:,} of each class"
    return f"{per_class[fewest]:,} ({fewest}) to {per_class[most]:,} ({most}) of a class"


def _spread_in_words(spread: Spread) -> str:
    return f"{spread.lowest:.0f} – {spread.median:.0f} – {spread.highest:.0f}"

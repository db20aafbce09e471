"""The data checks artifact: counts, duplicates, brightness and contrast of a dataset.

They never stop a run; invalid archives are refused before, when they are read.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.data import duplicates
from tasks.core.data.dataset import Dataset, Images, Labels, load_dataset
from tasks.core.data.identity import Identity
from tasks.core.data.near_duplicates import MIN_CORRELATION, MIN_STRUCTURE, Pairs
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime.files import pretty_json
from tasks.core.runtime.logs import logger
from tasks.core.runtime.parquet import write_table

CHUNK_IMAGES = 500  # in float64 at once
DECIMALS = 2


class Spread(FrozenModel):
    """The spread of a per-image number over all images, in grey levels from 0 to 255."""

    lowest: float
    median: float
    highest: float


class SplitChecks(FrozenModel):
    """The training or test images; brightness is the mean over an image's bytes, contrast the standard deviation."""

    images: int
    per_class: dict[str, int]
    brightness: Spread
    contrast: Spread


class PairCounts(FrozenModel):
    """The number of duplicate pairs by the splits of their images, and with different labels."""

    within_train: int
    within_test: int
    train_and_test: int
    labels_differ: int

    @property
    def pairs(self) -> int:
        return self.within_train + self.within_test + self.train_and_test


class NearDuplicates(PairCounts):
    """`complete` is false if the search stopped because too many images are similar."""

    least_correlation: float = MIN_CORRELATION
    least_structure: float = MIN_STRUCTURE
    complete: bool


class DataChecks(FrozenModel):
    """The content of `data_checks.json`; `test_images_in_training` counts exact and near-duplicates."""

    dataset: Identity
    generated_images: bool
    train: SplitChecks
    test: SplitChecks
    exact_duplicates: PairCounts
    near_duplicates: NearDuplicates
    test_images_in_training: int


def build_data_checks(folder: Path, dataset_folder: Path, inputs: Mapping[str, JsonValue]) -> None:
    """Check a dataset and write `data_checks.json` and `duplicates.parquet` to `folder`."""
    dataset = load_dataset(dataset_folder)
    first_copies = duplicates.find_first_copies(dataset)
    exact = duplicates.find_exact_pairs(first_copies)
    near, is_complete = duplicates.find_near_pairs(dataset, first_copies)
    checks = DataChecks(
        dataset=dataset.identity,
        generated_images=dataset.identity.is_generated,
        train=_check_split(dataset.train_images, dataset.train_labels, dataset.classes),
        test=_check_split(dataset.test_images, dataset.test_labels, dataset.classes),
        exact_duplicates=PairCounts(**_count_pairs(exact, dataset)),
        near_duplicates=NearDuplicates(**_count_pairs(near, dataset), complete=is_complete),
        test_images_in_training=duplicates.count_test_images_in_training(near, first_copies, len(dataset.train_labels)),
    )
    facts: dict[str, JsonValue] = {"artifact": "data_checks", "inputs": dict(inputs)}
    facts |= checks.model_dump(include={"dataset", "generated_images"})
    write_table(folder / "duplicates.parquet", duplicates.build_duplicates_table(exact, near, dataset), facts)
    (folder / "data_checks.json").write_bytes(pretty_json(checks.model_dump()))


def load_checks(folder: Path) -> DataChecks:
    return DataChecks.model_validate_json((folder / "data_checks.json").read_bytes())


def log_checks(checks: DataChecks) -> None:
    exact, near = checks.exact_duplicates, checks.near_duplicates
    logger.info(
        f"normalize: {exact.pairs:,} exact duplicates, {'' if near.complete else 'at least '}{near.pairs:,} "
        f"near-duplicate pairs, {near.train_and_test:,} of them across train and test; see data_checks.json"
    )


def describe_checks(checks: DataChecks) -> dict[str, str]:
    """Describe the checks for the report, one text per check."""
    near = checks.near_duplicates
    note = "" if near.complete else "; the search stopped early, because too many images are similar"
    share = checks.test_images_in_training / checks.test.images
    texts = {
        "exact duplicates": _format_pairs(checks.exact_duplicates),
        "near-duplicates": _format_pairs(near) + note,
        "test images in training": f"{checks.test_images_in_training:,} ({share:.1%}), exact or near-duplicates",
    }
    for name, split in (("training", checks.train), ("test", checks.test)):
        texts[f"{name} images"] = (
            f"{_format_classes(split.per_class)}; brightness {_format_spread(split.brightness)}, "
            f"contrast {_format_spread(split.contrast)}"
        )
    return texts


def _count_pairs(pairs: Pairs, dataset: Dataset) -> dict[str, int]:
    train_count = len(dataset.train_labels)
    labels = np.concatenate([dataset.train_labels, dataset.test_labels])
    return {
        "within_train": int((pairs.second < train_count).sum()),
        "within_test": int((pairs.first >= train_count).sum()),
        "train_and_test": int(((pairs.first < train_count) & (pairs.second >= train_count)).sum()),
        "labels_differ": int((labels[pairs.first] != labels[pairs.second]).sum()),
    }


def _check_split(images: Images, labels: Labels, classes: tuple[str, ...]) -> SplitChecks:
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    chunks = np.array_split(images.reshape(len(images), -1), math.ceil(len(images) / CHUNK_IMAGES))
    return SplitChecks(
        images=len(images),
        per_class=dict(zip(classes, counts, strict=True)),
        brightness=_measure_spread(np.concatenate([chunk.mean(axis=1) for chunk in chunks])),
        contrast=_measure_spread(np.concatenate([chunk.std(axis=1) for chunk in chunks])),
    )


def _measure_spread(values: NDArray[Any]) -> Spread:
    lowest, median, highest = np.round(np.quantile(values, [0, 0.5, 1]), DECIMALS).tolist()
    return Spread(lowest=lowest, median=median, highest=highest)


def _format_pairs(counts: PairCounts) -> str:
    if not counts.pairs:
        return "none"
    return (
        f"{counts.pairs:,} pairs: {counts.within_train:,} within training, {counts.within_test:,} within test, "
        f"{counts.train_and_test:,} across; {counts.labels_differ:,} with different labels"
    )


def _format_classes(per_class: Mapping[str, int]) -> str:
    smallest, largest = min(per_class, key=per_class.__getitem__), max(per_class, key=per_class.__getitem__)
    if per_class[smallest] == per_class[largest]:
        return f"{per_class[largest]:,} per class"
    return f"{per_class[smallest]:,} ({smallest}) to {per_class[largest]:,} ({largest}) per class"


def _format_spread(spread: Spread) -> str:
    return f"{spread.lowest:.0f} – {spread.median:.0f} – {spread.highest:.0f}"

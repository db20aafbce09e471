"""Two runs' predictions for the same test images, side by side."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.errors import InputError
from tasks.core.evaluation.intervals import Difference, mcnemar_p, paired_difference
from tasks.core.frozen_model import FrozenModel

OUTCOMES = ("both", "first_only", "second_only", "same_mistake", "changed_mistake")


class IncomparableRuns(InputError):
    """The two runs did not answer the same test images."""


class PairedOutcome(FrozenModel):
    """What two runs get right among the same images; a positive difference means that the second is better."""

    images: int
    first_correct: int
    second_correct: int
    first_accuracy: float
    second_accuracy: float
    difference: Difference
    fixed: int  # the first is wrong, the second right
    broken: int  # the first is right, the second wrong
    changed_mistakes: int  # both are wrong, each in its own way
    mcnemar_p: float


class ClassComparison(PairedOutcome):
    """Two runs on the images of one class."""

    class_name: str


class Comparison(PairedOutcome):
    """Two runs on all images, and class by class in label order; classes without test images are left out."""

    per_class: tuple[ClassComparison, ...]


def compare(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """What changes from the first `predictions` table to the second.

    Raises IncomparableRuns when their labels differ. Equal labels do not prove equal images: whoever has the runs'
    dataset identities compares those first.
    """
    _check_same_labels(first["label"], second["label"])
    classes = first["label"].cat.categories
    cells = _codes(first["label"], classes) * len(OUTCOMES) + _outcomes(first, second)
    by_class = np.bincount(cells, minlength=len(classes) * len(OUTCOMES)).reshape(len(classes), len(OUTCOMES))
    per_class = tuple(
        ClassComparison(class_name=str(name), **_numbers(row.tolist()))
        for name, row in zip(classes, by_class, strict=True)
        if row.any()
    )
    return Comparison(per_class=per_class, **_numbers(by_class.sum(axis=0).tolist()))


def _check_same_labels(first: pd.Series, second: pd.Series) -> None:
    if len(first) != len(second):
        raise IncomparableRuns(
            f"comparison: expected the same test images in both runs, got {len(first):,} and {len(second):,} of them; "
            "compare runs on one dataset"
        )
    classes = first.cat.categories
    differ = np.flatnonzero(_codes(first, classes) != _codes(second, classes))
    if differ.size:
        row = differ[0]
        raise IncomparableRuns(
            f"comparison: expected the same test images in both runs, got other labels for {differ.size:,} of "
            f"{len(first):,}, the first at image {row} ({first.iloc[row]} and {second.iloc[row]}); "
            "compare runs on one dataset"
        )


def _outcomes(first: pd.DataFrame, second: pd.DataFrame) -> NDArray[np.int64]:
    """For each image the position of its outcome in OUTCOMES."""
    classes = first["predicted"].cat.categories
    first_wrong, second_wrong = (~table["correct"].to_numpy(bool) for table in (first, second))
    other_answer = _codes(first["predicted"], classes) != _codes(second["predicted"], classes)
    outcomes: NDArray[np.int64] = 2 * first_wrong + second_wrong + (first_wrong & second_wrong & other_answer)
    return outcomes


def _codes(names: pd.Series, classes: pd.Index) -> NDArray[np.int64]:
    """Class names as positions in `classes`, -1 where it lacks the name."""
    return np.asarray(names.cat.set_categories(classes).cat.codes, np.int64)


def _numbers(counts: Sequence[int]) -> dict[str, Any]:
    """The fields of a PairedOutcome from the counts of OUTCOMES."""
    both, first_only, second_only, same_mistake, changed_mistake = counts
    images = sum(counts)
    return {
        "images": images,
        "first_correct": both + first_only,
        "second_correct": both + second_only,
        "first_accuracy": (both + first_only) / images,
        "second_accuracy": (both + second_only) / images,
        "difference": paired_difference(both, first_only, second_only, same_mistake + changed_mistake),
        "fixed": second_only,
        "broken": first_only,
        "changed_mistakes": changed_mistake,
        "mcnemar_p": mcnemar_p(first_only, second_only),
    }

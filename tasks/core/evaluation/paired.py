"""The paired comparison of two runs' predictions for the same test images."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.errors import InputError
from tasks.core.evaluation.intervals import Difference, mcnemar_p, paired_difference
from tasks.core.frozen_model import FrozenModel


class IncomparableRuns(InputError):
    """The two runs have different test images."""


class PairedOutcome(FrozenModel):
    """Counts and statistics of two runs on the same images; a positive difference means the second run is better."""

    images: int
    first_correct: int
    second_correct: int
    first_accuracy: float
    second_accuracy: float
    difference: Difference
    fixed: int  # the first run is wrong, the second correct
    broken: int  # the first run is correct, the second wrong
    changed_mistakes: int  # both runs are wrong, with different predictions
    mcnemar_p: float


class ClassComparison(PairedOutcome):
    """The outcome for the images of one class."""

    class_name: str


class Comparison(PairedOutcome):
    """The outcome for all images, and per class in label order without classes that have no test images."""

    per_class: tuple[ClassComparison, ...]


def compare(first: pd.DataFrame, second: pd.DataFrame) -> Comparison:
    """Compare two `predictions` tables of the same test images.

    Raises:
        IncomparableRuns: The labels differ. Equal labels do not prove equal images, so callers that have the dataset
            identities compare them first.
    """
    _check_same_labels(first["label"], second["label"])
    classes = first["label"].cat.categories
    images = pd.DataFrame(
        {
            "label": first["label"],
            "first": first["correct"].to_numpy(bool),
            "second": second["correct"].to_numpy(bool),
            "differs": _class_codes(first["predicted"], classes) != _class_codes(second["predicted"], classes),
        }
    )
    per_class = tuple(
        ClassComparison(class_name=str(name), **_outcome_fields(rows))
        for name, rows in images.groupby("label", observed=True)
    )
    return Comparison(per_class=per_class, **_outcome_fields(images))


def _class_codes(names: pd.Series, classes: pd.Index) -> NDArray[np.int64]:
    """Return class names as positions in `classes`, -1 for other names."""
    return np.asarray(names.cat.set_categories(classes).cat.codes, np.int64)


def _check_same_labels(first: pd.Series, second: pd.Series) -> None:
    classes = first.cat.categories
    if len(first) != len(second):
        got = f"{len(first):,} and {len(second):,} images"
    elif (differing := np.flatnonzero(_class_codes(first, classes) != _class_codes(second, classes))).size:
        row = differing[0]
        example = f"image {row} is {first.iloc[row]} and {second.iloc[row]}"
        got = f"different labels for {differing.size:,} of {len(first):,} images ({example})"
    else:
        return
    expected, advice = "the same test images in both runs", "compare runs on one dataset"
    raise IncomparableRuns("compare", expected=expected, got=got, advice=advice)


def _outcome_fields(images: pd.DataFrame) -> dict[str, Any]:
    total, first, second = len(images), images["first"], images["second"]
    both, broken, fixed = (int(rows.sum()) for rows in (first & second, first & ~second, ~first & second))
    return {
        "images": total,
        "first_correct": both + broken,
        "second_correct": both + fixed,
        "first_accuracy": (both + broken) / total,
        "second_accuracy": (both + fixed) / total,
        "difference": paired_difference(both, broken, fixed, total - both - broken - fixed),
        "fixed": fixed,
        "broken": broken,
        "changed_mistakes": int((~first & ~second & images["differs"]).sum()),
        "mcnemar_p": mcnemar_p(broken, fixed),
    }

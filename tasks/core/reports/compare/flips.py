"""The images that exactly one of two runs gets right."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.data.dataset import Dataset, copy_images
from tasks.core.reports.sprites import SpriteSheet, sprite_sheet

MAX_IMAGES = 60
UNFOLDED_IMAGES = 12
COLUMNS = ["index", "label", "predicted", "confidence", "correct"]


@dataclass(frozen=True)
class Flip:
    """One test image, its position on the sprite sheet, and the prediction of each run as a record of COLUMNS."""

    position: int
    answers: tuple[dict[Hashable, Any], ...]


@dataclass(frozen=True)
class Flips:
    """At most `MAX_IMAGES` images that the second run fixed, and as many that it broke; its most confident first."""

    fixed: list[Flip]
    broken: list[Flip]
    sheet: SpriteSheet


def find_flips(dataset: Dataset, first: pd.DataFrame, second: pd.DataFrame) -> Flips:
    """Compare two runs' predictions for the same images in the same order; ties are in test set order."""
    confidence = second["confidence"].to_numpy()
    fixed = _flipped_rows(right=second, wrong=first, confidence=confidence)
    broken = _flipped_rows(right=first, wrong=second, confidence=confidence)
    rows = [*fixed, *broken]
    answers = (table.iloc[rows][COLUMNS].to_dict("records") for table in (first, second))
    flips = [Flip(position, pair) for position, pair in enumerate(zip(*answers, strict=True))]
    images = copy_images(dataset.test_images, first["index"].to_numpy()[rows])
    return Flips(fixed=flips[: len(fixed)], broken=flips[len(fixed) :], sheet=sprite_sheet(images))


def _flipped_rows(right: pd.DataFrame, wrong: pd.DataFrame, confidence: NDArray[np.float32]) -> list[int]:
    rows = np.flatnonzero(right["correct"].to_numpy(bool) & ~wrong["correct"].to_numpy(bool))
    order = np.argsort(-confidence[rows], kind="stable")
    most_confident: list[int] = rows[order][:MAX_IMAGES].tolist()
    return most_confident

"""The images that exactly one of two runs gets right."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tasks.core.data.dataset import Dataset, copy_images
from tasks.core.reports.sprites import SpriteSheet, sprite_sheet

MAX_IMAGES = 60
UNFOLDED_IMAGES = 12


class Answer(NamedTuple):
    """The prediction of one run for an image."""

    letter: str
    predicted: str
    confidence: float
    correct: bool


@dataclass(frozen=True)
class Flip:
    """One test image, its position on the sprite sheet, and both predictions."""

    index: int
    position: int
    label: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Flips:
    """The flipped images: at most `MAX_IMAGES` that the second run fixed, and as many that it broke."""

    fixed: list[Flip]
    broken: list[Flip]
    sheet: SpriteSheet


def find_flips(dataset: Dataset, letters: tuple[str, str], first: pd.DataFrame, second: pd.DataFrame) -> Flips:
    """Find the flipped images, the most confident predictions of the second run first; ties are in test set order.

    Args:
        letters: The names of the two runs.
        first, second: Their predictions for the same images in the same order.
    """
    confidence = second["confidence"].to_numpy()
    fixed = _flipped_rows(right=second, wrong=first, confidence=confidence)
    broken = _flipped_rows(right=first, wrong=second, confidence=confidence)
    tables = dict(zip(letters, (first, second), strict=True))
    rows = [*fixed, *broken]
    flips = [_flip(row, position, tables) for position, row in enumerate(rows)]
    images = copy_images(dataset.test_images, first["index"].to_numpy()[rows])
    return Flips(fixed=flips[: len(fixed)], broken=flips[len(fixed) :], sheet=sprite_sheet(images))


def _flipped_rows(right: pd.DataFrame, wrong: pd.DataFrame, confidence: NDArray[np.float32]) -> list[int]:
    rows = np.flatnonzero(right["correct"].to_numpy(bool) & ~wrong["correct"].to_numpy(bool))
    order = np.argsort(-confidence[rows], kind="stable")
    most_confident: list[int] = rows[order][:MAX_IMAGES].tolist()
    return most_confident


def _flip(row: int, position: int, tables: dict[str, pd.DataFrame]) -> Flip:
    answers = []
    for letter, table in tables.items():
        answer = table.iloc[row]
        answers.append(Answer(letter, str(answer["predicted"]), float(answer["confidence"]), bool(answer["correct"])))
    image = next(iter(tables.values())).iloc[row]
    return Flip(index=int(image["index"]), position=position, label=str(image["label"]), answers=tuple(answers))

"""The images that one of two runs gets right and the other one wrong, both ways, on one sheet."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd

from tasks.core.data.dataset import Dataset, copy_images
from tasks.core.reports.sprites import Sheet, sheet_of

MOST_IMAGES = 60
AT_ONCE = 12  # the rest of them is folded away


class Answer(NamedTuple):
    """What one of the runs made of an image."""

    letter: str
    predicted: str
    confidence: float
    correct: bool


@dataclass(frozen=True)
class Flip:
    """One test image, its place on the sheet, and both answers."""

    index: int
    place: int
    label: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Flips:
    """Both ways at most `MOST_IMAGES`, where the second is surest of its answer first; equal ones as in the test set.

    Predictions are tables of the same images in the same order.
    """

    dataset: Dataset
    letters: tuple[str, str]
    first: pd.DataFrame
    second: pd.DataFrame

    @cached_property
    def fixed(self) -> list[Flip]:
        return [self._flip(row, place) for place, row in enumerate(self._fixed)]

    @cached_property
    def broken(self) -> list[Flip]:
        return [self._flip(row, place) for place, row in enumerate(self._broken, len(self._fixed))]

    @cached_property
    def sheet(self) -> Sheet:
        rows = [*self._fixed, *self._broken]
        return sheet_of(copy_images(self.dataset.test_images, self.first["index"].to_numpy()[rows]))

    @cached_property
    def _fixed(self) -> list[int]:
        return self._surest(right=self.second, wrong=self.first)

    @cached_property
    def _broken(self) -> list[int]:
        return self._surest(right=self.first, wrong=self.second)

    def _surest(self, right: pd.DataFrame, wrong: pd.DataFrame) -> list[int]:
        rows = np.flatnonzero(right["correct"].to_numpy(bool) & ~wrong["correct"].to_numpy(bool))
        order = np.argsort(-self.second["confidence"].to_numpy()[rows], kind="stable")
        surest: list[int] = rows[order][:MOST_IMAGES].tolist()
        return surest

    def _flip(self, row: int, place: int) -> Flip:
        tables = zip(self.letters, (self.first, self.second), strict=True)
        said = [(letter, table.iloc[row]) for letter, table in tables]
        return Flip(
            index=int(self.first["index"].iloc[row]),
            place=place,
            label=str(self.first["label"].iloc[row]),
            answers=tuple(
                Answer(letter, str(answer["predicted"]), float(answer["confidence"]), bool(answer["correct"]))
                for letter, answer in said
            ),
        )

"""The test images that a report shows: a few at once, and many to look through."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from tasks.core.dataset import Dataset, copied
from tasks.core.pictures import (
    Prediction,
    Sheet,
    confident_mistakes,
    least_certain,
    predictions_on_sheet,
    sheet_of,
    spread,
)

FIRST_IMAGES = 4
A_FEW = 12
MOST_IMAGES = 2_000
MOST_BYTES = 1_200_000  # what so many photographs come to at the most; noise takes more


@dataclass(frozen=True)
class Gallery:
    """What a network made of a dataset's test images, told by its predictions table."""

    dataset: Dataset
    predictions: pd.DataFrame

    @cached_property
    def first(self) -> list[Prediction]:
        return self._on_sheet(self._first)

    @cached_property
    def mistakes(self) -> list[Prediction]:
        return self._on_sheet(self._mistakes)

    @cached_property
    def unsure(self) -> list[Prediction]:
        return self._on_sheet(self._unsure)

    @cached_property
    def images(self) -> list[Prediction]:
        """All that are on the page, in random order; a place on the sheet is a place in this list."""
        return self._on_sheet(self._all)

    @cached_property
    def sheet(self) -> Sheet:
        return self._on_one_sheet[1]

    def data(self) -> dict[str, Any]:
        """The same for the page's script."""
        number = {name: place for place, name in enumerate(self.dataset.classes)}
        return {
            "classes": self.dataset.classes,
            "columns": self.sheet.columns,
            "images": [
                {
                    "place": image.place,
                    "index": image.index,
                    "label": number[image.label],
                    "predicted": number[image.predicted],
                    "confidence": round(image.confidence, 4),
                }
                for image in self.images
            ],
        }

    def _on_sheet(self, rows: pd.DataFrame) -> list[Prediction]:
        return predictions_on_sheet(rows, self._places)

    @cached_property
    def _first(self) -> pd.DataFrame:
        return self.predictions.head(FIRST_IMAGES)

    @cached_property
    def _mistakes(self) -> pd.DataFrame:
        return confident_mistakes(self.predictions, A_FEW)

    @cached_property
    def _unsure(self) -> pd.DataFrame:
        return least_certain(self.predictions, A_FEW)

    @cached_property
    def _all(self) -> pd.DataFrame:
        return self._on_one_sheet[0]

    @cached_property
    def _on_one_sheet(self) -> tuple[pd.DataFrame, Sheet]:
        """As many images as a page may hold, with those that it shows at once."""
        most = MOST_IMAGES
        while True:
            some = pd.concat([spread(self.predictions, most), self._first, self._mistakes, self._unsure])
            rows = some.drop_duplicates("index")
            sheet = sheet_of(copied(self.dataset.test_images, rows["index"].to_numpy()))
            if len(sheet.uri) <= MOST_BYTES or not most:
                return rows, sheet
            most //= 2

    @cached_property
    def _places(self) -> dict[int, int]:
        return {int(index): place for place, index in enumerate(self._all["index"])}

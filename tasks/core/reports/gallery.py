"""The test images that a report shows: a few at once, and many to look through."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from tasks.core.data.dataset import Dataset, copy_images
from tasks.core.reports.sprites import (
    Prediction,
    Sheet,
    confident_mistakes,
    least_certain,
    predictions_on_sheet,
    sample_evenly,
    sheet_of,
)

FIRST_IMAGES = 4
A_FEW = 12
MOST_IMAGES = 2_000
MOST_BYTES = 1_200_000  # what so many photographs come to at the most; noise takes more


@dataclass(frozen=True)
class Gallery:
    """What a network made of test images; a place on the sheet is a place among `images`, all that are on the page."""

    classes: tuple[str, ...]
    sheet: Sheet
    images: list[Prediction]
    first: list[Prediction]
    mistakes: list[Prediction]
    unsure: list[Prediction]

    def data(self) -> dict[str, Any]:
        """The images for the page's script."""
        number = {name: place for place, name in enumerate(self.classes)}
        return {
            "classes": self.classes,
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


def make_gallery(dataset: Dataset, predictions: pd.DataFrame) -> Gallery:
    """The gallery of a dataset's test images and their predictions table; the images are in random order."""
    first = predictions.head(FIRST_IMAGES)
    mistakes = confident_mistakes(predictions, A_FEW)
    unsure = least_certain(predictions, A_FEW)
    shown, sheet = _on_one_sheet(dataset, predictions, [first, mistakes, unsure])
    places = {int(index): place for place, index in enumerate(shown["index"])}
    return Gallery(
        dataset.classes, sheet, *(predictions_on_sheet(rows, places) for rows in (shown, first, mistakes, unsure))
    )


def _on_one_sheet(
    dataset: Dataset, predictions: pd.DataFrame, at_once: list[pd.DataFrame]
) -> tuple[pd.DataFrame, Sheet]:
    """As many images as a page may hold, with those that it shows at once."""
    most = MOST_IMAGES
    while True:
        rows = pd.concat([sample_evenly(predictions, max(0, most - sum(map(len, at_once)))), *at_once])
        rows = rows.drop_duplicates("index")
        sheet = sheet_of(copy_images(dataset.test_images, rows["index"].to_numpy()))
        if len(sheet.uri) <= MOST_BYTES or not most:
            return rows, sheet
        most //= 2

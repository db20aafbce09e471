"""The test images that a report shows, with their predictions."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from tasks.core.data.dataset import Dataset, copy_images
from tasks.core.reports.sprites import SpriteSheet, sprite_sheet

FIRST_IMAGES = 4
FEATURED_IMAGES = 12
MAX_IMAGES = 2_000
MAX_SHEET_BYTES = 1_200_000  # enough for 2,000 photographs; noise takes more

Record = dict[Hashable, Any]


@dataclass(frozen=True)
class Gallery:
    """Test images as records: index, position on the sprite sheet, label, predicted, confidence, correct.

    `images` are all images on the page, in random order.
    """

    classes: tuple[str, ...]
    sheet: SpriteSheet
    images: list[Record]
    first: list[Record]
    mistakes: list[Record]
    unsure: list[Record]

    def data(self) -> dict[str, Any]:
        """Return the images for the page's script."""
        return {
            "classes": self.classes,
            "columns": self.sheet.columns,
            "images": [
                {
                    "position": image["position"],
                    "index": image["index"],
                    "label": self.classes.index(image["label"]),
                    "predicted": self.classes.index(image["predicted"]),
                    "confidence": round(image["confidence"], 4),
                }
                for image in self.images
            ],
        }


def make_gallery(dataset: Dataset, predictions: pd.DataFrame) -> Gallery:
    """Choose the test images of the page, and put them on one sprite sheet."""
    predictions = predictions[["index", "label", "predicted", "confidence", "correct"]]
    first = predictions.head(FIRST_IMAGES)
    mistakes = confident_mistakes(predictions, FEATURED_IMAGES)
    unsure = predictions.sort_values(["confidence", "index"]).head(FEATURED_IMAGES)
    images, sheet = _fit_on_sheet(dataset, predictions, [first, mistakes, unsure])
    positions = {index: position for position, index in enumerate(images["index"])}
    records = (
        table.assign(position=table["index"].map(positions)).to_dict("records")
        for table in (images, first, mistakes, unsure)
    )
    return Gallery(dataset.classes, sheet, *records)


def confident_mistakes(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The wrong predictions with the highest confidence; ties are in test set order."""
    wrong = predictions[~predictions["correct"].astype(bool)]
    return wrong.sort_values(["confidence", "index"], ascending=[False, True]).head(count)


def sample_evenly(predictions: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Sample predictions in random order, as evenly as possible from the cells of the confusion matrix."""
    shuffled = predictions.iloc[np.random.default_rng(0).permutation(len(predictions))]
    rank = shuffled.groupby(["label", "predicted"], observed=True).cumcount().to_numpy()
    chosen = np.sort(np.argsort(rank, kind="stable")[:limit])
    return shuffled.iloc[chosen]


def _fit_on_sheet(
    dataset: Dataset, predictions: pd.DataFrame, featured: list[pd.DataFrame]
) -> tuple[pd.DataFrame, SpriteSheet]:
    """The featured images, and as many other images as the page may hold."""
    limit = MAX_IMAGES
    while True:
        sample = sample_evenly(predictions, max(0, limit - sum(map(len, featured))))
        images = pd.concat([sample, *featured]).drop_duplicates("index")
        sheet = sprite_sheet(copy_images(dataset.test_images, images["index"].to_numpy()))
        if len(sheet.uri) <= MAX_SHEET_BYTES or not limit:
            return images, sheet
        limit //= 2

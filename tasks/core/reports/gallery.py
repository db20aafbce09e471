"""The test images that a report shows, with their predictions."""

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


@dataclass(frozen=True)
class Prediction:
    """One test image, its position on the sprite sheet, and its prediction."""

    index: int
    position: int
    label: str
    predicted: str
    confidence: float
    correct: bool


@dataclass(frozen=True)
class Gallery:
    """Predictions for test images; `images` are all images on the page, in random order."""

    classes: tuple[str, ...]
    sheet: SpriteSheet
    images: list[Prediction]
    first: list[Prediction]
    mistakes: list[Prediction]
    unsure: list[Prediction]

    def data(self) -> dict[str, Any]:
        """Return the images for the page's script."""
        class_index = {name: index for index, name in enumerate(self.classes)}
        return {
            "classes": self.classes,
            "columns": self.sheet.columns,
            "images": [
                {
                    "position": image.position,
                    "index": image.index,
                    "label": class_index[image.label],
                    "predicted": class_index[image.predicted],
                    "confidence": round(image.confidence, 4),
                }
                for image in self.images
            ],
        }


def make_gallery(dataset: Dataset, predictions: pd.DataFrame) -> Gallery:
    """Choose the test images of the page, and put them on one sprite sheet."""
    first = predictions.head(FIRST_IMAGES)
    mistakes = confident_mistakes(predictions, FEATURED_IMAGES)
    unsure = least_certain(predictions, FEATURED_IMAGES)
    images, sheet = _fit_on_sheet(dataset, predictions, [first, mistakes, unsure])
    positions = {int(index): position for position, index in enumerate(images["index"])}
    return Gallery(
        dataset.classes, sheet, *(_predictions(table, positions) for table in (images, first, mistakes, unsure))
    )


def confident_mistakes(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The wrong predictions with the highest confidence; ties are in test set order."""
    wrong = predictions[~predictions["correct"].astype(bool)]
    return wrong.sort_values(["confidence", "index"], ascending=[False, True]).head(count)


def least_certain(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The predictions with the lowest confidence; ties are in test set order."""
    return predictions.sort_values(["confidence", "index"]).head(count)


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


def _predictions(table: pd.DataFrame, positions: dict[int, int]) -> list[Prediction]:
    return [
        Prediction(
            index=int(row["index"]),
            position=positions[int(row["index"])],
            label=str(row["label"]),
            predicted=str(row["predicted"]),
            confidence=float(row["confidence"]),
            correct=bool(row["correct"]),
        )
        for row in table.to_dict("records")
    ]

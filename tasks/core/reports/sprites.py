"""Images on pages, in data URIs; and which of the test images a page shows."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

from tasks.core.data.dataset import Dataset, Images

COLUMNS = 8
GAP = 2  # pixels
TRAINING_IMAGES = 32
SHEET_COLUMNS = 32
SIDE = 32
WEBP_QUALITY = 85  # about half a kB an image


@dataclass(frozen=True)
class GridRow:
    """One row of a grid of images, and what they show, in the same order."""

    uri: str
    labels: tuple[str, ...]


class Sheet(NamedTuple):
    """Many images in one, row by row, so that a page names each by its place."""

    uri: str
    columns: int
    rows: int


@dataclass(frozen=True)
class Prediction:
    """One test image, its place on the sheet, and what the network made of it."""

    index: int
    place: int
    label: str
    predicted: str
    confidence: float
    correct: bool


def training_grid(dataset: Dataset, seed: int) -> list[GridRow]:
    """Random training images, row by row, so that each can stand above its labels."""
    total = len(dataset.train_images)
    chosen = np.random.default_rng(seed).choice(total, min(total, TRAINING_IMAGES), replace=False)
    rows = [chosen[start : start + COLUMNS] for start in range(0, len(chosen), COLUMNS)]
    return [
        GridRow(
            uri=row_uri(dataset.train_images[row]),
            labels=tuple(dataset.classes[label] for label in dataset.train_labels[row]),
        )
        for row in rows
    ]


def sheet_of(images_nchw: Images) -> Sheet:
    """A sheet of images; it has two rows at least, for the arithmetic of its places."""
    rows = max(2, -(-len(images_nchw) // SHEET_COLUMNS))
    tiles = np.zeros((rows * SHEET_COLUMNS, 3, SIDE, SIDE), np.uint8)
    tiles[: len(images_nchw)] = images_nchw
    picture = tiles.reshape(rows, SHEET_COLUMNS, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2)
    pixels = picture.reshape(rows * SIDE, SHEET_COLUMNS * SIDE, 3)
    return Sheet(_uri(Image.fromarray(pixels), "WEBP", quality=WEBP_QUALITY), SHEET_COLUMNS, rows)


def predictions_on_sheet(predictions: pd.DataFrame, places: dict[int, int]) -> list[Prediction]:
    """Rows of a predictions table, where `places` tells an image's place on the sheet by its index."""
    return [
        Prediction(
            index=int(row["index"]),
            place=places[int(row["index"])],
            label=str(row["label"]),
            predicted=str(row["predicted"]),
            confidence=float(row["confidence"]),
            correct=bool(row["correct"]),
        )
        for row in predictions.to_dict("records")
    ]


def confident_mistakes(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The wrong predictions that the network was surest of; equal ones in the order of the images."""
    wrong = predictions[~predictions["correct"].astype(bool)]
    return wrong.sort_values(["confidence", "index"], ascending=[False, True]).head(count)


def least_certain(predictions: pd.DataFrame, count: int) -> pd.DataFrame:
    """The predictions that the network was least sure of; equal ones in the order of the images."""
    return predictions.sort_values(["confidence", "index"]).head(count)


def sample_evenly(predictions: pd.DataFrame, most: int) -> pd.DataFrame:
    """At most so many predictions in random order, as evenly from the cells of the confusion matrix as these allow."""
    shuffled = predictions.iloc[np.random.default_rng(0).permutation(len(predictions))]
    rank = shuffled.groupby(["label", "predicted"], observed=True).cumcount().to_numpy()
    chosen = np.sort(np.argsort(rank, kind="stable")[:most])
    return shuffled.iloc[chosen]


def row_uri(images_nchw: Images) -> str:
    """Images in one row, as torchvision's `make_grid` lays them out; what lies around them is transparent."""
    opaque = np.full_like(images_nchw[:, :1], 255)
    tiles = np.pad(np.concatenate([images_nchw, opaque], axis=1), ((0, 0), (0, 0), (GAP, 0), (GAP, 0)))
    return png_uri(np.pad(np.concatenate(tiles, axis=2), ((0, 0), (0, GAP), (0, GAP))))


def png_uri(image_chw: Images) -> str:
    return _uri(Image.fromarray(np.ascontiguousarray(image_chw.transpose(1, 2, 0))), "PNG", optimize=True)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{b64encode(buffer.getvalue()).decode()}"

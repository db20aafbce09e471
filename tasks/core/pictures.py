"""The report's pictures, as PNG in data URIs."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torchvision.utils import make_grid

from tasks.core.dataset import Dataset, Images

COLUMNS = 8
TRAINING_IMAGES = 32


@dataclass(frozen=True)
class GridRow:
    """One row of a grid of images, and what they show, in the same order."""

    uri: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Prediction:
    """One test image and what the network made of it."""

    index: int
    uri: str
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
            uri=grid_uri(dataset.train_images[row]),
            labels=tuple(dataset.classes[label] for label in dataset.train_labels[row]),
        )
        for row in rows
    ]


def predicted_images(dataset: Dataset, predictions: pd.DataFrame) -> list[Prediction]:
    return [
        Prediction(
            index=int(row["index"]),
            uri=png_uri(dataset.test_images[row["index"]]),
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


def grid_uri(images_nchw: Images) -> str:
    """Images side by side as torchvision's `make_grid` lays them out; what lies between them is transparent."""
    opaque = np.full_like(images_nchw[:, :1], 255)
    images_with_alpha = torch.from_numpy(np.concatenate([images_nchw, opaque], axis=1))
    return png_uri(make_grid(images_with_alpha, nrow=COLUMNS).numpy())


def png_uri(image_chw: Images) -> str:
    buffer = BytesIO()
    Image.fromarray(np.ascontiguousarray(image_chw.transpose(1, 2, 0))).save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{b64encode(buffer.getvalue()).decode()}"

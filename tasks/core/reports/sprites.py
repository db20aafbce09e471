"""Images as data URIs: single images, rows of images, and sprite sheets."""

from base64 import b64encode
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tasks.core.data.dataset import Dataset, Images

GRID_COLUMNS = 8
GRID_IMAGES = 32
GAP = 2  # pixels
SHEET_COLUMNS = 32
SIDE = 32
WEBP_QUALITY = 85  # about 0.5 kB per image


class SpriteSheet(NamedTuple):
    """Many images in one, row by row; a page shows each of them by its position."""

    uri: str
    columns: int
    rows: int


def training_grid(dataset: Dataset, seed: int) -> list[tuple[str, list[str]]]:
    """Rows of random training images as data URIs, each with the labels of its images."""
    total = len(dataset.train_images)
    chosen = np.random.default_rng(seed).choice(total, min(total, GRID_IMAGES), replace=False)
    rows = [chosen[start : start + GRID_COLUMNS] for start in range(0, len(chosen), GRID_COLUMNS)]
    return [
        (row_data_uri(dataset.train_images[row]), [dataset.classes[label] for label in dataset.train_labels[row]])
        for row in rows
    ]


def sprite_sheet(images_nchw: Images) -> SpriteSheet:
    """Put images on one sheet, of at least two rows: the CSS of the pages divides by rows - 1."""
    rows = max(2, -(-len(images_nchw) // SHEET_COLUMNS))
    tiles = np.zeros((rows * SHEET_COLUMNS, 3, SIDE, SIDE), np.uint8)
    tiles[: len(images_nchw)] = images_nchw
    picture = tiles.reshape(rows, SHEET_COLUMNS, 3, SIDE, SIDE).transpose(0, 3, 1, 4, 2)
    pixels = picture.reshape(rows * SIDE, SHEET_COLUMNS * SIDE, 3)
    return SpriteSheet(_data_uri(Image.fromarray(pixels), "WEBP", quality=WEBP_QUALITY), SHEET_COLUMNS, rows)


def row_data_uri(images_nchw: Images) -> str:
    """Images in one row, in the layout of torchvision's `make_grid`; the gaps are transparent."""
    opaque = np.full_like(images_nchw[:, :1], 255)
    tiles = np.pad(np.concatenate([images_nchw, opaque], axis=1), ((0, 0), (0, 0), (GAP, 0), (GAP, 0)))
    return image_data_uri(np.pad(np.concatenate(tiles, axis=2), ((0, 0), (0, GAP), (0, GAP))))


def image_data_uri(image_chw: Images) -> str:
    return _data_uri(Image.fromarray(np.ascontiguousarray(image_chw.transpose(1, 2, 0))), "PNG", optimize=True)


def _data_uri(image: Image.Image, image_format: str, **options: Any) -> str:
    buffer = BytesIO()
    image.save(buffer, image_format, **options)
    return f"data:image/{image_format.lower()};base64,{b64encode(buffer.getvalue()).decode()}"

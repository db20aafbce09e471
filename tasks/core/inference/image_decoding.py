"""Decodes image files of any size and mode to images of 32x32 pixels."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP")  # for some other formats, Pillow starts programs
SIDE = 32
DRAFT_SIDE = 8 * SIDE  # a JPEG decoded at this size looks the same at 32 pixels
MAX_PIXELS = 89_478_485  # 256 MB, as in Pillow; Pillow checks before a JPEG is reduced, which is too early
Image.MAX_IMAGE_PIXELS = None


class Picture(NamedTuple):
    """A decoded image, uint8 [3, 32, 32]."""

    path: str
    pixels_chw: NDArray[np.uint8]


class Unreadable(NamedTuple):
    """A file that cannot be decoded, and the reason."""

    path: str
    reason: str


def decode(path: str) -> Picture | Unreadable:
    """Decode the first frame of an image file: rotated by its EXIF orientation, transparent pixels on white.

    The largest centered square is resized to 32x32, bicubic and antialiased; an image of 32x32 keeps its bytes.
    16 bits become 8 bits; CMYK and palettes become RGB; color profiles are not applied.
    """
    try:
        return Picture(path, _pixels(Path(path)))
    except Exception as error:  # noqa: BLE001 - Pillow raises any exception for damaged files
        return Unreadable(path, _reason(error))


def _pixels(path: Path) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        raise ValueError("not a regular file")  # reading a pipe could block forever
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        image.draft(None, (DRAFT_SIDE, DRAFT_SIDE))  # decodes a large JPEG at a reduced size
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"more than {MAX_PIXELS:,} pixels: {image.width:,} x {image.height:,}")
        transparent = image.info.get("transparency")
        if isinstance(transparent, tuple) and image.tile and image.tile[0][3] == "RGB;16B":  # read as the upper 8 bits
            image.info["transparency"] = tuple(part >> 8 for part in transparent)
        ImageOps.exif_transpose(image, in_place=True)
        square = ImageOps.fit(_with_8_bits(image), (SIDE, SIDE), Image.Resampling.BICUBIC)
    if square.mode == "RGBA":
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _with_8_bits(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray: Pillow would keep the lower 8 bits
        values = np.asarray(image)
        gray = Image.fromarray((values.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
        if "transparency" in image.info:
            gray.putalpha(Image.fromarray(np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)))
        return gray
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a PNG, JPEG or WebP image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

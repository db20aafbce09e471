"""Image files of any size and mode, decoded as the images that a network takes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP")  # not all that Pillow knows: for some it starts other programs
SIZE = 32
ENOUGH = 8 * SIZE  # pixels a side from which nothing is lost to 32
MOST_PIXELS = 89_478_485  # 256 MB; Pillow's own limit, which looks before it is decided how much of a JPEG is decoded
Image.MAX_IMAGE_PIXELS = None


class Picture(NamedTuple):
    """An image as a network takes it: uint8 [3, 32, 32]."""

    path: str
    pixels_chw: NDArray[np.uint8]


class Unreadable(NamedTuple):
    """A file that is no usable image, and why."""

    path: str
    reason: str


def decode(path: str) -> Picture | Unreadable:
    """Read an image file: its first frame, upright by its EXIF orientation, transparency on white.

    The largest square around the centre is resized to 32x32, bicubic with antialiasing; an image of 32x32 keeps its
    bytes. 16 bits become 8, CMYK and palettes RGB; colour profiles are not applied.
    """
    try:
        return Picture(path, _pixels(Path(path)))
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever its parsers meet in damaged files
        return Unreadable(path, _reason(error))


def _pixels(path: Path) -> NDArray[np.uint8]:
    if path.exists() and not path.is_file():
        raise ValueError("expected a regular file")  # reading from a pipe would wait for ever
    with path.open("rb") as file, Image.open(file, formats=FORMATS) as image:
        image.draft(None, (ENOUGH, ENOUGH))  # JPEG alone: decodes an 8th as many pixels a side, where that is enough
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"expected at most {MOST_PIXELS:,} pixels, got {image.width:,} x {image.height:,}")
        clear = image.info.get("transparency")
        if isinstance(clear, tuple) and image.tile and image.tile[0][3] == "RGB;16B":  # of which the upper 8 are read
            image.info["transparency"] = tuple(part >> 8 for part in clear)
        ImageOps.exif_transpose(image, in_place=True)
        square = ImageOps.fit(_with_8_bits(image), (SIZE, SIZE), Image.Resampling.BICUBIC)
    if square.mode == "RGBA":
        square = Image.alpha_composite(Image.new("RGBA", square.size, "white"), square).convert("RGB")
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _with_8_bits(image: Image.Image) -> Image.Image:
    """RGB, or RGBA where anything can be transparent."""
    if image.mode.startswith("I"):  # 16 bits of grey, of which Pillow's own conversion keeps the lower 8
        deep = np.asarray(image)
        grey = Image.fromarray((deep.astype(np.float32) / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
        if "transparency" in image.info:
            grey.putalpha(Image.fromarray(np.where(deep == image.info["transparency"], 0, 255).astype(np.uint8)))
        return grey
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "expected a PNG, JPEG or WebP image, got something else or nothing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__

"""Image files of any size and mode, decoded to 32x32 pixels."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from own_images import BLUE, GREEN, RED, WHITE, damaged, halves, noise, saved
from PIL import Image

from tasks.core.inference.image_decoding import MAX_PIXELS, Picture, Unreadable, decode

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as `predict_files` does


def pixels(path: Path) -> NDArray[np.uint8]:
    decoded = decode(str(path))
    assert isinstance(decoded, Picture), decoded
    assert decoded.pixels_chw.shape == (3, 32, 32)
    assert decoded.pixels_chw.dtype == np.uint8
    return decoded.pixels_chw


def color(path: Path, x: int = 16, y: int = 16) -> tuple[int, int, int]:
    red, green, blue = pixels(path)[:, y, x].tolist()
    return red, green, blue


def near(one: tuple[int, int, int], other: tuple[int, int, int], within: int = 4) -> bool:
    return all(abs(a - b) <= within for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", ["image.png", "image.webp"])
def test_an_image_of_32_by_32_keeps_its_bytes(tmp_path: Path, name: str) -> None:
    image = noise(1)
    path = saved(image, tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
    assert (pixels(path) == np.asarray(image).transpose(2, 0, 1)).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (300, 7), (33, 32), (640, 480), (1, 5_000)])
def test_any_size_becomes_32_by_32(tmp_path: Path, size: tuple[int, int]) -> None:
    assert color(saved(Image.new("RGB", size, GREEN), tmp_path / "image.png")) == GREEN


def test_the_largest_centered_square_is_used(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), RED)
    wide.paste(BLUE, (100, 0, 200, 100))
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        decoded = pixels(saved(image, tmp_path / "image.png"))
        assert (
            decoded[:, 2:-2, 2:-2] == np.array(BLUE, np.uint8)[:, None, None]
        ).all()  # the filter reaches over edges


def test_a_fine_pattern_becomes_its_mean(tmp_path: Path) -> None:
    checkers = np.indices((640, 640)).sum(axis=0) % 2 * 255
    decoded = pixels(saved(Image.fromarray(checkers.astype(np.uint8)), tmp_path / "image.png"))
    assert np.abs(decoded.astype(int) - 127).max() <= 2


def test_a_large_jpeg_looks_like_the_same_png(tmp_path: Path) -> None:
    smooth = noise(3, (8, 8)).resize((2_000, 1_500), Image.Resampling.BICUBIC)
    jpeg, png = (pixels(saved(smooth, tmp_path / f"image.{suffix}")) for suffix in ("jpg", "png"))
    assert np.abs(jpeg.astype(int) - png).mean() < 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("orientation", "red_at"), [(1, (3, 16)), (2, (28, 16)), (3, (28, 16)), (6, (16, 3)), (8, (16, 28))]
)
def test_images_are_rotated_by_their_exif_orientation(
    tmp_path: Path, suffix: str, orientation: int, red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert near(color(saved(halves(), tmp_path / f"image.{suffix}", exif=exif), *red_at), RED, within=12)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (50, 0, 100, 100))
    for name, image in (("a.png", clear), ("b.webp", clear), ("c.png", clear.resize((32, 32), 0))):
        path = saved(image, tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        assert color(path, 3) == WHITE
        assert color(path, 28) == BLUE
    assert near(color(saved(Image.new("RGBA", (50, 50), (0, 0, 0, 128)), tmp_path / "half.png")), (127, 127, 127))


def test_a_transparent_color_or_palette_entry_becomes_white(tmp_path: Path) -> None:
    assert color(saved(Image.new("RGB", (50, 50), RED), tmp_path / "rgb.png", transparency=RED)) == WHITE
    assert color(saved(Image.new("L", (50, 50), 9), tmp_path / "grey.png", transparency=9)) == WHITE
    palette = Image.new("RGB", (50, 50), RED).quantize(2)
    assert near(color(saved(palette, tmp_path / "opaque.png")), RED)
    index = palette.getpixel((0, 0))
    assert color(saved(palette, tmp_path / "clear.png", transparency=index)) == WHITE


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_is_read(tmp_path: Path, mode: str) -> None:
    assert near(color(saved(Image.new("RGB", (40, 40), WHITE).convert(mode), tmp_path / "image.png")), WHITE)


def test_16_bit_gray_becomes_8_bit_over_the_whole_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 32).round().astype(np.uint16)
    decoded = pixels(saved(Image.fromarray(np.tile(ramp, (32, 1))), tmp_path / "image.png"))
    assert (decoded == np.linspace(0, 255, 32).round().astype(np.uint8)).all()


def png_of_16_bits(path: Path, color: tuple[int, ...], clear: tuple[int, ...]) -> Path:
    """An image of one color, gray or RGB; `clear` is the transparent color."""
    parts = [
        struct.pack(">IIBBBBB", 32, 32, 16, 2 if len(color) == 3 else 0, 0, 0, 0),
        struct.pack(f">{len(clear)}H", *clear),
    ]
    row = b"\0" + 32 * struct.pack(f">{len(color)}H", *color)
    chunks = zip((b"IHDR", b"tRNS", b"IDAT", b"IEND"), (*parts, zlib.compress(32 * row), b""), strict=True)
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("color_of_16_bits", [(0x1010,), (0x1010, 0x2020, 0x3030)])
def test_a_transparent_16_bit_color_becomes_white(tmp_path: Path, color_of_16_bits: tuple[int, ...]) -> None:
    other = tuple(part + 0x1000 for part in color_of_16_bits)
    assert color(png_of_16_bits(tmp_path / "clear.png", color_of_16_bits, clear=color_of_16_bits)) == WHITE
    assert color(png_of_16_bits(tmp_path / "opaque.png", color_of_16_bits, clear=other))[0] == 0x10


def test_cmyk_and_gray_jpegs_keep_their_colors(tmp_path: Path) -> None:
    assert near(color(saved(Image.new("RGB", (80, 80), RED).convert("CMYK"), tmp_path / "cmyk.jpg")), RED)
    assert near(color(saved(Image.new("L", (80, 80), 77), tmp_path / "grey.jpg")), (77, 77, 77))


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, BLUE)]
    for name in ("image.png", "image.webp"):
        path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:])
        assert near(color(path), RED)


def test_a_jpeg_with_a_second_picture_inside_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (40, 40), color) for color in (RED, BLUE))
    path = saved(first, tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[second])
    assert near(color(path), RED)


def test_the_format_depends_on_the_bytes_not_on_the_suffix(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (40, 40), RED), tmp_path / "image.png")
    assert color(path.rename(tmp_path / "notes.txt")) == RED


def test_unreadable_files_have_a_reason_on_one_line(tmp_path: Path) -> None:
    expected = {
        "truncated": "truncated",
        "flipped": "broken",
        "empty": "not a PNG, JPEG or WebP image",
        "text": "not a PNG, JPEG or WebP image",
        "header": "not a PNG, JPEG or WebP image",
        "link": "No such file or directory",
        "pipe": "not a regular file",
    }
    for name, path in damaged(tmp_path).items():
        decoded = decode(str(path))
        assert isinstance(decoded, Unreadable), name
        assert expected[name] in decoded.reason
        assert "\n" not in decoded.reason
        assert str(tmp_path) not in decoded.reason


def test_a_read_error_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "image.png").symlink_to("/proc/self/mem")  # which not even root can read from its beginning
    assert decode(str(tmp_path / "image.png")) == Unreadable(str(tmp_path / "image.png"), "Input/output error")


def test_other_formats_of_pillow_are_not_opened(tmp_path: Path) -> None:
    for name in ("image.eps", "image.tif"):
        decoded = decode(str(saved(halves(), tmp_path / name)))
        assert isinstance(decoded, Unreadable)
        assert "not a PNG, JPEG or WebP image" in decoded.reason


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    for side in (10_000, 14_000):
        reason = f"more than 89,478,485 pixels: {side:,} x {side:,}"
        decoded = decode(str(saved(Image.new("1", (side, side)), tmp_path / "bomb.png")))
        assert isinstance(decoded, Unreadable)
        assert reason in decoded.reason


def test_a_jpeg_of_100_megapixels_is_decoded_at_reduced_size(tmp_path: Path) -> None:
    for sides in ((12_000, 8_400), (15_000, 12_000)):
        path = saved(Image.new("RGB", sides, GREEN), tmp_path / "photo.jpg")
        assert sides[0] * sides[1] > MAX_PIXELS
        assert near(color(path), GREEN)

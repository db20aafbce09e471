"""Image files of any size and mode as the images that a network takes."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from own_images import BLUE, GREEN, RED, WHITE, damaged, halves, noise, saved
from PIL import Image

from tasks.core.inference.image_decoding import MOST_PIXELS, Picture, Unreadable, decode

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # as `predict_files` does


def pixels(path: Path) -> NDArray[np.uint8]:
    found = decode(str(path))
    assert isinstance(found, Picture), found
    assert found.pixels_chw.shape == (3, 32, 32)
    assert found.pixels_chw.dtype == np.uint8
    return found.pixels_chw


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
def test_any_size_and_shape_becomes_32_by_32(tmp_path: Path, size: tuple[int, int]) -> None:
    assert color(saved(Image.new("RGB", size, GREEN), tmp_path / "image.png")) == GREEN


def test_what_lies_outside_the_square_in_the_middle_is_cut_off(tmp_path: Path) -> None:
    wide = Image.new("RGB", (300, 100), RED)
    wide.paste(BLUE, (100, 0, 200, 100))
    for image in (wide, wide.transpose(Image.Transpose.ROTATE_90)):
        found = pixels(saved(image, tmp_path / "image.png"))
        assert (found[:, 2:-2, 2:-2] == np.array(BLUE, np.uint8)[:, None, None]).all()  # the filter reaches over edges


def test_a_fine_pattern_becomes_its_mean_and_no_moire(tmp_path: Path) -> None:
    checkers = np.indices((640, 640)).sum(axis=0) % 2 * 255
    found = pixels(saved(Image.fromarray(checkers.astype(np.uint8)), tmp_path / "image.png"))
    assert np.abs(found.astype(int) - 127).max() <= 2


def test_a_large_jpeg_looks_as_the_same_picture_without_loss(tmp_path: Path) -> None:
    smooth = noise(3, (8, 8)).resize((2_000, 1_500), Image.Resampling.BICUBIC)
    jpeg, png = (pixels(saved(smooth, tmp_path / f"image.{suffix}")) for suffix in ("jpg", "png"))
    assert np.abs(jpeg.astype(int) - png).mean() < 2


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize(
    ("orientation", "red_at"), [(1, (3, 16)), (2, (28, 16)), (3, (28, 16)), (6, (16, 3)), (8, (16, 28))]
)
def test_images_are_turned_upright_by_their_exif(
    tmp_path: Path, suffix: str, orientation: int, red_at: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert near(color(saved(halves(), tmp_path / f"image.{suffix}", exif=exif), *red_at), RED, within=12)


def test_transparency_lies_on_white_and_what_hides_behind_it_does_not_show(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (50, 0, 100, 100))
    for name, image in (("a.png", clear), ("b.webp", clear), ("c.png", clear.resize((32, 32), 0))):
        path = saved(image, tmp_path / name, **({"lossless": True} if name.endswith("webp") else {}))
        assert color(path, 3) == WHITE
        assert color(path, 28) == BLUE
    assert near(color(saved(Image.new("RGBA", (50, 50), (0, 0, 0, 128)), tmp_path / "half.png")), (127, 127, 127))


def test_one_color_or_palette_entry_can_be_the_transparent_one(tmp_path: Path) -> None:
    assert color(saved(Image.new("RGB", (50, 50), RED), tmp_path / "rgb.png", transparency=RED)) == WHITE
    assert color(saved(Image.new("L", (50, 50), 9), tmp_path / "grey.png", transparency=9)) == WHITE
    palette = Image.new("RGB", (50, 50), RED).quantize(2)
    assert near(color(saved(palette, tmp_path / "opaque.png")), RED)
    index = palette.getpixel((0, 0))
    assert color(saved(palette, tmp_path / "clear.png", transparency=index)) == WHITE


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
def test_every_mode_of_png_is_read(tmp_path: Path, mode: str) -> None:
    assert near(color(saved(Image.new("RGB", (40, 40), WHITE).convert(mode), tmp_path / "image.png")), WHITE)


def test_16_bits_of_grey_become_8_over_the_whole_range(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65_535, 32).round().astype(np.uint16)
    found = pixels(saved(Image.fromarray(np.tile(ramp, (32, 1))), tmp_path / "image.png"))
    assert (found == np.linspace(0, 255, 32).round().astype(np.uint8)).all()


def png_of_16_bits(path: Path, color: tuple[int, ...], clear: tuple[int, ...]) -> Path:
    """An image of one color, in grey or RGB, with the one that is transparent."""
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
def test_one_color_of_16_bits_can_be_the_transparent_one(tmp_path: Path, color_of_16_bits: tuple[int, ...]) -> None:
    other = tuple(part + 0x1000 for part in color_of_16_bits)
    assert color(png_of_16_bits(tmp_path / "clear.png", color_of_16_bits, clear=color_of_16_bits)) == WHITE
    assert color(png_of_16_bits(tmp_path / "opaque.png", color_of_16_bits, clear=other))[0] == 0x10


def test_cmyk_and_grey_jpegs_are_read_in_their_colors(tmp_path: Path) -> None:
    assert near(color(saved(Image.new("RGB", (80, 80), RED).convert("CMYK"), tmp_path / "cmyk.jpg")), RED)
    assert near(color(saved(Image.new("L", (80, 80), 77), tmp_path / "grey.jpg")), (77, 77, 77))


def test_the_first_frame_of_an_animation_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (40, 40), color) for color in (RED, BLUE)]
    for name in ("image.png", "image.webp"):
        path = saved(frames[0], tmp_path / name, save_all=True, append_images=frames[1:])
        assert near(color(path), RED)


def test_a_phones_jpeg_with_a_second_picture_inside_is_read(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (40, 40), color) for color in (RED, BLUE))
    path = saved(first, tmp_path / "photo.jpg", format="MPO", save_all=True, append_images=[second])
    assert near(color(path), RED)


def test_a_format_is_told_from_the_bytes_and_not_from_the_suffix(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (40, 40), RED), tmp_path / "image.png")
    assert color(path.rename(tmp_path / "notes.txt")) == RED


def test_what_cannot_be_read_is_told_with_a_reason_on_one_line(tmp_path: Path) -> None:
    expected = {
        "truncated": "truncated",
        "flipped": "broken",
        "empty": "expected a PNG, JPEG or WebP image, got something else or nothing",
        "text": "expected a PNG, JPEG or WebP image, got something else or nothing",
        "header": "expected a PNG, JPEG or WebP image, got something else or nothing",
        "link": "No such file or directory",
        "pipe": "expected a regular file",
    }
    for name, path in damaged(tmp_path).items():
        found = decode(str(path))
        assert isinstance(found, Unreadable), name
        assert expected[name] in found.reason
        assert "\n" not in found.reason
        assert str(tmp_path) not in found.reason


def test_a_disk_that_cannot_be_read_is_a_reason_too(tmp_path: Path) -> None:
    (tmp_path / "image.png").symlink_to("/proc/self/mem")  # which not even root can read from its beginning
    assert decode(str(tmp_path / "image.png")) == Unreadable(str(tmp_path / "image.png"), "Input/output error")


def test_formats_that_pillow_hands_to_other_programs_are_not_opened(tmp_path: Path) -> None:
    for name in ("image.eps", "image.tif"):
        found = decode(str(saved(halves(), tmp_path / name)))
        assert isinstance(found, Unreadable)
        assert "expected a PNG, JPEG or WebP image" in found.reason


def test_an_image_that_is_small_on_disk_and_huge_in_memory_is_refused(tmp_path: Path) -> None:
    for side in (10_000, 14_000):
        reason = f"expected at most 89,478,485 pixels, got {side:,} x {side:,}"
        found = decode(str(saved(Image.new("1", (side, side)), tmp_path / "bomb.png")))
        assert isinstance(found, Unreadable)
        assert reason in found.reason


def test_a_photo_of_100_megapixels_is_read_as_it_is_decoded_smaller(tmp_path: Path) -> None:
    for sides in ((12_000, 8_400), (15_000, 12_000)):
        path = saved(Image.new("RGB", sides, GREEN), tmp_path / "photo.jpg")
        assert sides[0] * sides[1] > MOST_PIXELS
        assert near(color(path), GREEN)

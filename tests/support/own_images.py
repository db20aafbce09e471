"""Image files of any size, mode and format, and damaged ones."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def halves(left: tuple[int, int, int] = RED, right: tuple[int, int, int] = BLUE, size: int = 64) -> Image.Image:
    """A picture whose left and right halves have different colors."""
    image = Image.new("RGB", (size, size), left)
    image.paste(right, (size // 2, 0, size, size))
    return image


def noise(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def damaged(folder: Path) -> dict[str, Path]:
    """One file for each kind of damage, by the name of the damage."""
    whole = saved(noise(0, (200, 200)), folder / "truncated.jpg")
    whole.write_bytes(whole.read_bytes()[:2_000])
    png = saved(noise(0, (200, 200)), folder / "flipped.png")
    png.write_bytes(png.read_bytes()[:20_000] + b"\0" * 100 + png.read_bytes()[20_100:])
    files = {"truncated": whole, "flipped": png}
    for name, content in (("empty", b""), ("text", b"no image at all"), ("header", b"\x89PNG\r\n\x1a\n" + b"\0" * 40)):
        files[name] = folder / f"{name}.png"
        files[name].write_bytes(content)
    files["link"] = folder / "link.png"
    files["link"].symlink_to(folder / "nowhere.png")
    files["pipe"] = folder / "pipe.png"
    os.mkfifo(files["pipe"])
    return files

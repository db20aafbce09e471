"""Generated images of ten shapes, for trying out and for tests, and an archive of them in CIFAR-10's layout."""

import gzip
import io
import math
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bytes = NDArray[np.uint8]
Shape = Callable[[Floats, Floats], Floats]

SIDE = 32
PIXELS = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
CHUNK = 500  # images drawn at once, 6 MB of float32 pixels: it keeps the memory small
TRAIN_SEED, TEST_SEED = 1, 2
TRAIN_BATCHES = 5
FOLDER = "cifar-10-batches-py"


# Signed distances, negative inside, in coordinates where a shape reaches out to about 1.
EDGE = 0.85  # half the side of a square


def _both(a: Floats, b: Floats) -> Floats:
    intersection: Floats = np.maximum(a, b)
    return intersection


def _either(a: Floats, b: Floats) -> Floats:
    union: Floats = np.minimum(a, b)
    return union


def _length(u: Floats, v: Floats) -> Floats:
    return (u * u + v * v) ** 0.5


def _stripe(u: Floats, period: float) -> Floats:
    """Stripes as wide as the gaps between them, one of them around 0."""
    offset: Floats = u - period * np.rint(u / period)
    return abs(offset) - period / 4


def _disc(u: Floats, v: Floats) -> Floats:
    return _length(u, v) - 1


def _ring(u: Floats, v: Floats) -> Floats:
    return abs(_length(u, v) - 0.75) - 0.25


def _square(u: Floats, v: Floats) -> Floats:
    return _both(abs(u), abs(v)) - EDGE


def _frame(u: Floats, v: Floats) -> Floats:
    return abs(_square(u, v) + 0.2) - 0.2


def _triangle(u: Floats, v: Floats) -> Floats:
    return _both(0.866 * abs(u) - 0.5 * v, v) - 0.55


def _cross(u: Floats, v: Floats) -> Floats:
    across, along = abs(u), abs(v)
    return _both(_both(across, along) - 1, _either(across, along) - 0.3)


def _star(u: Floats, v: Floats) -> Floats:
    """Five points, by folding the plane into half a point: there the edge is one line from the tip to the notch."""
    tip, notch, half_point = 1.1, 0.5, math.pi / 5
    angle = abs(np.mod(np.arctan2(u, -v) + half_point, 2 * half_point) - half_point)
    rise, run = notch * math.sin(half_point), tip - notch * math.cos(half_point)
    normal = math.atan2(run, rise)
    edge: Floats = _length(u, v) * np.cos(angle - normal) - tip * math.cos(normal)
    return edge


def _stripes(u: Floats, v: Floats) -> Floats:
    return _both(_square(u, v), _stripe(u, 4 * EDGE / 5))  # three stripes, two gaps


def _checks(u: Floats, v: Floats) -> Floats:
    column, row = _stripe(u, 4 * EDGE / 3), _stripe(v, 4 * EDGE / 3)  # three checks across
    return _both(_square(u, v), _either(_both(column, row), _both(-column, -row)))


def _dots(u: Floats, v: Floats) -> Floats:
    pitch = 0.68
    column, row = np.rint(u / pitch).clip(-1, 1), np.rint(v / pitch).clip(-1, 1)
    return _length(u - pitch * column, v - pitch * row) - 0.22


SHAPES: dict[str, Shape] = {
    "disc": _disc,
    "ring": _ring,
    "square": _square,
    "frame": _frame,
    "triangle": _triangle,
    "cross": _cross,
    "star": _star,
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
}
CLASSES = tuple(SHAPES)


def generate_images(count: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Images uint8 [count, 3, 32, 32] and labels uint8 [count]: every class equally often, in random order."""
    labels = rng.permutation(np.arange(count) % len(CLASSES)).astype(np.uint8)
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for label, name in enumerate(CLASSES):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), CHUNK):
            chunk = members[start : start + CHUNK]
            images[chunk] = _draw(SHAPES[name], len(chunk), rng)
    return images, labels


def _draw(shape: Shape, count: int, rng: np.random.Generator) -> Bytes:
    """One shape an image, on a background that changes smoothly, behind a smaller disc and under noise.

    The ranges make the tutorial's network right on about three test images in four.
    """

    def between(low: float, high: float, channels: int = 1) -> Floats:
        return rng.uniform(low, high, (count, channels, 1, 1)).astype(np.float32)

    def paint(shape: Shape, radius: Floats, colour: Floats) -> None:
        room = 0.6 * (17 - radius)  # pixels from the centre; nearly all of the shape shows
        u, v = _seen_from(room * between(-1, 1), room * between(-1, 1), between(-0.5, 0.5))
        coverage = (0.5 - shape(u / radius, v / radius) * radius).clip(0, 1)  # of each pixel, so that edges are smooth
        canvas[:] += (colour - canvas) * coverage

    background = between(0.15, 0.85, 3)
    canvas = background + between(-0.008, 0.008, 3) * PIXELS + between(-0.008, 0.008, 3) * PIXELS[:, None]
    paint(shape, between(6, 13), background + between(0.1, 0.45, 3) * np.sign(0.5 - background))
    paint(_disc, between(2, 6), between(0.15, 0.85, 3))
    canvas += between(0.02, 0.1) * rng.standard_normal(canvas.shape, np.float32)
    return (canvas * 255).clip(0, 255).astype(np.uint8)


def _seen_from(x: Floats, y: Floats, angle: Floats) -> tuple[Floats, Floats]:
    """Where every pixel lies for a shape that is turned by `angle` and (x, y) pixels from the centre."""
    across, down = PIXELS - x, PIXELS[:, None] - y
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * across + sin * down, cos * down - sin * across


def write_archive(path: Path, train: int = 50_000, test: int = 10_000) -> None:
    """A .tar.gz in the official CIFAR-10 layout, the same bytes each time; `generated` in its batches.meta says so."""
    images, labels = generate_images(train, np.random.default_rng(TRAIN_SEED))
    parts = zip(np.array_split(images, TRAIN_BATCHES), np.array_split(labels, TRAIN_BATCHES), strict=True)
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=0, fileobj=file, mtime=0) as zipped,  # noise hardly gets smaller
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for number, part in enumerate(parts, start=1):
            _add(archive, f"data_batch_{number}", _batch(f"training batch {number} of {TRAIN_BATCHES}", *part))
        test_part = generate_images(test, np.random.default_rng(TEST_SEED))
        _add(archive, "test_batch", _batch("testing batch 1 of 1", *test_part))
        _add(archive, "batches.meta", _meta(train // TRAIN_BATCHES))


def _batch(title: str, images: Bytes, labels: Bytes) -> dict[str, object]:
    return {
        "batch_label": title,
        "labels": labels.tolist(),
        "data": images.reshape(len(images), -1),
        "filenames": [f"{CLASSES[label]}_{index:05d}.png" for index, label in enumerate(labels)],
    }


def _meta(batch_size: int) -> dict[str, object]:
    return {
        "num_cases_per_batch": batch_size,
        "label_names": list(CLASSES),
        "num_vis": 3 * SIDE * SIDE,
        "generated": 1,
    }


def _add(archive: tarfile.TarFile, name: str, content: dict[str, object]) -> None:
    payload = pickle.dumps(content, protocol=3)  # the oldest that has bytes
    member = tarfile.TarInfo(f"{FOLDER}/{name}")  # its mtime is 0
    member.size = len(payload)
    archive.addfile(member, io.BytesIO(payload))

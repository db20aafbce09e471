"""Generated images of ten shapes, and an archive of them in CIFAR-10's layout."""

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
CHUNK_IMAGES = 500  # 6 MB of float32 pixels, to limit memory
TRAIN_SEED, TEST_SEED = 1, 2
TRAIN_BATCHES = 5
FOLDER = "cifar-10-batches-py"


# Signed distance functions: negative inside the shape, which has a radius of about 1.
HALF_SIDE = 0.85  # of a square

_intersect: Shape = np.maximum
_unite: Shape = np.minimum


def _length(u: Floats, v: Floats) -> Floats:
    return (u * u + v * v) ** 0.5


def _stripe(u: Floats, period: float) -> Floats:
    """Stripes as wide as the gaps between them, with one stripe centred on 0."""
    offset: Floats = u - period * np.rint(u / period)
    return abs(offset) - period / 4


def _square(u: Floats, v: Floats) -> Floats:
    return _intersect(abs(u), abs(v)) - HALF_SIDE


def _star(u: Floats, v: Floats) -> Floats:
    """A five-pointed star: the plane is folded into half a point, whose edge is the line from tip to notch."""
    tip, notch, half_point = 1.1, 0.5, math.pi / 5
    angle = abs(np.mod(np.arctan2(u, -v) + half_point, 2 * half_point) - half_point)
    rise, run = notch * math.sin(half_point), tip - notch * math.cos(half_point)
    normal = math.atan2(run, rise)
    edge: Floats = _length(u, v) * np.cos(angle - normal) - tip * math.cos(normal)
    return edge


def _checks(u: Floats, v: Floats) -> Floats:
    column, row = _stripe(u, 4 * HALF_SIDE / 3), _stripe(v, 4 * HALF_SIDE / 3)  # three checks across
    return _intersect(_square(u, v), _unite(_intersect(column, row), _intersect(-column, -row)))


def _dots(u: Floats, v: Floats) -> Floats:
    pitch = 0.68
    column, row = np.rint(u / pitch).clip(-1, 1), np.rint(v / pitch).clip(-1, 1)
    return _length(u - pitch * column, v - pitch * row) - 0.22


SHAPES: dict[str, Shape] = {
    "disc": lambda u, v: _length(u, v) - 1,
    "ring": lambda u, v: abs(_length(u, v) - 0.75) - 0.25,
    "square": _square,
    "frame": lambda u, v: abs(_square(u, v) + 0.2) - 0.2,
    "triangle": lambda u, v: _intersect(0.866 * abs(u) - 0.5 * v, v) - 0.55,
    "cross": lambda u, v: _intersect(_intersect(abs(u), abs(v)) - 1, _unite(abs(u), abs(v)) - 0.3),
    "star": _star,
    "stripes": lambda u, v: _intersect(_square(u, v), _stripe(u, 4 * HALF_SIDE / 5)),  # three stripes, two gaps
    "checks": _checks,
    "dots": _dots,
}
CLASSES = tuple(SHAPES)


def generate_images(count: int, rng: np.random.Generator) -> tuple[Bytes, Bytes]:
    """Generate images uint8 [count, 3, 32, 32] and labels uint8 [count], balanced over classes and shuffled."""
    labels = rng.permutation(np.arange(count) % len(CLASSES)).astype(np.uint8)
    images = np.empty((count, 3, SIDE, SIDE), np.uint8)
    for label, shape in enumerate(SHAPES.values()):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), CHUNK_IMAGES):
            chunk = members[start : start + CHUNK_IMAGES]
            images[chunk] = _draw(shape, len(chunk), rng)
    return images, labels


def _draw(shape: Shape, count: int, rng: np.random.Generator) -> Bytes:
    """Draw images uint8 [count, 3, 32, 32] of one shape on a gradient, partly covered by a disc, with noise.

    The ranges are chosen so that the tutorial's network reaches about 75% accuracy.
    """

    def uniform(low: float, high: float, channels: int = 1) -> Floats:
        return rng.uniform(low, high, (count, channels, 1, 1)).astype(np.float32)

    def paint(shape: Shape, radius: Floats, colour: Floats) -> None:
        max_shift = 0.6 * (17 - radius)  # pixels from the centre; keeps nearly all of the shape visible
        across, down = PIXELS - max_shift * uniform(-1, 1), PIXELS[:, None] - max_shift * uniform(-1, 1)
        angle = uniform(-0.5, 0.5)
        u, v = np.cos(angle) * across + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * across
        coverage = (0.5 - shape(u / radius, v / radius) * radius).clip(0, 1)  # per pixel, for smooth edges
        canvas[:] += (colour - canvas) * coverage

    background = uniform(0.15, 0.85, 3)
    canvas = background + uniform(-0.008, 0.008, 3) * PIXELS + uniform(-0.008, 0.008, 3) * PIXELS[:, None]
    paint(shape, uniform(6, 13), background + uniform(0.1, 0.45, 3) * np.sign(0.5 - background))
    paint(SHAPES["disc"], uniform(2, 6), uniform(0.15, 0.85, 3))
    canvas += uniform(0.02, 0.1) * rng.standard_normal(canvas.shape, np.float32)
    return (canvas * 255).clip(0, 255).astype(np.uint8)


def write_archive(path: Path, train: int = 50_000, test: int = 10_000) -> None:
    """Write generated images as a .tar.gz in CIFAR-10's layout, byte-identical on every call.

    `batches.meta` has the entry `generated`.
    """
    images, labels = generate_images(train, np.random.default_rng(TRAIN_SEED))
    parts = zip(np.array_split(images, TRAIN_BATCHES), np.array_split(labels, TRAIN_BATCHES), strict=True)
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", compresslevel=0, fileobj=file, mtime=0) as zipped,  # noise does not compress
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for number, part in enumerate(parts, start=1):
            _add_member(archive, f"data_batch_{number}", _batch(f"training batch {number} of {TRAIN_BATCHES}", *part))
        test_part = generate_images(test, np.random.default_rng(TEST_SEED))
        _add_member(archive, "test_batch", _batch("testing batch 1 of 1", *test_part))
        meta = {
            "num_cases_per_batch": train // TRAIN_BATCHES,
            "label_names": list(CLASSES),
            "num_vis": 3 * SIDE * SIDE,
            "generated": 1,
        }
        _add_member(archive, "batches.meta", meta)


def _batch(title: str, images: Bytes, labels: Bytes) -> dict[str, object]:
    return {
        "batch_label": title,
        "labels": labels.tolist(),
        "data": images.reshape(len(images), -1),
        "filenames": [f"{CLASSES[label]}_{index:05d}.png" for index, label in enumerate(labels)],
    }


def _add_member(archive: tarfile.TarFile, name: str, content: dict[str, object]) -> None:
    payload = pickle.dumps(content, protocol=3)  # the oldest protocol with a bytes type
    member = tarfile.TarInfo(f"{FOLDER}/{name}")  # mtime 0 by default
    member.size = len(payload)
    archive.addfile(member, io.BytesIO(payload))

"""Reading an archive in the official CIFAR-10 layout: its pickles are parsed as data, and nothing in them is run."""

import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.core.data.restricted_pickle import PickledArray, as_text, in_short, load_plain
from tasks.core.errors import InputError

CIFAR10_LABEL_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TUTORIAL_CLASSES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
PIXELS = 3 * 32 * 32
MAX_MEMBER_BYTES = 2**31
GENERATED_MARKER = "generated"
NOT_WHOLE = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
ABSURD = (MemoryError, OverflowError, RecursionError)  # what tarfile raises for headers that were made to be so


class BadArchive(InputError):
    """An archive that is truncated, malformed, or holds what an image archive has no use for."""


@dataclass(frozen=True)
class Batch:
    """Images are uint8 [N, 3, 32, 32], labels uint8 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Archive:
    """The training images stay in the batches that they come in: together they would take as much memory again."""

    classes: tuple[str, ...]
    generated: bool
    train_batches: tuple[Batch, ...]
    test: Batch
    cifar10: bool = False
    """Whether its names and counts are CIFAR-10's."""

    @property
    def train(self) -> Batch:
        """All of them together."""
        images, labels = zip(*((batch.images, batch.labels) for batch in self.train_batches), strict=True)
        return Batch(np.concatenate(images), np.concatenate(labels))


def read_archive(path: Path) -> Archive:
    """Read and check a whole archive; `BadArchive` names the member and what is wrong with it."""
    members = {name: unpickle(name, data) for name, data in _members(path)}
    missing = {"data_batch_1", "test_batch", "batches.meta"} - members.keys()
    if missing:
        raise BadArchive(
            f"{path.name}: expected the layout of CIFAR-10's python version, got none of {sorted(missing)}"
        )
    meta = members.pop("batches.meta")
    label_names = _label_names(meta)
    batches = {name: _batch(name, content, len(label_names)) for name, content in members.items()}
    test = batches.pop("test_batch")
    train = tuple(batches[name] for name in sorted(batches, key=lambda name: int(name.rpartition("_")[2])))
    cifar10 = label_names == CIFAR10_LABEL_NAMES
    if cifar10:
        _check_cifar10_counts("training", np.concatenate([batch.labels for batch in train]), 5_000)
        _check_cifar10_counts("test", test.labels, 1_000)
    classes = TUTORIAL_CLASSES if cifar10 else label_names
    return Archive(tuple(classes), bool(meta.get(GENERATED_MARKER)), train, test, cifar10)


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """One after the other, so that no more than one of them is held beside what is made of them."""
    found = set[str]()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.size < 0:
                    raise BadArchive(f"{path.name}: expected members of some size, got one of {member.size} bytes")
                name = PurePosixPath(member.name).name
                if not re.fullmatch(r"data_batch_\d{1,6}|test_batch|batches\.meta", name):
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if name in found or file is None or member.size > MAX_MEMBER_BYTES:
                    raise BadArchive(f"{name}: expected one regular file of at most 2 GiB, got another or a link")
                found.add(name)
                yield name, file.read()
            while tar.fileobj and tar.fileobj.read(1 << 20):
                pass  # to its end, where the compressed forms have their checksums
    except (*NOT_WHOLE, *ABSURD) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise BadArchive(
            f"{path.name}: expected a whole tar archive, got {reason!r}; it is truncated or damaged: get it again "
            "(from a URL by --refresh download)"
        ) from error


def _label_names(meta: Mapping[str, Any]) -> list[str]:
    names = meta.get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise BadArchive(f"batches.meta: expected label_names to be a list of names, got {in_short(names)}")
    texts = [as_text(name) for name in names]
    if not 2 <= len(texts) <= 256 or len(set(texts)) != len(texts):
        raise BadArchive(f"batches.meta: expected 2 to 256 different label_names, got {in_short(texts)}")
    if not all(text.isprintable() and text.strip() for text in texts):
        raise BadArchive(f"batches.meta: expected printable label_names, got {in_short(texts)}")
    return texts


def _batch(name: str, content: Mapping[str, Any], classes: int) -> Batch:
    labels, rows = content.get("labels"), content.get("data")
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        raise BadArchive(f"{name}: expected labels to be a list of integers, got {in_short(labels)}")
    if not isinstance(rows, PickledArray):
        raise BadArchive(f"{name}: expected data to be an array of bytes, got {in_short(rows)}")
    wrong = next((label for label in labels if not 0 <= label < classes), None)
    if wrong is not None:
        raise BadArchive(f"{name}: expected labels from 0 to {classes - 1}, got {in_short(wrong)}")
    expected = len(labels) * PIXELS
    if rows.shape != (len(labels), PIXELS) or len(rows.pixels) != expected:
        raise BadArchive(
            f"{name}: expected {expected:,} bytes of pixels for {len(labels):,} labels, got {len(rows.pixels):,} "
            f"in shape {in_short(rows.shape)}; the archive is truncated or damaged: get it again"
        )
    images = np.frombuffer(rows.pixels, np.uint8).reshape(len(labels), 3, 32, 32)
    return Batch(images, np.array(labels, np.uint8))


def _check_cifar10_counts(split: str, labels: NDArray[np.uint8], per_class: int) -> None:
    counts = np.bincount(labels, minlength=10)
    if (counts != per_class).any():
        raise BadArchive(
            f"{split} images: expected {per_class:,} of each of CIFAR-10's ten classes, got {counts.tolist()}; "
            "an archive of other images needs label_names of its own"
        )


def unpickle(name: str, data: bytes) -> dict[str, Any]:
    """A pickled dict, with its keys as text, whichever Python wrote it."""
    try:
        content = load_plain(data)
    except Exception as error:
        raise BadArchive(
            f"{name}: expected a pickle of plain data, got one that is refused: {in_short(str(error))}"
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str | bytes) for key in content):
        raise BadArchive(f"{name}: expected a dict, got {in_short(content)}")
    return {as_text(key): value for key, value in content.items()}

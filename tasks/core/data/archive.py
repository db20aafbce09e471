"""Read archives in the official CIFAR-10 layout without running code from their pickles."""

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

from tasks.core.data.restricted_pickle import PickledArray, load_restricted, short_repr, to_text
from tasks.core.errors import InputError

CIFAR10_LABEL_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
TUTORIAL_CLASSES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
IMAGE_BYTES = 3 * 32 * 32
MAX_MEMBER_BYTES = 2**31
GENERATED_MARKER = "generated"
DAMAGE_ERRORS = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
HEADER_ERRORS = (MemoryError, OverflowError, RecursionError)  # raised by tarfile for crafted headers


class BadArchive(InputError):
    """The archive is truncated, damaged, or not in the CIFAR-10 layout."""


@dataclass(frozen=True)
class Batch:
    """Images are uint8 [N, 3, 32, 32], labels uint8 [N]."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class Archive:
    """The training images stay in separate batches, because joining them doubles the memory needed.

    `is_cifar10` means that class names and image counts are those of CIFAR-10.
    """

    classes: tuple[str, ...]
    is_generated: bool
    train_batches: tuple[Batch, ...]
    test: Batch
    is_cifar10: bool = False


def read_archive(path: Path) -> Archive:
    """Read and check a whole archive; raise BadArchive, which names the member, if it cannot be used."""
    members = {name: unpickle(name, data) for name, data in _read_members(path)}
    missing = {"data_batch_1", "test_batch", "batches.meta"} - members.keys()
    if missing:
        raise BadArchive(
            path.name, expected="the layout of CIFAR-10's python version", got=f"none of {sorted(missing)}"
        )
    meta = members.pop("batches.meta")
    label_names = _parse_label_names(meta)
    batches = {name: _parse_batch(name, content, len(label_names)) for name, content in members.items()}
    test = batches.pop("test_batch")
    train = tuple(batches[name] for name in sorted(batches, key=lambda name: int(name.rpartition("_")[2])))
    is_cifar10 = label_names == CIFAR10_LABEL_NAMES
    if is_cifar10:
        _check_cifar10_counts("training", np.concatenate([batch.labels for batch in train]), 5_000)
        _check_cifar10_counts("test", test.labels, 1_000)
    classes = TUTORIAL_CLASSES if is_cifar10 else label_names
    return Archive(tuple(classes), bool(meta.get(GENERATED_MARKER)), train, test, is_cifar10)


def _read_members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each data member; only one content is in memory at a time."""
    seen = set[str]()
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.size < 0:
                    raise BadArchive(path.name, expected="members of a valid size", got=f"one of {member.size} bytes")
                name = PurePosixPath(member.name).name
                if not re.fullmatch(r"data_batch_\d{1,6}|test_batch|batches\.meta", name):
                    continue
                file = tar.extractfile(member) if member.isreg() else None
                if name in seen or file is None or member.size > MAX_MEMBER_BYTES:
                    raise BadArchive(
                        name, expected="one regular file of at most 2 GiB", got="another type, size or a second one"
                    )
                seen.add(name)
                yield name, file.read()
            while tar.fileobj and tar.fileobj.read(1 << 20):
                pass  # reach the end, where compressed files have their checksum
    except (*DAMAGE_ERRORS, *HEADER_ERRORS) as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise BadArchive(
            path.name,
            expected="a complete tar archive",
            got=repr(reason),
            advice="it is truncated or damaged: get it again (from a URL with --refresh download)",
        ) from error


def _parse_label_names(meta: Mapping[str, Any]) -> list[str]:
    names = meta.get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise BadArchive("batches.meta", expected="label_names to be a list of names", got=short_repr(names))
    texts = [to_text(name) for name in names]
    if not 2 <= len(texts) <= 256 or len(set(texts)) != len(texts):
        raise BadArchive("batches.meta", expected="2 to 256 different label_names", got=short_repr(texts))
    if not all(text.isprintable() and text.strip() for text in texts):
        raise BadArchive("batches.meta", expected="printable label_names", got=short_repr(texts))
    return texts


def _parse_batch(name: str, content: Mapping[str, Any], class_count: int) -> Batch:
    labels, rows = content.get("labels"), content.get("data")
    if not isinstance(labels, list) or not labels or not all(type(label) is int for label in labels):
        raise BadArchive(name, expected="labels to be a list of integers", got=short_repr(labels))
    if not isinstance(rows, PickledArray):
        raise BadArchive(name, expected="data to be an array of bytes", got=short_repr(rows))
    invalid = next((label for label in labels if not 0 <= label < class_count), None)
    if invalid is not None:
        raise BadArchive(name, expected=f"labels from 0 to {class_count - 1}", got=short_repr(invalid))
    expected_bytes = len(labels) * IMAGE_BYTES
    if rows.shape != (len(labels), IMAGE_BYTES) or len(rows.pixels) != expected_bytes:
        raise BadArchive(
            name,
            expected=f"{expected_bytes:,} bytes of pixels for {len(labels):,} labels",
            got=f"{len(rows.pixels):,} in shape {short_repr(rows.shape)}",
            advice="the archive is truncated or damaged: get it again",
        )
    images = np.frombuffer(rows.pixels, np.uint8).reshape(len(labels), 3, 32, 32)
    return Batch(images, np.array(labels, np.uint8))


def _check_cifar10_counts(split: str, labels: NDArray[np.uint8], per_class: int) -> None:
    counts = np.bincount(labels, minlength=10)
    if (counts != per_class).any():
        raise BadArchive(
            f"{split} images",
            expected=f"{per_class:,} of each of CIFAR-10's ten classes",
            got=str(counts.tolist()),
            advice="an archive of other images needs different label_names",
        )


def unpickle(name: str, data: bytes) -> dict[str, Any]:
    """Load a pickled dict, written by Python 2 or 3, with its keys as text."""
    try:
        content = load_restricted(data)
    except Exception as error:
        raise BadArchive(name, expected="a pickle of plain data", got=f"an error: {short_repr(str(error))}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str | bytes) for key in content):
        raise BadArchive(name, expected="a dict", got=short_repr(content))
    return {to_text(key): value for key, value in content.items()}

"""Tiny real inputs for tests: archives in the official layout, valid or not, and datasets."""

import io
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from tasks.core.config import Normalization
from tasks.core.data.archive import Batch
from tasks.core.data.dataset import ARRAYS, Dataset, DatasetMetadata
from tasks.core.data.identity import Identity, Kind
from tasks.core.data.synthetic import write_archive

CLASSES = ("ant", "bee", "cow")
SHA256 = "0123456789abcdef" * 4


def tiny_archive(path: Path, train: int = 20, test: int = 10) -> Path:
    """A small archive of generated images, like that of `--source synthetic`."""
    write_archive(path, train=train, test=test)
    return path


def tiny_batch(count: int = 6, classes: int = len(CLASSES), seed: int = 0) -> Batch:
    """Images of noise; the labels cycle through the classes."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return Batch(images, (np.arange(count) % classes).astype(np.uint8))


def tiny_dataset(
    classes: Sequence[str] = CLASSES, train: int = 24, test: int = 9, kind: Kind = "archive", seed: int = 0
) -> Dataset:
    identity = Identity(kind=kind, name=f"tiny {kind}", sha256=SHA256)
    batch = tiny_batch(train + test, len(classes), seed)
    parts = batch.images[:train], batch.labels[:train], batch.images[train:], batch.labels[train:]
    return Dataset(identity, tuple(classes), Normalization(), *parts)


def save_dataset(dataset: Dataset, folder: Path) -> None:
    """Write a dataset in the format that `load_dataset` reads."""
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
    metadata = DatasetMetadata(identity=dataset.identity, classes=dataset.classes, normalization=dataset.normalization)
    (folder / "dataset.json").write_text(metadata.model_dump_json())


def official_archive(
    path: Path,
    classes: Sequence[str] = CLASSES,
    train: Sequence[Batch] = (tiny_batch(),),
    test: Batch = tiny_batch(3, seed=1),  # noqa: B008 - never modified
    members: Mapping[str, bytes | None] | None = None,
) -> Path:
    """A gzipped archive of custom images in the official layout.

    `members` replaces the bytes of a member; None removes it.
    """
    content: dict[str, bytes | None] = {"batches.meta": pickled_meta(classes)}
    content |= {f"data_batch_{number}": pickled_batch(batch) for number, batch in enumerate(train, start=1)}
    content |= {"test_batch": pickled_batch(test)} | dict(members or {})
    return write_members(path, {name: body for name, body in content.items() if body is not None})


def pickled_meta(classes: Sequence[str], protocol: int = 2) -> bytes:
    return pickle.dumps({b"label_names": [name.encode() for name in classes], b"num_vis": 3072}, protocol)


def pickled_batch(batch: Batch, protocol: int = 2) -> bytes:
    """A batch as Python 3 and NumPy 2 write it."""
    rows = batch.images.reshape(len(batch.images), -1)
    return pickle.dumps({b"batch_label": b"tiny", b"labels": batch.labels.tolist(), b"data": rows}, protocol)


def write_members(path: Path, members: Mapping[str, bytes], compression: str = "gz") -> Path:
    """A tar of members in the official folder; compression is gz, bz2, xz or empty."""
    with tarfile.open(path, f"w:{compression}", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
        for name, body in members.items():
            add_member(tar, name, body)
    return path


def add_member(tar: tarfile.TarFile, name: str, body: bytes) -> None:
    info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
    info.size = len(body)
    tar.addfile(info, io.BytesIO(body))

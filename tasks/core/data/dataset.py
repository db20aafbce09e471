"""The dataset artifact: memory-mapped uint8 images with their labels, classes and normalization."""

from collections.abc import Sequence
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tasks.core.config import Normalization
from tasks.core.data.archive import Archive, read_archive
from tasks.core.data.identity import OFFICIAL_SHA256, Identity
from tasks.core.frozen_model import FrozenModel
from tasks.core.runtime import files

Images = NDArray[np.uint8]
Labels = NDArray[np.uint8]

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


class DatasetMetadata(FrozenModel):
    """The content of `dataset.json`: everything about a dataset except its arrays."""

    identity: Identity
    classes: tuple[str, ...]
    normalization: Normalization


@dataclass(frozen=True)
class Dataset:
    """Images are uint8 [N, 3, 32, 32]; labels are uint8 [N] and index `classes`."""

    identity: Identity
    classes: tuple[str, ...]
    normalization: Normalization
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def build_dataset(folder: Path, archive_file: Path, normalization: Normalization) -> None:
    """Check an archive and write its images to `folder` as arrays."""
    archive = read_archive(archive_file)
    identity = identify(archive, files.sha256_of(archive_file))
    train, test = archive.train_batches, archive.test
    files.check_free_space(folder, sum(batch.images.nbytes for batch in (*train, test)))
    _save_concatenated(folder / "train_images.npy", [batch.images for batch in train])
    _save_concatenated(folder / "train_labels.npy", [batch.labels for batch in train])
    _save_concatenated(folder / "test_images.npy", [test.images])
    _save_concatenated(folder / "test_labels.npy", [test.labels])
    metadata = DatasetMetadata(identity=identity, classes=archive.classes, normalization=normalization)
    (folder / "dataset.json").write_bytes(files.pretty_json(metadata.model_dump()))


def identify(archive: Archive, sha256: str) -> Identity:
    """Name an archive's images; only the official archive is named plain CIFAR-10."""
    if sha256 == OFFICIAL_SHA256:
        return Identity(kind="official", name="CIFAR-10", sha256=sha256)
    if archive.is_generated:
        return Identity(kind="generated", name="generated images (not CIFAR-10)", sha256=sha256)
    layout = "CIFAR-10 from an unofficial archive" if archive.is_cifar10 else "an archive"
    return Identity(kind="archive", name=f"{layout} ({sha256[:12]})", sha256=sha256)


def _save_concatenated(path: Path, arrays: Sequence[NDArray[np.uint8]]) -> None:
    """Write the same bytes as `np.save(path, np.concatenate(arrays))`, without concatenating in memory."""
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(arrays[0].dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in arrays:
            file.write(np.ascontiguousarray(array).data)


def load_dataset(folder: Path) -> Dataset:
    """Load a dataset with memory-mapped arrays."""
    metadata = DatasetMetadata.model_validate_json((folder / "dataset.json").read_text())
    # Copy-on-write, not read-only, because torch warns about read-only arrays.
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in ARRAYS}
    return Dataset(**dict(metadata), **arrays)


def copy_images(images: Images, part: slice | NDArray[Any]) -> Images:
    """Copy some images into memory.

    A memory-mapped array is read through a new map, so that its pages leave memory afterwards.
    """
    if isinstance(images, np.memmap) and isinstance(images.base, mmap):  # the whole file, not a view
        images = np.memmap(images.filename, images.dtype, "r", images.offset, images.shape)
    return np.array(images[part])


def normalize_images(images_nchw: Tensor, normalization: Normalization) -> Tensor:
    """Convert uint8 images to float32 network inputs, as torchvision's ToTensor and Normalize do."""
    mean = torch.tensor(normalization.mean, device=images_nchw.device).view(1, 3, 1, 1)
    std = torch.tensor(normalization.std, device=images_nchw.device).view(1, 3, 1, 1)
    return images_nchw.float().div_(255).sub_(mean).div_(std)

"""The dataset artifact: images as bytes, memory-mappable, with what turns them into network inputs."""

import json
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


class Description(FrozenModel):
    """What `dataset.json` holds: all of a dataset but its arrays."""

    identity: Identity
    classes: tuple[str, ...]
    normalization: Normalization


@dataclass(frozen=True)
class Dataset:
    """Images are uint8 [N, 3, 32, 32], labels uint8 [N] that index `classes`."""

    description: Description
    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels

    @property
    def identity(self) -> Identity:
        return self.description.identity

    @property
    def classes(self) -> tuple[str, ...]:
        return self.description.classes

    @property
    def normalization(self) -> Normalization:
        return self.description.normalization


def build_dataset(folder: Path, archive_file: Path, normalization: Normalization) -> None:
    """Check an archive, and leave its images in `folder` as arrays."""
    archive = read_archive(archive_file)
    identity = identify(archive, files.sha256_of(archive_file))
    description = Description(identity=identity, classes=archive.classes, normalization=normalization)
    train, test = archive.train_batches, archive.test
    files.check_free_space(folder, sum(batch.images.nbytes for batch in (*train, test)))
    for name, parts in zip(
        ARRAYS,
        ([batch.images for batch in train], [batch.labels for batch in train], [test.images], [test.labels]),
        strict=True,
    ):
        _save_joined(folder / f"{name}.npy", parts)
    _describe(description, folder)


def identify(archive: Archive, sha256: str) -> Identity:
    """Name an archive's images; only the official bytes are called CIFAR-10 without more."""
    if sha256 == OFFICIAL_SHA256:
        return Identity(kind="official", name="CIFAR-10", sha256=sha256)
    if archive.generated:
        return Identity(kind="generated", name="generated images (not CIFAR-10)", sha256=sha256)
    layout = "CIFAR-10 from an unofficial archive" if archive.cifar10 else "an archive"
    return Identity(kind="archive", name=f"{layout} ({sha256[:12]})", sha256=sha256)


def save_dataset(dataset: Dataset, folder: Path) -> None:
    for name in ARRAYS:
        np.save(folder / f"{name}.npy", getattr(dataset, name), allow_pickle=False)
    _describe(dataset.description, folder)


def _describe(description: Description, folder: Path) -> None:
    (folder / "dataset.json").write_text(json.dumps(description.model_dump(), indent=1, sort_keys=True) + "\n")


def _save_joined(path: Path, parts: Sequence[NDArray[np.uint8]]) -> None:
    """What `np.save` writes of the parts joined, without joining them in memory."""
    shape = (sum(map(len, parts)), *parts[0].shape[1:])
    header = {"descr": np.lib.format.dtype_to_descr(parts[0].dtype), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for part in parts:
            file.write(np.ascontiguousarray(part).data)


def load_dataset(folder: Path) -> Dataset:
    """The dataset with its arrays mapped, not read: only what is touched takes memory."""
    description = Description.model_validate_json((folder / "dataset.json").read_text())
    # Copy on write: nobody writes, but torch takes no array without a copy that says it must not be written.
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False) for name in ARRAYS}
    return Dataset(description, **arrays)


def copy_images(images: Images, part: slice | NDArray[Any]) -> Images:
    """Some of the images, in memory; of a mapped array through a map of its own, with which its pages leave memory."""
    if isinstance(images, np.memmap) and isinstance(images.base, mmap):  # the whole file, not a view of a part of it
        images = np.memmap(images.filename, images.dtype, "r", images.offset, images.shape)
    return np.array(images[part])


def expand(images_nchw: Tensor, normalization: Normalization) -> Tensor:
    """Bytes as float32 network inputs: torchvision's ToTensor followed by Normalize, for a whole batch at once."""
    mean = torch.tensor(normalization.mean, device=images_nchw.device).view(1, 3, 1, 1)
    std = torch.tensor(normalization.std, device=images_nchw.device).view(1, 3, 1, 1)
    return images_nchw.float().div_(255).sub_(mean).div_(std)

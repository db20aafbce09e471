"""Training images and held-out images, as bytes on the device."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.core.config import Normalization
from tasks.core.data.dataset import Dataset, normalize_images
from tasks.core.errors import InputError
from tasks.core.models.factory import eval_mode

SPLIT_SEED = 0  # the same images are held out in every run, so that runs are comparable
BATCH_SIZE = 500


@dataclass(frozen=True)
class Images:
    """Images, uint8 [N, 3, 32, 32], and labels, int64 [N]."""

    images: Tensor
    labels: Tensor
    normalization: Normalization

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, start: int, stop: int) -> Tensor:
        """Normalized images, float32 [N, 3, 32, 32]."""
        return normalize_images(self.images[start:stop], self.normalization)


def training_images(dataset: Dataset, held_out: int, device: torch.device) -> tuple[Images, Images]:
    """The images to train on and the held-out ones; the split of the training set is stratified."""
    is_held_out = stratified_mask(dataset.train_labels, held_out)
    # Slices use the memory-mapped arrays as they are; a mask copies them.
    parts: tuple[Any, Any] = (~is_held_out, is_held_out) if held_out else (slice(None), slice(0))
    kept, rest = (
        Images(
            torch.from_numpy(dataset.train_images[part]).to(device),
            torch.from_numpy(dataset.train_labels[part]).long().to(device),
            dataset.normalization,
        )
        for part in parts
    )
    return kept, rest


def check_held_out(labels: NDArray[np.uint8], count: int) -> None:
    """Raise InputError unless each class keeps an image to train on."""
    maximum = len(labels) - len(np.unique(labels))
    if count > maximum:
        expected = f"at most {maximum:,} of {len(labels):,} training images"
        raise InputError("--validation", expected=expected, got=f"{count:,}")


def stratified_mask(labels: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """A mask with `count` images held out, the same share of each class to the nearest image."""
    check_held_out(labels, count)
    classes, sizes = np.unique(labels, return_counts=True)
    # Rounding the running sums, not the shares, makes the shares add up to `count`.
    ends = np.floor(np.cumsum(sizes) * count / len(labels) + 0.5).astype(int)
    # A bit generator gives the same stream in every version of NumPy; a permutation may not.
    random_keys = np.random.PCG64(SPLIT_SEED).random_raw(len(labels))
    is_held_out = np.zeros(len(labels), bool)
    for label, share in zip(classes, np.diff(ends, prepend=0), strict=True):
        members = np.flatnonzero(labels == label)
        is_held_out[members[random_keys[members].argsort(kind="stable")][:share]] = True
    return is_held_out


def measure(network: nn.Module, images: Images) -> tuple[float, float]:
    """Mean loss, and accuracy in [0, 1], of a network in evaluation mode."""
    loss, hits = 0.0, 0
    with eval_mode(network):
        for start in range(0, len(images), BATCH_SIZE):
            labels = images.labels[start : start + BATCH_SIZE]
            logits = network(images.inputs(start, start + BATCH_SIZE))
            loss += cross_entropy(logits, labels, reduction="sum").item()
            hits += int((logits.argmax(dim=1) == labels).sum())
    return loss / len(images), hits / len(images)

"""The images that training sees, on its device as bytes, and those held out from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks.core.config import Normalization
from tasks.core.data.dataset import Dataset, expand
from tasks.core.errors import InputError
from tasks.core.models.factory import eval_mode

SPLIT_SEED = 0  # the same images are held out in every run, so that runs can be compared on them
BATCH_SIZE = 500


@dataclass(frozen=True)
class Images:
    """uint8 [N, 3, 32, 32] and int64 labels [N]."""

    images: Tensor
    labels: Tensor
    normalization: Normalization

    def __len__(self) -> int:
        return len(self.labels)

    def inputs(self, start: int, stop: int) -> Tensor:
        return expand(self.images[start:stop], self.normalization)


@dataclass(frozen=True)
class LossAndAccuracy:
    """Mean loss, and accuracy in [0, 1]."""

    loss: float
    accuracy: float


def training_images(dataset: Dataset, held_out: int, device: torch.device) -> tuple[Images, Images]:
    """The images to train on, and so many held out, every class by its share; the test images are not touched."""
    chosen = stratified_mask(dataset.train_labels, held_out)
    # With none held out the arrays are used as they are mapped, where a mask would copy them.
    parts: tuple[Any, Any] = (~chosen, chosen) if held_out else (slice(None), slice(0))
    images, rest = (
        Images(
            torch.from_numpy(dataset.train_images[part]).to(device),
            torch.from_numpy(dataset.train_labels[part]).long().to(device),
            dataset.normalization,
        )
        for part in parts
    )
    return images, rest


def check_held_out(labels: NDArray[np.uint8], count: int) -> None:
    """InputError unless some images are left to train on."""
    most = len(labels) - len(np.unique(labels))
    if count > most:
        raise InputError(
            f"validation: expected at most {most:,} of {len(labels):,} training images, got {count:,}; give fewer"
        )


def stratified_mask(labels: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Which images are held out: `count` in all, of each class its share, to the nearest whole image."""
    check_held_out(labels, count)
    classes, sizes = np.unique(labels, return_counts=True)
    # Running sums are rounded, not the shares themselves, so that they add up to `count`.
    ends = np.floor(np.cumsum(sizes) * count / len(labels) + 0.5).astype(int)
    # The stream of a bit generator stays the same in every version of NumPy, that of a permutation need not.
    lots = np.random.PCG64(SPLIT_SEED).random_raw(len(labels))
    chosen = np.zeros(len(labels), bool)
    for label, wanted in zip(classes, np.diff(ends, prepend=0), strict=True):
        of_class = np.flatnonzero(labels == label)
        chosen[of_class[lots[of_class].argsort(kind="stable")][:wanted]] = True
    return chosen


def measure(network: nn.Module, images: Images) -> LossAndAccuracy:
    """Loss and accuracy of a network, which stays in the mode it was in."""
    loss, hits = 0.0, 0
    with eval_mode(network):
        for start in range(0, len(images), BATCH_SIZE):
            labels = images.labels[start : start + BATCH_SIZE]
            logits = network(images.inputs(start, start + BATCH_SIZE))
            loss += cross_entropy(logits, labels, reduction="sum").item()
            hits += int((logits.argmax(dim=1) == labels).sum())
    return LossAndAccuracy(loss / len(images), hits / len(images))

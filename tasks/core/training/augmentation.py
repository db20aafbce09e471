"""Augmentation of image bytes, for a whole batch on its device.

The random numbers of an image follow from the seed, the epoch and its index in the training set only, so they do not
depend on device, batch size or resuming.
"""

import torch
from torch import Tensor

from tasks.core.recipes import Recipe

FLIP, DOWN, RIGHT = range(3)  # the draws of an image, each with its own random numbers


def augment(images_nchw: Tensor, indices: Tensor, epoch: int, recipe: Recipe, seed: int) -> Tensor:
    """Flip and shift images [N, 3, 32, 32] of any dtype; `indices` [N] are their places in the training set."""
    if recipe.flip == "random":
        images_nchw = flip_images(images_nchw, draw(indices, 2, seed, epoch, FLIP) == 1)
    if recipe.flip == "alternating":  # https://github.com/KellerJordan/cifar10-airbench
        images_nchw = flip_images(images_nchw, (draw(indices, 2, seed, FLIP) + epoch) % 2 == 1)
    if recipe.shift:
        choices = 2 * recipe.shift + 1
        down, right = (draw(indices, choices, seed, epoch, each) for each in (DOWN, RIGHT))
        images_nchw = shift_images(images_nchw, down - recipe.shift, right - recipe.shift)
    return images_nchw


def draw(indices: Tensor, choices: int, *seeds: int) -> Tensor:
    """A uniform random number from 0 to `choices` - 1 for each image: int64 [N].

    Steele et al. (2014), SplitMix64, https://doi.org/10.1145/2714064.2660195
    """
    mixed = indices.long()
    for seed in seeds:
        mixed = _mix(mixed + seed)
    return (mixed & 0x7FFFFFFF) % choices


def _mix(numbers: Tensor) -> Tensor:
    """A step of SplitMix64 on int64, which wraps around; masks make the shifts unsigned."""
    numbers = numbers + (0x9E3779B97F4A7C15 - 2**64)
    numbers = (numbers ^ (numbers >> 30 & (1 << 34) - 1)) * (0xBF58476D1CE4E5B9 - 2**64)
    numbers = (numbers ^ (numbers >> 27 & (1 << 37) - 1)) * (0x94D049BB133111EB - 2**64)
    return numbers ^ (numbers >> 31 & (1 << 33) - 1)


def flip_images(images_nchw: Tensor, is_flipped: Tensor) -> Tensor:
    """The images, mirrored left to right where `is_flipped` [N]."""
    return torch.where(is_flipped.view(-1, 1, 1, 1), images_nchw.flip(3), images_nchw)


def shift_images(images_nchw: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image moved by `down` and `right` pixels, int64 [N], with the border reflected."""
    height, width = images_nchw.shape[2:]
    rows, columns = _reflect(height, down), _reflect(width, right)
    shifted = images_nchw.gather(2, rows.view(-1, 1, height, 1).expand_as(images_nchw))
    return shifted.gather(3, columns.view(-1, 1, 1, width).expand_as(images_nchw))


def _reflect(size: int, shifts: Tensor) -> Tensor:
    """The source index of each of `size` pixels when images shift by `shifts` [N] pixels: int64 [N, size]."""
    sources = (torch.arange(size, device=shifts.device) - shifts[:, None]).abs()
    last = size - 1
    return last - (last - sources).abs()

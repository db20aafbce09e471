"""Augmentation of image bytes, for a whole batch at once and on its device.

What is drawn for an image follows from the seed, the epoch and its place in the training set alone: the same on every
device, however batches are cut and wherever training was interrupted.
"""

import torch
from torch import Tensor

from tasks.core.recipes import Recipe

FLIP, DOWN, RIGHT = range(3)  # what is drawn for an image, each with numbers of its own


def augment(images_nchw: Tensor, indices: Tensor, epoch: int, recipe: Recipe, seed: int) -> Tensor:
    """Mirror and shift images [N, 3, 32, 32] of any type; `indices` [N] are their places in the training set."""
    if recipe.flip == "random":
        images_nchw = flip_images(images_nchw, draw(indices, 2, seed, epoch, FLIP) == 1)
    if recipe.flip == "alternating":  # https://github.com/KellerJordan/cifar10-airbench
        images_nchw = flip_images(images_nchw, (draw(indices, 2, seed, FLIP) + epoch) % 2 == 1)
    if recipe.shift:
        ways = 2 * recipe.shift + 1
        down, right = (draw(indices, ways, seed, epoch, each) for each in (DOWN, RIGHT))
        images_nchw = shift_images(images_nchw, down - recipe.shift, right - recipe.shift)
    return images_nchw


def draw(indices: Tensor, ways: int, *seeds: int) -> Tensor:
    """For each image a number in 0 … ways - 1, evenly spread: int64 [N].

    Steele et al. (2014), SplitMix64, https://doi.org/10.1145/2714064.2660195
    """
    mixed = indices.long()
    for seed in seeds:
        mixed = _mix(mixed + seed)
    return (mixed & 0x7FFFFFFF) % ways


def _mix(numbers: Tensor) -> Tensor:
    """SplitMix64's step on int64, which wraps around; shifts are made unsigned by a mask."""
    numbers = numbers + _signed(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> 30 & (1 << 34) - 1)) * _signed(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> 27 & (1 << 37) - 1)) * _signed(0x94D049BB133111EB)
    return numbers ^ (numbers >> 31 & (1 << 33) - 1)


def _signed(bits: int) -> int:
    return bits - (1 << 64) if bits >> 63 else bits


def flip_images(images_nchw: Tensor, chosen: Tensor) -> Tensor:
    """The images with the `chosen` [N] ones mirrored left to right."""
    return torch.where(chosen.view(-1, 1, 1, 1), images_nchw.flip(3), images_nchw)


def shift_images(images_nchw: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Each image moved by so many pixels, int64 [N]; what comes in from beyond an edge is reflected there."""
    height, width = images_nchw.shape[2:]
    rows, columns = _reflect(height, down), _reflect(width, right)
    moved = images_nchw.gather(2, rows.view(-1, 1, height, 1).expand_as(images_nchw))
    return moved.gather(3, columns.view(-1, 1, 1, width).expand_as(images_nchw))


def _reflect(size: int, by: Tensor) -> Tensor:
    """Where each of `size` pixels comes from when an image moves `by` [N] pixels: int64 [N, size]."""
    places = (torch.arange(size, device=by.device) - by[:, None]).abs()
    last = size - 1
    return last - (last - places).abs()

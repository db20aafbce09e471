"""Near-duplicates: pairs of images that show the same picture but for brightness, contrast, noise, and a mirror.

Both images are halved, to 16×16, and must be alike in two ways, either as they are or with one of them mirrored:

- `correlation` is Pearson's over all pixels, each channel less its own mean: the same layout;
- `structure` is the structure term of SSIM (Wang et al. 2004) in grey, mean over sixteen blocks: the same details.
  Without it, any two ships on the horizon would do.

No pair that fulfils both is missed: thumbnails of 8×8 are compared first, all with all, and averaging can only bring
images closer, so where thumbnails are too far apart, the images are too. A mirror costs nothing then: it turns the sign
of the odd part of a thumbnail and leaves the even part as it is.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

LEAST_CORRELATION = 0.9
LEAST_STRUCTURE = 0.8
DECIMALS = 4  # of what is stored, and held against the thresholds: the last bits may differ between processors
NOISE = 2.5  # squared grey levels: a block that varies less is smooth
BLOCK = 512  # images: the products of two blocks stay in a processor's cache
CHUNK = 500  # images or pairs in float64 at once
MOST_CANDIDATES = 500_000  # CIFAR-10 has 136,000
SCALE = 3_000  # makes thumbnails whole numbers whose products stay below 2^24, exact in float32 in whatever order
ROUNDING = 0.0025  # more than that can change in a correlation


class Pairs(NamedTuple):
    """One element a pair, by the places of its images; `first` is the smaller one, and `mirrored` is `second`."""

    first: Indices
    second: Indices
    mirrored: NDArray[np.bool_]
    correlation: Floats
    structure: Floats


NO_PAIRS = Pairs._make(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.bool_, np.float64, np.float64))


class Images(Protocol):
    """Images as uint8 [N, 3, 32, 32], all or some of them: an array, or what can be read like one."""

    def __len__(self) -> int: ...

    def __getitem__(self, places: slice | Indices) -> NDArray[np.uint8]: ...


class Search(NamedTuple):
    """What was found; `complete` is false where so many images look alike that the search was given up."""

    pairs: Pairs
    complete: bool


class Thumbnails(NamedTuple):
    """Whole numbers as float32, split by the vertical axis of symmetry, with minus half their squared length."""

    even: Tensor
    odd: Tensor
    minus_half_square: Tensor


def find_near_duplicates(images: Images) -> Search:
    """Search among all pairs of images; takes about a kilobyte of memory an image."""
    thumbnails = _thumbnails(images)
    found, looked_at = [NO_PAIRS], 0
    # One thread a block: threads that share its small products would wait for each other at each of them.
    usual = torch.get_num_threads()
    pool = ThreadPoolExecutor(usual, initializer=torch.set_num_threads, initargs=(1,))
    try:
        for candidates, pairs in pool.map(partial(_search_block, images, thumbnails), range(0, len(images), BLOCK)):
            found.append(pairs)
            looked_at += candidates
            if looked_at > MOST_CANDIDATES:
                return Search(_in_order(found), complete=False)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(usual)
    return Search(_in_order(found), complete=True)


def _search_block(images: Images, thumbnails: Thumbnails, start: int) -> tuple[int, Pairs]:
    """How many candidates there are for the images of a block with all later ones, and which of them are pairs."""
    found, looked_at = [NO_PAIRS], 0
    for first, second in _candidates(thumbnails, start):
        looked_at += len(first)
        if looked_at > MOST_CANDIDATES:
            break
        for place in range(0, len(first), CHUNK):
            chunk = slice(place, place + CHUNK)
            found.append(_near_duplicates(images, first[chunk], second[chunk]))
    return looked_at, _in_order(found)


def _thumbnails(images: Images) -> Thumbnails:
    parts = [_thumbnails_of(images[start : start + CHUNK]) for start in range(0, len(images), CHUNK)]
    return Thumbnails._make(torch.cat(part) for part in zip(*parts, strict=True))


def _thumbnails_of(images: NDArray[np.uint8]) -> Thumbnails:
    small = _halved(_layout(_halved(images))) / 2
    left, mirrored_right = small[..., :4], small[..., :3:-1]
    halves = (left + mirrored_right, left - mirrored_right)
    even, odd = (np.rint(half.reshape(len(images), -1) * (SCALE / np.sqrt(2))) for half in halves)
    square = (even**2).sum(axis=1) + (odd**2).sum(axis=1)
    return Thumbnails._make(torch.from_numpy(part.astype(np.float32)) for part in (even, odd, -square / 2))


def _candidates(thumbnails: Thumbnails, start: int) -> Iterator[tuple[Indices, Indices]]:
    """Pairs of the block at `start` with a later image whose thumbnails are close, as they are or mirrored."""
    even, odd, square = thumbnails
    one = torch.ones_like(square)
    block = slice(start, start + BLOCK)
    rows = torch.column_stack([even[block], square[block], one[block]])
    least = (LEAST_CORRELATION - ROUNDING - 1) * SCALE**2
    for other in range(start, len(even), BLOCK):
        others = slice(other, other + BLOCK)
        # Minus half the squared distance.
        closeness = rows @ torch.column_stack([even[others], one[others], square[others]]).T
        closeness += (odd[block] @ odd[others].T).abs_()
        close = closeness >= least
        first, second = (close.triu_(1) if other == start else close).nonzero(as_tuple=True)
        yield first.numpy() + start, second.numpy() + other


def _near_duplicates(images: Images, first: Indices, second: Indices) -> Pairs:
    """Those of the pairs that are near-duplicates, each the way round in which it correlates better."""
    one, other = _halved(images[first]), _halved(images[second])
    layouts = _layout(one), _layout(other)
    as_they_are, as_mirrored = (_correlation(layouts[0], layout) for layout in (layouts[1], layouts[1][..., ::-1]))
    correlation, mirrored = np.maximum(as_they_are, as_mirrored), as_mirrored > as_they_are
    alike = np.flatnonzero(correlation >= LEAST_CORRELATION)
    turned = np.where(mirrored[alike, None, None, None], other[alike][..., ::-1], other[alike])
    structure = _structure(one[alike], turned)
    chosen = structure >= LEAST_STRUCTURE
    kept = alike[chosen]
    return Pairs(first[kept], second[kept], mirrored[kept], correlation[kept], structure[chosen])


def _halved(images: NDArray[Any]) -> Floats:
    """Sums over 2×2 pixels."""
    rows = images[:, :, ::2].astype(np.float64) + images[:, :, 1::2]
    halved: Floats = rows[..., ::2] + rows[..., 1::2]
    return halved


def _layout(halved: Floats) -> Floats:
    """Each channel less its mean, at length 1 over all; without any contrast it is all 0, and correlates with none."""
    centred: Floats = halved - halved.mean(axis=(2, 3), keepdims=True)
    length = np.sqrt((centred**2).sum(axis=(1, 2, 3), keepdims=True))
    layout: Floats = centred / np.where(length > 0, length, 1)
    return layout


def _correlation(some: Floats, others: Floats) -> Floats:
    correlation: Floats = np.round((some * others).sum(axis=(1, 2, 3)), DECIMALS)
    return correlation


def _structure(some: Floats, others: Floats) -> Floats:
    one, other = _grey_blocks(some), _grey_blocks(others)
    covariance = (one * other).mean(axis=2)
    deviations = np.sqrt((one**2).mean(axis=2) * (other**2).mean(axis=2))
    structure: Floats = np.round(((covariance + NOISE) / (deviations + NOISE)).mean(axis=1), DECIMALS)
    return structure


def _grey_blocks(halved: Floats) -> Floats:
    """Grey levels in sixteen blocks of 4×4, each less its mean: [N, 16, 16]."""
    grey = halved.mean(axis=1) / 4
    blocks = grey.reshape(-1, 4, 4, 4, 4).swapaxes(2, 3).reshape(-1, 16, 16)
    centred: Floats = blocks - blocks.mean(axis=2, keepdims=True)
    return centred


def _in_order(found: list[Pairs]) -> Pairs:
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Pairs._make(column[order] for column in columns)

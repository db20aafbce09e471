"""Search for near-duplicates: the same picture with other brightness, contrast or noise, or mirrored.

Images are downsampled to 16×16. Two of them match, as they are or with one mirrored, if both numbers are high:

- `correlation`: Pearson's over all pixels, with each channel's mean removed; compares the layout.
- `structure`: the structure term of SSIM (Wang et al. 2004) in grey, mean over sixteen blocks; compares details.
  Correlation alone also matches different ships on the horizon.

The search is exhaustive. Thumbnails of 8×8 are compared first, all with all; averaging never increases distances, so
the thumbnails of a match are close too. Mirroring a thumbnail only changes the sign of its odd part.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
ReadImages = Callable[[Indices], NDArray[np.uint8]]  # returns [N, 3, 32, 32]

MIN_CORRELATION = 0.9
MIN_STRUCTURE = 0.8
DECIMALS = 4  # rounded before the comparison with a minimum: the last bits may differ between processors
NOISE_VARIANCE = 2.5  # squared grey levels: a block with less variance is smooth
BLOCK_IMAGES = 512  # the products of two blocks fit a processor's cache
CHUNK_IMAGES = 500  # in float64 at once
MAX_CANDIDATES = 500_000  # CIFAR-10 has 136,000
THUMBNAIL_SCALE = 3_000  # to integers whose products stay below 2^24, exact in float32 in any order
ROUNDING_MARGIN = 0.0025  # above the effect of that rounding on a correlation


class Pairs(NamedTuple):
    """Pairs of images by index, one element per pair; `first` < `second`, and `mirrored` is about the second."""

    first: Indices
    second: Indices
    mirrored: NDArray[np.bool_]
    correlation: Floats
    structure: Floats


NO_PAIRS = Pairs._make(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.bool_, np.float64, np.float64))


class Thumbnails(NamedTuple):
    """Even and odd parts of thumbnails about the vertical axis, as integers in float32, and -½ squared length."""

    even: Tensor
    odd: Tensor
    minus_half_square: Tensor


def find_near_duplicates(read: ReadImages, indices: Indices) -> tuple[Pairs, bool]:
    """Compare all pairs of the images with these increasing indices; needs about a kilobyte of memory per image.

    The second result is false if the search stopped because too many images are similar.
    """
    chunks = [_build_thumbnails(read(chunk)) for chunk in _split(indices)]
    thumbnails = Thumbnails._make(torch.cat(part) for part in zip(*chunks, strict=True))
    parts, candidate_count = [NO_PAIRS], 0
    # One torch thread per block: threads that share such small products mostly wait for each other.
    torch_threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(torch_threads, initializer=torch.set_num_threads, initargs=(1,))
    starts = range(0, len(indices), BLOCK_IMAGES)
    try:
        for block_candidates, block_parts in pool.map(partial(_search_block, read, indices, thumbnails), starts):
            parts += block_parts
            candidate_count += block_candidates
            if candidate_count > MAX_CANDIDATES:
                break
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(torch_threads)
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.lexsort((columns[1], columns[0]))
    return Pairs._make(column[order] for column in columns), candidate_count <= MAX_CANDIDATES


def _search_block(read: ReadImages, indices: Indices, thumbnails: Thumbnails, start: int) -> tuple[int, list[Pairs]]:
    """Count the candidates between a block and all later images, and return those that are near-duplicates."""
    parts, candidate_count = list[Pairs](), 0
    for first, second in _find_candidates(thumbnails, start):
        candidate_count += len(first)
        if candidate_count > MAX_CANDIDATES:
            break
        chunks = zip(_split(indices[first]), _split(indices[second]), strict=True)
        parts += [_filter_pairs(read, *chunk) for chunk in chunks]
    return candidate_count, parts


def _split(indices: Indices) -> list[Indices]:
    return [indices[start : start + CHUNK_IMAGES] for start in range(0, len(indices), CHUNK_IMAGES)]


def _build_thumbnails(images: NDArray[np.uint8]) -> Thumbnails:
    small = _downsample(_standardize(_downsample(images))) / 2
    left, mirrored_right = small[..., :4], small[..., :3:-1]
    halves = (left + mirrored_right, left - mirrored_right)
    even, odd = (np.rint(half.reshape(len(images), -1) * (THUMBNAIL_SCALE / np.sqrt(2))) for half in halves)
    square = (even**2).sum(axis=1) + (odd**2).sum(axis=1)
    return Thumbnails._make(torch.from_numpy(part.astype(np.float32)) for part in (even, odd, -square / 2))


def _find_candidates(thumbnails: Thumbnails, start: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield the pairs of an image in the block at `start` and a later one whose thumbnails are close."""
    even, odd, minus_half_square = thumbnails
    block = slice(start, start + BLOCK_IMAGES)
    # Of minus half the squared distance, whose terms are the products and -½ the squared length of both.
    threshold = (MIN_CORRELATION - ROUNDING_MARGIN - 1) * THUMBNAIL_SCALE**2 - minus_half_square[block, None]
    for other_start in range(start, len(even), BLOCK_IMAGES):
        others = slice(other_start, other_start + BLOCK_IMAGES)
        closeness = torch.addmm(minus_half_square[others], even[block], even[others].T)
        closeness += (odd[block] @ odd[others].T).abs_()  # the absolute value takes the better of both orientations
        is_close = closeness >= threshold
        first, second = (is_close.triu_(1) if other_start == start else is_close).nonzero(as_tuple=True)
        yield first.numpy() + start, second.numpy() + other_start


def _filter_pairs(read: ReadImages, first: Indices, second: Indices) -> Pairs:
    """Keep the pairs that are near-duplicates, each in the orientation with the higher correlation."""
    one, other = _downsample(read(first)), _downsample(read(second))
    layout, other_layout = _standardize(one), _standardize(other)
    unmirrored_correlation = _correlate(layout, other_layout)
    mirrored_correlation = _correlate(layout, other_layout[..., ::-1])
    correlation = np.maximum(unmirrored_correlation, mirrored_correlation)
    mirrored = mirrored_correlation > unmirrored_correlation
    structure = _compare_structure(one, np.where(mirrored[:, None, None, None], other[..., ::-1], other))
    kept = (correlation >= MIN_CORRELATION) & (structure >= MIN_STRUCTURE)
    return Pairs(first[kept], second[kept], mirrored[kept], correlation[kept], structure[kept])


def _downsample(images: NDArray[Any]) -> Floats:
    rows = images[:, :, ::2].astype(np.float64) + images[:, :, 1::2]
    downsampled: Floats = rows[..., ::2] + rows[..., 1::2]
    return downsampled


def _standardize(images: Floats) -> Floats:
    """Remove each channel's mean and scale to length 1; an image without contrast becomes 0 and matches none."""
    centred: Floats = images - images.mean(axis=(2, 3), keepdims=True)
    length = np.sqrt((centred**2).sum(axis=(1, 2, 3), keepdims=True))
    standardized: Floats = centred / np.where(length > 0, length, 1)
    return standardized


def _correlate(some: Floats, others: Floats) -> Floats:
    correlation: Floats = np.round((some * others).sum(axis=(1, 2, 3)), DECIMALS)
    return correlation


def _compare_structure(some: Floats, others: Floats) -> Floats:
    one, other = _grey_blocks(some), _grey_blocks(others)
    covariance = (one * other).mean(axis=2)
    deviations = np.sqrt((one**2).mean(axis=2) * (other**2).mean(axis=2))
    similarity = (covariance + NOISE_VARIANCE) / (deviations + NOISE_VARIANCE)
    structure: Floats = np.round(similarity.mean(axis=1), DECIMALS)
    return structure


def _grey_blocks(downsampled: Floats) -> Floats:
    """Grey levels in sixteen blocks of 4×4, with each block's mean removed: [N, 16, 16]."""
    grey = downsampled.mean(axis=1) / 4
    blocks = grey.reshape(-1, 4, 4, 4, 4).swapaxes(2, 3).reshape(-1, 16, 16)
    centred: Floats = blocks - blocks.mean(axis=2, keepdims=True)
    return centred

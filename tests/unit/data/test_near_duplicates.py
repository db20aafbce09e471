"""Near-duplicates: which pairs of images match, and the completeness of the search."""

from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tasks.core.data import near_duplicates
from tasks.core.data.near_duplicates import Pairs, find_near_duplicates

Images = NDArray[np.uint8]


def pictures(count: int, seed: int = 0) -> Images:
    """Different images of random 8×8 pixels, enlarged; mid-range greys, so that noise is not clipped."""
    small = np.random.default_rng(seed).integers(60, 180, (count, 3, 8, 8), dtype=np.uint8)
    return small.repeat(4, axis=2).repeat(4, axis=3)


def noisy(image: Images, deviation: float = 4) -> Images:
    noise = np.random.default_rng(1).normal(0, deviation, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def search(images: Images) -> tuple[Pairs, bool]:
    return find_near_duplicates(images.__getitem__, np.arange(len(images)))


def pairs_of(images: Images) -> list[tuple[int, int, bool]]:
    pairs, _ = search(images)
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), pairs.mirrored.tolist(), strict=True))


def horizon(seed: int) -> Images:
    """A bright sky above a dark sea, with a texture that depends on the seed."""
    texture = pictures(1, seed)[0] // 8
    texture[:, :16] += 150
    return texture


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BLOCK_IMAGES", "CHUNK_IMAGES"):
        monkeypatch.setattr(near_duplicates, name, 7)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("change", "mirrored"),
    [
        (noisy, False),
        (lambda image: image + 50, False),
        (lambda image: image // 2, False),
        (lambda image: 255 - (255 - image) // 2, False),
        (lambda image: image + np.array([30, 0, 60], np.uint8)[:, None, None], False),  # another tint
        (lambda image: image[..., ::-1], True),
        (lambda image: noisy(image[..., ::-1] // 2), True),
    ],
    ids=["noise", "brighter", "darker", "paler", "tinted", "mirrored", "mirrored, darker and noisy"],
)
def test_a_changed_copy_is_found(change: Callable[[Images], Images], mirrored: bool) -> None:
    images = pictures(20)
    images[13] = change(images[4])
    assert pairs_of(images) == [(4, 13, mirrored)]


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image[:, ::-1],  # upside down
        lambda image: 255 - image,
        lambda image: np.roll(image, 8, axis=2),
        lambda image: image[::-1],  # other colours
    ],
)
def test_a_different_picture_of_the_same_pixels_is_not_found(change: Callable[[Images], Images]) -> None:
    images = pictures(20)
    images[13] = change(images[4])
    assert pairs_of(images) == []


def test_the_same_layout_with_other_details_is_no_near_duplicate() -> None:
    some, other = horizon(seed=1), horizon(seed=2)
    halves = [image.reshape(3, 16, 2, 16, 2).mean(axis=(2, 4)).ravel() for image in (some, other)]
    assert np.corrcoef(halves)[0, 1] > near_duplicates.MIN_CORRELATION
    assert pairs_of(np.stack([some, other, noisy(some, 1)])) == [(0, 2, False)]


def test_images_without_contrast_match_no_image() -> None:
    images = pictures(6)
    images[1], images[2], images[3] = 0, 255, np.array([9, 90, 200], np.uint8)[:, None, None]
    assert pairs_of(images) == []


def test_a_symmetric_picture_is_not_reported_as_mirrored() -> None:
    images = pictures(5)
    images[0, :, :, 16:] = images[0, :, :, 15::-1]
    images[3] = images[0] // 2
    assert pairs_of(images) == [(0, 3, False)]


@pytest.mark.usefixtures("small_blocks")
def test_all_pairs_of_a_group_are_found_in_order() -> None:
    images = pictures(40)
    for index in (2, 9, 23, 39):
        images[index] = noisy(images[2], deviation=index / 20)
    assert pairs_of(images) == [(*pair, False) for pair in combinations((2, 9, 23, 39), 2)]


def test_the_search_finds_the_same_pairs_as_comparing_all_images() -> None:
    """Mixtures of two pictures give many pairs near both thresholds."""
    some, others = (pictures(60, seed).astype(float) for seed in (2, 3))
    some[:] = some[0]
    share = np.linspace(0, 1, 60)[:, None, None, None]
    images = np.rint(some * (1 - share) + others * share).astype(np.uint8)
    first, second = np.triu_indices(60, 1)

    pairs, _ = search(images)
    expected = near_duplicates._filter_pairs(images.__getitem__, first, second)

    assert 60 < len(expected.first) < len(first) - 60
    for column, expected_column in zip(pairs, expected, strict=True):
        assert np.array_equal(column, expected_column)


def test_correlation_equals_that_of_numpy() -> None:
    images = np.concatenate([pictures(1), noisy(pictures(1), 12), pictures(1) // 2])
    pairs, _ = search(images)
    downsampled = images.reshape(3, 3, 16, 2, 16, 2).mean(axis=(3, 5))
    centred = (downsampled - downsampled.mean(axis=(2, 3), keepdims=True)).reshape(3, -1)
    assert pairs.correlation[0] == pytest.approx(np.corrcoef(centred)[0, 1], abs=5e-5)
    assert pairs.correlation[1] == pytest.approx(1, abs=1e-3)
    assert pairs.structure[1] > pairs.structure[0] > near_duplicates.MIN_STRUCTURE


def test_the_result_does_not_depend_on_the_number_of_threads(threads: Callable[[int], None]) -> None:
    images = np.concatenate([pictures(600), noisy(pictures(600), 25)])
    results = []
    for count in (1, 2):
        threads(count)
        results.append(search(images)[0])
    assert len(results[0].first) > 100
    for one, two in zip(*results, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.usefixtures("small_blocks")
def test_a_search_with_too_many_candidates_stops_and_is_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noisy(np.broadcast_to(pictures(1), (21, 3, 32, 32)))
    assert search(images)[1]
    monkeypatch.setattr(near_duplicates, "MAX_CANDIDATES", 100)
    pairs, is_complete = search(images)
    assert not is_complete
    assert 0 < len(pairs.first) <= 100


@pytest.mark.parametrize("count", [1, 2])
def test_one_or_two_images_can_be_searched(count: int) -> None:
    assert pairs_of(pictures(count)) == []

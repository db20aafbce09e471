"""Augmentation: random numbers follow from seed, epoch and image only."""

import pytest
import torch
from torch import Tensor

from tasks.core.recipes import RECIPES, Recipe
from tasks.core.training.augmentation import augment, draw, flip_images, shift_images

IMAGES = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
INDICES = torch.arange(40)


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(RECIPES["tutorial"].model_dump() | changes)


def augmented(indices: Tensor, epoch: int = 1, seed: int = 1, **changes: object) -> Tensor:
    return augment(IMAGES[indices], indices, epoch, recipe(**changes), seed)


def mirrored(image: Tensor) -> Tensor:
    return image.flip(-1)


def test_without_augmentation_images_stay_unchanged() -> None:
    assert torch.equal(augmented(INDICES), IMAGES)


def test_random_flips_mirror_about_half_of_the_images_in_each_epoch() -> None:
    first, second = (augmented(INDICES, epoch, flip="random") for epoch in (1, 2))
    was_flipped = torch.tensor([torch.equal(a, mirrored(b)) for a, b in zip(first, IMAGES, strict=True)])
    stayed = torch.tensor([torch.equal(a, b) for a, b in zip(first, IMAGES, strict=True)])
    assert torch.equal(was_flipped, ~stayed)
    assert 10 < int(was_flipped.sum()) < 30
    assert not torch.equal(first, second)


def test_alternating_flips_mirror_each_image_in_every_other_epoch() -> None:
    first, second, third = (augmented(INDICES, epoch, flip="alternating") for epoch in (1, 2, 3))
    assert torch.equal(first, mirrored(second))
    assert torch.equal(first, third)
    assert not torch.equal(first, IMAGES)
    assert not torch.equal(first, mirrored(IMAGES))


def test_a_shift_moves_the_image_and_reflects_the_border() -> None:
    row = torch.arange(32, dtype=torch.uint8).view(1, 1, 1, 32).expand(3, 1, 32, 32)
    shifted = shift_images(row, down=torch.zeros(3, dtype=torch.long), right=torch.tensor([0, 2, -3]))
    assert shifted[0, 0, 0].tolist() == list(range(32))
    assert shifted[1, 0, 0].tolist() == [2, 1, *range(30)]
    assert shifted[2, 0, 0].tolist() == [*range(3, 32), 30, 29, 28]
    down = shift_images(row.transpose(2, 3), down=torch.tensor([0, 2, -3]), right=torch.zeros(3, dtype=torch.long))
    assert torch.equal(down.transpose(2, 3), shifted)


def test_only_the_chosen_images_are_flipped() -> None:
    is_flipped = torch.tensor([True, False] * 20)
    result = flip_images(IMAGES, is_flipped)
    assert torch.equal(result[0], mirrored(IMAGES[0]))
    assert torch.equal(result[1], IMAGES[1])


def test_shifts_are_uniform_and_bounded() -> None:
    down = draw(torch.arange(10_000), 5, 1, 1)
    counts = torch.bincount(down)
    assert counts.shape == (5,)
    assert counts.min() > 1_800


def test_augmentation_does_not_depend_on_the_batches() -> None:
    settings = {"flip": "random", "shift": 4}
    whole = augmented(INDICES, **settings)
    parts = torch.cat([augmented(part, **settings) for part in INDICES.split(7)])
    backwards = augmented(INDICES.flip(0), **settings).flip(0)
    assert torch.equal(whole, parts)
    assert torch.equal(whole, backwards)


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 2}])
def test_another_seed_or_epoch_gives_other_images(change: dict[str, int]) -> None:
    assert not torch.equal(augmented(INDICES, shift=4), augmented(INDICES, shift=4, **change))

"""Augmentation: what is drawn follows from seed, epoch and image alone."""

import pytest
import torch
from torch import Tensor

from tasks.core.recipes import RECIPES, Recipe
from tasks.core.training.augmentation import augment, draw, flip_images, shift_images

IMAGES = torch.randint(0, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
PLACES = torch.arange(40)


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(RECIPES["tutorial"].model_dump() | changes)


def augmented(places: Tensor, epoch: int = 1, seed: int = 1, **changes: object) -> Tensor:
    return augment(IMAGES[places], places, epoch, recipe(**changes), seed)


def mirrored(image: Tensor) -> Tensor:
    return image.flip(-1)


def test_without_augmentation_images_stay_as_they_are() -> None:
    assert torch.equal(augmented(PLACES), IMAGES)


def test_random_flips_mirror_about_half_and_others_in_each_epoch() -> None:
    first, second = (augmented(PLACES, epoch, flip="random") for epoch in (1, 2))
    was_flipped = torch.tensor([torch.equal(a, mirrored(b)) for a, b in zip(first, IMAGES, strict=True)])
    stayed = torch.tensor([torch.equal(a, b) for a, b in zip(first, IMAGES, strict=True)])
    assert torch.equal(was_flipped, ~stayed)
    assert 10 < int(was_flipped.sum()) < 30
    assert not torch.equal(first, second)


def test_alternating_flips_show_each_image_both_ways_in_two_epochs() -> None:
    first, second, third = (augmented(PLACES, epoch, flip="alternating") for epoch in (1, 2, 3))
    assert torch.equal(first, mirrored(second))
    assert torch.equal(first, third)
    assert not torch.equal(first, IMAGES)
    assert not torch.equal(first, mirrored(IMAGES))


def test_a_shift_moves_the_image_and_reflects_what_comes_in() -> None:
    row = torch.arange(32, dtype=torch.uint8).view(1, 1, 1, 32).expand(3, 1, 32, 32)
    moved = shift_images(row, down=torch.zeros(3, dtype=torch.long), right=torch.tensor([0, 2, -3]))
    assert moved[0, 0, 0].tolist() == list(range(32))
    assert moved[1, 0, 0].tolist() == [2, 1, *range(30)]
    assert moved[2, 0, 0].tolist() == [*range(3, 32), 30, 29, 28]
    down = shift_images(row.transpose(2, 3), down=torch.tensor([0, 2, -3]), right=torch.zeros(3, dtype=torch.long))
    assert torch.equal(down.transpose(2, 3), moved)


def test_flips_and_shifts_are_those_that_were_chosen() -> None:
    chosen = torch.tensor([True, False] * 20)
    result = flip_images(IMAGES, chosen)
    assert torch.equal(result[0], mirrored(IMAGES[0]))
    assert torch.equal(result[1], IMAGES[1])


def test_all_shifts_are_drawn_and_none_is_larger() -> None:
    down = draw(torch.arange(10_000), 5, 1, 1)
    counts = torch.bincount(down)
    assert counts.shape == (5,)
    assert counts.min() > 1_800


def test_what_is_drawn_does_not_depend_on_how_images_are_put_together() -> None:
    settings = {"flip": "random", "shift": 4}
    whole = augmented(PLACES, **settings)
    parts = torch.cat([augmented(part, **settings) for part in PLACES.split(7)])
    backwards = augmented(PLACES.flip(0), **settings).flip(0)
    assert torch.equal(whole, parts)
    assert torch.equal(whole, backwards)


@pytest.mark.parametrize("change", [{"seed": 2}, {"epoch": 2}])
def test_another_seed_and_another_epoch_draw_otherwise(change: dict[str, int]) -> None:
    assert not torch.equal(augmented(PLACES, shift=4), augmented(PLACES, shift=4, **change))

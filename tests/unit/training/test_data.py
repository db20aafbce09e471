"""The held-out images: stratified, and the same in every run."""

import numpy as np
import pytest
import torch
from tiny import CLASSES, tiny_dataset

from tasks.core.errors import InputError
from tasks.core.models.factory import init_network
from tasks.core.recipes import RECIPES
from tasks.core.training.data import measure, stratified_mask, training_images

CPU = torch.device("cpu")


def test_nothing_is_held_out_by_default() -> None:
    dataset = tiny_dataset()
    images, held_out = training_images(dataset, 0, CPU)
    assert torch.equal(images.images, torch.from_numpy(np.array(dataset.train_images)))
    assert images.labels.tolist() == dataset.train_labels.tolist()
    assert len(held_out) == 0


def test_every_image_is_either_trained_on_or_held_out() -> None:
    dataset = tiny_dataset(train=50)
    images, held_out = training_images(dataset, 20, CPU)
    assert (len(images), len(held_out)) == (30, 20)
    both = torch.cat([images.images, held_out.images]).flatten(1).tolist()
    assert sorted(both) == sorted(torch.from_numpy(np.array(dataset.train_images)).flatten(1).tolist())


def test_the_split_is_stratified_to_the_nearest_image() -> None:
    labels = np.repeat(np.arange(4, dtype=np.uint8), [1_000, 500, 250, 250])
    mask = stratified_mask(labels, 200)
    assert np.bincount(labels[mask]).tolist() == [100, 50, 25, 25]
    odd = stratified_mask(labels, 101)
    assert odd.sum() == 101
    assert np.abs(np.bincount(labels[odd]) - np.array([50.5, 25.25, 12.625, 12.625])).max() < 1


def test_the_held_out_images_are_the_same_in_every_run() -> None:
    labels = np.arange(30, dtype=np.uint8) % 3
    assert np.flatnonzero(stratified_mask(labels, 6)).tolist() == [1, 3, 11, 13, 20, 21]


def test_each_class_keeps_an_image_to_train_on() -> None:
    with pytest.raises(InputError, match=r"--validation: expected at most 21 of 24 training images, got 22$"):
        training_images(tiny_dataset(train=24), 22, CPU)


def test_measuring_uses_batches_and_restores_the_mode() -> None:
    images, _ = training_images(tiny_dataset(train=1_100), 0, CPU)
    network = init_network(RECIPES["tutorial"].model, len(CLASSES), seed=1).train()
    loss, accuracy = measure(network, images)
    logits = network(images.inputs(0, 1_100))
    assert network.training
    assert loss == pytest.approx(torch.nn.functional.cross_entropy(logits, images.labels).item(), rel=1e-5)
    assert round(accuracy * 1_100) == int((logits.argmax(dim=1) == images.labels).sum())

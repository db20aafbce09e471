"""Training from memory: the same batches and updates as the tutorial's loop, without its data loader."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from tasks.core.config import Recipe
from tasks.core.dataset import Dataset, expand
from tasks.core.device import kernels_for
from tasks.core.errors import InputError
from tasks.core.model import Net, new_network
from tasks.core.store.artifact import Log
from tasks.core.tables import TrainingPoint, training_table, write_table
from tasks.core.weights import Lineage, save_weights

IMAGES_PER_POINT = 8_000  # 2,000 of the tutorial's batches of 4


def train_into(folder: Path, dataset: Dataset, recipe: Recipe, seed: int, device: torch.device, log: Log) -> None:
    """Train, and leave the weights and the loss curve in `folder`."""
    network = new_network(len(dataset.classes), seed).to(device)
    with kernels_for(device, recipe.batch_size):
        curve = train(network, dataset, recipe, seed, device, log)
    lineage = Lineage(recipe=recipe, seed=seed, classes=dataset.classes, dataset=dataset.identity)
    save_weights(folder, network, lineage)
    write_table(folder / "training.parquet", training_table(curve), {"artifact": "weights", **lineage.facts()})


def train(
    network: Net, dataset: Dataset, recipe: Recipe, seed: int, device: torch.device, log: Log
) -> list[TrainingPoint]:
    """Run every step of a recipe; the loss curve has a point for each 8,000 images and for each epoch's end."""
    images = torch.from_numpy(np.array(dataset.train_images)).to(device)
    labels = torch.from_numpy(np.array(dataset.train_labels)).long().to(device)
    optimizer = torch.optim.SGD(network.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum)
    order = torch.Generator().manual_seed(seed)
    curve: list[TrainingPoint] = []
    steps_before = 0
    for epoch in range(1, recipe.epochs + 1):
        step = 0
        for indices in _stretches(len(labels), recipe.batch_size, order):
            chosen = indices.to(device)
            inputs, targets = expand(images[chosen], dataset.normalization), labels[chosen]
            losses = _train_stretch(
                network, optimizer, inputs.split(recipe.batch_size), targets.split(recipe.batch_size)
            )
            step += len(losses)
            running_loss = losses.double().mean().item()
            log(f"[{epoch}, {step:5d}] loss: {running_loss:.3f}")
            _refuse_divergence(running_loss, epoch, step, recipe)
            curve.append(TrainingPoint(steps_before + step, epoch, running_loss, recipe.learning_rate))
        steps_before += step
    return curve


def _stretches(count: int, batch_size: int, order: torch.Generator) -> tuple[Tensor, ...]:
    """One epoch's shuffled indices, in runs of whole batches between two points of the loss curve."""
    stretches: tuple[Tensor, ...] = torch.randperm(count, generator=order).split(
        max(1, IMAGES_PER_POINT // batch_size) * batch_size
    )
    return stretches


def _train_stretch(
    network: Net, optimizer: torch.optim.Optimizer, inputs: Sequence[Tensor], targets: Sequence[Tensor]
) -> Tensor:
    """One step for each batch; the losses [steps] come back at once, so that a GPU is not stopped at every step."""
    losses = []
    for batch, target in zip(inputs, targets, strict=True):
        optimizer.zero_grad()
        loss = cross_entropy(network(batch), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).cpu()


def _refuse_divergence(running_loss: float, epoch: int, step: int, recipe: Recipe) -> None:
    if not isfinite(running_loss):
        raise InputError(
            f"training: expected a finite loss, got {running_loss} by step {step} of epoch {epoch}; "
            f"give a learning rate below {recipe.learning_rate}"
        )

"""Trainings on a few images."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from log_lines import logged_lines
from tiny import save_dataset

from tasks.core.data.dataset import Dataset
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Training

CPU = torch.device("cpu")
TUTORIAL = RECIPES["tutorial"]


def recipe(**changes: object) -> Recipe:
    """The tutorial's recipe with changes."""
    return Recipe.model_validate(TUTORIAL.model_dump() | changes)


# Everything with a state of its own: momentum, schedule, batch statistics, and dropout in evaluation mode too.
STATEFUL = Recipe(
    name="resnet18",
    model="custom_networks:random_network",
    epochs=3,
    batch_size=64,
    learning_rate=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-3,
    schedule="one-cycle",
    label_smoothing=0.1,
    flip="alternating",
    shift=2,
    precision="auto",
)


def training(own: Recipe = TUTORIAL, seed: int = 1, validation: int = 0, processes: int = 1) -> Training:
    return Training(own, seed, Hardware(CPU, processes), validation)


def train(dataset: Dataset, folder: Path, own: Recipe = TUTORIAL, seed: int = 1) -> list[str]:
    """Train into a new folder; the log lines."""
    folder.mkdir()
    with TemporaryDirectory() as images, logged_lines() as lines:
        save_dataset(dataset, Path(images))
        build_weights(folder, Path(images), training(own, seed), Monitor())
    return lines

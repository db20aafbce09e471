"""Trainings on a few images."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from tasks.core.data.dataset import Dataset, save_dataset
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime.device import Hardware
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Training

CPU = torch.device("cpu")
TUTORIAL = RECIPES["tutorial"]


def recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(TUTORIAL.model_dump() | changes)


def trained(dataset: Dataset, folder: Path, own: Recipe = TUTORIAL, seed: int = 1) -> list[str]:
    """Train into a new folder, and return what was said."""
    folder.mkdir()
    said: list[str] = []
    with TemporaryDirectory() as images:
        save_dataset(dataset, Path(images))
        build_weights(folder, Path(images), training(own, seed), Monitor(said.append))
    return said


def training(own: Recipe = TUTORIAL, seed: int = 1, validation: int = 0) -> Training:
    return Training(own, seed, Hardware(CPU), validation)

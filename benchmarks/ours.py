"""Our side, a clean process for each measurement: python benchmarks/ours.py FUNCTION '{"argument": value}'."""

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from processes import answer

from tasks.core.config import Normalization
from tasks.core.data.dataset import build_dataset, load_dataset, normalize_images
from tasks.core.data.synthetic import write_archive
from tasks.core.errors import InputError
from tasks.core.evaluation.evaluate import build_predictions
from tasks.core.models.factory import init_network
from tasks.core.models.weights import Lineage, save_weights
from tasks.core.recipes import RECIPES, Recipe
from tasks.core.runtime.device import choose_hardware
from tasks.core.runtime.parquet import read_table
from tasks.core.training.checkpoint import Checkpoint
from tasks.core.training.curve import TrainingPoint
from tasks.core.training.monitor import Monitor
from tasks.core.training.train import build_weights
from tasks.core.training.trainer import Trainer, Training

Measurement = dict[str, float]
IMAGES_AT_ONCE = 1_000  # that are expanded


def generate(path: str) -> None:
    """An archive of generated images."""
    write_archive(Path(path))


def normalize(archive: str, into: str) -> Measurement:
    """Seconds from an archive to checked arrays on disk, and of a pass over them that expands every training image."""
    folder = Path(into)
    folder.mkdir()
    started = time.perf_counter()
    build_dataset(folder, Path(archive), Normalization())
    stored = time.perf_counter()
    dataset = load_dataset(folder)
    for start in range(0, len(dataset.train_labels), IMAGES_AT_ONCE):
        normalize_images(torch.tensor(dataset.train_images[start : start + IMAGES_AT_ONCE]), dataset.normalization)
    return {"once_s": stored - started, "pass_s": time.perf_counter() - stored}


def train(dataset: str, recipe: str, settings: dict[str, object], seeds: list[int], device: str) -> list[Measurement]:
    """Seconds of training and accuracy on the test images for each seed, one after the other in this process.

    The clock runs from stored arrays to stored weights, so compilation counts; `steps_s` leaves both ends out.
    """
    found: list[Measurement] = []
    chosen = recipe_with(recipe, settings)
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder, clocked_steps() as steps_s:
            training = Training(chosen, seed, choose_hardware(device))
            seconds = timed_training(Path(dataset), training, Path(folder))
            right = accuracy(Path(dataset), training, Path(folder))
        found.append({"seconds": seconds, "steps_s": sum(steps_s), "accuracy": right})
    return found


@contextmanager
def clocked_steps() -> Iterator[list[float]]:
    """The seconds of each training in this block from whitening to the last step, as speed-runs count them."""
    found: list[float] = []
    run = Trainer.run

    def clocked(trainer: Trainer, monitor: Monitor) -> list[TrainingPoint]:
        started = time.perf_counter()
        curve = run(trainer, monitor)
        found.append(time.perf_counter() - started)  # the last point of the curve has waited for a GPU
        return curve

    with patch.object(Trainer, "run", clocked):
        yield found


def recipe_with(name: str, settings: Mapping[str, object]) -> Recipe:
    """A recipe of ours with some settings in the places of its own."""
    recipes = {str(known): recipe for known, recipe in RECIPES.items()}
    if name not in recipes:
        raise InputError(f"recipe: expected one of {', '.join(recipes)}, got {name}")
    return Recipe.model_validate({**recipes[name].model_dump(), **settings})


def timed_training(dataset: Path, training: Training, folder: Path) -> float:
    """The seconds from a stored dataset to stored weights, with checkpoints as in any run."""
    started = time.perf_counter()
    build_weights(folder, dataset, training, Monitor(checkpoint=Checkpoint(folder / "unfinished")))
    return time.perf_counter() - started


def accuracy(dataset: Path, training: Training, weights: Path) -> float:
    """The share of test images that stored weights are right about."""
    build_predictions(weights, dataset, weights, training.recipe, training.hardware.device, {})
    return float(read_table(weights / "predictions.parquet")["correct"].mean())


def new_weights(dataset: str, into: str) -> None:
    """Stored weights of the tutorial's network as it is before training."""
    folder, images = Path(into), load_dataset(Path(dataset))
    folder.mkdir()
    recipe = RECIPES["tutorial"]
    lineage = Lineage(recipe=recipe, seed=1, classes=images.classes, dataset=images.identity)
    save_weights(folder, init_network(recipe.model, len(images.classes), seed=1), lineage)


def evaluate(dataset: str, weights: str) -> Measurement:
    """Seconds from stored weights to a stored table of predictions, and the accuracy that stands in it."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        build_predictions(Path(folder), Path(dataset), Path(weights), RECIPES["tutorial"], torch.device("cpu"), {})
        seconds = time.perf_counter() - started
        correct = read_table(Path(folder) / "predictions.parquet")["correct"]
        return {"seconds": seconds, "accuracy": float(correct.mean())}


if __name__ == "__main__":
    answer(generate, normalize, train, new_weights, evaluate)

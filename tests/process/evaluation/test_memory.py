"""The memory of an evaluation."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny import save_dataset, tiny_dataset

from tasks.core.models.factory import init_network
from tasks.core.models.weights import Lineage, save_weights
from tasks.core.recipes import RECIPES

TUTORIAL = RECIPES["tutorial"]
PEAK = """
import resource, sys
from pathlib import Path
import torch
from tasks.core.evaluation.evaluate import build_predictions, build_per_class
from tasks.core.recipes import RECIPES
dataset, weights = map(Path, sys.argv[1:])
build_predictions(dataset, dataset, weights, RECIPES["tutorial"], torch.device("cpu"), {})
build_per_class(dataset, dataset, {})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_memory(images: int, folder: Path) -> int:
    """Return the peak memory, in bytes, of a process that evaluates this number of memory-mapped images."""
    dataset = folder / f"{images} images"
    dataset.mkdir()
    few = tiny_dataset(train=1, test=1)
    test_images, test_labels = np.zeros((images, 3, 32, 32), np.uint8), np.zeros(images, np.uint8)
    save_dataset(replace(few, test_images=test_images, test_labels=test_labels), dataset)
    done = subprocess.run(
        [sys.executable, "-c", PEAK, dataset, folder / "weights"], check=True, capture_output=True, text=True
    )
    return 1024 * int(done.stdout)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """The additional images take 92 MB."""
    dataset = tiny_dataset(test=1)
    (tmp_path / "weights").mkdir()
    lineage = Lineage(recipe=TUTORIAL, seed=1, classes=dataset.classes, dataset=dataset.identity)
    save_weights(tmp_path / "weights", init_network(TUTORIAL.model, len(dataset.classes), 1), lineage)
    peaks = [peak_memory(images, tmp_path) for images in (2_000, 32_000)]
    assert peaks[1] - peaks[0] < 40e6

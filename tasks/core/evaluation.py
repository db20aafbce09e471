"""Evaluating stored weights on the test images."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn

from tasks.core.config import Normalization
from tasks.core.dataset import Dataset, expand
from tasks.core.recipes import Recipe
from tasks.core.store.artifact import Log
from tasks.core.tables import per_class_table, predictions_table, read_facts, read_table, write_table
from tasks.core.weights import load_lineage, load_network

BATCH_SIZE = 1_000


def predict_into(
    folder: Path,
    dataset: Dataset,
    weights: Path,
    recipe: Recipe,
    device: torch.device,
    inputs: Mapping[str, JsonValue],
) -> None:
    """Leave `predictions.parquet` in `folder`: the stored network's answer for every test image."""
    facts = {"artifact": "predictions", "inputs": dict(inputs), **load_lineage(weights).facts()}
    network = load_network(weights, recipe.model, device)
    batches = []
    for start in range(0, len(dataset.test_labels), BATCH_SIZE):
        images = torch.from_numpy(np.array(dataset.test_images[start : start + BATCH_SIZE])).to(device)
        flip = recipe.test_augmentation == "flip"
        batches.append(class_probabilities(network, images, dataset.normalization, flip=flip))
    table = predictions_table(dataset.test_labels, np.concatenate(batches), dataset.classes)
    write_table(folder / "predictions.parquet", table, facts)


@torch.inference_mode()
def class_probabilities(
    network: nn.Module, images_nchw: Tensor, normalization: Normalization, *, flip: bool = False
) -> NDArray[np.float32]:
    """Softmax of the logits, float32 [N, classes], for one batch of bytes, uint8 [N, 3, 32, 32] on the device.

    With `flip` the logits are the mean of an image's and its mirror image's.
    """
    inputs = expand(images_nchw, normalization)
    logits = (network(inputs) + network(inputs.flip(3))) / 2 if flip else network(inputs)
    probabilities: NDArray[np.float32] = logits.softmax(dim=1).cpu().numpy()
    return probabilities


def summarize_into(folder: Path, predictions: Path, inputs: Mapping[str, JsonValue]) -> None:
    """Leave `per_class.parquet` in `folder`: what the predictions come to for each class."""
    source = predictions / "predictions.parquet"
    facts = {**read_facts(source), "artifact": "per_class", "inputs": dict(inputs)}
    write_table(folder / "per_class.parquet", per_class_table(read_table(source)), facts)


def say_accuracy(per_class: pd.DataFrame, log: Log) -> None:
    """The tutorial's own lines, then the best and the worst class."""
    images, correct = int(per_class["support"].sum()), int(per_class["correct"].sum())
    log(f"Accuracy of the network on the {images} test images: {100 * correct // images} %")
    tested = per_class[per_class["support"] > 0]
    for name, accuracy in zip(tested["class"], tested["accuracy"], strict=True):
        log(f"Accuracy for class {name:5s} is: {100 * accuracy:.1f} %")
    ranked = tested.sort_values("accuracy", ascending=False, kind="stable")
    names, accuracies = list(ranked["class"]), list(ranked["accuracy"])
    log(
        f"Best class: {names[0]} ({100 * accuracies[0]:.1f} %), worst class: {names[-1]} ({100 * accuracies[-1]:.1f} %)"
    )

"""Evaluating stored weights on the test images, some at a time: memory does not grow with their number."""

import time
from collections.abc import Iterator, Mapping
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn
from torch.nn.functional import pad

from tasks.core.config import Normalization
from tasks.core.data.dataset import Dataset, copy_images, expand, load_dataset
from tasks.core.errors import InputError
from tasks.core.evaluation.metrics import SCORES, Scores, Tally
from tasks.core.evaluation.schemas import predictions_columns
from tasks.core.evaluation.tables import (
    calibration_table,
    per_class_table,
    predicted_classes,
    predictions_table,
    read_probabilities,
)
from tasks.core.models.weights import load_lineage, load_network
from tasks.core.recipes import Recipe, TestAugmentation
from tasks.core.runtime.device import float32_precision
from tasks.core.runtime.parquet import ROW_GROUP, read_facts, write_parts, write_table
from tasks.core.runtime.seeding import fixed_seed
from tasks.core.store.artifact import Log

SAID_EVERY_S = 10.0
BATCH_SIZE = 250  # whose activations stay in a processor's cache: twice as fast as 1,000


def build_predictions(
    folder: Path,
    dataset: Path,
    weights: Path,
    recipe: Recipe,
    device: torch.device,
    inputs: Mapping[str, JsonValue],
    log: Log = lambda _: None,
) -> None:
    """Leave `predictions.parquet` in `folder`: the stored network's answer for every test image of a stored dataset."""
    images = load_dataset(dataset)
    facts = {"artifact": "predictions", "inputs": dict(inputs), **load_lineage(weights).facts()}
    network = load_network(weights, recipe.model, device)
    parts = _predict_parts(network, images, device, recipe.test_augmentation, log)
    write_parts(folder / "predictions.parquet", predictions_columns(images.classes), parts, facts)


def _predict_parts(
    network: nn.Module, dataset: Dataset, device: torch.device, augmentation: TestAugmentation, log: Log
) -> Iterator[pa.Table]:
    """The predictions for the test images in their order, a row group at a time; it is said how far it is."""
    said_at = time.monotonic()
    for first in range(0, len(dataset.test_labels), ROW_GROUP):
        labels = dataset.test_labels[first : first + ROW_GROUP]
        probabilities = np.empty((len(labels), len(dataset.classes)), np.float32)
        for start in range(0, len(labels), BATCH_SIZE):
            images = copy_images(dataset.test_images, slice(first + start, first + start + BATCH_SIZE))
            probabilities[start : start + BATCH_SIZE] = class_probabilities(
                network, torch.from_numpy(images).to(device), dataset.normalization, augmentation
            )
            if time.monotonic() - said_at > SAID_EVERY_S:
                log(f"evaluate: {first + start + len(images):,} of {len(dataset.test_labels):,} images")
                said_at = time.monotonic()
        yield predictions_table(labels, probabilities, dataset.classes, first)


@torch.inference_mode()
def class_probabilities(
    network: nn.Module, images_nchw: Tensor, normalization: Normalization, augmentation: TestAugmentation = "none"
) -> NDArray[np.float32]:
    """Softmax of the logits, float32 [N, classes], for one batch of images, uint8 [N, 3, 32, 32] on the device.

    The logits are the mean over the views of an image that `augmentation` asks for; InputError unless all are finite.
    """
    inputs = expand(images_nchw, normalization)
    with float32_precision("float32"), fixed_seed(0, inputs.device):  # some networks draw, as dropout may
        logits = torch.stack([network(view) for view in _views(inputs, augmentation)]).mean(dim=0)
    finite = logits.isfinite().all(dim=1)
    if not finite.all():
        raise InputError(
            f"evaluate: expected finite logits, got infinite ones or NaN for {int((~finite).sum()):,} of "
            f"{len(logits):,} images; the weights have diverged: train with a lower --learning-rate"
        )
    probabilities: NDArray[np.float32] = logits.float().softmax(dim=1).cpu().numpy()
    return probabilities


def _views(inputs: Tensor, augmentation: TestAugmentation) -> Iterator[Tensor]:
    """Images [N, 3, 32, 32] as they are, mirrored, and both shifted by a pixel to each of the four corners."""
    views = [inputs]
    if augmentation == "flip-and-shift":
        edged, size = pad(inputs, (1, 1, 1, 1), mode="reflect"), inputs.shape[2]
        views += [edged[..., top : top + size, left : left + size] for top, left in product((0, 2), (0, 2))]
    for view in views:
        yield view
        if augmentation != "none":
            yield view.flip(3)


def build_per_class(folder: Path, predictions: Path, inputs: Mapping[str, JsonValue]) -> None:
    """Leave `per_class.parquet`, `calibration.parquet` and `scores.json` in `folder`: what the predictions come to."""
    source = predictions / "predictions.parquet"
    facts = {**read_facts(source), "artifact": "per_class", "inputs": dict(inputs)}
    classes = predicted_classes(source)
    tally = Tally(len(classes))
    for labels, probabilities in read_probabilities(source, BATCH_SIZE):
        tally.add(labels, probabilities)
    scores = Scores(images=int(tally.confusion.sum()), scores=tally.scores(), facts=facts)
    write_table(folder / "per_class.parquet", per_class_table(tally.confusion, classes), facts)
    write_table(folder / "calibration.parquet", calibration_table(tally.bins()), facts)
    (folder / SCORES).write_text(scores.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")


def log_accuracy(per_class: pd.DataFrame, log: Log) -> None:
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


def log_scores(scores: Scores, log: Log) -> None:
    """How good the probabilities are, in one line."""
    loss, error = scores.scores["log_loss"], scores.scores["expected_calibration_error"]
    log(f"Log loss: {loss.value:.3f}, expected calibration error: {100 * error.value:.1f} %")

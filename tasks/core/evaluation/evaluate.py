"""The evaluation of stored weights on the test images, batch by batch: memory does not grow with their number."""

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
from tasks.core.data.dataset import Dataset, copy_images, load_dataset, normalize_images
from tasks.core.errors import InputError
from tasks.core.evaluation import tables
from tasks.core.evaluation.intervals import wilson_interval
from tasks.core.evaluation.metrics import SCORES, ScoreAccumulator, Scores
from tasks.core.evaluation.schemas import predictions_columns
from tasks.core.models.weights import load_lineage, load_network
from tasks.core.recipes import Recipe, TestAugmentation
from tasks.core.runtime.device import float32_precision
from tasks.core.runtime.logs import logger
from tasks.core.runtime.parquet import ROW_GROUP, read_facts, write_parts, write_table
from tasks.core.runtime.seeding import fixed_seed

LOG_EVERY_S = 10.0
BATCH_SIZE = 250  # its activations fit a processor's cache: twice as fast as 1,000


def build_predictions(
    folder: Path,
    dataset: Path,
    weights: Path,
    recipe: Recipe,
    device: torch.device,
    inputs: Mapping[str, JsonValue],
) -> None:
    """Write `predictions.parquet` to `folder`: the stored network's prediction for every test image."""
    images = load_dataset(dataset)
    facts = {"artifact": "predictions", "inputs": dict(inputs), **load_lineage(weights).facts()}
    network = load_network(weights, recipe.model, device)
    parts = _predict_parts(network, images, device, recipe.test_augmentation)
    write_parts(folder / "predictions.parquet", predictions_columns(images.classes), parts, facts)


def _predict_parts(
    network: nn.Module, dataset: Dataset, device: torch.device, augmentation: TestAugmentation
) -> Iterator[pa.Table]:
    """Yield the predictions for the test images in order, one row group at a time, and log the progress."""
    logged_at = time.monotonic()
    for first in range(0, len(dataset.test_labels), ROW_GROUP):
        labels = dataset.test_labels[first : first + ROW_GROUP]
        probabilities = np.empty((len(labels), len(dataset.classes)), np.float32)
        for start in range(0, len(labels), BATCH_SIZE):
            images = copy_images(dataset.test_images, slice(first + start, first + start + BATCH_SIZE))
            probabilities[start : start + BATCH_SIZE] = predict_probabilities(
                network, torch.from_numpy(images).to(device), dataset.normalization, augmentation
            )
            if time.monotonic() - logged_at > LOG_EVERY_S:
                logger.info(f"evaluate: {first + start + len(images):,} of {len(dataset.test_labels):,} images")
                logged_at = time.monotonic()
        yield tables.predictions_table(labels, probabilities, dataset.classes, first)


@torch.inference_mode()
def predict_probabilities(
    network: nn.Module, images_nchw: Tensor, normalization: Normalization, augmentation: TestAugmentation = "none"
) -> NDArray[np.float32]:
    """Return the class probabilities of one batch, float32 [N, classes].

    Args:
        images_nchw: uint8 [N, 3, 32, 32], on the network's device.
        augmentation: The views of each image; the logits are averaged over them.

    Raises:
        InputError: Some logits are not finite.
    """
    inputs = normalize_images(images_nchw, normalization)
    with float32_precision("float32"), fixed_seed(0, inputs.device):  # for networks with random layers
        logits = torch.stack([network(view) for view in _views(inputs, augmentation)]).mean(dim=0)
    finite = logits.isfinite().all(dim=1)
    if not finite.all():
        raise InputError(
            "evaluate",
            expected="finite logits",
            got=f"infinity or NaN for {int((~finite).sum()):,} of {len(logits):,} images",
            advice="the weights have diverged: train with a lower --learning-rate",
        )
    probabilities: NDArray[np.float32] = logits.float().softmax(dim=1).cpu().numpy()
    return probabilities


def _views(inputs: Tensor, augmentation: TestAugmentation) -> list[Tensor]:
    """Return the images [N, 3, 32, 32] unchanged, shifted by a pixel to the four corners, and all of these mirrored."""
    if augmentation == "none":
        return [inputs]
    views = [inputs]
    if augmentation == "flip-and-shift":
        padded, size = pad(inputs, (1, 1, 1, 1), mode="reflect"), inputs.shape[2]
        views += [padded[..., top : top + size, left : left + size] for top, left in product((0, 2), (0, 2))]
    return [each for view in views for each in (view, view.flip(3))]


def build_per_class(folder: Path, predictions: Path, inputs: Mapping[str, JsonValue]) -> None:
    """Write `per_class.parquet`, `calibration.parquet` and `scores.json` for stored predictions to `folder`."""
    source = predictions / "predictions.parquet"
    facts = {**read_facts(source), "artifact": "per_class", "inputs": dict(inputs)}
    classes = tables.predicted_classes(source)
    accumulator = ScoreAccumulator(len(classes))
    for labels, probabilities in tables.read_probabilities(source, BATCH_SIZE):
        accumulator.add(labels, probabilities)
    scores = Scores(images=int(accumulator.confusion.sum()), scores=accumulator.scores(), facts=facts)
    write_table(folder / "per_class.parquet", tables.per_class_table(accumulator.confusion, classes), facts)
    write_table(folder / "calibration.parquet", tables.calibration_table(accumulator.bins), facts)
    (folder / SCORES).write_text(scores.model_dump_json(indent=1) + "\n", encoding="utf-8", newline="\n")


def log_accuracy(per_class: pd.DataFrame) -> None:
    """Log the accuracy in the tutorial's own lines, then with its interval, then the best and the worst class."""
    images, correct = int(per_class["support"].sum()), int(per_class["correct"].sum())
    logger.info(f"Accuracy of the network on the {images} test images: {100 * correct // images} %")
    tested = per_class[per_class["support"] > 0]
    for name, accuracy in zip(tested["class"], tested["accuracy"], strict=True):
        logger.info(f"Accuracy for class {name:5s} is: {100 * accuracy:.1f} %")
    interval = "–".join(f"{100 * limit:.1f}" for limit in wilson_interval(correct, images))
    logger.info(f"evaluate: {100 * correct / images:.2f}% on {images:,} test images (95% interval {interval})")
    ranked = tested.sort_values("accuracy", ascending=False, kind="stable").iloc[[0, -1]].to_dict("records")
    best, worst = (f"{row['class']} {100 * row['accuracy']:.1f}%" for row in ranked)
    logger.info(f"evaluate: best class {best}, worst class {worst}")


def log_scores(scores: Scores) -> None:
    """Log the quality of the probabilities in one line."""
    loss, error = scores.scores["log_loss"], scores.scores["expected_calibration_error"]
    logger.info(f"evaluate: log loss {loss.value:.3f}, expected calibration error {100 * error.value:.1f}%")

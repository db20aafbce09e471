"""Scores of predicted probabilities: functions of sums over the images, so that one pass over them is enough."""

from collections.abc import Mapping
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.evaluation.bootstrap import REPLICATES, SEED, Floats, PoissonBootstrap, bootstrap_estimate, to_fractions
from tasks.core.evaluation.intervals import Estimate, proportion_estimate
from tasks.core.frozen_model import FrozenModel

SCORES = "scores.json"
TOP = (2, 3, 5)
BINS = 15  # of equal width, as in Guo et al. (2017), https://arxiv.org/abs/1706.04599
BIN_EDGES = np.linspace(0, 1, BINS + 1)
LEAST = float(np.finfo(np.float32).eps)  # a smaller probability counts as this in the log loss, as in scikit-learn
HIGHEST = {"brier_score": 2.0, "expected_calibration_error": 1.0, "macro_f1": 1.0}
INTERVALS = (
    f"95%; of accuracies: Wilson; of the others: Poisson bootstrap of {REPLICATES:,} replicates from seed {SEED}, "
    "reflected about the value; null where all replicates are alike"
)


class Scores(FrozenModel):
    """What `scores.json` holds: each score by name, on how many images, and what the predictions are of."""

    images: int
    scores: dict[str, Estimate]
    intervals: str = INTERVALS
    facts: dict[str, JsonValue]


def read_scores(folder: Path) -> Scores:
    return Scores.model_validate_json((folder / SCORES).read_text(encoding="utf-8"))


class CalibrationBin(NamedTuple):
    """The images with a confidence above `low` and up to `high`, and the sum of their confidences."""

    low: float
    high: float
    images: int
    correct: int
    confidence: float


class Tally:
    """Sums over the images that were added so far."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.ranks = np.zeros(classes, np.int64)  # images by how many classes were held more probable than their own
        self.confusion = np.zeros((classes, classes), np.int64)  # [label, predicted]
        self._bins = np.zeros((3, BINS))  # images, right ones, confidence
        self._bootstrap = PoissonBootstrap(2 + BINS + 2 * classes)

    def add(self, labels: NDArray[np.intp], probabilities: NDArray[np.float32]) -> None:
        """Count more images in; labels are [N], probabilities [N, classes]."""
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        right, bins = predicted == labels, np.searchsorted(BIN_EDGES[1:-1], confidence)
        confidence = to_fractions(confidence)
        self.ranks += np.bincount(_ranks(labels, probabilities), minlength=self.classes)
        np.add.at(self.confusion, (labels, predicted), 1)
        for sums, weights in zip(self._bins, (None, right, confidence), strict=True):
            sums += np.bincount(bins, weights, minlength=BINS)
        true, answer = np.eye(self.classes)[[labels, predicted]]
        gaps = np.eye(BINS)[bins] * (right - confidence)[:, None]
        losses = [_log_losses(labels, probabilities), _brier_scores(true, probabilities)]
        self._bootstrap.add(np.column_stack([*losses, gaps, true * answer, true + answer]))

    def bins(self) -> list[CalibrationBin]:
        """The calibration of the predictions, in order of confidence."""
        return [
            CalibrationBin(low, high, int(images), int(correct), confidence)
            for (low, high), images, correct, confidence in zip(
                pairwise(BIN_EDGES.tolist()), *self._bins.tolist(), strict=True
            )
        ]

    def scores(self) -> dict[str, Estimate]:
        """Each score by name; top-k accuracies where there are more than k classes."""
        images = int(self.ranks.sum())
        hits = self.ranks.cumsum().tolist()
        tops = {f"top_{k}_accuracy": proportion_estimate(hits[k - 1], images) for k in TOP if k < self.classes}
        others = {
            name: bootstrap_estimate(values, highest=HIGHEST.get(name, inf))
            for name, values in self.replicates().items()
        }
        return {"accuracy": proportion_estimate(hits[0], images), **tops, **others}

    def replicates(self) -> dict[str, Floats]:
        """The scores that are bootstrapped, by name: each of all images first, then of each replicate.

        Tallies of the same images in the same order count each image equally often in a replicate.
        """
        log_loss, brier, *rest = self._bootstrap.means().T
        gaps, right, claims = np.split(np.array(rest), [BINS, BINS + self.classes])
        return {
            "log_loss": log_loss,
            "brier_score": brier,
            "expected_calibration_error": np.abs(gaps).sum(axis=0),
            "macro_f1": _macro_f1(right, claims),
        }


def paired_changes(first: Mapping[str, Floats], second: Mapping[str, Floats]) -> dict[str, Estimate]:
    """How much more the second scores than the first, from their replicates on the same images in the same order."""
    return {name: bootstrap_estimate(second[name] - first[name], lowest=-inf) for name in first}


def _ranks(labels: NDArray[np.intp], probabilities: NDArray[np.float32]) -> NDArray[np.intp]:
    """How many classes come before the true one; of equally probable ones the first, which argmax takes, too."""
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    before: NDArray[np.intp] = np.where(earlier, probabilities >= true, probabilities > true).sum(axis=1)
    return before


def _log_losses(labels: NDArray[np.intp], probabilities: NDArray[np.float32]) -> Floats:
    true = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    losses: Floats = -np.log(np.clip(true, LEAST, 1 - LEAST))
    return losses


def _brier_scores(true: Floats, probabilities: NDArray[np.float32]) -> Floats:
    """The squared distance between the probabilities and the one-hot truth, in [0, 2]."""
    scores: Floats = np.square(probabilities - true).sum(axis=1)
    return scores


def _macro_f1(hits: Floats, claims: Floats) -> Floats:
    """The mean F1 of the classes that an image is of or was taken for; both are [classes, replicates]."""
    told = claims > 0
    f1: Floats = np.divide(2 * hits, claims, out=np.zeros_like(hits), where=told).sum(axis=0) / told.sum(axis=0)
    return f1

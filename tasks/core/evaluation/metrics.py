"""Scores of predicted probabilities, from sums over the images in one pass."""

from collections.abc import Mapping
from math import inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from tasks.core.evaluation.bootstrap import INTERVALS, Floats, PoissonBootstrap, bootstrap_estimate, round_exactly
from tasks.core.evaluation.intervals import Estimate, proportion_estimate
from tasks.core.frozen_model import FrozenModel

SCORES = "scores.json"
TOP_K = (2, 3, 5)
BINS = 15  # of equal width, as in Guo et al. (2017), https://arxiv.org/abs/1706.04599
BIN_EDGES = np.linspace(0, 1, BINS + 1)
MIN_PROBABILITY = float(np.finfo(np.float32).eps)  # lower limit in the log loss, as in scikit-learn
UPPER_BOUNDS = {"brier_score": 2.0, "expected_calibration_error": 1.0, "macro_f1": 1.0}


class Scores(FrozenModel):
    """The content of `scores.json`: each score by name, the number of images, and facts about the predictions."""

    images: int
    scores: dict[str, Estimate]
    intervals: str = INTERVALS
    facts: dict[str, JsonValue]


def read_scores(folder: Path) -> Scores:
    return Scores.model_validate_json((folder / SCORES).read_text(encoding="utf-8"))


class ScoreAccumulator:
    """Sums over the images that were added so far, and the scores that follow from them."""

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.ranks = np.zeros(classes, np.int64)  # images by the number of classes more probable than their label
        self.confusion = np.zeros((classes, classes), np.int64)  # [label, predicted]
        self.bins = np.zeros((3, BINS))  # images, correct ones, and sum of confidences in each bin of confidence
        self._bootstrap = PoissonBootstrap(2 + BINS + 2 * classes)

    def add(self, labels: NDArray[np.intp], probabilities: NDArray[np.float32]) -> None:
        """Add images; labels are [N], probabilities [N, classes].

        The rank of a label is the number of classes before it; ties are in label order, as by argmax.
        """
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        correct, bins = predicted == labels, np.searchsorted(BIN_EDGES[1:-1], confidence)
        confidence = round_exactly(confidence)
        of_label = np.take_along_axis(probabilities, labels[:, None], axis=1)
        is_earlier = np.arange(self.classes) < labels[:, None]
        ranks = np.where(is_earlier, probabilities >= of_label, probabilities > of_label).sum(axis=1)
        self.ranks += np.bincount(ranks, minlength=self.classes)
        np.add.at(self.confusion, (labels, predicted), 1)
        for sums, weights in zip(self.bins, (None, correct, confidence), strict=True):
            sums += np.bincount(bins, weights, minlength=BINS)
        label_one_hot, predicted_one_hot = np.eye(self.classes)[[labels, predicted]]
        gaps = np.eye(BINS)[bins] * (correct - confidence)[:, None]
        log_losses = -np.log(np.clip(of_label.astype(np.float64), MIN_PROBABILITY, 1 - MIN_PROBABILITY))
        brier_scores = np.square(probabilities - label_one_hot).sum(axis=1)
        hits, claims = label_one_hot * predicted_one_hot, label_one_hot + predicted_one_hot
        self._bootstrap.add(np.column_stack([log_losses, brier_scores, gaps, hits, claims]))

    def scores(self) -> dict[str, Estimate]:
        """Return each score by name; top-k accuracies only with more than k classes."""
        images, hits = int(self.ranks.sum()), self.ranks.cumsum().tolist()
        scores = {"accuracy": proportion_estimate(hits[0], images)}
        scores |= {f"top_{k}_accuracy": proportion_estimate(hits[k - 1], images) for k in TOP_K if k < self.classes}
        for name, values in self.replicates().items():
            scores[name] = bootstrap_estimate(values, highest=UPPER_BOUNDS.get(name, inf))
        return scores

    def replicates(self) -> dict[str, Floats]:
        """Return the bootstrapped scores by name: the value for all images first, then one for each replicate.

        Accumulators of the same images in the same order use the same weights, so their replicates are paired.
        """
        log_loss, brier, *rest = self._bootstrap.means().T
        gaps, hits, claims = np.split(np.array(rest), [BINS, BINS + self.classes])
        is_defined = claims > 0  # classes with images or predictions
        f1 = np.divide(2 * hits, claims, out=np.zeros_like(hits), where=is_defined)
        return {
            "log_loss": log_loss,
            "brier_score": brier,
            "expected_calibration_error": np.abs(gaps).sum(axis=0),
            "macro_f1": f1.sum(axis=0) / is_defined.sum(axis=0),
        }


def paired_changes(first: Mapping[str, Floats], second: Mapping[str, Floats]) -> dict[str, Estimate]:
    """Return second minus first for each score, from paired replicates."""
    return {name: bootstrap_estimate(second[name] - first[name], lowest=-inf) for name in first}

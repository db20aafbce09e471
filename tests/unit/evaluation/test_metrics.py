"""Scores, compared with scikit-learn and with calculations by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)
from threadpoolctl import threadpool_limits

from tasks.core.evaluation.intervals import Estimate, proportion_estimate
from tasks.core.evaluation.metrics import BINS, ScoreAccumulator, paired_changes
from tasks.core.evaluation.tables import calibration_table, per_class_table

LabelsAndProbabilities = tuple[NDArray[np.intp], NDArray[np.float32]]
SIZES = [(2, 300), (3, 50), (10, 2_500), (40, 30), (256, 1_200)]


def random_predictions(classes: int, images: int, seed: int = 0, sharpness: float = 2.0) -> LabelsAndProbabilities:
    """Return labels and random class probabilities that favour them."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = sharpness * rng.standard_normal((images, classes))
    logits[np.arange(images), labels] += sharpness
    odds = np.exp(logits)
    return labels, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def accumulate(
    labels: NDArray[np.intp], probabilities: NDArray[np.float32], batch_size: int = 1_000
) -> ScoreAccumulator:
    accumulator = ScoreAccumulator(probabilities.shape[1])
    for start in range(0, len(labels), batch_size):
        accumulator.add(labels[start : start + batch_size], probabilities[start : start + batch_size])
    return accumulator


def scores(labels: list[int], probabilities: list[list[float]]) -> dict[str, Estimate]:
    return accumulate(np.array(labels), np.array(probabilities, np.float32)).scores()


# Comparison with scikit-learn


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_scores_equal_those_of_scikit_learn(classes: int, images: int) -> None:
    labels, probabilities = random_predictions(classes, images)
    predicted, every = probabilities.argmax(axis=1), np.arange(classes)
    expected = {
        "accuracy": accuracy_score(labels, predicted),
        "log_loss": log_loss(labels, y_proba=probabilities, labels=every),
        "brier_score": brier_score_loss(
            labels, y_proba=probabilities[:, 1] if classes == 2 else probabilities, labels=every, scale_by_half=False
        ),
        "macro_f1": f1_score(labels, predicted, average="macro"),
        **{
            f"top_{k}_accuracy": top_k_accuracy_score(labels, probabilities, k=k, labels=every)
            for k in (2, 3, 5)
            if k < classes
        },
    }
    values = {name: estimate.value for name, estimate in accumulate(labels, probabilities).scores().items()}
    assert values.pop("expected_calibration_error") > 0
    assert values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_numbers_per_class_equal_those_of_scikit_learn(classes: int, images: int) -> None:
    labels, probabilities = random_predictions(classes, images)
    predicted, every = probabilities.argmax(axis=1), np.arange(classes)
    accumulator = accumulate(labels, probabilities)
    table = per_class_table(accumulator.confusion, [f"class {number}" for number in every]).to_pandas()
    expected = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    assert np.array_equal(accumulator.confusion, confusion_matrix(labels, predicted, labels=every))
    for name, values in zip(("precision", "accuracy", "f1", "support"), expected, strict=True):
        assert np.allclose(table[name], values, atol=1e-12, equal_nan=True), name


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_calibration_bins_equal_those_of_scikit_learn(classes: int, images: int) -> None:
    labels, probabilities = random_predictions(classes, images)
    right, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    table = calibration_table(accumulate(labels, probabilities).bins).to_pandas()
    filled = table[table["images"] > 0]
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS)
    assert np.allclose(filled["accuracy"], accuracies)
    assert np.allclose(filled["confidence"], confidences)
    assert table["images"].sum() == images
    error = (filled["images"] * np.abs(accuracies - confidences)).sum() / images
    assert accumulate(labels, probabilities).scores()["expected_calibration_error"].value == pytest.approx(error)


# By hand


def test_the_calibration_error_equals_a_calculation_by_hand() -> None:
    estimates = scores([0, 0, 0, 0], [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    # 90% sure of three and right about two of them, 60% sure of one and right
    expected = (3 * abs(2 / 3 - 0.9) + 1 * abs(1 - 0.6)) / 4
    assert estimates["expected_calibration_error"].value == pytest.approx(expected)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    bins = accumulate(np.array([0, 1]), np.array([[1, 0], [0.5, 0.5]], np.float32)).bins
    images, correct, _ = bins.astype(int).tolist()
    assert {index: (images[index], correct[index]) for index in range(BINS) if images[index]} == {7: (1, 0), 14: (1, 1)}


def test_ties_are_ranked_in_label_order() -> None:
    third = 1 / 3
    assert scores([0], [[third] * 3])["accuracy"].value == 1
    assert scores([1], [[third] * 3])["accuracy"].value == 0
    assert scores([1], [[third] * 3])["top_2_accuracy"].value == 1
    assert scores([2], [[third] * 3])["top_2_accuracy"].value == 0


def test_top_k_is_left_out_with_k_or_fewer_classes() -> None:
    names = {
        classes: [name for name in accumulate(*random_predictions(classes, 9)).scores() if "top" in name]
        for classes in (2, 3, 5)
    }
    assert names == {2: [], 3: ["top_2_accuracy"], 5: ["top_2_accuracy", "top_3_accuracy"]}


def test_a_probability_of_zero_costs_what_scikit_learn_charges() -> None:
    probabilities = np.array([[0, 1], [1, 0]], np.float32)
    estimate = accumulate(np.array([0, 0]), probabilities).scores()["log_loss"]
    assert estimate.value == pytest.approx(log_loss([0, 0], y_proba=probabilities, labels=[0, 1]), abs=1e-6)
    assert 0 <= estimate.low <= estimate.value <= estimate.high  # type: ignore[operator]


def test_one_image_has_only_wilson_intervals() -> None:
    estimates = scores([2], [[0.2, 0.3, 0.5]])
    assert estimates["accuracy"] == proportion_estimate(1, 1)
    assert estimates["macro_f1"] == Estimate(1, None, None)
    assert estimates["log_loss"] == Estimate(pytest.approx(-np.log(0.5)), None, None)


# Intervals


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_every_interval_contains_its_score_and_stays_in_range(classes: int, images: int) -> None:
    for name, estimate in accumulate(*random_predictions(classes, images)).scores().items():
        assert estimate.low is not None
        assert estimate.high is not None
        assert 0 <= estimate.low <= estimate.value <= estimate.high, name
        assert estimate.high <= {"log_loss": 20, "brier_score": 2}.get(name, 1), name


def test_the_interval_of_a_mean_is_the_normal_one() -> None:
    labels, probabilities = random_predictions(10, 4_000)
    losses = -np.log(probabilities[np.arange(4_000), labels])
    estimate = accumulate(labels, probabilities).scores()["log_loss"]
    half = 1.96 * losses.std() / np.sqrt(4_000)
    assert (estimate.low, estimate.high) == pytest.approx((losses.mean() - half, losses.mean() + half), abs=0.1 * half)


def test_the_intervals_cover_the_true_scores() -> None:
    labels, probabilities = random_predictions(3, 40_000)
    truth = {name: estimate.value for name, estimate in accumulate(labels, probabilities).scores().items()}
    covered = dict.fromkeys(truth, 0)
    for start in range(0, 40_000, 400):
        sample = accumulate(labels[start : start + 400], probabilities[start : start + 400]).scores()
        for name, estimate in sample.items():
            covered[name] += estimate.low <= truth[name] <= estimate.high  # type: ignore[operator]
    for name, times in covered.items():
        assert times >= 88, name  # of 100


def test_the_interval_of_a_calibrated_network_reaches_zero() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(2_000)
    labels = (rng.random(2_000) > first).astype(int)
    estimates = accumulate(labels, np.column_stack([first, 1 - first]).astype(np.float32)).scores()
    assert estimates["expected_calibration_error"].low < 0.01  # type: ignore[operator]
    assert estimates["expected_calibration_error"].value > 0.01


# Streaming


def test_scores_do_not_depend_on_the_batch_size() -> None:
    labels, probabilities = random_predictions(7, 2_400)
    first, *others = (accumulate(labels, probabilities, batch_size) for batch_size in (2_400, 1_000, 333, 1))
    for other in others:
        assert other.scores() == first.scores()
        assert np.array_equal(other.bins, first.bins)


def test_scores_do_not_depend_on_the_number_of_threads() -> None:
    results = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            results.append(accumulate(*random_predictions(50, 3_000)).scores())
    assert results[0] == results[1]


# Changes from one network to another on the same images


def test_a_change_has_the_interval_of_paired_images() -> None:
    labels, before = random_predictions(10, 2_000)
    _, other = random_predictions(10, 2_000, seed=1)
    after = ((0.8 * before + 0.2 * other) / (0.8 * before + 0.2 * other).sum(axis=1, keepdims=True)).astype(np.float32)
    first, second = accumulate(labels, before), accumulate(labels, after, batch_size=300)

    change = paired_changes(first.replicates(), second.replicates())["log_loss"]

    rows = np.arange(len(labels))
    gaps = np.log(before[rows, labels].astype(float)) - np.log(after[rows, labels].astype(float))
    half = 1.96 * gaps.std() / np.sqrt(len(gaps))
    assert change.value == pytest.approx(gaps.mean(), abs=1e-5)
    assert change.low == pytest.approx(gaps.mean() - half, abs=0.15 * half)
    assert change.high == pytest.approx(gaps.mean() + half, abs=0.15 * half)


def test_an_improvement_lowers_losses_and_raises_f1() -> None:
    labels, worse = random_predictions(5, 400)
    better = ((worse + np.eye(5)[labels]) / 2).astype(np.float32)
    changes = paired_changes(accumulate(labels, worse).replicates(), accumulate(labels, better).replicates())

    for name in ("log_loss", "brier_score"):
        assert changes[name].low < changes[name].value < changes[name].high < 0  # type: ignore[operator]
    assert changes["macro_f1"].low > 0  # type: ignore[operator]


def test_no_change_has_no_interval() -> None:
    labels, probabilities = random_predictions(3, 50)
    replicates = accumulate(labels, probabilities).replicates()

    assert set(paired_changes(replicates, replicates).values()) == {Estimate(0, None, None)}


def test_the_intervals_cover_the_true_changes() -> None:
    labels, before = random_predictions(3, 40_000)
    _, other = random_predictions(3, 40_000, seed=1)
    after = (0.8 * before + 0.2 * other).astype(np.float32)
    truth = paired_changes(accumulate(labels, before).replicates(), accumulate(labels, after).replicates())
    covered = dict.fromkeys(truth, 0)
    for start in range(0, 40_000, 400):
        sample = slice(start, start + 400)
        first, second = (accumulate(labels[sample], each[sample]).replicates() for each in (before, after))
        for name, estimate in paired_changes(first, second).items():
            covered[name] += estimate.low <= truth[name].value <= estimate.high  # type: ignore[operator]
    for name, times in covered.items():
        assert times >= 88, name  # of 100

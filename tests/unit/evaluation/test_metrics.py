"""Scores, against scikit-learn's and against slow counting."""

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
from tasks.core.evaluation.metrics import BINS, Tally, paired_changes
from tasks.core.evaluation.tables import calibration_table, per_class_table

Answers = tuple[NDArray[np.intp], NDArray[np.float32]]
SIZES = [(2, 300), (3, 50), (10, 2_500), (40, 30), (256, 1_200)]


def answers(classes: int, images: int, seed: int = 0, sharpness: float = 2.0) -> Answers:
    """Labels, and the softmax of logits that lean to the truth."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    logits = sharpness * rng.standard_normal((images, classes))
    logits[np.arange(images), labels] += sharpness
    odds = np.exp(logits)
    return labels, (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)


def tally(labels: NDArray[np.intp], probabilities: NDArray[np.float32], at_once: int = 1_000) -> Tally:
    found = Tally(probabilities.shape[1])
    for start in range(0, len(labels), at_once):
        found.add(labels[start : start + at_once], probabilities[start : start + at_once])
    return found


def scores(labels: list[int], probabilities: list[list[float]]) -> dict[str, Estimate]:
    return tally(np.array(labels), np.array(probabilities, np.float32)).scores()


# Against scikit-learn


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_scores_are_those_of_scikit_learn(classes: int, images: int) -> None:
    labels, probabilities = answers(classes, images)
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
    found = {name: estimate.value for name, estimate in tally(labels, probabilities).scores().items()}
    assert found.pop("expected_calibration_error") > 0
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_numbers_by_class_are_those_of_scikit_learn(classes: int, images: int) -> None:
    labels, probabilities = answers(classes, images)
    predicted, every = probabilities.argmax(axis=1), np.arange(classes)
    found = tally(labels, probabilities)
    table = per_class_table(found.confusion, [f"class {number}" for number in every]).to_pandas()
    expected = precision_recall_fscore_support(labels, predicted, labels=every, zero_division=np.nan)
    assert np.array_equal(found.confusion, confusion_matrix(labels, predicted, labels=every))
    for name, values in zip(("precision", "accuracy", "f1", "support"), expected, strict=True):
        assert np.allclose(table[name], values, atol=1e-12, equal_nan=True), name


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_calibration_bins_are_those_of_scikit_learn(classes: int, images: int) -> None:
    labels, probabilities = answers(classes, images)
    right, confidence = probabilities.argmax(axis=1) == labels, probabilities.max(axis=1)
    table = calibration_table(tally(labels, probabilities).bins()).to_pandas()
    held = table[table["images"] > 0]
    accuracies, confidences = calibration_curve(right, confidence, n_bins=BINS)
    assert np.allclose(held["accuracy"], accuracies)
    assert np.allclose(held["confidence"], confidences)
    assert table["images"].sum() == images
    error = (held["images"] * np.abs(accuracies - confidences)).sum() / images
    assert tally(labels, probabilities).scores()["expected_calibration_error"].value == pytest.approx(error)


# By hand


def test_the_calibration_error_of_a_few_images_is_that_of_a_calculation_by_hand() -> None:
    found = scores([0, 0, 0, 0], [[0.9, 0.1], [0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    # 90% sure of three and right about two of them, 60% sure of one and right
    expected = (3 * abs(2 / 3 - 0.9) + 1 * abs(1 - 0.6)) / 4
    assert found["expected_calibration_error"].value == pytest.approx(expected)


def test_the_fullest_confidence_is_in_the_last_bin_and_the_least_possible_one_in_its_own() -> None:
    bins = tally(np.array([0, 1]), np.array([[1, 0], [0.5, 0.5]], np.float32)).bins()
    assert [(place, each.images, each.correct) for place, each in enumerate(bins) if each.images] == [
        (7, 1, 0),
        (14, 1, 1),
    ]


def test_of_equally_probable_classes_the_first_comes_first() -> None:
    third = 1 / 3
    assert scores([0], [[third] * 3])["accuracy"].value == 1
    assert scores([1], [[third] * 3])["accuracy"].value == 0
    assert scores([1], [[third] * 3])["top_2_accuracy"].value == 1
    assert scores([2], [[third] * 3])["top_2_accuracy"].value == 0


def test_top_k_is_left_out_where_every_answer_would_be_a_hit() -> None:
    names = {classes: [name for name in tally(*answers(classes, 9)).scores() if "top" in name] for classes in (2, 3, 5)}
    assert names == {2: [], 3: ["top_2_accuracy"], 5: ["top_2_accuracy", "top_3_accuracy"]}


def test_a_true_class_of_probability_nought_costs_what_scikit_learn_charges() -> None:
    probabilities = np.array([[0, 1], [1, 0]], np.float32)
    found = tally(np.array([0, 0]), probabilities).scores()["log_loss"]
    assert found.value == pytest.approx(log_loss([0, 0], y_proba=probabilities, labels=[0, 1]), abs=1e-6)
    assert 0 <= found.low <= found.value <= found.high  # type: ignore[operator]


def test_one_image_has_every_score_and_no_interval_but_wilsons() -> None:
    found = scores([2], [[0.2, 0.3, 0.5]])
    assert found["accuracy"] == proportion_estimate(1, 1)
    assert found["macro_f1"] == Estimate(1, None, None)
    assert found["log_loss"] == Estimate(pytest.approx(-np.log(0.5)), None, None)


# Intervals


@pytest.mark.parametrize(("classes", "images"), SIZES)
def test_every_interval_holds_its_score_and_stays_in_range(classes: int, images: int) -> None:
    for name, found in tally(*answers(classes, images)).scores().items():
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high, name
        assert found.high <= {"log_loss": 20, "brier_score": 2}.get(name, 1), name


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution() -> None:
    labels, probabilities = answers(10, 4_000)
    losses = -np.log(probabilities[np.arange(4_000), labels])
    found = tally(labels, probabilities).scores()["log_loss"]
    half = 1.96 * losses.std() / np.sqrt(4_000)
    assert (found.low, found.high) == pytest.approx((losses.mean() - half, losses.mean() + half), abs=0.1 * half)


def test_the_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    labels, probabilities = answers(3, 40_000)
    truth = {name: found.value for name, found in tally(labels, probabilities).scores().items()}
    held = dict.fromkeys(truth, 0)
    for start in range(0, 40_000, 400):
        some = tally(labels[start : start + 400], probabilities[start : start + 400]).scores()
        for name, found in some.items():
            held[name] += found.low <= truth[name] <= found.high  # type: ignore[operator]
    for name, times in held.items():
        assert times >= 88, name  # of 100


def test_a_calibrated_networks_interval_reaches_down_to_no_error() -> None:
    rng = np.random.default_rng(1)
    first = rng.random(2_000)
    labels = (rng.random(2_000) > first).astype(int)
    found = tally(labels, np.column_stack([first, 1 - first]).astype(np.float32)).scores()
    assert found["expected_calibration_error"].low < 0.01  # type: ignore[operator]
    assert found["expected_calibration_error"].value > 0.01


# Streaming


def test_scores_are_the_same_to_the_bit_however_many_images_come_at_once() -> None:
    labels, probabilities = answers(7, 2_400)
    found = [tally(labels, probabilities, at_once) for at_once in (2_400, 1_000, 333, 1)]
    assert all(each.scores() == found[0].scores() and each.bins() == found[0].bins() for each in found)


def test_scores_are_the_same_to_the_bit_on_any_number_of_threads() -> None:
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.append(tally(*answers(50, 3_000)).scores())
    assert found[0] == found[1]


# Changes from one network to another on the same images


def test_a_change_is_the_difference_of_the_scores_and_its_interval_that_of_paired_images() -> None:
    labels, before = answers(10, 2_000)
    _, other = answers(10, 2_000, seed=1)
    after = ((0.8 * before + 0.2 * other) / (0.8 * before + 0.2 * other).sum(axis=1, keepdims=True)).astype(np.float32)
    first, second = tally(labels, before), tally(labels, after, at_once=300)

    change = paired_changes(first.replicates(), second.replicates())["log_loss"]

    rows = np.arange(len(labels))
    gaps = np.log(before[rows, labels].astype(float)) - np.log(after[rows, labels].astype(float))
    half = 1.96 * gaps.std() / np.sqrt(len(gaps))
    assert change.value == pytest.approx(gaps.mean(), abs=1e-5)
    assert change.low == pytest.approx(gaps.mean() - half, abs=0.15 * half)
    assert change.high == pytest.approx(gaps.mean() + half, abs=0.15 * half)


def test_a_change_for_the_better_is_below_zero_for_a_loss_and_may_be_so_wholly() -> None:
    labels, worse = answers(5, 400)
    better = ((worse + np.eye(5)[labels]) / 2).astype(np.float32)
    changes = paired_changes(tally(labels, worse).replicates(), tally(labels, better).replicates())

    for name in ("log_loss", "brier_score"):
        assert changes[name].low < changes[name].value < changes[name].high < 0  # type: ignore[operator]
    assert changes["macro_f1"].low > 0  # type: ignore[operator]


def test_no_change_has_no_interval() -> None:
    labels, probabilities = answers(3, 50)
    replicates = tally(labels, probabilities).replicates()

    assert set(paired_changes(replicates, replicates).values()) == {Estimate(0, None, None)}


def test_the_intervals_of_changes_hold_the_truth_about_as_often_as_they_say() -> None:
    labels, before = answers(3, 40_000)
    _, other = answers(3, 40_000, seed=1)
    after = (0.8 * before + 0.2 * other).astype(np.float32)
    truth = paired_changes(tally(labels, before).replicates(), tally(labels, after).replicates())
    held = dict.fromkeys(truth, 0)
    for start in range(0, 40_000, 400):
        some = slice(start, start + 400)
        first, second = (tally(labels[some], each[some]).replicates() for each in (before, after))
        for name, found in paired_changes(first, second).items():
            held[name] += found.low <= truth[name].value <= found.high  # type: ignore[operator]
    for name, times in held.items():
        assert times >= 88, name  # of 100

"""Paired statistics, compared with published numbers, SciPy and exact enumeration."""

from collections.abc import Iterator
from math import comb, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from tasks.core.evaluation.intervals import Z_95, Difference, mcnemar_p, paired_difference, wilson_interval

COUNT = st.integers(0, 10**9)
COUNTS = st.tuples(COUNT, COUNT, COUNT, COUNT).filter(any)


def limits(*counts: int) -> tuple[float, float]:
    difference = paired_difference(*counts)
    return difference.low, difference.high


# The difference and its interval


def test_a_more_accurate_second_network_has_a_positive_difference() -> None:
    assert paired_difference(both=80, first_only=3, second_only=7, neither=10).value == 0.04
    assert paired_difference(both=80, first_only=7, second_only=3, neither=10).value == -0.04


@pytest.mark.parametrize(
    ("both", "second_only", "first_only", "neither", "low", "high"),
    [
        (
            36,
            12,
            2,
            0,
            0.0569,
            0.3404,
        ),  # the first four: Newcombe (1998), Statistics in Medicine 17, 2635-2650, method 10
        (18, 12, 2, 18, 0.0562, 0.3290),
        (53, 0, 0, 1, -0.0729, 0.0729),
        (0, 30, 0, 0, 0.8395, 1.0),
        (59, 6, 16, 80, -0.1186, -0.0046),  # Cavo et al. (2012) as in R's contingencytables, "square-and-add"
    ],
)
def test_the_interval_equals_newcombes_published_ones(
    both: int, second_only: int, first_only: int, neither: int, low: float, high: float
) -> None:
    assert limits(both, first_only, second_only, neither) == pytest.approx((low, high), abs=5e-5)


@given(COUNTS)
def test_swapping_first_and_second_mirrors_the_interval(counts: tuple[int, int, int, int]) -> None:
    both, first_only, second_only, neither = counts
    mirrored = paired_difference(both, second_only, first_only, neither)
    assert paired_difference(*counts) == Difference(-mirrored.value, -mirrored.high, -mirrored.low)


@given(COUNTS)
def test_counting_mistakes_mirrors_the_interval(counts: tuple[int, int, int, int]) -> None:
    both, first_only, second_only, neither = counts
    low, high = limits(neither, second_only, first_only, both)
    assert limits(*counts) == pytest.approx((-high, -low), abs=1e-9)


@given(COUNTS)
def test_the_interval_contains_the_difference_and_stays_in_range(
    counts: tuple[int, int, int, int],
) -> None:
    difference = paired_difference(*counts)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    assert difference.low < difference.high


def test_on_many_images_the_interval_is_the_normal_one() -> None:
    first_only, second_only, images = 90_000, 110_000, 1_000_000
    half = Z_95 * sqrt(first_only + second_only - (second_only - first_only) ** 2 / images) / images
    assert limits(500_000, first_only, second_only, 300_000) == pytest.approx((0.02 - half, 0.02 + half), abs=1e-5)


def test_paired_intervals_separate_networks_that_mostly_agree() -> None:
    low, high = limits(7_000, 100, 200, 2_700)
    assert wilson_interval(7_100, 10_000)[1] > wilson_interval(7_200, 10_000)[0]
    assert 0 < low < 0.01 < high


def outcomes(images: int) -> Iterator[tuple[int, int, int, int]]:
    for both in range(images + 1):
        for first_only in range(images - both + 1):
            for second_only in range(images - both - first_only + 1):
                yield both, first_only, second_only, images - both - first_only - second_only


def probability(counts: tuple[int, ...], shares: tuple[float, ...]) -> float:
    """Return the probability of these counts in the multinomial distribution."""
    result, left = 1.0, sum(counts)
    for count, share in zip(counts, shares, strict=True):
        result *= comb(left, count) * share**count
        left -= count
    return result


def test_the_interval_covers_the_true_difference_in_95_percent() -> None:
    intervals = {counts: limits(*counts) for counts in outcomes(20)}
    # Accuracies of 30% to 90%, networks that agree little to much, and differences of 0 to 30 percentage points.
    truths = [
        (0.60, 0.10, 0.10, 0.20),
        (0.60, 0.05, 0.15, 0.20),
        (0.40, 0.15, 0.30, 0.15),
        (0.25, 0.25, 0.25, 0.25),
        (0.20, 0.10, 0.40, 0.30),
        (0.70, 0.05, 0.20, 0.05),
    ]
    coverages = []
    for truth in truths:
        difference = truth[2] - truth[1]
        held = [counts for counts, (low, high) in intervals.items() if low <= difference <= high]
        coverages.append(sum(probability(counts, truth) for counts in held))
    assert min(coverages) > 0.92
    assert sum(coverages) / len(coverages) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize("counts", [(0, 0, 0, 0), (5, -1, 3, 2), (-5, 1, 3, 2)])
def test_invalid_counts_are_refused_and_named(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"got \({', '.join(map(str, counts))}\)"):
        paired_difference(*counts)


# McNemar's test


def test_p_equals_the_exact_binomial_test() -> None:
    for first_only, second_only in [(a, b) for a in range(25) for b in range(25) if a + b] + [(450, 550), (0, 1_000)]:
        expected = binomtest(first_only, first_only + second_only).pvalue
        assert mcnemar_p(first_only, second_only) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("first_only", "second_only"), [(480, 521), (2_500, 2_500), (4_900, 5_110), (4_000, 4_300)])
def test_p_for_many_images_is_close_to_the_binomial_test(first_only: int, second_only: int) -> None:
    expected = binomtest(first_only, first_only + second_only).pvalue
    assert mcnemar_p(first_only, second_only) == pytest.approx(expected, rel=0.01)


def test_p_equals_a_published_one() -> None:
    assert mcnemar_p(6, 16) == pytest.approx(0.052479, abs=5e-7)  # Cavo et al. (2012) as in R's contingencytables


def test_networks_that_are_correct_on_the_same_images_have_p_one() -> None:
    assert mcnemar_p(0, 0) == 1


@given(COUNT, COUNT)
def test_p_is_a_probability_and_symmetric(first_only: int, second_only: int) -> None:
    assert 0 <= mcnemar_p(first_only, second_only) == mcnemar_p(second_only, first_only) <= 1


@given(st.integers(2, 1_500), st.data())
def test_p_falls_as_the_split_becomes_less_even(discordant: int, data: st.DataObject) -> None:
    fewer = data.draw(st.integers(1, discordant // 2))
    assert mcnemar_p(fewer - 1, discordant - fewer + 1) <= mcnemar_p(fewer, discordant - fewer)


@pytest.mark.parametrize(("first_only", "second_only"), [(-1, 3), (3, -1)])
def test_negative_counts_are_refused(first_only: int, second_only: int) -> None:
    with pytest.raises(ValueError, match=f"got first only {first_only}, second only {second_only}"):
        mcnemar_p(first_only, second_only)

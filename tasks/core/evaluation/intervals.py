"""Confidence intervals and tests for proportions, and for two proportions on the same images."""

from dataclasses import dataclass
from math import comb, erfc, hypot, sqrt

Z_95 = 1.959963984540054  # the 97.5% quantile of the normal distribution
MAX_EXACT_DISCORDANT = 1_000


@dataclass(frozen=True)
class Estimate:
    """A value with its 95% interval, if one is defined."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """The accuracy of the second minus that of the first, with its 95% interval; all in [-1, 1]."""

    value: float
    low: float
    high: float


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval of a proportion.

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"expected 0 <= correct <= total and total > 0, got correct {correct} of total {total}")
    proportion, z2 = correct / total, Z_95**2
    centre = (proportion + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * sqrt(proportion * (1 - proportion) / total + z2 / (4 * total**2))
    # Rounding errors must not exclude the proportion itself.
    return max(0.0, min(centre - half, proportion)), min(1.0, max(centre + half, proportion))


def f1_estimate(correct: int, claimed: int) -> Estimate:
    """Return a class's F1 score, `2 correct / claimed`, where `claimed` is support + predictions.

    The Jaccard index J is the proportion of correct ones among the images that have the class or are predicted as it.
    F1 = 2J / (1 + J) grows with J, so the limits follow from the Wilson interval of J.
    """
    low, high = wilson_interval(correct, claimed - correct)
    return Estimate(2 * correct / claimed, 2 * low / (1 + low), 2 * high / (1 + high))


def proportion_estimate(correct: int, total: int) -> Estimate:
    return Estimate(correct / total, *wilson_interval(correct, total))


def paired_difference(both: int, first_only: int, second_only: int, neither: int) -> Difference:
    """Return the difference of two accuracies, from the images that both, only one or neither predicts correctly.

    Newcombe (1998), method 10: the two Wilson intervals, combined with the correlation of the two.
    https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22%3C2635::AID-SIM954%3E3.0.CO;2-C
    """
    counts = (both, first_only, second_only, neither)
    images = sum(counts)
    if min(counts) < 0 or images == 0:
        raise ValueError(f"expected counts of at least 0, and not all 0, got {counts}")
    value = (second_only - first_only) / images
    first_below, first_above = _wilson_margins(both + first_only, images)
    second_below, second_above = _wilson_margins(both + second_only, images)
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    covariance = both * neither - first_only * second_only
    corrected = min(covariance, max(0.0, covariance - images / 2))  # Newcombe's continuity correction, if positive
    phi = corrected / sqrt(margins) if margins else 0.0
    low = value - _combine_margins(second_below, first_above, phi)
    high = value + _combine_margins(second_above, first_below, phi)
    return Difference(value, max(-1.0, low), min(1.0, high))  # only rounding errors exceed these limits


def mcnemar_p(first_only: int, second_only: int) -> float:
    """Return the two-sided p of McNemar's test for the images that exactly one of two networks predicts correctly.

    Exact for up to 1,000 such images; for more, the normal approximation with continuity correction.
    McNemar (1947), https://doi.org/10.1007/BF02295996; Edwards (1948), https://doi.org/10.1007/BF02289261
    """
    if min(first_only, second_only) < 0:
        raise ValueError(f"expected counts of at least 0, got first only {first_only}, second only {second_only}")
    discordant = first_only + second_only
    if discordant > MAX_EXACT_DISCORDANT:
        return erfc(max(0, abs(second_only - first_only) - 1) / sqrt(2 * discordant))
    tail = sum(comb(discordant, count) for count in range(min(first_only, second_only) + 1))
    return min(1.0, 2 * tail / 2.0**discordant)


def _wilson_margins(correct: int, total: int) -> tuple[float, float]:
    """Return the distances of the Wilson limits below and above the proportion."""
    low, high = wilson_interval(correct, total)
    return correct / total - low, high - correct / total


def _combine_margins(one: float, other: float, phi: float) -> float:
    """Return `sqrt(one² - 2 phi one other + other²)`, in a form whose radicand is never negative."""
    return hypot(one - other, sqrt(2 * (1 - phi) * (one * other)))

"""Statistics of proportions, and of two proportions on the same images."""

from dataclasses import dataclass
from math import erfc, hypot, sqrt

Z_95 = 1.959963984540054  # the normal distribution's 97.5% point
EXACT_DISCORDANT = 1_000


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval, where one can be told."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """How much more the second gets right than the first, with its 95% interval; all in [-1, 1]."""

    value: float
    low: float
    high: float


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """The 95% interval of a proportion: it stays within [0, 1] and is honest near both ends.

    Wilson (1927), https://doi.org/10.1080/01621459.1927.10502953
    """
    if not 0 <= correct <= total or total == 0:
        raise ValueError(f"expected 0 <= correct <= total and total > 0, got correct {correct} of total {total}")
    share, z2 = correct / total, Z_95**2
    centre = (share + z2 / (2 * total)) / (1 + z2 / total)
    half = Z_95 / (1 + z2 / total) * sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    # Rounding must not put the ends beyond the proportion itself.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def f1_interval(correct: int, claimed: int) -> tuple[float, float]:
    """The 95% interval of a class's F1, `2 correct / claimed`; `claimed` is its support and its predictions together.

    The share of right ones among the images that are, or were taken to be, of the class is a proportion, the Jaccard
    index J, and F1 = 2J / (1 + J) grows with it: so the ends of its Wilson interval are carried over.
    """
    low, high = wilson_interval(correct, claimed - correct)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def proportion_estimate(correct: int, total: int) -> Estimate:
    return Estimate(correct / total, *wilson_interval(correct, total))


def paired_difference(both: int, first_only: int, second_only: int, neither: int) -> Difference:
    """The second's accuracy minus the first's, from how many images both, one or neither of them gets right.

    Newcombe (1998), method 10: the two Wilson intervals, joined with regard to how the two agree.
    https://doi.org/10.1002/(SICI)1097-0258(19981130)17:22%3C2635::AID-SIM954%3E3.0.CO;2-C
    """
    counts = (both, first_only, second_only, neither)
    images = sum(counts)
    if min(counts) < 0 or images == 0:
        raise ValueError(f"expected counts of at least 0, and not all 0, got {counts}")
    value = (second_only - first_only) / images
    first_below, first_above = _to_wilson_ends(both + first_only, images)
    second_below, second_above = _to_wilson_ends(both + second_only, images)
    phi = _corrected_phi(*counts)
    low = value - _joined(second_below, first_above, phi)
    high = value + _joined(second_above, first_below, phi)
    return Difference(value, max(-1.0, low), min(1.0, high))  # beyond them by rounding at most


def mcnemar_p(first_only: int, second_only: int) -> float:
    """How likely chance alone splits so unevenly the images that just one of two gets right: McNemar's two-sided p.

    Exact for up to 1,000 such images; above, by the normal distribution with continuity correction.
    McNemar (1947), https://doi.org/10.1007/BF02295996; Edwards (1948), https://doi.org/10.1007/BF02289261
    """
    if min(first_only, second_only) < 0:
        raise ValueError(f"expected counts of at least 0, got first only {first_only}, second only {second_only}")
    discordant = first_only + second_only
    if discordant > EXACT_DISCORDANT:
        return erfc(max(0, abs(second_only - first_only) - 1) / sqrt(2 * discordant))
    ways = tail = 1
    for count in range(min(first_only, second_only)):
        ways = ways * (discordant - count) // (count + 1)  # the binomial coefficient of count + 1
        tail += ways
    return min(1.0, 2 * tail / 2.0**discordant)


def _to_wilson_ends(correct: int, total: int) -> tuple[float, float]:
    """How far the ends of the Wilson interval lie below and above the proportion."""
    low, high = wilson_interval(correct, total)
    return correct / total - low, high - correct / total


def _corrected_phi(both: int, first_only: int, second_only: int, neither: int) -> float:
    """The correlation of being right, brought towards 0 by Newcombe's continuity correction where it is positive."""
    images = both + first_only + second_only + neither
    margins = (both + first_only) * (second_only + neither) * (both + second_only) * (first_only + neither)
    if margins == 0:
        return 0.0
    covariance = both * neither - first_only * second_only
    return min(covariance, max(0.0, covariance - images / 2)) / sqrt(margins)


def _joined(one: float, other: float, phi: float) -> float:
    """`sqrt(one² - 2 phi one other + other²)`, written so that rounding leaves no root of a negative number."""
    return hypot(one - other, sqrt(2 * (1 - phi) * (one * other)))

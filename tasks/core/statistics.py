"""Statistics of proportions."""

from math import sqrt

Z_95 = 1.959963984540054  # the normal distribution's 97.5% point


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

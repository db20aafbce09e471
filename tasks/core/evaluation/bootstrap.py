"""A bootstrap for data that comes in one pass: each image counts a Poisson number of times in each replicate.

Chamandy et al. (2012), Estimating Uncertainty for Massive Data Streams, https://research.google/pubs/pub43157/
"""

from math import exp, factorial, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.evaluation.intervals import Estimate

Floats = NDArray[np.float64]

REPLICATES = 1_000
SEED = 0
IMAGES_AT_ONCE = 1_000  # 8 MB of weights
FRACTION = 2.0**-24  # float32's own below 1; whole numbers of it are added without rounding, up to 2**53 of them

# How often an image counts, for each value of 16 random bits: a Poisson distribution of mean 1.
POISSON = np.searchsorted(
    np.cumsum([exp(-1) / factorial(count) for count in range(12)]), (np.arange(2**16) + 0.5) / 2**16
).astype(np.float64)


class PoissonBootstrap:
    """Means over all images, and over those of each replicate, of some numbers that each image has."""

    def __init__(self, numbers: int) -> None:
        self._sums = np.zeros((1 + REPLICATES, 1 + numbers))  # of no replicate first; of the images' counts first
        # The stream of a bit generator stays the same in every version of NumPy, that of a distribution need not.
        self._bits = np.random.PCG64(SEED)

    def add(self, rows: Floats) -> None:
        """Count more images in; rows are [images, numbers].

        Sums are exact, so that they depend neither on how many are added at once nor on the threads that add them.
        """
        rows = to_fractions(np.column_stack([np.ones(len(rows)), rows]))
        for start in range(0, len(rows), IMAGES_AT_ONCE):
            some = rows[start : start + IMAGES_AT_ONCE]
            self._sums[0] += some.sum(axis=0)
            self._sums[1:] += self._weights(len(some)).T @ some

    def means(self) -> Floats:
        """[1 + replicates, numbers], those of all images first; replicates that no image was drawn for are left out."""
        sums = self._sums[self._sums[:, 0] > 0]
        means: Floats = sums[:, 1:] / sums[:, :1]
        return means

    def _weights(self, images: int) -> Floats:
        """How often each image counts in each replicate: [images, replicates]."""
        bits = self._bits.random_raw(images * REPLICATES // 4).view(np.uint16)
        weights: Floats = POISSON[bits].reshape(images, REPLICATES)
        return weights


def to_fractions(values: ArrayLike) -> Floats:
    rounded: Floats = np.round(np.asarray(values, np.float64) / FRACTION) * FRACTION
    return rounded


def bootstrap_estimate(values: Floats, lowest: float = 0.0, highest: float = inf) -> Estimate:
    """The first value, in [lowest, highest], with its 95% interval from the others, its replicates.

    There is none where all replicates are alike, as those of one image are: they tell no spread. The replicates'
    quantiles are reflected about the value, which takes out what bias a score has: a calibration error comes out too
    great, and again so in each replicate. Davison & Hinkley (1997), Bootstrap Methods and their Application, ch. 5.
    """
    value, replicates = float(values[0]), values[1:]
    if replicates.min() == replicates.max():
        return Estimate(value, None, None)
    high, low = (2 * value - quantile for quantile in np.quantile(replicates, (0.025, 0.975)).tolist())
    return Estimate(value, max(lowest, min(low, value)), min(highest, max(high, value)))

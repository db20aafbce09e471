"""A bootstrap in one pass over the data: each image has a Poisson-distributed weight in each replicate.

Chamandy et al. (2012), Estimating Uncertainty for Massive Data Streams, https://research.google/pubs/pub43157/
"""

from math import exp, factorial, inf

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tasks.core.evaluation.intervals import Estimate

Floats = NDArray[np.float64]

REPLICATES = 1_000
SEED = 0
CHUNK_IMAGES = 1_000  # 8 MB of weights
INTERVALS = (
    f"95%; accuracies: Wilson; other scores: Poisson bootstrap with {REPLICATES:,} replicates and seed {SEED}, "
    "reflected about the value; null if all replicates are equal"
)
RESOLUTION = 2.0**-24  # that of float32 below 1; sums of up to 2**53 multiples of it are exact in float64

# The weight of an image for each value of 16 random bits: a Poisson distribution with mean 1.
POISSON_WEIGHTS = np.searchsorted(
    np.cumsum([exp(-1) / factorial(count) for count in range(12)]), (np.arange(2**16) + 0.5) / 2**16
).astype(np.float64)


class PoissonBootstrap:
    """Means of several numbers per image: over all images, and for each bootstrap replicate."""

    def __init__(self, numbers: int) -> None:
        # Row 0 has the sums over all images, the others those of the replicates; column 0 counts images.
        self._sums = np.zeros((1 + REPLICATES, 1 + numbers))
        # NumPy keeps the stream of a bit generator stable between versions, but not that of a distribution.
        self._bits = np.random.PCG64(SEED)

    def add(self, rows: Floats) -> None:
        """Add images; rows are [images, numbers].

        The sums are exact, so they depend neither on the size of the batches nor on the number of threads.
        """
        rows = round_exactly(np.column_stack([np.ones(len(rows)), rows]))
        for start in range(0, len(rows), CHUNK_IMAGES):
            chunk = rows[start : start + CHUNK_IMAGES]
            self._sums[0] += chunk.sum(axis=0)
            bits = self._bits.random_raw(len(chunk) * REPLICATES // 4).view(np.uint16)
            self._sums[1:] += POISSON_WEIGHTS[bits].reshape(len(chunk), REPLICATES).T @ chunk

    def means(self) -> Floats:
        """Return the means [1 + replicates, numbers], those of all images first, without replicates of no image."""
        sums = self._sums[self._sums[:, 0] > 0]
        return sums[:, 1:] / sums[:, :1]


def round_exactly(values: ArrayLike) -> Floats:
    """Round to multiples of RESOLUTION, whose sums have no rounding errors."""
    return np.round(np.asarray(values, np.float64) / RESOLUTION) * RESOLUTION


def bootstrap_estimate(values: Floats, lowest: float = 0.0, highest: float = inf) -> Estimate:
    """Return the first value with its 95% interval, clipped to [lowest, highest]; the other values are its replicates.

    The quantiles of the replicates are reflected about the value. This removes the bias of a score such as the
    calibration error, which is too large, and larger still in each replicate. There is no interval if all replicates
    are equal, as with a single image. Davison & Hinkley (1997), Bootstrap Methods and their Application, ch. 5.
    """
    value, replicates = float(values[0]), values[1:]
    if replicates.min() == replicates.max():
        return Estimate(value, None, None)
    high, low = (2 * value - quantile for quantile in np.quantile(replicates, (0.025, 0.975)).tolist())
    return Estimate(value, max(lowest, min(low, value)), min(highest, max(high, value)))

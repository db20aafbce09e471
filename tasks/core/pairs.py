"""Pairs of images, by their places."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


class Pairs(NamedTuple):
    """One element a pair, by the places of its images; `first` is the smaller one, and `mirrored` is `second`."""

    first: Indices
    second: Indices
    mirrored: NDArray[np.bool_]
    correlation: Floats
    structure: Floats


NO_PAIRS = Pairs._make(np.empty(0, dtype) for dtype in (np.int64, np.int64, np.bool_, np.float64, np.float64))

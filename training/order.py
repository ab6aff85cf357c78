"""An order of rows that follows from their content, so that the order in which they came does not matter.

Sums of floats depend on their order, and boosting takes some decisions by position. So a fit sorts its rows
by a hash of what they hold. Rows that tie hold the same, and may stand either way.
"""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.basis import Array, Levels

Hashes = NDArray[np.uint64]

_FACTOR, _SHIFT = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
_MISSING = np.uint64(0x5851F42D4C957F2D)


class RowHash:
    """Collects one column after the other into a hash of each row, shape (n,)."""

    def __init__(self, n: int) -> None:
        self.value: Hashes = np.zeros(n, dtype=np.uint64)

    def add(self, values: Array | Levels) -> None:
        """Mix in a column."""
        self.value = _mixed(self.value * _FACTOR + _hashes(values))

    def order(self) -> NDArray[np.intp]:
        """Sort the rows: indices of shape (n,)."""
        return np.argsort(self.value, kind="stable")


def _hashes(values: Array | Levels) -> Hashes:
    if isinstance(values, Levels):
        names = pd.util.hash_array(np.array([*values.names, ""], dtype=object))
        names[-1] = _MISSING
        return names[values.codes]
    bits = (values + 0.0).view(np.uint64)  # -0.0 is 0.0
    bits[np.isnan(values)] = _MISSING
    return _mixed(bits)


def _mixed(bits: Hashes) -> Hashes:
    """Spread each bit over all others (two rounds of a multiplicative hash)."""
    for _ in range(2):
        bits = (bits ^ (bits >> _SHIFT)) * _FACTOR
    return bits ^ (bits >> _SHIFT)

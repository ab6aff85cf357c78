"""Where a batch of decisions stands in a scorecard's tables: what `BatchScorer` reads them by.

numpy at most, because serving imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.basis import NUMBER, Array, Feature
from training.scorecard import Value
from training.stacked import RowOf, Stacked

Rows = NDArray[np.intp]


class Knots:
    """Knots of several numbers side by side."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._each = [feature.knots for feature in features]
        self._bottom, self._top = (np.array([[knots[i]] for knots in self._each]) for i in (0, -1))
        self._last = np.array([[len(knots) - 1] for knots in self._each])
        self._starts = np.cumsum([0, *[len(knots) for knots in self._each]])[:-1, None]
        self._flat = np.concatenate([*self._each, [np.inf]])
        self._missing = np.array([[feature.missing_row] for feature in features])

    def locate(self, values: Array) -> tuple[Rows, NDArray[np.float32]]:
        """Row and weight of the next one for values of shape (n_features, n), as `Place` has them."""
        inside = np.clip(values, self._bottom, self._top)
        found = [knots.searchsorted(row, side="right") for knots, row in zip(self._each, inside, strict=True)]
        low = np.clip(np.array(found) - 1, 0, np.maximum(self._last - 1, 0))
        bottom = self._flat[low + self._starts]
        gap = np.where(self._last > 0, self._flat[low + self._starts + 1] - bottom, 1.0)
        share = np.where(self._last > 0, (inside - bottom) / gap, 0.0)
        missing = np.isnan(values)
        return np.where(missing, self._missing, low), np.where(missing, 0.0, share).astype(np.float32)


class Places:
    """Finds the rows of n decisions at once."""

    def __init__(self, stacked: Stacked) -> None:
        features = stacked.card.features
        self._names = [feature.name for feature in features]
        self._row_of = [RowOf.of(stacked, i) for i in range(len(features))]
        self.numbers = [i for i, feature in enumerate(features) if feature.kind == NUMBER]
        self._levels = [i for i, feature in enumerate(features) if feature.kind != NUMBER]
        self._starts = np.array([[stacked.starts[i]] for i in self.numbers], dtype=np.intp)
        self._knots = Knots([features[i] for i in self.numbers])

    def locate(self, decisions: Sequence[Mapping[str, Value]]) -> Batch:
        """Return where they stand; values by feature as `Scorecard.check_values` takes them."""
        columns = by_feature(decisions, self._names)
        rows = np.empty((len(columns), len(decisions)), dtype=np.intp)
        for i in self._levels:
            rows[i] = np.fromiter(map(self._row_of[i].__getitem__, columns[i]), np.intp, len(decisions))
        above = np.empty((0, len(decisions)), dtype=np.float32)
        if self.numbers:
            values = np.array([columns[i] for i in self.numbers], dtype=float)
            low, above = self._knots.locate(values)
            rows[self.numbers] = low + self._starts
        return Batch(np.ascontiguousarray(rows.T), above.T.astype(float), self.numbers)


class Batch:
    """Where n decisions stand.

    Parameters
    ----------
    rows : shape (n, n_features), each feature's lower row
    above : shape (n, n_numbers), the next row's weight
    numbers : the features that are numbers
    """

    def __init__(self, rows: Rows, above: Array, numbers: Sequence[int]) -> None:
        self.rows, self.above, self._numbers = rows, above, numbers

    def take(self, chunk: slice) -> Batch:
        """Keep some of the decisions."""
        return Batch(self.rows[chunk], self.above[chunk], self._numbers)

    def read(self, table: Array) -> Array:
        """Read a stacked table of shape (n_rows,) at every feature's place: shape (n, n_features)."""
        found = table.take(self.rows)
        low = self.rows[:, self._numbers]
        found[:, self._numbers] += (table.take(low + 1) - table.take(low)) * self.above
        return found

    def read_numbers(self, table: Array) -> Array:
        """Read a stacked table of shape (n_rows, k) at the numbers' places: shape (n, n_numbers k)."""
        low = self.rows[:, self._numbers]
        found = table.take(low, axis=0)
        between = table.take(low + 1, axis=0)
        between -= found
        between *= self.above[:, :, None]
        found += between
        return found.reshape(len(found), -1)

    def read_one(self, feature: int, table: Array) -> Array:
        """Read a stacked table of shape (n_rows, k) at one feature's places: shape (n, k)."""
        low = self.rows[:, feature]
        found = table.take(low, axis=0)
        if feature in self._numbers:
            above = self.above[:, self._numbers.index(feature), None]
            found += (table.take(low + 1, axis=0) - found) * above
        return found


def by_feature(decisions: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Sequence[Sequence[Value]]:
    """Values of each feature; None where a decision does not have it."""
    try:
        rows = [*map(itemgetter(*names, names[0]), decisions)]
    except KeyError:
        rows = [tuple(map(decision.get, names)) for decision in decisions]
    return list(zip(*rows, strict=False))[: len(names)]

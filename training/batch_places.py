"""Where a batch of decisions stands in a scorecard's tables: what `BatchScorer` reads them by.

numpy at most, because serving imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter

import numpy as np
from numpy.typing import NDArray

from training.basis import Array, Feature, Place
from training.scorecard import Pair, Value
from training.stacked import Stacked

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


class Batch:
    """Where n decisions stand."""

    def __init__(self, stacked: Stacked, places: Sequence[Place], rows: Rows, moving: int | None) -> None:
        self.rows, self.places, self._stacked = rows, places, stacked
        self._low, self._moving = stacked.card.low, moving
        self._moving_start = 0 if moving is None else stacked.starts[moving]
        self._between = [i for i, place in enumerate(places) if place.weight is not None]
        weights = [place.weight for place in places if place.weight is not None]
        self._above = np.column_stack(weights).astype(float) if weights else np.empty((len(rows), 0))

    def take(self, chunk: slice) -> Batch:
        """Keep some of the decisions."""
        places = [place.take(chunk) for place in self.places]
        return Batch(self._stacked, places, self.rows[chunk], self._moving)

    def read(self, table: Array) -> Array:
        """Read a stacked table of shape (n_rows,) at every feature's place: shape (n, n_features)."""
        found = table[self.rows]
        at_low = found[:, self._between]
        found[:, self._between] += (table[self.rows[:, self._between] + 1] - at_low) * self._above
        return found

    def sums(self, table: Array) -> Array:
        """What all rows of a decision add, the last row of the table, an intercept, included: shape (n,)."""
        return self.read(table).sum(axis=1) + table[-1]

    def products(self, pair: Pair, moved: Rows | None = None) -> Array:
        """Weights of a pair's rows, the moving feature at its own rows or at others: shape (n, k k)."""
        first, second = (self._low_of(feature, moved) for feature in (pair.first, pair.second))
        return (first[:, :, None] * second[:, None, :]).reshape(len(first), -1)

    def _low_of(self, feature: int, moved: Rows | None) -> Array:
        if moved is not None and feature == self._moving:
            return self._low[feature][moved - self._moving_start]
        return self.places[feature].read(self._low[feature])


def by_feature(decisions: Sequence[Mapping[str, Value]], names: Sequence[str]) -> Sequence[Sequence[Value]]:
    """Values of each feature; None where a decision does not have it."""
    try:
        rows = [*map(itemgetter(*names, names[0]), decisions)]
    except KeyError:
        rows = [tuple(map(decision.get, names)) for decision in decisions]
    return list(zip(*rows, strict=False))[: len(names)]

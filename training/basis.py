"""How a column becomes look-ups: knots for numbers, levels for categories, a row for what is missing.

Every term of the model is a table with one row per knot or level. A value is *located* in its table
(two neighbouring rows and a weight between them), and whatever is asked of the table, a basis for
fitting or points for predicting, is read at that place. So fitting and serving cannot disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_KNOTS = 33
N_HATS = 9
NUMBER, BOOLEAN, CATEGORY = "number", "boolean", "category"
_TRUTH_LEVELS = ("false", "true")


@dataclass(frozen=True)
class Place:
    """Where n values stand in a table: ``table[low] * (1 - weight) + table[high] * weight``. Shapes (n,)."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    weight: Array

    def read(self, table: Array) -> Array:
        """Read a table of shape (n_rows, ...) at these places: shape (n, ...)."""
        weight = self.weight.reshape(-1, *[1] * (table.ndim - 1))
        return table[self.low] * (1.0 - weight) + table[self.high] * weight

    def take(self, rows: slice | NDArray[np.bool_]) -> "Place":
        """Keep some of the values."""
        return Place(self.low[rows], self.high[rows], self.weight[rows])


@dataclass(frozen=True)
class Feature:
    """One column of the model.

    Its tables have a row per knot (numbers) or level (categories, booleans), then one row for a missing
    value and one for a level that was never seen.
    """

    name: str
    kind: str
    knots: Array
    """Increasing values at which numbers have a row; empty for levels."""
    ranks: Array
    """Position of each knot among the training values, scaled to -1 .. 1."""
    levels: tuple[str, ...]
    had_missing: bool

    @property
    def n_known(self) -> int:
        """Rows for knots or levels."""
        return len(self.knots) if self.kind == NUMBER else len(self.levels)

    @property
    def missing_row(self) -> int:
        """Row for a missing value."""
        return self.n_known

    @property
    def unseen_row(self) -> int:
        """Row for a level that training never saw; numbers never use it."""
        return self.n_known + 1

    @property
    def n_rows(self) -> int:
        """Rows of every table of this feature."""
        return self.n_known + 2

    def locate(self, values: Array | Sequence[str | None]) -> Place:
        """Locate values of shape (n,): floats with NaN for numbers, texts or None for levels."""
        if self.kind == NUMBER:
            return self._locate_numbers(np.asarray(values, dtype=float))
        position: dict[object, int] = {level: i for i, level in enumerate(self.levels)}
        position[None] = self.missing_row
        unseen = self.unseen_row
        row = np.array([position.get(value, unseen) for value in values], dtype=np.int64)
        return Place(row, row, np.zeros(len(row)))

    def _locate_numbers(self, values: Array) -> Place:
        missing = np.isnan(values)
        last = len(self.knots) - 1
        if last < 1:
            row = np.where(missing, self.missing_row, 0)
            return Place(row, row, np.zeros(len(row)))
        low = np.clip(np.searchsorted(self.knots, values, side="right") - 1, 0, last - 1)
        inside = np.clip(np.where(missing, self.knots[0], values), self.knots[0], self.knots[-1])
        weight = (inside - self.knots[low]) / (self.knots[low + 1] - self.knots[low])
        return Place(
            np.where(missing, self.missing_row, low),
            np.where(missing, self.missing_row, low + 1),
            np.where(missing, 0.0, weight),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "name": self.name,
            "kind": self.kind,
            "knots": self.knots.tolist(),
            "ranks": self.ranks.tolist(),
            "levels": list(self.levels),
            "had_missing": self.had_missing,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Feature":
        """Read what `to_dict` wrote."""
        return cls(
            name=str(values["name"]),
            kind=str(values["kind"]),
            knots=np.asarray(values["knots"], dtype=float),
            ranks=np.asarray(values["ranks"], dtype=float),
            levels=tuple(str(level) for level in values["levels"]),
            had_missing=bool(values["had_missing"]),
        )


def learn_number(name: str, values: Array) -> Feature:
    """Knots at evenly spaced ranks of the observed values of shape (n,); NaN is missing."""
    observed = values[~np.isnan(values)]
    shares = np.linspace(0.0, 1.0, N_KNOTS)
    quantiles = np.quantile(observed, shares) if len(observed) else np.zeros(1)
    knots, first = np.unique(quantiles, return_inverse=True)
    if len(observed) and len(uniques := np.unique(observed)) <= N_KNOTS:
        knots = uniques
        below = np.searchsorted(np.sort(observed), knots, side="left") / len(observed)
        upto = np.searchsorted(np.sort(observed), knots, side="right") / len(observed)
        ranks = below + upto - 1.0
    else:
        totals = np.bincount(first, weights=shares[: len(quantiles)])
        ranks = 2.0 * totals / np.bincount(first) - 1.0
    return Feature(name, NUMBER, knots, ranks, (), bool(len(observed) < len(values)))


def learn_levels(name: str, kind: str, values: Sequence[str | None], most: int) -> Feature:
    """The `most` commonest levels, ties by name; booleans have exactly ``false`` and ``true``."""
    counts: dict[str, int] = {}
    for value in values:
        if value is not None:
            counts[value] = counts.get(value, 0) + 1
    kept = sorted(sorted(counts), key=lambda level: -counts[level])[:most]
    levels = _TRUTH_LEVELS if kind == BOOLEAN else tuple(sorted(kept))
    none = np.empty(0)
    return Feature(name, kind, none, none, levels, sum(counts.values()) < len(values))


@dataclass(frozen=True)
class Block:
    """Coefficients of one term that share a prior: ``columns`` of the design."""

    columns: slice
    prior: str
    """``main``, ``missing``, ``pair``: how strongly it is held to zero."""


def main_tables(feature: Feature, place: Place, weights: Array) -> list[tuple[str, Array]]:
    """Basis tables of a feature's own effect, each of shape (n_rows, n_columns), centred on the data.

    Numbers get a line in their rank, hat functions on it, and a flag for missing values; booleans a
    contrast and a flag; categories a column per level, missing being one of them.
    """
    observed = place.low != feature.missing_row
    if feature.kind == NUMBER:
        line = np.zeros((feature.n_rows, 1))
        line[: feature.n_known, 0] = feature.ranks
        hats = np.zeros((feature.n_rows, N_HATS))
        tops = np.linspace(-1, 1, N_HATS)
        width = tops[1] - tops[0]
        hats[: feature.n_known] = np.maximum(0, 1 - np.abs(feature.ranks[:, None] - tops[None, :]) / width)
        parts = [("main", line)] if feature.n_known > 1 else []
        parts += [("main", hats)] if feature.n_known > 2 else []
    elif feature.kind == BOOLEAN:
        contrast = np.zeros((feature.n_rows, 1))
        contrast[:2, 0] = (-1.0, 1.0)
        parts = [("main", contrast)]
    else:
        levels = np.zeros((feature.n_rows, feature.n_known + feature.had_missing))
        np.fill_diagonal(levels, 1.0)
        return [("main", levels)]
    tables = [(prior, _centred(table, feature, place, weights, observed)) for prior, table in parts]
    if feature.had_missing:
        flag = np.zeros((feature.n_rows, 1))
        flag[feature.missing_row] = 1.0
        tables.append(("missing", flag))
    return tables


def low_table(feature: Feature, place: Place, weights: Array, most_levels: int = 12) -> Array | None:
    """A few columns that stand for a feature inside a pair, shape (n_rows, k), or None where it has none.

    Missing values and unseen levels are zero: a pair says nothing about them.
    """
    observed = place.low != feature.missing_row
    if feature.kind == NUMBER:
        if feature.n_known < 2:
            return None
        columns = [feature.ranks] + ([2.0 * feature.ranks**2 - 1.0] if feature.n_known > 2 else [])
        table = np.zeros((feature.n_rows, len(columns)))
        table[: feature.n_known] = np.column_stack(columns)
    elif feature.kind == BOOLEAN:
        table = np.zeros((feature.n_rows, 1))
        table[:2, 0] = (-1.0, 1.0)
    else:
        if not 2 <= feature.n_known <= most_levels:
            return None
        table = np.zeros((feature.n_rows, feature.n_known))
        np.fill_diagonal(table, 1.0)
    return _centred(table, feature, place, weights, observed)


def _centred(
    table: Array, feature: Feature, place: Place, weights: Array, observed: NDArray[np.bool_]
) -> Array:
    """Subtract the weighted mean over the observed rows; missing and unseen stay zero."""
    total = weights[observed].sum()
    if total <= 0:
        return table
    at = Place(place.low[observed], place.high[observed], place.weight[observed])
    mass = np.bincount(at.low, weights[observed] * (1 - at.weight), feature.n_rows)
    mass += np.bincount(at.high, weights[observed] * at.weight, feature.n_rows)
    centred = table.copy()
    centred[: feature.n_known] -= (mass @ table) / total
    return centred

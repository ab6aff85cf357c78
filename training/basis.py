"""How a column becomes look-ups: knots for numbers, levels for categories, a row for what is missing.

Every term of the model is a table with one row per knot or level. A value is *located* in its table
(two neighbouring rows and a weight between them), and whatever is asked of the table, a basis for
fitting or points for predicting, is read at that place. So fitting and serving cannot disagree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_KNOTS = 33
MANY_LEVELS = 60
FEWEST_ROWS = 10
NUMBER, BOOLEAN, CATEGORY = "number", "boolean", "category"
_TRUTH_LEVELS = ("false", "true")


@dataclass(frozen=True)
class Levels:
    """n texts as numbers of their levels: four bytes a value, whatever its length."""

    codes: NDArray[np.int32]
    """Shape (n,): index into `names`, -1 where missing."""
    names: tuple[str, ...]

    @classmethod
    def of(cls, values: Sequence[str | None]) -> "Levels":
        """Read texts; None is missing."""
        code: dict[str, int] = {}
        codes = [-1 if value is None else code.setdefault(value, len(code)) for value in values]
        return cls(np.array(codes, dtype=np.int32), tuple(code))

    def __len__(self) -> int:
        return len(self.codes)

    def __array__(self, dtype: object = None, copy: bool | None = None) -> NDArray[np.object_]:
        """The texts themselves, None where missing, for whoever wants them one by one."""
        return np.array([*self.names, None], dtype=object)[self.codes]

    def counts(self) -> NDArray[np.int64]:
        """How many values each level has, shape (n_levels,)."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.names))


@dataclass(frozen=True)
class Place:
    """Where n values stand in a table: between row `low` and the next one, or at `low` itself.

    Reads ``table[low] * (1 - weight) + table[low + 1] * weight``. At most eight bytes a value, because
    training holds one for every cell of its data.
    """

    low: NDArray[np.integer]
    """Shape (n,), in as few bytes as the table's length needs."""
    weight: NDArray[np.float32] | None = None
    """Shape (n,), from 0 to 1; None where every value is at its row itself, as levels are."""

    def __len__(self) -> int:
        return len(self.low)

    def read(self, table: Array) -> Array:
        """Read a table of shape (n_rows, ...) at these places: shape (n, ...)."""
        at_low = table.take(self.low, axis=0)
        if self.weight is None:
            return at_low
        weight = self.weight.astype(np.float64).reshape(-1, *[1] * (table.ndim - 1))
        return at_low * (1.0 - weight) + table.take(self.low + 1, axis=0) * weight

    def add_up(self, values: Array, n_rows: int) -> Array:
        """Give every value to the rows that it is read from, and sum: shape (n_rows,).

        The transpose of `read`: ``values @ read(table)`` equals ``add_up(values, n_rows) @ table``.
        """
        if self.weight is None:
            return np.bincount(self.low, values, n_rows).astype(float, copy=False)
        above = values * self.weight
        total: Array = np.bincount(self.low, values - above, n_rows).astype(float, copy=False)
        total[1:] += np.bincount(self.low, above, n_rows)[:-1]
        return total

    def take(self, rows: slice | NDArray) -> "Place":
        """Keep some of the values: a slice, a mask or an index."""
        return Place(self.low[rows], None if self.weight is None else self.weight[rows])


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

    def locate(self, values: "Array | Levels | Sequence[str | None]") -> Place:
        """Locate n values: floats with NaN for numbers, levels or texts or None for the others."""
        if self.kind == NUMBER:
            return self._locate_numbers(np.asarray(values, dtype=float))
        known = values if isinstance(values, Levels) else Levels.of(cast("Sequence[str | None]", values))
        rows = [self._row_of.get(name, self.unseen_row) for name in known.names]
        return Place(np.array([*rows, self.missing_row], dtype=self._row_type)[known.codes])

    def _locate_numbers(self, values: Array) -> Place:
        missing = np.isnan(values)
        last = len(self.knots) - 1
        if last < 1:
            return Place(np.where(missing, self.missing_row, 0).astype(self._row_type))
        inside = np.clip(np.where(missing, self.knots[0], values), self.knots[0], self.knots[-1])
        low = np.minimum(np.searchsorted(self.knots, inside, side="right") - 1, last - 1)
        weight = ((inside - self.knots[low]) / (self.knots[low + 1] - self.knots[low])).astype(np.float32)
        low[missing], weight[missing] = self.missing_row, 0.0
        return Place(low.astype(self._row_type), weight)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {level: i for i, level in enumerate(self.levels)}

    @property
    def _row_type(self) -> type[np.integer]:
        return np.int16 if self.n_rows < np.iinfo(np.int16).max else np.int32

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
    observed = np.sort(values[~np.isnan(values)])
    had_missing = len(observed) < len(values)
    if len(observed) == 0:
        return Feature(name, NUMBER, np.zeros(1), np.zeros(1), (), had_missing)
    is_first = np.r_[True, observed[1:] > observed[:-1]]
    if np.count_nonzero(is_first) <= N_KNOTS:
        start = np.flatnonzero(is_first)
        end = np.r_[start[1:], len(observed)]
        return Feature(name, NUMBER, observed[start], (start + end) / len(observed) - 1.0, (), had_missing)
    shares = np.linspace(0.0, 1.0, N_KNOTS)
    knots, at = np.unique(observed[np.rint(shares * (len(observed) - 1)).astype(int)], return_inverse=True)
    ranks = 2.0 * np.bincount(at, weights=shares) / np.bincount(at) - 1.0
    return Feature(name, NUMBER, knots, ranks, (), had_missing)


def learn_levels(name: str, kind: str, values: Levels | Sequence[str | None], most: int) -> Feature:
    """The `most` commonest levels, ties by name; booleans have exactly ``false`` and ``true``.

    Where there are more than 60, those of fewer than 10 rows are left out: so few rows can't move a level
    away from the average, and would cost as much as others.
    """
    known = values if isinstance(values, Levels) else Levels.of(values)
    counts = known.counts()
    fewest = FEWEST_ROWS if np.count_nonzero(counts) > MANY_LEVELS else 1
    by_size = sorted(range(len(counts)), key=lambda i: (-counts[i], known.names[i]))
    common = [i for i in by_size if counts[i] >= fewest][:most]
    levels = _TRUTH_LEVELS if kind == BOOLEAN else tuple(sorted(known.names[i] for i in common))
    none = np.empty(0)
    return Feature(name, kind, none, none, levels, bool(counts.sum() < len(known)))


@dataclass(frozen=True)
class Block:
    """Coefficients of one term that share a prior: ``columns`` of the design."""

    columns: slice
    prior: str
    """``main``, ``missing``, ``pair``: how strongly it is held to zero."""

"""One decision from plain lists: what `Scorecard.evaluate` says, in microseconds.

numpy at most, because serving imports this. A value is located by bisection; the rows that it is read from
are gathered into one small matrix and summed by one product: draws, what they add to outcome and propensity,
and the low bases of the pairs. A deal's later stages differ in one feature: they are additions to a sum
without it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.basis import CATEGORY, NUMBER, Array
from training.scorecard import Value
from training.stacked import N_SUMS, RowOf, Stacked


class Scored(NamedTuple):
    """What the scorecard says of one decision: fractions, as in `Answers`."""

    uplift: float
    sd: float
    win_if_step_back: float
    win_if_step_in: float
    propensity: float
    supported: bool
    similar: int


class There(NamedTuple):
    """Uplift, its deviation and its support at another level of the moving feature."""

    uplift: float
    sd: float
    supported: bool


class RowScore(NamedTuple):
    """One decision as it stands, and as it would be at other levels of the moving feature."""

    here: Scored
    elsewhere: list[There]
    terms: list[float]
    """In the order of ``Scorecard.term_names``."""
    missing: list[str]
    unseen: list[str]


class RowScorer:
    """A scorecard prepared to answer one decision at a time; it never changes.

    Parameters
    ----------
    stacked : the scorecard's tables
    moving : a category whose other levels are asked for beside a decision's own; None for no such
    """

    def __init__(self, stacked: Stacked, moving: str | None = None) -> None:
        card = stacked.card
        self._binary, self._misfit = card.binary, card.misfit_variance
        self._baseline, self._n_draws = float(card.baseline[0]), stacked.n_draws
        self._columns, self._points = stacked.columns, stacked.points
        self._point_list, self._doubt = stacked.points.tolist(), stacked.doubt.tolist()
        self._places = _Places(stacked)
        feature = [f.name for f in card.features].index(moving) if moving else -1
        self._moving_at = self._places.at[feature] if moving else None
        self._moving_rows = RowOf.of(stacked, feature)
        self._factors, self._in_pairs = stacked.factors, stacked.in_pairs
        self._support = _Support(stacked, self._places.at, feature if moving else None)
        self._ones = np.ones(len(card.features) + len(self._places.number_names) + 1)
        self._baseline_row = stacked.baseline_row

    def score(self, values: Mapping[str, Value], elsewhere: Sequence[str] = ()) -> RowScore:
        """Answer one decision.

        Parameters
        ----------
        values : by feature, as `Scorecard.check_values` takes them; one that is absent is missing
        elsewhere : further levels of the moving feature, at which to answer the same decision
        """
        places, at = self._places, self._moving_at
        rows, above = places.locate(values)
        weights, gathered = self._gather(rows, above)
        terms = places.in_order(self._points.take(gathered) * weights)
        levels = None if at is None else [rows[at], *map(self._moving_rows.__getitem__, elsewhere)]
        sums = self._sums(weights, gathered, levels)
        draws, in_pairs = self._with_pairs(sums)
        doubt = self._misfit + sum(map(self._doubt.__getitem__, rows))
        uplifts, doubts = self._at_levels(self._baseline + sum(terms), doubt, levels, in_pairs)
        terms += in_pairs[0]
        here, there = self._scored(sums, draws, uplifts, doubts, levels, rows)
        if self._binary and abs(uplifts[0]) > 1.0:  # all terms shrink alike: see `Scorecard`
            share = (here.uplift - self._baseline) / (uplifts[0] - self._baseline)
            terms = [share * term for term in terms]
        missing, unseen = places.named(rows)
        return RowScore(here, there, terms, missing, unseen)

    def _gather(self, rows: list[int], above: array[float]) -> tuple[Array, NDArray[np.intp]]:
        """Weights and numbers of all rows that a decision is read from.

        After those of `rows` come the upper ones of numbers, and the baseline.
        """
        n_features, n_numbers = len(rows), len(above)
        upper = np.array(above, dtype=float)
        weights = self._ones.copy()
        weights[:n_numbers] -= upper
        weights[n_features:-1] = upper
        return weights, np.array([*rows, *[row + 1 for row in rows[:n_numbers]], self._baseline_row])

    def _sums(self, weights: Array, gathered: NDArray[np.intp], levels: list[int] | None) -> Array:
        """Sum the columns at each level: the decision's own, then those that are asked for as well."""
        if levels is None:
            return (weights @ self._columns.take(gathered, axis=0))[None]
        weights[self._moving_at] = 0.0
        return weights @ self._columns.take(gathered, axis=0) + self._columns.take(levels, axis=0)

    def _with_pairs(self, sums: Array) -> tuple[Array, list[list[float]]]:
        """Draws at each level, and what each pair adds to the uplift there."""
        draws = sums[:, : self._n_draws]
        if not len(self._in_pairs):
            return draws, [[]] * len(sums)
        first, second = self._factors
        added = (sums.take(first, axis=1) * sums.take(second, axis=1)) @ self._in_pairs
        return draws + added[:, : self._n_draws], added[:, self._n_draws :].tolist()

    def _at_levels(
        self, uplift: float, doubt: float, levels: list[int] | None, in_pairs: list[list[float]]
    ) -> tuple[list[float], list[float]]:
        """Uplift with the pairs, and doubt, at each level; those that come are of the decision's own."""
        if levels is None:
            return [uplift + sum(in_pairs[0])], [doubt]
        points, doubts = self._point_list, self._doubt
        uplift -= points[levels[0]]
        doubt -= doubts[levels[0]]
        return (
            [uplift + points[row] + sum(added) for row, added in zip(levels, in_pairs, strict=True)],
            [doubt + doubts[row] for row in levels],
        )

    def _scored(
        self,
        sums: Array,
        draws: Array,
        uplifts: list[float],
        doubts: list[float],
        levels: list[int] | None,
        rows: list[int],
    ) -> tuple[Scored, list[There]]:
        cell, ruled_out = self._support.of(rows)
        others = sums[:, self._n_draws : self._n_draws + N_SUMS].tolist()
        there: list[There] = []
        for i, uplift in enumerate(uplifts):
            chance = _sigmoid(others[i][1])
            supported, seen = self._support.at(cell, ruled_out, None if levels is None else levels[i], chance)
            if not there:
                propensity, similar = chance, seen
            if self._binary and abs(uplift) > 1.0:
                uplift = math.copysign(1.0, uplift)
            variance = float(draws[i].dot(draws[i])) / self._n_draws
            there.append(There(uplift, math.sqrt(variance + doubts[i]), supported))
        uplift, sd, supported = there[0]
        win = self._outcomes(others[0][0], uplift)
        return Scored(uplift, sd, *win, propensity, supported, similar), there[1:]

    def _outcomes(self, midpoint: float, uplift: float) -> tuple[float, float]:
        half = uplift / 2.0
        if not self._binary:
            return midpoint - half, midpoint + half
        room = min(abs(half), 0.5)
        middle = min(max(_sigmoid(midpoint), room), 1.0 - room)
        return min(max(middle - half, 0.0), 1.0), min(max(middle + half, 0.0), 1.0)


class _Places:
    """Finds the row of every value; numbers stand first, so that their weights are one slice."""

    def __init__(self, stacked: Stacked) -> None:
        features = stacked.card.features
        by_kind = sorted(range(len(features)), key=lambda i: features[i].kind != NUMBER)
        self.at = [by_kind.index(i) for i in range(len(features))]
        self._order = np.array(self.at)
        all_of = list(zip(features, stacked.starts, strict=True))
        numbers = [(f, start) for f, start in all_of if f.kind == NUMBER]
        self.number_names = [f.name for f, _ in numbers]
        self._within = [
            (start + 1, start + max(len(f.knots) - 1, 1), start + f.missing_row) for f, start in numbers
        ]
        self._knots, self._gaps = [math.nan] * len(stacked.points), [math.inf] * len(stacked.points)
        for f, start in numbers:
            self._knots[start : start + len(f.knots)] = f.knots.tolist()
            self._gaps[start : start + len(f.knots) - 1] = np.diff(f.knots).tolist()
        levels = [i for i, f in enumerate(features) if f.kind != NUMBER]
        self.level_names = [features[i].name for i in levels]
        self.levels = [RowOf.of(stacked, i) for i in levels]
        self._missing = {start + f.missing_row: f.name for f, start in all_of}
        self._unseen = {start + f.unseen_row: f.name for f, start in all_of if f.kind == CATEGORY}
        self._named = frozenset(self._missing) | frozenset(self._unseen)

    def locate(self, values: Mapping[str, Value]) -> tuple[list[int], array[float]]:
        """Return each feature's lower row, and for numbers the next one's weight, as `Place` has them."""
        get: Callable[[str], Any] = values.get
        knots, gaps = self._knots, self._gaps
        rows, above = [], []
        for value, (first, last, missing) in zip(map(get, self.number_names), self._within, strict=True):
            if value is None:
                rows.append(missing)
                above.append(0.0)
            else:
                row = bisect_right(knots, value, first, last) - 1
                share = (value - knots[row]) / gaps[row]
                rows.append(row)
                above.append(0.0 if share < 0.0 else 1.0 if share > 1.0 else share)
        rows += [rows_of[v] for rows_of, v in zip(self.levels, map(get, self.level_names), strict=True)]
        return rows, array("f", above)

    def in_order(self, parts: Array) -> list[float]:
        """Return what each feature adds, in the features' order, from what each gathered row adds."""
        n_numbers = len(self.number_names)
        parts[:n_numbers] += parts[len(self.at) : -1]
        terms: list[float] = parts.take(self._order).tolist()
        return terms

    def named(self, rows: list[int]) -> tuple[list[str], list[str]]:
        """Names of the features that are missing, and of those whose level was never seen."""
        found = sorted(self._named.intersection(rows))  # by feature, as the rows are
        missing = [self._missing[row] for row in found if row in self._missing]
        return missing, [self._unseen[row] for row in found if row in self._unseen]


class _Support:
    """Was the vendor seen both to step in and to step back on decisions like one?"""

    def __init__(self, stacked: Stacked, at: Sequence[int], moving: int | None) -> None:
        rule, features = stacked.card.support_rule, stacked.card.features
        self._least, self._most, self._in_cell = (
            rule.least_propensity,
            1.0 - rule.least_propensity,
            rule.least_in_cell,
        )
        strides = stacked.cell_strides
        self._cells = [(at[i], stacked.starts[i], stride) for i, stride in strides.items() if i != moving]
        self._start = 0 if moving is None else stacked.starts[moving]
        self._stride = 0 if moving is None else strides.get(moving, 0)
        self._ruled_out = stacked.ruled_out_rows
        of_moving = (
            set() if moving is None else set(range(self._start, self._start + features[moving].n_rows))
        )
        self._ruled_out_elsewhere = self._ruled_out - of_moving
        self._counts = stacked.cell_counts.tolist()

    def of(self, rows: Sequence[int]) -> tuple[int, bool]:
        """Return the cell and whether a level rules the decision out, both without the moving feature."""
        cell = sum([(rows[at] - start) * stride for at, start, stride in self._cells])
        return cell, not self._ruled_out_elsewhere.isdisjoint(rows)

    def at(self, cell: int, ruled_out: bool, level: int | None, propensity: float) -> tuple[bool, int]:
        """Is a decision supported at a level of the moving feature, and how many are similar?"""
        if level is not None:
            cell += (level - self._start) * self._stride
            ruled_out = ruled_out or level in self._ruled_out
        without, with_vendor = self._counts[cell]
        seen = min(without, with_vendor) >= self._in_cell
        return (
            seen and not ruled_out and self._least <= propensity <= self._most,
            without + with_vendor,
        )


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-min(max(logit, -40.0), 40.0)))

"""One decision from plain lists: what `Scorecard.evaluate` says, in microseconds.

numpy at most, because serving imports this. A value is located by bisection; the draws of all rows that it is
read from, and what they add to outcome and propensity, are gathered into one small matrix and summed by one
product. A deal's later stages differ in one feature: they are additions to a sum without it.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from operator import mul
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
        self._baseline, self._n_draws = float(card.baseline[0]), len(card.baseline) - 1
        self._columns, self._points = stacked.columns, stacked.points
        self._point_list, self._doubt = stacked.points.tolist(), stacked.doubt.tolist()
        self._places = _Places(stacked)
        at = self._places.at
        feature = [f.name for f in card.features].index(moving) if moving else -1
        self._moving_at = at[feature] if moving else None
        self._moving_rows = RowOf.of(stacked, feature)
        pairs = [_Pair(stacked, i, at) for i in range(len(card.pairs))]
        self._pairs = [(pair, bool(moving) and self._moving_at in pair.at) for pair in pairs]
        self._moving_pairs = [pair for pair, moves in self._pairs if moves]
        self._moving_pair_rows = [row for pair in self._moving_pairs for row in pair.rows]
        self._support = _Support(stacked, at, feature if moving else None)
        self._fixed_rows = list(range(stacked.starts[-1] + card.features[-1].n_rows, len(stacked.points)))
        self._ones = np.ones(len(card.features) + len(self._places.numbers) + len(self._fixed_rows))

    def score(self, values: Mapping[str, Value], elsewhere: Sequence[str] = ()) -> RowScore:
        """Answer one decision.

        Parameters
        ----------
        values : by feature, as `Scorecard.check_values` takes them; one that is absent is missing
        elsewhere : further levels of the moving feature, at which to answer the same decision
        """
        places = self._places
        rows, above = places.locate(values)
        weights, gathered, pair_terms = self._gather(rows, above)
        n_features, n_numbers = len(rows), len(above)
        points = self._points.take(gathered) * weights
        points[:n_numbers] += points[n_features : n_features + n_numbers]
        terms: list[float] = points.take(places.order).tolist() + pair_terms
        doubt = self._misfit + sum(map(self._doubt.__getitem__, rows))
        uplift = self._baseline + sum(terms)
        if self._moving_at is None:
            sums = weights @ self._columns.take(gathered, axis=0)
            here, there = self._scored(sums[None], [uplift], [doubt], [None], rows)
        else:
            weights[self._moving_at] = 0.0
            sums = weights @ self._columns.take(gathered, axis=0)
            here, there = self._at_levels(sums, uplift, doubt, rows, above, elsewhere)
        if self._binary and abs(uplift) > 1.0:  # all terms shrink alike: see `Scorecard`
            share = (here.uplift - self._baseline) / (uplift - self._baseline)
            terms = [share * term for term in terms]
        missing, unseen = places.named(rows)
        return RowScore(here, there, terms, missing, unseen)

    def _gather(self, rows: list[int], above: array[float]) -> tuple[Array, NDArray[np.intp], list[float]]:
        """Weights and numbers of all rows that a decision is read from, and the terms of the pairs."""
        n_features, n_numbers = len(rows), len(above)
        upper = np.array(above, dtype=float)
        weights = self._ones.copy()
        weights[:n_numbers] = 1.0 - upper
        weights[n_features : n_features + n_numbers] = upper
        pair_terms: list[float] = []
        if self._pairs:
            weights[n_features + n_numbers : -1], pair_terms = self._in_pairs(rows, above)
        gathered = np.array(rows + [row + 1 for row in rows[:n_numbers]] + self._fixed_rows)
        return weights, gathered, pair_terms

    def _in_pairs(self, rows: list[int], above: Sequence[float]) -> tuple[list[float], list[float]]:
        """Weights of the pairs' rows, 0 where the moving feature is part of it; and the pairs' terms."""
        weights: list[float] = []
        terms = []
        for pair, moves in self._pairs:
            products = pair.products(rows, above)
            terms.append(sum(map(mul, products, pair.points)))
            weights += [0.0] * len(products) if moves else products
        return weights, terms

    def _at_levels(
        self,
        sums: Array,
        uplift: float,
        doubt: float,
        rows: list[int],
        above: Sequence[float],
        elsewhere: Sequence[str],
    ) -> tuple[Scored, list[There]]:
        """Answer at the decision's own level and at others; `sums` and not `uplift` are without the level."""
        at = self._moving_at
        assert at is not None
        own, row_of = rows[at], self._moving_rows
        levels = [own, *[row_of[level] for level in elsewhere]]
        there = sums + self._columns.take(levels, axis=0)
        points = [self._point_list[row] for row in levels]
        if self._moving_pairs:
            products = []
            for row in levels:
                rows[at] = row
                products.append([x for pair in self._moving_pairs for x in pair.products(rows, above)])
            rows[at] = own
            there += np.array(products) @ self._columns[self._moving_pair_rows]
            points = (points + np.array(products) @ self._points[self._moving_pair_rows]).tolist()
        uplift -= points[0]
        doubt -= self._doubt[own]
        doubts = [doubt + self._doubt[row] for row in levels]
        return self._scored(there, [uplift + point for point in points], doubts, levels, rows)

    def _scored(
        self,
        sums: Array,
        uplifts: list[float],
        doubts: list[float],
        levels: Sequence[int | None],
        rows: list[int],
    ) -> tuple[Scored, list[There]]:
        draws = sums[:, : self._n_draws]
        variances = [float(each.dot(each)) for each in draws]
        support, cell, ruled_out = self._support, *self._support.of(rows)
        others = sums[:, -N_SUMS:].tolist()
        there: list[There] = []
        for uplift, variance, doubt, level, (_, logit) in zip(
            uplifts, variances, doubts, levels, others, strict=True
        ):
            chance = _sigmoid(logit)
            supported, seen = support.at(cell, ruled_out, level, chance)
            if not there:
                propensity, similar = chance, seen
            if self._binary and abs(uplift) > 1.0:
                uplift = math.copysign(1.0, uplift)
            there.append(There(uplift, math.sqrt(variance / self._n_draws + doubt), supported))
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
        self.order = np.array(self.at)
        all_of = list(zip(features, stacked.starts, strict=True))
        numbers = [(f, start) for f, start in all_of if f.kind == NUMBER]
        self.number_names = [f.name for f, _ in numbers]
        self.numbers = [
            (knots := f.knots.tolist(), np.diff(f.knots).tolist(), knots[-1], start, start + f.missing_row)
            for f, start in numbers
        ]
        levels = [i for i, f in enumerate(features) if f.kind != NUMBER]
        self.level_names = [features[i].name for i in levels]
        self.levels = [RowOf.of(stacked, i) for i in levels]
        self._missing = [
            (f.name, at, start + f.missing_row) for (f, start), at in zip(all_of, self.at, strict=True)
        ]
        self._unseen = [
            (f.name, at, start + f.unseen_row)
            for (f, start), at in zip(all_of, self.at, strict=True)
            if f.kind == CATEGORY
        ]

    def locate(self, values: Mapping[str, Value]) -> tuple[list[int], array[float]]:
        """Return each feature's lower row, and for numbers the next one's weight, as `Place` has them."""
        get: Callable[[str], Any] = values.get
        rows, above = [], []
        for value, (knots, gaps, top, start, missing) in zip(
            map(get, self.number_names), self.numbers, strict=True
        ):
            share = 0.0
            if value is None:
                rows.append(missing)
            elif value <= knots[0] or not gaps:
                rows.append(start)
            elif value >= top:
                rows.append(start + len(gaps) - 1)
                share = 1.0
            else:
                low = bisect_right(knots, value) - 1
                share = (value - knots[low]) / gaps[low]
                rows.append(start + low)
            above.append(share)
        rows += [rows_of[v] for rows_of, v in zip(self.levels, map(get, self.level_names), strict=True)]
        return rows, array("f", above)

    def named(self, rows: list[int]) -> tuple[list[str], list[str]]:
        """Names of the features that are missing, and of those whose level was never seen."""
        missing = [name for name, at, row in self._missing if rows[at] == row]
        return missing, [name for name, at, row in self._unseen if rows[at] == row]


class _Pair:
    """A pair of features, its tables as lists."""

    def __init__(self, stacked: Stacked, position: int, at: Sequence[int]) -> None:
        pair = stacked.card.pairs[position]
        features = (pair.first, pair.second)
        self.at = tuple(at[i] for i in features)
        self.rows = range(*stacked.pair_rows[position].indices(len(stacked.points)))
        self.points = stacked.points[stacked.pair_rows[position]].tolist()
        self._low = tuple((at[i], stacked.starts[i], stacked.card.low[i].tolist()) for i in features)

    def products(self, rows: Sequence[int], above: Sequence[float]) -> list[float]:
        """Weights of the pair's rows at a decision's places."""
        first, second = (_read(low, rows[at] - start, at, above) for at, start, low in self._low)
        return [a * b for a in first for b in second]


def _read(low: list[list[float]], row: int, at: int, above: Sequence[float]) -> list[float]:
    share = above[at] if at < len(above) else 0.0
    if not share:
        return low[row]
    return [a * (1.0 - share) + b * share for a, b in zip(low[row], low[row + 1], strict=True)]


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

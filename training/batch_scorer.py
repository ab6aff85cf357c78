"""A thousand decisions at once: what `Scorecard.evaluate` says, in a few matrix products.

numpy at most, because serving imports this. The draws of a feature's rows span few directions (its basis
functions, some nine for a number), so that those of all decisions are the product of two narrow matrices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.basis import CATEGORY, NUMBER, Array, Place
from training.batch_places import Batch, Knots, Rows, by_feature
from training.scorecard import Value
from training.stacked import N_SUMS, RowOf, Stacked

_FEW_ROWS = 16
_CHUNK_ROWS = 250
_NO_DIRECTION = 1e-14


@dataclass(frozen=True)
class BatchScore:
    """What the scorecard says of n decisions, as they stand (column 0) and at m other levels."""

    uplift: Array
    """Shape (n, 1 + m), as a fraction (or in the outcome's unit)."""
    sd: Array
    """Shape (n, 1 + m)."""
    supported: NDArray[np.bool_]
    """Shape (n, 1 + m)."""
    win: Array
    """Shape (n, 2): expected outcome if the vendor steps back, and if it steps in."""
    propensity: Array
    similar: NDArray[np.int64]
    terms: Array
    """Shape (n, n_terms), in the order of ``Scorecard.term_names``."""
    missing: NDArray[np.bool_]
    """Shape (n, n_features)."""
    unseen: NDArray[np.bool_]
    """Shape (n, n_features): a text that training never saw."""


class BatchScorer:
    """A scorecard prepared to answer many decisions at once; it never changes.

    Parameters
    ----------
    stacked : the scorecard's tables
    moving : a category at whose other levels every decision is answered as well; None for no such
    elsewhere : those levels
    """

    def __init__(self, stacked: Stacked, moving: str | None = None, elsewhere: Sequence[str] = ()) -> None:
        self._stacked, self._card, features = stacked, stacked.card, stacked.card.features
        self._names = [feature.name for feature in features]
        self._moving = self._names.index(moving) if moving else None
        starts = np.array(stacked.starts)
        self._row_of = [RowOf.of(stacked, i) for i in range(len(features))]
        self._missing_rows = starts + [feature.missing_row for feature in features]
        self._unseen_rows = starts + [feature.unseen_row for feature in features]
        self._is_category = np.array([feature.kind == CATEGORY for feature in features])
        self._number_at = [i for i, feature in enumerate(features) if feature.kind == NUMBER]
        self._level_at = [i for i, feature in enumerate(features) if feature.kind != NUMBER]
        self._knots = Knots([features[i] for i in self._number_at])
        self._draw_table, sums = stacked.columns[:, :-N_SUMS], stacked.columns[:, -N_SUMS:].T
        self._midpoint, self._chance = (np.ascontiguousarray(column) for column in sums)
        self._draws = _Draws(stacked, self._moving)
        self._support = _Support(stacked, self._moving)
        levels = [] if self._moving is None else [self._row_of[self._moving][level] for level in elsewhere]
        self._elsewhere: Rows = np.array(levels, dtype=np.intp)

    def score(self, decisions: Sequence[Mapping[str, Value]]) -> BatchScore:
        """Answer decisions; values by feature as `Scorecard.check_values` takes them, absent for missing."""
        columns = by_feature(decisions, self._names)
        places = self._locate(columns)
        rows = np.column_stack([place.low for place in places]) + np.array(self._stacked.starts)
        batch = Batch(self._stacked, places, rows, self._moving)
        terms = np.empty((len(rows), len(self._card.term_names)))
        terms[:, : rows.shape[1]] = batch.read(self._stacked.points)
        for i, (pair, at) in enumerate(zip(self._card.pairs, self._stacked.pair_rows, strict=True)):
            terms[:, rows.shape[1] + i] = batch.products(pair) @ self._stacked.points[at]
        levels = self._levels(rows)
        uplift, sd, chance = self._at_levels(batch, terms, levels)
        self._limit(uplift, terms)
        supported, similar = self._support.of(rows, levels, chance)
        return BatchScore(
            uplift=uplift,
            sd=sd,
            supported=supported,
            win=self._outcomes(batch.sums(self._midpoint), uplift[:, 0]),
            propensity=chance[:, 0],
            similar=similar,
            terms=terms,
            missing=rows == self._missing_rows,
            unseen=(rows == self._unseen_rows) & self._is_category,
        )

    def _locate(self, columns: Sequence[Sequence[Any]]) -> list[Place]:
        """Locate the values of each feature in its own tables, as `Feature.locate` does."""
        places = {
            i: Place(
                np.fromiter(map(self._row_of[i].__getitem__, columns[i]), np.intp) - self._stacked.starts[i]
            )
            for i in self._level_at
        }
        if self._number_at:
            values = np.array([columns[i] for i in self._number_at], dtype=float)
            low, share = self._knots.locate(values)
            places |= {i: Place(low[k], share[k]) for k, i in enumerate(self._number_at)}
        return [places[i] for i in range(len(columns))]

    def _levels(self, rows: Rows) -> Rows | None:
        """Rows of the moving feature, shape (n, 1 + m): the decision's own, then elsewhere."""
        if self._moving is None:
            return None
        own = rows[:, self._moving, None]
        return np.hstack([own, np.broadcast_to(self._elsewhere, (len(rows), len(self._elsewhere)))])

    def _at_levels(self, batch: Batch, terms: Array, levels: Rows | None) -> tuple[Array, Array, Array]:
        """Uplift, its deviation and the chance of stepping in, each of shape (n, 1 + m)."""
        uplift = float(self._card.baseline[0]) + terms.sum(axis=1)
        doubt = self._card.misfit_variance + self._stacked.doubt[batch.rows].sum(axis=1)
        chance = batch.sums(self._chance)
        if levels is None:
            sd = np.sqrt(self._variance(batch, None)[:, 0] + doubt)
            return uplift[:, None], sd[:, None], _sigmoid(chance)[:, None]
        uplift, doubt, chance = (
            total[:, None] - table[levels[:, :1]] + table[levels]
            for total, table in (
                (uplift, self._stacked.points),
                (doubt, self._stacked.doubt),
                (chance, self._chance),
            )
        )
        for pair, at in self._draws.moving_pairs:
            points, own = self._stacked.points[at], batch.products(pair)
            for column, there in enumerate(levels.T):
                uplift[:, column] += (batch.products(pair, there) - own) @ points
        return uplift, np.sqrt(self._variance(batch, levels) + doubt), _sigmoid(chance)

    def _variance(self, batch: Batch, levels: Rows | None) -> Array:
        """Of the draws, shape (n, 1 + m); a few hundred decisions at a time, which a core's cache holds."""
        n = len(batch.rows)
        variance = np.empty((n, 1 if levels is None else levels.shape[1]))
        for start in range(0, n, _CHUNK_ROWS):
            chunk = slice(start, start + _CHUNK_ROWS)
            part = batch.take(chunk)
            base = self._draws.of(part)
            if levels is None:
                variance[chunk, 0] = _mean_square(base)
                continue
            for column, there in enumerate(levels[chunk].T):
                draws = base + self._draw_table[there]
                for pair, at in self._draws.moving_pairs:
                    draws += part.products(pair, there) @ self._draw_table[at]
                variance[chunk, column] = _mean_square(draws)
        return variance

    def _limit(self, uplift: Array, terms: Array) -> None:
        """Keep within 1, in place, what is a difference of probabilities: see `Scorecard`."""
        absurd = np.abs(uplift) > 1.0
        if not self._card.binary or not absurd.any():
            return
        baseline, own = float(self._card.baseline[0]), absurd[:, 0]
        limit = np.sign(uplift[own, 0])
        terms[own] *= ((limit - baseline) / (uplift[own, 0] - baseline))[:, None]
        np.clip(uplift, -1.0, 1.0, out=uplift)

    def _outcomes(self, midpoint: Array, uplift: Array) -> Array:
        half = uplift / 2.0
        if self._card.binary:
            room = np.minimum(np.abs(half), 0.5)
            midpoint = np.clip(_sigmoid(midpoint), room, 1.0 - room)
        outcomes = np.column_stack([midpoint - half, midpoint + half])
        return np.clip(outcomes, 0.0, 1.0) if self._card.binary else outcomes


class _Draws:
    """The draws of decisions, all but what the moving feature is part of."""

    def __init__(self, stacked: Stacked, moving: int | None) -> None:
        table = stacked.columns[:, :-N_SUMS]
        features = [i for i in range(len(stacked.starts)) if i != moving]
        of_feature = {i: stacked.card.effect[i][:, 1:] for i in features}
        is_number = {i: stacked.card.features[i].kind == NUMBER for i in features}
        self._directions = [(i, *_directions(of_feature[i])) for i in features if is_number[i]]
        levels = [i for i in features if not is_number[i]]
        few = [i for i in levels if len(of_feature[i]) <= _FEW_ROWS]
        self._many = [(i, of_feature[i]) for i in levels if i not in few]
        self._few = few
        self._few_at = np.cumsum([0, *[len(of_feature[i]) for i in few]])
        pairs = list(zip(stacked.card.pairs, stacked.pair_rows, strict=True))
        self.moving_pairs = [(pair, at) for pair, at in pairs if moving in (pair.first, pair.second)]
        """Each with its rows."""
        fixed = [(pair, at) for pair, at in pairs if moving not in (pair.first, pair.second)]
        self._pairs, in_pairs = [pair for pair, _ in fixed], [table[at] for _, at in fixed]
        parts = [of_feature[i] for i in few] + [rows for *_, rows in self._directions] + in_pairs
        self._rows = np.vstack([np.empty((0, table.shape[1])), *parts])
        self._baseline = table[stacked.baseline_row]

    def of(self, batch: Batch) -> Array:
        """Shape (n, n_draws)."""
        n = len(batch.rows)
        weights = np.zeros((n, len(self._rows)))
        if self._few:
            local = np.column_stack([batch.places[i].low for i in self._few])
            weights[np.arange(n)[:, None], local + self._few_at[:-1]] = 1.0
        at = self._few_at[-1]
        for i, basis, _ in self._directions:
            weights[:, at : at + basis.shape[1]] = batch.places[i].read(basis)
            at += basis.shape[1]
        for pair in self._pairs:
            products = batch.products(pair)
            weights[:, at : at + products.shape[1]] = products
            at += products.shape[1]
        total: Array = weights @ self._rows
        total += self._baseline
        for i, rows in self._many:
            total += rows.take(batch.places[i].low, axis=0)
        return total


def _directions(table: Array) -> tuple[Array, Array]:
    """Split a table of shape (n_rows, n_draws) into two whose product it is, as narrow as they can be."""
    left, size, right = np.linalg.svd(table, full_matrices=False)
    k = int(np.count_nonzero(size > _NO_DIRECTION * max(size.max(initial=0.0), 1e-300)))
    return np.ascontiguousarray(left[:, :k] * size[:k]), right[:k]


class _Support:
    """Was the vendor seen both to step in and to step back on decisions like these?"""

    def __init__(self, stacked: Stacked, moving: int | None) -> None:
        strides, self._moving = stacked.cell_strides, moving
        self._rule, self._counts = stacked.card.support_rule, stacked.cell_counts
        self._features = [i for i in strides if i != moving]
        self._strides = np.array([strides[i] for i in self._features], dtype=np.intp)
        self._starts = np.array([stacked.starts[i] for i in self._features], dtype=np.intp)
        self._moving_stride = 0 if moving is None else strides.get(moving, 0)
        self._moving_start = 0 if moving is None else stacked.starts[moving]
        self._ruled_out: NDArray[np.bool_] = np.zeros(len(stacked.points), dtype=bool)
        self._ruled_out[list(stacked.ruled_out_rows)] = True

    def of(
        self, rows: Rows, levels: Rows | None, chance: Array
    ) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Return support of shape (n, 1 + m), and how many decisions are similar of shape (n,)."""
        cells = ((rows[:, self._features] - self._starts) @ self._strides)[:, None]
        by_rows = self._ruled_out[rows]
        if levels is None:
            ruled_out = by_rows.any(axis=1).reshape(-1, 1)
        else:
            by_rows[:, self._moving] = False
            ruled_out = by_rows.any(axis=1).reshape(-1, 1) | self._ruled_out[levels]
            cells = cells + (levels - self._moving_start) * self._moving_stride
        seen = self._counts[cells]
        least = self._rule.least_propensity
        enough = seen.min(axis=2) >= self._rule.least_in_cell
        supported = enough & ~ruled_out & (chance >= least) & (chance <= 1.0 - least)
        return supported, seen[:, 0].sum(axis=1)


def _mean_square(draws: Array) -> Array:
    square: Array = np.einsum("ij,ij->i", draws, draws) / draws.shape[1]
    return square


def _sigmoid(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -40.0, 40.0)))

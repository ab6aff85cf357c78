"""A thousand decisions at once: what `Scorecard.evaluate` says, in a few matrix products.

numpy at most, because serving imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.basis import CATEGORY, Array
from training.batch_draws import Draws, PairProducts
from training.batch_places import Batch, Places, Rows
from training.scorecard import Value
from training.stacked import N_SUMS, RowOf, Stacked

_CHUNK_ROWS = 250


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
        self._moving = [feature.name for feature in features].index(moving) if moving else None
        starts = np.array(stacked.starts)
        self._missing_rows = starts + [feature.missing_row for feature in features]
        self._unseen_rows = starts + [feature.unseen_row for feature in features]
        self._is_category = np.array([feature.kind == CATEGORY for feature in features])
        self._places = Places(stacked)
        sums = stacked.columns[:, stacked.n_draws : stacked.n_draws + N_SUMS].T
        self._midpoint, self._chance = (np.ascontiguousarray(column) for column in sums)
        self._pairs = PairProducts(stacked)
        self._draws = Draws(stacked, self._places.numbers, self._moving)
        self._support = _Support(stacked, self._moving)
        row_of = None if self._moving is None else RowOf.of(stacked, self._moving)
        self._elsewhere: Rows = np.array([row_of[level] for level in elsewhere] if row_of else [], np.intp)

    def score(self, decisions: Sequence[Mapping[str, Value]]) -> BatchScore:
        """Answer decisions; values by feature as `Scorecard.check_values` takes them, absent for missing."""
        batch = self._places.locate(decisions)
        low, products = self._pairs.of(batch)
        points = self._stacked.in_pairs[:, self._stacked.n_draws :]
        terms = np.hstack([batch.read(self._stacked.points), products @ points])
        levels = self._levels(batch.rows)
        uplift, sd, chance = self._at_levels(batch, low, products, terms, levels)
        self._limit(uplift, terms)
        supported, similar = self._support.of(batch.rows, levels, chance)
        midpoint = batch.read(self._midpoint).sum(axis=1) + self._midpoint[-1]
        return BatchScore(
            uplift=uplift,
            sd=sd,
            supported=supported,
            win=self._outcomes(midpoint, uplift[:, 0]),
            propensity=chance[:, 0],
            similar=similar,
            terms=terms,
            missing=batch.rows == self._missing_rows,
            unseen=(batch.rows == self._unseen_rows) & self._is_category,
        )

    def _levels(self, rows: Rows) -> Rows | None:
        """Rows of the moving feature, shape (n, 1 + m): the decision's own, then elsewhere."""
        if self._moving is None:
            return None
        own = rows[:, self._moving, None]
        return np.hstack([own, np.broadcast_to(self._elsewhere, (len(rows), len(self._elsewhere)))])

    def _at_levels(
        self, batch: Batch, low: Array, products: Array, terms: Array, levels: Rows | None
    ) -> tuple[Array, Array, Array]:
        """Uplift, its deviation and the chance of stepping in, each of shape (n, 1 + m)."""
        uplift = float(self._card.baseline[0]) + terms.sum(axis=1, keepdims=True)
        doubt = self._card.misfit_variance + self._stacked.doubt.take(batch.rows).sum(axis=1, keepdims=True)
        chance = batch.read(self._chance).sum(axis=1, keepdims=True) + self._chance[-1]
        variance, pair_points = self._at_rows(batch, low, products)
        if levels is None:
            return uplift, np.sqrt(variance + doubt), _sigmoid(chance)
        assert self._moving is not None
        points = self._stacked.points
        uplift, doubt, chance = (
            total - table[levels[:, :1]] + table[levels]
            for total, table in ((uplift, points), (doubt, self._stacked.doubt), (chance, self._chance))
        )
        local = levels - self._stacked.starts[self._moving]
        in_pairs = np.take_along_axis(pair_points, local, axis=1)
        uplift += in_pairs - in_pairs[:, :1]
        return uplift, np.sqrt(np.take_along_axis(variance, local, axis=1) + doubt), _sigmoid(chance)

    def _at_rows(self, batch: Batch, low: Array, products: Array) -> tuple[Array, Array]:
        """Like `Draws.at_rows`; a few hundred decisions at a time, which a core's cache holds."""
        chunks = [slice(start, start + _CHUNK_ROWS) for start in range(0, len(low), _CHUNK_ROWS)]
        parts = [self._draws.at_rows(batch.take(chunk), low[chunk], products[chunk]) for chunk in chunks]
        variance, points = zip(*parts, strict=True)
        return np.concatenate(variance), np.concatenate(points)

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


def _sigmoid(logit: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-np.clip(logit, -40.0, 40.0)))

"""A scorecard's tables one upon the other, so that a decision is read from one matrix at once.

numpy at most, because serving imports this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from training.basis import BOOLEAN, NUMBER, Array, Feature
from training.scorecard import Scorecard, Value

N_SUMS = 2
"""Columns of `Stacked.columns` after the draws: the outcomes' midpoint, and the propensity."""


@dataclass(frozen=True)
class Stacked:
    """Every row of every feature's tables, numbered through, and the baseline as the last row.

    A decision is a weighted sum of rows of `columns`. Among the sums are the values of the pairs' low bases;
    their products, a weighted sum of rows of `in_pairs`, are what the pairs add.
    """

    card: Scorecard
    starts: tuple[int, ...]
    """Per feature, the number of its first row."""
    baseline_row: int
    """The last row: it is part of every decision."""
    points: Array
    """Shape (n_rows,): what a row adds to the uplift."""
    columns: Array
    """Shape (n_rows, n_draws + 2 + n_low): a row's draws; what it adds to the outcomes' midpoint and to the
    propensity; and its values in the low bases of all features, 0 in those of others."""
    doubt: Array
    """Shape (n_rows,): variance that a row adds; read at a place's lower row, without a weight."""
    factors: tuple[NDArray[np.intp], NDArray[np.intp]]
    """Two numbers of `columns` for each product of the pairs, each of shape (n_products,)."""
    in_pairs: Array
    """Shape (n_products, n_draws + n_pairs): what a product adds to the draws, and to its pair's points."""
    rows_of_values: tuple[dict[Value, int], ...]
    """Per feature, the row of each value as `Scorecard.check_values` takes it; of numbers only of None."""

    @classmethod
    def of(cls, card: Scorecard) -> Stacked:
        """Stack the tables of `card`."""
        starts = list(accumulate((f.n_rows for f in card.features), initial=0))
        effect = np.vstack([*card.effect, card.baseline[None]])
        n_draws = effect.shape[1] - 1
        midpoint = np.concatenate([*card.outcome, [card.outcome_intercept]])
        chance = np.concatenate([*card.propensity, [card.propensity_intercept]])
        low_starts = list(accumulate((table.shape[1] for table in card.low), initial=0))
        low = np.zeros((len(effect), low_starts[-1]))
        for start, column, table in zip(starts, low_starts, card.low, strict=False):
            low[start : start + len(table), column : column + table.shape[1]] = table
        return cls(
            card=card,
            starts=tuple(starts[:-1]),
            baseline_row=starts[-1],
            points=np.ascontiguousarray(effect[:, 0]),
            columns=np.column_stack([effect[:, 1:], midpoint, chance, low]),
            doubt=np.concatenate([*card.doubt, [0.0]]),
            factors=_factors(card, [n_draws + N_SUMS + start for start in low_starts]),
            in_pairs=_in_pairs(card, n_draws),
            rows_of_values=tuple(
                _rows_of_values(f, start) for f, start in zip(card.features, starts, strict=False)
            ),
        )

    @property
    def n_draws(self) -> int:
        """Columns of `columns` and of `in_pairs` that are draws; they are the first."""
        return len(self.card.baseline) - 1

    @property
    def ruled_out_rows(self) -> frozenset[int]:
        """Rows without support: levels only ever seen one way, and what no cell has seen."""
        one_way = {self.starts[i] + row for i, row in self.card.cells.one_way}
        never = {self.starts[i] + self.card.features[i].unseen_row for i in self.card.cells.features}
        return frozenset(one_way | never)

    @property
    def cell_strides(self) -> dict[int, int]:
        """Per feature that decides a cell, how far apart its rows stand in `cell_counts`."""
        shape = self.card.cells.counts.shape[:-1]
        after = [int(np.prod(shape[k + 1 :], dtype=np.int64)) for k in range(len(shape))]
        return dict(zip(self.card.cells.features, after, strict=True))

    @property
    def cell_counts(self) -> NDArray[np.int64]:
        """Shape (n_cells, 2): decisions seen in each cell, without and with the vendor."""
        return self.card.cells.counts.reshape(-1, 2)


def _factors(card: Scorecard, low_starts: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    first, second = [], []
    for pair in card.pairs:
        k_first, k_second = pair.weights.shape[:2]
        first += [low_starts[pair.first] + i for i in range(k_first) for _ in range(k_second)]
        second += [low_starts[pair.second] + j for _ in range(k_first) for j in range(k_second)]
    return np.array(first, dtype=np.intp), np.array(second, dtype=np.intp)


def _in_pairs(card: Scorecard, n_draws: int) -> Array:
    flat = [pair.weights.reshape(-1, 1 + n_draws) for pair in card.pairs]
    table = np.zeros((sum(map(len, flat)), n_draws + len(flat)))
    start = 0
    for i, weights in enumerate(flat):
        rows = slice(start, start + len(weights))
        table[rows, :n_draws], table[rows, n_draws + i] = weights[:, 1:], weights[:, 0]
        start += len(weights)
    return table


def _rows_of_values(feature: Feature, start: int) -> dict[Value, int]:
    rows: dict[Value, int] = {None: start + feature.missing_row}
    if feature.kind == NUMBER:
        return rows
    by_level: dict[Value, int] = {level: start + i for i, level in enumerate(feature.levels)}
    if feature.kind != BOOLEAN:
        return {**by_level, **rows}
    unseen = start + feature.unseen_row
    return {**rows, False: by_level.get("false", unseen), True: by_level.get("true", unseen)}


class RowOf(dict[Value, int]):
    """Rows of a feature's values; of a text that training never saw, the row for those."""

    def __init__(self, rows: Mapping[Value, int], unseen: int) -> None:
        super().__init__(rows)
        self._unseen = unseen

    @classmethod
    def of(cls, stacked: Stacked, feature: int) -> RowOf:
        """Rows of a feature that is no number."""
        unseen = stacked.starts[feature] + stacked.card.features[feature].unseen_row
        return cls(stacked.rows_of_values[feature], unseen)

    def __missing__(self, _value: Value) -> int:
        return self._unseen

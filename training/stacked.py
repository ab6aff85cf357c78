"""A scorecard's tables one upon the other, so that a decision is read from one matrix at once.

numpy at most, because serving imports this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from training.basis import BOOLEAN, NUMBER, Array, Feature
from training.scorecard import Scorecard, Value

N_SUMS = 2
"""Columns of `Stacked.columns` after those of the draws: the outcomes' midpoint, and the propensity."""


@dataclass(frozen=True)
class Stacked:
    """Every row of every table, numbered through: those of the features, of the pairs, of the baseline."""

    card: Scorecard
    starts: tuple[int, ...]
    """Per feature, the number of its first row."""
    pair_rows: tuple[slice, ...]
    """Per pair, its rows, the first feature's columns varying slowest."""
    baseline_row: int
    """The last row: it is part of every decision."""
    points: Array
    """Shape (n_rows,): what a row adds to the uplift."""
    columns: Array
    """Shape (n_rows, n_draws + 2): a row's draws, then what it adds to outcome and propensity."""
    doubt: Array
    """Shape (n_rows,): variance that a row adds; read at a place's lower row, without a weight."""
    rows_of_values: tuple[dict[Value, int], ...]
    """Per feature, the row of each value as `Scorecard.check_values` takes it; of numbers only of None."""

    @classmethod
    def of(cls, card: Scorecard) -> Stacked:
        """Stack the tables of `card`: one copy of its numbers."""
        starts = list(accumulate((f.n_rows for f in card.features), initial=0))
        flat = [pair.weights.reshape(-1, pair.weights.shape[2]) for pair in card.pairs]
        ends = list(accumulate(map(len, flat), initial=starts[-1]))
        effect = np.vstack([*card.effect, *flat, card.baseline[None]])
        in_pairs = np.zeros(ends[-1] - starts[-1])
        outcome = np.concatenate([*card.outcome, in_pairs, [card.outcome_intercept]])
        propensity = np.concatenate([*card.propensity, in_pairs, [card.propensity_intercept]])
        return cls(
            card=card,
            starts=tuple(starts[:-1]),
            pair_rows=tuple(slice(a, b) for a, b in pairwise(ends)),
            baseline_row=ends[-1],
            points=np.ascontiguousarray(effect[:, 0]),
            columns=np.column_stack([effect[:, 1:], outcome, propensity]),
            doubt=np.concatenate([*card.doubt, in_pairs, [0.0]]),
            rows_of_values=tuple(
                _rows_of_values(f, start) for f, start in zip(card.features, starts, strict=False)
            ),
        )

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

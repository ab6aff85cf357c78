"""The draws of a batch of decisions, whose spread is the uplift's deviation: the dear part of a batch.

numpy at most, because serving imports this. The draws of a feature's rows span few directions (its basis
functions, some nine for a number), so that those of all decisions are the product of two narrow matrices.
What another level of the moving feature adds to them spans few directions as well: the variance there is a
sum of three products, and the draws themselves are not made again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.basis import Array
from training.batch_places import Batch
from training.scorecard import Pair
from training.stacked import N_SUMS, Stacked

_FEW_ROWS = 16
_NO_DIRECTION = 1e-14


class PairProducts:
    """The pairs' low bases at a batch's places; their products weigh the rows of `Stacked.in_pairs`."""

    def __init__(self, stacked: Stacked) -> None:
        before = stacked.n_draws + N_SUMS
        widths = [low.shape[1] for low in stacked.card.low]
        ends = before + np.cumsum(widths)
        self._tables = [
            (i, np.ascontiguousarray(stacked.columns[:, end - width : end]))
            for i, (end, width) in enumerate(zip(ends, widths, strict=True))
            if width
        ]
        self._first, self._second = (factors - before for factors in stacked.factors)

    def of(self, batch: Batch) -> tuple[Array, Array]:
        """Low bases of all features, shape (n, n_low), and the products, shape (n, n_products)."""
        none = np.empty((len(batch.rows), 0))
        low = np.hstack([none, *(batch.read_one(i, table) for i, table in self._tables)])
        return low, low.take(self._first, axis=1) * low.take(self._second, axis=1)


class Draws:
    """The draws of decisions, as they stand and at every row of the moving feature."""

    def __init__(self, stacked: Stacked, numbers: Sequence[int], moving: int | None) -> None:
        card, self._numbers = stacked.card, list(numbers)
        self._starts, effect = np.array(stacked.starts), [table[:, 1:] for table in card.effect]
        levels = [i for i in range(len(effect)) if i not in numbers and i != moving]
        self._few = [i for i in levels if len(effect[i]) <= _FEW_ROWS]
        self._many = [i for i in levels if len(effect[i]) > _FEW_ROWS]
        self._few_at = np.cumsum([0, *[len(effect[i]) for i in self._few]])
        self._bases, of_numbers = _directions(stacked, self._numbers)
        moves = [k for k, pair in enumerate(card.pairs) if moving in (pair.first, pair.second)]
        self._fixed = np.array([k not in moves for k in _pair_of_products(card.pairs)], dtype=bool)
        self._rows = np.vstack(
            [*of_numbers, *(effect[i] for i in self._few), stacked.in_pairs[self._fixed, : stacked.n_draws]]
        )
        self._columns, self._n_draws = stacked.columns, stacked.n_draws
        self._baseline = card.baseline[1:]
        self._moved = None if moving is None else _Moved(stacked, moving, [card.pairs[k] for k in moves])

    def at_rows(self, batch: Batch, low: Array, products: Array) -> tuple[Array, Array]:
        """Variance, and the points of the pairs that it is part of, at each row of the moving feature.

        Parameters
        ----------
        batch, low, products : places, and what `PairProducts` says of them

        Returns
        -------
        variance, points : shape (n, n_rows of the moving feature); without one (n, 1), of the decision itself
        """
        draws = self._of(batch, products)
        variance = np.einsum("ij,ij->i", draws, draws)[:, None]
        points = np.zeros_like(variance)
        if self._moved is not None:
            added, points = self._moved.add_to(draws, low)
            variance = np.maximum(variance + added, 0.0)
        return variance / self._n_draws, points

    def _of(self, batch: Batch, products: Array) -> Array:
        """The draws without the moving feature, shape (n, n_draws)."""
        n, parts = len(batch.rows), []
        if self._numbers:
            parts.append(batch.read_numbers(self._bases))
        if self._few:
            hot = np.zeros((n, self._few_at[-1]))
            local = batch.rows[:, self._few] - self._starts[self._few]
            hot[np.arange(n)[:, None], local + self._few_at[:-1]] = 1.0
            parts.append(hot)
        total: Array = np.hstack([*parts, products[:, self._fixed]]) @ self._rows
        total += self._baseline
        for i in self._many:
            total += self._columns.take(batch.rows[:, i], axis=0)[:, : self._n_draws]
        return total


class _Moved:
    """What each row of the moving feature adds to the draws.

    It is a sum of few rows, weighed by the decision's low bases of the features that it is in pairs with.
    """

    def __init__(self, stacked: Stacked, moving: int, pairs: Sequence[Pair]) -> None:
        table = stacked.card.effect[moving].copy()
        table[:, 0] = 0.0  # its own points are no pair's
        low_starts = np.cumsum([0, *[low.shape[1] for low in stacked.card.low]])
        parts = [table[:, None]]
        self._at: list[int] = []
        for pair in pairs:
            weights, other = pair.weights, pair.second
            if pair.second == moving:
                weights, other = weights.swapaxes(0, 1), pair.first
            parts.append(np.einsum("ra,abd->rbd", stacked.card.low[moving], weights))
            self._at += range(low_starts[other], low_starts[other + 1])
        added = np.concatenate(parts, axis=1)  # (n_rows, 1 + n_low of the others, 1 + n_draws)
        self._points, draws = added[:, :, 0], added[:, :, 1:]
        self._n_rows, self._width = draws.shape[:2]
        self._draws = draws.reshape(-1, draws.shape[2])
        self._squares = (draws @ draws.swapaxes(1, 2)).reshape(self._n_rows, -1)

    def add_to(self, draws: Array, low: Array) -> tuple[Array, Array]:
        """What each row adds to the sum of the draws' squares, and its pairs' points: shape (n, n_rows)."""
        n = len(draws)
        weights = np.hstack([np.ones((n, 1)), low[:, self._at]])
        across = (draws @ self._draws.T).reshape(n, self._n_rows, self._width)
        within = (weights[:, :, None] * weights[:, None, :]).reshape(n, -1) @ self._squares.T
        return 2.0 * np.einsum("nrk,nk->nr", across, weights) + within, weights @ self._points.T


def _pair_of_products(pairs: Sequence[Pair]) -> Iterator[int]:
    for k, pair in enumerate(pairs):
        yield from [k] * (pair.weights.shape[0] * pair.weights.shape[1])


def _directions(stacked: Stacked, numbers: Sequence[int]) -> tuple[Array, list[Array]]:
    """Split the numbers' draws into a stacked table of few columns, and the rows that these weigh."""
    split = {i: _split(stacked.card.effect[i][:, 1:]) for i in numbers}
    width = max((len(rows) for _, rows in split.values()), default=0)
    bases, weighed = np.zeros((len(stacked.points), width)), []
    for i, (basis, rows) in split.items():
        start = stacked.starts[i]
        bases[start : start + len(basis), : len(rows)] = basis
        weighed.append(np.vstack([rows, np.zeros((width - len(rows), rows.shape[1]))]))
    return bases, weighed


def _split(table: Array) -> tuple[Array, Array]:
    """Two whose product a table of shape (n_rows, n_draws) is, as narrow as they can be."""
    left, size, right = np.linalg.svd(table, full_matrices=False)
    k = int(np.count_nonzero(size > _NO_DIRECTION * max(size.max(initial=0.0), 1e-300)))
    return left[:, :k] * size[:k], right[:k]

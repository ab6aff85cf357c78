"""The effect model's columns, and their sums over rows: all that fitting ever needs of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.basis import Array, Block, Feature, Place
from training.budget import hats, is_pair_simple
from training.terms import low_table, main_tables

CHUNK_ROWS = 2048
_WIDE = 12  # levels from which a term's sums are taken level by level


@dataclass(frozen=True)
class PairTerm:
    """Product of two features' low tables; ``columns`` of the design, a's columns varying slowest."""

    first: int
    second: int
    columns: slice


@dataclass(frozen=True)
class Design:
    """Intercept, one term per feature, and pairs. Column 0 is the intercept."""

    features: tuple[Feature, ...]
    tables: tuple[Array, ...]
    """Per feature, shape (n_rows, its columns)."""
    columns: tuple[slice, ...]
    """Per feature, where its columns stand."""
    low: tuple[Array | None, ...]
    pairs: tuple[PairTerm, ...]
    blocks: tuple[Block, ...]
    n_columns: int

    def rows(self, places: Sequence[Place], chunk: slice, features: Sequence[int] | None = None) -> Array:
        """Rows of the design for one chunk: shape (chunk length, n_columns), or less for some `features`.

        The columns are the intercept, those of the features, then those of the pairs.
        """
        features = range(len(self.features)) if features is None else features
        some = [place.take(chunk) for place in places]
        parts = [np.ones((len(some[0]), 1))]
        parts += [some[i].read(self.tables[i]) for i in features]
        parts += [self._product(pair, some) for pair in self.pairs]
        return np.hstack(parts)

    def _product(self, pair: PairTerm, places: Sequence[Place]) -> Array:
        first, second = places[pair.first].read(self._low(pair.first)), self._low(pair.second)
        product = first[:, :, None] * places[pair.second].read(second)[:, None, :]
        return product.reshape(len(product), -1)

    def _low(self, feature: int) -> Array:
        table = self.low[feature]
        assert table is not None
        return table

    def apply(self, places: Sequence[Place], coefficients: Array) -> Array:
        """The design times coefficients of shape (n_columns,), row by row: shape (n,)."""
        out = np.full(len(places[0]), coefficients[0])
        for place, table, columns in zip(places, self.tables, self.columns, strict=True):
            out += place.read(table @ coefficients[columns])
        for pair in self.pairs:
            first, second = self._low(pair.first), self._low(pair.second)
            inner = first @ coefficients[pair.columns].reshape(first.shape[1], second.shape[1])
            out += np.einsum("nk,nk->n", places[pair.first].read(inner), places[pair.second].read(second))
        return out

    def low_rows(self, places: Sequence[Place], chunk: slice) -> Array:
        """Low tables of all features side by side, for screening pairs: shape (chunk length, n_low)."""
        parts = [
            place.take(chunk).read(table)
            for place, table in zip(places, self.low, strict=True)
            if table is not None
        ]
        return np.hstack(parts) if parts else np.zeros((chunk.stop - chunk.start, 0))

    def with_pairs(self, chosen: Sequence[tuple[int, int]]) -> "Design":
        """Add pairs of features, each with a block of its own."""
        at, pairs, blocks = self.n_columns, list(self.pairs), list(self.blocks)
        for first, second in chosen:
            columns = slice(at, at + self._low(first).shape[1] * self._low(second).shape[1])
            pairs.append(PairTerm(first, second, columns))
            blocks.append(Block(columns, "pair"))
            at = columns.stop
        return Design(self.features, self.tables, self.columns, self.low, tuple(pairs), tuple(blocks), at)


def make_design(features: Sequence[Feature], places: Sequence[Place], weights: Array) -> Design:
    """Lay out the main terms of `features` located at `places`; `weights` of shape (n,) centre them."""
    tables, columns, blocks, low = [], [], [], []
    n_hats, curved = hats(features), not is_pair_simple(features)
    at = 1
    for feature, place in zip(features, places, strict=True):
        start = at
        parts = main_tables(feature, place, weights, n_hats)
        for prior, table in parts:
            blocks.append(Block(slice(at, at + table.shape[1]), prior))
            at += table.shape[1]
        empty = np.zeros((feature.n_rows, 0))
        tables.append(np.hstack([empty, *(table for _, table in parts)]))
        columns.append(slice(start, at))
        low.append(low_table(feature, place, weights, curved))
    return Design(tuple(features), tuple(tables), tuple(columns), tuple(low), (), tuple(blocks), at)


@dataclass(frozen=True)
class Sums:
    """Weighted sums over rows: of b b', b y and y y; they add up over partitions."""

    gram: Array
    cross: Array
    square: float
    n: float

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(
            self.gram + other.gram, self.cross + other.cross, self.square + other.square, self.n + other.n
        )

    def scaled(self, factor: float) -> "Sums":
        """Count every row `factor` times: less than 1 where rows repeat each other."""
        return Sums(self.gram * factor, self.cross * factor, self.square * factor, self.n * factor)


def chunks(n: int, size: int = CHUNK_ROWS) -> Iterator[slice]:
    """Slices that cover n rows."""
    return (slice(start, min(start + size, n)) for start in range(0, n, size))


def add_up(design: Design, places: Sequence[Place], targets: Sequence[tuple[Array, Array]]) -> Sums:
    """Average the sums of several regressions of the same rows.

    Parameters
    ----------
    targets : pairs (y, weight) of arrays of shape (n,); each counts equally
    """
    n, share = len(places[0]), 1.0 / len(targets)
    weight = share * sum((w for _, w in targets), np.zeros(n))
    weighted = share * sum((w * y for y, w in targets), np.zeros(n))
    square = share * float(sum((w * y * y).sum() for y, w in targets))
    return Sums(gram(design, places, weight), cross(design, places, weighted), square, n)


def cross(design: Design, places: Sequence[Place], values: Array) -> Array:
    """Sum b y over rows, for `values` y of shape (n,): shape (n_columns,)."""
    out = np.zeros(design.n_columns)
    out[0] = values.sum()
    for place, table, columns in zip(places, design.tables, design.columns, strict=True):
        out[columns] = place.add_up(values, len(table)) @ table
    for chunk in chunks(len(values)) if design.pairs else ():
        low = {i: table for i, table in enumerate(design.low) if table is not None}
        for pair in design.pairs:
            first, second = (places[i].take(chunk).read(low[i]) for i in (pair.first, pair.second))
            out[pair.columns] += ((first * values[chunk, None]).T @ second).ravel()
    return out


def gram(design: Design, places: Sequence[Place], weight: Array) -> Array:
    """Sum w b b' over rows: shape (n_columns, n_columns).

    Wide terms, of many levels, are summed level by level, where each row stands in one: a few additions
    instead of a row of zeros. All others are multiplied out.
    """
    wide = [i for i, place in enumerate(places) if place.weight is None and len(design.tables[i]) > _WIDE]
    narrow = [i for i in range(len(places)) if i not in wide]
    at = np.hstack([np.arange(c.start, c.stop) for c in _columns_of(design, narrow)])
    dense = np.zeros((len(at), len(at)))
    by_level = {i: np.zeros((len(design.tables[i]), len(at))) for i in wide}
    for chunk in chunks(len(weight)):
        rows = design.rows(places, chunk, narrow)
        weighted = rows * weight[chunk, None]
        dense += weighted.T @ rows
        for i, sums in by_level.items():
            sums += _indicators(places[i].low[chunk], len(sums)).T @ weighted
    out = np.zeros((design.n_columns, design.n_columns))
    out[np.ix_(at, at)] = dense
    for i, sums in by_level.items():
        out[design.columns[i], at] = design.tables[i].T @ sums
        out[at, design.columns[i]] = out[design.columns[i], at].T
    for i, k in ((i, k) for i in wide for k in wide if k <= i):
        block = design.tables[i].T @ _together(
            places[i], places[k], weight, len(by_level[i]), len(by_level[k])
        )
        out[design.columns[i], design.columns[k]] = block @ design.tables[k]
        out[design.columns[k], design.columns[i]] = out[design.columns[i], design.columns[k]].T
    return out


def _columns_of(design: Design, features: Sequence[int]) -> list[slice]:
    """Where the columns of `Design.rows` for these features stand in the whole design."""
    return [slice(0, 1), *(design.columns[i] for i in features), *(pair.columns for pair in design.pairs)]


def _indicators(rows: NDArray[np.integer], n_rows: int) -> sparse.csr_array:
    """A row with a single one for each value: shape (n, n_rows)."""
    n = len(rows)
    return sparse.csr_array((np.ones(n), rows, np.arange(n + 1)), shape=(n, n_rows))


def _together(first: Place, second: Place, weight: Array, n_first: int, n_second: int) -> Array:
    """Weight of the rows at each two levels: shape (n_first, n_second)."""
    at = first.low.astype(np.intp) * n_second + second.low
    total = np.bincount(at, weight, n_first * n_second)
    return total.astype(float, copy=False).reshape(n_first, n_second)

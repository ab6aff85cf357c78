"""The effect model's columns, and their sums over rows: all that fitting ever needs of the data."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.basis import Array, Block, Feature, Place, low_table, main_tables

CHUNK_ROWS = 4096


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

    def rows(self, places: Sequence[Place], chunk: slice) -> Array:
        """Rows of the design for one chunk, shape (chunk length, n_columns)."""
        some = [place.take(chunk) for place in places]
        out = np.empty((len(some[0].low), self.n_columns))
        out[:, 0] = 1.0
        for place, table, columns in zip(some, self.tables, self.columns, strict=True):
            out[:, columns] = place.read(table)
        for pair in self.pairs:
            first, second = self.low[pair.first], self.low[pair.second]
            assert first is not None
            assert second is not None
            product = some[pair.first].read(first)[:, :, None] * some[pair.second].read(second)[:, None, :]
            out[:, pair.columns] = product.reshape(len(out), -1)
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
            a, b = self.low[first], self.low[second]
            assert a is not None
            assert b is not None
            columns = slice(at, at + a.shape[1] * b.shape[1])
            pairs.append(PairTerm(first, second, columns))
            blocks.append(Block(columns, "pair"))
            at = columns.stop
        return Design(self.features, self.tables, self.columns, self.low, tuple(pairs), tuple(blocks), at)


def make_design(features: Sequence[Feature], places: Sequence[Place], weights: Array) -> Design:
    """Lay out the main terms of `features` located at `places`; `weights` of shape (n,) centre them."""
    tables, columns, blocks, low = [], [], [], []
    at = 1
    for feature, place in zip(features, places, strict=True):
        start = at
        parts = main_tables(feature, place, weights)
        for prior, table in parts:
            blocks.append(Block(slice(at, at + table.shape[1]), prior))
            at += table.shape[1]
        empty = np.zeros((feature.n_rows, 0))
        tables.append(np.hstack([empty, *(table for _, table in parts)]))
        columns.append(slice(start, at))
        low.append(low_table(feature, place, weights))
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
    n, p, share = len(places[0].low), design.n_columns, 1.0 / len(targets)
    gram, cross, square = np.zeros((p, p)), np.zeros(p), 0.0
    weight = share * sum((w for _, w in targets), np.zeros(n))
    weighted = share * sum((w * y for y, w in targets), np.zeros(n))
    square = share * float(sum((w * y * y).sum() for y, w in targets))
    for chunk in chunks(n):
        rows = design.rows(places, chunk)
        gram += (rows * weight[chunk, None]).T @ rows
        cross += weighted[chunk] @ rows
    return Sums(gram, cross, square, n)


def predict(design: Design, places: Sequence[Place], coefficients: Array) -> NDArray[np.float64]:
    """Design times coefficients of shape (n_columns,) or (n_columns, k)."""
    n = len(places[0].low)
    out = np.empty((n, *coefficients.shape[1:]))
    for chunk in chunks(n):
        out[chunk] = design.rows(places, chunk) @ coefficients
    return out

"""Does a scorecard fit together? Every number finite, every index in range, and nothing of an absurd size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.basis import BOOLEAN, CATEGORY, NUMBER, Feature
from training.scorecard import Scorecard

MOST_FEATURES = 2000
MOST_PAIRS = 2000
MOST_LEVELS = 100_000
MOST_KNOTS = 1000
MOST_DRAWS = 5000
MOST_LOW_COLUMNS = 32
"""Columns of a feature inside a pair: one row of a pair costs their product."""
LONGEST_NAME = 1000
LONGEST_LEVEL = 10_000
LARGEST = 1e15
"""Of any number in a table: squares and products of three stay finite."""
LARGEST_COUNT = 10**12


class Unfit(ValueError):  # noqa: N818 - said of a scorecard
    """What does not fit, in one word."""


def check_features(features: Sequence[Feature]) -> None:
    """Names, kinds, knots and levels; else Unfit."""
    _need(0 < len(features) <= MOST_FEATURES, "features")
    _need(len({feature.name for feature in features}) == len(features), "names")
    for feature in features:
        _need(0 < len(feature.name) <= LONGEST_NAME, "name")
        _need(feature.kind in (NUMBER, BOOLEAN, CATEGORY), "kind")
        if feature.kind == NUMBER:
            _check_knots(feature)
        else:
            _check_levels(feature)


def check_scorecard(card: Scorecard) -> None:
    """Shapes fit each other, every number is finite and every index in range; else Unfit.

    `check_features` comes first: tables are measured by it.
    """
    width = len(card.baseline) if card.baseline.ndim == 1 else 0
    _need(2 <= width <= 1 + MOST_DRAWS, "baseline")
    _check_numbers(card.baseline, "baseline")
    for i, feature in enumerate(card.features):
        _check_tables(card, i, feature.n_rows, width)
    _check_pairs(card, width)
    _check_cells(card)
    _check_constants(card)


def _check_tables(card: Scorecard, i: int, n_rows: int, width: int) -> None:
    low = card.low[i]
    _need(low.ndim == 2 and len(low) == n_rows and low.shape[1] <= MOST_LOW_COLUMNS, "low")
    _need(card.effect[i].shape == (n_rows, width), "effect")
    tables = {"effect": card.effect[i], "low": low}
    for word in ("doubt", "outcome", "propensity"):
        tables[word] = getattr(card, word)[i]
        _need(tables[word].shape == (n_rows,), word)
    for word, table in tables.items():
        _check_numbers(table, word)
    _need(bool((card.doubt[i] >= 0).all()), "doubt")


def _check_knots(feature: Feature) -> None:
    knots, ranks = feature.knots, feature.ranks
    _need(knots.ndim == ranks.ndim == 1 and 1 <= len(knots) <= MOST_KNOTS, "knots")
    _need(len(knots) == len(ranks) and not feature.levels, "knots")
    _need(bool(np.isfinite(knots).all()), "knots")
    with np.errstate(over="ignore"):
        steps = np.diff(knots)
    _need(bool((steps > 0).all() and np.isfinite(steps).all()), "knots")
    _check_numbers(ranks, "ranks")


def _check_levels(feature: Feature) -> None:
    levels = feature.levels
    _need(feature.knots.size == feature.ranks.size == 0, "knots")
    _need(len(levels) <= MOST_LEVELS and len(set(levels)) == len(levels), "levels")
    _need(all(len(level) <= LONGEST_LEVEL for level in levels), "levels")
    _need(feature.kind != BOOLEAN or levels == ("false", "true"), "levels")


def _check_pairs(card: Scorecard, width: int) -> None:
    _need(len(card.pairs) <= MOST_PAIRS, "pairs")
    for pair in card.pairs:
        ends = (pair.first, pair.second)
        _need(all(_is_place(end, len(card.features)) for end in ends) and pair.first != pair.second, "pair")
        shape = (card.low[pair.first].shape[1], card.low[pair.second].shape[1], width)
        _need(pair.weights.shape == shape, "pair")
        _check_numbers(pair.weights, "pair")


def _check_cells(card: Scorecard) -> None:
    cells, n = card.cells, len(card.features)
    _need(all(_is_place(i, n) for i in cells.features), "cells")
    _need(len(set(cells.features)) == len(cells.features), "cells")
    shape = (*(card.features[i].n_rows for i in cells.features), 2)
    _need(cells.counts.shape == shape and cells.counts.dtype.kind == "i", "cells")
    _need(bool((cells.counts >= 0).all() and (cells.counts <= LARGEST_COUNT).all()), "cells")
    _need(len(set(cells.one_way)) == len(cells.one_way), "one_way")
    for i, row in cells.one_way:
        _need(_is_place(i, n) and _is_place(row, card.features[i].n_rows), "one_way")


def _check_constants(card: Scorecard) -> None:
    numbers = (card.misfit_variance, card.outcome_intercept, card.propensity_intercept)
    _check_numbers(np.array(numbers), "constants")
    _need(card.misfit_variance >= 0, "misfit_variance")
    rule = card.support_rule
    _need(0 <= rule.least_propensity <= 1 and 0 <= rule.least_in_cell <= LARGEST_COUNT, "support")
    _need(len(card.importance) == len(card.features) + len(card.pairs), "importance")
    _check_numbers(np.array(card.importance), "importance")


def _check_numbers(table: NDArray[Any], word: str) -> None:
    _need(table.dtype.kind == "f", word)
    if table.size:  # NaN comes through as both ends, and is not within
        _need(bool(table.min() >= -LARGEST and table.max() <= LARGEST), word)


def _is_place(index: int, n: int) -> bool:
    return 0 <= index < n


def _need(fits: bool, word: str) -> None:
    if not fits:
        raise Unfit(word)

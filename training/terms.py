"""The columns that a feature brings into the effect model, as tables over its knots or levels."""

import numpy as np

from training.basis import BOOLEAN, NUMBER, Array, Feature, Place


def main_tables(feature: Feature, place: Place, weights: Array, n_hats: int = 9) -> list[tuple[str, Array]]:
    """Basis tables of a feature's own effect, each of shape (n_rows, n_columns), centred on the data.

    Numbers get a line in their rank, hat functions on it, and a flag for missing values; booleans a
    contrast and a flag; categories a column per level, missing being one of them.
    """
    if feature.kind == NUMBER:
        line = np.zeros((feature.n_rows, 1))
        line[: feature.n_known, 0] = feature.ranks
        parts = [("main", line)] if feature.n_known > 1 else []
        parts += [("main", _hats(feature, n_hats))] if feature.n_known > 2 and n_hats else []
    elif feature.kind == BOOLEAN:
        contrast = np.zeros((feature.n_rows, 1))
        contrast[:2, 0] = (-1.0, 1.0)
        parts = [("main", contrast)]
    else:
        levels = np.zeros((feature.n_rows, feature.n_known + feature.had_missing))
        np.fill_diagonal(levels, 1.0)
        return [("main", levels)]
    tables = [(prior, _centred(table, feature, place, weights)) for prior, table in parts]
    if feature.had_missing:
        flag = np.zeros((feature.n_rows, 1))
        flag[feature.missing_row] = 1.0
        tables.append(("missing", flag))
    return tables


def low_table(
    feature: Feature, place: Place, weights: Array, curved: bool = True, most_levels: int = 12
) -> Array | None:
    """A few columns that stand for a feature inside a pair, shape (n_rows, k), or None where it has none.

    Missing values and unseen levels are zero: a pair says nothing about them.
    """
    if feature.kind == NUMBER:
        if feature.n_known < 2:
            return None
        columns = [feature.ranks] + ([2.0 * feature.ranks**2 - 1.0] if feature.n_known > 2 and curved else [])
        table = np.zeros((feature.n_rows, len(columns)))
        table[: feature.n_known] = np.column_stack(columns)
    elif feature.kind == BOOLEAN:
        table = np.zeros((feature.n_rows, 1))
        table[:2, 0] = (-1.0, 1.0)
    else:
        if not 2 <= feature.n_known <= most_levels:
            return None
        table = np.zeros((feature.n_rows, feature.n_known))
        np.fill_diagonal(table, 1.0)
    return _centred(table, feature, place, weights)


def _hats(feature: Feature, count: int) -> Array:
    """Hat functions on the ranks, their tops evenly spaced from -1 to 1: shape (n_rows, count)."""
    tops = np.linspace(-1, 1, count)
    table = np.zeros((feature.n_rows, count))
    away = np.abs(feature.ranks[:, None] - tops[None, :]) / (tops[1] - tops[0])
    table[: feature.n_known] = np.maximum(0, 1 - away)
    return table


def _centred(table: Array, feature: Feature, place: Place, weights: Array) -> Array:
    """Subtract the weighted mean over what was observed; missing and unseen stay zero."""
    mass = place.add_up(weights, feature.n_rows)[: feature.n_known]
    centred = table.copy()
    if mass.sum() > 0:
        centred[: feature.n_known] -= mass @ table[: feature.n_known] / mass.sum()
    return centred

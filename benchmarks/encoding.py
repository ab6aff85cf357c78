"""A decision's features as numbers, for learners that take no texts: what each peer is fed.

Columns of many levels (partner, city) become three numbers each: the share stepped in, and the mean outcome
without and with the vendor, shrunken; for the rows learned from, out of fold and by whole deals.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.worlds import Decisions

Floats = NDArray[np.float64]
MANY_LEVELS = 50
_FOLDS = 5
_PRIOR_ROWS = 20.0
LEVELS, ENCODED, LEFT_OUT = "levels", "encoded", "left out"


class Encoding:
    """Learned from the decisions to learn from, applied to others.

    Parameters
    ----------
    ids : columns of more than 50 levels as `levels` (codes), `encoded` (three numbers) or `left out`
    filled : nothing missing and no codes: medians and a flag where numbers miss, a column for each level.
        Without it, missing stays NaN, and levels are codes, listed in `codes`.
    """

    def __init__(self, ids: str = ENCODED, filled: bool = False) -> None:
        self.ids, self.filled = ids, filled

    def fit_transform(self, decisions: Decisions) -> Floats:
        """Learn, and give the matrix of shape (n, k) of the rows learned from."""
        X = decisions.X
        self._numbers = [c for c in X if _is_number(X[c])]
        texts = [c for c in X if c not in self._numbers]
        many = [c for c in texts if X[c].nunique() > MANY_LEVELS]
        self._texts = [c for c in texts if self.ids == LEVELS or c not in many]
        self._many = many if self.ids == ENCODED else []
        self._levels = {c: pd.Index(sorted(X[c].dropna().astype(str).unique())) for c in self._texts}
        self._gaps = [c for c in X if X[c].isna().any()]
        self._medians = {c: _median(_as_floats(X[c])) for c in self._numbers}
        start = len(self._numbers)
        self.codes = [] if self.filled else list(range(start, start + len(self._texts)))
        self._means = {c: _means(X[c], decisions) for c in self._many}
        return self._assemble(X, {c: _out_of_fold(X[c], decisions) for c in self._many})

    def transform(self, X: pd.DataFrame) -> Floats:
        """Matrix of shape (n, k) of other decisions."""
        return self._assemble(X, {c: _look_up(X[c], means) for c, means in self._means.items()})

    def _assemble(self, X: pd.DataFrame, encoded: dict[str, Floats]) -> Floats:
        numbers = [_as_floats(X[c]) for c in self._numbers]
        codes = [
            self._levels[c].get_indexer(X[c].astype("string").to_numpy(dtype=object)) for c in self._texts
        ]
        if self.filled:
            blocks = [_filled(v, self._medians[c]) for c, v in zip(self._numbers, numbers, strict=True)]
            blocks += [np.isnan(v) for c, v in zip(self._numbers, numbers, strict=True) if c in self._gaps]
            blocks += [
                code[:, None] == [-1] * (c in self._gaps) + [*range(1, len(self._levels[c]))]
                for c, code in zip(self._texts, codes, strict=True)
            ]
        else:
            blocks = [*numbers, *(np.where(code < 0, np.nan, code) for code in codes)]
        blocks += [encoded[c] for c in self._many]
        return np.column_stack([np.asarray(block, dtype=float) for block in blocks])


def _is_number(column: pd.Series) -> bool:
    return pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column)


def _as_floats(column: pd.Series) -> Floats:
    return column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)


def _median(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else 0.0


def _filled(values: Floats, by: float) -> Floats:
    return np.where(np.isnan(values), by, values)


def _targets(decisions: Decisions) -> list[tuple[Floats, NDArray[np.bool_]]]:
    """What is averaged for each level, and over which rows."""
    treated = decisions.treatment
    return [
        (treated.astype(float), np.ones(len(treated), dtype=bool)),
        (decisions.outcome, ~treated),
        (decisions.outcome, treated),
    ]


def _means(column: pd.Series, decisions: Decisions) -> pd.DataFrame:
    """Shrunken means for each level; the last row, named "", is everybody's."""
    name = column.astype("string").fillna("").to_numpy(dtype=str)
    found = {}
    for number, (value, rows) in enumerate(_targets(decisions)):
        overall = float(np.mean(value[rows]))
        grouped = pd.Series(value[rows]).groupby(name[rows])
        found[number] = (grouped.sum() + _PRIOR_ROWS * overall) / (grouped.count() + _PRIOR_ROWS)
        found[number] = pd.concat([found[number].drop("", errors="ignore"), pd.Series({"": overall})])
    return pd.DataFrame(found).pipe(lambda t: t.fillna(t.loc[""]))


def _look_up(column: pd.Series, means: pd.DataFrame) -> Floats:
    name = column.astype("string").fillna("").to_numpy(dtype=str)
    place = means.index.get_indexer(name)
    return means.to_numpy()[np.where(place < 0, means.index.get_loc(""), place)]


def _out_of_fold(column: pd.Series, decisions: Decisions) -> Floats:
    """Encode each row by means over deals other than its own."""
    _, deal = np.unique(decisions.deals, return_inverse=True)
    fold = np.random.default_rng(0).permutation(deal.max() + 1)[deal] % _FOLDS
    encoded = np.empty((len(column), 3))
    for number in range(_FOLDS):
        here = fold == number
        means = _means(column[~here], decisions.take(~here))
        encoded[here] = _look_up(column[here], means)
    return encoded

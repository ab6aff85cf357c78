"""What one column tells about the outcome and the choice: groups of rows, win rates, bounds."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import beta, rankdata

from features.column_types import as_text

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_BINS = 20
_LEAST_OF_EACH = 20  # yes, and no, before an AUC says anything
_OWN_BIN = 0.05  # a number that so many rows hold is a group of its own
_UP_TO, _ABOVE = "up to ", "above "
_PRIOR_ROWS = 5.0  # each group's share is drawn towards everybody's as if by so many rows


@dataclass(frozen=True)
class Evidence:
    """What the columns are held against.

    Attributes
    ----------
    outcome : shape (n,), as it is
    won : the outcome as yes or no; a numeric one is yes above its median
    is_binary : whether the outcome was yes or no by itself
    stepped_in : shape (n,)
    half : a random half of the rows; what one teaches, the other judges
    stage : codes of the stage, shape (n,); all 0 where stages are not known
    """

    outcome: Floats
    won: Bools
    is_binary: bool
    stepped_in: Bools
    half: Bools
    stage: Ints

    @classmethod
    def of(cls, outcome: Floats, stepped_in: Bools, stage: pd.Series | None = None) -> Evidence:
        """Prepare the two; the halves are always the same."""
        is_binary = bool(np.isin(outcome, (0.0, 1.0)).all())
        won = outcome > (0.5 if is_binary else np.median(outcome) if len(outcome) else 0.0)
        half = np.random.default_rng(1).random(len(outcome)) < 0.5
        none = np.zeros(len(outcome), dtype=np.int64)
        codes = none if stage is None else pd.factorize(stage, use_na_sentinel=False)[0]
        return cls(outcome, won, is_binary, stepped_in, half, codes.astype(np.int64))

    def __len__(self) -> int:
        return len(self.won)


@dataclass(frozen=True)
class Column:
    """A column in groups: levels; or ranges and frequent numbers; and the missing.

    Attributes
    ----------
    numbers : float64 of shape (n,), missing as NaN; None where the column holds no numbers
    texts : of shape (n,); None where the column holds numbers
    missing : shape (n,)
    group : which group each row is in, 0 to n_groups - 1
    labels : the groups' names, such as ``'Hot'``, ``0``, ``12 to 30``, ``missing``
    is_range : whether a group is a range of numbers, shape (n_groups,)
    n : rows in each group; ``n_won``: of these, won
    """

    name: str
    numbers: Floats | None
    texts: pd.Series | None
    missing: Bools
    group: Ints
    labels: tuple[str, ...]
    is_range: Bools
    n: Ints
    n_won: Ints
    _cache: dict[str, tuple[float, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, name: str, values: pd.Series, evidence: Evidence) -> Column:
        """Put a column of any type into groups."""
        missing = values.isna().to_numpy()
        if pd.api.types.is_numeric_dtype(values.dtype) or pd.api.types.is_bool_dtype(values.dtype):
            read: Floats = np.array(values.astype("Float64").to_numpy(na_value=np.nan), dtype=np.float64)
            numbers, texts = read, None
            group, labels = _ranges(read)
        else:
            numbers, texts = None, as_text(values).reset_index(drop=True)
            group, levels = pd.factorize(texts, sort=True)
            labels = [f"'{level}'" for level in levels]
        if missing.any():
            group, labels = np.where(missing, len(labels), group), [*labels, "missing"]
        group = group.astype(np.int64)
        n = np.bincount(group, minlength=len(labels))
        won = np.bincount(group, weights=evidence.won, minlength=len(labels)).astype(np.int64)
        is_range = np.array([label.startswith((_UP_TO, _ABOVE)) for label in labels], dtype=bool)
        return cls(name, numbers, texts, missing, group, tuple(labels), is_range, n, won)

    def distinct(self) -> int:
        """Count the values, without the missing."""
        if self.numbers is not None:
            return len(np.unique(self.numbers[~self.missing]))
        return len(self.labels) - bool(self.missing.any())

    def tells(self, what: str, yes: Bools, half: Bools) -> tuple[float, float]:
        """Return how well the groups tell yes from no: the AUC out of half, and its lower bound (z = 3).

        Of the rows where it is filled; whether it is filled is another question.
        """
        if what not in self._cache:
            there = ~self.missing
            self._cache[what] = _area(self.group[there], len(self.labels), yes[there], half[there])
        return self._cache[what]

    def strength(self) -> tuple[float, float]:
        """Return the association with the outcome, chi-squared: p's exponent (-log10), and Cramér's V."""
        from scipy.stats import chi2

        there = self.n > 0
        n, won = self.n[there], self.n_won[there]
        rate = won.sum() / max(n.sum(), 1)
        if len(n) < 2 or rate in (0.0, 1.0):
            return 0.0, 0.0
        statistic = float(np.sum((won - n * rate) ** 2 / (n * rate * (1 - rate))))
        p = float(chi2.logsf(statistic, len(n) - 1) / -np.log(10))
        corrected = max(statistic - (len(n) - 1), 0.0) / n.sum()
        return p, float(np.sqrt(corrected))


def share_bounds(yes: float, n: float, error: float = 0.001) -> tuple[float, float]:
    """Return the exact bounds of a share (Clopper & Pearson 1934), each wrong with that probability."""
    low = beta.ppf(error, yes, n - yes + 1) if yes > 0 else 0.0
    high = beta.ppf(1 - error, yes + 1, n - yes) if yes < n else 1.0
    return float(low), float(high)


def _ranges(numbers: Floats) -> tuple[Ints, list[str]]:
    """Frequent numbers, and 0 by itself, are groups of their own; the others are cut into ranges."""
    known = ~np.isnan(numbers)
    values, count = np.unique(numbers[known], return_counts=True)
    if len(values) <= _BINS:
        group = np.searchsorted(values, numbers) if len(values) else np.zeros(len(numbers))
        return np.minimum(group, max(len(values) - 1, 0)).astype(np.int64), [f"{v:,.6g}" for v in values]
    own = values[(count >= _OWN_BIN * known.sum()) | ((values == 0) & (count >= 10))]
    rest = numbers[known & ~np.isin(numbers, own)]
    edges = np.unique(np.quantile(rest, np.linspace(0, 1, _BINS + 1)[1:-1])) if len(rest) else np.empty(0)
    group = np.searchsorted(edges, numbers, side="left")
    low = [f"{_UP_TO}{each:,.6g}" for each in edges[:1]]
    labels = [*low, *(f"{_ABOVE}{each:,.6g}" for each in edges)] or ["none"]
    for value in own:
        group = np.where(numbers == value, len(labels), group)
        labels.append(f"{value:,.6g}")
    return group.astype(np.int64), labels


def _area(group: Ints, n_groups: int, yes: Bools, half: Bools) -> tuple[float, float]:
    scores = np.empty(len(yes))
    for teaches in (half, ~half):
        rate = yes[teaches].mean() if teaches.any() else 0.5
        n = np.bincount(group[teaches], minlength=n_groups)
        hits = np.bincount(group[teaches], weights=yes[teaches], minlength=n_groups)
        scores[~teaches] = ((hits + _PRIOR_ROWS * rate) / (n + _PRIOR_ROWS))[group[~teaches]]
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    pairs = [_area_of(scores[part], yes[part]) for part in (half, ~half)]
    known = [area for area in pairs if area is not None]
    if not known or min(n_yes, n_no) < _LEAST_OF_EACH:
        return 0.5, 0.0
    area = float(np.mean(known))
    return area, area - 3 * _area_error(min(area, 1 - 1 / (2 * min(n_yes, n_no) + 2)), n_yes, n_no)


def _area_of(scores: Floats, yes: Bools) -> float | None:
    n_yes, n_no = int(yes.sum()), int((~yes).sum())
    if not n_yes or not n_no:
        return None
    return float((rankdata(scores)[yes].sum() - n_yes * (n_yes + 1) / 2) / (n_yes * n_no))


def _area_error(area: float, n_yes: int, n_no: int) -> float:
    """Return the standard error of an AUC (Hanley & McNeil 1982)."""
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n_yes - 1) * (q1 - area**2) + (n_no - 1) * (q2 - area**2)
    return float(np.sqrt(max(spread, 0.0) / (n_yes * n_no)))

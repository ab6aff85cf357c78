"""Estimates whose uncertainty respects that decisions of one partner resemble each other.

Everything here takes plain arrays: one entry per decision, and the partner it belongs to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from training.few_clusters import correction

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its partner-clustered uncertainty, in the unit of the scores it came from."""

    value: float
    se: float
    """Standard error; NaN where fewer than two clusters leave it unknown."""
    lo: float
    """Low end of the 95% interval; -inf where the standard error is unknown."""
    hi: float
    n: int
    """Decisions."""
    n_groups: int
    """Clusters (partners) with at least one decision."""
    df: float = math.inf
    """Degrees of freedom of its Student's t."""

    @property
    def p_positive(self) -> float:
        """One-sided p-value of "not above zero"; 1 where nothing is known."""
        if not (self.se > 0 and math.isfinite(self.value)):
            return 1.0
        return float(special.stdtr(self.df, -self.value / self.se))

    def contains(self, value: float) -> bool:
        """Whether the 95% interval holds `value`."""
        return self.lo <= value <= self.hi

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; unknown and infinite numbers become null."""
        numbers = {"value": self.value, "se": self.se, "lo": self.lo, "hi": self.hi}
        plain = {key: number if math.isfinite(number) else None for key, number in numbers.items()}
        return {**plain, "n": self.n, "n_groups": self.n_groups}


def from_influence(
    value: float,
    influence: Floats,
    groups: ArrayLike,
    weight: Floats | None = None,
    design: Floats | None = None,
    residual: Floats | None = None,
) -> Estimate:
    """Estimate whose error is the mean of `influence`, summed within clusters.

    Parameters
    ----------
    value : the point estimate
    influence : influence values of shape (n,), mean zero
    groups : cluster of each decision, shape (n,)
    weight : how each score enters the estimate, up to scale, shape (n,): 1 for a mean, which is the default;
        the distance from the mean for a slope
    design : columns that were fitted to the scores, shape (n, p); `weight` alone where None
    residual : scores less what the columns fit, shape (n,); `influence` where None

    Notes
    -----
    The sum of the clusters' squared influence is corrected for few and for unequal clusters, and compared
    with Student's t (`training.few_clusters`).
    Assumes partners are independent of each other; shared regions or quarters would make it too narrow.
    """
    codes = codes_of(groups)
    n, n_groups = len(codes), int(codes.max(initial=-1)) + 1
    if n_groups < 2 or not math.isfinite(value):
        return Estimate(value, math.nan, -math.inf, math.inf, n, n_groups)
    sums = np.bincount(codes, weights=influence) / n
    entering = np.ones(n) if weight is None else np.asarray(weight, dtype=float)
    small = correction(codes, entering, design, influence if residual is None else residual)
    se = math.sqrt(float(sums @ sums) * small.factor)
    if not math.isfinite(se):
        return Estimate(value, math.nan, -math.inf, math.inf, n, n_groups)
    half = float(special.stdtrit(small.df, 0.975)) * se
    return Estimate(value, se, value - half, value + half, n, n_groups, small.df)


def codes_of(groups: ArrayLike) -> NDArray[np.int64]:
    """Clusters as 0, 1, ... without gaps, shape (n,)."""
    labels = np.asarray(groups)
    if (
        labels.dtype.kind in "iu"
        and len(labels)
        and labels.min() >= 0
        and labels.max() < 4 * len(labels) + 99
    ):
        taken = np.bincount(labels) > 0  # what is numbered already needs no sorting
        return (np.cumsum(taken) - 1)[labels].astype(np.int64)
    return np.unique(labels, return_inverse=True)[1].astype(np.int64)


def mean(values: ArrayLike, groups: ArrayLike, weight: Floats | None = None) -> Estimate:
    """Mean of `values` (n,), clustered by `groups` (n,); `weight` as in `from_influence`."""
    numbers = np.asarray(values, dtype=float)
    centre = float(numbers.mean()) if len(numbers) else math.nan
    return from_influence(centre, numbers - centre, groups, weight)


def difference(values: ArrayLike, chosen: ArrayLike, groups: ArrayLike) -> Estimate:
    """Mean of `values` where `chosen` less the mean where not; NaN where one side is empty."""
    numbers, is_in = np.asarray(values, dtype=float), np.asarray(chosen, dtype=bool)
    if not len(is_in) or is_in.all() or not is_in.any():
        return from_influence(math.nan, np.zeros(len(numbers)), groups)
    return regress(numbers, np.column_stack([np.ones(len(numbers)), is_in]), groups)[1]


def difference_of_shares(counts: ArrayLike) -> Estimate:
    """Share of those chosen less the share of the others, from each cluster's counts alone.

    Parameters
    ----------
    counts : whole numbers of shape (n_clusters, 4): chosen, of these with the outcome, others, of these with
        the outcome

    Notes
    -----
    Exactly `difference` of the rows that were counted: rows that are counted together are alike.
    """
    table = np.asarray(counts, dtype=np.int64).reshape(-1, 4)
    chosen, chosen_with, others, others_with = table.T
    cells = np.column_stack([chosen_with, chosen - chosen_with, others_with, others - others_with]).ravel()
    one = np.arange(len(cells))
    outcome, is_chosen, cluster = one % 2 == 0, one % 4 < 2, one // 4
    return difference(*(np.repeat(each, cells) for each in (outcome, is_chosen, cluster)))


def regress(y: ArrayLike, columns: Floats, groups: ArrayLike) -> tuple[Estimate, ...]:
    """Least-squares coefficient of each of the `columns` (n, p), which must not depend on each other."""
    up = np.asarray(y, dtype=float)
    q, r = np.linalg.qr(columns)
    entering = q @ np.linalg.inv(r).T
    rest = up - q @ (q.T @ up)
    return tuple(
        from_influence(float(a @ up), len(up) * a * rest, groups, a, columns, rest) for a in entering.T
    )


def slope(x: ArrayLike, y: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None) -> Estimate:
    """Least-squares slope of `y` on `x` with an intercept for each of the `blocks`; NaN where x is flat.

    `blocks` (n,) are the parts whose x came from one model; one part where None.
    """
    across, part = np.asarray(x, dtype=float), parts_of(blocks, len(np.asarray(x)))
    away = across - means_within(across, part)
    if not len(away) or float(np.mean(away**2)) <= 1e-18:
        return from_influence(math.nan, away, groups)
    return regress(y, np.column_stack([dummies(part), away]), groups)[-1]


def parts_of(blocks: ArrayLike | None, n: int) -> NDArray[np.int64]:
    """Blocks as 0, 1, ..., shape (n,); one block where None."""
    return np.zeros(n, dtype=np.int64) if blocks is None else codes_of(blocks)


def means_within(values: Floats, part: NDArray[np.int64]) -> Floats:
    """Mean of the values of each decision's own part, shape (n,)."""
    return (np.bincount(part, weights=values) / np.maximum(np.bincount(part), 1))[part]


def dummies(part: NDArray[np.int64]) -> Floats:
    """A column of zeros and ones for each part, shape (n, n_parts)."""
    return (part[:, None] == np.arange(part.max(initial=0) + 1)).astype(float)

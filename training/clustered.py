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
    """Degrees of freedom of its Student's t: the effective number of clusters less one."""

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
    value: float, influence: Floats, groups: ArrayLike, weight: Floats | None = None
) -> Estimate:
    """Estimate whose error is the mean of `influence`, summed within clusters.

    Parameters
    ----------
    value : the point estimate
    influence : influence values of shape (n,), mean zero
    groups : cluster of each decision, shape (n,)
    weight : how much each decision pins the estimate down, shape (n,), not negative: 1 for a mean, the
        squared distance from the mean for a slope. Sets the clusters' leverage.

    Notes
    -----
    Each cluster's sum is divided by the root of one minus its leverage, which for equal clusters is the
    usual C / (C - 1), and for one dominant partner is more (the CR2 correction of Bell & McCaffrey 2002,
    exact for a mean with independent errors). Student's t with C - 1 degrees of freedom, where C is the
    effective number of clusters 1 / sum of squared shares (Carter, Schnepel & Steigerwald 2017): the plain
    number where all are equal, fewer where some partners hold most decisions.
    Assumes partners are independent of each other; shared regions or quarters would make it too narrow.
    """
    codes = np.unique(np.asarray(groups), return_inverse=True)[1]
    n, n_groups = len(codes), int(codes.max(initial=-1)) + 1
    if n_groups < 2 or not math.isfinite(value):
        return Estimate(value, math.nan, -math.inf, math.inf, n, n_groups)
    sums = np.bincount(codes, weights=influence) / n
    leverage = np.bincount(codes, weights=weight) if weight is not None else np.bincount(codes)
    shares = leverage / max(leverage.sum(), 1e-300)
    se = float(np.sqrt(np.sum(sums**2 / np.clip(1 - shares, 0.05, 1))))
    df = max(1 / max(float(np.sum(shares**2)), 1e-12) - 1, 1.0)
    half = float(special.stdtrit(df, 0.975)) * se
    return Estimate(value, se, value - half, value + half, n, n_groups, df)


def mean(values: ArrayLike, groups: ArrayLike) -> Estimate:
    """Mean of `values` (n,), clustered by `groups` (n,)."""
    numbers = np.asarray(values, dtype=float)
    centre = float(numbers.mean()) if len(numbers) else math.nan
    return from_influence(centre, numbers - centre, groups)


def difference(values: ArrayLike, chosen: ArrayLike, groups: ArrayLike) -> Estimate:
    """Mean of `values` where `chosen` less the mean where not; NaN where one side is empty."""
    numbers, is_in = np.asarray(values, dtype=float), np.asarray(chosen, dtype=bool)
    share = is_in.mean() if len(is_in) else 0.0
    if share in (0.0, 1.0):
        return from_influence(math.nan, np.zeros(len(numbers)), groups)
    high, low = numbers[is_in].mean(), numbers[~is_in].mean()
    influence = np.where(is_in, (numbers - high) / share, -(numbers - low) / (1 - share))
    return from_influence(float(high - low), influence, groups, np.where(is_in, 1 / share, 1 / (1 - share)))


def slope(x: ArrayLike, y: ArrayLike, groups: ArrayLike) -> Estimate:
    """Least-squares slope of `y` on `x` with an intercept; NaN where `x` does not vary."""
    across, up = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    away = across - across.mean() if len(across) else across
    spread = float(np.mean(away**2)) if len(away) else 0.0
    if spread <= 1e-18:
        return from_influence(math.nan, away, groups)
    value = float(np.mean(away * up) / spread)
    rest = up - up.mean() - value * away
    return from_influence(value, away * rest / spread, groups, away**2)


def autoc(priority: ArrayLike, phi: ArrayLike, groups: ArrayLike) -> Estimate:
    """Area under the targeting operator characteristic: the plain mean of TOC(q) over q = i/n.

    Parameters
    ----------
    priority : what decisions are ranked by, highest first, shape (n,); ties share their places
    phi : doubly robust scores of decisions that `priority` was not learned from, shape (n,)
    groups : cluster of each decision, shape (n,)

    Notes
    -----
    TOC(q) is the mean effect of the first share q less the mean effect of all (Yadlowsky, Fleming, Shah,
    Brunskill & Wager, JASA 2025, section 2). Summing over q gives each place r the weight
    sum of 1/k for k = r..n, minus 1. The influence of a decision is its own weighted score plus what its
    presence does to the places of those ranked below it; effects uniform on (0, 1) in their true order
    give 0.25.
    """
    places, blocks = _places(np.asarray(priority, dtype=float))
    scores = np.asarray(phi, dtype=float)
    n = len(scores)
    if n == 0 or blocks.max() == 0:
        return from_influence(0.0 if n else math.nan, np.zeros(n), groups)
    ranks = np.arange(1, n + 1)
    weights = _shared(np.cumsum((1 / ranks)[::-1])[::-1] - 1, blocks)
    ordered = _shared(scores[places], blocks)
    below = _shared(np.cumsum((ordered / ranks)[::-1])[::-1], blocks)
    value = float(np.mean(weights * scores[places]))
    influence = np.empty(n)
    influence[places] = weights * scores[places] - value + scores.mean() - below
    return from_influence(value, influence, groups)


def toc_curve(
    priority: ArrayLike, phi: ArrayLike, groups: ArrayLike, n_points: int = 40
) -> list[dict[str, float]]:
    """TOC at `n_points` shares q, each with a pointwise 95% interval: keys q, value, lo, hi.

    A tie that straddles a share counts with the part of it that fits. The interval takes the place of
    the cut as known.
    """
    places, blocks = _places(np.asarray(priority, dtype=float))
    scores, labels = np.asarray(phi, dtype=float), np.asarray(groups)
    n = len(scores)
    curve = []
    for q in np.arange(1, n_points + 1) / n_points:
        within = np.zeros(n)
        within[places] = _shared((np.arange(n) < round(q * n)).astype(float), blocks)
        share = max(within.mean(), 1 / n)
        top = float(np.mean(within * scores) / share)
        influence = within * (scores - top) / share - (scores - scores.mean())
        at = from_influence(top - float(scores.mean()), influence, labels)
        curve.append({"q": float(q), "value": at.value, "lo": at.lo, "hi": at.hi})
    return curve


def _places(priority: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order from highest to lowest, and the tie block (0, 1, ...) of each place."""
    order = np.argsort(-priority, kind="stable")
    ordered = priority[order]
    return order, np.concatenate([[0], np.cumsum(ordered[1:] != ordered[:-1])]).astype(np.int64)[: len(order)]


def _shared(values: Floats, blocks: NDArray[np.int64]) -> Floats:
    """Values with each tie block replaced by its mean."""
    return (np.bincount(blocks, weights=values) / np.bincount(blocks))[blocks]

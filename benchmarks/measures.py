"""How far an estimated effect is from the true one: figures of one run, all from (n,) arrays.

Effects are fractions; what is called points is 100 times as much.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Floats = NDArray[np.float64]
COST = 0.03
"""What stepping in costs, as a fraction of a deal: 3 points."""


def accuracy(effect: Floats, truth: Floats, cost: float = COST) -> dict[str, float | None]:
    """Every figure that needs the effect alone; None where it is not defined.

    Returns
    -------
    dict
        `rmse`: root mean squared error, a fraction. `r2`: 1 - mean squared error / variance of the truth
        (below 0: worse than the true average for everybody; None in a world where all effects are equal).
        `rank`: Spearman's correlation. `regret`: `advice_regret`. `slope`: of the truth on the effect
        (1: differences are as large as said; above 1: too timid). `bias`: mean error in points.
        `sd`: standard deviation of the effects, in points.
    """
    error = effect - truth
    varies, told_apart = np.std(truth) > 1e-9, np.std(effect) > 1e-9
    both = bool(varies and told_apart)
    return {
        "rmse": float(np.sqrt(np.mean(error**2))),
        "r2": float(1 - np.mean(error**2) / np.var(truth)) if varies else None,
        "rank": float(spearmanr(effect, truth).statistic) if both else None,
        "regret": advice_regret(effect, truth, cost),
        "slope": float(np.cov(truth, effect)[0, 1] / np.var(effect, ddof=1)) if both else None,
        "bias": 100 * float(np.mean(error)),
        "sd": 100 * float(np.std(effect)),
    }


def advice_regret(effect: Floats, truth: Floats, cost: float = COST) -> float:
    """Points per decision lost to whoever knows the truth, by stepping in where `effect` exceeds `cost`."""
    gain = truth - cost
    return 100 * float(np.mean(np.maximum(gain, 0) - np.where(effect > cost, gain, 0)))


def interval_quality(interval: Floats, truth: Floats) -> dict[str, float]:
    """Share of the truth within intervals of shape (n, 2), and their mean width in points."""
    low, high = interval.T
    return {
        "coverage": float(np.mean((low <= truth) & (truth <= high))),
        "width": 100 * float(np.mean(high - low)),
    }


def toc(ranking: Floats, score: Floats) -> Floats:
    """Targeting operator characteristic, shape (n,).

    At k/n: mean `score` of the k ranked first, less the mean of all; equal ranks share their mean score.
    """
    _, tie = np.unique(-ranking, return_inverse=True)
    level = (np.bincount(tie, score) / np.bincount(tie))[tie]
    ordered = level[np.argsort(-ranking, kind="stable")]
    return np.asarray(np.cumsum(ordered) / np.arange(1, len(score) + 1) - np.mean(score))


def autoc(ranking: Floats, score: Floats) -> float:
    """Plain mean of the TOC (Yadlowsky et al. 2025)."""
    return float(np.mean(toc(ranking, score)))


def qini(ranking: Floats, score: Floats) -> float:
    """Mean of share times TOC (Yadlowsky et al. 2025)."""
    n = len(score)
    return float(np.mean(np.arange(1, n + 1) / n * toc(ranking, score)))

"""Additive models of a probability (or a mean), as tables: the win chance and the propensity that are served.

Boosted nuisances stay behind in training; what a served answer shows of them is their additive image,
so that a scorecard needs nothing but look-ups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from threadpoolctl import threadpool_limits

from training.basis import Array, Place
from training.design import Design, cross, gram

_RIDGE = 2.0
_STEPS = 20
_SLOW = 0.3
_HALVINGS = 12
_CLOSE = 1e-4
_SAMPLE = 20_000


@dataclass(frozen=True)
class AdditiveModel:
    """Intercept and one table per feature on the scale of the link."""

    intercept: float
    tables: tuple[Array, ...]
    """Per feature, shape (n_rows,)."""


@threadpool_limits.wrap(limits=1, user_api="blas")
def fit_additive(design: Design, places: Sequence[Place], target: Array, logistic: bool) -> AdditiveModel:
    """Ridge regression by Newton steps; where rows are many, on every k-th of them first.

    The sample saves the steps from afar. From where it ends, one curvature of all rows mostly does, and that
    is the dear part.

    Parameters
    ----------
    target : shape (n,); in [0, 1] where `logistic` (fractions are allowed: Papke & Wooldridge 1996)
    """
    centre = float(np.clip(target.mean(), 1e-4, 1 - 1e-4)) if logistic else float(target.mean())
    beta = np.zeros(design.n_columns)
    beta[0] = np.log(centre / (1 - centre)) if logistic else centre
    if len(target) > _SAMPLE:
        every = slice(None, None, -(-len(target) // _SAMPLE))
        sample = [place.take(every) for place in places]
        beta = _descend(design, sample, target[every], logistic, beta)
    beta = _descend(design, places, target, logistic, beta)
    tables = tuple(table @ beta[at] for table, at in zip(design.tables, design.columns, strict=True))
    return AdditiveModel(float(beta[0]), tables)


def _descend(design: Design, places: Sequence[Place], target: Array, logistic: bool, beta: Array) -> Array:
    """Newton steps until they are small; a curvature serves as long as each step is much shorter.

    A step that would make the fit worse is halved: with rare targets full steps leap to and fro, and away.
    """
    ridge = np.full(design.n_columns, _RIDGE)
    ridge[0] = 1e-9
    size, last = np.inf, 0.0  # of the last two steps
    at = design.apply(places, beta)
    loss = _loss(at, target, logistic, ridge, beta)
    for _ in range(_STEPS):
        mean, weight = at, np.ones(len(target))
        if logistic:
            mean = 1 / (1 + np.exp(-at))
            weight = np.maximum(mean * (1 - mean), 1e-6)
        slope = cross(design, places, target - mean) - ridge * np.r_[0.0, beta[1:]]
        if size > _SLOW * last:
            curvature = gram(design, places, weight) + np.diag(ridge)
            factor = linalg.cho_factor(curvature, lower=True, overwrite_a=True, check_finite=False)
        step = linalg.cho_solve(factor, slope, check_finite=False)
        for _ in range(_HALVINGS):
            at = design.apply(places, beta + step)
            new = _loss(at, target, logistic, ridge, beta + step)
            if new <= loss + 1e-9 * abs(loss):
                break
            step = step / 2
        last, size = size, float(np.abs(step).max())
        beta, loss = beta + step, new
        if size < _CLOSE:
            break
    return beta


def _loss(at: Array, target: Array, logistic: bool, ridge: Array, beta: Array) -> float:
    """Penalised negative log-likelihood of the predictor `at` (half the squared error where not logistic)."""
    fit = np.logaddexp(0.0, at) - target * at if logistic else (target - at) ** 2 / 2
    return float(fit.sum() + ridge[1:] @ beta[1:] ** 2 / 2)

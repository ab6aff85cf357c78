"""Additive models of a probability (or a mean), as tables: the win chance and the propensity that are served.

Boosted nuisances stay behind in training; what a served answer shows of them is their additive image,
so that a scorecard needs nothing but look-ups.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg

from training.basis import Array, Place
from training.design import Design, chunks

_RIDGE = 2.0
_STEPS = 6


@dataclass(frozen=True)
class AdditiveModel:
    """Intercept and one table per feature on the scale of the link."""

    intercept: float
    tables: tuple[Array, ...]
    """Per feature, shape (n_rows,)."""


def fit_additive(design: Design, places: Sequence[Place], target: Array, logistic: bool) -> AdditiveModel:
    """Ridge regression by Newton steps over chunked sums.

    Parameters
    ----------
    target : shape (n,); in [0, 1] where `logistic` (fractions are allowed: Papke & Wooldridge 1996)
    """
    p, n = design.n_columns, len(target)
    centre = float(np.clip(target.mean(), 1e-4, 1 - 1e-4)) if logistic else float(target.mean())
    beta = np.zeros(p)
    beta[0] = np.log(centre / (1 - centre)) if logistic else centre
    ridge = np.full(p, _RIDGE)
    ridge[0] = 1e-9
    for _ in range(_STEPS if logistic else 1):
        gram, slope = np.diag(ridge), -ridge * np.r_[0.0, beta[1:]]
        for chunk in chunks(n):
            rows = design.rows(places, chunk)
            mean = rows @ beta
            weight = np.ones(len(rows))
            if logistic:
                mean = 1 / (1 + np.exp(-mean))
                weight = np.maximum(mean * (1 - mean), 1e-6)
            gram += (rows * weight[:, None]).T @ rows
            slope += (target[chunk] - mean) @ rows
        step = linalg.solve(gram, slope, assume_a="pos", check_finite=False)
        beta = beta + step
        if np.abs(step).max() < 1e-8:
            break
    tables = tuple(table @ beta[at] for table, at in zip(design.tables, design.columns, strict=True))
    return AdditiveModel(float(beta[0]), tables)

"""Do the predicted effects have the right size: by fifths, by their slope, and against one number for all."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from training import clustered
from training.clustered import Estimate, means_within, parts_of

Floats = NDArray[np.float64]


def calibration_slope(
    uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None
) -> Estimate:
    """Slope of the scores on the predicted uplift: 1 if differences are neither over- nor understated.

    Within blocks, so that only predictions of one model are compared. NaN where all predictions are equal.
    """
    return clustered.slope(uplift, phi, groups, blocks)


def best_linear_predictor(
    uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None
) -> dict[str, Estimate]:
    """Regression of the scores on the mean prediction and on the prediction's distance from it.

    Returns
    -------
    dict
        mean: 1 if the average is right; difference: above 0 if effects differ as predicted, 1 if by as much.
        NaN where the column does not vary, or is zero.

    Notes
    -----
    Chernozhukov, Demirer, Duflo & Fernández-Val (2018), in doubly robust form, without an intercept. The
    mean is each block's own; with several blocks the two columns still are orthogonal.
    """
    predicted = np.asarray(uplift, dtype=float)
    part = parts_of(blocks, len(predicted))
    mean = means_within(predicted, part)
    columns = {"mean": mean, "difference": predicted - mean}
    told = [name for name, column in columns.items() if len(column) and np.mean(column**2) > 1e-18]
    nothing = clustered.from_influence(math.nan, np.zeros(len(predicted)), groups)
    found = dict.fromkeys(columns, nothing)
    if told:
        design = np.column_stack([columns[name] for name in told])
        found |= dict(zip(told, clustered.regress(phi, design, groups), strict=True))
    return found


def calibration_by_fifth(
    uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None
) -> pd.DataFrame:
    """Predicted against observed uplift by fifths of the prediction, ranked within blocks.

    Returns
    -------
    DataFrame with columns fifth (1 = least uplift), n, predicted, observed, lo, hi
        One row per fifth that holds decisions; equal predictions stay together.
    """
    predicted, scores = np.asarray(uplift, dtype=float), np.asarray(phi, dtype=float)
    labels, part = clustered.codes_of(groups), parts_of(blocks, len(predicted))
    ranks = pd.Series(predicted).groupby(part).rank(method="average").to_numpy()
    sizes = np.bincount(part)[part] if len(part) else np.ones(0)
    fifths = np.clip(np.ceil(5 * (ranks - 0.5) / sizes), 1, 5).astype(int)
    rows = []
    for fifth in np.unique(fifths):
        inside = fifths == fifth
        seen = clustered.mean(scores[inside], labels[inside])
        rows.append((int(fifth), seen.n, float(predicted[inside].mean()), seen.value, seen.lo, seen.hi))
    return pd.DataFrame(rows, columns=["fifth", "n", "predicted", "observed", "lo", "hi"])


def less_loss(uplift: ArrayLike, other: ArrayLike, phi: ArrayLike, groups: ArrayLike) -> Estimate:
    """Doubly robust loss of `uplift` less that of `other`, paired by decision; below 0, `uplift` is nearer.

    Parameters
    ----------
    uplift, other : two predictions of each decision's effect, (n,) or a scalar
    phi : doubly robust scores (n,)
    groups : partner of each decision (n,)

    Notes
    -----
    The mean of (phi - uplift)² is the mean squared error of `uplift` plus the scores' own variance, which
    drops out of the difference (the loss of the DR-learner, Kennedy 2023).
    """
    scores = np.asarray(phi, dtype=float)
    a, b = (np.broadcast_to(np.asarray(each, dtype=float), scores.shape) for each in (uplift, other))
    return clustered.mean((a - b) * (a + b - 2 * scores), groups, a - b)

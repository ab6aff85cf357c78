"""What products of two features still hold of the residuals: which pairs to add, and how much is left out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from training.basis import Array, Place
from training.design import Design, chunks

_FLOOR = 0.06
_PRIOR_SHARE = 0.25


@dataclass(frozen=True)
class PairTests:
    """Sums over rows for every product of two low columns; square, of shape (n_low, n_low)."""

    owner: NDArray[np.int64]
    """Feature of each low column, shape (n_low,)."""
    n_features: int
    score: Array
    """Product times residual moment, summed."""
    noise: Array
    """Variance of `score` where no effect is left."""
    mass: Array
    """Squared product times weight, summed: how `score` grows with an effect that is left."""


def pair_tests(
    design: Design, places: Sequence[Place], moments: Array, weights: Array, design_effect: float
) -> PairTests:
    """Sum every product of two features' low columns in one pass over the rows.

    Parameters
    ----------
    moments : shape (n,), weight times residual of each row
    weights : shape (n,)
    design_effect : how many rows make one independent row
    """
    counts = [0 if low is None else low.shape[1] for low in design.low]
    owner = np.repeat(np.arange(len(counts)), counts)
    score, noise, mass = (np.zeros((len(owner), len(owner))) for _ in range(3))
    for chunk in chunks(len(moments)):
        rows = design.low_rows(places, chunk)
        squares = rows**2
        score += (rows * moments[chunk, None]).T @ rows
        noise += (squares * moments[chunk, None] ** 2).T @ squares
        mass += (squares * weights[chunk, None]).T @ squares
    return PairTests(owner, len(counts), score, noise * design_effect, mass)


def choose_pairs(tests: PairTests, most_pairs: int, false_discovery_rate: float) -> list[tuple[int, int]]:
    """Pairs whose products the residuals follow, by score tests with a false discovery rate.

    A pair's statistic sums its squared scores; Satterthwaite's scaled chi-squared approximates its null
    distribution; Benjamini & Hochberg (1995) choose among them.
    """
    if len(tests.owner) == 0:
        return []
    group = np.zeros((len(tests.owner), tests.n_features))
    group[np.arange(len(tests.owner)), tests.owner] = 1.0
    statistic, first, second = (group.T @ m @ group for m in (tests.score**2, tests.noise, tests.noise**2))
    a, b = np.triu_indices(tests.n_features, k=1)
    usable = second[a, b] > 0
    a, b = a[usable], b[usable]
    ratio = first[a, b] / second[a, b]
    p_values = stats.chi2.sf(statistic[a, b] * ratio, first[a, b] * ratio)
    order = np.lexsort((b, a, p_values))
    passes = p_values[order] <= false_discovery_rate * np.arange(1, len(order) + 1) / len(order)
    n_kept = min(int(np.flatnonzero(passes).max(initial=-1)) + 1, most_pairs)
    return [(int(a[i]), int(b[i])) for i in order[:n_kept]]


def misfit_variance(
    tests: PairTests,
    chosen: Sequence[tuple[int, int]],
    importance: Array,
    fitted_variance: float,
    total_weight: float,
) -> float:
    """Variance of the effect that the model's form leaves out, per decision.

    A moment estimate (Haseman & Elston 1972) over products that are not in the model, where features that
    matter alone are likelier to matter together; shrunken by how little the data tell, with a floor.

    Parameters
    ----------
    chosen : pairs in the model
    importance : shape (n_features,), variance of each feature's own term
    fitted_variance : of the whole fitted effect
    total_weight : sum of the rows' weights
    """
    if fitted_variance <= 0 or len(tests.owner) == 0:
        return 0.0
    heredity = np.sqrt(importance / max(importance.max(), 1e-300))
    a, b = np.triu_indices(len(tests.owner), k=1)
    one, two = tests.owner[a], tests.owner[b]
    inside = {tuple(sorted(pair)) for pair in chosen}
    free = (one != two) & np.array([(i, k) not in inside for i, k in zip(one, two, strict=True)])
    a, b, prior = a[free], b[free], (heredity[one] * heredity[two])[free]
    noise, mass = tests.noise[a, b], tests.mass[a, b]
    usable = (noise > 0) & (prior > 0)
    noise, mass, prior = noise[usable], mass[usable], prior[usable]
    excess = tests.score[a, b][usable] ** 2 - noise
    growth = prior * mass**2
    information = float((growth**2 / (2 * noise**2)).sum())
    if information <= 0:
        return _FLOOR * fitted_variance
    per_unit = float((prior * mass).sum()) / total_weight
    left = float((excess * growth / (2 * noise**2)).sum()) / information * per_unit
    return _shrunken(left, per_unit / math.sqrt(information), fitted_variance)


def _shrunken(left: float, se: float, fitted_variance: float) -> float:
    """Posterior mean under an exponential prior, weakened where the estimate is hardly better than none."""
    prior = _PRIOR_SHARE * fitted_variance
    shifted = left - se**2 / prior
    z = shifted / se
    expected = shifted + se * float(np.exp(stats.norm.logpdf(z) - stats.norm.logcdf(z)))
    return (_FLOOR * fitted_variance + expected) / (1 + (se / prior) ** 2)

"""The effect model: additive, shrunken, fitted from sums over rows.

A Gibbs sampler for a linear model whose blocks of coefficients each have a standard deviation of their
own with a half-t prior (Gelman 2006; the auxiliary form of Wand et al. 2011). Two regressions share the
coefficients by averaging their sums: doubly robust scores weighted by inverse variance (Kennedy 2023;
Fisher & Fisher 2023) and residual on residual (Nie & Wager 2021; Robinson 1988).

A third regression, on what the outcome models alone make of each row (the X-learner of Künzel et al. 2019),
may lend its shape to the point estimate. It is far less noisy and not robust, so it counts for less the more
rows there are, never moves the average, and gives no credit to the intervals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

from training.basis import Array, Block, Place
from training.design import Design, Sums, add_up
from training.pairs import choose_pairs, misfit_variance, pair_tests

_TAIL = {"main": 1.0, "missing": 4.0, "pair": 4.0}  # degrees of freedom of the half-t priors
# Typical deviation of a block before seeing the data, for an outcome with deviation 0.47.
_SCALE = {"main": 0.004, "missing": 0.004, "pair": 0.003}
_SCALE_BLOCKS = 20.0  # so many blocks' worth of belief in it
_WIDEST_SCALE = 5.0  # times the typical one
_USUAL_OUTCOME_SD = 0.47
_MOST_BORROWED = 0.4
_BORROWED_AT_ONE_ROW = 20.0  # falls with the root of the rows
_SIGMA_EVERY = 5
_START_SD = 0.05  # wide: from near zero a block of many levels would not find out in time


Target = tuple[Array, Array]


@dataclass(frozen=True)
class EffectSettings:
    """How the effect model is fitted."""

    burn_in: int = 100
    draws: int = 200
    false_discovery_rate: float = 0.02
    """Share of chosen pairs that may be there by chance (Benjamini & Hochberg 1995)."""
    most_pairs: int = 15


@dataclass(frozen=True)
class Posterior:
    """What is known of the coefficients after seeing the data."""

    design: Design
    mean: Array
    """Shape (n_columns,)."""
    draws: Array
    """Shape (n_draws, n_columns), from the robust scores alone: around the point they are wider by what was
    borrowed."""
    block_sd: Array
    """Shape (n_blocks,): typical size of a coefficient in each block."""
    misfit_variance: float
    """Variance of the effect that the model's form leaves out, per decision."""
    design_effect: float
    """How many rows make one independent row."""


def fit_effect(
    design: Design,
    places: Sequence[Place],
    targets: Sequence[Target],
    borrowed: Target,
    clusters: NDArray[np.int64],
    outcome_sd: float,
    settings: EffectSettings,
    rng: np.random.Generator,
) -> Posterior:
    """Fit main terms, choose pairs by what the residuals still hold, and fit again.

    Parameters
    ----------
    targets : pairs (score, weight), each of shape (n,): regressions that share the coefficients
    borrowed : score and weight of the outcome models alone, each of shape (n,)
    clusters : codes of shape (n,): rows of one deal share one outcome, and count less than as many
    outcome_sd : unit of the priors
    """
    unit = outcome_sd / _USUAL_OUTCOME_SD
    weights = sum((w for _, w in targets), np.zeros(len(clusters))) / len(targets)
    lent = _anchored(borrowed, targets)
    robust, both = _sums(design, places, targets, lent)
    first = _gibbs(both, design.blocks, unit, settings.burn_in // 2, settings.draws // 3, rng)
    moments = _score_moments(targets, design.apply(places, first.mean))
    design_effect = _design_effect(moments, clusters)
    tests = pair_tests(design, places, moments, weights, design_effect)
    if chosen := choose_pairs(tests, settings.most_pairs, settings.false_discovery_rate):
        design = design.with_pairs(chosen)
        robust, both = _sums(design, places, targets, lent)
    robust, both = (sums.scaled(1.0 / design_effect) for sums in (robust, both))
    point = _gibbs(both, design.blocks, unit, settings.burn_in, settings.draws // 2, rng).mean
    doubt = _gibbs(robust, design.blocks, unit, settings.burn_in, settings.draws, rng)
    spread = _weighted_variance(design.apply(places, point), weights)
    parts = [_weighted_variance(_part(design, places, i, point), weights) for i in range(len(places))]
    misfit = misfit_variance(tests, chosen, np.array(parts), spread, float(weights.sum()))
    return Posterior(design, point, doubt.draws, doubt.block_sd, misfit, design_effect)


def _sums(
    design: Design, places: Sequence[Place], targets: Sequence[Target], lent: Target
) -> tuple[Sums, Sums]:
    """Sums of the robust regressions alone, and with the outcome models' added; both count n rows."""
    robust, more = add_up(design, places, targets), add_up(design, places, [lent])
    share = min(_MOST_BORROWED, _BORROWED_AT_ONE_ROW / np.sqrt(robust.n))
    both = robust + more.scaled(share)
    return robust, replace(both, n=robust.n)


def _anchored(borrowed: Target, targets: Sequence[Target]) -> Target:
    """The outcome models' scores, moved so that their average is the doubly robust one."""
    (score, weight), (robust, robust_weight) = borrowed, targets[0]
    gap = np.average(robust, weights=robust_weight) - np.average(score, weights=weight)
    return score + gap, weight


def _part(design: Design, places: Sequence[Place], feature: int, mean: Array) -> Array:
    return places[feature].read(design.tables[feature] @ mean[design.columns[feature]])


def _weighted_variance(values: Array, weights: Array) -> float:
    return float(np.average((values - np.average(values, weights=weights)) ** 2, weights=weights))


@dataclass(frozen=True)
class _Chain:
    mean: Array
    draws: Array
    block_sd: Array


@threadpool_limits.wrap(limits=1, user_api="blas")  # small matrices: threads would only wait
def _gibbs(
    sums: Sums, blocks: Sequence[Block], unit: float, burn_in: int, n_draws: int, rng: np.random.Generator
) -> _Chain:
    """Sample coefficients and block deviations; the point is the mean of the conditional means.

    The typical deviation itself is learned, for each kind of block, around ``_SCALE``.
    """
    p = len(sums.cross)
    size = np.array([b.columns.stop - b.columns.start for b in blocks], dtype=float)
    tail = np.array([_TAIL[b.prior] for b in blocks])
    kinds = [np.array([b.prior == kind for b in blocks]) for kind in sorted({b.prior for b in blocks})]
    usual = np.array([_SCALE[b.prior] for b in blocks]) * unit
    scale = usual.copy()
    owner = np.repeat(np.arange(len(blocks)), size.astype(int))
    variance, noise = np.full(len(blocks), (_START_SD * unit) ** 2), max(sums.square / sums.n, 1e-12)
    mixing = tail / variance + 1.0 / scale**2
    precision = np.full(p, 1e-6 / unit**2)
    mean, draws, squared_sd = np.zeros(p), np.empty((n_draws, p)), np.zeros(len(blocks))
    for sweep in range(burn_in + n_draws):
        precision[1:] = 1.0 / variance[owner]
        factor = linalg.cholesky(sums.gram / noise + np.diag(precision), lower=True, check_finite=False)
        centre = linalg.cho_solve((factor, True), sums.cross / noise, check_finite=False)
        beta = centre + linalg.solve_triangular(
            factor, rng.standard_normal(p), lower=True, trans="T", check_finite=False
        )
        energy = np.bincount(owner, beta[1:] ** 2, len(blocks))
        variance = (tail / mixing + energy / 2) / rng.gamma((size + tail) / 2)
        variance = np.maximum(variance, (1e-4 * scale) ** 2)
        mixing = (1.0 / scale**2 + tail / variance) / rng.gamma((tail + 1) / 2)
        for kind in kinds:
            rate = _SCALE_BLOCKS * usual[kind][0] ** 2 / 2 + (1.0 / mixing[kind]).sum()
            scale[kind] = np.sqrt(rate / rng.gamma((_SCALE_BLOCKS + kind.sum()) / 2))
        scale = np.minimum(scale, _WIDEST_SCALE * usual)
        if sweep % _SIGMA_EVERY == 0:
            rest = sums.square - 2 * beta @ sums.cross + beta @ sums.gram @ beta
            noise = max(rest, 1e-12) / 2 / rng.gamma(sums.n / 2)
        if sweep >= burn_in:
            mean += centre / n_draws
            draws[sweep - burn_in] = beta
            squared_sd += variance / n_draws
    return _Chain(mean, draws, np.sqrt(squared_sd))


def _score_moments(targets: Sequence[Target], fitted: Array) -> Array:
    """Row's part in the derivative of the fit: weight times residual, averaged over the regressions."""
    return sum(((y - fitted) * w for y, w in targets), np.zeros(len(fitted))) / len(targets)


def _design_effect(moments: Array, clusters: NDArray[np.int64]) -> float:
    """Variance of a sum over clusters against that of a sum over rows, at least 1 (Kish 1965)."""
    by_cluster = np.bincount(clusters, moments)
    return max(1.0, float((by_cluster**2).sum() / max((moments**2).sum(), 1e-300)))

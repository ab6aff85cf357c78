"""The effect model: additive, shrunken, fitted from sums over rows.

A Gibbs sampler for a linear model whose blocks of coefficients each have a standard deviation of their
own with a half-t prior (Gelman 2006; the auxiliary form of Wand et al. 2011). Two regressions share the
coefficients by averaging their sums: doubly robust scores weighted by inverse variance (Kennedy 2023;
Fisher & Fisher 2023) and residual on residual (Nie & Wager 2021; Robinson 1988).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg
from threadpoolctl import threadpool_limits

from training.basis import Array, Block, Place
from training.design import Design, Sums, add_up, predict
from training.pairs import choose_pairs, misfit_variance, pair_tests

_TAIL = {"main": 1.0, "missing": 4.0, "pair": 1.0}  # degrees of freedom of the half-t priors
_SCALE = {"main": 0.003, "missing": 0.003, "pair": 0.003}  # for an outcome with deviation 0.47
_USUAL_OUTCOME_SD = 0.47
_SIGMA_EVERY = 5
_START_SD = 0.05  # wide: from near zero a block of many levels would not find out in time


@dataclass(frozen=True)
class EffectSettings:
    """How the effect model is fitted."""

    burn_in: int = 100
    draws: int = 200
    false_discovery_rate: float = 0.01
    """Share of chosen pairs that may be there by chance (Benjamini & Hochberg 1995)."""
    most_pairs: int = 12


@dataclass(frozen=True)
class Posterior:
    """What is known of the coefficients after seeing the data."""

    design: Design
    mean: Array
    """Shape (n_columns,)."""
    draws: Array
    """Shape (n_draws, n_columns)."""
    block_sd: Array
    """Shape (n_blocks,): typical size of a coefficient in each block."""
    misfit_variance: float
    """Variance of the effect that the model's form leaves out, per decision."""
    design_effect: float
    """How many rows make one independent row."""


def fit_effect(
    design: Design,
    places: Sequence[Place],
    targets: Sequence[tuple[Array, Array]],
    clusters: NDArray[np.int64],
    outcome_sd: float,
    settings: EffectSettings,
    rng: np.random.Generator,
) -> Posterior:
    """Fit main terms, choose pairs by what the residuals still hold, and fit again.

    Parameters
    ----------
    targets : pairs (score, weight), each of shape (n,): regressions that share the coefficients
    clusters : codes of shape (n,): rows of one deal share one outcome, and count less than as many
    outcome_sd : unit of the priors
    """
    sums = add_up(design, places, targets)
    unit = outcome_sd / _USUAL_OUTCOME_SD
    weights = sum((w for _, w in targets), np.zeros(len(clusters))) / len(targets)
    first = _gibbs(sums, design.blocks, unit, settings.burn_in // 2, settings.draws // 3, rng)
    moments = _score_moments(targets, predict(design, places, first.mean))
    design_effect = _design_effect(moments, clusters)
    tests = pair_tests(design, places, moments, weights, design_effect)
    if chosen := choose_pairs(tests, settings.most_pairs, settings.false_discovery_rate):
        design = design.with_pairs(chosen)
        sums = add_up(design, places, targets)
    sums = sums.scaled(1.0 / design_effect)
    final = _gibbs(sums, design.blocks, unit, settings.burn_in, settings.draws, rng)
    spread = _weighted_variance(predict(design, places, final.mean), weights)
    parts = [_weighted_variance(_part(design, places, i, final.mean), weights) for i in range(len(places))]
    misfit = misfit_variance(tests, chosen, np.array(parts), spread, float(weights.sum()))
    return Posterior(design, final.mean, final.draws, final.block_sd, misfit, design_effect)


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
    """Sample coefficients and block deviations; the point is the mean of the conditional means."""
    p = len(sums.cross)
    size = np.array([b.columns.stop - b.columns.start for b in blocks], dtype=float)
    tail = np.array([_TAIL[b.prior] for b in blocks])
    scale = np.array([_SCALE[b.prior] for b in blocks]) * unit
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
        if sweep % _SIGMA_EVERY == 0:
            rest = sums.square - 2 * beta @ sums.cross + beta @ sums.gram @ beta
            noise = max(rest, 1e-12) / 2 / rng.gamma(sums.n / 2)
        if sweep >= burn_in:
            mean += centre / n_draws
            draws[sweep - burn_in] = beta
            squared_sd += variance / n_draws
    return _Chain(mean, draws, np.sqrt(squared_sd))


def _score_moments(targets: Sequence[tuple[Array, Array]], fitted: Array) -> Array:
    """Row's part in the derivative of the fit: weight times residual, averaged over the regressions."""
    return sum(((y - fitted) * w for y, w in targets), np.zeros(len(fitted))) / len(targets)


def _design_effect(moments: Array, clusters: NDArray[np.int64]) -> float:
    """Variance of a sum over clusters against that of a sum over rows, at least 1 (Kish 1965)."""
    by_cluster = np.bincount(clusters, moments)
    return max(1.0, float((by_cluster**2).sum() / max((moments**2).sum(), 1e-300)))

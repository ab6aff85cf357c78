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
from scipy import linalg, stats

from training.basis import Array, Block, Place
from training.design import Design, Sums, add_up, chunks, predict

_TAIL = {"main": 4.0, "missing": 4.0, "pair": 1.0}  # degrees of freedom of the half-t priors
_SCALE = {"main": 0.010, "missing": 0.005, "pair": 0.005}  # for an outcome with deviation 0.47
_USUAL_OUTCOME_SD = 0.47
_SIGMA_EVERY = 5


@dataclass(frozen=True)
class EffectSettings:
    """How the effect model is fitted."""

    burn_in: int = 100
    draws: int = 200
    false_discovery_rate: float = 0.1
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
    first = _gibbs(sums, design.blocks, unit, settings.burn_in // 2, settings.draws // 3, rng)
    moments = _score_moments(targets, predict(design, places, first.mean))
    design_effect = _design_effect(moments, clusters)
    chosen = choose_pairs(design, places, moments, clusters, design_effect, settings)
    if chosen:
        design = design.with_pairs(chosen)
        sums = add_up(design, places, targets)
    final = _gibbs(
        sums.scaled(1.0 / design_effect), design.blocks, unit, settings.burn_in, settings.draws, rng
    )
    fitted = predict(design, places, final.mean)
    weights = sum((w for _, w in targets), np.zeros(len(fitted)))
    spread = float(np.average((fitted - np.average(fitted, weights=weights)) ** 2, weights=weights))
    return Posterior(design, final.mean, final.draws, final.block_sd, 0.04 * spread, design_effect)


@dataclass(frozen=True)
class _Chain:
    mean: Array
    draws: Array
    block_sd: Array


def _gibbs(
    sums: Sums, blocks: Sequence[Block], unit: float, burn_in: int, n_draws: int, rng: np.random.Generator
) -> _Chain:
    """Sample coefficients and block deviations; the point is the mean of the conditional means."""
    p = len(sums.cross)
    size = np.array([b.columns.stop - b.columns.start for b in blocks], dtype=float)
    tail = np.array([_TAIL[b.prior] for b in blocks])
    scale = np.array([_SCALE[b.prior] for b in blocks]) * unit
    owner = np.repeat(np.arange(len(blocks)), size.astype(int))
    variance, noise = scale**2, max(sums.square / sums.n, 1e-12)
    mixing = tail / variance + 1.0 / scale**2
    precision = np.full(p, 1e-6)
    mean, draws, deviations = np.zeros(p), np.empty((n_draws, p)), np.zeros(len(blocks))
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
            deviations += np.sqrt(variance) / n_draws
    return _Chain(mean, draws, deviations)


def _score_moments(targets: Sequence[tuple[Array, Array]], fitted: Array) -> Array:
    """Row's part in the derivative of the fit: weight times residual, averaged over the regressions."""
    return sum(((y - fitted) * w for y, w in targets), np.zeros(len(fitted))) / len(targets)


def _design_effect(moments: Array, clusters: NDArray[np.int64]) -> float:
    """Variance of a sum over clusters against that of a sum over rows, at least 1 (Kish 1965)."""
    by_cluster = np.bincount(clusters, moments)
    return max(1.0, float((by_cluster**2).sum() / max((moments**2).sum(), 1e-300)))


def choose_pairs(
    design: Design,
    places: Sequence[Place],
    moments: Array,
    clusters: NDArray[np.int64],
    design_effect: float,
    settings: EffectSettings,
) -> list[tuple[int, int]]:
    """Pairs whose products the residuals still follow, by score tests with a false discovery rate.

    The statistic sums the squared correlations of a pair's product columns with the residual moments;
    its null distribution is approximated by Satterthwaite's scaled chi-squared.
    """
    owner = np.repeat(np.arange(len(design.low)), [0 if low is None else low.shape[1] for low in design.low])
    n_low, n_features = len(owner), len(design.features)
    if n_low == 0:
        return []
    score, spread = np.zeros((n_low, n_low)), np.zeros((n_low, n_low))
    for chunk in chunks(len(moments)):
        rows = design.low_rows(places, chunk)
        score += (rows * moments[chunk, None]).T @ rows
        spread += ((rows * moments[chunk, None]) ** 2).T @ rows**2
    spread *= design_effect
    group = np.zeros((n_low, n_features))
    group[np.arange(n_low), owner] = 1.0
    statistic, first, second = (group.T @ m @ group for m in (score**2, spread, spread**2))
    a, b = np.triu_indices(n_features, k=1)
    usable = second[a, b] > 0
    a, b = a[usable], b[usable]
    ratio = first[a, b] / second[a, b]
    p_values = stats.chi2.sf(statistic[a, b] * ratio, first[a, b] * ratio)
    order = np.lexsort((b, a, p_values))
    passes = p_values[order] <= settings.false_discovery_rate * np.arange(1, len(order) + 1) / len(order)
    n_kept = min(int(np.flatnonzero(passes).max(initial=-1)) + 1, settings.most_pairs)
    return [(int(a[i]), int(b[i])) for i in order[:n_kept]]

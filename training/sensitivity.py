"""How strong a factor that nobody wrote down would have to be, measured in deal sizes.

Takes plain arrays: one entry per decision.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.basis import Array
from training.censoring import Weights, all_alike
from training.nuisance import Nuisances
from training.sample import whole_deals
from training.uplift import cross_fit_for_judging

if TYPE_CHECKING:
    from features.decisions import DecisionTable

MOST_ROWS = 100_000


@dataclass(frozen=True)
class Unexplained:
    """What a set of features leaves unexplained, from nuisances that did not see the decision."""

    sigma2: float
    """Variance of the outcome around its expectation given features and choice."""
    nu2: float
    """Mean square of the Riesz representer T/e - (1-T)/(1-e): how unevenly the choice was made."""


def unexplained(
    outcome: ArrayLike,
    treatment: ArrayLike,
    expected: ArrayLike,
    propensity: ArrayLike,
    outcome_weight: Array | None = None,
) -> Unexplained:
    """Both residual variances of the average effect.

    Parameters
    ----------
    outcome, treatment : shape (n,)
    expected : expected outcome under the choice that was made, shape (n,)
    propensity : clipped away from 0 and 1, shape (n,)
    outcome_weight : what each outcome counts for, shape (n,); None is 1 for all. nu² is that of the choice
        alone, so a factor that moved who was joined later is not in the bound

    Notes
    -----
    Chernozhukov, Cinelli, Newey, Sharma & Syrgkanis, "Long story short: omitted variable bias in causal
    machine learning" (2022), section 4: sigma² = E(Y - g)², and nu² by its debiased form
    2 E[m(W, alpha)] - E[alpha²], where m(W, alpha) = alpha(1, X) - alpha(0, X) for an average effect.
    """
    y, t, e = (np.asarray(values, dtype=float) for values in (outcome, treatment, propensity))
    alpha = t / e - (1 - t) / (1 - e)
    nu2 = float(np.mean(2 * (1 / e + 1 / (1 - e)) - alpha**2))
    rest = (y - np.asarray(expected, dtype=float)) ** 2
    return Unexplained(float(np.average(rest, weights=outcome_weight)), nu2)


def bias_bound(sigma2: float, nu2: float, c_y2: float, c_d2: float) -> float:
    """Largest bias of the average effect that a hidden factor of this strength can cause.

    |bias| <= sqrt(sigma² nu² C_Y² C_D²) (Chernozhukov et al. 2022, theorem 2, with the worst correlation).

    Parameters
    ----------
    sigma2, nu2 : see `Unexplained`
    c_y2 : share of the outcome's unexplained variance that the factor would explain, 0 to 1
    c_d2 : relative growth of nu² if the factor were known, 0 or more
    """
    return math.sqrt(max(sigma2 * nu2 * c_y2 * c_d2, 0.0))


def bias_per_unit_strength(known: Unexplained, without: Unexplained) -> float | None:
    """Bias that a hidden factor as strong as one known feature could cause, in the outcome's unit.

    Parameters
    ----------
    known : with all features
    without : refitted without the feature that serves as the measure (deal size)

    Returns
    -------
    float or None
        A factor k times as strong, in choosing and in winning (k times both shares), causes at most k
        times this. None where the feature explains nothing of one of the two, so that it measures nothing.

    Notes
    -----
    The feature's gains stand in for the hidden factor's (section 4.3 of the paper; Cinelli & Hazlett 2020
    for the linear case): C_Y² = (sigma²_without - sigma²) / sigma², C_D² = (nu² - nu²_without) / nu²_without.
    That nothing hidden is stronger than the largest known feature can't be tested.
    """
    c_y2 = (without.sigma2 - known.sigma2) / known.sigma2
    c_d2 = (known.nu2 - without.nu2) / without.nu2
    if not (c_y2 > 0 and c_d2 > 0):
        return None
    return bias_bound(known.sigma2, known.nu2, min(c_y2, 1.0), c_d2)


def strength_to_erase(effect: float, per_unit: float | None, needed: float = 0.0) -> float | None:
    """How many times as strong as the measure a hidden factor must be to bring `effect` to `needed`."""
    return None if not per_unit else abs(effect - needed) / per_unit


def measured(
    decisions: DecisionTable,
    nuisances: Nuisances,
    supported: NDArray[np.bool_],
    measure: str,
    seed: int,
    n_jobs: int | None,
    most_rows: int = MOST_ROWS,
    weights: Weights = all_alike,
) -> float | None:
    """Bias per unit of strength, against nuisances refitted without the measure and what is made of it.

    Beyond `most_rows` decisions both are fitted anew, on the same whole deals drawn at random: what a
    feature explains is known well enough from them.

    Parameters
    ----------
    nuisances : cross-fitted on all `decisions` with the same `seed`
    supported : the decisions that the average is taken over, shape (n,)
    measure : feature that serves as the measure; ``measure_...`` is taken for made of it
    """
    names = [str(name) for name in decisions.X]
    made_of_it = [name for name in names if name == measure or name.startswith(f"{measure}_")]
    if decisions.X.shape[1] == len(made_of_it) or not supported.any():
        return None
    if len(decisions.X) > most_rows:
        drawn = np.flatnonzero(whole_deals(decisions.rows["deal_id"], most_rows, seed))
        decisions, supported = decisions.take(drawn), supported[drawn]
        nuisances = _refitted(decisions, [], seed, n_jobs, weights)
    blind = _refitted(decisions, made_of_it, seed, n_jobs, weights)
    known, without = (_left(decisions, each, supported, weights) for each in (nuisances, blind))
    return bias_per_unit_strength(known, without)


def _refitted(
    decisions: DecisionTable, left_out: list[str], seed: int, n_jobs: int | None, weights: Weights
) -> Nuisances:
    return cross_fit_for_judging(
        decisions.X.drop(columns=left_out),
        decisions.treatment,
        decisions.outcome,
        decisions.groups,
        seed,
        n_jobs,
        weights(decisions),
    )


def _left(
    decisions: DecisionTable, nuisances: Nuisances, rows: NDArray[np.bool_], weights: Weights
) -> Unexplained:
    weight = weights(decisions)
    treatment = decisions.treatment[rows]
    expected = np.where(treatment, nuisances.step_in[rows], nuisances.step_back[rows])
    own = None if weight is None else weight[rows]
    return unexplained(decisions.outcome[rows], treatment, expected, nuisances.propensity[rows], own)

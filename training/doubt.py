"""What could be wrong even if every figure is right: overlap, hidden factors, what no test can check.

Takes plain arrays: one entry per decision.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from training.evaluate import Evaluation
from training.nuisance import Nuisances
from training.uplift import UpliftModel, cross_fit_for_judging

if TYPE_CHECKING:
    from features.decisions import DecisionTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Outside:
    """A rule for where nothing can be said, and the share of decisions that it rules out."""

    rule: str
    share: float


@dataclass(frozen=True)
class Overlap:
    """Where both choices were seen. A decision counts under the first rule that rules it out."""

    n: int
    share_outside: float
    rules: tuple[Outside, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def overlap(propensity: ArrayLike, supported: ArrayLike, least: float = 0.05) -> Overlap:
    """Share of decisions outside the support, by rule.

    Parameters
    ----------
    propensity : P(step in) of each decision, shape (n,)
    supported : what the model says of each decision, shape (n,)
    least : propensities below it or above 1 - `least` are outside (Crump et al. 2009 derive 0.1 as a good
        all-round value; we keep more and let the interval widen)
    """
    chance, inside = np.asarray(propensity, dtype=float), np.asarray(supported, dtype=bool)
    n = len(chance)
    never, always = chance < least, chance > 1 - least
    cases = (
        (f"The vendor hardly ever stepped in (chance below {least:.0%})", ~inside & never),
        (f"The vendor nearly always stepped in (chance above {1 - least:.0%})", ~inside & always),
        ("Too few similar decisions with one of the two choices", ~inside & ~never & ~always),
    )
    rules = tuple(Outside(rule, float(np.mean(mask)) if n else 0.0) for rule, mask in cases)
    return Overlap(n, float(np.mean(~inside)) if n else 0.0, rules)


@dataclass(frozen=True)
class Unexplained:
    """What a set of features leaves unexplained, from nuisances that did not see the decision."""

    sigma2: float
    """Variance of the outcome around its expectation given features and choice."""
    nu2: float
    """Mean square of the Riesz representer T/e - (1-T)/(1-e): how unevenly the choice was made."""


def unexplained(
    outcome: ArrayLike, treatment: ArrayLike, expected: ArrayLike, propensity: ArrayLike
) -> Unexplained:
    """Both residual variances of the average effect.

    Parameters
    ----------
    outcome, treatment : shape (n,)
    expected : expected outcome under the choice that was made, shape (n,)
    propensity : clipped away from 0 and 1, shape (n,)

    Notes
    -----
    Chernozhukov, Cinelli, Newey, Sharma & Syrgkanis, "Long story short: omitted variable bias in causal
    machine learning" (2022), section 4: sigma² = E(Y - g)², and nu² by its debiased form
    2 E[m(W, alpha)] - E[alpha²], where m(W, alpha) = alpha(1, X) - alpha(0, X) for an average effect.
    """
    y, t, e = (np.asarray(values, dtype=float) for values in (outcome, treatment, propensity))
    alpha = t / e - (1 - t) / (1 - e)
    nu2 = float(np.mean(2 * (1 / e + 1 / (1 - e)) - alpha**2))
    return Unexplained(float(np.mean((y - np.asarray(expected, dtype=float)) ** 2)), nu2)


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


def doubts(
    decisions: DecisionTable, nuisances: Nuisances, model: UpliftModel, evaluation: Evaluation, seed: int
) -> dict[str, Any]:
    """All that the report says on trust, JSON-able.

    Parameters
    ----------
    decisions : every decision, with the feature named `about["amount_feature"]` as the measure of strength
    nuisances : cross-fitted on these decisions with the same `seed`
    model, evaluation : the fitted model and its judgement
    seed : of the folds when the nuisances are refitted without the measure

    Returns
    -------
    dict
        overlap, missing, clipped_share, measure (name or None), bias_per_unit_strength and
        strength_to_erase (None where there is no measure, or it measures nothing).
    """
    answers = model.answers(decisions.X)
    measure = decisions.about.get("amount_feature")
    per_unit = None
    if measure in decisions.X:
        per_unit = _measured(decisions, nuisances, answers.supported, str(measure), seed, model.n_jobs)
    return {
        "overlap": overlap(answers.propensity, answers.supported, model.least_propensity).to_dict(),
        "missing": missing_shares(decisions.X),
        "clipped_share": nuisances.clipped / max(len(decisions.X), 1),
        "measure": measure if per_unit else None,
        "bias_per_unit_strength": per_unit,
        "strength_to_erase": strength_to_erase(evaluation.average.value, per_unit),
    }


def _measured(
    decisions: DecisionTable,
    nuisances: Nuisances,
    supported: NDArray[np.bool_],
    measure: str,
    seed: int,
    n_jobs: int | None,
) -> float | None:
    """Bias per unit of strength, against nuisances refitted without the measure and what is made of it."""
    made_of_it = [name for name in decisions.X if name == measure or str(name).startswith(f"{measure}_")]
    rest = decisions.X.drop(columns=made_of_it)
    if rest.shape[1] == 0 or not supported.any():
        return None
    blind = cross_fit_for_judging(
        rest, decisions.treatment, decisions.outcome, decisions.groups, seed, n_jobs
    )
    known, without = (_left(decisions, each, supported) for each in (nuisances, blind))
    return bias_per_unit_strength(known, without)


def _left(decisions: DecisionTable, nuisances: Nuisances, rows: NDArray[np.bool_]) -> Unexplained:
    treatment = decisions.treatment[rows]
    expected = np.where(treatment, nuisances.step_in[rows], nuisances.step_back[rows])
    return unexplained(decisions.outcome[rows], treatment, expected, nuisances.propensity[rows])


def missing_shares(features: pd.DataFrame) -> dict[str, float]:
    """Share of missing values of each feature that has any, the largest first."""
    shares = features.isna().mean().sort_values(ascending=False, kind="stable")
    return {str(name): float(share) for name, share in shares.items() if share > 0}


ASSUMPTIONS: tuple[tuple[str, str], ...] = (
    (
        "Everything that moved both the choice and the outcome was on record before the decision.",
        "A hunch that a deal is in trouble, never typed in, makes vendor help look worse than it is.",
    ),
    (
        "What is missing is missing alike, whichever choice was made, among deals that look alike.",
        "If busy sellers leave fields empty on the deals that need help, those deals' effect is off.",
    ),
    (
        "Stepping in on one deal does not change the outcome of another.",
        "If vendor people are short, a deal that gets them takes them from another; gains then don't add up.",
    ),
    (
        "Stepping in means about the same thing each time.",
        "A phone call and three weeks on site are one word here; the effect is that of the usual mixture.",
    ),
    (
        "The next months resemble the past ones.",
        "New products, new partners or new rules ask for new learning.",
    ),
)

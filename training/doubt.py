"""What could be wrong even if every figure is right: all doubts together, and what no test can check."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from training.censoring import Weights, all_alike
from training.evaluate import Evaluation
from training.falsify import Machinery, falsify
from training.influence import influence
from training.nuisance import Nuisances, scores
from training.scorecard import OUTSIDE
from training.sensitivity import measured, strength_to_erase
from training.uplift import UpliftModel

if TYPE_CHECKING:
    from features.decisions import DecisionTable


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


def overlap(outside: ArrayLike, least: float = 0.05) -> Overlap:
    """Share of decisions outside the support, by rule.

    Parameters
    ----------
    outside : what the model says of each decision, shape (n,): position in `training.scorecard.OUTSIDE`,
        -1 where it is supported
    least : chances below it or above 1 - `least` are outside
    """
    rule = np.asarray(outside, dtype=int)
    n = max(len(rule), 1)
    words = {
        "chance_too_low": f"The vendor hardly ever stepped in on such deals (chance below {least:.0%})",
        "chance_too_high": f"The vendor nearly always stepped in (chance above {1 - least:.0%})",
        "one_way": "The partner, or another trait, was seen often, but always or never with the vendor",
        "never_seen": "A trait that the comparison rests on was never seen before",
        "too_few_similar": "Too few similar decisions with the vendor, or too few without",
    }
    counts = np.bincount(rule + 1, minlength=len(OUTSIDE) + 1)[1:]
    rules = tuple(Outside(words[name], float(count) / n) for name, count in zip(OUTSIDE, counts, strict=True))
    return Overlap(len(rule), float(counts.sum()) / n, rules)


def doubts(
    decisions: DecisionTable,
    nuisances: Nuisances,
    model: UpliftModel,
    evaluation: Evaluation,
    seed: int,
    weights: Weights = all_alike,
) -> dict[str, Any]:
    """All that the report says on trust, JSON-able.

    Parameters
    ----------
    decisions : every decision, with the feature named `about["amount_feature"]` as the measure of strength
    nuisances : cross-fitted on these decisions with the same `seed`
    model, evaluation : the fitted model and its judgement
    seed : of whatever is drawn or fitted anew
    weights : what each outcome counts for; the questions whose answer must be nothing are asked without

    Returns
    -------
    dict
        overlap, missing, clipped_share; measure (name or None), bias_per_unit_strength and
        strength_to_erase (None where there is no measure, or it measures nothing); placebo,
        negative_control and future_involvement as `training.falsify` returns them; influence as
        `training.influence` does, over the supported decisions.
    """
    answers = model.answers(decisions.X)
    supported = answers.supported
    measure = decisions.about.get("amount_feature")
    per_unit = None
    if measure in decisions.X:
        per_unit = measured(
            decisions, nuisances, supported, str(measure), seed, model.n_jobs, weights=weights
        )
    phi = scores(nuisances, decisions.treatment, decisions.outcome, weights(decisions)).doubly_robust
    partners = decisions.rows["partner_id"].to_numpy(dtype=object)
    return {
        "overlap": overlap(answers.outside, model.least_propensity).to_dict(),
        "missing": missing_shares(decisions.X),
        "clipped_share": nuisances.clipped / max(len(decisions.X), 1),
        "measure": measure if per_unit else None,
        "bias_per_unit_strength": per_unit,
        "strength_to_erase": strength_to_erase(evaluation.average.value, per_unit),
        **falsify(decisions, Machinery(model.least_propensity, seed, model.n_jobs)),
        "influence": influence(phi[supported], partners[supported], evaluation.break_even),
    }


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

"""The judgement of a model on decisions that it never saw.

Takes plain arrays, so that every figure can be tested against a planted truth. The estimates themselves
are in `training.clustered`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from training import clustered
from training.claims import Claim, compare_claims
from training.clustered import Estimate, autoc
from training.policy import ADVICE, STEP_IN, Policy
from training.verdict import NOT_ENOUGH, evidence_for, verdict

Floats = NDArray[np.float64]

# One-sided level at which differing effects count as shown.
LEVEL = 0.05


@dataclass(frozen=True)
class HeldOut:
    """Decisions that the model never saw, and what it said of them. Arrays of shape (n,).

    Notes
    -----
    `phi`, `propensity` and `step_back` must come from nuisances that did not see the decision either:
    cross-fitted within these decisions, or learned before them. Otherwise every figure flatters.
    """

    phi: Floats
    """Doubly robust scores of the uplift."""
    uplift: Floats
    sd: Floats
    supported: NDArray[np.bool_]
    treatment: NDArray[np.bool_]
    outcome: Floats
    groups: NDArray[Any]
    """Partner of each decision: the cluster."""
    amount: Floats | None = None
    deals: NDArray[Any] | None = None
    """Deal of each decision; with it, "ever involved against never" is shown too."""
    propensity: Floats | None = None
    step_back: Floats | None = None
    """Expected outcome if the vendor steps back."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            assert value is None or len(value) == len(self.phi), f"{field.name} has another length than phi"

    def take(self, mask: NDArray[np.bool_]) -> HeldOut:
        """Only the decisions where `mask` is true."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: np.asarray(v)[mask] for k, v in values.items() if v is not None})


@dataclass(frozen=True)
class Evaluation:
    """The judgement, on supported held-out decisions.

    Effects are fractions where the outcome is binary, else in the outcome's unit.
    """

    outcome: str
    """``binary`` or ``numeric``."""
    n: int
    n_unsupported: int
    """Held-out decisions left out here because such decisions were hardly ever taken both ways."""
    average: Estimate
    """Average uplift, doubly robust."""
    naive: Estimate
    """Outcome where the vendor stepped in less outcome where not, nothing adjusted."""
    claims: tuple[Claim, ...]
    """From the most naive comparison to the adjusted one."""
    fifths: tuple[dict[str, float], ...]
    """Rows of `calibration_by_fifth`."""
    slope: Estimate
    """Observed on predicted uplift: 1 is calibrated, 0 useless."""
    autoc: Estimate
    toc: tuple[dict[str, float], ...]
    value: dict[str, Estimate]
    """Net gain per decision over always stepping back: of the advice, always, people (what was done)."""
    gain: dict[str, Estimate]
    """Net gain per decision of the advice over always, never, people: paired."""
    advice_shares: dict[str, float]
    """Over all held-out decisions, those without support too."""
    break_even: float
    """Median over the supported decisions."""
    heterogeneous: bool
    """Whether effects that differ between decisions were shown: if not, serve the average alone."""
    evidence: str
    """``differing``, ``average_only`` or ``not_enough``."""
    verdict: str
    """One sentence for people."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def metrics(self) -> dict[str, float]:
        """Finite figures under flat names, as an experiment tracker keeps them."""
        named = {"average": self.average, "naive": self.naive, "calibration_slope": self.slope}
        named |= {"autoc": self.autoc} | {f"gain_over_{key}": value for key, value in self.gain.items()}
        figures = {"heldout_decisions": float(self.n), "heldout_unsupported": float(self.n_unsupported)}
        for name, estimate in named.items():
            figures |= {name: estimate.value, f"{name}_lo": estimate.lo, f"{name}_hi": estimate.hi}
        figures |= {f"share_{name}": share for name, share in self.advice_shares.items()}
        return {name: float(number) for name, number in figures.items() if math.isfinite(number)}


def average_effect(phi: ArrayLike, groups: ArrayLike) -> Estimate:
    """Mean of the doubly robust scores (n,), clustered by partner.

    Unbiased if either the propensity or the outcome model is right, and if everything that moved both the
    choice and the outcome was on record (Robins & Rotnitzky 1995). No test can check the latter.
    """
    return clustered.mean(phi, groups)


def naive_difference(outcome: ArrayLike, treatment: ArrayLike, groups: ArrayLike) -> Estimate:
    """Mean outcome with the vendor less without, nothing adjusted: what a dashboard would show."""
    return clustered.difference(outcome, treatment, groups)


def calibration_slope(uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike) -> Estimate:
    """Slope of the scores on the predicted uplift: 1 if differences are neither over- nor understated.

    The best linear predictor of Chernozhukov, Demirer, Duflo & Fernández-Val (2018), in its doubly robust
    form. NaN where all predictions are equal.
    """
    return clustered.slope(uplift, phi, groups)


def calibration_by_fifth(uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike) -> pd.DataFrame:
    """Predicted against observed uplift by fifths of the prediction.

    Returns
    -------
    DataFrame with columns fifth (1 = least uplift), n, predicted, observed, lo, hi
        One row per fifth that holds decisions; equal predictions stay together.
    """
    predicted, scores, labels = np.asarray(uplift, dtype=float), np.asarray(phi), np.asarray(groups)
    ranks = pd.Series(predicted).rank(method="average").to_numpy()
    fifths = np.clip(np.ceil(5 * (ranks - 0.5) / max(len(ranks), 1)), 1, 5).astype(int)
    rows = []
    for fifth in np.unique(fifths):
        inside = fifths == fifth
        seen = clustered.mean(scores[inside], labels[inside])
        rows.append((int(fifth), seen.n, float(predicted[inside].mean()), seen.value, seen.lo, seen.hi))
    return pd.DataFrame(rows, columns=["fifth", "n", "predicted", "observed", "lo", "hi"])


def heterogeneity_test(uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike) -> dict[str, float]:
    """One-sided p-values of "the ranking is worth nothing": keys slope and autoc, clustered by partner."""
    slope, area = calibration_slope(uplift, phi, groups), autoc(uplift, phi, groups)
    return {"slope": slope.p_positive, "autoc": area.p_positive}


def policy_value(phi: ArrayLike, acts: ArrayLike, cost: ArrayLike, groups: ArrayLike) -> Estimate:
    """Net gain per decision of stepping in where `acts`, over always stepping back.

    Parameters
    ----------
    phi : doubly robust scores (n,)
    acts : where the rule steps in (n,); it must not have been made from these decisions' outcomes
    cost : uplift that pays for stepping in, (n,) or a scalar
    groups : partner of each decision (n,)

    Notes
    -----
    The held-out scores are summed, never the predictions of those chosen: a list picked for its high
    predictions has been picked for its errors too (Athey & Wager 2021).
    """
    return clustered.mean(_net(phi, acts, cost), groups)


def compare(
    phi: ArrayLike, acts_a: ArrayLike, acts_b: ArrayLike, cost: ArrayLike, groups: ArrayLike
) -> Estimate:
    """Net gain per decision of rule a over rule b, paired by decision; shapes as in `policy_value`."""
    return clustered.mean(_net(phi, acts_a, cost) - _net(phi, acts_b, cost), groups)


def people_gain(held: HeldOut, cost: ArrayLike) -> Floats:
    """Net gain (n,) of what people did over always stepping back.

    With the nuisances at hand it is the outcome less the doubly robust score of stepping back; without
    them the scores of the decisions where the vendor stepped in, right only if the outcome model is.
    """
    if held.propensity is None or held.step_back is None:
        return _net(held.phi, held.treatment, cost)
    left = held.outcome - held.step_back
    back = held.step_back + np.where(held.treatment, 0, left / (1 - held.propensity))
    return held.outcome - back - np.where(held.treatment, cost, 0)


def judge(
    held: HeldOut, policy: Policy | None = None, constant: tuple[float, float] | None = None
) -> Evaluation:
    """Judge the model on held-out decisions.

    Parameters
    ----------
    held : the decisions and what the model said of them
    policy : what turns an uplift into advice; the default policy where None
    constant : mean and standard deviation of the one average effect that is served where differing effects
        can't be shown; the mean prediction where None

    Returns
    -------
    Evaluation
        On the supported decisions. Where `heterogeneous` is False, the value of the advice is that of
        advising on `constant` alone, since that is what gets served.
    """
    rule = policy or Policy()
    seen = held.take(np.asarray(held.supported, dtype=bool))
    slope = calibration_slope(seen.uplift, seen.phi, seen.groups)
    area = autoc(seen.uplift, seen.phi, seen.groups)
    differs = area.p_positive < LEVEL and slope.value > 0
    steps = compare_claims(seen.treatment, seen.outcome, seen.phi, seen.groups, seen.deals)
    average = steps[-1].estimate
    break_even = rule.break_even(held.amount, len(held.phi))
    needed = float(np.median(break_even[held.supported])) if len(seen.phi) else math.nan
    evidence = evidence_for(average, differs, needed)
    enough = held.supported & (evidence != NOT_ENOUGH)
    everywhere = rule.advise(*_served(held, differs, constant), held.amount, enough).advice
    acts = (everywhere == STEP_IN)[held.supported]
    values, gains = _worth(seen, acts, break_even[held.supported])
    return Evaluation(
        outcome=rule.outcome,
        n=len(seen.phi),
        n_unsupported=len(held.phi) - len(seen.phi),
        average=average,
        naive=steps[-2].estimate,
        claims=steps,
        fifths=_rows(calibration_by_fifth(seen.uplift, seen.phi, seen.groups)),
        slope=slope,
        autoc=area,
        toc=tuple(clustered.toc_curve(seen.uplift, seen.phi, seen.groups)) if len(seen.phi) else (),
        value=values,
        gain=gains,
        advice_shares={name: float(np.mean(everywhere == name)) for name in ADVICE if len(held.phi)},
        break_even=needed,
        heterogeneous=differs,
        evidence=evidence,
        verdict=verdict(evidence, average, gains, rule.outcome),
    )


def _served(seen: HeldOut, differs: bool, constant: tuple[float, float] | None) -> tuple[Floats, Floats]:
    """Uplift and sd as the server will give them."""
    if differs or not len(seen.phi):
        return seen.uplift, seen.sd
    centre, spread = constant or (float(np.mean(seen.uplift)), float(np.mean(seen.sd)))
    return np.full(len(seen.phi), centre), np.full(len(seen.phi), spread)


def _worth(
    seen: HeldOut, acts: NDArray[np.bool_], cost: Floats
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    advice = _net(seen.phi, acts, cost)
    others = {
        "always": _net(seen.phi, np.ones(len(acts), dtype=bool), cost),
        "never": np.zeros(len(acts)),
        "people": people_gain(seen, cost),
    }
    values = {"advice": advice, "always": others["always"], "people": others["people"]}
    return (
        {name: clustered.mean(gain, seen.groups) for name, gain in values.items()},
        {name: clustered.mean(advice - gain, seen.groups) for name, gain in others.items()},
    )


def _rows(table: pd.DataFrame) -> tuple[dict[str, float], ...]:
    return tuple({str(key): value for key, value in row.items()} for row in table.to_dict("records"))


def _net(phi: ArrayLike, acts: ArrayLike, cost: ArrayLike) -> Floats:
    return np.where(np.asarray(acts, dtype=bool), np.asarray(phi, dtype=float) - cost, 0.0)


def _plain(value: Any) -> Any:
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return bool(value) if isinstance(value, np.bool_) else value

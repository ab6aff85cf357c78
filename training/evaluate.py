"""The judgement of a model on decisions that it never saw.

Takes plain arrays, so that every figure can be tested against a planted truth. The estimates themselves
are in `training.clustered` and the modules named after their figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from training.calibration import best_linear_predictor, calibration_by_fifth, calibration_slope, less_loss
from training.claims import Claim, compare_claims, decompose
from training.clustered import Estimate, means_within, parts_of
from training.held_out import HeldOut
from training.policy import ADVICE, STEP_IN, Policy
from training.targeting import autoc, qini, toc_curve
from training.verdict import NOT_ENOUGH, evidence_for, verdict
from training.worth import value_and_gain

__all__ = ["LEVEL", "Constant", "Evaluation", "HeldOut", "heterogeneity_test", "judge"]

Floats = NDArray[np.float64]
# Mean and standard deviation of one average effect: scalars, or of shape (n,) where it differs by block.
Constant = tuple[ArrayLike, ArrayLike]

# One-sided level at which differing effects count as shown.
LEVEL = 0.01


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
    decomposition: dict[str, Estimate]
    """Parts that add up to `naive`: adjusted, baseline, gain (see `decompose`); empty without nuisances."""
    fifths: tuple[dict[str, float], ...]
    """Rows of `calibration_by_fifth`."""
    slope: Estimate
    """Observed on predicted uplift: 1 is calibrated, 0 useless."""
    best_linear_predictor: dict[str, Estimate]
    """Coefficients mean and difference; see `best_linear_predictor`."""
    autoc: Estimate
    qini: Estimate
    toc: tuple[dict[str, float], ...]
    loss: dict[str, float]
    """Doubly robust loss of the model, the constant and zero; most of it is the scores' own noise."""
    less_loss: dict[str, Estimate]
    """The model's loss less that of constant and zero, paired; below 0 the model is nearer to the truth."""
    value: dict[str, Estimate]
    """Net gain per decision over always stepping back: of the advice, always, biggest, likeliest, people."""
    gain: dict[str, Estimate]
    """Net gain per decision of the advice over always, never, biggest, likeliest, people: paired."""
    advice_shares: dict[str, float]
    """Over all held-out decisions, those without support too."""
    break_even: float
    """Median over the supported decisions."""
    heterogeneous: bool
    """Whether the model beats one effect for all: if not, the average alone is served."""
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
        named |= {"autoc": self.autoc, "qini": self.qini}
        named |= {f"naive_part_{key}": part for key, part in self.decomposition.items()}
        named |= {f"best_linear_{key}": part for key, part in self.best_linear_predictor.items()}
        named |= {f"loss_less_{key}": part for key, part in self.less_loss.items()}
        named |= {f"gain_over_{key}": value for key, value in self.gain.items()}
        figures = {"heldout_decisions": float(self.n), "heldout_unsupported": float(self.n_unsupported)}
        for name, estimate in named.items():
            figures |= {name: estimate.value, f"{name}_lo": estimate.lo, f"{name}_hi": estimate.hi}
        figures |= {f"share_{name}": share for name, share in self.advice_shares.items()}
        return {name: float(number) for name, number in figures.items() if math.isfinite(number)}


def heterogeneity_test(
    uplift: ArrayLike, phi: ArrayLike, groups: ArrayLike, blocks: ArrayLike | None = None
) -> dict[str, float]:
    """One-sided p-values of "the ranking is worth nothing": keys autoc, qini and best_linear_predictor."""
    line = best_linear_predictor(uplift, phi, groups, blocks)["difference"]
    return {
        "autoc": autoc(uplift, phi, groups, blocks).p_positive,
        "qini": qini(uplift, phi, groups, blocks).p_positive,
        "best_linear_predictor": line.p_positive,
    }


def judge(
    held: HeldOut,
    policy: Policy | None = None,
    constant: Constant | None = None,
    ever: Estimate | None = None,
) -> Evaluation:
    """Judge the model on held-out decisions.

    Parameters
    ----------
    held : the decisions and what the model said of them; with `blocks`, what each block's model said
    policy : what turns an uplift into advice; the default policy where None
    constant : the one average effect for all that is the model's rival, and is served if the model does not
        beat it; the mean prediction of each block where None
    ever : what "ever joined against never" says of all closed deals; that of the held-out deals where None

    Returns
    -------
    Evaluation
        On the supported decisions. Where `heterogeneous` is False, the value of the advice is that of
        advising on `constant` alone, since that is what gets served.

    Notes
    -----
    The model beats the constant if the one-sided test of AUTOC is below `LEVEL` and its estimated loss is
    the smaller one: a ranking that is right in order and far off in size is not served.
    """
    rule, held = policy or Policy(), held.coded()
    inside = np.asarray(held.supported, dtype=bool)
    centre, spread = _constant(held, constant)
    seen, rival = held.take(inside), centre[inside]
    area = autoc(seen.uplift, seen.phi, seen.groups, seen.blocks)
    losses = {
        "constant": less_loss(seen.uplift, rival, seen.phi, seen.groups),
        "zero": less_loss(seen.uplift, 0.0, seen.phi, seen.groups),
    }
    differs = area.p_positive < LEVEL and losses["constant"].value < 0
    steps = compare_claims(seen.treatment, seen.outcome, seen.phi, seen.groups, seen.deals, ever)
    average = steps[-1].estimate
    break_even = rule.break_even(held.amount, len(held.phi))
    needed = float(np.median(break_even[inside])) if len(seen.phi) else math.nan
    evidence = evidence_for(average, differs, needed)
    said = (held.uplift, held.sd) if differs else (centre, spread)
    everywhere = rule.advise(*said, held.amount, inside & (evidence != NOT_ENOUGH)).advice
    values, gains = value_and_gain(seen, (everywhere == STEP_IN)[inside], break_even[inside])
    return Evaluation(
        outcome=rule.outcome,
        n=len(seen.phi),
        n_unsupported=len(held.phi) - len(seen.phi),
        average=average,
        naive=steps[-2].estimate,
        claims=steps,
        decomposition=_decomposed(seen),
        fifths=_rows(calibration_by_fifth(seen.uplift, seen.phi, seen.groups, seen.blocks)),
        slope=calibration_slope(seen.uplift, seen.phi, seen.groups, seen.blocks),
        best_linear_predictor=best_linear_predictor(seen.uplift, seen.phi, seen.groups, seen.blocks),
        autoc=area,
        qini=qini(seen.uplift, seen.phi, seen.groups, seen.blocks),
        toc=_toc(seen),
        loss={
            name: float(np.mean((seen.phi - each) ** 2)) if len(seen.phi) else math.nan
            for name, each in (("model", seen.uplift), ("constant", rival), ("zero", 0.0))
        },
        less_loss=losses,
        value=values,
        gain=gains,
        advice_shares={name: float(np.mean(everywhere == name)) for name in ADVICE if len(held.phi)},
        break_even=needed,
        heterogeneous=differs,
        evidence=evidence,
        verdict=verdict(evidence, average, gains, rule.outcome),
    )


def _constant(held: HeldOut, constant: Constant | None) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the constant, shape (n,) each."""
    part = parts_of(held.blocks, len(held.phi))
    means = constant or (means_within(held.uplift, part), means_within(held.sd, part))
    centre, spread = (np.broadcast_to(np.asarray(each, dtype=float), held.phi.shape) for each in means)
    return centre, spread


def _decomposed(seen: HeldOut) -> dict[str, Estimate]:
    if seen.propensity is None or seen.step_back is None:
        return {}
    return decompose(seen.treatment, seen.outcome, seen.phi, seen.propensity, seen.step_back, seen.groups)


def _toc(seen: HeldOut) -> tuple[dict[str, float], ...]:
    if not len(seen.phi):
        return ()
    return tuple(toc_curve(seen.uplift, seen.phi, seen.groups, blocks=seen.blocks))


def _rows(table: pd.DataFrame) -> tuple[dict[str, float], ...]:
    return tuple({str(key): value for key, value in row.items()} for row in table.to_dict("records"))


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

"""LaLonde's question: is the trial's answer found without the trial's controls?

The treated of the NSW trial stand among people of the CPS survey, whom no coin kept out. On the rows with
support, the effect on the treated is compared with what the trial itself says of the people with the same
covariates: chance decided among them, so that the same rule applied to both of its arms keeps the comparison
fair.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import real
from benchmarks.entries import ENTRIES
from benchmarks.learners import Entry, Stepin
from benchmarks.worlds import Decisions
from training.nuisance import Nuisances

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, dollars a year."""

    value: float
    se: float


_NOWHERE = Estimate(float("nan"), float("nan"))


def compare_averages(entries: Iterable[Entry] = ENTRIES) -> list[dict[str, Any]]:
    """A line for each learner, and for the trial; stepin's rule says which rows have support."""
    pooled, trial = real.lalonde()
    stepin = Stepin()
    stepin.fit(pooled)
    supported, in_trial = stepin.model.support(pooled.X), stepin.model.support(trial.X)
    whole, naive = (difference(d, np.ones(len(d), dtype=bool)) for d in (trial, pooled))
    on_treated = effect_on_treated(pooled, stepin.model.nuisances_, supported)
    lines = [
        _line("the trial", difference(trial, in_trial), whole) | _rows(stepin, pooled, in_trial),
        _line("CPS without adjustment", difference(pooled, supported), naive),
        _line("stepin, doubly robust", on_treated, None),
    ]
    treated = pooled.treatment
    for entry in entries:
        learner = entry.make()
        learner.fit(pooled)
        effect = learner.effect(pooled.X)
        lines.append(_line(entry.name, _mean(effect[treated & supported]), _mean(effect[treated])))
    return lines


def _rows(stepin: Stepin, pooled: Decisions, in_trial: NDArray[np.bool_]) -> dict[str, int]:
    """How many rows have support, and which rule the others fail."""
    answers, treated, least = stepin.model.answers(pooled.X), pooled.treatment, stepin.model.least_propensity
    rarely, nearly_always = answers.propensity < least, answers.propensity > 1 - least
    return {
        "rows": len(pooled),
        "supported": int(answers.supported.sum()),
        "rarely": int(rarely.sum()),
        "nearly_always": int(nearly_always.sum()),
        "few_alike": int((~answers.supported & ~rarely & ~nearly_always).sum()),
        "treated": int(treated.sum()),
        "treated_supported": int((treated & answers.supported).sum()),
        "controls_supported": int((~treated & answers.supported).sum()),
        "trial_supported": int(in_trial.sum()),
        "trial": len(in_trial),
    }


def difference(decisions: Decisions, rows: NDArray[np.bool_]) -> Estimate:
    """Mean outcome of those treated less that of the others, among some rows; NaN if an arm has too few."""
    arms = [decisions.outcome[rows & (decisions.treatment == arm)] for arm in (True, False)]
    if min(map(len, arms)) < 2:
        return _NOWHERE
    variance = sum(arm.var(ddof=1) / len(arm) for arm in arms)
    return Estimate(float(arms[0].mean() - arms[1].mean()), float(np.sqrt(variance)))


def effect_on_treated(decisions: Decisions, nuisances: Nuisances, rows: NDArray[np.bool_]) -> Estimate:
    """Doubly robust average effect on the treated among some rows (Robins & Rotnitzky 1995; Hahn 1998)."""
    t = decisions.treatment[rows].astype(float)
    if not t.any():
        return _NOWHERE
    e, gap = nuisances.propensity[rows], decisions.outcome[rows] - nuisances.step_back[rows]
    part = t * gap - (1 - t) * e / (1 - e) * gap
    value = float(part.sum() / t.sum())
    return Estimate(value, float(np.sqrt(np.sum((part - t * value) ** 2)) / t.sum()))


def _mean(effects: Floats) -> Estimate:
    return Estimate(float(effects.mean()) if len(effects) else float("nan"), float("nan"))


def _line(learner: str, supported: Estimate, everybody: Estimate | None) -> dict[str, Any]:
    line = {"value": supported.value, "se": supported.se}
    if everybody is not None:
        line |= {"all": everybody.value, "all_se": everybody.se}
    known = {name: value for name, value in line.items() if np.isfinite(value)}
    return {"table": "lalonde", "learner": learner, **known}

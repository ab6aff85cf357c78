"""LaLonde's question: is the trial's answer found without the trial's controls?

The treated of the NSW trial stand among people of the CPS survey, whom no coin kept out. On the rows with
support, the effect on the treated is compared with what the trial itself says of the people with the same
covariates: chance decided among them, so that the same rule applied to both of its arms keeps the comparison
fair.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import real
from benchmarks.learners import Stepin
from benchmarks.peers import ENTRIES
from benchmarks.worlds import Decisions
from training.nuisance import Nuisances

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A value and its standard error, dollars a year."""

    value: float
    se: float


def compare_averages() -> list[dict[str, Any]]:
    """A line for each learner, and for the trial; stepin's rule says which rows have support."""
    pooled, trial = real.lalonde()
    stepin = Stepin()
    stepin.fit(pooled)
    answers, in_trial = stepin.model.answers(pooled.X), stepin.model.support(trial.X)
    supported, treated = answers.supported, pooled.treatment
    least = stepin.model.least_propensity
    rarely, nearly_always = answers.propensity < least, answers.propensity > 1 - least
    about = {
        "rows": len(pooled),
        "supported": int(supported.sum()),
        "rarely": int(rarely.sum()),
        "nearly_always": int(nearly_always.sum()),
        "few_alike": int((~supported & ~rarely & ~nearly_always).sum()),
        "treated": int(treated.sum()),
        "treated_supported": int((treated & supported).sum()),
        "controls_supported": int((~treated & supported).sum()),
        "trial_supported": int(in_trial.sum()),
        "trial": len(trial),
    }
    bench = difference(trial, in_trial)
    everybody = difference(trial, np.ones(len(trial), dtype=bool))
    naive = difference(pooled, np.ones(len(pooled), dtype=bool))
    on_treated = effect_on_treated(pooled, stepin.model.nuisances_, supported)
    lines = [
        _line("the trial", bench, everybody) | about,
        _line("CPS without adjustment", difference(pooled, supported), naive),
        _line("stepin, doubly robust", on_treated, None),
    ]
    for entry in ENTRIES:
        learner = entry.make()
        learner.fit(pooled)
        effect = learner.effect(pooled.X)
        lines.append(
            _line(
                entry.name,
                Estimate(float(effect[treated & supported].mean()), float("nan")),
                Estimate(float(effect[treated].mean()), float("nan")),
            )
        )
    return lines


def difference(decisions: Decisions, rows: NDArray[np.bool_]) -> Estimate:
    """Mean outcome of those treated less that of the others, among some rows."""
    arms = [decisions.outcome[rows & (decisions.treatment == arm)] for arm in (True, False)]
    variance = sum(arm.var(ddof=1) / len(arm) for arm in arms)
    return Estimate(float(arms[0].mean() - arms[1].mean()), float(np.sqrt(variance)))


def effect_on_treated(decisions: Decisions, nuisances: Nuisances, rows: NDArray[np.bool_]) -> Estimate:
    """Doubly robust average effect on the treated among some rows (Robins & Rotnitzky 1995; Hahn 1998)."""
    t = decisions.treatment[rows].astype(float)
    e, gap = nuisances.propensity[rows], decisions.outcome[rows] - nuisances.step_back[rows]
    part = t * gap - (1 - t) * e / (1 - e) * gap
    value = float(part.sum() / t.sum())
    return Estimate(value, float(np.sqrt(np.sum((part - t * value) ** 2)) / t.sum()))


def _line(learner: str, supported: Estimate, everybody: Estimate | None) -> dict[str, Any]:
    line: dict[str, Any] = {"table": "lalonde", "learner": learner}
    line |= {"value": supported.value, "se": None if np.isnan(supported.se) else supported.se}
    if everybody is not None:
        line |= {"all": everybody.value, "all_se": None if np.isnan(everybody.se) else everybody.se}
    return line

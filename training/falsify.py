"""Questions whose true answer is known to be "nothing": if the method finds something, doubt the method.

Each returns a plain dict: ``what`` was asked, the ``estimate`` (see `Estimate.to_dict`), whether it ``holds``
(its 95% interval contains zero; by chance alone one in twenty does not), ``n`` decisions, and ``why_not``
where the table cannot be asked, with the others None.

Each looks at no more than `MOST_ROWS` decisions, so that it costs the same few seconds at any size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training import clustered
from training.clustered import Estimate
from training.nuisance import scores
from training.sample import sample, whole_deals
from training.uplift import cross_fit_for_judging

if TYPE_CHECKING:
    from features.decisions import DecisionTable

MOST_ROWS = 20_000
LEAST_ROWS = 400
LEAST_OF_EACH = 40
PERMUTATIONS = 3
PROGRESS = ("days_in_previous_stage", "days_open", "stage_moves")
"""Features that say how fast the deal has moved until now."""
_ALREADY = "already_involved"
_NO_CHANCE = "too few decisions in which either choice had a chance"


@dataclass(frozen=True)
class Machinery:
    """How an effect is estimated here: as for the judgement, on fewer decisions."""

    least_propensity: float = 0.05
    seed: int = 0
    n_jobs: int | None = None

    def average(self, X: pd.DataFrame, treatment: NDArray, outcome: NDArray, partners: NDArray) -> Estimate:
        """Doubly robust average effect where both choices had a chance, clustered by partner."""
        nuisances = cross_fit_for_judging(X, treatment, outcome, partners, self.seed, self.n_jobs)
        phi = scores(nuisances, treatment, outcome).doubly_robust
        e = nuisances.propensity
        open_choice = (e >= self.least_propensity) & (e <= 1 - self.least_propensity)
        return clustered.mean(phi[open_choice], partners[open_choice])


def falsify(decisions: DecisionTable, machinery: Machinery) -> dict[str, dict[str, Any]]:
    """All three: ``placebo``, ``negative_control`` and ``future_involvement``."""
    return {
        "placebo": placebo(decisions, machinery),
        "negative_control": negative_control(decisions, machinery),
        "future_involvement": future_involvement(decisions, machinery),
    }


def placebo(
    decisions: DecisionTable, machinery: Machinery, permutations: int = PERMUTATIONS
) -> dict[str, Any]:
    """Effect of choices dealt out anew at random, within partner and stage: nothing, if the method is sound.

    Everything is learned anew, nuisances too. Keys beside those of every question: ``tries`` (an estimate
    each), ``held`` (how many of them contain zero). ``estimate`` is the first; it ``holds`` if most do.

    Notes
    -----
    This tests the machinery, not the assumptions: an effect made up by the folds, the scores or the
    intervals would show. A hidden factor would not, since dealing anew cuts its tie to the choice.
    """
    what = "Choices dealt out anew at random among a partner's decisions in the same stage"
    some = sample(decisions, MOST_ROWS, machinery.seed)
    within = _strata(some)
    n = len(some)
    if n < LEAST_ROWS:
        return _unasked(what, n, f"{n:,} decisions are too few")
    rng = np.random.default_rng(machinery.seed)
    tries: list[Estimate] = []
    for _ in range(permutations):
        dealt = _permuted(some.treatment, within, rng)
        tries.append(machinery.average(some.X, dealt, some.outcome, some.groups))
    if not all(np.isfinite(each.se) for each in tries):
        return _unasked(what, n, _NO_CHANCE)
    held = sum(each.contains(0) for each in tries)
    return _answer(what, tries[0], n) | {
        "holds": 2 * held > permutations,
        "held": held,
        "tries": [each.to_dict() for each in tries],
    }


def negative_control(decisions: DecisionTable, machinery: Machinery) -> dict[str, Any]:
    """Effect of the choice on how quickly the stage before it was passed: nothing, since it came after.

    Asked of decisions that are not the first of their deal. Adjusted for everything on record at the
    decision but the deal's own pace (`PROGRESS`), which is the outcome here.

    Notes
    -----
    A negative control outcome (Lipsitch, Tchetgen Tchetgen & Cohen 2010). It fails where people choose by
    something that also moved the deal before: the pace itself, which is on record and adjusted for
    elsewhere, or what lies behind the pace and is not. The figure cannot tell the two apart.
    """
    what = "The stage before the decision was passed quicker than usual"
    if decisions.about.get("kind") != "crm":
        return _unasked(what, 0, "it is not known which columns of a flat file carry the deal's past pace")
    pairs = _consecutive(decisions, machinery.seed)
    later = pairs.later
    X = later.X.drop(columns=[name for name in PROGRESS if name in later.X])
    return _asked(what, X, later.treatment, pairs.quick, later.groups, machinery)


def future_involvement(decisions: DecisionTable, machinery: Machinery) -> dict[str, Any]:
    """Whether deals that the vendor joins next had moved quicker, or slower, before: they should not have.

    Asked of deals that the vendor had not been on, from one decision to the next. Adjusted for what was
    on record at the earlier one, before the pace that is compared.

    Notes
    -----
    A test for trends before treatment. Its outcome is that of `negative_control`; it differs in that
    nothing recorded in between is adjusted for, so that nothing the pace itself had changed is taken out.
    """
    what = "Deals not joined so far: those joined next had moved quicker than usual before"
    if decisions.rows["decided_at"].isna().any():
        return _unasked(what, 0, "the decisions have no dates")
    pairs = _consecutive(decisions, machinery.seed, fresh_only=True)
    earlier = pairs.earlier
    return _asked(what, earlier.X, pairs.later.treatment, pairs.quick, earlier.groups, machinery)


@dataclass(frozen=True)
class _Pairs:
    """Decisions of one deal that follow each other: row i of each belongs together."""

    earlier: DecisionTable
    later: DecisionTable
    quick: NDArray[np.float64]
    """1 where less time lay between them than usual after the earlier one's stage."""


def _consecutive(decisions: DecisionTable, seed: int, fresh_only: bool = False) -> _Pairs:
    """Pairs of at most `MOST_ROWS` decisions and their next; `fresh_only`: with no vendor until the next."""
    decisions = sample(decisions, 4 * MOST_ROWS, seed)
    rows = decisions.rows
    order = np.lexsort((rows["decided_at"].to_numpy(), rows["deal_id"].to_numpy(dtype=str)))
    deal, when = rows["deal_id"].to_numpy()[order], rows["decided_at"].to_numpy()[order]
    follows = (deal[1:] == deal[:-1]) & (when[1:] > when[:-1])
    first, second = order[:-1][follows], order[1:][follows]
    gap = pd.Series((when[1:] - when[:-1])[follows].astype("timedelta64[s]").astype(float))
    usual = gap.groupby(rows["stage"].fillna("").to_numpy()[first]).transform("median")
    quick = (gap < usual).to_numpy(dtype=float)
    kept = _untouched(decisions, first, second) if fresh_only else np.ones(len(first), dtype=bool)
    kept[kept] = whole_deals(rows["deal_id"].iloc[first[kept]], MOST_ROWS, seed)
    return _Pairs(decisions.take(first[kept]), decisions.take(second[kept]), quick[kept])


def _untouched(decisions: DecisionTable, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray:
    """Whether no vendor had been on the deal until the second decision, as far as the table says."""
    untouched = ~decisions.treatment[first]
    if _ALREADY in decisions.X:
        untouched &= ~decisions.X[_ALREADY].fillna(False).to_numpy(dtype=bool)[second]
    return untouched


def _strata(decisions: DecisionTable) -> NDArray[np.int64]:
    """Code of each decision's partner and stage; decisions without either share one."""
    rows = decisions.rows
    keys = rows["partner_id"].fillna("") + "\0" + rows["stage"].fillna("")
    return pd.factorize(keys, sort=True)[0].astype(np.int64)


def _permuted(
    treatment: NDArray[np.bool_], within: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """The same choices, in another order inside each stratum."""
    dealt = np.empty_like(treatment)
    places = np.argsort(within, kind="stable")
    dealt[places] = treatment[np.lexsort((rng.random(len(within)), within))]
    return dealt


def _asked(
    what: str,
    X: pd.DataFrame,
    treatment: NDArray[np.bool_],
    outcome: NDArray[np.float64],
    partners: NDArray,
    machinery: Machinery,
) -> dict[str, Any]:
    n = len(outcome)
    counts = np.bincount(2 * treatment.astype(int) + (outcome > 0), minlength=4)
    if n < LEAST_ROWS or counts.min() < LEAST_OF_EACH:
        return _unasked(what, n, f"{n:,} such decisions are too few, or nearly all alike")
    return _answer(what, machinery.average(X, treatment, outcome, partners), n)


def _answer(what: str, estimate: Estimate, n: int) -> dict[str, Any]:
    known = bool(np.isfinite(estimate.se))
    return {
        "what": what,
        "n": n,
        "estimate": estimate.to_dict() if known else None,
        "holds": estimate.contains(0) if known else None,
        "why_not": None if known else _NO_CHANCE,
    }


def _unasked(what: str, n: int, why_not: str) -> dict[str, Any]:
    return {"what": what, "n": n, "estimate": None, "holds": None, "why_not": why_not}

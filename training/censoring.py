"""Deals that the vendor joined later, weighted away: for "now against not within the horizon".

A decision to step back whose deal was joined later, before its outcome was known, does not show what not
helping brings. It is censored when the vendor comes. Those that were not joined stand for it, each weighted
by the inverse of its chance to have stayed alone until its outcome was known, at its closing or at the
horizon's end: inverse probability of censoring (Robins & Finkelstein 2000; Hernán & Robins, "Causal
inference: what if", chapters 12 and 21).

The chance comes from one pooled model of the rate at which vendors join, over periods of the deals' time
from decision to decision. It sees what the deal's latest decision saw (its stage, and whatever else changes),
so a stage that draws vendors and wins deals does not bias the rest.

Assumption that no test can check: among deals alike in what was on record at their latest decision, those
joined next would have fared, left alone, as those that were not. Between decisions nothing new is seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from features.problems import UserError
from training.basis import Array
from training.checks import check_targets
from training.columns import ColumnKinds, as_frame, codes_of
from training.folds import grouped_folds
from training.nuisance import boosting_settings, thinned
from training.rows import MOST_NUISANCE_LEVELS, read_rows

if TYPE_CHECKING:
    from features.decisions import DecisionTable

# What each outcome of a table counts for, shape (n,); None is 1 for all.
Weights = Callable[["DecisionTable"], Array | None]

MOST_WEIGHT = 20.0
"""Larger weights are cut to it: so few deals like that were left alone that a handful would decide."""
_N_FOLDS = 3
_SHORTEST_DAYS = 1 / 24
_CHUNK = 500_000
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Censoring:
    """What each outcome counts for where later joiners are weighted away."""

    weight: pd.Series
    """By decision: 1 where the vendor stepped in, 0 where it came later, before the outcome was known; 1 or
    more for the others."""
    n_controls: int
    """Decisions to step back."""
    n_joined_later: int
    """Of these, with weight 0."""
    clipped_share: float
    """Of those left alone, with weights cut to `MOST_WEIGHT`."""
    largest: float
    """Largest weight before it was cut."""
    effective: float
    """So many equally weighted decisions say as much as those left alone do (Kish 1965)."""

    def of(self, decisions: DecisionTable) -> Array:
        """Weights of some of the decisions, shape (n,)."""
        weight: Array = self.weight.reindex(decisions.rows.index).to_numpy(dtype=float)
        return weight

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the weights."""
        return {
            "controls": self.n_controls,
            "joined_later": self.n_joined_later,
            "clipped_share": self.clipped_share,
            "largest_weight": self.largest,
            "most_weight": MOST_WEIGHT,
            "effective_controls": self.effective,
        }


def all_alike(_decisions: DecisionTable) -> None:
    """Count every outcome once: what came of a choice, whatever was chosen later."""


def is_asked(decisions: DecisionTable) -> bool:
    """Whether the decisions ask for "now against not within the horizon"."""
    return decisions.about.get("against", "wait") == "never"


def weigh(decisions: DecisionTable, seed: int = 0, n_jobs: int | None = None) -> Censoring:
    """Weights of all decisions, from models that never saw a row of their partner.

    Raises
    ------
    UserError
        The table does not say when deals were joined later, or every control was.
    """
    _refuse_unknown(decisions)
    grace, horizon = float(decisions.about["grace_days"]), float(decisions.about["horizon_days"])
    frame = as_frame(decisions.X)
    treated, outcome, _ = check_targets(len(frame), decisions.treatment, decisions.outcome)
    kinds, partners = ColumnKinds.of(frame), codes_of(decisions.groups)
    rows = read_rows(frame, kinds, MOST_NUISANCE_LEVELS, treated, outcome, partners, None)
    matrix, is_code = rows.nuisance_matrix()
    times = _times(decisions, rows.order, horizon)
    periods = _periods(times, grace, horizon)
    rate = _joining_rate(_Told(times, periods, matrix, is_code), rows.groups, seed, n_jobs)
    lonely = np.exp(_rate_until_known(times, periods, rate, grace))
    return _as_censoring(times, rows.as_given(lonely), rows.order, decisions.rows.index)


def _refuse_unknown(decisions: DecisionTable) -> None:
    known = {"decided_at", "closed_at", "joined_later_at"} <= set(decisions.rows)
    if not known or decisions.rows["decided_at"].isna().any():
        raise UserError(
            "The decisions ask for 'now against not within the horizon', but do not say when each was made, "
            "closed, and joined later; build them anew with 'stepin features'."
        )


@dataclass(frozen=True)
class _Times:
    """Decisions sorted by deal and time; times in days since the first decision. Shapes (n,)."""

    row: NDArray[np.intp]
    """Where each stands in canonical order."""
    deal: Ints
    decided: Array
    known: Array
    """When the outcome is known: at closing, or the horizon's end."""
    closed: Array
    joined: Array
    """When the vendor came later; infinite where it did not."""
    treated: NDArray[np.bool_]
    first: Array
    """When the deal's first decision was made."""
    unseen_from: float
    """From when on stages that were entered are too young to be decisions."""

    @property
    def censored(self) -> NDArray[np.bool_]:
        """Left alone in the window, and joined before the outcome was known."""
        return ~self.treated & (self.joined < self.known)


def _times(decisions: DecisionTable, order: NDArray[np.intp], horizon: float) -> _Times:
    table = decisions.rows.iloc[order]
    start = table["decided_at"].min()
    deal, decided = pd.factorize(table["deal_id"])[0].astype(np.int64), _days(table["decided_at"], start)
    row = np.lexsort((decided, deal))
    table, deal, decided = table.iloc[row], deal[row], decided[row]
    closed = _days(table["closed_at"], start)
    exported = pd.to_datetime(pd.Series([decisions.about.get("exported_at")]), utc=True)
    return _Times(
        row=row,
        deal=deal,
        decided=decided,
        known=np.minimum(closed, decided + horizon),
        closed=closed,
        joined=_days(table["joined_later_at"], start),
        treated=table["stepped_in"].to_numpy(dtype=bool),
        first=pd.Series(decided).groupby(deal).transform("min").to_numpy(),
        unseen_from=float(_days(exported, start)[0] - horizon),
    )


def _days(times: pd.Series, start: pd.Timestamp) -> Array:
    days = ((times - start) / pd.Timedelta(days=1)).to_numpy(dtype=float)
    return np.where(np.isnan(days), np.inf, days)


@dataclass(frozen=True)
class _Periods:
    """Stretches of time in which an unhelped deal could be joined, sorted by deal and time. Shapes (m,)."""

    decision: Ints
    """The deal's latest decision, by its place in `_Times`."""
    start: Array
    days: Array
    """At risk: until the vendor comes, the deal closes, or the period ends."""
    joined: NDArray[np.bool_]


def _periods(times: _Times, grace: float, horizon: float) -> _Periods:
    """Cut the deals' time into periods of `grace` days, anew from each decision on.

    A decision's own window is a period if the deal came to it unhelped; after the window come the others,
    if the window passed without help, until the vendor comes, the next decision, the closing or the
    horizon's end.
    """
    n = len(times.decided)
    same = np.append(times.deal[1:] == times.deal[:-1], False)
    following = np.where(same, np.append(times.decided[1:], np.inf), np.inf)
    follows = np.insert(same[:-1], 0, False) if n else same
    before_joined = np.where(follows, np.insert(times.joined[:-1], 0, np.inf)[:n], np.inf)
    before_window = np.where(follows, np.insert(times.decided[:-1], 0, 0.0)[:n] + grace, np.inf)
    alone = follows & ~np.insert(times.treated[:-1], 0, True)[:n] & (before_joined >= times.decided)
    window_end = times.decided + grace
    start = np.maximum(times.decided, before_window)
    own = _cut(np.flatnonzero(alone), start, np.minimum(window_end, times.closed), before_joined)
    last = np.minimum(np.minimum(following, times.closed), times.decided + horizon)
    many = np.ceil(np.maximum(last - window_end, 0.0) / grace).astype(np.int64)
    many[times.treated] = 0
    at = np.repeat(np.arange(n), many)
    number = np.arange(len(at)) - np.repeat(np.cumsum(many) - many, many)
    begins = window_end[at] + grace * number
    later = _cut(at, begins, np.minimum(begins + grace, last[at]), times.joined[at], whole=True)
    both = [np.concatenate(pair) for pair in zip(own, later, strict=True)]
    order = np.lexsort((both[1], times.deal[both[0]]))
    return _Periods(*(part[order] for part in both))


def _cut(
    at: Ints, start: Array, end: Array, joined: Array, whole: bool = False
) -> tuple[Ints, Array, Array, NDArray[np.bool_]]:
    """Periods of decisions `at`, ended when the vendor comes; those that begin after that are dropped."""
    begins, ends, comes = (start, end, joined) if whole else (start[at], end[at], joined[at])
    kept = (begins < ends) & (comes >= begins)
    at, begins, ends, comes = at[kept], begins[kept], ends[kept], comes[kept]
    is_joined = comes <= ends
    return at, begins, np.where(is_joined, comes, ends) - begins, is_joined


@dataclass(frozen=True)
class _Told:
    """What the model of joining is told of each period."""

    times: _Times
    periods: _Periods
    matrix: NDArray[Any]
    """Of the decisions in canonical order."""
    is_code: list[bool]

    def rows(self, chosen: NDArray[np.intp]) -> NDArray[Any]:
        """Features of the latest decision; days since it, and since the first; whether later ones hide."""
        at, start = self.periods.decision[chosen], self.periods.start[chosen]
        since = np.column_stack(
            [start - self.times.decided[at], start - self.times.first[at], start > self.times.unseen_from]
        )
        return np.hstack([self.matrix[self.times.row[at]], since.astype(np.float32)])

    @property
    def codes(self) -> list[bool]:
        """Which columns are codes of levels."""
        return [*self.is_code, False, False, False]


def _joining_rate(told: _Told, groups: Ints, seed: int, n_jobs: int | None) -> Array:
    """Joins per day in each period, from models that saw no row of its partner, shape (m,).

    A rate that is constant within a period, fitted as a Poisson regression of joins per day with the days
    at risk as weights: the discrete-time hazard, with periods cut short counting for what they were.
    """
    periods = told.periods
    partner = groups[told.times.row[periods.decision]]
    rate = np.zeros(len(partner))
    if not periods.joined.any():
        return rate
    fold = grouped_folds(groups, _N_FOLDS)[told.times.row[periods.decision]]
    done = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(_fit_rate)(told, fold, number, seed) for number in range(_N_FOLDS)
    )
    for number, predicted in enumerate(done):
        rate[fold == number] = predicted
    return rate


def _fit_rate(told: _Told, fold: Ints, number: int, seed: int) -> Array:
    periods, new = told.periods, np.flatnonzero(fold == number)
    learned = thinned(fold != number)
    joins, days = periods.joined[learned].astype(float), np.maximum(periods.days[learned], _SHORTEST_DAYS)
    if not joins.any():
        return np.zeros(len(new))
    settings = boosting_settings(len(periods.days), len(learned), told.codes, seed)
    model = HistGradientBoostingRegressor(loss="poisson", **settings)
    with threadpool_limits(1, user_api="openmp"):  # waiting threads spin, and starve each other
        model.fit(told.rows(learned), joins / days, sample_weight=days)
        parts = [new[k : k + _CHUNK] for k in range(0, len(new), _CHUNK)]
        return np.concatenate([np.zeros(0), *(model.predict(told.rows(part)) for part in parts)])


def _rate_until_known(times: _Times, periods: _Periods, rate: Array, grace: float) -> Array:
    """Sum of rate times days from each window's end until the outcome is known, in canonical order (n,)."""
    span = float(np.max(times.decided)) + 2 * float(np.max(times.known - times.decided)) + grace
    key = times.deal[periods.decision] * span + periods.start
    total = np.cumsum(rate * periods.days)
    knots = np.column_stack([key, key + periods.days]).ravel()
    heights = np.column_stack([total - rate * periods.days, total]).ravel()
    if not len(knots):
        return np.zeros(len(times.deal))
    starts, ends = (times.deal * span + when for when in (times.decided + grace, times.known))
    out = np.empty(len(times.deal))
    out[times.row] = np.maximum(np.interp(ends, knots, heights) - np.interp(starts, knots, heights), 0.0)
    return out


def _as_censoring(times: _Times, lonely: Array, order: NDArray[np.intp], index: pd.Index) -> Censoring:
    """Weights of the decisions as given; `lonely` is the inverse chance to have stayed alone, as given."""
    place = order[times.row]
    treated, censored = np.empty(len(place), dtype=bool), np.empty(len(place), dtype=bool)
    treated[place], censored[place] = times.treated, times.censored
    alone = ~treated & ~censored
    if not alone.any():
        raise UserError(
            "Every deal that was left alone was joined later; nothing shows what not helping brings. "
            "Ask for 'now against wait' instead."
        )
    weight = np.where(alone, np.minimum(lonely, MOST_WEIGHT), np.where(treated, 1.0, 0.0))
    own = weight[alone]
    return Censoring(
        pd.Series(weight, index=index),
        int((~treated).sum()),
        int(censored.sum()),
        float(np.mean(lonely[alone] > MOST_WEIGHT)),
        float(lonely[alone].max()),
        float(own.sum() ** 2 / (own @ own)),
    )

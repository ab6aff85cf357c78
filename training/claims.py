"""What simpler comparisons would have claimed, and how much of that is waiting time and picking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from training import clustered
from training.clustered import Estimate

_EVER = (
    "Deals the vendor ever joined against deals it never joined",
    "A deal that lives long has more time to be joined, and has survived until then. And the vendor picks.",
)
_NAIVE = (
    "Decisions where the vendor stepped in against decisions where it did not",
    "Nobody gets credit for having waited any more, but the vendor still picks its deals.",
)
_ADJUSTED = (
    "The same, among deals alike in all that was on record",
    "Right only if everything that moved both the choice and the outcome was on record.",
)


@dataclass(frozen=True)
class Claim:
    """What one way of comparing would have claimed."""

    what: str
    why_wrong: str
    estimate: Estimate

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"what": self.what, "why_wrong": self.why_wrong, "estimate": self.estimate.to_dict()}


def compare_claims(
    treatment: ArrayLike,
    outcome: ArrayLike,
    phi: ArrayLike,
    groups: ArrayLike,
    deals: ArrayLike | None = None,
    ever: Estimate | None = None,
) -> tuple[Claim, ...]:
    """Claims from the most naive comparison to the adjusted one; the last is the adjusted average.

    Parameters
    ----------
    treatment, outcome : what was done and what came of it, shape (n,), a decision each
    phi : doubly robust scores (n,)
    groups : partner of each decision (n,)
    ever : `ever_against_never` of all closed deals, where it is known
    deals : deal of each decision (n,), from which it is made otherwise; without either it is left out

    Notes
    -----
    From the first to the second the difference is waiting time: a deal that lives long has more moments at
    which it can be joined, and has survived (immortal time; Suissa 2008; Hernán & Robins 2016). From the
    second to the last it is confounding: the vendor picks its deals.
    """
    if ever is None and deals is not None:
        ever = _of_decisions(treatment, outcome, groups, deals)
    steps = [] if ever is None else [Claim(*_EVER, ever)]
    naive = clustered.difference(outcome, treatment, groups)
    return (*steps, Claim(*_NAIVE, naive), Claim(*_ADJUSTED, clustered.mean(phi, groups)))


def ever_against_never(about: Mapping[str, Any]) -> tuple[Estimate, dict[str, int]] | None:
    """The comparison that an analyst would make first: closed deals ever joined against never joined.

    Parameters
    ----------
    about : of a decision table; `about["ever_against_never"]["partners"]` holds a row for each partner: deals
        joined, won of these, deals never joined, won of these

    Returns
    -------
    tuple or None
        The difference of the shares won, clustered by partner; and the counts joined, won_joined, left and
        won_left. None where the table does not say, or one of the two has no deals.
    """
    counts = np.asarray((about.get("ever_against_never") or {}).get("partners") or [], dtype=np.int64)
    totals = counts.reshape(-1, 4).sum(axis=0)
    if not (totals[0] and totals[2]):
        return None
    names = ("joined", "won_joined", "left", "won_left")
    return clustered.difference_of_shares(counts), dict(zip(names, totals.tolist(), strict=True))


def _of_decisions(treatment: ArrayLike, outcome: ArrayLike, groups: ArrayLike, deals: ArrayLike) -> Estimate:
    rows = pd.DataFrame({"deal": deals, "joined": treatment, "outcome": outcome, "group": groups})
    table = rows.groupby("deal", observed=True).agg({"joined": "max", "outcome": "max", "group": "first"})
    return clustered.difference(
        table["outcome"].to_numpy(), table["joined"].to_numpy(dtype=bool), table["group"].to_numpy()
    )


def decompose(
    treatment: NDArray[np.bool_],
    outcome: NDArray[np.float64],
    phi: NDArray[np.float64],
    propensity: NDArray[np.float64],
    step_back: NDArray[np.float64],
    groups: ArrayLike,
) -> dict[str, Estimate]:
    """What the naive difference is made of; the parts add up to it exactly.

    Parameters
    ----------
    treatment, outcome, phi, groups : as in `compare_claims`
    propensity : P(step in), clipped away from 0 and 1, (n,)
    step_back : expected outcome if the vendor steps back, (n,)

    Returns
    -------
    dict
        adjusted: the average effect of all. baseline: how much more often the deals that the vendor joins
        would be won without it than those that it leaves alone. gain: how much more the joined ones gain
        from it than the average deal. NaN where one choice was never made.

    Notes
    -----
    E[Y | joined] - E[Y | left] = E[effect] + (E[Y0 | joined] - E[Y0 | left])
    + (E[effect | joined] - E[effect]), where the outcome that the joined ones would have had without the
    vendor, E[Y0 | joined], is estimated doubly robustly: the mean of
    (T mu0 + (1 - T) (Y - mu0) e / (1 - e)) / P(T = 1).
    """
    t = np.asarray(treatment, dtype=float)
    share = float(t.mean()) if len(t) else 0.0
    if share in (0.0, 1.0):
        nothing = clustered.from_influence(np.nan, np.zeros(len(t)), groups)
        return dict.fromkeys(("adjusted", "baseline", "gain"), nothing)
    helped, left = float(outcome[t == 1].mean()), float(outcome[t == 0].mean())
    back = t * step_back + (1 - t) * (outcome - step_back) * propensity / (1 - propensity)
    without = float(back.mean()) / share
    of_helped, of_left = t * (outcome - helped) / share, (1 - t) * (outcome - left) / (1 - share)
    of_without = (back - t * without) / share
    average = float(phi.mean())
    parts = {
        "adjusted": (average, phi - average),
        "baseline": (without - left, of_without - of_left),
        "gain": (helped - without - average, of_helped - of_without - (phi - average)),
    }
    return {name: clustered.from_influence(*part, groups) for name, part in parts.items()}

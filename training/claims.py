"""What simpler comparisons would have claimed, and how much of that is waiting time and picking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from numpy.typing import ArrayLike

from training import clustered
from training.clustered import Estimate

_EVER = (
    "Deals the vendor ever joined against deals it never joined",
    "Long deals have more moments at which they can be joined, and the vendor picks its deals.",
)
_NAIVE = (
    "Decisions where the vendor stepped in against decisions where it did not",
    "Moments are compared fairly, but the vendor still picks its deals.",
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
) -> tuple[Claim, ...]:
    """Claims from the most naive comparison to the adjusted one; the last is the adjusted average.

    Parameters
    ----------
    treatment, outcome : what was done and what came of it, shape (n,), a decision each
    phi : doubly robust scores (n,)
    groups : partner of each decision (n,)
    deals : deal of each decision (n,); without it there is no "ever against never"

    Notes
    -----
    From the first to the second the difference is waiting time: a deal that lives long has more moments at
    which it can be joined, and has survived (immortal time; Hernán & Robins 2016). From the second to the
    last it is confounding: the vendor picks its deals.
    """
    steps = [] if deals is None else [Claim(*_EVER, _ever_against_never(treatment, outcome, groups, deals))]
    naive = clustered.difference(outcome, treatment, groups)
    return (*steps, Claim(*_NAIVE, naive), Claim(*_ADJUSTED, clustered.mean(phi, groups)))


def _ever_against_never(
    treatment: ArrayLike, outcome: ArrayLike, groups: ArrayLike, deals: ArrayLike
) -> Estimate:
    rows = pd.DataFrame({"deal": deals, "joined": treatment, "outcome": outcome, "group": groups})
    table = rows.groupby("deal", observed=True).agg({"joined": "max", "outcome": "max", "group": "first"})
    return clustered.difference(
        table["outcome"].to_numpy(), table["joined"].to_numpy(dtype=bool), table["group"].to_numpy()
    )

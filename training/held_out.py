"""Decisions that no model saw before it answered them: what every judgement is made of."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.clustered import codes_of

Floats = NDArray[np.float64]


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
    """What came of it; or what stands in for that (`training.nuisance.reweighted`)."""
    groups: NDArray[Any]
    """Partner of each decision: the cluster."""
    amount: Floats | None = None
    deals: NDArray[Any] | None = None
    """Deal of each decision; with it, "ever involved against never" is shown too."""
    propensity: Floats | None = None
    step_back: Floats | None = None
    """Expected outcome if the vendor steps back, from the nuisances."""
    chance: Floats | None = None
    """The same as the judged model foretells it."""
    blocks: NDArray[np.int64] | None = None
    """Which model answered: predictions are ranked within a block only. One model where None."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            assert value is None or len(value) == len(self.phi), f"{field.name} has another length than phi"

    def take(self, mask: NDArray[np.bool_]) -> HeldOut:
        """Only the decisions where `mask` is true."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{k: np.asarray(v)[mask] for k, v in values.items() if v is not None})

    def coded(self) -> HeldOut:
        """The same with partners and deals as numbers, which every later sum is faster for."""
        deals = None if self.deals is None else codes_of(self.deals)
        return replace(self, groups=codes_of(self.groups), deals=deals)

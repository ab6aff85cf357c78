# ruff: noqa: D102 - the interface `Learner` says what they do
"""What a comparison asks of a learner; stepin itself, and the constant that it has to beat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.worlds import Decisions

Floats = NDArray[np.float64]
LEVEL = 0.9
_Z_90 = 1.6448536269514722


class Learner(Protocol):
    """What a comparison asks of a learner."""

    def fit(self, decisions: Decisions) -> None:
        """Learn; `uplift` and `propensity` of the decisions are not to be read."""

    def effect(self, X: pd.DataFrame) -> Floats:
        """Effects of shape (n,), in the outcome's unit."""

    def interval(self, X: pd.DataFrame) -> Floats | None:
        """90% intervals of shape (n, 2), or None where the package offers none of its own."""

    def one_row(self, X: pd.DataFrame) -> Callable[[], Any]:
        """A call that answers the one row of X, with its reasons where there are any; X made ready before."""


@dataclass(frozen=True)
class Entry:
    """A line of the comparison."""

    name: str
    make: Callable[[], Learner]
    settings: str
    reasons: str
    """What the one-row answer explains itself with; empty for nothing."""
    modules: tuple[str, ...] = ()
    """What it imports, so that an import's cost is not counted as learning."""


class Stepin:
    """`UpliftModel` as it comes."""

    def fit(self, decisions: Decisions) -> None:
        from training.uplift import UpliftModel

        self.model = UpliftModel()
        self.model.fit(
            decisions.X, decisions.treatment, decisions.outcome, decisions.groups, deals=decisions.deals
        )

    def effect(self, X: pd.DataFrame) -> Floats:
        return self.model.predict(X)

    def interval(self, X: pd.DataFrame) -> Floats | None:
        return self.model.predict_interval(X, LEVEL)

    def one_row(self, X: pd.DataFrame) -> Callable[[], Any]:
        values = {name: None if pd.isna(value) else value for name, value in X.iloc[0].items()}
        return lambda: self.model.scorecard_.evaluate_one(values)


class Constant:
    """The same effect for everybody: the cross-fitted doubly robust average."""

    def fit(self, decisions: Decisions) -> None:
        from training import clustered
        from training.nuisance import scores
        from training.uplift import cross_fit_for_judging

        d = decisions
        found = cross_fit_for_judging(d.X, d.treatment, d.outcome, d.deals, 0, None)
        score = scores(found, d.treatment, d.outcome).doubly_robust
        self.average = clustered.mean(score, d.groups)

    def effect(self, X: pd.DataFrame) -> Floats:
        return np.full(len(X), self.average.value)

    def interval(self, X: pd.DataFrame) -> Floats | None:
        half = _Z_90 * self.average.se
        return np.tile([self.average.value - half, self.average.value + half], (len(X), 1))

    def one_row(self, X: pd.DataFrame) -> Callable[[], Any]:  # noqa: ARG002
        return lambda: self.average.value

"""What a scorecard says: of many decisions as arrays, of one as words and numbers, of a term as a curve."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.basis import Array

Z_90 = 1.6448536269514722


@dataclass(frozen=True)
class Answers:
    """What the scorecard says of n decisions."""

    uplift: Array
    """Shape (n,), as a fraction (or in the outcome's unit)."""
    sd: Array
    """Shape (n,): standard deviation of what is not known about the uplift."""
    terms: Array
    """Shape (n, n_terms), columns in the order of ``Scorecard.term_names``."""
    win: Array
    """Shape (n, 2): expected outcome if the vendor steps back, and if it steps in."""
    propensity: Array
    supported: NDArray[np.bool_]
    similar: NDArray[np.int64]
    """Shape (n,): decisions learned from with the same levels of a few telling features."""
    outside: NDArray[np.int8]
    """Shape (n,): which of `OUTSIDE` rules the decision out, by position; -1 where it is supported."""


@dataclass(frozen=True)
class Contribution:
    """A term's part in one uplift, as a fraction."""

    term: str
    features: tuple[str, ...]
    uplift: float


@dataclass(frozen=True)
class Answer:
    """What the scorecard says of one decision; fractions."""

    uplift: float
    sd: float
    contributions: tuple[Contribution, ...]
    win_if_step_back: float
    win_if_step_in: float
    propensity: float
    supported: bool
    similar_decisions: int
    missing: tuple[str, ...]
    unseen: tuple[str, ...]

    @property
    def lo(self) -> float:
        """Low end of the 90% interval."""
        return self.uplift - Z_90 * self.sd

    @property
    def hi(self) -> float:
        """High end of the 90% interval."""
        return self.uplift + Z_90 * self.sd


@dataclass(frozen=True)
class TermTable:
    """One feature's part in the uplift, for people to look at."""

    term: str
    kind: str
    xs: list[float] | list[str]
    points: list[float]
    """Uplift as a fraction, one for each of `xs`."""
    importance: float
    """Standard deviation of the term over the decisions learned from."""

"""What the figures amount to, in one sentence that a sales lead understands."""

from __future__ import annotations

import math

from training.clustered import Estimate

DIFFERING = "differing"
AVERAGE_ONLY = "average_only"
NOT_ENOUGH = "not_enough"


def evidence_for(average: Estimate, differs: bool, needed: float) -> str:
    """Name what the held-out decisions show: ``differing``, ``average_only`` or ``not_enough``.

    Parameters
    ----------
    average : average uplift
    differs : were effects that differ between decisions shown?
    needed : the uplift that pays for stepping in, in the same unit

    Notes
    -----
    Not enough is an interval that holds both no effect and one that pays. A precise zero is an answer.
    """
    if differs:
        return DIFFERING
    undecided = average.contains(0) and average.contains(needed)
    return NOT_ENOUGH if undecided or not math.isfinite(average.se) else AVERAGE_ONLY


def verdict(evidence: str, average: Estimate, gains: dict[str, Estimate], outcome: str) -> str:
    """One sentence for a sales lead; `gains` as in `Evaluation.gain`."""
    if not math.isfinite(average.se):
        seen = f"{average.n} comparable held-out decisions{_spread(average)}"
        return f"The evidence is not enough: {seen}."
    mean = f"{amount(average.value, outcome)} ({span(average, outcome)})"
    what = "the chance of winning" if outcome == "binary" else "the outcome"
    if evidence == DIFFERING:
        worth = min((gains[name] for name in ("always", "never")), key=lambda gain: gain.value)
        return (
            f"Stepping in helps some deals more than others: {mean} on average, and following the advice "
            f"gains {amount(worth.value, outcome)} per decision ({span(worth, outcome)}) over the better "
            "of always and never."
        )
    if evidence == AVERAGE_ONLY:
        return (
            f"Stepping in changes {what} by {mean} on average; on deals that it had not seen, the model "
            "did not beat that one number for all, so the advice rests on the average alone."
        )
    return (
        f"The evidence is not enough: stepping in changes {what} by {mean} on average over {average.n} "
        f"decisions{_spread(average)}, which leaves open whether it pays."
    )


def _spread(average: Estimate) -> str:
    """How many partners the decisions come from, where they are known."""
    return "" if average.n_groups == average.n > 0 else f" of {average.n_groups} partners"


def amount(value: float, outcome: str) -> str:
    """Effect as people read it: ``+2.3 points``, or ``+1,200`` in a numeric outcome's own unit."""
    return f"{_signed(value, outcome)} points" if outcome == "binary" else _signed(value, outcome)


def span(estimate: Estimate, outcome: str) -> str:
    """Interval as people read it: ``95% interval -1.0 to +5.6``."""
    return f"95% interval {_signed(estimate.lo, outcome)} to {_signed(estimate.hi, outcome)}"


def _signed(value: float, outcome: str) -> str:
    """Number with its sign, and no sign where it rounds to nothing."""
    if outcome == "binary":
        text = f"{100 * value:+.1f}"
    else:
        text = f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}"
    return text.lstrip("+-") if float(text.replace(",", "")) == 0 else text

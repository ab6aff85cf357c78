"""Whether there is enough to learn from, before anything is learned."""

import numpy as np
from numpy.typing import NDArray

from features.decisions import DecisionTable
from features.problems import UserError
from training.enough import LEAST_OUTCOMES, LEAST_PARTNERS, counts_of, look, more_like_these
from training.separation import open_choice

LEAST_HELD_OUT = 10

__all__ = ["NotEnoughEvidenceError", "look", "refuse_no_overlap", "refuse_too_little", "refuse_unjudgeable"]


class NotEnoughEvidenceError(UserError):
    """Too few decisions of some kind: no honest model can come of them."""


def refuse_too_little(decisions: DecisionTable, least_outcomes: int = LEAST_OUTCOMES) -> None:
    """Refuse decisions that cannot be compared.

    Raises
    ------
    NotEnoughEvidenceError
        Fewer than ten partners, where partners are known; fewer than `least_outcomes` won, or lost, with
        the vendor or without; for numeric outcomes fewer than twice that in either arm. Counts are named.
    """
    partners = decisions.rows["partner_id"].nunique()
    if 0 < partners < LEAST_PARTNERS:
        raise NotEnoughEvidenceError(
            f"The evidence is not enough to advise on: it comes from {partners} "
            f"partner{'s' if partners > 1 else ''}; at least {LEAST_PARTNERS} are needed to tell an effect "
            "from a partner's habits. Nothing was written."
        )
    least, seen = _fewer_than(decisions, least_outcomes)
    if seen:
        more = more_like_these(decisions, least)
        enough = f": about {more:,} more decisions like these" if more else ""
        raise NotEnoughEvidenceError(
            f"The evidence is not enough to advise on: {len(decisions):,} decisions, {seen}; "
            f"at least {least} of each are needed. Nothing was written. Bring more past deals{enough}."
        )


def refuse_unjudgeable(held_out: DecisionTable, least_outcomes: int = LEAST_HELD_OUT) -> None:
    """Refuse held-out decisions on which no model could be judged.

    Raises
    ------
    NotEnoughEvidenceError
        As `refuse_too_little`, for what is judged: the newer deals, or some of the partners.
    """
    least, seen = _fewer_than(held_out, least_outcomes)
    if seen:
        raise NotEnoughEvidenceError(
            f"The evidence is not enough to judge a model on: {len(held_out):,} decisions were "
            f"set aside for that, {seen}; at least {least} of each are needed. "
            "Nothing was written. Are the dates right, and did both happen lately?"
        )


def _fewer_than(decisions: DecisionTable, least_outcomes: int) -> tuple[int, str | None]:
    """How many of each kind are needed; and the counts in words where some kind has fewer."""
    counts = counts_of(decisions)
    binary = decisions.about.get("outcome", "binary") == "binary"
    least = least_outcomes if binary else 2 * least_outcomes
    if min(counts.values()) >= least:
        return least, None
    return least, ", ".join(f"{n:,} {what}" for what, n in counts.items())


def refuse_no_overlap(
    decisions: DecisionTable, propensity: NDArray[np.float64], least_propensity: float = 0.05, seed: int = 0
) -> None:
    """Refuse decisions whose choice is settled by what is on record: no deal with help has a like without.

    Parameters
    ----------
    propensity : out-of-fold chance of stepping in of each decision, shape (n,)
    least_propensity : within this and 1 - this a choice looks open

    Raises
    ------
    NotEnoughEvidenceError
        What is on record foretells the choice: `OpenChoice.is_settled`. The share of decisions that could
        have gone either way and the feature that decides are named.

    Notes
    -----
    Overlap in a part is enough: what lies outside gets no advice. Rarely, or nearly always, stepping in is
    not refused here as long as nobody can tell when.
    """
    treated = decisions.treatment
    deals = decisions.rows["deal_id"]
    seen = open_choice(decisions.X, treated, propensity, deals, least_propensity=least_propensity, seed=seed)
    share = max(seen.share_open, 0.001)
    if seen.is_settled:
        raise NotEnoughEvidenceError(
            "The evidence is not enough to advise on: who gets help is settled by what is on record, above "
            f"all by '{seen.decided_by}'. At most {share:.1%} of {seen.n:,} decisions could "
            "have gone either way; the others have no like with the other choice, and no method can make "
            "one. Nothing was written. Bring decisions from a time, or from partners, where such deals went "
            f"both ways; if '{seen.decided_by}' only records the choice, leave it out."
        )

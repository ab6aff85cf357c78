"""Whether there is enough to learn from, before anything is learned."""

import numpy as np

from features.decisions import DecisionTable
from features.problems import UserError

LEAST_OUTCOMES = 40
LEAST_PARTNERS = 10
LEAST_HELD_OUT = 10


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
        raise NotEnoughEvidenceError(
            f"The evidence is not enough to advise on: {len(decisions):,} decisions, {seen}; "
            f"at least {least} of each are needed. Nothing was written. Bring more past deals."
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
    treated, outcome = decisions.treatment, decisions.outcome
    if decisions.about.get("outcome", "binary") == "binary":
        counts = {
            "won with the vendor": int(np.sum(treated & (outcome == 1))),
            "lost with the vendor": int(np.sum(treated & (outcome == 0))),
            "won without": int(np.sum(~treated & (outcome == 1))),
            "lost without": int(np.sum(~treated & (outcome == 0))),
        }
        least = least_outcomes
    else:
        counts = {"with the vendor": int(treated.sum()), "without": int((~treated).sum())}
        least = 2 * least_outcomes
    if min(counts.values()) >= least:
        return least, None
    return least, ", ".join(f"{n:,} {what}" for what, n in counts.items())

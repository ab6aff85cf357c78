"""Whether there is enough to learn from, before anything is learned."""

import numpy as np

from features.decisions import DecisionTable
from features.problems import UserError

LEAST_OUTCOMES = 40
LEAST_PARTNERS = 10


class NotEnoughEvidenceError(UserError):
    """Too few decisions of some kind: no honest model can come of them."""


def refuse_too_little(decisions: DecisionTable, least_outcomes: int = LEAST_OUTCOMES) -> None:
    """Refuse decisions that cannot be compared.

    Raises
    ------
    NotEnoughEvidenceError
        Fewer than `least_outcomes` won, or lost, with the vendor or without; for numeric outcomes fewer
        than twice that in either arm. The counts are named.
    """
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
    if min(counts.values()) < least:
        seen = ", ".join(f"{n} {what}" for what, n in counts.items())
        raise NotEnoughEvidenceError(
            f"The evidence is not enough to advise on: {len(outcome)} decisions, {seen}; "
            f"at least {least} of each are needed. Nothing was written. Bring more past deals."
        )

"""The journal's columns: serving writes them, training reads them like any other table.

They stand on this floor so that learning from the journal needs nothing of the server's.
"""

ANSWER_COLUMNS: tuple[str, ...] = (
    "recommendation_id",
    "deal_id",
    "asked_at",
    "as_of",
    "stage",
    "advice",
    "default_action_applied",
    "score",
    "uplift",
    "uplift_low",
    "uplift_high",
    "break_even",
    "chance",
    "model_name",
    "model_version",
    "model_digest",
    "role",
    "facts",
    "asked_by",
)
"""One answer. ``uplift``, its interval and ``break_even`` are fractions, ``score`` is 0 to 100, ``chance``
the probability with which this advice was given (1 unless exploring), ``role`` served or shadow, ``facts``
the JSON text of the features used, ``asked_by`` a key's id or anonymous. Times are UTC."""

OUTCOME_COLUMNS: tuple[str, ...] = (
    "outcome_id",
    "deal_id",
    "outcome",
    "closed_at",
    "received_at",
    "sent_by",
)
"""What happened to a deal: ``outcome`` is won, lost or open (open again)."""

OVERRIDE_COLUMNS: tuple[str, ...] = (
    "override_id",
    "recommendation_id",
    "deal_id",
    "decided",
    "reason",
    "received_at",
    "sent_by",
)
"""A person decided otherwise: ``decided`` is step_in or step_back, ``reason`` their own words."""

JOINED_COLUMNS: tuple[str, ...] = (
    *ANSWER_COLUMNS,
    "outcome",
    "closed_at",
    "outcome_received_at",
    "override_decided",
    "override_reason",
    "override_received_at",
)
"""One answer with what came of it, as `stepin journal export` writes it: the deal's newest outcome, and the
newest override of the answer. Missing where none came."""

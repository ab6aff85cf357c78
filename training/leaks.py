"""The leakage audit of a decision table, before anything is learned from it."""

from collections.abc import Collection
from dataclasses import replace

from features import catalog
from features.decisions import DecisionTable
from features.leakage import allowed_before, audit_columns


def audited(decisions: DecisionTable, allow: Collection[str] = ()) -> DecisionTable:
    """Return the decisions with all that was found in ``about["audit"]``; refuse the blatant.

    Parameters
    ----------
    allow : columns to keep although they know the future: a person has looked

    Raises
    ------
    LeakageError
        A feature knows the future, and nobody allowed it: it is named, and why.

    Notes
    -----
    A flat table was audited as it was read, on the same columns. Of CRM tables the columns were audited as
    they stood at closing; here the features are, as of the moments.
    """
    about = decisions.about
    if about["kind"] == "flat" and "audit" in about:
        return decisions
    before = allowed_before(about)
    audit = audit_columns(
        decisions.features,
        decisions.outcome,
        decisions.treatment,
        (*allow, *before),
        deals=decisions.rows["deal_id"],
        also_known=[*before, *allow],
        as_of=catalog.names() if about["kind"] == "crm" else (),
    )
    audit.refuse(" of the tables")
    known = {found["column"]: found for found in [*audit.to_list(), *(about.get("audit") or [])]}
    return replace(decisions, about=about | {"audit": list(known.values())})

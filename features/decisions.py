"""The target trial: who could be stepped in on, when, who was, and what came of it."""

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pandas as pd

from features.as_of import NEVER, EventLog, microseconds
from features.build import build_features, open_deals
from features.decision_table import DecisionTable, FlowStep, drop_columns_that_say_nothing, refuse_one_valued
from features.problems import UserError
from features.stages import stage_order
from features.tables import Tables

__all__ = ["DecisionTable", "FlowStep", "build_decisions", "open_decisions"]

FEWEST_PARTNERS = 10
GRACE_DAYS = 14
HORIZON_DAYS = 180


def build_decisions(
    tables: Tables, grace_days: int = GRACE_DAYS, horizon_days: int = HORIZON_DAYS
) -> DecisionTable:
    """Return a decision for each stage entry of an open deal, its features, and what came of it.

    Parameters
    ----------
    tables : as ``schema.check`` returns them
    grace_days : vendor people who are active within so many days after the entry have stepped in
    horizon_days : the deal counts as won if it closes won within so many days after the entry

    Returns
    -------
    DecisionTable
        Sorted by time, then id. ``about["flow"]`` says how many entries were left out, and why; the counts
        add up to the number of stage entries.

    Raises
    ------
    UserError
        No decision is left, fewer than ten partners, nobody (or everybody) stepped in, or all decisions have
        the same outcome.

    Notes
    -----
    Time zero, eligibility and choice coincide at the stage entry. Who stepped in is judged at the end of the
    grace window among deals still open then (a landmark), so that time spent waiting for help cannot be
    mistaken for its effect. Decisions younger than the horizon are left out whatever their outcome: keeping
    those that closed early would keep mostly one kind. Sources: Hernán & Robins 2016 (target trial
    emulation), Dafni 2011 (landmarks).

    Assumption that no test can check: ``started_at`` and ``ended_at`` say when people truly worked on the
    deal. Involvements that nobody recorded count as stepping back, and draw the effect towards zero.
    """
    _check_days(grace_days, horizon_days)
    grace, horizon = timedelta(days=grace_days), timedelta(days=horizon_days)
    entries = _entries(tables)
    reasons = _reasons_to_leave_out(entries, tables.now, grace_days, horizon_days)
    is_left_out = np.zeros(len(entries), dtype=bool)
    flow = [
        FlowStep("stage entries", len(entries), "every entry of a deal into a stage is a moment to decide")
    ]
    for what, applies, why in reasons:
        flow.append(FlowStep(what, int((applies & ~is_left_out).sum()), why))
        is_left_out |= applies
    kept = entries[~is_left_out]
    flow.append(
        FlowStep("decisions", len(kept), "open at the end of the window, and old enough to be judged")
    )
    won_in_time = (kept["outcome"] == "won") & (kept["closed_at"] <= kept["entered_at"] + horizon)
    rows = _rows(kept).assign(
        stepped_in=_was_active(tables.involvements, kept, grace),
        outcome=won_in_time.to_numpy(dtype="float64"),
    )
    _refuse_too_little(rows)
    features, left_out = drop_columns_that_say_nothing(_features_at_entry(tables, kept, rows.index))
    about = _about(tables, grace_days, horizon_days, flow, left_out)
    decided_on = set(rows["stage"])  # a history may also hold stages that close a deal
    about["stage_order"] = [stage for stage in stage_order(tables.stage_entries) if stage in decided_on]
    return DecisionTable(rows, features, about)


def open_decisions(tables: Tables) -> DecisionTable:
    """Return the deals open at the export, with what is known then; nothing has come of them yet.

    ``stepped_in`` is false and ``outcome`` missing throughout; ``decided_at`` is the entry into the current
    stage. All features are there, also those that ``build_decisions`` leaves out for saying nothing.
    """
    moments = open_deals(tables)
    deals = tables.deals[["deal_id", "partner_id", "amount"]]
    entries = moments.merge(deals, on="deal_id", how="left", validate="one_to_one")
    entries["decision_id"] = entries["deal_id"] + ":" + entries["stage"]
    rows = _rows(entries).assign(stepped_in=False, outcome=np.nan)
    features = build_features(tables, entries.set_index("decision_id"))
    flow = [FlowStep("open deals", len(rows), "open at the export, with a stage on record")]
    return DecisionTable(rows, features, _about(tables, GRACE_DAYS, HORIZON_DAYS, flow, []))


def _check_days(grace_days: int, horizon_days: int) -> None:
    if not 0 < grace_days < horizon_days:
        raise UserError(
            f"grace_days is {grace_days} and horizon_days {horizon_days}; "
            "the window should be longer than 0 days and end before the horizon."
        )


def _entries(tables: Tables) -> pd.DataFrame:
    """Return the stage entries with what their deals say, sorted by time and id, with unique ids."""
    deals = tables.deals[["deal_id", "partner_id", "amount", "outcome", "closed_at"]]
    entries = tables.stage_entries[["deal_id", "stage", "entered_at"]].sort_values(
        ["entered_at", "deal_id", "stage"], ignore_index=True
    )
    again = entries.groupby(["deal_id", "stage"]).cumcount()
    suffix = (":" + (again + 1).astype("str")).where(again > 0, "")
    entries["decision_id"] = entries["deal_id"] + ":" + entries["stage"] + suffix
    return entries.merge(deals, on="deal_id", how="left", validate="many_to_one")


def _reasons_to_leave_out(
    entries: pd.DataFrame, now: pd.Timestamp, grace_days: int, horizon_days: int
) -> Iterator[tuple[str, np.ndarray, str]]:
    entered, closed = entries["entered_at"], entries["closed_at"]
    window_end = entered + timedelta(days=grace_days)
    yield (
        "entered after the deal closed",
        (closed <= entered).to_numpy(),
        "nothing is left to decide on a closed deal",
    )
    yield (
        "closed within the window",
        (closed <= window_end).to_numpy(),
        f"who stepped in is judged {grace_days} days after the entry, among deals still open then",
    )
    yield (
        "too young",
        (entered + timedelta(days=horizon_days) > now).to_numpy(),
        f"less than {horizon_days} days before the export: left out whatever their outcome is so far",
    )


def _was_active(involvements: pd.DataFrame, entries: pd.DataFrame, grace: timedelta) -> np.ndarray:
    """Tell whether vendor people were active between the entry and the end of the window."""
    both = pd.concat([involvements["deal_id"], entries["deal_id"]])
    codes = pd.factorize(both)[0].astype(np.int64)
    theirs, asked = codes[: len(involvements)], codes[len(involvements) :]
    entered = microseconds(entries["entered_at"])
    started = microseconds(involvements["started_at"])
    ended = microseconds(involvements["ended_at"])
    came = EventLog(theirs, started).count(asked, microseconds(entries["entered_at"] + grace))
    gone = EventLog(theirs, np.where(ended == NEVER, NEVER, np.maximum(ended, started))).count(
        asked, entered + 1
    )
    return came > gone


def _rows(entries: pd.DataFrame) -> pd.DataFrame:
    renamed = entries.rename(columns={"entered_at": "decided_at"}).set_index("decision_id")
    return renamed[["deal_id", "partner_id", "stage", "decided_at", "amount"]].assign(
        decided_at=lambda rows: rows["decided_at"].astype("datetime64[us, UTC]")
    )


def _features_at_entry(tables: Tables, entries: pd.DataFrame, index: pd.Index) -> pd.DataFrame:
    moments = entries[["deal_id", "stage", "entered_at"]].assign(moment=entries["entered_at"])
    return build_features(tables, moments.set_index(index))


def _refuse_too_little(rows: pd.DataFrame) -> None:
    if rows.empty:
        raise UserError(
            "No decision is left: every stage entry is too young or on a deal that closed at once."
        )
    partners = rows["partner_id"].nunique()
    if partners < FEWEST_PARTNERS:
        raise UserError(
            f"The decisions come from {partners} partner{'s' if partners != 1 else ''}; "
            f"at least {FEWEST_PARTNERS} are needed to tell an effect from a partner's habits."
        )
    refuse_one_valued(rows, "stepped in", "won within the horizon")


def _about(
    tables: Tables, grace_days: int, horizon_days: int, flow: list[FlowStep], left_out: list[dict[str, str]]
) -> dict[str, object]:
    currencies = sorted(tables.deals["currency"].dropna().unique())
    return {
        "kind": "crm",
        "outcome": "binary",
        "outcome_unit": "share",
        "currency": str(currencies[0]) if len(currencies) == 1 else None,
        "amount_feature": "amount",
        "stage_order": stage_order(tables.stage_entries),
        "grace_days": grace_days,
        "horizon_days": horizon_days,
        "exported_at": tables.now.isoformat(),
        "question": (
            f"By how much does it change the chance that the deal is won within {horizon_days} days "
            f"if vendor people are active on it within {grace_days} days of its entry into the stage, "
            "against their waiting, with later choices left to nature?"
        ),
        "left_out_columns": left_out,
        "flow": [step.to_dict() for step in flow],
    }

"""The target trial in the tables: who could be stepped in on, when, who was, and what came of it."""

from collections.abc import Collection, Iterator
from datetime import timedelta

import numpy as np
import pandas as pd

from features import moments
from features.as_of import NEVER, EventLog, Ints, codes_of, is_among, microseconds
from features.build import build_features
from features.coordination import Touches
from features.decision_table import DecisionTable, FlowStep, drop_columns_that_say_nothing, refuse_one_valued
from features.history import final_values
from features.leakage import audit_tables
from features.problems import UserError
from features.stages import stage_order
from features.tables import Tables
from features.target_trial import GRACE_DAYS, HORIZON_DAYS, Against, TargetTrial

__all__ = ["DecisionTable", "FlowStep", "TargetTrial", "build_decisions", "open_decisions"]

FEWEST_PARTNERS = 10


def build_decisions(
    tables: Tables,
    grace_days: int = GRACE_DAYS,
    horizon_days: int = HORIZON_DAYS,
    *,
    every_days: int | None = None,
    against: Against = "wait",
    allow: Collection[str] = (),
) -> DecisionTable:
    """Return a decision for each moment of an open deal, its features, and what came of it.

    Parameters
    ----------
    tables : as ``schema.check`` returns them
    grace_days, horizon_days, every_days, against : the trial to imitate, see `TargetTrial`
    allow : columns to keep although the leakage audit finds that they know the future: a person has looked

    Returns
    -------
    DecisionTable
        Sorted by time, then id. ``about["protocol"]`` is the target trial in words; ``about["flow"]`` says
        how many moments were left out, and why; its counts add up to the number of moments.
        ``about["audit"]`` has what the leakage audit found.

    Raises
    ------
    UserError
        No decision is left, fewer than ten partners, nobody (or everybody) stepped in, or all decisions
        have the same outcome.
    LeakageError
        A column knows the future: it is named, and why.

    Notes
    -----
    Eligible is a deal at each moment to decide (its entry into a stage, or every so many days) at which it
    is open, if it is still open at the end of the grace window. The two choices are vendor people active
    within the window, or not. Nobody assigned them by lot: what moved the choice is adjusted for later. Time
    zero is the moment, for eligibility, choice and follow-up alike; who stepped in is judged at the end of
    the window among deals still open then (a landmark), so that time spent waiting for help cannot be
    mistaken for its effect. Follow-up ends at the horizon, and the outcome is a win by then. Decisions
    younger than the horizon are left out whatever their outcome: keeping those that closed early would keep
    mostly one kind. The estimand is stepping in now against waiting, or against nobody coming at all.
    Sources: Hernán & Robins 2016 (target trial emulation), Dafni 2011 (landmarks).

    Assumption that no test can check: ``started_at`` and ``ended_at`` say when people truly worked on the
    deal. Involvements that nobody recorded count as stepping back, and draw the effect towards zero.
    """
    trial = TargetTrial(grace_days, horizon_days, every_days, against)
    audit = audit_tables(tables, allow)
    audit.refuse(" of the tables")
    asked = _with_deals(tables, _moments(tables, trial))
    kept, flow = _eligible(asked, tables, trial)
    rows = _rows(kept).assign(
        stepped_in=_was_active(tables.involvements, kept, timedelta(days=trial.grace_days)),
        outcome=_won_in_time(kept, timedelta(days=trial.horizon_days)),
    )
    _refuse_too_little(rows, flow)
    rows = rows.assign(joined_later_at=_joined_later(tables.involvements, kept, rows["stepped_in"], trial))
    features = build_features(tables, kept.set_index("decision_id"))
    rows = rows.assign(amount=features["amount"])
    features, left_out = drop_columns_that_say_nothing(features)
    about = _about(tables, trial, flow) | {
        "left_out_columns": left_out,
        "audit": audit.to_list(),
        "final_values": final_values(tables, features.columns),
        "ever_against_never": _ever_against_never(tables),
        "coordination": Touches.of(tables).to_dict(),
    }
    decided_on = set(rows["stage"])  # a history may also hold stages that close a deal
    about["stage_order"] = [stage for stage in stage_order(tables.stage_entries) if stage in decided_on]
    return DecisionTable(rows, features, about)


def open_decisions(tables: Tables) -> DecisionTable:
    """Return the deals open at the export, with what is known then; nothing has come of them yet.

    ``stepped_in`` is false and ``outcome`` missing throughout; ``decided_at`` is the entry into the current
    stage. All features are there, also those that ``build_decisions`` leaves out for saying nothing.
    """
    asked = _with_deals(tables, moments.open_deals(tables))
    features = build_features(tables, asked.set_index("decision_id"))
    rows = _rows(asked.assign(moment=asked["entered_at"])).assign(
        stepped_in=False, outcome=np.nan, amount=features["amount"]
    )
    flow = [FlowStep("open deals", len(rows), "open at the export, with a stage on record", len(rows))]
    return DecisionTable(rows, features, _about(tables, TargetTrial(), flow))


def _moments(tables: Tables, trial: TargetTrial) -> pd.DataFrame:
    if trial.every_days is None:
        return moments.stage_entries(tables)
    return moments.every_days(tables, trial.every_days)


def _with_deals(tables: Tables, asked: pd.DataFrame) -> pd.DataFrame:
    deals = tables.deals[["deal_id", "partner_id", "outcome", "closed_at"]]
    return asked.merge(deals, on="deal_id", how="left", validate="many_to_one")


def _eligible(asked: pd.DataFrame, tables: Tables, trial: TargetTrial) -> tuple[pd.DataFrame, list[FlowStep]]:
    """Return the moments that are decisions, and the count of all of them, step by step."""
    what = "stage entries" if trial.every_days is None else "moments"
    why = (
        "every entry of a deal into a stage" if trial.every_days is None else f"every {trial.every_days} days"
    )
    flow = [FlowStep(what, len(asked), f"{why} is a moment to decide", asked["deal_id"].nunique())]
    is_left_out = np.zeros(len(asked), dtype=bool)
    for name, applies, reason in _reasons_to_leave_out(asked, tables.now, trial):
        newly = applies & ~is_left_out
        flow.append(FlowStep(name, int(newly.sum()), reason, asked.loc[newly, "deal_id"].nunique()))
        is_left_out |= applies
    kept = asked[~is_left_out]
    flow.append(
        FlowStep(
            "decisions",
            len(kept),
            "open at the end of the window, and old enough to be judged",
            kept["deal_id"].nunique(),
        )
    )
    return kept, flow


def _reasons_to_leave_out(
    asked: pd.DataFrame, now: pd.Timestamp, trial: TargetTrial
) -> Iterator[tuple[str, np.ndarray, str]]:
    moment, closed = asked["moment"], asked["closed_at"]
    window_end = moment + timedelta(days=trial.grace_days)
    when = "entered" if trial.every_days is None else "asked"
    yield (
        f"{when} after the deal closed",
        (closed <= moment).to_numpy(),
        "nothing is left to decide on a closed deal",
    )
    yield (
        "closed within the window",
        (closed <= window_end).to_numpy(),
        f"who stepped in is judged {trial.grace_days} days after the "
        f"{'entry' if trial.every_days is None else 'moment'}, among deals still open then",
    )
    yield (
        "too young",
        (moment + timedelta(days=trial.horizon_days) > now).to_numpy(),
        f"less than {trial.horizon_days} days before the export: left out whatever their outcome is so far",
    )


def _won_in_time(asked: pd.DataFrame, horizon: timedelta) -> np.ndarray:
    won = (asked["outcome"] == "won") & (asked["closed_at"] <= asked["moment"] + horizon)
    return won.to_numpy(dtype="float64")


def _was_active(involvements: pd.DataFrame, asked: pd.DataFrame, grace: timedelta) -> np.ndarray:
    """Tell whether vendor people were active between the moment and the end of the window."""
    theirs, deal = _deal_codes(involvements, asked)
    moment = microseconds(asked["moment"])
    started = microseconds(involvements["started_at"])
    ended = microseconds(involvements["ended_at"])
    came = EventLog(theirs, started).count(deal, microseconds(asked["moment"] + grace))
    gone = EventLog(theirs, np.where(ended == NEVER, NEVER, np.maximum(ended, started))).count(
        deal, moment + 1
    )
    return came > gone


def _joined_later(
    involvements: pd.DataFrame, asked: pd.DataFrame, stepped_in: pd.Series, trial: TargetTrial
) -> pd.Series:
    """Return when the vendor first came after the window of a decision to step back, before the close."""
    theirs, deal = _deal_codes(involvements, asked)
    log = EventLog(theirs, microseconds(involvements["started_at"]))
    first = log.first_row_from(deal, microseconds(asked["moment"] + timedelta(days=trial.grace_days)))
    started = involvements["started_at"].reset_index(drop=True).reindex(np.where(first >= 0, first, -1))
    came = started.set_axis(stepped_in.index)
    closed = asked["closed_at"].set_axis(stepped_in.index)
    return came.mask(stepped_in | (came >= closed))


def _deal_codes(involvements: pd.DataFrame, asked: pd.DataFrame) -> tuple[Ints, Ints]:
    """Return codes of the deals of both: involvements, and moments."""
    deals = pd.Index(asked["deal_id"].unique())
    return codes_of(involvements["deal_id"], deals), codes_of(asked["deal_id"], deals)


def _rows(asked: pd.DataFrame) -> pd.DataFrame:
    renamed = asked.rename(columns={"moment": "decided_at"}).set_index("decision_id")
    return renamed[["deal_id", "partner_id", "stage", "decided_at", "closed_at"]].assign(
        decided_at=lambda rows: rows["decided_at"].astype("datetime64[us, UTC]")
    )


def _refuse_too_little(rows: pd.DataFrame, flow: list[FlowStep]) -> None:
    if rows.empty:
        raise UserError(_why_none_is_left(flow))
    partners = rows["partner_id"].nunique()
    if partners < FEWEST_PARTNERS:
        raise UserError(
            f"The decisions come from {partners} partner{'s' if partners != 1 else ''}; "
            f"at least {FEWEST_PARTNERS} are needed to tell an effect from a partner's habits."
        )
    refuse_one_valued(rows, "stepped in", "won within the horizon")


def _why_none_is_left(flow: list[FlowStep]) -> str:
    asked, *left_out, _decisions = flow
    if not asked.n:
        return f"There is no decision: the tables hold no {asked.what} of deals."
    counts = ", ".join(f"{step.n:,} {step.what}" for step in left_out if step.n)
    return (
        f"No decision is left of {asked.n:,} {asked.what}: {counts}. Bring deals that began earlier, or "
        "shorten the window (grace_days) or the horizon (horizon_days)."
    )


def _ever_against_never(tables: Tables) -> dict[str, list[list[int]]]:
    """Count for each partner what the simplest comparison of closed deals would compare.

    Deals with any involvement of the vendor, whenever, and how many of them were won; deals without, and how
    many of those: four numbers a partner.
    """
    closed = tables.deals[tables.deals["outcome"] != "open"]
    joined = is_among(closed["deal_id"], tables.involvements["deal_id"])
    won = closed["outcome"] == "won"
    counts = pd.DataFrame(
        {"joined": joined, "joined_won": joined & won, "left": ~joined, "left_won": ~joined & won}
    )
    return {"partners": counts.groupby(closed["partner_id"]).sum().to_numpy(dtype=int).tolist()}


def _about(tables: Tables, trial: TargetTrial, flow: list[FlowStep]) -> dict[str, object]:
    currencies = sorted(tables.deals["currency"].dropna().unique())
    return {
        "kind": "crm",
        "outcome": "binary",
        "outcome_unit": "share",
        "currency": str(currencies[0]) if len(currencies) == 1 else None,
        "amount_feature": "amount",
        "stage_order": stage_order(tables.stage_entries),
        "grace_days": trial.grace_days,
        "horizon_days": trial.horizon_days,
        "every_days": trial.every_days,
        "against": trial.against,
        "exported_at": tables.now.isoformat(),
        "question": trial.question(),
        "protocol": [list(part) for part in trial.protocol()],
        "left_out_columns": [],
        "flow": [step.to_dict() for step in flow],
    }

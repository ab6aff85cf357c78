"""Moments to decide: when the question "step in, or step back?" is asked about a deal."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from features.as_of import DAY, NEVER, Ints, codes_of, known_at, match, microseconds
from features.stages import current_stages, stage_order
from features.tables import Tables

COLUMNS = ["decision_id", "deal_id", "stage", "entered_at", "moment"]


def stage_entries(tables: Tables) -> pd.DataFrame:
    """Return a moment for each stage entry, sorted by time and id.

    Returns
    -------
    DataFrame of shape (n_entries, 5)
        ``decision_id`` (``DEAL:STAGE``; a stage entered again has ``:2`` behind it), ``deal_id``, ``stage``,
        ``entered_at`` and ``moment``, which are the same.
    """
    entries = tables.stage_entries[["deal_id", "stage", "entered_at"]].sort_values(
        ["entered_at", "deal_id", "stage"], ignore_index=True
    )
    again = entries.groupby(["deal_id", "stage"]).cumcount()
    suffix = (":" + (again + 1).astype("str")).where(again > 0, "")
    entries["decision_id"] = entries["deal_id"] + ":" + entries["stage"] + suffix
    return entries.assign(moment=entries["entered_at"])[COLUMNS]


def every_days(tables: Tables, days: int) -> pd.DataFrame:
    """Return a moment every so many days since the deal's creation, while it is open.

    Returns
    -------
    DataFrame of shape (n_moments, 5)
        As `stage_entries`; ``decision_id`` is ``DEAL:day30``. ``stage`` is the one on record before the
        moment, ``entered_at`` its entry; moments without one are left out. Of two entries at the same
        instant the later stage counts, by the order in which all deals of the export enter them.
    """
    deals = tables.deals
    created = microseconds(deals["created_at"])
    closed = microseconds(deals["closed_at"])
    now = microseconds(pd.Series([tables.now]))[0]
    step = days * DAY
    counts = np.maximum((np.where(closed == NEVER, now, closed) - created) // step, 0)
    deal = np.repeat(np.arange(len(deals)), counts)
    place = np.arange(len(deal)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    moment = created[deal] + place * step
    entry = _entry_on_record(tables, deal, moment)
    known = entry >= 0
    deal, place, moment, entry = deal[known], place[known], moment[known], entry[known]
    entries = tables.stage_entries
    ids = deals["deal_id"].take(deal).reset_index(drop=True)
    moments = pd.DataFrame(
        {
            "decision_id": ids + ":day" + pd.Series(place * days).astype("str"),
            "deal_id": ids,
            "stage": entries["stage"].take(entry).reset_index(drop=True),
            "entered_at": entries["entered_at"].take(entry).reset_index(drop=True),
            "moment": pd.to_datetime(pd.Series(moment), unit="us", utc=True).dt.as_unit("us"),
        }
    )
    return moments.sort_values(["moment", "deal_id"], ignore_index=True)[COLUMNS]


def open_deals(
    tables: Tables, as_of: pd.Timestamp | None = None, order: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return the moments of the deals that are open at ``as_of``, each in the stage last recorded.

    ``as_of`` defaults to a microsecond after the export, so that all of it is known; without an offset it is
    UTC. Deals without a stage on record are left out. Sorted by deal; ``decision_id`` is ``DEAL:STAGE``.
    ``order`` of the stages tells which of two entries at the same instant counts.
    """
    moment = tables.now.as_unit("us") + pd.Timedelta(1, unit="us") if as_of is None else pd.Timestamp(as_of)
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment
    deals = tables.deals
    is_open = (deals["created_at"] < moment) & ~(deals["closed_at"] < moment)
    stages = current_stages(tables.stage_entries, moment, order)
    moments = stages[stages["deal_id"].isin(deals.loc[is_open, "deal_id"])].reset_index(drop=True)
    return moments.assign(
        moment=pd.Series(moment, index=moments.index, dtype="datetime64[us, UTC]"),
        decision_id=moments["deal_id"] + ":" + moments["stage"],
    )[COLUMNS]


def _entry_on_record(tables: Tables, deal: Ints, moment: Ints) -> Ints:
    """Return the position of the last stage entry recorded before each moment, -1 where there is none."""
    entries = tables.stage_entries
    place = {stage: i for i, stage in enumerate(stage_order(entries))}
    order = np.argsort(entries["stage"].map(place).to_numpy(), kind="stable")
    entered = microseconds(entries["entered_at"])[order]
    known = known_at(entries["entered_at"], entries["recorded_at"])[order]
    matches = match(deal, codes_of(entries["deal_id"], tables.deals["deal_id"])[order], entered)
    last = matches.last(known[matches.event] < moment[matches.question])
    return np.where(last >= 0, order[last], -1)

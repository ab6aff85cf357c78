"""Stages: in which order a deal passes them, and what lay before the one it is in."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from features.as_of import Floats, Ints, days_between, known_at, match, microseconds


def stage_order(entries: pd.DataFrame) -> list[str]:
    """Return the stages in the order in which deals enter them.

    Each entry's place among its deal's entries is scaled to 0 to 1 over all stages that the deal passed;
    stages are ordered by the median of their places, then by mean, then by name.
    """
    ordered = entries.sort_values(["deal_id", "entered_at", "stage"])
    place = ordered.groupby("deal_id")["entered_at"].rank(method="average")
    places = place.groupby(ordered["stage"]).agg(["median", "mean"])
    return [str(stage) for stage in places.rename_axis("name").sort_values(["median", "mean", "name"]).index]


def stage_history(
    entries: pd.DataFrame, entry_deals: Ints, deals: Ints, entered: Ints, moments: Ints
) -> tuple[Floats, Floats]:
    """Return the stage entries before the current one, and the days from the last of them to it.

    Parameters
    ----------
    entries : the table of stage entries
    entry_deals, deals : arrays of shape (n_entries,) and (n_moments,), the deals' codes
    entered : array of shape (n_moments,), when the current stage was entered, in microseconds
    moments : array of shape (n_moments,), what was recorded before them counts

    Returns
    -------
    moves, days_in_previous_stage : arrays of shape (n_moments,)
        The days are missing where no earlier entry is on record.
    """
    event = microseconds(entries["entered_at"])
    known = known_at(entries["entered_at"], entries["recorded_at"])
    matches = match(deals, entry_deals, event)
    earlier = (event[matches.event] < entered[matches.question]) & (
        known[matches.event] < moments[matches.question]
    )
    last = matches.last(earlier)
    days = np.full(len(deals), np.nan)
    has = last >= 0
    days[has] = days_between(event[last[has]], entered[has])
    return matches.count(earlier).astype(np.float64), days


def current_stages(
    entries: pd.DataFrame, as_of: pd.Timestamp, order: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return each deal's stage as recorded before ``as_of``: columns deal_id, stage, entered_at.

    Of two entries at the same instant the later stage counts: by `order`, else by ``stage_order`` as known
    then.
    """
    known = known_at(entries["entered_at"], entries["recorded_at"])
    seen = entries[known < microseconds(pd.Series([as_of]))]
    order = stage_order(seen) if order is None else order
    place = seen["stage"].map({stage: i for i, stage in enumerate(order)})
    seen = seen.assign(_place=place).sort_values(["deal_id", "entered_at", "_place"])
    latest = seen.drop_duplicates("deal_id", keep="last")
    return latest[["deal_id", "stage", "entered_at"]].reset_index(drop=True)

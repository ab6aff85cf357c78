"""Whether vendor and partner both touched the customer in the same days without a hand-over."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.as_of import DAY, NEVER, Floats, Ints, codes_of, known_at, match, microseconds
from features.tables import Tables

LOOK_BACK_DAYS = 30
HAND_OVER = "handover"


@dataclass(frozen=True)
class Touches:
    """Days on which the vendor touched a customer that the partner touched the same day, or a day apart.

    Attributes
    ----------
    deal, day : arrays of shape (n_days,): the deal's position, and the day (UTC) since 1970
    known : from when it is known that both did, in microseconds
    handed_over : from when a hand-over within these days is known, or ``NEVER``
    n_deals : deals with any activity on record
    """

    deal: Ints
    day: Ints
    known: Ints
    handed_over: Ints
    n_deals: int

    @classmethod
    def of(cls, tables: Tables) -> "Touches":
        """Find them in an export's activities."""
        table = tables.activities
        acts = pd.DataFrame(
            {
                "deal": codes_of(table["deal_id"], tables.deals["deal_id"]),
                "day": microseconds(table["happened_at"]) // DAY,
                "known": known_at(table["happened_at"], table["recorded_at"]),
            }
        )
        is_hand_over = (table["kind"] == HAND_OVER).to_numpy()
        by_vendor = (table["by"] == "vendor").to_numpy()
        vendor = _by_day(acts[~is_hand_over & by_vendor])
        both = _first_near(vendor, _by_day(acts[~is_hand_over & ~by_vendor]))
        together = both != NEVER
        vendor, both = vendor[together], both[together]
        return cls(
            deal=vendor["deal"].to_numpy(),
            day=vendor["day"].to_numpy(),
            known=np.maximum(vendor["known"].to_numpy(), both),
            handed_over=_first_near(vendor, _by_day(acts[is_hand_over])),
            n_deals=int(acts["deal"].nunique()),
        )

    def uncoordinated_days(self, deal: Ints, moments: Ints) -> Floats:
        """Count them within the 30 days before each moment, as known then; missing without activities."""
        if not self.n_deals:
            return np.full(len(deal), np.nan)
        matches = match(deal, self.deal, self.day)
        event, moment = matches.event, moments[matches.question]
        holds = (
            (self.known[event] < moment)
            & (self.day[event] >= moment // DAY - LOOK_BACK_DAYS)
            & ~(self.handed_over[event] < moment)
        )
        return matches.count(holds).astype(np.float64)

    def to_dict(self) -> dict[str, float] | None:
        """Return how many deals have activities, and the share of them with such a day; None without any."""
        if not self.n_deals:
            return None
        uncoordinated = len(np.unique(self.deal[self.handed_over == NEVER]))
        return {"deals_with_activities": self.n_deals, "uncoordinated_share": uncoordinated / self.n_deals}


def _by_day(acts: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each deal and day, known from its first activity."""
    return acts.groupby(["deal", "day"])["known"].min().reset_index()


def _first_near(days: pd.DataFrame, others: pd.DataFrame) -> Ints:
    """Return from when the first of the others within a day of each is known; ``NEVER`` without one."""
    near = pd.concat([others.assign(day=others["day"] + apart) for apart in (-1, 0, 1)])
    found = days.merge(_by_day(near), on=["deal", "day"], how="left", suffixes=("", "_other"))["known_other"]
    return np.where(found.isna(), NEVER, found.fillna(0).to_numpy(dtype=np.int64))

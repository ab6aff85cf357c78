"""The CRM as it stands: an export, and what has happened since; rows of its open deals as of a moment."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from features.as_of import Ints, microseconds
from features.build import build_features
from features.deal_state import DealState, Row
from features.event_frames import joined
from features.events import Event
from features.everybody import Everybody, sorted_times
from features.moments import open_deals
from features.stages import stage_order
from features.standings import TICK, Applied, Standings
from features.tables import DTYPES, Tables
from features.traits import KEYS

__all__ = ["Applied", "Ledger", "LiveRows"]

Fact = float | bool | str | None
FEW_DEALS = 2000
"""Up to so many deals what is read of all of them is read again after each event."""


@dataclass(frozen=True)
class LiveRows:
    """Open deals with their features.

    Attributes
    ----------
    about : by ``deal_id``: ``stage``, ``entered_at``, ``partner_id``, ``customer_id``, ``amount``
    features : as ``build_features`` returns them, by ``deal_id``
    moment : as of when (UTC)
    """

    about: pd.DataFrame
    features: pd.DataFrame
    moment: pd.Timestamp

    def facts(self) -> list[dict[str, Fact]]:
        """Return each row's features as plain values, None where missing."""
        columns = {name: plain(self.features[name]) for name in self.features.columns}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def plain(values: pd.Series) -> list[Fact]:
    """Return a column's values as floats, booleans and texts; None where missing."""
    there = values.notna()
    return values.astype("object").where(there, None).tolist()


class Ledger(Standings):
    """An export and the events since, as tables, and as rows of its open deals.

    Parameters
    ----------
    base, currency : see `Standings`
    """

    def __init__(self, base: Tables | None = None, currency: str | None = None) -> None:
        super().__init__(base, currency)
        self._everybody: Everybody | None = None
        self._order: list[str] = []
        self._closings_moved = False

    def apply(self, events: Iterable[Event]) -> Applied:
        """Take events in, in any order; one that is known by its id changes nothing."""
        applied = super().apply(events)
        if applied.deals:
            self._outdate()
        return applied

    # Rows

    def rows(self, deal_ids: Collection[str] | None, moment: datetime) -> LiveRows:
        """Build the features of the open deals as of a moment, with the functions that training uses.

        Parameters
        ----------
        deal_ids : which deals; None for all. Those closed, unknown, or without a stage by then are left out.
        moment : UTC, or with an offset

        Notes
        -----
        The stage is the one last recorded at the moment or before; of everything else counts what was
        recorded strictly before. So a deal that enters a stage at the moment gets the row of the decision
        that training makes of this entry.
        """
        if deal_ids is None:
            return self._rows_of(self.tables(), None, moment)
        return self._rows_of(self._around(deal_ids, self._owners(deal_ids)), deal_ids, moment)

    def rows_with(self, events: Iterable[Event], moment: datetime) -> tuple[LiveRows, dict[str, str]]:
        """Build the rows of some deals as if events about them had come in too; nothing of them is kept.

        Deals of the same partner or customer see each other's events, as they would see each other's deals.

        Returns
        -------
        rows, contradictions
            The deals' rows; and for each event that contradicts the rest, by its id, what is wrong.
        """
        told = list(events)
        deal_ids = {event.deal_id for event in told}
        owners = self._owners(deal_ids)
        for event in told:
            for name, key in KEYS.items():
                owners[name] |= {event.part("deal")[key]} if event.part("deal").get(key) else set()
        everybody = self.everybody()
        beside = Ledger(replace(self._around(deal_ids, owners), exported_at=self.base.now), self.currency)
        applied = beside.apply(told)
        beside._everybody, beside._order, beside._closings_moved = everybody, self._order, False
        return beside.rows(deal_ids, moment), applied.set_aside

    def stage(self, deal_id: str, moment: datetime) -> tuple[str, datetime] | None:
        """Return the stage on record at a moment, and when it was entered; None without any."""
        self.everybody()
        position = {stage: i for i, stage in enumerate(self._order)}
        known = [
            (entered, position.get(stage, len(position)), stage)
            for stage, entered, recorded in self._entries(deal_id)
            if max(entered, recorded or entered) <= moment
        ]
        return (max(known)[2], max(known)[0]) if known else None

    def _rows_of(self, tables: Tables, deal_ids: Collection[str] | None, moment: datetime) -> LiveRows:
        everybody = self.everybody()
        when = pd.Timestamp(moment).tz_convert("UTC").as_unit("us")
        asked = open_deals(tables, when + TICK, self._order)
        if deal_ids is not None:
            asked = asked[asked["deal_id"].isin(list(deal_ids))]
        asked = asked.assign(moment=pd.Series(when, index=asked.index, dtype="datetime64[us, UTC]"))
        asked = asked.set_index("deal_id", drop=False).rename_axis(None)
        features = build_features(tables, asked, everybody)
        whose = tables.deals.set_index("deal_id")[["partner_id", "customer_id"]].loc[asked.index]
        about = asked[["stage", "entered_at"]].join(whose).assign(amount=features["amount"])
        return LiveRows(about, features, when)

    # Tables

    def tables(self) -> Tables:
        """Return the whole tables as they stand; they satisfy what ``schema.check`` asks for."""
        steady, asked = np.flatnonzero(~self._overlaid), np.arange(len(self._overlaid))
        states = [state for _, state in sorted(self._states.items()) if state.row is not None]
        owners = {name: self._traits.ids(name) | self._deals_of[name].keys() for name in KEYS}
        return self._tables(steady, asked, states, states, owners)

    def _around(self, deal_ids: Collection[str], owners: Mapping[str, set[str]]) -> Tables:
        """Return what the rows of some deals read: the deals of their partners and customers."""
        places = self._places(owners)
        ids = {
            each for name in KEYS for owner in owners[name] for each in self._deals_of[name].get(owner, ())
        }
        states = [self._states[each] for each in sorted(ids)]
        steady = places[~self._overlaid[places]]
        asked = self.base.places("deals", deal_ids)
        own = [self._states[each] for each in deal_ids if each in ids]
        return self._tables(steady, asked, states, own, owners)

    def _tables(
        self,
        steady: Ints,
        asked: Ints,
        states: Sequence[DealState],
        own: Sequence[DealState],
        owners: Mapping[str, set[str]],
    ) -> Tables:
        """Put the export's deals at `steady` and the deals that events tell of together.

        Stages and activities are brought for `asked` and `own` alone: no other deal's row reads them.
        """
        told = [state.row for state in states if state.row]
        both = np.union1d(steady, self.base.places("deals", [row["deal_id"] for row in told]))
        base, kinds = self.base, self._own.of

        def rows(name: str, of: Ints, more: list[Row]) -> pd.DataFrame:
            table = getattr(base.tables, name)
            return joined(_take(table, base.of_deal[name].of(of)), more, kinds(name))

        return Tables(
            deals=joined(
                _take(base.tables.deals, steady),
                told,
                kinds("deals"),
            ),
            stage_entries=rows("stage_entries", asked, [each for state in own for each in state.entries]),
            involvements=rows(
                "involvements", steady, [each for state in states for each in state.involvements]
            ),
            partners=self._traits.table("partners", owners["partners"]),
            customers=self._traits.table("customers", owners["customers"]),
            relationships=self._traits.relationships(owners),
            activities=rows("activities", asked, [each for state in own for each in state.activities]),
            deal_changes=rows("deal_changes", both, [each for state in states for each in state.changes]),
        )

    # What all rows read

    def refresh(self) -> None:
        """Read again what rows read of all deals: after large changes, once an hour or so."""
        tables = self.tables()
        self._everybody, self._closings_moved = Everybody.of(tables), False
        self._order = stage_order(tables.stage_entries)

    def everybody(self) -> Everybody:
        """Return what rows read of all deals: closings as they stand, the rest as of the last `refresh`."""
        if self._everybody is None:
            self.refresh()
        assert self._everybody is not None
        if self._closings_moved:
            self._everybody = self._closings(self._everybody)
            self._closings_moved = False
        return self._everybody

    def _closings(self, everybody: Everybody) -> Everybody:
        rows = [state.row for state in self._states.values() if state.row]
        closed = microseconds(_times([row["closed_at"] for row in rows]))
        won = np.array([row["outcome"] == "won" for row in rows], dtype=bool)
        steady = ~self._overlaid
        return replace(
            everybody,
            closed=sorted_times(np.concatenate([self.base.closed[steady], closed])),
            won=sorted_times(np.concatenate([self.base.closed[steady & self.base.is_won], closed[won]])),
        )

    def _outdate(self) -> None:
        self._closings_moved = True
        if len(self._overlaid) + len(self._states) <= FEW_DEALS:
            self._everybody = None


def _times(values: list[Any]) -> pd.Series:
    return pd.to_datetime(pd.Series(values, dtype="object"), utc=True).astype(DTYPES["time"])


def _take(table: pd.DataFrame, places: Ints) -> pd.DataFrame:
    """Return rows by their positions; the table itself where these are all of it."""
    return table if len(places) == len(table) else table.iloc[places]

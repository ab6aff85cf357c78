"""The CRM as it stands: an export, and what has happened since; rows of its open deals as of a moment."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd

from features.as_of import Ints, microseconds
from features.base_tables import BaseTables
from features.build import build_features
from features.deal_state import DealState, Row, deal_after
from features.event_frames import OwnKinds, joined
from features.events import Event
from features.everybody import Everybody, sorted_times
from features.moments import open_deals
from features.problems import UserError
from features.stages import current_stages, stage_order
from features.tables import DTYPES, Tables
from features.traits import KEYS, Traits

TICK = pd.Timedelta(1, unit="us")
Fact = float | bool | str | None
Fate = Literal["applied", "waits", "set_aside", "unknown"]
Standing = Literal["open", "closed", "no_stage", "waiting", "unknown"]
FEW_DEALS = 2000
"""Up to so many deals what is read of all of them is read again after each event."""


@dataclass(frozen=True)
class Applied:
    """What became of events.

    Attributes
    ----------
    deals : ids of the deals that they tell of
    waiting : ids of events that wait for another one, such as the deal that a stage belongs to
    set_aside : what is wrong with an event that contradicts the rest, by its id
    """

    deals: frozenset[str]
    waiting: frozenset[str]
    set_aside: dict[str, str]


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


class Ledger:
    """An export and the events since: what is known depends on the set of events, not on their order.

    Parameters
    ----------
    base : as ``schema.check`` returns them; None to know nothing but the events
    currency : of the amounts, where `base` does not tell

    Notes
    -----
    The export is the CRM's own word on its deals up to its newest time: events about a deal that it knows,
    received before that time, are taken to be in it.
    """

    def __init__(self, base: Tables | None = None, currency: str | None = None) -> None:
        self.base = BaseTables.of(base)
        self._given_currency = self._currency = self.base.currency or currency
        self.newest: datetime = self.base.now + TICK
        """Just after all that is on record."""
        self._events: dict[str, Event] = {}
        self._of_deal: dict[str, dict[str, Event]] = {}
        self._misfits: dict[str, dict[str, str]] = {}
        self._states: dict[str, DealState] = {}
        self._deals_of: dict[str, dict[str, set[str]]] = {name: {} for name in KEYS}
        self._own = OwnKinds(self.base.tables)
        self._traits = Traits(self.base, self._own)
        self._overlaid = np.zeros(len(self.base.tables.deals), dtype=bool)
        self._everybody: Everybody | None = None
        self._order: list[str] = []
        self._closings_moved = False

    # Events

    def apply(self, events: Iterable[Event]) -> Applied:
        """Take events in, in any order; one that is known by its id changes nothing."""
        touched: set[str] = set()
        for event in events:
            if event.event_id not in self._events:
                self.newest = max(self.newest, event.happened_at + TICK, event.recorded_at + TICK)
                self._events[event.event_id] = event
                self._file(event)
                touched.add(event.deal_id)
        followed = touched | set(self._of_deal) if touched and self._currency_moved() else touched
        for deal_id in followed:
            self._follow(deal_id)
        if touched:
            self._outdate()
        return self._applied(touched)

    def _file(self, event: Event) -> None:
        if event.received_at <= self.base.now and self.base.place("deals", event.deal_id) is not None:
            return  # the export holds it
        misfit = self._own.misfit(event)
        if misfit:
            self._misfits.setdefault(event.deal_id, {})[event.event_id] = misfit
            return
        self._own.learn(event)
        self._of_deal.setdefault(event.deal_id, {})[event.event_id] = event
        self._traits.learn(event)

    def _follow(self, deal_id: str) -> None:
        """Work out where the deal stands, and whose it is."""
        former = self._states.pop(deal_id, None)
        if former is not None and former.row is not None:
            for name, key in KEYS.items():
                self._deals_of[name][former.row[key]].discard(deal_id)
        if deal_id not in self._of_deal:
            return
        events = self._of_deal[deal_id].values()
        state = deal_after(deal_id, self.base.deal(deal_id), events, self._currency)
        self._states[deal_id] = state
        if state.row is not None:
            if (place := self.base.place("deals", deal_id)) is not None:
                self._overlaid[place] = True
            for name, key in KEYS.items():
                self._deals_of[name].setdefault(state.row[key], set()).add(deal_id)

    def _currency_moved(self) -> bool:
        """Without a currency in the export, the first event that names one sets it."""
        if self._given_currency is not None:
            return False
        named = [event for event in self._events.values() if event.part("deal").get("currency")]
        first = min(named, key=lambda event: event.order, default=None)
        before, self._currency = self._currency, first.part("deal")["currency"] if first else None
        return before != self._currency

    def _applied(self, deals: set[str]) -> Applied:
        states = [self._states[deal_id] for deal_id in deals if deal_id in self._states]
        set_aside: dict[str, str] = {}
        for each in [self._misfits.get(deal_id, {}) for deal_id in deals] + [s.set_aside for s in states]:
            set_aside.update(each)
        waiting = frozenset(event_id for state in states for event_id in state.waiting)
        return Applied(frozenset(deals), waiting, set_aside)

    # Where things stand

    def standing(self, deal_id: str) -> Standing:
        """Tell what can be said of a deal now: open, closed, without a stage, waiting, or unknown."""
        state = self._states.get(deal_id)
        place = self.base.place("deals", deal_id)
        if state is not None and state.row is None:
            return "waiting"
        if state is not None and state.row is not None:
            outcome = state.row["outcome"]
        elif place is not None:
            outcome = self.base.outcome(place)
        else:
            return "unknown"
        if outcome != "open":
            return "closed"
        of_base = () if place is None else self.base.of_deal["stage_entries"].of_one(place)
        return "open" if (state is not None and state.entries) or len(of_base) else "no_stage"

    def knows(self, name: str, an_id: str) -> bool:
        """Tell whether a partner or customer is known: by the export, or by any event."""
        return self._traits.knows(name, an_id) or bool(self._deals_of[name].get(an_id))

    def deal(self, deal_id: str) -> Row | None:
        """Return the deal's columns as they stand; None if it is not known."""
        state = self._states.get(deal_id)
        return state.row if state is not None else self.base.row("deals", deal_id)

    def stage(self, deal_id: str, moment: datetime) -> tuple[str, datetime] | None:
        """Return the stage on record at a moment, and when it was entered; None without any."""
        state, places = self._states.get(deal_id), self.base.places("deals", [deal_id])
        entries = self.base.tables.stage_entries.iloc[self.base.of_deal["stage_entries"].of(places)]
        more = state.entries if state else []
        entries = joined(entries, more, self._own.of("stage_entries"))
        self.everybody()
        stages = current_stages(entries, pd.Timestamp(moment) + TICK, self._order)
        return None if stages.empty else (stages["stage"].iloc[0], stages["entered_at"].iloc[0])

    def fate(self, event_id: str) -> tuple[Fate, str | None]:
        """Tell what became of an event, and why where it is not in the tables."""
        event = self._events.get(event_id)
        if event is None:
            return "unknown", None
        misfit = self._misfits.get(event.deal_id, {}).get(event_id)
        state = self._states.get(event.deal_id)
        why = misfit or (state.set_aside.get(event_id) if state else None)
        if why:
            return "set_aside", why
        return ("waits" if state and event_id in state.waiting else "applied"), None

    def related(self, deal_ids: Collection[str]) -> set[str]:
        """Return the open deals of the same partners and customers: their rows may read of these deals."""
        owners = self._owners(deal_ids)
        found = {
            each for name in KEYS for owner in owners[name] for each in self._deals_of[name].get(owner, ())
        }
        places = self._places(owners)
        deals = self.base.tables.deals.iloc[places[~self._overlaid[places]]]
        open_ids = deals["deal_id"][(deals["outcome"] == "open").to_numpy()]
        return {each for each in found if self.standing(each) == "open"} | set(open_ids)

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

    def row_with(self, events: Iterable[Event], deal_id: str, moment: datetime) -> LiveRows:
        """Build a deal's row as if some events about it had come in too; nothing of them is kept.

        Raises
        ------
        UserError
            An event contradicts the rest.
        """
        told = list(events)
        owners = self._owners([deal_id])
        for event in told:
            for name, key in KEYS.items():
                owners[name] |= {event.part("deal")[key]} if event.part("deal").get(key) else set()
        everybody = self.everybody()
        tables = replace(self._around([deal_id], owners), exported_at=self.base.now)
        beside = Ledger(tables, self._currency)
        applied = beside.apply(told)
        if applied.set_aside:
            raise UserError(next(iter(applied.set_aside.values())))
        beside._everybody, beside._order, beside._closings_moved = everybody, self._order, False
        return beside.rows([deal_id], moment)

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

    def _owners(self, deal_ids: Collection[str]) -> dict[str, set[str]]:
        owners: dict[str, set[str]] = {name: set() for name in KEYS}
        for row in (self.deal(deal_id) for deal_id in deal_ids):
            for name, key in KEYS.items():
                if row is not None:
                    owners[name].add(row[key])
        return owners

    def _places(self, owners: Mapping[str, set[str]]) -> Ints:
        """Return where the export's deals of partners and customers stand."""
        parts = [self.base.deals_of[name].of(self.base.places(name, owners[name])) for name in KEYS]
        return np.unique(np.concatenate(parts))

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

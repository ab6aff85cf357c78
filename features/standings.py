"""Where each deal stands: what an export holds of it, and what events have told since."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import pandas as pd

from features.as_of import Ints
from features.base_tables import BaseTables
from features.deal_state import DealState, Row, deal_after
from features.event_frames import OwnKinds
from features.events import Event
from features.tables import Tables
from features.traits import KEYS, Traits

TICK = pd.Timedelta(1, unit="us")
Fate = Literal["applied", "waits", "set_aside", "unknown"]
Standing = Literal["open", "closed", "no_stage", "waiting", "unknown"]


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


class Standings:
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
        self._given_currency = self.currency = self.base.currency or currency
        self._names_currency: Event | None = None
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

    # Events

    def apply(self, events: Iterable[Event]) -> Applied:
        """Take events in, in any order; one that is known by its id changes nothing."""
        new: list[Event] = []
        for event in events:
            if event.event_id not in self._events:
                self.newest = max(self.newest, event.happened_at + TICK, event.recorded_at + TICK)
                self._events[event.event_id] = event
                self._file(event)
                new.append(event)
        touched = {event.deal_id for event in new}
        for deal_id in touched | set(self._of_deal) if self._currency_moved(new) else touched:
            self._follow(deal_id)
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
        state = deal_after(deal_id, self.base.deal(deal_id), events, self.currency)
        self._states[deal_id] = state
        if state.row is not None:
            if (place := self.base.place("deals", deal_id)) is not None:
                self._overlaid[place] = True
            for name, key in KEYS.items():
                self._deals_of[name].setdefault(state.row[key], set()).add(deal_id)

    def _currency_moved(self, events: Iterable[Event]) -> bool:
        """Without a currency in the export, the first event that names one sets it."""
        named = [event for event in events if event.part("deal").get("currency")]
        if self._given_currency is not None or not named:
            return False
        self._names_currency = min(
            [*named, *filter(None, [self._names_currency])], key=lambda event: event.order
        )
        before, self._currency = self.currency, self._names_currency.part("deal")["currency"]
        return before != self.currency

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

    def open_ids(self) -> set[str]:
        """Return the deals that are open, in a stage or not."""
        deals = self.base.tables.deals
        of_base = deals["deal_id"][(deals["outcome"] == "open").to_numpy() & ~self._overlaid]
        told = (deal_id for deal_id, state in self._states.items() if state.row)
        return {*of_base, *(each for each in told if self.standing(each) in ("open", "no_stage"))}

    def related(self, deal_ids: Collection[str]) -> set[str]:
        """Return the open deals of the same partners and customers: their rows may read of these deals."""
        owners = self._owners(deal_ids)
        for deal_id in deal_ids:  # also those whose it was before, or whose traits its events told
            for row in self._rows_told(deal_id):
                for name, key in KEYS.items():
                    owners[name] |= {row[key]} if row.get(key) else set()
        found = {
            each for name in KEYS for owner in owners[name] for each in self._deals_of[name].get(owner, ())
        }
        places = self._places(owners)
        deals = self.base.tables.deals.iloc[places[~self._overlaid[places]]]
        open_ids = deals["deal_id"][(deals["outcome"] == "open").to_numpy()]
        return {each for each in found if self.standing(each) == "open"} | set(open_ids)

    def _entries(self, deal_id: str) -> Iterator[tuple[str, datetime, datetime | None]]:
        """Give a deal's stage entries: the stage, when it was entered, when that was recorded."""
        for entry in self.base.entries(deal_id):
            yield entry["stage"], entry["entered_at"], entry["recorded_at"]
        for entry in self._states[deal_id].entries if deal_id in self._states else ():
            yield entry["stage"], entry["entered_at"], entry["recorded_at"]

    def _rows_told(self, deal_id: str) -> Iterator[Mapping[str, Any]]:
        """Give what was ever said of a deal, its partner and its customer."""
        yield self.base.row("deals", deal_id) or {}
        for event in self._of_deal.get(deal_id, {}).values():
            yield from (event.part("deal"), event.part("partner"), event.part("customer"))

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

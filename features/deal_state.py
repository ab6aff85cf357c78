"""One deal as its export and the events since then tell it, whatever the order in which they came."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from features.events import Event

Row = dict[str, Any]
FIXED = ("deal_id", "created_at", "outcome", "closed_at")
_NO_HISTORY = (*FIXED, "partner_id", "customer_id", "currency")
_TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class BaseDeal:
    """What the export holds of a deal. Values are None where missing; times are UTC."""

    row: Row
    entries: frozenset[tuple[str, datetime]] = frozenset()
    involvements: Sequence[Row] = ()
    changed: Mapping[str, Sequence[datetime]] = field(default_factory=dict)
    """For each column with a history of its own, when the deal's value changed."""


@dataclass
class DealState:
    """A deal with its events applied.

    Attributes
    ----------
    row : its columns; None while nobody has said whose deal it is: its events wait
    entries, activities, changes : rows that the events add to those of the export
    involvements : all of them, the export's included
    waiting : ids of events that wait for another one
    set_aside : for each event that contradicts the rest, by its id: what is wrong, and what to do
    """

    row: Row | None = None
    entries: list[Row] = field(default_factory=list)
    involvements: list[Row] = field(default_factory=list)
    activities: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)


def deal_after(
    deal_id: str, base: BaseDeal | None, events: Iterable[Event], currency: str | None
) -> DealState:
    """Apply the events of one deal to what the export holds of it.

    Parameters
    ----------
    base : None where the export does not know the deal
    events : in any order
    currency : the amounts' currency; None where none is known yet

    Returns
    -------
    DealState
        Depends on the set of events alone. Of two that tell the same column the later one counts, by the time
        when it happened, then when it was recorded, then its id.

    Notes
    -----
    A deal that the export knows keeps its ``created_at``. Of another one it is what an event says, else the
    time of the first event about it. What contradicts the tables' rules (a stage entered before the deal was
    created, say) is set aside and kept: a later event may mend it.
    """
    ordered = sorted(events, key=lambda event: event.order)
    row = _first_row(deal_id, base, ordered)
    if row is None:
        return DealState(waiting=[event.event_id for event in ordered])
    state = DealState(row)
    _write_columns(state, row, base, ordered, currency)
    _close(state, row, ordered)
    _enter_stages(state, row, base, ordered)
    _involve(state, row, base, ordered)
    state.activities = [
        {
            "deal_id": deal_id,
            "by": event.content["by"],
            "kind": event.content.get("kind"),
            "happened_at": event.happened_at,
            "recorded_at": event.recorded_at,
        }
        for event in ordered
        if event.kind == "activity"
    ]
    return state


def _first_row(deal_id: str, base: BaseDeal | None, ordered: Sequence[Event]) -> Row | None:
    """Return the deal's row before the events; None where its partner or customer was never told."""
    if base is not None:
        return dict(base.row)
    told: Row = {}
    for event in ordered:
        told.update({name: value for name, value in event.part("deal").items() if value is not None})
    if told.get("partner_id") is None or told.get("customer_id") is None:
        return None
    starts = [event.happened_at for event in ordered if event.kind in ("deal", "stage")]
    created = told.get("created_at") or min(starts)
    return {"deal_id": deal_id, "created_at": created, "outcome": "open", "closed_at": None}


def _write_columns(
    state: DealState, row: Row, base: BaseDeal | None, ordered: Sequence[Event], currency: str | None
) -> None:
    writes: dict[str, list[tuple[Event, Any]]] = {}
    for event in ordered:
        for name, value in event.part("deal").items():
            is_key = name in ("partner_id", "customer_id")
            if name not in FIXED and not (is_key and value is None):
                writes.setdefault(name, []).append((event, value))
    foreign = _foreign(writes.get("currency", ()), currency)
    if foreign is not None:
        state.set_aside[foreign.event_id] = (
            f"deal: currency should be {currency}, as in the tables; the amount was not taken: convert it."
        )
        writes["amount"] = [(foreign, None)]
        del writes["currency"]
    for name, written in writes.items():
        _write(state, row, base, name, written)


def _foreign(written: Sequence[tuple[Event, Any]], currency: str | None) -> Event | None:
    """Return the event that says last that the amount is in another currency; None if it is not."""
    if not written or currency is None:
        return None
    event, value = written[-1]
    return event if value not in (None, currency) else None


def _write(
    state: DealState, row: Row, base: BaseDeal | None, name: str, written: Sequence[tuple[Event, Any]]
) -> None:
    """Give a column its last value, and its history where it ever held another."""
    earlier = list(base.changed.get(name, ())) if base else []
    before = row.get(name)
    if not (earlier and max(earlier) > written[-1][0].happened_at):
        row[name] = written[-1][1]
    if name in _NO_HISTORY:
        return
    created = row["created_at"]
    floor = created if base is None else created + _TICK
    held = {max(event.happened_at, floor): (value, event.recorded_at) for event, value in written}
    if base is not None and not earlier:
        held = {created: (before, created), **held}
    moved = _moves(held)
    if len(moved) < 2 and not earlier:
        return  # as the deal came into the CRM, so it is
    taken = set(earlier)
    for at, value, recorded in moved:
        while at in taken:
            at += _TICK
        taken.add(at)
        state.changes.append(
            {
                "deal_id": row["deal_id"],
                "column": name,
                "value": as_change(value),
                "changed_at": at,
                "recorded_at": max(at, recorded),
            }
        )


def _moves(held: Mapping[datetime, tuple[Any, datetime]]) -> list[tuple[datetime, Any, datetime]]:
    """Return when the value moved, to what, and when that was recorded: in order, without repetitions."""
    moved: list[tuple[datetime, Any, datetime]] = []
    for at in sorted(held):
        value, recorded = held[at]
        if not moved or value != moved[-1][1]:
            moved.append((at, value, recorded))
    return moved


def as_change(value: Any) -> str | None:
    """Return a value as ``deal_changes`` tells it: as text."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value).lower() if isinstance(value, bool) else repr(float(value))


def _close(state: DealState, row: Row, ordered: Sequence[Event]) -> None:
    """Take the last outcome that can be; the export's own, or open, where the events tell none."""
    told = [
        (event, part)
        for event in ordered
        if (part := event.content if event.kind == "outcome" else event.part("deal")).get("outcome")
    ]
    for event, part in reversed(told):
        closed = None if part["outcome"] == "open" else part.get("closed_at") or event.happened_at
        if closed is None or closed >= row["created_at"]:
            row["outcome"], row["closed_at"] = part["outcome"], closed
            return
        state.set_aside[event.event_id] = "outcome: closed_at should not lie before the deal's created_at."


def _enter_stages(state: DealState, row: Row, base: BaseDeal | None, ordered: Sequence[Event]) -> None:
    known = set(base.entries) if base else set()
    entered = sorted(
        (event for event in ordered if event.kind == "stage"), key=lambda event: event.recorded_at
    )  # of two that tell the same entry, the one recorded first
    for event in entered:
        entry = event.content["stage"], event.happened_at
        if event.happened_at < row["created_at"]:
            state.set_aside[event.event_id] = (
                "stage: happened_at should not lie before the deal's created_at."
            )
        elif entry not in known:
            known.add(entry)
            state.entries.append(
                {
                    "deal_id": row["deal_id"],
                    "stage": entry[0],
                    "entered_at": entry[1],
                    "recorded_at": event.recorded_at,
                }
            )


def _involve(state: DealState, row: Row, base: BaseDeal | None, ordered: Sequence[Event]) -> None:
    """Gather the events of each involvement; one that the export holds is known by when it started."""
    state.involvements = [dict(each) for each in base.involvements] if base else []
    at_start = {each["started_at"]: each for each in state.involvements}
    told: dict[str, list[Event]] = {}
    for event in ordered:
        if event.kind == "involvement":
            told.setdefault(event.content.get("involvement_id") or event.event_id, []).append(event)
    for involvement_id in sorted(told):
        events = told[involvement_id]
        started = _started(events)
        if started is None:
            state.waiting += [event.event_id for event in events]
            continue
        when, recorded = started
        there = at_start.get(when)
        if there is None:
            there = {"deal_id": row["deal_id"], "started_at": when, "recorded_at": recorded}
            state.involvements.append(there)
        _fill(state, there, events)


def _started(events: Sequence[Event]) -> tuple[datetime, datetime] | None:
    """Return when an involvement started, and when that was first recorded; None where nobody said."""
    said = [event for event in events if event.content.get("started_at")]
    plain = [event for event in events if not event.content.get("ended_at")]
    if said:
        when = said[-1].content["started_at"]
        return when, min(event.recorded_at for event in said)
    if plain:
        return min(event.happened_at for event in plain), min(event.recorded_at for event in plain)
    return None


def _fill(state: DealState, there: Row, events: Sequence[Event]) -> None:
    for event in events:
        for name in ("kind", "hours"):
            if event.content.get(name) is not None:
                there[name] = event.content[name]
        ended = event.content.get("ended_at")
        if ended is not None and ended < there["started_at"]:
            state.set_aside[event.event_id] = "involvement: ended_at should not lie before started_at."
        elif ended is not None:
            there["ended_at"] = ended

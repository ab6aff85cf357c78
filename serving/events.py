"""Reads what happens in the CRM: deals, stages, involvements, outcomes and activities, as they come."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from features.events import KINDS, Event
from serving.crm_fields import SOME_TEXT, FieldReader, as_json
from serving.fields import LONGEST_ID, Where, not_json, parse
from serving.problems import FieldError, InvalidRequest

MOST_EVENTS = 1000
COMMON = ("event_id", "kind", "deal_id", "happened_at", "recorded_at")
CONTENT: Mapping[str, tuple[str, ...]] = {
    "deal": ("deal", "partner", "customer", "relationship"),
    "stage": ("stage",),
    "involvement": ("involvement",),
    "outcome": ("outcome", "closed_at"),
    "activity": ("activity",),
}
INVOLVEMENT = ("involvement_id", "started_at", "ended_at", "kind", "hours")
ACTIVITY = ("by", "kind")
TOUCHED_BY = ("vendor", "partner")
_SOMETHING = "at least one of deal, partner, customer, relationship"


@dataclass(frozen=True)
class EventTold:
    """An event as it came, and as the database keeps it."""

    event: Event
    payload: str
    """Its content, and when it was recorded, as JSON with names in order: the same content, the same text."""


def read_events(body: bytes, now: datetime) -> list[EventTold]:
    """Read ``{"events": [...]}`` with 1 to 1,000 events; one that is wrong refuses them all, by its place.

    Parameters
    ----------
    now : in UTC; nothing happened after it

    Raises
    ------
    NotJson, InvalidRequest
        The body is not JSON; fields to mend.
    """
    content, is_json = parse(body)
    if not is_json:
        raise not_json()
    expected = f"a list of 1 to {MOST_EVENTS:,} events"
    if not isinstance(content, dict) or not isinstance(content.get("events"), list):
        raise InvalidRequest([FieldError("events", expected)])
    reader = FieldReader(now, [])
    reader.known_fields(content, ("events",), ())
    if not 1 <= len(content["events"]) <= MOST_EVENTS:
        reader.say(("events",), expected)
        raise InvalidRequest(reader.errors)
    told = [_event(reader, each, ("events", place)) for place, each in enumerate(content["events"])]
    if reader.errors:
        raise InvalidRequest(reader.errors)
    return [each for each in told if each is not None]


def outcome_event(outcome: Mapping[str, Any], now: datetime) -> list[EventTold]:
    """Make the event of an outcome as the journal keeps it, with its ``outcome_id`` and ``received_at``.

    A deal that closed at a time that nobody told closed when it was told.
    """
    closed_at = outcome.get("closed_at")
    event = {
        "event_id": _id_of_outcome(outcome["outcome_id"]),
        "kind": "outcome",
        "deal_id": outcome["deal_id"],
        "happened_at": closed_at or outcome["received_at"],
        "outcome": outcome["outcome"],
        "closed_at": closed_at,
    }
    return read_events(orjson.dumps({"events": [event]}), now)


def _id_of_outcome(outcome_id: str) -> str:
    event_id = f"outcome:{outcome_id}"
    if len(event_id) <= LONGEST_ID:
        return event_id
    # Not cut: what differs at its end still differs.
    return f"outcome:{hashlib.sha256(outcome_id.encode()).hexdigest()}"


def event_of(row: Mapping[str, Any]) -> Event:
    """Return an event as the table ``events`` keeps it."""
    content = orjson.loads(row["payload"])
    recorded = content.pop("recorded_at", None)
    return Event(
        event_id=row["event_id"],
        kind=row["kind"],
        deal_id=row["deal_id"],
        happened_at=row["happened_at"],
        recorded_at=datetime.fromisoformat(recorded) if recorded else row["received_at"],
        received_at=row["received_at"],
        content=with_times(content),
    )


_TIMES: Mapping[str, frozenset[str]] = {
    "": frozenset({"closed_at", "started_at", "ended_at", "stage_entered_at", "as_of"}),
    "deal": frozenset({"created_at", "closed_at"}),
    "partner": frozenset({"joined_at"}),
    "relationship": frozenset({"since"}),
    "stage_entries": frozenset({"entered_at", "recorded_at"}),
    "involvements": frozenset({"started_at", "ended_at"}),
}


def with_times(content: Mapping[str, Any], part: str = "") -> dict[str, Any]:
    """Read the times of an event's or a form's content, which JSON has as texts."""
    return {name: _with_times(value, name, part) for name, value in content.items()}


def _with_times(value: Any, name: str, part: str) -> Any:
    if isinstance(value, dict):
        return with_times(value, name)
    if isinstance(value, list):
        return [with_times(each, name) for each in value]
    is_time = isinstance(value, str) and name in _TIMES.get(part, ())
    return datetime.fromisoformat(value) if is_time else value


def _event(reader: FieldReader, content: Any, where: Where) -> EventTold | None:
    if not isinstance(content, dict):
        return reader.say(where, "an object with event_id, kind, deal_id and happened_at")
    before = len(reader.errors)
    kind = reader.one_of(content.get("kind"), KINDS, (*where, "kind"))
    if kind is not None:
        reader.known_fields(content, (*COMMON, *CONTENT[kind]), where)
    event_id = reader.an_id(content.get("event_id"), (*where, "event_id"))
    deal_id = reader.an_id(content.get("deal_id"), (*where, "deal_id"))
    happened = reader.time(content.get("happened_at"), (*where, "happened_at"))
    recorded = content.get("recorded_at")
    if recorded is not None:
        recorded = reader.time(recorded, (*where, "recorded_at"))
    told = {} if kind is None else _READ[kind](reader, content, where)
    if len(reader.errors) > before:
        return None
    assert kind in KINDS
    assert event_id is not None
    assert deal_id is not None
    assert happened is not None
    kept = as_json(told) | ({"recorded_at": recorded.isoformat()} if recorded else {})
    payload = orjson.dumps(kept, option=orjson.OPT_SORT_KEYS).decode()
    return EventTold(
        Event(event_id, kind, deal_id, happened, recorded or reader.now, reader.now, told), payload
    )


def _deal(reader: FieldReader, content: Mapping[str, Any], where: Where) -> dict[str, Any]:
    told = {
        name: reader.table(content[name], name, (*where, name))
        for name in CONTENT["deal"]
        if content.get(name) is not None
    }
    if not told:
        reader.say(where, _SOMETHING)
    deal = told.get("deal", {})
    _closing(reader, deal, (*where, "deal"))
    for name, keys in (
        ("partner", ("partner_id",)),
        ("customer", ("customer_id",)),
        ("relationship", ("partner_id", "customer_id")),
    ):
        for key in keys if name in told else ():
            told[name][key] = told[name].get(key) or deal.get(key)
            if told[name][key] is None:
                reader.say((*where, name, key), "an id, here or in deal")
    return told


def _closing(reader: FieldReader, content: Mapping[str, Any], where: Where) -> None:
    if content.get("closed_at") is not None and content.get("outcome") not in ("won", "lost"):
        reader.say((*where, "closed_at"), "nothing, unless outcome is won or lost")


def _stage(reader: FieldReader, content: Mapping[str, Any], where: Where) -> dict[str, Any]:
    return {"stage": reader.text(content.get("stage"), (*where, "stage"), SOME_TEXT)}


def _involvement(reader: FieldReader, content: Mapping[str, Any], where: Where) -> dict[str, Any]:
    told = content.get("involvement")
    return {} if told is None else involvement(reader, told, (*where, "involvement"))


def involvement(reader: FieldReader, told: Any, where: Where) -> dict[str, Any]:
    """Read an involvement's fields."""
    if not isinstance(told, dict):
        reader.say(where, f"an object with some of {', '.join(INVOLVEMENT)}")
        return {}
    reader.known_fields(told, INVOLVEMENT, where)
    kinds = dict(zip(INVOLVEMENT, ("text", "time", "time", "text", "number"), strict=True))
    return {
        name: reader.value(told[name], kinds[name], name, (*where, name))  # type: ignore[arg-type]
        for name in INVOLVEMENT
        if told.get(name) is not None
    }


def _outcome(reader: FieldReader, content: Mapping[str, Any], where: Where) -> dict[str, Any]:
    told: dict[str, Any] = {
        "outcome": reader.value(content.get("outcome") or "", "text", "outcome", (*where, "outcome"))
    }
    if content.get("closed_at") is not None:
        told["closed_at"] = reader.time(content["closed_at"], (*where, "closed_at"))
    _closing(reader, told, where)
    return told


def _activity(reader: FieldReader, content: Mapping[str, Any], where: Where) -> dict[str, Any]:
    told, place = content.get("activity"), (*where, "activity")
    if not isinstance(told, dict):
        reader.say(place, f"an object with {' and '.join(ACTIVITY)}")
        return {}
    reader.known_fields(told, ACTIVITY, place)
    kind = told.get("kind")
    return {
        "by": reader.one_of(told.get("by"), TOUCHED_BY, (*place, "by")),
        "kind": None if kind is None else reader.text(kind, (*place, "kind")),
    }


_READ = {
    "deal": _deal,
    "stage": _stage,
    "involvement": _involvement,
    "outcome": _outcome,
    "activity": _activity,
}

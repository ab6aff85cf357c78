"""Reads a deal by its CRM fields: ``{"deal_id", "deal": {...}}``, for models learned from CRM tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from serving.crm_fields import SOME_TEXT, FieldReader, as_json
from serving.events import involvement
from serving.fields import Where
from serving.problems import InvalidRequest

FIELDS = (
    "deal_id",
    "deal",
    "stage",
    "stage_entered_at",
    "partner",
    "customer",
    "relationship",
    "stage_entries",
    "involvements",
    "as_of",
)
ENTRY = ("stage", "entered_at", "recorded_at")
MOST_ROWS = 1000
_STILL_OPEN = "open, or nothing: advice is for open deals"

Form = dict[str, Any]
"""A deal by value as JSON has it: the fields of `features.by_value.DealByValue`, times as texts in UTC."""


def is_deal_form(content: Any) -> bool:
    """Whether a deal is told by its CRM fields rather than by a model's features."""
    return isinstance(content, dict) and "deal" in content and "features" not in content


def read_deal_form(content: Mapping[str, Any], now: datetime, where: Where = ()) -> Form:
    """Read one deal, a body or an element of a batch, as JSON gave it.

    Parameters
    ----------
    now : in UTC; nothing that is told lies after it
    where : the deal's place in the body

    Raises
    ------
    InvalidRequest
        Fields to mend.
    """
    reader = FieldReader(now, [])
    reader.known_fields(content, FIELDS, where)
    form: Form = {"deal_id": reader.an_id(content.get("deal_id"), (*where, "deal_id"))}
    for name in FIELDS[1:]:
        if content.get(name) is not None or name == "deal":
            form[name] = _READ[name](reader, content.get(name), (*where, name))
    _whose(reader, form, where)
    if form.get("deal") and form["deal"].get("outcome") not in (None, "open"):
        reader.say((*where, "deal", "outcome"), _STILL_OPEN)
    if form.get("deal") and form["deal"].get("closed_at") is not None:
        reader.say((*where, "deal", "closed_at"), "nothing: advice is for open deals")
    if reader.errors:
        raise InvalidRequest(reader.errors)
    read: Form = as_json(form)
    return read


def _whose(reader: FieldReader, form: Form, where: Where) -> None:
    """Take the ids of partner and customer from wherever they are told; refuse two that differ."""
    deal = form["deal"]
    for name, key in (
        ("partner", "partner_id"),
        ("customer", "customer_id"),
        ("relationship", "partner_id"),
        ("relationship", "customer_id"),
    ):
        told = form.get(name, {}).get(key)
        if told is not None and deal.get(key) not in (None, told):
            reader.say((*where, name, key), f"the same id as deal/{key}, or nothing")
        elif told is not None:
            deal[key] = told


def _rows(
    reader: FieldReader,
    told: Any,
    where: Where,
    read: Callable[[FieldReader, Any, Where], dict[str, Any]],
    needed: str,
) -> list[dict[str, Any]]:
    if not isinstance(told, list) or len(told) > MOST_ROWS:
        reader.say(where, f"a list of at most {MOST_ROWS:,} objects")
        return []
    rows = [read(reader, each, (*where, place)) for place, each in enumerate(told)]
    for place, row in enumerate(rows):
        if row.get(needed) is None:
            reader.say((*where, place, needed), "a time that has come")
    return rows


def _entry(reader: FieldReader, told: Any, where: Where) -> dict[str, Any]:
    if not isinstance(told, dict):
        reader.say(where, f"an object with some of {', '.join(ENTRY)}")
        return {}
    reader.known_fields(told, ENTRY, where)
    times = {
        name: reader.time(told[name], (*where, name)) for name in ENTRY[1:] if told.get(name) is not None
    }
    return {"stage": reader.text(told.get("stage"), (*where, "stage"), SOME_TEXT), **times}


def _table(name: str) -> Callable[[FieldReader, Any, Where], dict[str, Any]]:
    return lambda reader, told, where: reader.table(told, name, where)


def _time(reader: FieldReader, told: Any, where: Where) -> datetime | None:
    return reader.time(told, where)


_READ: Mapping[str, Callable[[FieldReader, Any, Where], Any]] = {
    "deal": _table("deal"),
    "stage": lambda reader, told, where: reader.text(told, where),
    "stage_entered_at": _time,
    "partner": _table("partner"),
    "customer": _table("customer"),
    "relationship": _table("relationship"),
    "stage_entries": lambda reader, told, where: _rows(reader, told, where, _entry, "entered_at"),
    "involvements": lambda reader, told, where: _rows(reader, told, where, involvement, "started_at"),
    "as_of": _time,
}

"""The documentation of deals by their CRM fields, of events and of the to-do list: bodies read by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.crm_fields import LONGEST_NAME, MOST_FIELDS, OUTCOMES, TABLES, Kind
from serving.deal_form import ENTRY, MOST_ROWS
from serving.events import CONTENT, INVOLVEMENT, MOST_EVENTS, TOUCHED_BY
from serving.fields import LONGEST_TEXT
from serving.openapi_records import ID_SCHEMA, MAY_BE_ID, body
from serving.todo import MOST_DEALS, SORTS, USUAL_DEALS
from training.policy import ADVICE

_REF = "#/components/schemas/"
_TIME = {
    "type": "string",
    "format": "date-time",
    "description": "UTC, if without an offset. Not in the future.",
}
_MAY_BE_TIME = {**_TIME, "type": ["string", "null"]}
_SOME_TEXT = {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}
_MAY_BE_TEXT = {**_SOME_TEXT, "type": ["string", "null"]}
_KINDS: Mapping[Kind, dict[str, Any]] = {
    "text": _MAY_BE_TEXT,
    "time": _MAY_BE_TIME,
    "number": {"type": ["number", "null"], "minimum": 0},
    "boolean": {"type": ["boolean", "null"]},
}
_OWN = {
    "type": ["number", "boolean", "string", "null"],
    "maxLength": LONGEST_TEXT,
    "description": "A column of one's own.",
}


def _table(name: str) -> dict[str, Any]:
    """Describe a deal, partner, customer or relationship."""
    properties = {column: _column(column, kind) for column, kind in TABLES[name].items()}
    schema: dict[str, Any] = {"type": "object", "title": name.title(), "properties": properties}
    if name == "relationship":
        return {**schema, "additionalProperties": False}
    names = {"maxLength": LONGEST_NAME, "minLength": 1}
    return {**schema, "additionalProperties": _OWN, "maxProperties": MOST_FIELDS, "propertyNames": names}


def _column(name: str, kind: Kind) -> dict[str, Any]:
    if name.endswith("_id"):
        return MAY_BE_ID
    if name == "outcome":
        return {"type": ["string", "null"], "enum": [*OUTCOMES, None]}
    return _KINDS[kind]


def _object(properties: Mapping[str, Any], needed: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": needed,
        "properties": dict(properties),
    }


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REF + name}


_INVOLVEMENT_KINDS: tuple[Kind, ...] = ("text", "time", "time", "text", "number")
_INVOLVEMENT = {name: _column(name, kind) for name, kind in zip(INVOLVEMENT, _INVOLVEMENT_KINDS, strict=True)}
_ENTRY = dict(zip(ENTRY, (_SOME_TEXT, _TIME, _MAY_BE_TIME), strict=True))
_PARTS = {name: {"anyOf": [_ref(f"{name.title()}Fields"), {"type": "null"}]} for name in TABLES}
_EXAMPLE_DEAL = {
    "partner_id": "P-7",
    "customer_id": "C-12",
    "created_at": "2026-01-12T09:00:00Z",
    "amount": 52000,
    "product_line": "Cloud",
    "deal_type": "new_business",
}
_EXAMPLE_EVENT = {
    "event_id": "e-1",
    "kind": "stage",
    "deal_id": "D-1001",
    "happened_at": "2026-02-03T10:00:00Z",
    "stage": "proposal",
}


def _event(kind: str) -> dict[str, Any]:
    """Describe one kind of event."""
    contents: dict[str, Any] = {
        "stage": _SOME_TEXT,
        "outcome": {"type": "string", "enum": list(OUTCOMES)},
        "closed_at": _MAY_BE_TIME,
        "involvement": {**_object(_INVOLVEMENT, []), "type": ["object", "null"]},
        "activity": _object(
            {"by": {"type": "string", "enum": list(TOUCHED_BY)}, "kind": _MAY_BE_TEXT}, ["by"]
        ),
        **_PARTS,
    }
    needed = {"stage": ["stage"], "outcome": ["outcome"], "activity": ["activity"]}.get(kind, [])
    properties = {
        "event_id": {**ID_SCHEMA, "description": "The same id is the same event."},
        "kind": {"type": "string", "enum": [kind]},
        "deal_id": ID_SCHEMA,
        "happened_at": _TIME,
        "recorded_at": _MAY_BE_TIME,
        **{name: contents[name] for name in CONTENT[kind]},
    }
    return _object(properties, ["event_id", "kind", "deal_id", "happened_at", *needed])


DEAL_SCHEMAS: dict[str, Any] = {
    **{f"{name.title()}Fields": _table(name) for name in TABLES},
    "DealForm": body(
        "DealForm",
        ["deal_id", "deal"],
        {
            "deal_id": ID_SCHEMA,
            "deal": _ref("DealFields"),
            "stage": _MAY_BE_TEXT,
            "stage_entered_at": _MAY_BE_TIME,
            **{name: _PARTS[name] for name in ("partner", "customer", "relationship")},
            "stage_entries": {
                "type": ["array", "null"],
                "maxItems": MOST_ROWS,
                "items": _object(_ENTRY, ["stage", "entered_at"]),
            },
            "involvements": {
                "type": ["array", "null"],
                "maxItems": MOST_ROWS,
                "items": _object({**_INVOLVEMENT, "started_at": _TIME}, ["started_at"]),
            },
            "as_of": _MAY_BE_TIME,
        },
        {"deal_id": "D-1001", "deal": _EXAMPLE_DEAL, "stage": "proposal"},
    )
    | {
        "description": "A deal by its CRM fields, for a model that learned from CRM tables; what the service "
        "knows of its partner, its customer and the two together is added."
    },
    "EventsTold": body(
        "EventsTold",
        ["events"],
        {
            "events": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_EVENTS,
                "items": {"oneOf": [_event(kind) for kind in CONTENT]},
            }
        },
        {"events": [_EXAMPLE_EVENT]},
    ),
}

LIST_PARAMETERS: tuple[dict[str, Any], ...] = (
    {
        "name": "sort",
        "in": "query",
        "required": False,
        "description": "Largest first; unknown last.",
        "schema": {"type": "string", "enum": list(SORTS), "default": SORTS[0]},
    },
    {
        "name": "advice",
        "in": "query",
        "required": False,
        "description": "Only deals with this advice.",
        "schema": {"type": "string", "enum": list(ADVICE)},
    },
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "Deals on a page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_DEALS, "default": USUAL_DEALS},
    },
    {
        "name": "cursor",
        "in": "query",
        "required": False,
        "description": "What the page before said is next.",
        "schema": {"type": "string"},
    },
)

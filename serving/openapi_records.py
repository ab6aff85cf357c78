"""The documentation of what is told after an answer: the bodies that `records` reads by hand."""

from __future__ import annotations

from typing import Any

from serving.fields import LONGEST_ID
from serving.records import DECISIONS, LONGEST_REASON, OUTCOMES

ID_SCHEMA: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": LONGEST_ID,
    "pattern": r"^[^\u0000-\u001f\u007f]*$",
}
MAY_BE_ID = {**ID_SCHEMA, "type": ["string", "null"]}


def body(
    title: str, needed: list[str], properties: dict[str, Any], example: dict[str, Any]
) -> dict[str, Any]:
    """Describe an object that takes no other fields."""
    return {
        "type": "object",
        "title": title,
        "additionalProperties": False,
        "required": needed,
        "properties": properties,
        "examples": [example],
    }


RECORD_SCHEMAS: dict[str, Any] = {
    "Outcome": body(
        "Outcome",
        ["deal_id", "outcome"],
        {
            "deal_id": ID_SCHEMA,
            "outcome": {"type": "string", "enum": list(OUTCOMES)},
            "closed_at": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "When it closed; UTC, if without an offset. Not in the future.",
            },
            "outcome_id": {
                **MAY_BE_ID,
                "description": "The same id is the same record; made from the content if left out.",
            },
        },
        {"deal_id": "D-1001", "outcome": "won", "closed_at": "2026-02-27T18:00:00Z"},
    ),
    "Override": body(
        "Override",
        ["deal_id", "decided", "reason"],
        {
            "deal_id": ID_SCHEMA,
            "decided": {"type": "string", "enum": list(DECISIONS)},
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST_REASON,
                "pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$",
                "description": "In the person's own words.",
            },
            "recommendation_id": {**MAY_BE_ID, "description": "The answer that was not followed."},
            "override_id": MAY_BE_ID,
        },
        {"deal_id": "D-1001", "decided": "step_back", "reason": "The partner asked us to wait."},
    ),
}

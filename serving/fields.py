"""Pieces of request bodies, read and checked by hand: JSON, ids, texts, times. No value is ever repeated."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any, TypeGuard

import orjson

from serving.problems import FieldError, NotJson, field_path

LONGEST_ID = 200
LONGEST_TEXT = 500
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
AN_ID = f"a text of 1 to {LONGEST_ID} characters without control characters"
A_MOMENT = "a time as 2025-03-31T12:00:00Z (UTC where no offset is given), or nothing"

Where = tuple[str | int, ...]
"""A place in a body, from its top: see `field_path`."""


def parse(body: bytes) -> tuple[Any, bool]:
    """Return the content, and whether all of it is JSON.

    What is JSON but for some numbers or texts (NaN, Infinity, a number beyond all floats, half of a
    surrogate pair) is read all the same, so that the field to mend can be named; it is never answered. Of
    names that come twice the last holds. Raises NotJson for everything else.
    """
    try:
        return orjson.loads(body.removeprefix(codecs.BOM_UTF8)), True
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode()), False
    except (ValueError, RecursionError):
        raise not_json() from None


def not_json() -> NotJson:
    """What to say of a body that is no JSON."""
    return NotJson("Send one JSON object in UTF-8; /docs shows one.")


def unknown_fields(content: Mapping[str, Any], known: Collection[str], where: Where) -> list[FieldError]:
    """Name the fields of an object that nobody knows."""
    expected = f"no such field: the fields are {', '.join(known)}"
    return [FieldError(field_path(*where, name), expected) for name in content if name not in known]


def is_id(value: Any) -> TypeGuard[str]:
    """Whether a value can name something: `AN_ID`."""
    if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_ID:
        return False
    if value.isascii() and value.isprintable():  # nearly all, and quickly told
        return True
    return not CONTROL.search(value) and is_unicode(value)


def is_unicode(text: str) -> bool:
    """Half of a surrogate pair is legal in JSON, but is no text and cannot be sent back."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def moment(text: Any) -> datetime:
    """Read a time, in UTC; raises ValueError for what is none."""
    try:
        read = datetime.fromisoformat(text)
        return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, OverflowError):
        raise ValueError("not a time") from None

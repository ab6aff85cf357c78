"""Reads request bodies: by hand, so that every refusal names its field in our own words, and quickly."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

import orjson

from serving.problems import FieldError, InvalidRequest, NotJson, field_path
from training.scorecard import BadValue

MOST_DEALS = 1000
LONGEST_ID = 200
LONGEST_TEXT = 500
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
FIELDS = ("deal_id", "features", "as_of")

Value = float | bool | str | None


@dataclass(frozen=True)
class DealAsked:
    """One deal to advise on, read and checked."""

    deal_id: str
    features: dict[str, Value]
    as_of: datetime | None
    """When the facts were so, in UTC; None for now."""


@dataclass(frozen=True)
class Reader:
    """Reads request bodies for one model.

    Parameters
    ----------
    names : the model's features
    check : raises `BadValue` for values that the model cannot take
    """

    names: frozenset[str]
    check: Callable[[Mapping[str, Any]], None]

    def one(self, body: bytes) -> DealAsked:
        """Read a body with one deal; raises NotJson or InvalidRequest."""
        errors: list[FieldError] = []
        content, is_json = _parse(body)
        deal = self._deal(content, (), errors)
        if deal is None:
            raise InvalidRequest(errors)
        if not is_json:
            raise _not_json()
        return deal

    def many(self, body: bytes) -> list[DealAsked]:
        """Read a body of 1 to 1,000 deals; one that is wrong refuses them all, by its place."""
        content, is_json = _parse(body)
        if not isinstance(content, dict) or not isinstance(content.get("deals"), list):
            raise InvalidRequest([FieldError("deals", f"a list of 1 to {MOST_DEALS:,} deals")])
        errors = _unknown_fields(content, ("deals",), ())
        deals = content["deals"]
        if not 1 <= len(deals) <= MOST_DEALS:
            errors.append(FieldError("deals", f"1 to {MOST_DEALS:,} deals in one request"))
            raise InvalidRequest(errors)
        read = [self._deal(each, ("deals", place), errors) for place, each in enumerate(deals)]
        if errors:
            raise InvalidRequest(errors)
        if not is_json:
            raise _not_json()
        return [deal for deal in read if deal is not None]

    def _deal(self, content: Any, where: tuple[str | int, ...], errors: list[FieldError]) -> DealAsked | None:
        """Return the deal, or None with what is wrong added to `errors`."""
        before = len(errors)
        if not isinstance(content, dict):
            errors.append(FieldError(field_path(*where), "an object with deal_id and features"))
            return None
        errors += _unknown_fields(content, FIELDS, where)
        if not _is_id(content.get("deal_id")):
            expected = f"a text of 1 to {LONGEST_ID} characters without control characters"
            errors.append(FieldError(field_path(*where, "deal_id"), expected))
        as_of = self._moment(content, where, errors)
        features = self._features(content.get("features"), (*where, "features"), errors)
        return None if len(errors) > before else DealAsked(content["deal_id"], features, as_of)

    def _features(
        self, content: Any, where: tuple[str | int, ...], errors: list[FieldError]
    ) -> dict[str, Value]:
        if not isinstance(content, dict):
            errors.append(FieldError(field_path(*where), "an object: the model's features and their values"))
            return {}
        for name, value in content.items():
            try:
                self._check(name, value)
            except BadValue as bad:
                errors.append(FieldError(field_path(*where, name), bad.expected))
        return content

    def _check(self, name: str, value: Any) -> None:
        if name not in self.names:
            raise BadValue(name, f"a feature of the model{self._nearest(name)}")
        if value is None:
            return
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise BadValue(name, "a finite number, or null where it is not known")
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or not _is_unicode(value)):
            raise BadValue(name, f"a text of at most {LONGEST_TEXT} characters")
        self.check({name: value})

    def _nearest(self, name: str) -> str:
        near = get_close_matches(name[:LONGEST_ID], sorted(self.names), n=3)
        return f" (did you mean {' or '.join(near)}?)" if near else " (GET /v1/model lists them)"

    def _moment(
        self, content: Mapping[str, Any], where: tuple[str | int, ...], errors: list[FieldError]
    ) -> datetime | None:
        text = content.get("as_of")
        if text is None:
            return None
        try:
            moment = datetime.fromisoformat(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (TypeError, ValueError, OverflowError):
            expected = "a time as 2025-03-31T12:00:00Z (UTC where no offset is given), or nothing"
            errors.append(FieldError(field_path(*where, "as_of"), expected))
            return None


def _parse(body: bytes) -> tuple[Any, bool]:
    """Return the content, and whether all of it is JSON.

    What is JSON but for some numbers or texts (NaN, Infinity, a number beyond all floats, half of a
    surrogate pair) is read all the same, so that the field to mend can be named; it is never answered. Of
    names that come twice the last holds.
    """
    try:
        return orjson.loads(body.removeprefix(codecs.BOM_UTF8)), True
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(body.decode()), False
    except (ValueError, RecursionError):
        raise _not_json() from None


def _not_json() -> NotJson:
    return NotJson("Send one JSON object in UTF-8; /docs shows one.")


def _unknown_fields(
    content: Mapping[str, Any], known: tuple[str, ...], where: tuple[str | int, ...]
) -> list[FieldError]:
    expected = f"no such field: the fields are {', '.join(known)}"
    return [FieldError(field_path(*where, name), expected) for name in content if name not in known]


def _is_id(value: Any) -> bool:
    return (
        isinstance(value, str)
        and 1 <= len(value) <= LONGEST_ID
        and not CONTROL.search(value)
        and _is_unicode(value)
    )


def _is_unicode(text: str) -> bool:
    """Half of a surrogate pair is legal in JSON, but is no text and cannot be sent back."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)

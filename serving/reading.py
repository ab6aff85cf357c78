"""Reads request bodies: by hand, so that every refusal names its field in our own words, and quickly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from typing import Any

from serving.fields import (
    A_MOMENT,
    AN_ID,
    LONGEST_ID,
    LONGEST_TEXT,
    Where,
    is_id,
    is_unicode,
    moment,
    not_json,
    parse,
    unknown_fields,
)
from serving.problems import FieldError, InvalidRequest, field_path
from training.scorecard import BadValue

MOST_DEALS = 1000
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
        content, is_json = parse(body)
        deal = self._deal(content, (), errors)
        if deal is None:
            raise InvalidRequest(errors)
        if not is_json:
            raise not_json()
        return deal

    def many(self, body: bytes) -> list[DealAsked]:
        """Read a body of 1 to 1,000 deals; one that is wrong refuses them all, by its place."""
        content, is_json = parse(body)
        if not isinstance(content, dict) or not isinstance(content.get("deals"), list):
            raise InvalidRequest([FieldError("deals", f"a list of 1 to {MOST_DEALS:,} deals")])
        errors = unknown_fields(content, ("deals",), ())
        deals = content["deals"]
        if not 1 <= len(deals) <= MOST_DEALS:
            errors.append(FieldError("deals", f"1 to {MOST_DEALS:,} deals in one request"))
            raise InvalidRequest(errors)
        read = [self._deal(each, ("deals", place), errors) for place, each in enumerate(deals)]
        if errors:
            raise InvalidRequest(errors)
        if not is_json:
            raise not_json()
        return [deal for deal in read if deal is not None]

    def _deal(self, content: Any, where: Where, errors: list[FieldError]) -> DealAsked | None:
        """Return the deal, or None with what is wrong added to `errors`."""
        before = len(errors)
        if not isinstance(content, dict):
            errors.append(FieldError(field_path(*where), "an object with deal_id and features"))
            return None
        errors += unknown_fields(content, FIELDS, where)
        if not is_id(content.get("deal_id")):
            errors.append(FieldError(field_path(*where, "deal_id"), AN_ID))
        as_of = self._moment(content, where, errors)
        features = self._features(content.get("features"), (*where, "features"), errors)
        return None if len(errors) > before else DealAsked(content["deal_id"], features, as_of)

    def _features(self, content: Any, where: Where, errors: list[FieldError]) -> dict[str, Value]:
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
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or not is_unicode(value)):
            raise BadValue(name, f"a text of at most {LONGEST_TEXT} characters")
        self.check({name: value})

    def _nearest(self, name: str) -> str:
        near = get_close_matches(name[:LONGEST_ID], sorted(self.names), n=3)
        return f" (did you mean {' or '.join(near)}?)" if near else " (GET /v1/model lists them)"

    def _moment(self, content: Mapping[str, Any], where: Where, errors: list[FieldError]) -> datetime | None:
        text = content.get("as_of")
        if text is None:
            return None
        try:
            return moment(text)
        except ValueError:
            errors.append(FieldError(field_path(*where, "as_of"), A_MOMENT))
            return None

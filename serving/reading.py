"""Reads request bodies: by hand, so that every refusal names its field in our own words, and quickly.

A body is read twice at most. First only to see whether all of it is right, as nearly all are; where it is
not, again, slowly, to say what is to mend.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
from training.basis import BOOLEAN, CATEGORY, NUMBER, Feature
from training.scorecard import BadValue

MOST_DEALS = 1000
FIELDS = ("deal_id", "features", "as_of")

Value = float | bool | str | None
_NOTHING: frozenset[type] = frozenset()
_TYPES = {
    NUMBER: frozenset({float, int, type(None)}),
    BOOLEAN: frozenset({bool, type(None)}),
    CATEGORY: frozenset({str, type(None)}),
}


@dataclass(frozen=True, slots=True)
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
    features : the model's
    check : raises `BadValue` for values that the model cannot take
    """

    features: Sequence[Feature]
    check: Callable[[Mapping[str, Any]], None]
    types: Mapping[str, frozenset[type]] = field(init=False, repr=False)
    """What JSON may hold for each feature, as Python reads it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "types", {each.name: _TYPES[each.kind] for each in self.features})

    def one(self, body: bytes) -> DealAsked:
        """Read a body with one deal; raises NotJson or InvalidRequest."""
        errors: list[FieldError] = []
        content, is_json = parse(body)
        if is_json and (right := self._one_right(content)) is not None:
            return right
        deal = self._deal(content, (), errors)
        if deal is None:
            raise InvalidRequest(errors)
        if not is_json:
            raise not_json()
        return deal

    def many(self, body: bytes) -> list[DealAsked]:
        """Read a body of 1 to 1,000 deals; one that is wrong refuses them all, by its place."""
        content, is_json = parse(body)
        if is_json and (right := self._all_right(content)) is not None:
            return right
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

    # Is all of it right?

    def _one_right(self, content: Any) -> DealAsked | None:
        """The deal, where nothing is wrong with it; `content` is JSON, so its numbers are finite."""
        deal = _frame(content)
        return deal if deal is not None and self._is_right(deal.features) else None

    def _is_right(self, features: Mapping[str, Any]) -> bool:
        types = self.types
        for name, value in features.items():
            kind = type(value)
            if kind not in types.get(name, _NOTHING) or (kind is str and len(value) > LONGEST_TEXT):
                return False
        return True

    def _all_right(self, content: Any) -> list[DealAsked] | None:
        """The deals, where nothing is wrong with any; those of the same features are checked at once."""
        deals = content.get("deals") if type(content) is dict and len(content) == 1 else None
        if type(deals) is not list or not 1 <= len(deals) <= MOST_DEALS:
            return None
        read = []
        alike = []
        names: list[str] | None = None
        for each in deals:
            deal = _frame(each)
            if deal is None:
                return None
            read.append(deal)
            names = list(deal.features) if names is None else names
            if list(deal.features) == names:
                alike.append(deal.features.values())
            elif not self._is_right(deal.features):
                return None
        columns = zip(names or (), zip(*alike, strict=True), strict=False)
        return read if all(self._is_right_column(name, column) for name, column in columns) else None

    def _is_right_column(self, name: str, values: Sequence[Any]) -> bool:
        kinds = set(map(type, values))
        if not kinds <= self.types.get(name, _NOTHING):
            return False
        return str not in kinds or max(len(text) for text in set(values) if text is not None) <= LONGEST_TEXT

    # What is wrong with it?

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
        if name not in self.types:
            raise BadValue(name, f"a feature of the model{self._nearest(name)}")
        if value is None:
            return
        if isinstance(value, int) and abs(value) > sys.float_info.max:
            raise BadValue(name, "a finite number, or null where it is not known")
        if isinstance(value, str) and (len(value) > LONGEST_TEXT or not is_unicode(value)):
            raise BadValue(name, f"a text of at most {LONGEST_TEXT} characters")
        self.check({name: value})

    def _nearest(self, name: str) -> str:
        near = get_close_matches(name[:LONGEST_ID], sorted(self.types), n=3)
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


def _frame(content: Any) -> DealAsked | None:
    """A deal whose fields are right, but for the features' names and values, which were not looked at."""
    if type(content) is not dict:
        return None
    deal_id, features, as_of = content.get("deal_id"), content.get("features"), None
    if type(features) is not dict or not is_id(deal_id):
        return None
    if len(content) != 2:
        if len(content) != 3 or "as_of" not in content:
            return None
        try:
            as_of = None if content["as_of"] is None else moment(content["as_of"])
        except ValueError:
            return None
    return DealAsked(deal_id, features, as_of)

"""Fields of CRM objects in request bodies: a deal, a partner, a customer, their relationship."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from features import catalog
from serving.fields import AN_ID, LONGEST_TEXT, Where, is_id, is_unicode, moment
from serving.problems import FieldError, field_path

Kind = Literal["text", "time", "number", "boolean"]

# The columns of the CRM tables, but for the deal's own id; a test holds them to features.tables.
DEAL: Mapping[str, Kind] = {
    "partner_id": "text",
    "customer_id": "text",
    "created_at": "time",
    "outcome": "text",
    "closed_at": "time",
    "amount": "number",
    "currency": "text",
    "product_line": "text",
    "deal_type": "text",
    "lead_source": "text",
    "competitor": "text",
}
PARTNER: Mapping[str, Kind] = {
    "partner_id": "text",
    "partner_type": "text",
    "tier": "text",
    "region": "text",
    "employees": "number",
    "certifications": "number",
    "joined_at": "time",
}
CUSTOMER: Mapping[str, Kind] = {
    "customer_id": "text",
    "industry": "text",
    "region": "text",
    "employees": "number",
    "annual_revenue": "number",
}
RELATIONSHIP: Mapping[str, Kind] = {
    "partner_id": "text",
    "customer_id": "text",
    "since": "time",
    "executive_contact": "boolean",
}
TABLES: Mapping[str, Mapping[str, Kind]] = {
    "deal": DEAL,
    "partner": PARTNER,
    "customer": CUSTOMER,
    "relationship": RELATIONSHIP,
}
OUTCOMES = ("won", "lost", "open")
MOST_FIELDS = 200
LONGEST_NAME = 100
CLOCKS_APART = timedelta(minutes=5)
"""A time so little ahead of our clock is taken for the present: two clocks never agree."""
_STARTS = ("joined_at", "since")
_OLDEST_START = datetime(1900, 1, 2, tzinfo=UTC)
_OLDEST_EVENT = datetime(1970, 1, 2, tzinfo=UTC)

A_TIME = "a time as 2025-03-31T12:00:00Z (UTC where no offset is given)"
NOT_AHEAD = "a time that is not in the future"
NOT_BLANK = "a time that does not stand for a blank, as years such as 1 or 1900 do; else null"
A_NUMBER = "a finite number of 0 or more, or null where it is not known"
A_TEXT = f"a text of 1 to {LONGEST_TEXT} characters, or null where it is not known"
SOME_TEXT = f"a text of 1 to {LONGEST_TEXT} characters"
A_BOOLEAN = "true, false, or null where it is not known"
A_VALUE = f"a finite number, true, false, a text of at most {LONGEST_TEXT} characters, or null"


@dataclass
class FieldReader:
    """Reads the objects of one body; what is to mend gathers in `errors`.

    Parameters
    ----------
    now : in UTC; no time may lie after it
    """

    now: datetime
    errors: list[FieldError]

    def say(self, where: Where, expected: str) -> Any:
        """Note a field to mend; stands for its value."""
        self.errors.append(FieldError(field_path(*where), expected))
        return None

    def table(self, content: Any, name: str, where: Where) -> dict[str, Any]:
        """Read a deal, partner, customer or relationship: known fields, and the user's own.

        Returns
        -------
        dict
            Times as datetimes in UTC, numbers as floats; null as None. Empty where something is wrong.
        """
        if not isinstance(content, dict):
            self.say(where, f"an object: fields of the {name} and their values")
            return {}
        if len(content) > MOST_FIELDS:
            self.say(where, f"at most {MOST_FIELDS} fields")
            return {}
        known = TABLES[name]
        return {
            key: self.value(value, known[key], key, (*where, key))
            if key in known
            else self._own(value, name, key, (*where, key))
            for key, value in content.items()
        }

    def value(self, value: Any, kind: Kind, name: str, where: Where) -> Any:
        """Read a value of a known field; None is unknown."""
        if value is None:
            return None
        if kind == "time":
            return self.time(value, where, _OLDEST_START if name in _STARTS else _OLDEST_EVENT)
        if kind == "number":
            return self._number(value, where, A_NUMBER, 0.0)
        if kind == "boolean":
            if not isinstance(value, bool):
                self.say(where, A_BOOLEAN)
            return value
        if name.endswith("_id"):
            return self.an_id(value, where)
        if name == "outcome":
            return self.one_of(value, OUTCOMES, where)
        return self.text(value, where)

    def time(self, value: Any, where: Where, oldest: datetime = _OLDEST_EVENT) -> datetime | None:
        """Read a time that has come; one barely ahead is the present."""
        try:
            read = moment(value)
        except ValueError:
            return self.say(where, A_TIME)
        if read > self.now + CLOCKS_APART:
            return self.say(where, NOT_AHEAD)
        if read < oldest:
            return self.say(where, NOT_BLANK)
        return min(read, self.now)

    def text(self, value: Any, where: Where, expected: str = A_TEXT) -> str | None:
        """Read a text that says something."""
        if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_TEXT or not is_unicode(value):
            return self.say(where, expected)
        return value

    def an_id(self, value: Any, where: Where) -> str | None:
        """Read an id."""
        return value if is_id(value) else self.say(where, AN_ID)

    def one_of(self, value: Any, words: Collection[str], where: Where) -> str | None:
        """Read one of some words."""
        if isinstance(value, str) and value in words:
            return value
        return self.say(where, f"one of {', '.join(words)}")

    def known_fields(self, content: Mapping[str, Any], known: Collection[str], where: Where) -> None:
        """Refuse fields that nobody knows."""
        for name in content:
            if name not in known:
                self.say((*where, name), f"no such field: the fields are {', '.join(known)}")

    def _number(self, value: Any, where: Where, expected: str, least: float) -> float | None:
        if not isinstance(value, bool) and isinstance(value, int | float):
            try:
                number = float(value)
            except OverflowError:
                number = math.inf
            if math.isfinite(number) and number >= least:
                return number
        return self.say(where, expected)

    def _own(self, value: Any, table: str, name: str, where: Where) -> Any:
        """Read a column of the user's own; a relationship has none."""
        if table == "relationship" or name == "deal_id":
            return self.say(where, f"no such field: the fields are {', '.join(TABLES[table])}")
        if not (is_id(name) and len(name) <= LONGEST_NAME):
            return self.say(where, f"a name of 1 to {LONGEST_NAME} characters without control characters")
        if f"{table}_{name}" in _FEATURES:
            return self.say(where, "another name: with this one it would hide a feature of the same name")
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return value if len(value) <= LONGEST_TEXT and is_unicode(value) else self.say(where, A_VALUE)
        return self._number(value, where, A_VALUE, -math.inf)


_FEATURES = frozenset(catalog.names())


def as_json(value: Any) -> Any:
    """Return read values as JSON has them: times as texts in UTC."""
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: as_json(each) for name, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, list) else value

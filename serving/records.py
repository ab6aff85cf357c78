"""Reads what is told after an answer: what happened to a deal, and that a person decided otherwise."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from serving.fields import A_MOMENT, AN_ID, is_id, is_unicode, moment, not_json, parse, unknown_fields
from serving.problems import FieldError, InvalidRequest

OUTCOMES = ("won", "lost", "open")
DECISIONS = ("step_in", "step_back")
LONGEST_REASON = 2000
OUTCOME_FIELDS = ("deal_id", "outcome", "closed_at", "outcome_id")
OVERRIDE_FIELDS = ("deal_id", "decided", "reason", "recommendation_id", "override_id")
A_REASON = f"a text of 1 to {LONGEST_REASON:,} characters"

Check = Callable[[Any], bool]


def read_outcome(body: bytes, now: datetime) -> dict[str, Any]:
    """Read what happened to a deal: ``deal_id``, ``outcome``, maybe ``closed_at`` and ``outcome_id``.

    Parameters
    ----------
    now : in UTC; a deal cannot have closed after it

    Raises
    ------
    NotJson, InvalidRequest
        The body is not JSON; fields to mend.
    """
    content, errors = _object(body, OUTCOME_FIELDS, "an object with deal_id and outcome")
    _need(content, "deal_id", is_id, AN_ID, errors)
    _need(content, "outcome", _one_of(OUTCOMES), f"one of {', '.join(OUTCOMES)}", errors)
    _may(content, "outcome_id", is_id, f"{AN_ID}, or nothing", errors)
    closed_at = _closed_at(content, now, errors)
    if errors:
        raise InvalidRequest(errors)
    return {**_kept(content, OUTCOME_FIELDS), "closed_at": closed_at}


def read_override(body: bytes) -> dict[str, Any]:
    """Read that a person decided otherwise: ``deal_id``, ``decided``, ``reason``, maybe ids.

    Raises
    ------
    NotJson, InvalidRequest
        The body is not JSON; fields to mend.
    """
    content, errors = _object(body, OVERRIDE_FIELDS, "an object with deal_id, decided and reason")
    _need(content, "deal_id", is_id, AN_ID, errors)
    _need(content, "decided", _one_of(DECISIONS), f"one of {', '.join(DECISIONS)}", errors)
    _need(content, "reason", _is_reason, A_REASON, errors)
    for name in ("recommendation_id", "override_id"):
        _may(content, name, is_id, f"{AN_ID}, or nothing", errors)
    if errors:
        raise InvalidRequest(errors)
    return _kept(content, OVERRIDE_FIELDS)


def _object(body: bytes, known: tuple[str, ...], expected: str) -> tuple[dict[str, Any], list[FieldError]]:
    content, is_json = parse(body)
    if not is_json:
        raise not_json()
    if not isinstance(content, dict):
        raise InvalidRequest([FieldError("", expected)])
    return content, unknown_fields(content, known, ())


def _need(content: dict[str, Any], name: str, holds: Check, expected: str, errors: list[FieldError]) -> None:
    if not holds(content.get(name)):
        errors.append(FieldError(name, expected))


def _may(content: dict[str, Any], name: str, holds: Check, expected: str, errors: list[FieldError]) -> None:
    if content.get(name) is not None:
        _need(content, name, holds, expected, errors)


def _one_of(words: tuple[str, ...]) -> Check:
    return lambda value: isinstance(value, str) and value in words


def _is_reason(value: Any) -> bool:
    return (
        isinstance(value, str)
        and bool(value.strip())
        and len(value) <= LONGEST_REASON
        and "\x00" not in value
        and is_unicode(value)
    )


def _closed_at(content: dict[str, Any], now: datetime, errors: list[FieldError]) -> datetime | None:
    """When it closed; an open deal has not, and nothing closed tomorrow."""
    if content.get("closed_at") is None:
        return None
    try:
        closed_at = moment(content["closed_at"])
    except ValueError:
        errors.append(FieldError("closed_at", A_MOMENT))
        return None
    if content.get("outcome") == "open":
        errors.append(FieldError("closed_at", "nothing: an open deal has not closed"))
    elif closed_at > now:
        errors.append(FieldError("closed_at", "a time that is not in the future"))
    return closed_at


def _kept(content: dict[str, Any], fields: tuple[str, ...]) -> dict[str, Any]:
    return {name: content[name] for name in fields if content.get(name) is not None}

"""Tells bodies with CRM fields from those with a model's own features, at the cost of a search for a word."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from serving.deal_form import Form, is_deal_form, read_deal_form
from serving.fields import not_json, parse
from serving.problems import FieldError, InvalidRequest

MOST_FORMS = 200
"""Deals by their CRM fields in one request: building their facts takes a second, and others wait for it."""
_WORD = b'"deal"'
_AT_MOST = f"at most {MOST_FORMS} deals by their CRM fields in one request"
_ONE_KIND = "deals that all bring features, or all bring CRM fields (deal)"


def read_form(body: bytes, now: datetime) -> Form | None:
    """Read one deal by its CRM fields; None where the body brings something else.

    Raises
    ------
    NotJson, InvalidRequest
        The body is not JSON; fields to mend.
    """
    content = _content(body)
    return read_deal_form(content, now) if is_deal_form(content) else None


def read_forms(body: bytes, now: datetime) -> list[Form] | None:
    """Read a batch of deals by their CRM fields; None where the body brings something else.

    Raises
    ------
    NotJson, InvalidRequest
        The body is not JSON; fields to mend, of the first deal that has any.
    """
    content = _content(body)
    deals = content.get("deals") if isinstance(content, dict) else None
    if not isinstance(deals, list) or not any(is_deal_form(each) for each in deals):
        return None
    if not all(is_deal_form(each) for each in deals) or set(content) != {"deals"}:
        raise InvalidRequest([FieldError("deals", _ONE_KIND)])
    if len(deals) > MOST_FORMS:
        raise InvalidRequest([FieldError("deals", _AT_MOST)])
    return [read_deal_form(each, now, ("deals", place)) for place, each in enumerate(deals)]


def _content(body: bytes) -> Any:
    """The content of a body that may bring CRM fields; None for one that can't."""
    if _WORD not in body:
        return None
    content, is_json = parse(body)
    if not is_json:
        raise not_json()
    return content

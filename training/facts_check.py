"""Facts that are used later are what their users expect: a sentence about the one that is not."""

import re
from collections.abc import Callable, Mapping
from typing import Any

LONGEST_TEXT = 2000
LONGEST_NAME = 200
MOST_STAGES = 200
MOST_SETTINGS = 50
LARGEST = 1e9
# What moves a cursor or turns the order of letters round, on a terminal or a page.
_NOT_SHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def misfit(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the first fact that nothing could be made of and what it should be; None if there is none."""
    for name, (fits, expected) in _EXPECTED.items():
        if facts.get(name) is not None and not fits(facts[name]):
            return name, expected
    return None


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= LONGEST_NAME and not _NOT_SHOWN.search(value)


def _is_version(value: Any) -> bool:
    return _is_name(value) or (isinstance(value, int) and not isinstance(value, bool))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT and not _NOT_SHOWN.search(value)


def _is_feature(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= LARGEST


def _are_stages(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > MOST_STAGES:
        return False
    return all(isinstance(each, str) and len(each) <= LONGEST_TEXT for each in value) and (
        len(set(value)) == len(value)
    )


def _are_settings(value: Any) -> bool:
    if not isinstance(value, dict) or len(value) > MOST_SETTINGS:
        return False
    texts = [*value, *(each for each in value.values() if isinstance(each, str))]
    plain = None | int | float | str
    return all(_is_name(text) for text in texts) and all(isinstance(each, plain) for each in value.values())


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


_NAME = (_is_name, f"a text of at most {LONGEST_NAME} characters without control characters")
_OBJECT = (_is_object, "an object")
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "name": _NAME,
    "version": (_is_version, _NAME[1]),
    "trained_at": _NAME,
    "question": (_is_text, f"a text of at most {LONGEST_TEXT} characters without control characters"),
    "source_kind": _NAME,
    "currency": _NAME,
    "amount_feature": (_is_feature, f"the name of a feature, at most {LONGEST_TEXT} characters"),
    "stage_order": (_are_stages, f"a list of at most {MOST_STAGES} different texts"),
    "bias_per_unit_strength": (_is_number, f"a number from 0 to {LARGEST:g}"),
    "learned_from": _OBJECT,
    "evaluation": _OBJECT,
    "doubts": _OBJECT,
    "policy": (_are_settings, "an object of numbers and short texts"),
}

"""The report's section "How far to trust it": the doubts in the words of a sales lead."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from features import catalog
from training.doubt import ASSUMPTIONS
from training.verdict import amount

_MOST_MISSING = 10
_NAMES_IN_A_SENTENCE = 3
_QUESTIONS = (
    (
        "placebo",
        "Choices dealt out anew, at random among a partner's decisions in the same stage, have no effect.",
        "The method finds effects where there are none: its intervals are too narrow here, or it is broken.",
    ),
    (
        "negative_control",
        "Stepping in can't have changed whether the stage before it was passed quicker than usual.",
        "People go by how a deal has moved, or by what lies behind that. The pace is on record and adjusted "
        "for; what lies behind it may not be.",
    ),
    (
        "future_involvement",
        "Among deals the vendor had not been on, those it joins next should not have moved quicker, or "
        "slower, before.",
        "Help comes to deals that were moving differently already. The pace is on record and adjusted for; "
        "what lies behind it may not be.",
    ),
)


def view(facts: Mapping[str, Any], outcome: str) -> dict[str, Any]:
    """What ``report_doubts.html.j2`` shows.

    Parameters
    ----------
    facts : what is known about the model, with the key ``doubts`` as `training.doubt.doubts` returns it;
        what is missing there is left out of the page
    outcome : ``binary`` or ``numeric``
    """
    doubts = facts.get("doubts") or {}
    overlap = doubts.get("overlap") or {}
    missing = list((doubts.get("missing") or {}).items())[:_MOST_MISSING]
    erase, per_unit = doubts.get("strength_to_erase"), doubts.get("bias_per_unit_strength")
    checks = _checks(doubts, outcome)
    return {
        "doubts": {
            "outside": overlap.get("share_outside"),
            "rules": overlap.get("rules") or [],
            "missing": [(_label(facts, name), share) for name, share in missing],
            "clipped": doubts.get("clipped_share"),
            "measure": _label(facts, doubts.get("measure") or ""),
            "winning": "winning them" if outcome == "binary" else "what comes of them",
            "erase": None if erase is None else f"{erase:.1f}",
            "per_unit": None if per_unit is None else _size(per_unit, outcome).removeprefix("+"),
            "checks": checks,
            "asked": sum(check["holds"] is not None for check in checks),
            "held": sum(check["holds"] is True for check in checks),
            "influence": _influence(doubts.get("influence"), outcome),
        },
        "assumptions": ASSUMPTIONS,
    }


def _checks(doubts: Mapping[str, Any], outcome: str) -> list[dict[str, Any]]:
    """Each question whose answer must be nothing: what was found, and how to read it."""
    rows = []
    for name, must_be, otherwise in _QUESTIONS:
        answer = doubts.get(name)
        if not answer:
            continue
        unit = outcome if name == "placebo" else "binary"
        holds = answer["holds"]
        reading = f"Not asked: {answer['why_not']}." if holds is None else "Nothing, as it should be."
        rows.append(
            {
                "must_be": must_be,
                "found": _found(answer, unit),
                "holds": holds,
                "reading": otherwise if holds is False else reading,
                "n": answer["n"],
            }
        )
    return rows


def _found(answer: Mapping[str, Any], outcome: str) -> str:
    """The estimate with its interval; of several tries each, and how many intervals hold zero."""
    estimate = answer["estimate"]
    if estimate is None:
        return ""
    tries = answer.get("tries")
    if tries:
        sizes = ", ".join(_size(each["value"], outcome) for each in tries)
        return f"{sizes}; {answer['held']} of {len(tries)} intervals hold zero"
    low, high = (_size(estimate[end], outcome).removesuffix(" points") for end in ("lo", "hi"))
    return f"{_size(estimate['value'], outcome)} (95% interval {low} to {high})"


def _influence(found: Mapping[str, Any] | None, outcome: str) -> dict[str, Any] | None:
    if not found:
        return None
    return {
        "average": _size(found["average"], outcome),
        "lo": _size(found["lo"], outcome),
        "hi": _size(found["hi"], outcome),
        "n_partners": found["n_partners"],
        "turns_sign": _without_whom(found["turns_sign"], "zero", "changes its sign"),
        "crosses_break_even": _without_whom(
            found["crosses_break_even"], "the break-even", "moves it to the other side"
        ),
        "largest": [
            {
                "partner": each["partner"],
                "share": each["share"],
                "without": _size(each["without"], outcome),
                "change": _size(each["change"], outcome),
            }
            for each in found["largest"]
        ],
    }


def _without_whom(beyond: Mapping[str, Any], line: str, what: str) -> str:
    """On whom it rests that the average lies on this side of the line; empty where on nobody alone."""
    n, names = beyond["n"], beyond["partners"][:_NAMES_IN_A_SENTENCE]
    if n == 0:
        return ""
    if n <= _NAMES_IN_A_SENTENCE:
        return f"Leaving out {' or '.join(names)} {what}: take it with care."
    return f"It lies so near {line} that leaving out any one of {n:,} partners {what}."


def _label(facts: Mapping[str, Any], name: str) -> str:
    """What the catalog calls a feature of CRM tables; a column of one's own keeps its name."""
    return catalog.feature(name).label if facts.get("source_kind") == "crm" else name


def _size(value: float | None, outcome: str) -> str:
    return amount(value, outcome) if value is not None and math.isfinite(value) else "not known"

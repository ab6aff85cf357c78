"""The report's sections on the question, as a trial, and on what the data can and cannot say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_ESTIMANDS = {
    "wait": (
        "Now against wait",
        "Stepping in now is compared with stepping back now; what is chosen later is left to nature, as it "
        "was in the past. It is the number for the decision at hand, and as a rule nearer to zero than what "
        "help is worth in all, since some of the deals left alone now get help later.",
    ),
    "never": (
        "Now against not within the horizon",
        "Stepping in now is compared with not stepping in until the deal closes or the horizon ends. It is "
        "what would be lost if nobody could come later, and as a rule further from zero than what stepping "
        "in now gains over waiting.",
    ),
}
_LEVELS = {"ok": "Fine", "warn": "Weak", "stop": "Not enough"}
_VERDICTS = {"stop": "Kept on your word", "warn": "Suspect"}


def view(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What ``report_trial.html.j2`` and ``report_data.html.j2`` show.

    Parameters
    ----------
    facts : what is known about the model, with the keys ``against``, ``protocol``, ``gate`` and
        ``learned_from`` (flow, later_joiners, audit, final_values, coordination, left_out_columns); what is
        missing there is left out of the page
    """
    learned = facts.get("learned_from") or {}
    return {
        "estimand": _ESTIMANDS.get(facts.get("against") or ""),
        "protocol": [(str(part), str(words)) for part, words in facts.get("protocol") or []],
        "flow": (flow := learned.get("flow") or []),
        "flow_has_deals": any(step.get("deals") is not None for step in flow),
        "later": _later(learned.get("later_joiners")),
        "data": {
            "gate": [_gate_line(line) for line in facts.get("gate") or []],
            "audit": [_finding(item) for item in learned.get("audit") or []],
            "final_values": _by_reason(learned.get("final_values") or []),
            "coordination": _coordination(learned.get("coordination")),
            "left_out": [_column(item) for item in learned.get("left_out_columns") or []],
        },
    }


def _later(joiners: Mapping[str, Any] | None) -> dict[str, str] | None:
    """What weighting later joiners away cost, in words."""
    if not joiners or not joiners.get("controls"):
        return None
    return {
        "controls": f"{joiners['controls']:,}",
        "joined": f"{joiners['joined_later']:,}",
        "share": f"{joiners['joined_later'] / joiners['controls']:.0%}",
        "effective": f"{joiners['effective_controls']:,.0f}",
        "largest": f"{joiners['largest_weight']:.1f}",
        "most": f"{joiners['most_weight']:g}",
        "clipped": f"{joiners['clipped_share']:.1%}",
    }


def _gate_line(line: Mapping[str, Any]) -> dict[str, str]:
    level = str(line.get("level", "warn"))
    return {
        "level": level if level in _LEVELS else "warn",
        "word": _LEVELS.get(level, _LEVELS["warn"]),
        "what": str(line.get("what", "")),
        "why": str(line.get("why", "")),
    }


def _finding(item: Mapping[str, Any]) -> dict[str, str]:
    """A column that may know the future; a blatant one is only here if somebody allowed it."""
    level = str(item.get("verdict", "warn"))
    return {
        "column": str(item.get("column", "")),
        "word": _VERDICTS.get(level, _VERDICTS["warn"]),
        "why": str(item.get("why", "")),
    }


def _coordination(known: Mapping[str, Any] | None) -> dict[str, str] | None:
    if not known or not known.get("deals_with_activities") or known.get("uncoordinated_share") is None:
        return None
    return {
        "deals": f"{known['deals_with_activities']:,}",
        "share": f"{known['uncoordinated_share']:.0%}",
    }


def _by_reason(columns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The columns that share a reason in one line."""
    named: dict[str, list[str]] = {}
    for each in columns:
        named.setdefault(each["why"], []).append(each["column"])
    return [{"columns": ", ".join(names), "why": why} for why, names in named.items()]


def _column(item: Any) -> str:
    """A column in one line, be it a name or a name with its reason."""
    if isinstance(item, Mapping):
        return ": ".join(str(value) for value in item.values())
    return str(item)

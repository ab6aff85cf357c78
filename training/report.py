"""The page that a sales lead and a data scientist can both read: one HTML file, nothing fetched."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from features import catalog
from training import report_data, report_doubts, report_judgement
from training import report_pictures as pictures
from training.evaluate import Evaluation
from training.report_judgement import figure, size, unit
from training.scorecard import Scorecard, TermTable

FILE_NAME = "report.html"
_MOST_TERMS = 9
_MOST_LEVELS = 6
_EXTENT = (
    "decisions",
    "partners",
    "stepped_in_share",
    "from",
    "to",
    "blocks",
    "by_time",
    "fewer_blocks_than_asked",
)
_ADVICE = (
    ("step_in", "Step in"),
    ("step_back", "Step back"),
    ("too_close_to_call", "Too close to call: step back by default"),
    ("not_enough_evidence", "Not enough evidence: step back by default"),
)


def write_report(folder: Path, facts: Mapping[str, Any], evaluation: Evaluation, card: Scorecard) -> Path:
    """Write ``report.html`` into `folder`.

    Parameters
    ----------
    folder : where to; it must exist
    facts : what is known about the model (``facts.json``): name, trained_at, question, source_kind,
        against, protocol, gate, learned_from (with flow, held_out and what is known about the data), doubts,
        policy; what is missing is left out of the page
    evaluation : the judgement on held-out decisions
    card : the model's tables
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(view(facts, evaluation, card))
    path = Path(folder) / FILE_NAME
    path.write_text(page, encoding="utf-8")
    return path


def view(facts: Mapping[str, Any], evaluation: Evaluation, card: Scorecard) -> dict[str, Any]:
    """Everything on the page, as words, numbers in words, and pictures."""
    learned = facts.get("learned_from") or {}
    return {
        "facts": dict.fromkeys(("name", "trained_at", "question")) | dict(facts),
        "learned": dict.fromkeys(_EXTENT) | dict(learned),
        "held": dict.fromkeys(_EXTENT) | dict(learned.get("held_out") or {}),
        "evaluation": evaluation,
        "evidence": _EVIDENCE[evaluation.evidence],
        "average": figure(evaluation.average, evaluation.outcome),
        "break_even": size(evaluation.break_even, evaluation.outcome).removeprefix("+"),
        "advice": [(words, evaluation.advice_shares.get(name, 0.0)) for name, words in _ADVICE],
        "terms": _terms(facts, evaluation.outcome, card) if card.heterogeneous else [],
        **report_judgement.view(evaluation, learned.get("closed_deals")),
        **report_data.view(facts),
        **report_doubts.view(facts, evaluation.outcome),
        "settings": sorted(_flat(facts.get("settings") or {}).items()),
    }


def _terms(facts: Mapping[str, Any], outcome: str, card: Scorecard) -> list[dict[str, Any]]:
    """The largest terms, numbers as curves and levels as bars."""
    tables = [table for table in card.tables() if table.importance > 0][:_MOST_TERMS]
    return [_term(table, outcome, _words(facts, table.term)) for table in tables]


def _term(table: TermTable, outcome: str, words: catalog.Feature | None) -> dict[str, Any]:
    low, high = min(table.points, default=0.0), max(table.points, default=0.0)
    shown: dict[str, Any] = {
        "label": words.label if words else table.term,
        "meaning": words.meaning if words else "",
        "unit": words.unit if words else "",
        "importance": size(table.importance, outcome).removeprefix("+"),
        "range": f"{size(low, outcome)} to {size(high, outcome)}",
        "picture": None,
        "levels": [],
    }
    if table.kind == "number":
        return {
            **shown,
            "picture": pictures.curve([float(x) for x in table.xs], table.points, *unit(outcome)),
        }
    return {**shown, "levels": _levels(table, outcome, words)}


def _levels(table: TermTable, outcome: str, words: catalog.Feature | None) -> list[dict[str, Any]]:
    """Levels from the most helped to the least; of many, both ends."""
    pairs = sorted(zip(table.xs, table.points, strict=True), key=lambda pair: (-pair[1], str(pair[0])))
    widest = max((abs(point) for _, point in pairs), default=0.0) or 1.0
    phrases = words.phrases if words else {}
    rows = [
        {
            "name": phrases.get(str(level).lower() if table.kind == "boolean" else str(level), str(level)),
            "size": size(point, outcome),
            "width": round(50 * abs(point) / widest, 1),
            "helps": point >= 0,
        }
        for level, point in pairs
    ]
    if len(rows) <= _MOST_LEVELS:
        return rows
    half = _MOST_LEVELS // 2
    between = {"name": f"{len(rows) - 2 * half} others between", "size": "", "width": 0, "helps": True}
    return [*rows[:half], between, *rows[-half:]]


def _words(facts: Mapping[str, Any], name: str) -> catalog.Feature | None:
    """What the catalog says of a feature of CRM tables; None for a column of one's own."""
    return catalog.feature(name) if facts.get("source_kind") == "crm" else None


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


_EVIDENCE = {
    "differing": "Help pays on some deals and not on others, and the model can tell which.",
    "average_only": "Which deals gain more than others can't be told yet; the advice rests on the average.",
    "not_enough": "There is not enough evidence yet to advise stepping in.",
}

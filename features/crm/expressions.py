"""Work out a mapping's expressions and conditions, a column at a time."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.crm.export import Export, Rows
from features.crm.language import (
    Alias,
    Cases,
    Condition,
    Expression,
    FirstOf,
    Fixed,
    LookUp,
    SetRule,
    Translated,
)
from features.crm.steps import file_rows, order_of, take_steps
from features.tables import DTYPES, Kind

Mask = NDArray[np.bool_]


@dataclass
class Drops:
    """Rows that an expression itself refuses or passes over: (mask, reasons)."""

    refused: list[tuple[Mask, list[str]]] = field(default_factory=list)
    passed: list[tuple[Mask, list[str]]] = field(default_factory=list)


def evaluate(expression: Expression, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    """Return an expression's values along the rows, in the kind's type, missing where blank."""
    match expression:
        case Alias(name):
            return _column(name, kind, rows, export)
        case Fixed(value):
            return pd.Series([value] * len(rows), dtype=DTYPES[kind])
        case FirstOf(options):
            return _first_of(options, kind, rows, export, drops)
        case Translated():
            return _translated(expression, kind, rows, export, drops)
        case LookUp():
            return _look_up(expression, kind, rows, export)
        case Cases():
            return _cases(expression, kind, rows, export, drops)


def can_tell(expression: Expression, rows: Rows, export: Export) -> bool:
    """Tell whether any column that the expression rests on stands in the export."""
    match expression:
        case Alias(name):
            return name in rows.file.texts or name in rows.made
        case FirstOf(options):
            return any(can_tell(option, rows, export) for option in options)
        case Translated(of=of):
            return can_tell(of, rows, export)
        case LookUp(file=file, column=column):
            return file in export.files and column in export.files[file].texts
        case Cases(cases=cases, otherwise=otherwise):
            results = [then for _, then in cases] + ([] if otherwise is None else [otherwise])
            return any(can_tell(result, rows, export) for result in results)
    return True


def _column(name: str, kind: Kind, rows: Rows, export: Export) -> pd.Series:
    read = {"text": export.text, "time": export.times, "number": export.numbers, "boolean": export.flags}
    return read[kind](rows, name)


def _blank(kind: Kind, n: int) -> pd.Series:
    return pd.Series(index=pd.RangeIndex(n), dtype=DTYPES[kind])


def _first_of(
    options: tuple[Expression, ...], kind: Kind, rows: Rows, export: Export, drops: Drops
) -> pd.Series:
    result = _blank(kind, len(rows))
    for option in options:
        if result.notna().all() and len(result):
            break
        if can_tell(option, rows, export):
            result = result.where(result.notna(), evaluate(option, kind, rows, export, drops))
    return result


def _translated(rule: Translated, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    text = evaluate(rule.of, "text", rows, export, drops)
    known = text.str.casefold().map(rule.values).astype("str")
    strange = (text.notna() & known.isna()).to_numpy()
    if rule.other == "keep":
        known = known.where(~strange, text)
    elif rule.other != "blank" and strange.any():
        because = rule.because or "a value that the mapping does not list"
        reasons = [f"{because}: '{value}'" for value in text[strange]]
        (drops.refused if rule.other == "refuse" else drops.passed).append((strange, reasons))
    return known if kind == "text" else _as_kind(known, kind)


def _as_kind(text: pd.Series, kind: Kind) -> pd.Series:
    if kind == "number":
        return pd.to_numeric(text, errors="coerce").astype("float64")
    if kind == "boolean":
        return (text.str.casefold() == "true").astype("boolean").mask(text.isna())
    return pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce").astype(DTYPES[kind])


def _look_up(rule: LookUp, kind: Kind, rows: Rows, export: Export) -> pd.Series:
    if rule.file not in export.files:
        return _blank(kind, len(rows))
    found = export.looked_up.get(id(rule))
    if found is None:
        found = export.looked_up[id(rule)] = _index(rule, kind, export)
    keys = evaluate(rule.by, "text", rows, export, Drops())
    at = pd.Index(found.index).get_indexer(pd.Index(keys))
    values = found.reset_index(drop=True).take(np.where(at < 0, 0, at)) if len(found) else None
    if values is None:
        return _blank(kind, len(rows))
    return values.reset_index(drop=True).mask(pd.Series(at < 0) | keys.isna())


def _index(rule: LookUp, kind: Kind, export: Export) -> pd.Series:
    """The looked-up values by their key, each key once."""
    rows = take_steps(rule.rows, file_rows(rule.file, export), export, record=False)
    if rule.at is not None:
        rows = rows.take(order_of(export.times(rows, rule.at), rows))
    keys = export.text(rows, rule.match)
    values = _column(rule.column, kind, rows, export)
    usable = (keys.notna() & values.notna()).to_numpy()
    keys, values = keys[usable], values[usable]
    single = ~keys.duplicated(keep=rule.pick).to_numpy()
    return values[single].set_axis(pd.Index(keys[single]))


def _cases(rule: Cases, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    result = _blank(kind, len(rows))
    left = np.ones(len(rows), dtype=bool)
    for conditions, then in rule.cases:
        hit = left.copy()
        for condition in conditions:
            hit &= holds(condition, rows, export)
        result = result.where(~hit, evaluate(then, kind, rows, export, drops))
        left &= ~hit
    if rule.otherwise is not None:
        result = result.where(~left, evaluate(rule.otherwise, kind, rows, export, drops))
    return result


def holds(condition: Condition, rows: Rows, export: Export) -> Mask:
    """Tell of which rows a condition holds; of several tests all must."""
    text = evaluate(condition.of, "text", rows, export, Drops())
    result = np.ones(len(rows), dtype=bool)
    if condition.texts is not None or condition.sets:
        listed = set(condition.texts or ())
        for name in condition.sets:
            listed |= set_texts(name, export)
        inside = text.str.casefold().isin(listed).to_numpy()
        result &= ~inside if condition.negated else inside
    if condition.blank is not None:
        result &= (text.isna() == condition.blank).to_numpy()
    if condition.matches is not None:
        result &= text.str.fullmatch(condition.matches, na=False).to_numpy(dtype=bool)
    if condition.differs_from is not None:
        other = evaluate(condition.differs_from, "text", rows, export, Drops())
        result &= (text != other).to_numpy(dtype=bool, na_value=True)
    if condition.at_least is not None or condition.below is not None:
        numbers = evaluate(condition.of, "number", rows, export, Drops()).to_numpy()
        with np.errstate(invalid="ignore"):
            result &= numbers >= (-np.inf if condition.at_least is None else condition.at_least)
            result &= numbers < (np.inf if condition.below is None else condition.below)
    return result


def set_texts(name: str, export: Export) -> frozenset[str]:
    """Return the texts of a named set: given ones, and those found in the export."""
    if name not in export.set_texts:
        rule: SetRule = export.sets[name]
        texts = {text.strip().casefold() for text in rule.texts}
        for file, alias, conditions in rule.found:
            if file in export.files:
                rows = file_rows(file, export)
                hit = np.ones(len(rows), dtype=bool)
                for condition in conditions:
                    hit &= holds(condition, rows, export)
                texts |= set(export.text(rows.take(hit), alias).dropna().str.casefold())
        export.set_texts[name] = frozenset(texts)
    return export.set_texts[name]

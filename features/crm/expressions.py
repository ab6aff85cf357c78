"""Work out a mapping's expressions and conditions, a column at a time."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.crm.export import Export, Index, Rows
from features.crm.language import (
    Alias,
    Cases,
    Condition,
    Expression,
    FirstOf,
    Fixed,
    Joined,
    LookUp,
    Part,
    SetRule,
    Translated,
)
from features.crm.ledger import Positions
from features.crm.steps import file_rows, order_of, take_steps
from features.problems import UserError
from features.tables import DTYPES, Kind

Mask = NDArray[np.bool_]


@dataclass
class Drops:
    """Rows that an expression itself refuses or passes over: (places in the block's rows, reasons).

    ``base`` are the places of the rows at hand, where an option or a case looks at some of them only.
    """

    refused: list[tuple[Positions, list[str]]] = field(default_factory=list)
    passed: list[tuple[Positions, list[str]]] = field(default_factory=list)
    base: Positions | None = None

    def add(self, refuse: bool, mask: Mask, reasons: list[str]) -> None:
        """Remember rows of a mask."""
        at = np.flatnonzero(mask)
        (self.refused if refuse else self.passed).append(
            (at if self.base is None else self.base[at], reasons)
        )

    def within(self, places: Positions) -> "Drops":
        """Return the same list for some of the rows."""
        return Drops(self.refused, self.passed, places if self.base is None else self.base[places])


def evaluate(expression: Expression, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    """Return an expression's values along the rows, in the kind's type, missing where blank."""
    match expression:
        case Alias(name):
            return _column(name, kind, rows, export)
        case Fixed(value):
            return _fixed(value, kind, len(rows))
        case FirstOf(options):
            return _first_of(options, kind, rows, export, drops)
        case Translated():
            return _translated(expression, kind, rows, export, drops)
        case Part(of, pattern):
            text = evaluate(of, "text", rows, export, drops).str.extract(pattern, expand=False)
            return _of_text(text.mask((text == "").fillna(False)), kind)
        case Joined():
            return _joined(expression, kind, rows, export, drops)
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
        case Translated(of=of) | Part(of=of):
            return can_tell(of, rows, export)
        case Joined(parts):
            return all(can_tell(part, rows, export) for part in parts)
        case LookUp(file=file, column=column):
            if file not in export.files:
                return False
            asked = export.files[file]
            return column in asked.texts or column not in asked.rule.columns  # that is one that a step makes
        case Cases(cases=cases, otherwise=otherwise):
            results = [then for _, then in cases] + ([] if otherwise is None else [otherwise])
            return any(can_tell(result, rows, export) for result in results)
    return True


def _column(name: str, kind: Kind, rows: Rows, export: Export) -> pd.Series:
    read = {"text": export.text, "time": export.times, "number": export.numbers, "boolean": export.flags}
    return read[kind](rows, name)


def _fixed(value: str | float | bool, kind: Kind, n: int) -> pd.Series:
    as_kind = {"text": str, "number": float, "boolean": bool, "time": pd.Timestamp}[kind]
    try:
        same = as_kind(value)
        same = same.tz_localize("UTC") if isinstance(same, pd.Timestamp) and same.tz is None else same
        return pd.Series([same] * n, dtype=DTYPES[kind])
    except (ValueError, TypeError, OverflowError):
        raise UserError(f"The mapping writes {value!r} where a {kind} is needed; mend the mapping.") from None


def _blank(kind: Kind, n: int) -> pd.Series:
    return pd.Series(index=pd.RangeIndex(n), dtype=DTYPES[kind])


def _first_of(
    options: tuple[Expression, ...], kind: Kind, rows: Rows, export: Export, drops: Drops
) -> pd.Series:
    result = _blank(kind, len(rows))
    for option in options:
        if can_tell(option, rows, export):
            result = _fill(result, result.isna().to_numpy(), option, kind, rows, export, drops)
    return result


def _fill(
    result: pd.Series, which: Mask, option: Expression, kind: Kind, rows: Rows, export: Export, drops: Drops
) -> pd.Series:
    """Work an expression out for some of the rows and fill it in."""
    if which.all():
        return evaluate(option, kind, rows, export, drops)
    places = np.flatnonzero(which)
    if not len(places):
        return result
    values = evaluate(option, kind, rows.take(places), export, drops.within(places))
    return result.where(~which, values.set_axis(places).reindex(result.index))


def _translated(rule: Translated, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    text = evaluate(rule.of, "text", rows, export, drops)
    known = text.str.casefold().map(rule.values).astype("str")
    strange = (text.notna() & known.isna()).to_numpy()
    if rule.other == "keep":
        known = known.where(~strange, text)
    elif rule.other != "blank" and strange.any():
        because = rule.because or "a value that the mapping does not list"
        reasons = [f"{because}: '{value}'" for value in text[strange]]
        drops.add(rule.other == "refuse", strange, reasons)
    as_it_is = not rule.values and rule.other == "keep"
    values = evaluate(rule.of, kind, rows, export, drops) if as_it_is else _of_text(known, kind)
    if rule.counted:
        _count(rule.counted, values.notna().to_numpy(), rows, export)
    return values


def _joined(rule: Joined, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    text = evaluate(rule.parts[0], "text", rows, export, drops)
    for part in rule.parts[1:]:
        text = text + evaluate(part, "text", rows, export, drops)
    return _of_text(text, kind)


def _of_text(text: pd.Series, kind: Kind) -> pd.Series:
    if kind == "text":
        return text
    if kind == "number":
        return pd.to_numeric(text, errors="coerce").astype("float64")
    if kind == "boolean":
        return (text.str.casefold() == "true").astype("boolean").mask(text.isna())
    return pd.to_datetime(text, utc=True, format="ISO8601", errors="coerce").astype(DTYPES[kind])


def _look_up(rule: LookUp, kind: Kind, rows: Rows, export: Export) -> pd.Series:
    if rule.file not in export.files:
        return _blank(kind, len(rows))
    found = export.looked_up.get((id(rule), kind))
    if found is None:
        found = export.looked_up[id(rule), kind] = _index(rule, kind, export)
    keys = evaluate(rule.by, "text", rows, export, Drops())
    at = found.keys.get_indexer(pd.Index(keys))
    at = np.where(keys.isna().to_numpy(), -1, at)
    if (at < 0).all():
        return _blank(kind, len(rows))
    export.used.append((rows.file, rows.at[at >= 0], export.files[rule.file], found.at[at[at >= 0]]))
    if rule.several:
        _count(rule.several, found.several[at] & (at >= 0), rows, export)
    return found.values.take(np.maximum(at, 0)).reset_index(drop=True).mask(at < 0)


def _count(name: str, which: Mask, rows: Rows, export: Export) -> None:
    at = rows.at[which]
    export.repairs.add(name, len(at), [rows.file.ledger.place(int(row)) for row in at[:5]])


def _index(rule: LookUp, kind: Kind, export: Export) -> Index:
    """The looked-up values by their key, each key once."""
    rows = take_steps(rule.rows, file_rows(rule.file, export), export, record=False)
    if rule.at is not None:
        rows = rows.take(order_of(export.times(rows, rule.at), rows))
    keys = export.text(rows, rule.match)
    values = _column(rule.column, kind, rows, export)
    usable = (keys.notna() & values.notna()).to_numpy()
    keys, values, at = keys[usable], values[usable], rows.at[usable]
    several = keys.duplicated(keep=False).to_numpy()
    single = ~several if rule.pick == "only" else ~keys.duplicated(keep=rule.pick).to_numpy()
    return Index(pd.Index(keys[single]), values[single], at[single], several[single])


def _cases(rule: Cases, kind: Kind, rows: Rows, export: Export, drops: Drops) -> pd.Series:
    result = _blank(kind, len(rows))
    left = np.ones(len(rows), dtype=bool)
    for conditions, then in rule.cases:
        hit = left.copy()
        for condition in conditions:
            hit &= holds(condition, rows, export)
        result = _fill(result, hit, then, kind, rows, export, drops)
        left &= ~hit
    if rule.otherwise is not None:
        result = _fill(result, left, rule.otherwise, kind, rows, export, drops)
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
        numbers = _numbers(condition, rows, export)
        with np.errstate(invalid="ignore"):
            result &= numbers >= (-np.inf if condition.at_least is None else condition.at_least)
            result &= numbers < (np.inf if condition.below is None else condition.below)
    return result


def _numbers(condition: Condition, rows: Rows, export: Export) -> NDArray[np.float64]:
    if condition.days_after is None:
        return evaluate(condition.of, "number", rows, export, Drops()).to_numpy()
    time, since = (
        evaluate(each, "time", rows, export, Drops()) for each in (condition.of, condition.days_after)
    )
    return (time - since).dt.total_seconds().to_numpy(dtype=np.float64) / 86_400


def set_texts(name: str, export: Export) -> frozenset[str]:
    """Return the texts of a named set: given ones, and those found in the export."""
    if name not in export.set_texts:
        rule: SetRule = export.sets[name]
        texts = {text.strip().casefold() for text in rule.texts}
        for file, column, conditions in rule.found:
            if file in export.files:
                rows = file_rows(file, export)
                hit = np.ones(len(rows), dtype=bool)
                for condition in conditions:
                    hit &= holds(condition, rows, export)
                text = evaluate(column, "text", rows, export, Drops())
                share = pd.Series(hit).groupby(text.str.casefold()).mean()
                texts |= set(share.index[share > 0.5])  # most rows: one that is wrong does not decide
        export.set_texts[name] = frozenset(texts)
    return export.set_texts[name]

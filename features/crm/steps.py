"""A block's steps: which rows of a file go on, and how one row becomes several."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa

from features.crm.export import Export, Rows
from features.crm.language import Changed, Condition, Latest, Make, Step, Unpivot
from features.crm.ledger import Positions

_NO_ORDER = "{what} is blank or cannot be read"


def file_rows(file: str, export: Export) -> Rows:
    """Return the rows of a file that its own conditions leave."""
    rule = export.files[file].rule
    return export.rows(file, lambda rows: take_steps(rule.rows, rows, export))


def take_steps(steps: Sequence[Step], rows: Rows, export: Export, record: bool = True) -> Rows:
    """Take the steps in their order.

    Parameters
    ----------
    steps : of a block, a file or a look-up
    rows : where they start
    record : tell the ledger what becomes of the rows left behind; a look-up does not
    """
    for step in steps:
        match step:
            case Condition():
                rows = _condition(step, rows, export, record)
            case Changed():
                rows = _changed(step, rows, export, record)
            case Latest():
                rows = _latest(step, rows, export, record)
            case Unpivot():
                rows = _unpivot(step, rows, record)
            case Make():
                rows = _make(step, rows, export)
    return rows


def order_of(times: pd.Series, rows: Rows, groups: pd.Series | None = None) -> Positions:
    """Return places in the order of (group, time); rows of one time in the order of the file.

    Many exports list the newest first: where the file mostly runs backwards in time, so do its ties.
    """
    when = times.astype("int64").to_numpy()
    codes = np.zeros(len(rows), dtype=np.int64) if groups is None else pd.factorize(groups)[0]
    by_line = np.lexsort((rows.at, codes))
    same = codes[by_line][1:] == codes[by_line][:-1]
    steps = np.diff(when[by_line])[same]
    backwards = (steps < 0).sum() > (steps > 0).sum()
    return np.lexsort((-rows.at if backwards else rows.at, when, codes))


def _condition(step: Condition, rows: Rows, export: Export, record: bool) -> Rows:
    from features.crm.expressions import holds

    hit = holds(step, rows, export)
    if record:
        left = rows.at[~hit]
        if step.refuse:
            rows.file.ledger.refuse(left, step.refuse)
        else:
            rows.file.ledger.pass_over(left, step.because)
    return rows.take(hit)


def _changed(step: Changed, rows: Rows, export: Export, record: bool) -> Rows:
    rows, times, groups = _with_order(step.by, step.at, rows, export, record)
    order = order_of(times, rows, groups)
    rows, groups = rows.take(order), groups.take(order)
    codes = pd.factorize(groups)[0]
    differs = np.ones(len(rows), dtype=bool)
    differs[1:] = codes[1:] != codes[:-1]
    for alias in step.columns:
        values = pd.factorize(export.text(rows, alias))[0]
        differs[1:] |= values[1:] != values[:-1]
    if record:
        rows.file.ledger.pass_over(rows.at[~differs], step.because)
    rows, codes = rows.take(differs), codes[differs]
    if step.until is None:
        return rows
    return replace(rows, made={**rows.made, step.until: _next(rows.texts(step.at), codes)})


def _next(times: pa.Array, codes: Positions) -> pa.Array:
    """Return for each row the text of the next row of the same group; null for the last row of one."""
    last = np.ones(len(codes), dtype=bool)
    last[:-1] = codes[1:] != codes[:-1]
    return times.take(pa.array(np.arange(1, len(codes) + 1), mask=last))


def _latest(step: Latest, rows: Rows, export: Export, record: bool) -> Rows:
    rows, times, groups = _with_order(step.by, step.at, rows, export, record)
    order = order_of(times, rows, groups)
    rows, groups = rows.take(order), groups.take(order)
    last = ~groups.duplicated(keep="last").to_numpy()
    if record:
        rows.file.ledger.pass_over(rows.at[~last], step.because)
    return rows.take(last)


def _make(step: Make, rows: Rows, export: Export) -> Rows:
    from features.crm.expressions import Drops, evaluate

    values = evaluate(step.of, "text", rows, export, Drops())
    return replace(rows, made={**rows.made, step.name: pa.Array.from_pandas(values, type=pa.large_string())})


def _with_order(
    by: str, at: str, rows: Rows, export: Export, record: bool
) -> tuple[Rows, pd.Series, pd.Series]:
    """Leave out, refused, the rows that cannot be ordered."""
    times, groups = export.times(rows, at), export.text(rows, by)
    for alias, lacks in ((by, groups.isna()), (at, times.isna())):
        if record and lacks.any():
            header = rows.file.headers.get(alias, alias)
            rows.file.ledger.refuse(rows.at[lacks.to_numpy()], _NO_ORDER.format(what=header))
    usable = (times.notna() & groups.notna()).to_numpy()
    return rows.take(usable), times[usable].reset_index(drop=True), groups[usable].reset_index(drop=True)


def _unpivot(step: Unpivot, rows: Rows, record: bool) -> Rows:
    if step.wide is not None:
        wide = rows.file.wide.get(step.wide, [])
        columns = [(name, texts.take(pa.array(rows.at))) for name, texts in wide]
    else:
        columns = [(name, rows.texts(alias)) for name, alias in step.columns]
    places, names, values = [], [], []
    for name, texts in columns:
        there = np.flatnonzero(~texts.is_null().to_numpy(zero_copy_only=False))
        places.append(there)
        names += [name] * len(there)
        values.append(texts.take(pa.array(there)))
    at = np.concatenate([np.empty(0, dtype=np.int64), *places])
    if record:
        none = np.ones(len(rows), dtype=bool)
        none[at] = False
        rows.file.ledger.pass_over(rows.at[none], step.because)
    taken = rows.take(at)
    text = pa.large_string()
    made = {
        **taken.made,
        step.name: pa.array(names, type=text),
        step.value: pa.concat_arrays(values) if values else pa.array([], type=text),
    }
    return Rows(taken.file, taken.at, made)

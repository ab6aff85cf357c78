"""A mapping's blocks -> the CRM tables, each row with the row of the export that it came from."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from features.crm.export import Export, Rows
from features.crm.expressions import Drops, can_tell, evaluate
from features.crm.language import Alias, Block, Expression, FirstOf
from features.crm.steps import file_rows, take_steps
from features.tables import COLUMNS, DTYPES

FILE, ROW = "\0file", "\0row"  # where a row came from
BEFORE, HAS_BEFORE = "\0before", "\0has_before"  # deal_changes: the value until then, and whether it is told


def build_table(name: str, blocks: tuple[Block, ...], export: Export) -> pd.DataFrame:
    """Return what the blocks of one table give: its columns, own ones, and ``FILE`` and ``ROW``.

    Rows that lack what is required are refused in the ledger, or passed over where the block says so.
    """
    wanted = [block for block in blocks if block.table == name and block.file in export.files]
    frames = [_run(block, export) for block in wanted if block.unless not in export.files]
    frames = [frame for frame in frames if len(frame)]
    if not frames:
        return empty(name)
    return pd.concat(frames, ignore_index=True)


def empty(name: str) -> pd.DataFrame:
    """Return a table without rows."""
    columns = {column: pd.Series(dtype=DTYPES[rule.kind]) for column, rule in COLUMNS[name].items()}
    columns |= {FILE: pd.Series(dtype="str"), ROW: pd.Series(dtype="int64")}
    return pd.DataFrame(columns)


def ids_of_rows(block: Block, column: str, export: Export) -> pd.Series:
    """Return a column for every row of the block's file, whatever becomes of the row."""
    rows = Rows(export.files[block.file], np.arange(len(export.files[block.file])))
    return evaluate(block.columns[column], "text", rows, export, Drops())


def _run(block: Block, export: Export) -> pd.DataFrame:
    rows = take_steps(block.rows, file_rows(block.file, export), export)
    if block.table == "deal_changes" and not can_tell(block.columns["value"], rows, export):
        return empty(block.table)  # a column that the export lacks has no history
    drops = Drops()
    columns: dict[str, pd.Series] = {}
    for column, rule in COLUMNS[block.table].items():
        if column in block.columns:
            values = evaluate(block.columns[column], rule.kind, rows, export, drops)
            columns[column] = _stand_in(block, column, values, rows, export)
        else:
            columns[column] = pd.Series(index=pd.RangeIndex(len(rows)), dtype=DTYPES[rule.kind])
    for own, alias in block.keep.items():
        if alias in rows.file.texts:
            columns[own] = export.text(rows, alias)
    if block.before is not None:
        columns[BEFORE] = evaluate(block.before, "text", rows, export, drops)
        columns[HAS_BEFORE] = pd.Series([True] * len(rows), dtype="boolean")
    frame = pd.DataFrame(columns)
    frame[FILE], frame[ROW] = block.file, rows.at
    return frame[_usable(block, frame, rows, export, drops)].reset_index(drop=True)


def _stand_in(block: Block, column: str, values: pd.Series, rows: Rows, export: Export) -> pd.Series:
    text = block.when_unknown.get(column)
    if text is None or can_tell(block.columns[column], rows, export) or not len(rows):
        return values
    export.repairs.add(
        f"no column of the export says {column} of {block.table}: '{text}' stands in",
        len(rows),
        [rows.file.ledger.place(int(row)) for row in rows.at[:5]],
    )
    return pd.Series([text] * len(rows), dtype="str")


def _usable(block: Block, frame: pd.DataFrame, rows: Rows, export: Export, drops: Drops) -> np.ndarray:
    ledger, usable = rows.file.ledger, np.ones(len(frame), dtype=bool)
    for given, mark in ((drops.refused, ledger.refuse), (drops.passed, ledger.pass_over)):
        for places, reasons in given:
            mark(rows.at[places], reasons)
            usable[places] = False
    for column, name in block.when_blank.items():
        blank = frame[column].isna().to_numpy()
        ledger.pass_over(rows.at[blank & usable], name)
        usable &= ~blank
    for column, rule in COLUMNS[block.table].items():
        lacks = (
            frame[column].isna().to_numpy() & usable if rule.required else np.zeros(len(frame), dtype=bool)
        )
        if lacks.any():
            ledger.refuse(rows.at[lacks], list(_why_blank(block, column, rows.take(lacks), export)))
            usable &= ~lacks
        if rule.one_of:
            strange = ~frame[column].isin(rule.one_of).to_numpy() & usable
            named = [
                f"{block.table}.{column} should be one of {', '.join(rule.one_of)}; came '{value}'"
                for value in frame[column][strange]
            ]
            ledger.refuse(rows.at[strange], named)
            usable &= ~strange
    return usable


def _why_blank(block: Block, column: str, rows: Rows, export: Export) -> Iterator[str]:
    """Say of each row why a required column is blank: nothing there, or nothing that could be read."""
    came = pd.Series(index=pd.RangeIndex(len(rows)), dtype="str")
    for alias in _aliases(block.columns[column]):
        came = came.where(came.notna(), export.text(rows, alias))
    for text in came:
        yield f"{column} is blank" if pd.isna(text) else f"{column} cannot be read: '{text}'"


def _aliases(expression: Expression) -> Iterator[str]:
    if isinstance(expression, Alias):
        yield expression.name
    elif isinstance(expression, FirstOf):
        for option in expression.options:
            yield from _aliases(option)


def keep_columns(blocks: tuple[Block, ...], name: str) -> Mapping[str, str]:
    """Return the own columns of a table and the files that they come from."""
    return {own: block.file for block in blocks if block.table == name for own in block.keep}

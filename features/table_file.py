"""One file as it is: a CSV as texts, Parquet as typed. What is damaged is refused, and the line is named."""

import codecs
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from features.column_types import is_text
from features.damage import Layout, read_layout, refuse_another_format, refuse_mutilated_rows
from features.problems import TableError, UserError

_BLOCK = 8 << 20  # bytes read at once; no row may be longer


def read_frame(
    file: Path, missing: Sequence[str] = ("",), delimiter: str = ",", encoding: str = "utf-8-sig"
) -> pd.DataFrame:
    """Read one file as it is: a CSV as texts, of which only ``missing`` are missing; Parquet as typed.

    Parameters
    ----------
    file : .parquet; anything else is read as CSV, compressed where the name ends in .gz
    missing : texts that stand for a missing value
    delimiter, encoding : of a CSV

    Returns
    -------
    DataFrame
        Rows in the file's order, with a fresh index. Empty lines, and columns with neither name nor value,
        are passed over; an index that has a name is a column.

    Raises
    ------
    UserError
        There is no such file.
    TableError
        It is of another format than its name says, cut off, damaged, or in another encoding; rows have more
        or fewer cells than the header, or quotation marks are left open (lines are named); a column stands
        there twice or has values and no name.
    """
    if not file.is_file():
        raise UserError(f"{file} is not a file; give a .csv, .csv.gz or .parquet file.")
    refuse_another_format(file)
    if file.suffix == ".parquet":
        return _read_parquet(file, missing)
    if not (len(delimiter) == 1 and delimiter.isascii() and delimiter not in '"\r\n\0'):
        expected = f"cannot be read: {delimiter!r} is no delimiter; it should be one sign, such as a comma"
        raise TableError(file.name, None, expected)
    encoding = _with_mark(encoding)
    layout = read_layout(file, delimiter, encoding)
    _refuse_twice(layout.columns, file)
    if layout.has_quotes:  # Arrow forgives them, and swallows the lines up to the next one
        refuse_mutilated_rows(file, delimiter, encoding)
    return _named_columns(_read_csv(file, layout, missing, delimiter, encoding), file)


def _read_csv(file: Path, layout: Layout, missing: Sequence[str], delimiter: str, encoding: str) -> pa.Table:
    names, unmarked = list(layout.columns), encoding.removesuffix("-sig")
    if not layout.has_rows:
        return pa.table([pa.array([], pa.large_string()) for _ in names], names)
    try:
        return pyarrow.csv.read_csv(
            file,
            pyarrow.csv.ReadOptions(
                block_size=_BLOCK, encoding=unmarked, column_names=names, skip_rows=layout.header_lines
            ),
            pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=layout.has_quotes),
            pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()),
                null_values=list(missing),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
    except pa.ArrowException as error:
        refuse_mutilated_rows(file, delimiter, encoding)
        raise TableError(file.name, None, f"cannot be read as csv: {_first_line(error)}") from None


def _named_columns(table: pa.Table, file: Path) -> pd.DataFrame:
    """Leave out columns without a name and without a value, such as a comma at the end of each line makes."""
    named = []
    for place, name in enumerate(table.column_names):
        if name:
            named.append(place)
        elif table.column(place).null_count < len(table):
            expected = (
                f"has values in column {place + 1}, which has no name: name it in the header, or delete it"
            )
            raise TableError(file.name, None, expected)
    return table.select(named).to_pandas()


def _read_parquet(file: Path, missing: Sequence[str]) -> pd.DataFrame:
    try:
        _refuse_twice(pyarrow.parquet.read_schema(file).names, file)
        frame = _exact(pyarrow.parquet.read_table(file))
    except TableError:
        raise
    except (pa.ArrowException, ValueError, OSError, KeyError, TypeError) as error:
        raise TableError(file.name, None, f"cannot be read as parquet: {_first_line(error)}") from None
    unnamed = [level for level, name in enumerate(frame.index.names) if name is None]
    frame = frame.reset_index(level=unnamed, drop=True) if len(unnamed) < frame.index.nlevels else frame
    frame = frame.reset_index(drop=len(unnamed) == frame.index.nlevels)
    for name in [name for name in frame.columns if is_text(frame[name])]:
        frame[name] = frame[name].mask(frame[name].isin(list(missing)))
    return frame


def _with_mark(encoding: str) -> str:
    """The encoding that also passes over the byte-order mark which Excel puts before UTF-8."""
    try:
        return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    except LookupError:
        return encoding  # refused with the file's name by whoever decodes


def _exact(table: pa.Table) -> pd.DataFrame:
    """As pandas does, but integers stay integers where some are missing: floats would change long ids."""
    frame = table.to_pandas()
    for name, column in zip(table.column_names, table.columns, strict=True):
        if pa.types.is_integer(column.type) and column.null_count and name in frame:
            kind = pd.UInt64Dtype() if pa.types.is_uint64(column.type) else pd.Int64Dtype()
            frame[name] = column.to_pandas(types_mapper=lambda _, kind=kind: kind).set_axis(frame.index)
    return frame


def _refuse_twice(columns: Sequence[str], file: Path) -> None:
    twice = [name for place, name in enumerate(columns) if name and name in columns[:place]]
    if twice:
        raise TableError(file.name, twice[0], "stands there twice; keep one")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")

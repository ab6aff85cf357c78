"""Read the CRM tables, and refuse what cannot be used.

Columns and their types are checked with pandera; what spans columns or tables stands in
``features.consistency``, the columns themselves in ``features.tables``.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.pandas as pa

from features.column_types import coerce, infer, thousands_by_point
from features.consistency import check_consistency
from features.problems import TableError, UserError
from features.table_file import read_frame
from features.tables import COLUMNS, DTYPES, MAY_BE_EMPTY, TABLE_NAMES, Column, Tables, newest_time, row_ids

_NEVER_THOUSANDTHS = ("amount", "annual_revenue", "employees", "certifications")
_WRITE = "write 12500 for 12.500 if thousands are meant, else 12.5000"
_MOST_COLUMNS_NAMED = 20

__all__ = ["Clock", "Tables", "check", "read_frame", "read_tables", "utc_now"]

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


def check(tables: Tables, clock: Clock = utc_now, sources: Mapping[str, str] | None = None) -> Tables:
    """Return the tables with every surface column, in its type; refuse what cannot be used.

    Parameters
    ----------
    tables : the tables as they came
    clock : gives the time that no date may lie after
    sources : the name that an error gives to each table, such as ``deals.csv``

    Returns
    -------
    Tables
        New frames with a fresh index: times as datetime64[us, UTC] (without an offset they are taken for
        UTC), numbers as float64, booleans nullable, texts as str. Optional columns that were absent are
        there, all missing. Row order is kept.

    Raises
    ------
    TableError
        One table and column; says what was expected, what came, and the first five rows' ids.
    """
    named = {name: (sources or {}).get(name, name) for name in COLUMNS}
    checked: dict[str, Any] = {
        name: _check_table(name, table, named[name]) for name, table in tables.by_name().items()
    }
    result = replace(tables, **checked)
    check_consistency(result, pd.Timestamp(clock()), named)
    newest = newest_time(result)
    given = result.exported_at
    return replace(result, exported_at=newest if given is None else max(newest, given))


def read_tables(folder: Path, clock: Clock = utc_now) -> Tables:
    """Read and check a folder of CRM tables, one Parquet or CSV file each.

    Raises
    ------
    UserError
        The folder or one of its tables is missing or cannot be read.
    TableError
        As ``check``.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder with {', '.join(TABLE_NAMES)}.")
    files = {name: _find_file(folder, name) for name in COLUMNS}
    missing = [name for name in TABLE_NAMES if files[name] is None]
    if missing:
        raise UserError(
            f"{folder} lacks {', '.join(missing)}: each of {', '.join(TABLE_NAMES)} is needed, "
            "as .parquet, .csv or .csv.gz; a table without rows still needs its header."
            f"{_IS_IT_AN_EXPORT if _holds_other_csv(folder) else ''}"
        )
    found = {name: file for name, file in files.items() if file is not None}
    frames: dict[str, Any] = {name: read_frame(file) for name, file in found.items()}
    return check(Tables(**frames), clock, {name: file.name for name, file in found.items()})


_IS_IT_AN_EXPORT = " If it is a CRM's export, turn it into these tables first, with 'stepin import'."


def _holds_other_csv(folder: Path) -> bool:
    return any(path.name.removesuffix(".csv") not in COLUMNS for path in folder.glob("*.csv"))


def _find_file(folder: Path, name: str) -> Path | None:
    found = [folder / f"{name}{ending}" for ending in (".parquet", ".csv", ".csv.gz")]
    found = [file for file in found if file.exists()]
    if len(found) > 1:
        raise UserError(f"{folder} holds {' and '.join(file.name for file in found)}; keep one of them.")
    return found[0] if found else None


def _check_table(name: str, table: pd.DataFrame, source: str) -> pd.DataFrame:
    columns = COLUMNS[name]
    _refuse_missing_columns(name, table, source)
    if table.empty and name not in MAY_BE_EMPTY:
        raise TableError(source, None, "holds no rows; at least one is needed")
    table = table.reset_index(drop=True)
    coerced = {column: _coerced(name, column, table, source) for column in columns}
    extra = {column: infer(table[column]) for column in table.columns if column not in columns}
    result = pd.DataFrame({**coerced, **extra}, index=table.index)
    _check_columns(name, result, source)
    return result


def _refuse_missing_columns(name: str, table: pd.DataFrame, source: str) -> None:
    twice = table.columns[table.columns.duplicated()]
    if len(twice):
        raise TableError(source, str(twice[0]), "stands there twice; keep one")
    for column, rule in COLUMNS[name].items():
        if rule.required and column not in table.columns:
            came = ", ".join(str(other) for other in table.columns[:_MOST_COLUMNS_NAMED]) or "none"
            more = len(table.columns) - _MOST_COLUMNS_NAMED
            came += f" and {more} more" if more > 0 else ""
            raise TableError(source, column, f"is missing; the table's columns are {came}")


def _coerced(name: str, column: str, table: pd.DataFrame, source: str) -> pd.Series:
    def fault(bad: pd.Series, expected: str) -> TableError:
        return TableError(source, column, expected, row_ids(name, table[bad]))

    kind = COLUMNS[name][column].kind
    if column not in table.columns:
        return pd.Series(index=table.index, dtype=DTYPES[kind])
    if column in _NEVER_THOUSANDTHS:
        ambiguous = thousands_by_point(table[column])
        if ambiguous.any():
            came = f"'{table[column][ambiguous].iloc[0]}'"
            raise fault(ambiguous, f"should say thousands without a point; came {came} throughout: {_WRITE}")
    return coerce(table[column], kind, fault)


def _check_columns(name: str, table: pd.DataFrame, source: str) -> None:
    try:
        _pandera_schema(name).validate(table, lazy=True)
    except pa.errors.SchemaErrors as errors:
        cases = errors.failure_cases
    else:
        return
    first = cases.iloc[0]
    same = cases[(cases["column"] == first["column"]) & (cases["check"] == first["check"])]
    rows = table.loc[same["index"].astype("int64")]
    raise TableError(source, first["column"], _expected(name, first, same), row_ids(name, rows))


def _expected(name: str, first: pd.Series, cases: pd.DataFrame) -> str:
    if first["check"] == "not_nullable":
        return "should not be empty; fill the value in, or leave the row out"
    if first["check"] == "field_uniqueness":
        return "should name each row once; came more than once"
    came = ", ".join(f"'{value}'" for value in dict.fromkeys(cases["failure_case"]))
    if COLUMNS[name][first["column"]].one_of:
        return f"{first['check']}; came {came}"
    return str(first["check"])


@cache
def _pandera_schema(name: str) -> pa.DataFrameSchema:
    return pa.DataFrameSchema({column: _pandera_column(rule) for column, rule in COLUMNS[name].items()})


def _pandera_column(rule: Column) -> pa.Column:
    checks = []
    if rule.one_of:
        checks.append(pa.Check.isin(rule.one_of, error=f"should be one of {', '.join(rule.one_of)}"))
    if rule.kind == "number":
        finite = "should be finite; came infinity: mend it, or leave it empty"
        negative = "should be 0 or more; came less: mend it, or leave it empty"
        checks.append(pa.Check(lambda values: values != float("inf"), error=finite))
        checks.append(pa.Check(lambda values: values >= 0, error=negative))
    return pa.Column(DTYPES[rule.kind], checks=checks, nullable=not rule.required, unique=rule.unique)

"""Answers into their table, many to a statement.

One statement carries hundreds of rows, for two reasons. A driver that is called once a row gives up
Python's lock once a row, and beside a busy event loop waits up to 5 ms to have it back: measured 450 µs a
row, against 50. And on PostgreSQL a batch as one JSON document costs this process 3 µs a row, against 13 to
50 as parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cache
from itertools import chain
from operator import itemgetter
from typing import Any

import orjson
from sqlalchemy import Boolean, Connection, Float

from serving.journal.tables import ANSWER_COLUMNS, UtcDateTime, answers, utc_text

_WIDTH = len(ANSWER_COLUMNS)
_VALUES = itemgetter(*ANSWER_COLUMNS)
_TIMES = [name for name in ANSWER_COLUMNS if isinstance(answers.c[name].type, UtcDateTime)]
_MOST_AT_ONCE = 512  # x 19 columns = 9,728 parameters, of the 32,766 that SQLite takes
_JSON_TYPES = {UtcDateTime: "timestamptz", Boolean: "boolean", Float: "double precision"}


def insert_answers(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add rows; those whose `recommendation_id` and `role` are there already change nothing.

    Parameters
    ----------
    connection : in a transaction
    rows : each with all of `ANSWER_COLUMNS`; times in UTC. What is no number (NaN) becomes unknown

    Raises
    ------
    KeyError, TypeError
        A row lacks a column, or holds what no column takes.
    sqlalchemy.exc.DBAPIError
        The database is lost (OperationalError and others) or refuses a row (DataError, IntegrityError).
    """
    if connection.dialect.name == "sqlite":
        _insert_as_parameters(connection, rows)
    else:
        connection.exec_driver_sql(_json_statement(), (_document(rows),))


def _insert_as_parameters(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    values = list(chain.from_iterable(map(_VALUES, rows)))
    for first in map(ANSWER_COLUMNS.index, _TIMES):
        values[first::_WIDTH] = _texts(values[first::_WIDTH])
    start = 0
    while start < len(rows):
        # Powers of two, so that few statements exist and the driver keeps them prepared.
        size = min(_MOST_AT_ONCE, 1 << ((len(rows) - start).bit_length() - 1))
        part = values[start * _WIDTH : (start + size) * _WIDTH]
        connection.exec_driver_sql(_values_statement(size), tuple(part))
        start += size


def _document(rows: Sequence[Mapping[str, Any]]) -> str:
    records = [dict(zip(ANSWER_COLUMNS, _VALUES(row), strict=True)) for row in rows]
    for name in _TIMES:
        assert all(record[name].tzinfo for record in records), "a time without an offset reached the journal"
    return orjson.dumps(records, option=orjson.OPT_SERIALIZE_NUMPY).decode()


def _texts(moments: Sequence[datetime]) -> list[str]:
    """As SQLite keeps them. The deals of one request share their moment, which is written once."""
    texts, last, text = [], None, ""
    for moment in moments:
        if moment is not last:
            last, text = moment, utc_text(moment)
        texts.append(text)
    return texts


@cache
def _values_statement(n_rows: int) -> str:
    row = f"({','.join('?' * _WIDTH)})"
    return (
        f"INSERT INTO answers ({','.join(ANSWER_COLUMNS)}) VALUES {','.join([row] * n_rows)} "
        "ON CONFLICT DO NOTHING"
    )


@cache
def _json_statement() -> str:
    names = ",".join(ANSWER_COLUMNS)
    typed = ",".join(
        f"{name} {_JSON_TYPES.get(type(answers.c[name].type), 'text')}" for name in ANSWER_COLUMNS
    )
    return (
        f"INSERT INTO answers ({names}) SELECT {names} FROM json_to_recordset(%s::json) AS rows({typed}) "
        "ON CONFLICT DO NOTHING"
    )

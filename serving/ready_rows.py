"""Facts of open deals, ready to be answered from: the builder writes them, the server reads them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects import postgresql, sqlite

from serving.journal.database import writing
from serving.journal.tables import events, ready_rows

ROWS_AT_ONCE = 500
"""Rows a transaction: others wait for their turn to write meanwhile."""
_LOCK = 0x57E9_1012  # for pg_advisory_xact_lock: who waits for it commits its revision later than who had it
_COLUMNS = (
    ready_rows.c.deal_id,
    ready_rows.c.as_of,
    ready_rows.c.stage,
    ready_rows.c.facts,
    ready_rows.c.revision,
)
_FIND = f"SELECT {', '.join(column.name for column in _COLUMNS)} FROM ready_rows WHERE deal_id = "

Facts = dict[str, Any]


@dataclass(frozen=True)
class ReadyRow:
    """One open deal's features as of a moment, by their names; None where missing."""

    deal_id: str
    as_of: datetime
    stage: str | None
    partner_id: str | None
    customer_id: str | None
    amount: float | None
    facts: Facts


@dataclass(frozen=True, slots=True)
class Found:
    """A row as it is read; without facts the deal is no longer open."""

    deal_id: str
    as_of: datetime
    stage: str | None
    facts: Facts | None
    revision: int


def put(engine: Engine, rows: Sequence[ReadyRow], gone: Collection[str], as_of: datetime) -> None:
    """Write rows over those of the same deals; a deal that is gone leaves its name alone behind.

    Each transaction has a revision of its own, higher than those that others can have seen.
    """
    made = [_values(row) for row in rows] + [_nothing(deal_id, as_of) for deal_id in sorted(gone)]
    for start in range(0, len(made), ROWS_AT_ONCE):
        with writing(engine) as connection:
            _upsert(connection, made[start : start + ROWS_AT_ONCE])


def _upsert(connection: Connection, made: Sequence[dict[str, Any]]) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
    revision = 1 + (connection.execute(select(func.max(ready_rows.c.revision))).scalar() or 0)
    insert = (sqlite if is_sqlite else postgresql).insert(ready_rows)
    over = {column.name: insert.excluded[column.name] for column in ready_rows.c if not column.primary_key}
    statement = insert.on_conflict_do_update(index_elements=[ready_rows.c.deal_id], set_=over)
    connection.execute(statement, [{**each, "revision": revision} for each in made])


def _values(row: ReadyRow) -> dict[str, Any]:
    return {
        "deal_id": row.deal_id,
        "as_of": row.as_of,
        "stage": row.stage,
        "partner_id": row.partner_id,
        "customer_id": row.customer_id,
        "amount": row.amount,
        "facts": orjson.dumps(row.facts).decode(),
        "feature_set": "crm",
    }


def _nothing(deal_id: str, as_of: datetime) -> dict[str, Any]:
    blank = dict.fromkeys(("stage", "partner_id", "customer_id", "amount"))
    return {"deal_id": deal_id, "as_of": as_of, "facts": "", "feature_set": "gone", **blank}


def find(connection: Connection, deal_id: str) -> Found | None:
    """Return a deal's row; None where there never was one.

    In the driver's own words, for each request for a known deal comes here: a third of what a statement costs
    that is put together.
    """
    mark = "?" if connection.dialect.name == "sqlite" else "%s"
    row = connection.exec_driver_sql(_FIND + mark, (deal_id,)).first()
    if row is None:
        return None
    as_of = datetime.fromisoformat(row.as_of) if isinstance(row.as_of, str) else row.as_of.astimezone(UTC)
    return Found(row.deal_id, as_of, row.stage, _facts(row.facts), row.revision)


def find_since(connection: Connection, revision: int) -> Iterator[list[Found]]:
    """Return the rows written after a revision, in pieces, by revision."""
    statement = select(*_COLUMNS).where(ready_rows.c.revision > revision).order_by(ready_rows.c.revision)
    for part in connection.execution_options(yield_per=ROWS_AT_ONCE).execute(statement).partitions():
        yield [_found(row) for row in part]


def newest_revision(connection: Connection) -> int:
    """Return the highest revision; 0 without any row."""
    return connection.execute(select(func.max(ready_rows.c.revision))).scalar() or 0


def ids(connection: Connection) -> set[str]:
    """Return the deals that have facts."""
    return set(connection.execute(select(ready_rows.c.deal_id).where(ready_rows.c.facts != "")).scalars())


def _found(row: Any) -> Found:
    return Found(row.deal_id, row.as_of, row.stage, _facts(row.facts), row.revision)


def _facts(text: str) -> Facts | None:
    return orjson.loads(text) if text else None


def new_events(connection: Connection, after: int, but_not: Collection[int]) -> list[dict[str, Any]]:
    """Return the events from a little before a number on, except those that were seen, in order."""
    numbers = connection.execute(select(events.c.seq).where(events.c.seq > after)).scalars()
    unseen = [number for number in numbers if number not in but_not]
    found: list[dict[str, Any]] = []
    for start in range(0, len(unseen), ROWS_AT_ONCE):
        part = select(events).where(events.c.seq.in_(unseen[start : start + ROWS_AT_ONCE]))
        found += [dict(row._mapping) for row in connection.execute(part.order_by(events.c.seq))]
    return found

"""The tables of the one database that all processes share.

Migrations build them; ``tests/serving/journal`` holds the two to each other. All times go in and come out as
datetimes in UTC. On SQLite they are texts of one width, so that their order is the order of time.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect

from features.journal_columns import ANSWER_COLUMNS, OUTCOME_COLUMNS, OVERRIDE_COLUMNS

__all__ = [
    "ANSWER_COLUMNS",
    "OUTCOME_COLUMNS",
    "OVERRIDE_COLUMNS",
    "answers",
    "api_keys",
    "events",
    "metadata",
    "outcomes",
    "overrides",
    "ready_rows",
    "utc_text",
]


def utc_text(moment: datetime) -> str:
    """Return the moment as SQLite keeps it: ``2026-03-01T09:30:00.000000+00:00``, always of that width."""
    if moment.tzinfo is not UTC:
        assert moment.tzinfo is not None, "a time without an offset reached the journal"
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="microseconds")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment, aware, in UTC: ``timestamptz`` on PostgreSQL, text on SQLite."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Text where the database has no moments."""
        if dialect.name == "sqlite":
            return dialect.type_descriptor(String(32))
        return dialect.type_descriptor(DateTime(timezone=True))

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], Any]:
        """Refuse a time without an offset: it would mean another moment on each machine."""
        if dialect.name == "sqlite":
            return lambda moment: None if moment is None else utc_text(moment)

        def check(moment: datetime | None) -> datetime | None:
            assert moment is None or moment.tzinfo is not None, "a time without an offset reached the journal"
            return moment

        return check

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None]:  # noqa: ARG002
        """Give back UTC, whatever offset the connection speaks."""
        if dialect.name == "sqlite":
            return lambda text: None if text is None else datetime.fromisoformat(text)
        return lambda moment: None if moment is None else moment.astimezone(UTC)


metadata = MetaData()

# An answer in shadow may bear the id of the answer it stood beside: the two differ in role. No index on
# deal_id: ids grow with time, so that answers are added at the end of all that is stored, at 11 µs each;
# deals come in any order, and an index on them made that 39 µs once 180,000 answers were there.
answers = Table(
    "answers",
    metadata,
    Column("recommendation_id", Text, nullable=False),
    Column("deal_id", Text, nullable=False),
    Column("asked_at", UtcDateTime, nullable=False),
    Column("as_of", UtcDateTime, nullable=False),
    Column("stage", Text),
    Column("advice", Text, nullable=False),
    Column("default_action_applied", Boolean, nullable=False),
    Column("score", Float),
    Column("uplift", Float),
    Column("uplift_low", Float),
    Column("uplift_high", Float),
    Column("break_even", Float),
    Column("chance", Float, nullable=False),
    Column("model_name", Text),
    Column("model_version", Text),
    Column("model_digest", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("facts", Text, nullable=False),
    Column("asked_by", Text, nullable=False),
    PrimaryKeyConstraint("recommendation_id", "role", name="answers_pkey"),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("outcome_id", Text, primary_key=True),
    Column("deal_id", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("received_at", UtcDateTime, nullable=False),
    Column("sent_by", Text, nullable=False),
    CheckConstraint("outcome IN ('won', 'lost', 'open')", name="outcomes_outcome"),
    Index("outcomes_by_deal", "deal_id"),
)

overrides = Table(
    "overrides",
    metadata,
    Column("override_id", Text, primary_key=True),
    Column("recommendation_id", Text),
    Column("deal_id", Text, nullable=False),
    Column("decided", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("sent_by", Text, nullable=False),
    CheckConstraint("decided IN ('step_in', 'step_back')", name="overrides_decided"),
    Index("overrides_by_recommendation", "recommendation_id"),
    Index("overrides_by_deal", "deal_id"),
)

# On PostgreSQL a `seq` may become visible after a later one: read again from a little before the last seen.
events = Table(
    "events",
    metadata,
    Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("event_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("deal_id", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("happened_at", UtcDateTime, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("sent_by", Text, nullable=False),
    UniqueConstraint("event_id", name="events_event_id"),
    Index("events_by_deal", "deal_id"),
    sqlite_autoincrement=True,
)

ready_rows = Table(
    "ready_rows",
    metadata,
    Column("deal_id", Text, primary_key=True),
    Column("as_of", UtcDateTime, nullable=False),
    Column("stage", Text),
    Column("partner_id", Text),
    Column("customer_id", Text),
    Column("amount", Float),
    Column("facts", Text, nullable=False),
    Column("feature_set", Text),
    Column("revision", BigInteger().with_variant(Integer, "sqlite"), nullable=False),
    Index("ready_rows_by_revision", "revision"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("last_used_at", UtcDateTime),
)

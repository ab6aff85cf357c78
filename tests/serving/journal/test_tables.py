"""What goes into the tables comes out of them, and migrations make what the code believes in."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import insert, inspect, select

from features import journal_columns
from serving.journal.database import read_url
from serving.journal.migrate import VERSION_TABLE, migrate
from serving.journal.tables import answers, api_keys, metadata, outcomes, overrides, utc_text

MOMENTS = (
    datetime(2026, 3, 1, 9, 30, tzinfo=UTC),
    datetime(2026, 3, 1, 9, 30, 0, 1, tzinfo=UTC),
    datetime(2026, 3, 1, 12, 0, tzinfo=timezone(timedelta(hours=2))),
    datetime(2026, 3, 1, 10, 0, 0, 500_000, tzinfo=UTC),
    datetime(2026, 10, 1, 0, 0, tzinfo=UTC),
)


def test_migrations_make_the_tables_that_the_code_believes_in(url: str) -> None:
    database = read_url(url)
    migrate(database)
    engine = database.engine()
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []
        found = inspect(connection)
        for table in metadata.tables.values():
            checks = {check["name"] for check in found.get_check_constraints(table.name)}
            assert checks == {c.name for c in table.constraints if "CHECK" in type(c).__name__.upper()}
    engine.dispose()


def test_the_columns_that_training_knows_are_those_of_the_tables() -> None:
    assert tuple(answers.c.keys()) == journal_columns.ANSWER_COLUMNS
    assert tuple(outcomes.c.keys()) == journal_columns.OUTCOME_COLUMNS
    assert tuple(overrides.c.keys()) == journal_columns.OVERRIDE_COLUMNS


def test_a_moment_comes_out_as_it_went_in_whatever_its_offset(url: str) -> None:
    database = read_url(url)
    migrate(database)
    engine = database.engine()
    keys = [
        {"key_id": str(i), "name": "", "secret_hash": "", "scopes": "", "created_at": moment}
        for i, moment in enumerate(MOMENTS)
    ]
    with engine.begin() as connection:
        connection.execute(insert(api_keys), keys)
    with engine.connect() as connection:
        found = connection.execute(select(api_keys.c.created_at).order_by(api_keys.c.created_at)).scalars()
        assert list(found) == sorted(MOMENTS)
        late = api_keys.c.created_at >= MOMENTS[2]
        found = connection.execute(select(api_keys.c.created_at, api_keys.c.revoked_at).where(late)).all()
        assert {row.created_at for row in found} == set(MOMENTS[2:])
        assert {row.created_at.utcoffset() for row in found} == {timedelta(0)}
        assert {row.revoked_at for row in found} == {None}
    engine.dispose()


def test_texts_of_moments_sort_as_moments_do() -> None:
    assert sorted(map(utc_text, MOMENTS)) == [utc_text(moment) for moment in sorted(MOMENTS)]
    assert {len(utc_text(moment)) for moment in MOMENTS} == {32}


def test_a_time_without_an_offset_is_no_moment() -> None:
    with pytest.raises(AssertionError, match="a time without an offset reached the journal"):
        utc_text(datetime(2026, 3, 1))

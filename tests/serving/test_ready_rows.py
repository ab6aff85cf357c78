"""The builder's rows: who has one, when it is built anew, and from what. On SQLite and on PostgreSQL."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import orjson
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from sqlalchemy import create_engine

from features import simulate
from features.moments import open_deals
from features.problems import UserError
from features.schema import check
from serving import ready_rows
from serving.builder import Builder, read_data
from serving.events import read_events
from serving.journal.database import read_url, writing
from serving.journal.migrate import migrate
from serving.journal.tables import events
from serving.knowledge import event_row


@pytest.fixture(scope="module")
def crm():
    """A simulated CRM's tables, and its open deals."""
    tables = check(simulate(400, seed=3).tables)
    return SimpleNamespace(tables=tables, open_ids=open_deals(tables)["deal_id"].tolist())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """A database that holds nothing yet."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/stepin.db"
    return request.getfixturevalue("postgres").new_database()


def lost(deal_id):
    return {"deal_id": deal_id, "kind": "outcome", "outcome": "lost"}


@pytest.fixture
def alone(crm, url):
    """A builder without a process around it, on SQLite and on PostgreSQL; its clock stands still."""
    database = read_url(url)
    migrate(database)
    engine = database.engine()
    folder = {"stamp": 1, "tables": crm.tables}
    clock = SimpleNamespace(now=crm.tables.now.to_pydatetime() + timedelta(days=1))
    builder = Builder(
        engine, lambda: folder["tables"], clock=lambda: clock.now, stamp=lambda: folder["stamp"]
    )
    builder.load()

    def add(*what):
        sent = [{"event_id": f"{each['deal_id']} {each['kind']}", **each} for each in what]
        told = read_events(orjson.dumps({"events": sent}), clock.now)
        rows = [event_row(each, "key-1") for each in told]
        with writing(engine) as connection:
            connection.execute(events.insert(), rows)

    def find(deal_id):
        with engine.connect() as connection:
            return ready_rows.find(connection, deal_id)

    yield SimpleNamespace(builder=builder, add=add, find=find, clock=clock, folder=folder, engine=engine)
    engine.dispose()


def test_every_open_deal_has_its_row_and_no_other_deal_has(alone, crm):
    with alone.engine.connect() as connection:
        assert ready_rows.ids(connection) == set(crm.open_ids)


def test_a_deal_of_the_same_partner_is_built_anew_and_others_stay(alone, crm):
    deals = crm.tables.deals.set_index("deal_id")
    is_open = deals.loc[crm.open_ids]
    partner = is_open["partner_id"].value_counts().index[0]
    first, *others = is_open.index[is_open["partner_id"] == partner]
    customers = set(is_open.loc[[first, *others], "customer_id"])
    stranger = is_open.index[(is_open["partner_id"] != partner) & ~is_open["customer_id"].isin(customers)][0]
    before = {each: alone.find(each) for each in (*others, stranger)}
    happened = (alone.clock.now - timedelta(hours=1)).isoformat()
    alone.add({"deal_id": first, "kind": "outcome", "outcome": "won", "happened_at": happened})
    alone.clock.now += timedelta(minutes=5)
    alone.builder.catch_up()
    assert alone.find(first).facts is None
    assert set(others) <= alone.builder.stale
    while alone.builder.stale:
        alone.builder.rebuild_some()
    assert others
    for each in others:
        assert alone.find(each).as_of == alone.clock.now
        assert alone.find(each).facts["partner_win_rate"] > before[each].facts["partner_win_rate"]
        assert alone.find(each).revision > before[each].revision
    assert alone.find(stranger) == before[stranger]


def test_days_pass_in_every_row(alone, crm):
    deal_id = crm.open_ids[0]
    before = alone.find(deal_id).facts
    alone.clock.now += timedelta(days=3)
    alone.builder.freshen()
    assert alone.builder.stale == set(crm.open_ids)
    while alone.builder.stale:
        alone.builder.rebuild_some()
    assert alone.find(deal_id).facts["days_in_stage"] == pytest.approx(before["days_in_stage"] + 3)


def test_newer_tables_are_read_and_what_they_hold_is_not_counted_twice(alone, crm):
    deal_id = crm.open_ids[0]
    happened = (alone.clock.now - timedelta(hours=2)).replace(microsecond=5)  # the export tells seconds only
    entry = {"deal_id": deal_id, "kind": "stage", "stage": "negotiation", "happened_at": happened.isoformat()}
    alone.add(entry)
    alone.builder.catch_up()
    before = alone.find(deal_id).facts
    row = {"deal_id": deal_id, "stage": "negotiation", "entered_at": happened.replace(microsecond=0)}
    entries = pd.concat([crm.tables.stage_entries, pd.DataFrame([row])], ignore_index=True)
    alone.clock.now += timedelta(hours=1)
    later = pd.DataFrame(
        [{**row, "deal_id": crm.open_ids[1], "entered_at": alone.clock.now, "stage": "proposal"}]
    )
    closing = (deals := crm.tables.deals)["deal_id"] == crm.open_ids[2]
    deals = deals.assign(
        outcome=deals["outcome"].mask(closing, "lost"),
        closed_at=deals["closed_at"].mask(closing, pd.Timestamp(happened)),
    )
    entries = pd.concat([entries, later], ignore_index=True)
    newer = replace(crm.tables, deals=deals, stage_entries=entries, exported_at=None)
    alone.folder.update(stamp=2, tables=check(newer, lambda: alone.clock.now))
    alone.clock.now += timedelta(hours=1)
    alone.builder.freshen()
    facts = alone.find(deal_id).facts
    assert facts["stage_moves"] == before["stage_moves"]
    assert alone.find(crm.open_ids[1]).facts["stage"] == "proposal"
    assert alone.find(crm.open_ids[2]).facts is None


def test_tables_that_broke_leave_the_rows_as_they_were(alone, crm):
    before = alone.find(crm.open_ids[0])

    def broken():
        raise UserError("deals.csv is cut off.")

    alone.builder._read = broken
    alone.folder["stamp"] = 2
    with pytest.raises(UserError):
        alone.builder.freshen()
    assert alone.find(crm.open_ids[0]) == before
    alone.add(lost(crm.open_ids[0]) | {"happened_at": alone.clock.now.isoformat()})
    alone.builder.catch_up()
    assert alone.find(crm.open_ids[0]).facts is None


def test_an_event_whose_number_shows_late_is_not_missed(alone, crm):
    """PostgreSQL gives numbers before it commits: the next number may be seen first."""
    first, second = crm.open_ids[:2]
    alone.add(lost(first) | {"happened_at": alone.clock.now.isoformat()})
    alone.add(lost(second) | {"happened_at": alone.clock.now.isoformat()})
    with writing(alone.engine) as connection:
        held_back = dict(connection.execute(events.select().order_by(events.c.seq)).first()._mapping)
        connection.execute(events.delete().where(events.c.seq == held_back["seq"]))
    alone.builder.catch_up()
    assert alone.find(first).facts is not None
    with writing(alone.engine) as connection:
        connection.execute(events.insert(), [held_back])
    alone.builder.catch_up()
    assert alone.find(first).facts is None


def test_tables_in_a_database_are_those_of_the_folder(crm, tmp_path):
    url = f"sqlite:///{tmp_path}/crm.db"
    engine = create_engine(url)
    for name, table in crm.tables.by_name().items():
        table.to_sql(name, engine, index=False)
    engine.dispose()
    read = read_data(url)
    for name, table in crm.tables.by_name().items():
        assert_frame_equal(read.by_name()[name][table.columns], table, check_exact=True)


def test_a_database_that_cannot_be_read_is_refused_without_its_password(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/empty.db")
    engine.connect().close()
    engine.dispose()
    for place, start in (
        (f"sqlite:///{tmp_path}/empty.db", "The database lacks deals, stage_entries, involvements"),
        (
            "postgresql+psycopg://user:pelican@127.0.0.1:1/crm",
            "The CRM tables cannot be read from their database",
        ),
        ("nothing://user:pelican@host/crm", "The CRM tables' database should be a URL"),
    ):
        with pytest.raises(UserError) as refused:
            read_data(place)
        assert str(refused.value).startswith(start)
        assert "pelican" not in str(refused.value)

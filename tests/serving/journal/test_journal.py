"""What is recorded, once, and what those who record it hear."""

import asyncio
import logging
import math
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from journal_rows import NOON, an_answer, eventually, query, stored_ids
from sqlalchemy import select

from features.journal_columns import ANSWER_COLUMNS
from serving.journal import Journal, Stored
from serving.journal.database import read_url
from serving.journal.insert import insert_answers
from serving.journal.migrate import migrate
from serving.journal.tables import answers, events
from serving.problems import JournalLost, RecordDiffers

WON = {"deal_id": "D-1", "outcome": "won", "closed_at": NOON, "sent_by": "key-1"}
NO = {"deal_id": "D-1", "decided": "step_back", "reason": "They know us well.", "sent_by": "key-1"}


@asynccontextmanager
async def opened(url: str, mode: Any, when_lost: Any = "refuse", **more: Any) -> AsyncIterator[Journal]:
    journal = Journal.open(url, mode, when_lost, **more)
    try:
        yield journal
    finally:
        await journal.close()


def test_an_answer_comes_out_as_it_went_in(url: str) -> None:
    rows = [
        an_answer(0, stage=None, score=None, model_version=None, default_action_applied=True),
        an_answer(1, uplift=1 / 3, facts='{"note": "\\u0000 \\" \' 🤝 %s ?"}', chance=0.05),
        an_answer(2, asked_at=datetime(2026, 3, 1, 14, 0, 0, 1, tzinfo=timezone(timedelta(hours=2)))),
        an_answer(3, score=math.nan),
    ]

    async def go() -> None:
        async with opened(url, "strict") as journal:
            await journal.record(rows)
            with journal.engine.connect() as connection:
                found = [dict(row._mapping) for row in connection.execute(select(answers))]
        expected = sorted([*rows[:3], {**rows[3], "score": None}], key=lambda row: row["deal_id"])
        assert sorted(found, key=lambda row: row["deal_id"]) == expected

    asyncio.run(go())


def test_strict_returns_after_the_commit_and_many_share_one(url: str) -> None:
    async def go() -> None:
        async with opened(url, "strict") as journal:
            assert journal._writer
            commits = []
            inner = journal._writer._insert
            journal._writer._insert = lambda connection, rows: (
                commits.append(len(rows)),
                inner(connection, rows),
            )[1]

            async def one(number: int) -> None:
                row = an_answer(number)
                await journal.record([row])
                # Another connection sees it already.
                with journal.engine.connect() as connection:
                    mine = answers.c.recommendation_id == row["recommendation_id"]
                    assert connection.execute(select(answers.c.deal_id).where(mine)).scalar() == f"D-{number}"

            await asyncio.gather(*(one(number) for number in range(200)))
            assert sum(commits) == 200
            assert len(commits) < 100
            assert journal.lag() == (0, 0.0)

    asyncio.run(go())


def test_strict_does_not_return_while_the_commit_cannot_be(url: str) -> None:
    """The kill of a process finds this out only now and then: a commit is short."""

    async def go() -> None:
        async with opened(url, "strict") as journal:
            with journal.writing() as connection:
                if not journal.database.is_sqlite:
                    connection.exec_driver_sql("LOCK TABLE answers IN EXCLUSIVE MODE")
                recording = asyncio.create_task(journal.record([an_answer()]))
                await asyncio.sleep(0.3)
                assert not recording.done()
            await recording
            assert len(stored_ids(url)) == 1

    asyncio.run(go())


def test_background_returns_at_once_and_writes_within_the_window(url: str) -> None:
    async def go() -> None:
        async with opened(url, "background") as journal:
            await journal.record([an_answer(number) for number in range(3)])
            assert journal.lag()[0] == 3
            assert journal.is_well()
            await eventually(lambda: journal.lag()[0] == 0)
            assert len(stored_ids(url)) == 3
            assert journal.unjournaled() == 0

    asyncio.run(go())


def test_closing_writes_what_waits(url: str) -> None:
    rows = [an_answer(number) for number in range(5000)]

    async def go() -> None:
        async with opened(url, "background") as journal:
            for row in rows:
                await journal.record([row])
        with pytest.raises(JournalLost):  # closed: it would be lost
            await journal.record([an_answer()])

    asyncio.run(go())
    assert sorted(stored_ids(url)) == sorted(row["recommendation_id"] for row in rows)


def test_the_same_answer_again_changes_nothing(url: str) -> None:
    row = an_answer(0)

    async def go() -> None:
        async with opened(url, "strict") as journal:
            await journal.record([row])
            await journal.record([{**row, "advice": "step_back"}, {**row, "role": "shadow"}, an_answer(1)])
            await journal.record([])
            assert journal.unjournaled() == 0

    asyncio.run(go())
    found = query(url, "SELECT deal_id, role, advice FROM answers")
    assert sorted(found) == [
        ("D-0", "served", "step_in"),
        ("D-0", "shadow", "step_in"),
        ("D-1", "served", "step_in"),
    ]


@pytest.mark.parametrize("number_of_rows", [1, 2, 511, 512, 513, 1000, 4001])
def test_every_row_of_a_batch_of_any_size_arrives(url: str, number_of_rows: int) -> None:
    database = read_url(url)
    migrate(database)
    rows = [an_answer(number) for number in range(number_of_rows)]
    engine = database.engine(writes=True)
    with engine.begin() as connection:
        insert_answers(connection, rows)
    with engine.connect() as connection:
        found = {row.recommendation_id: row._asdict() for row in connection.execute(select(answers))}
    engine.dispose()
    assert found == {row["recommendation_id"]: row for row in rows}


UNFIT: dict[str, dict[str, Any]] = {
    "no advice": {"advice": None},
    "no time zone": {"asked_at": datetime(2026, 3, 1)},
    "half a character": {"stage": "\ud800"},
    "no text": {"stage": object()},
}


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=UNFIT.keys())
def test_what_no_column_takes_is_said_and_keeps_nothing_else_out(
    url: str, unfit: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [an_answer(number, **(unfit if number == 13 else {})) for number in range(40)]

    async def go() -> None:
        async with opened(url, "strict") as journal:
            told = await asyncio.gather(*(journal.record([row]) for row in rows), return_exceptions=True)
            assert [number for number, error in enumerate(told) if error is not None] == [13]
            assert isinstance(told[13], JournalLost)
            assert journal.is_well()
            assert journal.unjournaled() == 0  # it was refused, not given
        async with opened(url, "background") as journal:
            await journal.record([an_answer(50, **unfit), an_answer(51)])
            await eventually(lambda: journal.lag()[0] == 0)
            assert journal.is_well()
            assert journal.unjournaled() == 1

    asyncio.run(go())
    deals = {row[0] for row in query(url, "SELECT deal_id FROM answers")}
    assert deals == {f"D-{number}" for number in range(40) if number != 13} | {"D-51"}
    said = "1 answers are not in the journal: the database refuses what they hold."
    assert [record.getMessage() for record in caplog.records] == [said, said]


def test_a_nul_is_unfit_for_postgresql(postgres: Any) -> None:
    url = postgres.new_database()

    async def go() -> None:
        async with opened(url, "strict", "answer") as journal:
            await journal.record([an_answer(0, stage="a\0b")])
            assert journal.unjournaled() == 1
            await journal.record([an_answer(1)])

    asyncio.run(go())
    assert query(url, "SELECT deal_id FROM answers") == [("D-1",)]


def test_a_row_that_lacks_a_column_is_unfit(sqlite_url: str) -> None:
    for gone in ANSWER_COLUMNS:
        row = {name: value for name, value in an_answer().items() if name != gone}

        async def go(row: dict[str, Any] = row) -> None:
            async with opened(sqlite_url, "strict") as journal:
                with pytest.raises(JournalLost):
                    await journal.record([row])

        asyncio.run(go())
    assert stored_ids(sqlite_url) == []


def test_off_records_no_answers_but_outcomes(url: str) -> None:
    async def go() -> None:
        async with opened(url, "off") as journal:
            await journal.record([an_answer()])
            assert (journal.is_well(), journal.lag(), journal.unjournaled()) == (True, (0, 0.0), 0)
            assert (await journal.add_outcome(WON)).is_new

    asyncio.run(go())
    assert stored_ids(url) == []
    assert query(url, "SELECT deal_id FROM outcomes") == [("D-1",)]


def test_an_outcome_told_again_is_one_outcome(url: str) -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=-5)))

    async def go() -> None:
        async with opened(url, "strict", clock=lambda: NOON) as journal:
            stored = await journal.add_outcome(WON)
            assert stored.row == {**WON, "outcome_id": stored.row["outcome_id"], "received_at": NOON}
            again = await journal.add_outcome({**WON, "closed_at": elsewhere, "sent_by": "key-2"})
            assert again == Stored({k: v for k, v in stored.row.items() if k != "sent_by"}, is_new=False)
            for other in ({"deal_id": "D-2"}, {"outcome": "lost"}, {"closed_at": None}):
                assert (await journal.add_outcome({**WON, **other})).is_new

            named = {**WON, "outcome_id": "crm-7"}
            assert await journal.add_outcome(named) == Stored({**named, "received_at": NOON}, is_new=True)
            assert not (await journal.add_outcome(named)).is_new
            with pytest.raises(
                RecordDiffers, match=r"^outcome_id names another record already\. Send a corr"
            ):
                await journal.add_outcome({**named, "outcome": "lost"})

    asyncio.run(go())
    assert len(query(url, "SELECT * FROM outcomes")) == 5


def test_an_override_told_again_is_one_override(url: str) -> None:
    async def go() -> None:
        async with opened(url, "background", clock=lambda: NOON) as journal:
            stored = await journal.add_override({**NO, "recommendation_id": "r-1"})
            assert (stored.is_new, stored.row["received_at"]) == (True, NOON)
            again = await journal.add_override({**NO, "recommendation_id": "r-1"})
            assert (again.is_new, again.row["override_id"]) == (False, stored.row["override_id"])
            assert (await journal.add_override(NO)).is_new
            assert (await journal.add_override({**NO, "reason": "Łódź, 'quoted'"})).is_new
            named = {**NO, "override_id": "o-1"}
            assert (await journal.add_override(named)).row == {
                **named,
                "recommendation_id": None,
                "received_at": NOON,
            }
            with pytest.raises(RecordDiffers):
                await journal.add_override({**named, "decided": "step_in"})

    asyncio.run(go())
    assert len(query(url, "SELECT * FROM overrides")) == 4


def test_the_same_outcome_from_many_at_once_is_stored_for_one(url: str) -> None:
    async def go() -> None:
        async with opened(url, "strict") as journal:
            told = await asyncio.gather(*(journal.add_outcome(WON) for _ in range(8)))
            assert sum(each.is_new for each in told) == 1
            assert len({each.row["outcome_id"] for each in told}) == 1

    asyncio.run(go())


def test_an_outcome_that_is_none_is_our_own_mistake(url: str) -> None:
    async def go() -> None:
        async with opened(url, "strict") as journal:
            said = (
                r"^outcomes cannot hold what came \((CheckViolation 23514|IntegrityError SQLITE_CONSTR.*)\)$"
            )
            with pytest.raises(AssertionError, match=said) as refused:
                await journal.add_outcome({**WON, "outcome": "signed"})
            assert "D-1" not in "".join(traceback.format_exception(refused.value))

    asyncio.run(go())


def test_reading_then_writing_waits_for_its_turn(sqlite_url: str) -> None:
    event = {
        "kind": "stage",
        "deal_id": "D-1",
        "payload": "{}",
        "happened_at": NOON,
        "received_at": NOON,
        "sent_by": "key-1",
    }

    def count_and_add(journal: Journal, name: str) -> None:
        with journal.writing() as connection:
            number = len(connection.execute(select(events.c.seq)).all())
            connection.execute(events.insert().values(event_id=f"{name}-{number}", **event))

    async def go() -> None:
        async with opened(sqlite_url, "strict") as one, opened(sqlite_url, "strict") as other:
            calls = [
                asyncio.to_thread(count_and_add, journal, name)
                for journal, name in ((one, "a"), (other, "b"))
                for _ in range(20)
            ]
            await asyncio.gather(*calls)
            with one.engine.connect() as connection:
                seen = connection.execute(select(events.c.event_id).order_by(events.c.seq)).scalars()
                assert [each.split("-")[1] for each in seen] == [str(number) for number in range(40)]
            with one.engine.begin() as connection:
                connection.execute(select(events.c.seq)).all()
                with pytest.raises(AssertionError, match=r"begin with journal\.writing"):
                    connection.execute(events.insert().values(event_id="c", **event))

    asyncio.run(go())


def test_errors_of_the_database_show_no_row(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def go() -> None:
        async with opened(url, "strict", "answer") as journal:
            await journal.record([an_answer(0, deal_id="hunter2", advice=None)])

    asyncio.run(go())
    assert caplog.records
    assert "hunter2" not in caplog.text


def test_now_is_in_utc(sqlite_url: str) -> None:
    async def go() -> None:
        async with opened(sqlite_url, "off") as journal:
            stored = await journal.add_outcome(WON)
            assert abs(stored.row["received_at"] - datetime.now(UTC)) < timedelta(minutes=1)

    asyncio.run(go())

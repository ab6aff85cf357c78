"""The database is lost, or its disk full: it is said, nothing is silent, what waited is written, once."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from journal_rows import NOON, an_answer, eventually, stored_ids
from postgres import Postgres
from small_disk import small_disk

from serving.journal import Journal
from serving.journal.writer import Pace
from serving.problems import JournalLost

PACE = Pace(lost_after_seconds=0.2, retry_seconds=0.1, check_seconds=0.2, room_rows=60)
WON = {"deal_id": "D-1", "outcome": "won", "closed_at": NOON, "sent_by": "key-1"}
CASES = [(mode, when) for mode in ("strict", "background") for when in ("refuse", "answer")]


class Outage:
    """A database that can be taken away and given back."""

    def __init__(self, url: str, take: Callable[[], object], give_back: Callable[[], object]) -> None:
        self.url, self._take, self._give_back = url, take, give_back
        self.is_taken = False

    def take(self) -> None:
        self._take()
        self.is_taken = True

    def give_back(self) -> None:
        if self.is_taken:
            self._give_back()
            self.is_taken = False


@pytest.fixture
def outage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Outage]:
    if request.param == "full disk":
        with small_disk(tmp_path / "disk") as disk:
            yield Outage(f"sqlite:///{disk.folder / 'journal.db'}", disk.fill, disk.free)
    elif request.param == "file moved":
        yield moving(tmp_path)
    else:
        server: Postgres = request.getfixturevalue("postgres")
        yield Outage(server.new_database(), server.stop, server.start)


def moving(folder: Path) -> Outage:
    here, there = folder / "here", folder / "there"
    here.mkdir()
    return Outage(f"sqlite:///{here / 'journal.db'}", lambda: here.rename(there), lambda: there.rename(here))


class Asked:
    """Records answers, and keeps who was told what."""

    def __init__(self, journal: Journal) -> None:
        self.journal, self.given, self.refused = journal, [], []
        self.number, self.slowest = 0, 0.0

    async def ask(self) -> None:
        self.number += 1
        # Bulky, so that a full disk is felt at once rather than after some free pages.
        row = an_answer(self.number, facts="x" * 20_000)
        since = time.monotonic()
        try:
            await self.journal.record([row])
        except JournalLost:
            self.refused.append(row["recommendation_id"])
        else:
            self.given.append(row["recommendation_id"])
        self.slowest = max(self.slowest, time.monotonic() - since)

    async def ask_until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self.ask()
                await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("outage", "mode", "when_lost"),
    [
        *(("full disk", *case) for case in CASES),
        *(("file moved", *case) for case in CASES),
        ("postgresql stopped", "strict", "refuse"),  # two of four: a restart takes seconds
        ("postgresql stopped", "background", "answer"),
    ],
    indirect=["outage"],
)
def test_a_loss_is_said_and_ends(
    outage: Outage, mode: Any, when_lost: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def go() -> Asked:
        journal = Journal.open(outage.url, mode, when_lost, PACE)
        asked = Asked(journal)
        try:
            for _ in range(3):
                await asked.ask()
            await eventually(lambda: journal.lag()[0] == 0)
            assert journal.is_well()

            outage.take()
            await asked.ask_until(lambda: not journal.is_well())  # readiness off
            if when_lost == "refuse":
                await asked.ask_until(lambda: len(asked.refused) > 4)
                assert journal.unjournaled() == 0
            else:
                await asked.ask_until(lambda: journal.unjournaled() > 4)
                assert asked.refused == []
            waiting, age = journal.lag()
            assert waiting > 0
            assert age > PACE.lost_after_seconds
            with pytest.raises(JournalLost):
                await journal.add_outcome(WON)

            outage.give_back()
            await eventually(lambda: journal.is_well() and journal.lag()[0] == 0)
            before = journal.unjournaled()
            await asked.ask()
            await eventually(lambda: journal.lag()[0] == 0)
            assert journal.unjournaled() == before
            assert (await journal.add_outcome(WON)).is_new
        finally:
            outage.give_back()
            await journal.close()
        return asked

    caplog.set_level(logging.WARNING, "stepin.journal")
    asked = asyncio.run(go())
    assert asked.slowest < 3.0  # nobody waits for the database to be back
    stored = stored_ids(outage.url)
    assert len(set(stored)) == len(stored)
    # Given and not there is exactly what was counted: nothing was lost in silence.
    missing = [each for each in asked.given if each not in set(stored)]
    assert len(missing) == asked.journal.unjournaled()
    said = [record.getMessage() for record in caplog.records]
    assert sum(line.startswith("The journal is lost (") for line in said) == 1
    assert sum(line.startswith("The journal is back; ") for line in said) == 1
    assert any("were given unrecorded" in line for line in said) == (when_lost == "answer")
    assert "xxx" not in caplog.text


def test_unrecorded_answers_are_said_once_a_second_at_most(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outage = moving(tmp_path)

    async def go() -> None:
        journal = Journal.open(outage.url, "background", "answer", replace(PACE, room_rows=1))
        asked = Asked(journal)
        outage.take()
        await asked.ask_until(lambda: not journal.is_well())
        until = time.monotonic() + 1.5
        await asked.ask_until(lambda: time.monotonic() > until)
        assert journal.unjournaled() > 20
        outage.give_back()
        await journal.close()

    asyncio.run(go())
    said = [record for record in caplog.records if "were given unrecorded" in record.getMessage()]
    assert 2 <= len(said) <= 3


@pytest.mark.parametrize("outage", ["file moved", "postgresql stopped"], indirect=True)
def test_a_loss_is_noticed_while_nobody_asks(outage: Outage) -> None:
    async def go() -> None:
        journal = Journal.open(outage.url, "strict", "refuse", PACE)
        await journal.record([an_answer()])
        outage.take()
        await eventually(lambda: not journal.is_well())
        assert journal.lag() == (0, 0.0)
        outage.give_back()
        await eventually(journal.is_well)
        await journal.close()

    asyncio.run(go())


@pytest.mark.parametrize(("mode", "when_lost"), CASES)
def test_what_waits_when_a_server_ends_without_its_database_is_counted(
    tmp_path: Path, mode: Any, when_lost: Any, caplog: pytest.LogCaptureFixture
) -> None:
    outage = moving(tmp_path)

    async def go() -> Asked:
        journal = Journal.open(outage.url, mode, when_lost, PACE)
        asked = Asked(journal)
        outage.take()
        await asked.ask_until(lambda: not journal.is_well())
        for _ in range(3):
            await asked.ask()
        since = time.monotonic()
        await journal.close(0.3)
        assert time.monotonic() - since < 2
        assert not journal.is_well()
        return asked

    asked = asyncio.run(go())
    outage.give_back()
    stored = set(stored_ids(outage.url))
    assert len([each for each in asked.given if each not in stored]) == asked.journal.unjournaled()
    said = "answers are not in the journal: the server ended and its database was lost."
    assert any(record.getMessage().endswith(said) for record in caplog.records)


@pytest.mark.parametrize("when_lost", ["refuse", "answer"])
def test_a_commit_that_does_not_end_keeps_nobody_waiting(url: str, when_lost: Any) -> None:
    pace = replace(PACE, stuck_after_seconds=0.5)

    async def go() -> None:
        journal = Journal.open(url, "strict", when_lost, pace)
        asked = Asked(journal)
        with journal.writing() as connection:
            if not journal.database.is_sqlite:
                connection.exec_driver_sql("LOCK TABLE answers IN EXCLUSIVE MODE")
            since = time.monotonic()
            await asked.ask()
            assert time.monotonic() - since < 2
            assert not journal.is_well()
            assert [len(asked.given), len(asked.refused)] == ([0, 1] if when_lost == "refuse" else [1, 0])
        await eventually(journal.is_well)
        await journal.close()
        assert journal.unjournaled() == 0

    asyncio.run(go())
    assert len(stored_ids(url)) == 1  # given after all, or refused and never asked about again


def test_a_file_that_was_replaced_takes_no_answer_unseen(sqlite_url: str) -> None:
    path = Path(sqlite_url.removeprefix("sqlite:///"))

    async def go() -> None:
        journal = Journal.open(sqlite_url, "strict", "refuse", PACE)
        await journal.record([an_answer(1)])
        for each in path.parent.glob("journal.db*"):
            each.unlink()
        (await asyncio.to_thread(Journal.open, sqlite_url, "off", "refuse")).engine.dispose()
        await journal.record([an_answer(2)])  # its connection led to the deleted file: it is made anew
        await journal.close()

    asyncio.run(go())
    assert len(stored_ids(sqlite_url)) == 1


def test_bursts_wait_for_room_rather_than_being_refused(url: str) -> None:
    async def go() -> None:
        journal = Journal.open(url, "background", "refuse", replace(PACE, room_rows=100))
        rows = [an_answer(number) for number in range(3000)]
        await asyncio.gather(*(journal.record(rows[first : first + 30]) for first in range(0, 1500, 30)))
        await journal.record(rows[1500:])  # larger than all room, and taken when nothing waits
        await journal.close()

    asyncio.run(go())
    assert len(stored_ids(url)) == 3000


def test_the_engine_for_everybody_survives_a_restart(postgres: Postgres) -> None:
    async def go() -> None:
        journal = Journal.open(postgres.new_database(), "off", "refuse")
        await journal.add_outcome(WON)
        postgres.stop()
        postgres.start()
        assert not (await journal.add_outcome(WON)).is_new
        await journal.close()

    asyncio.run(go())

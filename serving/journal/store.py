"""The journal: every answer is recorded before or with its reply; outcomes and overrides join it."""

from __future__ import annotations

import asyncio
import atexit
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection, Engine, Table, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from serving.journal.database import Database, FileMoved, read_url, writing
from serving.journal.insert import insert_answers
from serving.journal.migrate import migrate
from serving.journal.tables import outcomes, overrides
from serving.journal.writer import Fate, Pace, Row, Writer, kind_of
from serving.problems import JournalLost, RecordDiffers

Mode = Literal["background", "strict", "off"]
WhenLost = Literal["refuse", "answer"]
Clock = Callable[[], datetime]
Done = TypeVar("Done")
_log = logging.getLogger("stepin.journal")


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Stored:
    """An outcome or override as the journal has it: since now, or since it was first told."""

    row: Mapping[str, Any]
    """Its id, its content, and ``received_at``, when it was first told."""
    is_new: bool


class Journal:
    """One process's way into the journal, made by `open`.

    What each mode promises:

    strict
        `record` returns after the commit: an answer that was given is in the journal, whatever ends the
        process, or the machine (SQLite commits with ``synchronous=FULL``).
    background
        `record` returns at once. The end of the process loses at most what waits: 50 ms of answers and the
        commit under way, which is milliseconds. The end of the machine may also lose SQLite's last commits
        (``synchronous=NORMAL``).
    off
        Answers are not recorded. Outcomes, overrides, events and keys are.

    While the database is lost or full, background mode lets answers wait in memory (`lag` tells how many).
    Where one cannot wait, for want of room or because strict mode promised a commit, ``when_lost`` decides:
    "refuse" raises JournalLost, so that no reply leaves; "answer" lets it leave and counts it in
    `unjournaled`. An answer refused within the second in which the loss is found may still be written later:
    the journal can hold an answer that nobody got, never the other way round.
    """

    def __init__(
        self,
        database: Database,
        mode: Mode,
        when_lost: WhenLost,
        pace: Pace | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self.database, self.mode, self.when_lost = database, mode, when_lost
        self.engine: Engine = database.engine()
        """For keys, events and ready rows. Reads: ``engine.connect()``; writes: `writing`."""
        self._clock = clock
        self._n_unjournaled, self._n_said, self._said_at = 0, 0, float("-inf")
        self._pace = pace or Pace()
        self._writer = None if mode == "off" else self._start_writer()

    @classmethod
    def open(
        cls, url: str, mode: Mode, when_lost: WhenLost, pace: Pace | None = None, clock: Clock = utc_now
    ) -> Journal:
        """Bring the database to the newest version, and open it; safe while other processes do the same.

        Raises
        ------
        UserError
            The database cannot be read, reached, used, or is of a later version: see `migrate`.
        """
        database = read_url(url)
        migrate(database)
        return cls(database, mode, when_lost, pace, clock)

    def _start_writer(self) -> Writer:
        strict = self.mode == "strict"
        engine = self.database.engine("FULL" if strict else "NORMAL", writes=True, pool_size=1)
        writer = Writer(self.database, engine, insert_answers, gathers=not strict, pace=self._pace)
        atexit.register(writer.close, self._pace.stuck_after_seconds)  # a process that ends without close()
        return writer

    async def record(self, rows: Sequence[Row]) -> None:
        """Record the answers of one request, as the mode promises.

        Parameters
        ----------
        rows : each with exactly `tables.ANSWER_COLUMNS`; not changed afterwards

        Raises
        ------
        JournalLost
            They cannot be recorded, and ``when_lost`` is "refuse".
        """
        writer = self._writer
        if writer is None or not rows:
            return
        if self.mode == "background":
            if writer.put(rows):
                return
            recorded = await self._put_with_patience(writer, rows)
        else:
            recorded = await self._commit(writer, rows)
        if not recorded:
            self._not_recorded(len(rows))

    async def _put_with_patience(self, writer: Writer, rows: Sequence[Row]) -> bool:
        """No room: a well writer makes some soon; a lost one does not."""
        give_up_at = time.monotonic() + self._pace.patience_seconds
        while writer.is_well() and time.monotonic() < give_up_at:
            await asyncio.sleep(0.005)
            if writer.put(rows):
                return True
        return False

    async def _commit(self, writer: Writer, rows: Sequence[Row]) -> bool:
        if writer.lost:
            # Waiting would be in vain. What is answered all the same may wait for the database to be back.
            return self.when_lost == "answer" and writer.put(rows)
        heard: asyncio.Future[Fate] = asyncio.get_running_loop().create_future()
        if not writer.put(rows, heard):
            return False
        fate: Fate = "waits"
        with suppress(TimeoutError):
            async with asyncio.timeout(self._pace.stuck_after_seconds):
                fate = await heard
        return fate == "written" or (fate == "waits" and self.when_lost == "answer")

    def _not_recorded(self, n_rows: int) -> None:
        if self.when_lost == "refuse":
            raise JournalLost
        self._n_unjournaled += n_rows
        now = time.monotonic()
        if now - self._said_at >= 1.0:
            _log.error("%d answers were given unrecorded.", self._n_unjournaled - self._n_said)
            self._n_said, self._said_at = self._n_unjournaled, now

    def is_well(self) -> bool:
        """Do answers get into the database? For readiness; costs a microsecond, asks nobody."""
        return self._writer is None or self._writer.is_well()

    def lag(self) -> tuple[int, float]:
        """Answers that wait for their commit, and the age of the oldest in seconds."""
        return (0, 0.0) if self._writer is None else self._writer.lag()

    def unjournaled(self) -> int:
        """Answers of this process that were given and are not in the journal, nor wait for it."""
        refused = self.mode == "strict" and self.when_lost == "refuse"  # what is dropped was never given
        dropped = 0 if self._writer is None or refused else self._writer.n_dropped
        return self._n_unjournaled + dropped

    def writing(self) -> AbstractContextManager[Connection]:
        """Begin a transaction on `engine` that writes, also one that reads first: see `database.writing`."""
        return writing(self.engine)

    def write(self, work: Callable[[Connection], Done], what: str) -> Done:
        """Do work on `engine` in one transaction, and commit it. A stale connection is replaced, once.

        Parameters
        ----------
        work : may run twice; the first time nothing of it is kept then
        what : names what is written, for the log

        Raises
        ------
        JournalLost
            It cannot be recorded now.
        sqlalchemy.exc.DataError, sqlalchemy.exc.IntegrityError
            It can never be.
        """
        try:
            try:
                return self._write_once(work)
            except (OperationalError, FileMoved):
                self.engine.dispose()
                return self._write_once(work)
        except (DataError, IntegrityError):
            raise
        except (DBAPIError, NoConnectionFree, FileMoved) as error:
            _log.error("A record of %s was refused: %s.", what, kind_of(error))
            raise JournalLost from None

    def _write_once(self, work: Callable[[Connection], Done]) -> Done:
        with self.writing() as connection:
            done = work(connection)
            self.database.check_there(connection)
        return done

    async def add_outcome(self, outcome: Mapping[str, Any]) -> Stored:
        """Record what happened to a deal; committed when this returns.

        Parameters
        ----------
        outcome : ``deal_id``, ``outcome`` (won, lost, open), ``sent_by``; maybe ``closed_at``,
            ``outcome_id``. Texts without NUL, which PostgreSQL does not take. Without an id of the caller's,
            the same deal, outcome and closing time are the same record, so leave ``closed_at`` out rather
            than filling in the present.

        Returns
        -------
        Stored
            As it is kept, and whether it was there already.

        Raises
        ------
        RecordDiffers
            The caller's id came before, with other content.
        JournalLost
            It cannot be recorded now.
        """
        row = {"closed_at": None, **outcome}
        return await asyncio.to_thread(self._add, outcomes, row, ("deal_id", "outcome", "closed_at"))

    async def add_override(self, override: Mapping[str, Any]) -> Stored:
        """Record that a person decided otherwise; as `add_outcome`.

        Parameters
        ----------
        override : ``deal_id``, ``decided`` (step_in, step_back), ``reason``, ``sent_by``; maybe
            ``recommendation_id``, ``override_id``. Without an id of the caller's, the same of the first three
            for the same recommendation are the same record.
        """
        row = {"recommendation_id": None, **override}
        content = ("recommendation_id", "deal_id", "decided", "reason")
        return await asyncio.to_thread(self._add, overrides, row, content)

    def _add(self, table: Table, given: dict[str, Any], content: tuple[str, ...]) -> Stored:
        id_column = table.primary_key.columns[0]
        same = {name: given[name] for name in content}
        given_id = given.get(id_column.name)
        row = {**given, id_column.name: given_id or _derived_id(same), "received_at": self._clock()}
        dialect = sqlite if self.database.is_sqlite else postgresql
        insert = dialect.insert(table).values(row).on_conflict_do_nothing(index_elements=[id_column])
        there = select(*(table.c[name] for name in (id_column.name, *content, "received_at")))
        there = there.where(id_column == row[id_column.name])

        def insert_or_find(connection: Connection) -> dict[str, Any] | None:
            added = connection.execute(insert, execution_options={"preserve_rowcount": True}).rowcount == 1
            return None if added else dict(connection.execute(there).one()._mapping)

        try:
            found = self.write(insert_or_find, table.name)
        except (DataError, IntegrityError) as error:
            # Let in by mistake. The database's own words may hold the values, and end in a log.
            raise AssertionError(f"{table.name} cannot hold what came ({kind_of(error)})") from None
        if found is None:
            return Stored(row, is_new=True)
        if {name: found[name] for name in content} != same:
            raise RecordDiffers(id_column.name)
        return Stored(found, is_new=False)

    async def close(self, grace_seconds: float = 5.0) -> None:
        """Write what waits, within the grace period; what is dropped then is counted and logged."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close, grace_seconds)
            atexit.unregister(self._writer.close)
        self.engine.dispose()


def _derived_id(content: Mapping[str, Any]) -> str:
    """The same content, the same id. A time counts as its moment, whatever offset it came with."""
    parts = [
        value.astimezone(UTC).isoformat() if isinstance(value, datetime) else value
        for value in content.values()
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

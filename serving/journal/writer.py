"""The group commit: one thread a process that writes what waits, many answers to a commit.

It never gives up on a row while the process lives. A lost database or a full disk is tried again until it is
back; a commit whose fate nobody knows is written again, and the database ignores what it already has.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DataError, IntegrityError

from serving.journal.database import Database

Row = Mapping[str, Any]
Fate = Literal["written", "waits", "dropped"]
"""What those who wait for a commit hear: it is done; it may take long; it will never be."""
Insert = Callable[[Connection, Sequence[Row]], None]
_log = logging.getLogger("stepin.journal")
JOURNAL_LOST, JOURNAL_BACK = "journal_lost", "journal_back"
"""Kinds of what is logged (``record.kind``): for a counter."""


@dataclass(frozen=True)
class Pace:
    """How the writer waits, in seconds and rows."""

    gather_seconds: float = 0.05
    """Background mode lets answers gather so long before it commits them: with one commit's time, the
    window of loss."""
    gather_rows: int = 500
    """As many end the gathering at once."""
    most_rows: int = 4_000
    """One commit holds no more (a call's rows stay together, though)."""
    room_rows: int = 20_000
    """So many may wait; some 40 MB."""
    patience_seconds: float = 2.0
    """So long a call waits for room while the writer is well."""
    lost_after_seconds: float = 1.0
    """A failure is retried in silence so long; then the journal is lost, until a commit succeeds."""
    retry_seconds: float = 1.0
    """Between two tries at the most; the first come after 20 ms, 40 ms, ..."""
    stuck_after_seconds: float = 5.0
    """A commit that takes longer counts as lost, though it has not failed."""
    check_seconds: float = 5.0
    """An idle writer looks so often whether the database is still there."""


class _Waiting:
    """The rows of one call, since when they wait, and who wants to hear that they are committed."""

    __slots__ = ("heard", "rows", "since")

    def __init__(self, rows: Sequence[Row], since: float, heard: asyncio.Future[Fate] | None) -> None:
        self.rows, self.since, self.heard = rows, since, heard


class Writer:
    """Takes rows from the event loop's thread and commits them in its own.

    Parameters
    ----------
    database : asked whether its file is still there after each commit
    engine : the writer's own, whose transactions write; it disposes of it at the end
    insert : adds rows in a transaction, ignoring those that are there
    gathers : background mode: wait for more before a commit; else commit what is there at once
    pace : how long and how many
    """

    def __init__(
        self, database: Database, engine: Engine, insert: Insert, *, gathers: bool, pace: Pace | None = None
    ) -> None:
        self.pace = pace or Pace()
        self.lost = False
        self.n_dropped = 0
        self._database, self._engine, self._insert, self._gathers = database, engine, insert, gathers
        self._queue: deque[_Waiting] = deque()
        self._lock = threading.Lock()  # of the queue and n_waiting
        self._n_waiting = 0  # rows in the queue and in the commit under way
        self._under_way: Sequence[_Waiting] = ()
        self._wake, self._full, self._closing = threading.Event(), threading.Event(), threading.Event()
        self._give_up_at = float("inf")
        self._thread = threading.Thread(target=self._run, name="stepin-journal", daemon=True)
        self._thread.start()

    def put(self, rows: Sequence[Row], heard: asyncio.Future[Fate] | None = None) -> bool:
        """Let rows wait for the next commit; False, and nothing done, if there is no room.

        Parameters
        ----------
        rows : of one request; a batch larger than all room is taken when nothing else waits
        heard : is told their fate, once
        """
        with self._lock:
            waiting = self._n_waiting + len(rows)
            if self._closing.is_set() or (waiting > self.pace.room_rows and self._n_waiting):
                self._full.set()  # somebody waits for room: gather no more
                return False
            self._queue.append(_Waiting(rows, time.monotonic(), heard))
            self._n_waiting = waiting
        if not self._wake.is_set():
            self._wake.set()
        if waiting >= self.pace.gather_rows and not self._full.is_set():
            self._full.set()
        return True

    def lag(self) -> tuple[int, float]:
        """Rows that wait, and the age of the oldest in seconds."""
        with self._lock:
            oldest = self._under_way or self._queue
            since = oldest[0].since if oldest else None
            return self._n_waiting, 0.0 if since is None else time.monotonic() - since

    def is_well(self) -> bool:
        """Does it get its rows into the database?"""
        return not self.lost and self._thread.is_alive() and self.lag()[1] < self.pace.stuck_after_seconds

    def close(self, grace_seconds: float) -> None:
        """Write what waits, and end; what is not written within the grace period is dropped, and said."""
        self._give_up_at = time.monotonic() + grace_seconds
        with self._lock:
            self._closing.set()
        self._wake.set()
        self._full.set()
        self._thread.join(grace_seconds + 1.0)
        if self._thread.is_alive():  # in a commit that does not end
            left = [*self._under_way, *self._queue]
            self._drop(left, _count(left), "the server ended in the middle of a commit")

    def _run(self) -> None:
        while batch := self._take():
            self._write_at_last(batch)
            with self._lock:
                self._under_way = ()
                self._n_waiting -= _count(batch)
        self._engine.dispose()

    def _take(self) -> Sequence[_Waiting]:
        """Wait for rows, and take them; nothing when closing and none are left."""
        while not self._queue:
            if self._closing.is_set():
                return ()
            self._wake.clear()
            if not self._queue and not self._closing.is_set() and not self._wake.wait(self._idle_seconds()):
                self._look()
        if self._gathers:
            self._full.wait(self.pace.gather_seconds)
            if not self._closing.is_set():
                self._full.clear()
        batch: list[_Waiting] = []
        n_rows = 0
        with self._lock:
            while self._queue and (not batch or n_rows + len(self._queue[0].rows) <= self.pace.most_rows):
                batch.append(self._queue.popleft())
                n_rows += len(batch[-1].rows)
            self._under_way = batch
        if self._n_waiting - n_rows >= self.pace.gather_rows:
            self._full.set()  # do not gather while a full commit's worth waits already
        return batch

    def _idle_seconds(self) -> float:
        return self.pace.retry_seconds if self.lost else self.pace.check_seconds

    def _look(self) -> None:
        """Nothing to write: is the database still there?"""
        try:
            self._commit(())
        except Exception as error:
            self._engine.dispose()
            self._lose(error)
        else:
            self._find()

    def _write_at_last(self, batch: Sequence[_Waiting]) -> None:
        """Commit the batch, however often it takes; only the end of the grace period ends it unwritten."""
        failing_since, pause = None, 0.02
        while True:
            try:
                unfit = self._commit_fit([row for each in batch for row in each.rows])
                break
            except Exception as error:
                self._engine.dispose()  # the next try has a connection of its own
                now = time.monotonic()
                failing_since = failing_since or now
                if now - failing_since >= self.pace.lost_after_seconds:
                    self._lose(error)
                if now >= self._give_up_at:
                    self._drop(batch, _count(batch), "the server ended and its database was lost")
                    return
            self._closing.wait(pause) if not self._closing.is_set() else time.sleep(min(pause, 0.1))
            pause = min(2 * pause, self.pace.retry_seconds)
        self._find()
        if unfit:
            refused = {id(row) for row in unfit}
            self._drop(
                [each for each in batch if any(id(row) in refused for row in each.rows)],
                len(unfit),
                "the database refuses what they hold",
            )
        _tell(batch, "written")

    def _commit_fit(self, rows: Sequence[Row]) -> list[Row]:
        """Commit the rows, except those that the database will never take: they are returned."""
        try:
            self._commit(rows)
        except Exception as error:
            if not _is_unfit(error):
                raise
            if len(rows) == 1:
                self._commit(())  # it is the row, and not the database
                return list(rows)
            half = len(rows) // 2
            return self._commit_fit(rows[:half]) + self._commit_fit(rows[half:])
        return []

    def _commit(self, rows: Sequence[Row]) -> None:
        with self._engine.connect() as connection:
            with connection.begin():
                if rows:
                    self._insert(connection, rows)
                else:
                    connection.exec_driver_sql("SELECT 1 FROM answers LIMIT 1")
            self._database.check_there(connection)

    def _lose(self, error: Exception) -> None:
        """Say once that the journal is lost, and let nobody wait for what may take hours."""
        if not self.lost:
            told = {"kind": JOURNAL_LOST}
            _log.error("The journal is lost (%s): trying again until it is back.", kind_of(error), extra=told)
            self.lost = True
        with self._lock:
            waiting = [*self._under_way, *self._queue]
        _tell(waiting, "waits")

    def _find(self) -> None:
        if self.lost:
            self.lost = False
            told = {"kind": JOURNAL_BACK}
            _log.warning("The journal is back; %d answers wait to be written.", self._n_waiting, extra=told)

    def _drop(self, batch: Sequence[_Waiting], n_rows: int, why: str) -> None:
        """Say that `n_rows` of the batch will never be written; count them where nobody waits to hear it."""
        _log.error("%d answers are not in the journal: %s.", n_rows, why)
        heard = sum(len(each.rows) for each in batch if each.heard is not None and not each.heard.done())
        self.n_dropped += max(0, n_rows - heard)
        _tell(batch, "dropped")


def _count(batch: Iterable[_Waiting]) -> int:
    return sum(len(each.rows) for each in batch)


def _tell(batch: Iterable[_Waiting], fate: Fate) -> None:
    """Wake those who wait, with one call a loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[asyncio.Future[Fate]]] = {}
    for each in batch:
        if each.heard is not None:
            by_loop.setdefault(each.heard.get_loop(), []).append(each.heard)
            each.heard = None
    for loop, futures in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_resolve, futures, fate)


def _resolve(futures: Iterable[asyncio.Future[Fate]], fate: Fate) -> None:
    for future in futures:
        if not future.done():  # its request may have gone
            future.set_result(fate)


def _is_unfit(error: Exception) -> bool:
    """Does it say that a row can never be written, rather than that none can now?"""
    unfit = (DataError, IntegrityError, KeyError, TypeError, ValueError, AssertionError)
    # Of SQLite's driver: a value whose type it does not know.
    return isinstance(error, unfit) or isinstance(getattr(error, "orig", None), sqlite3.ProgrammingError)


def kind_of(error: Exception) -> str:
    """Name an error without its text, into which a database may put a row's values."""
    original = getattr(error, "orig", None) or error
    code = getattr(original, "sqlite_errorname", None) or getattr(original, "sqlstate", None)
    return f"{type(original).__name__} {code}" if code else type(original).__name__

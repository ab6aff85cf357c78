"""A process of its own, with pandas: knows the CRM tables, takes events in, builds the facts of open deals.

``python -m serving.builder`` is started by `serving.building`. It reads STEPIN_* variables, keeps the table
``ready_rows`` up to date, answers on the Unix socket STEPIN_BUILDER_SOCKET, and ends when its standard input
does.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from features.by_value import DealByValue, rows_by_value
from features.live import Ledger, LiveRows
from features.problems import UserError
from features.schema import Tables, read_tables
from features.table_database import is_database, read_database
from serving import frames, ready_rows
from serving.events import event_of, with_times
from serving.journal.database import read_url
from serving.logs import Logs
from serving.ready_rows import ReadyRow
from serving.settings import Settings
from training import model_folder

LOOK_AGAIN_SECONDS = 1.0
RETRY_SECONDS = 5.0
READ_BACK = 2000
"""Events are read again from so many before the newest: on PostgreSQL one may show after a later one."""
ROWS_AT_ONCE = 500
"""Stale rows built in one piece of work: on 200,000 deals it takes a second, and requests wait no longer."""
_BACKLOG = 128

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


class Builder:
    """What is known, and the rows made of it. Used by one thread at a time.

    Parameters
    ----------
    engine : the database of events and ready rows
    tables : reads the CRM tables; None where there are none
    currency : of the amounts, where the tables do not tell
    stamp : what changes when the tables do
    """

    def __init__(
        self,
        engine: Engine,
        tables: Callable[[], Tables | None],
        currency: str | None = None,
        clock: Clock = utc_now,
        stamp: Callable[[], object] = lambda: None,
    ) -> None:
        self._engine, self._read, self._currency, self._clock = engine, tables, currency, clock
        self._stamp = stamp
        self._stamped: object = None
        self.stale: set[str] = set()
        """Open deals whose rows may read of something that has changed since they were built."""
        self.ledger = Ledger(None, currency)
        self._seen: set[int] = set()
        self._newest = 0
        self._ready: set[str] = set()

    def load(self) -> None:
        """Read the tables and all events, and build every row.

        Raises
        ------
        UserError
            The tables cannot be used.
        """
        stamped = self._stamp()
        self.ledger = Ledger(self._read(), self._currency)
        self._stamped = stamped
        self._seen, self._newest = set(), 0
        with self._engine.connect() as connection:
            self._ready = ready_rows.ids(connection)
        self._take_events()
        self._store(self.ledger.rows(None, self._moment()), set(self._ready))
        self.stale = set()

    def catch_up(self) -> None:
        """Take in the events that came since, and rebuild their deals' rows; those of others are stale."""
        touched = self._take_events()
        if touched:
            self.stale |= self.ledger.related(touched) | touched
            self.rebuild(touched)

    def rebuild(self, deal_ids: Collection[str]) -> None:
        """Build the rows of some deals now; those no longer open lose theirs."""
        self._store(self.ledger.rows(deal_ids, self._moment()), set(deal_ids))
        self.stale -= set(deal_ids)

    def rebuild_some(self) -> None:
        """Build some of the stale rows: a piece of work that others can wait for."""
        self.rebuild(sorted(self.stale)[:ROWS_AT_ONCE])

    def freshen(self) -> None:
        """Take newer tables where there are some; else all rows are stale: days pass, and what is read of
        all deals moves. They are built piece by piece, so that who asks meanwhile need not wait for all.
        """
        if self._stamp() != self._stamped:
            self.load()
            return
        self.ledger.refresh()
        self.stale |= self._ready | self.ledger.open_ids()

    def fates(self, event_ids: Iterable[str]) -> dict[str, list[str | None]]:
        """Return what became of events: applied, waits or set_aside, and why."""
        return {event_id: list(self.ledger.fate(event_id)) for event_id in event_ids}

    def build(self, forms: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the features of deals by value, or what contradicts the rest."""
        asked = [DealByValue(**with_times(form)) for form in forms]
        return [
            {"contradiction": str(each)}
            if isinstance(each, UserError)
            else {"facts": each[0], "as_of": each[1].isoformat()}
            for each in rows_by_value(self.ledger, asked, self._moment())
        ]

    def standing(self, deal_id: str) -> str:
        """Tell whether a deal is open; an open one without a row gets it."""
        standing = self.ledger.standing(deal_id)
        if standing == "open" and deal_id not in self._ready:
            self.rebuild([deal_id])
        return standing

    def _take_events(self) -> set[str]:
        with self._engine.connect() as connection:
            rows = ready_rows.new_events(connection, self._newest - READ_BACK, self._seen)
        applied = self.ledger.apply(event_of(row) for row in rows)
        self._seen |= {row["seq"] for row in rows}
        self._newest = max(self._seen, default=0)
        self._seen = {seq for seq in self._seen if seq > self._newest - READ_BACK}
        return set(applied.deals)

    def _moment(self) -> datetime:
        """Now, and after everything that is on record."""
        return max(self._clock(), self.ledger.newest)

    def _store(self, rows: LiveRows, asked: set[str]) -> None:
        made = list(_ready(rows))
        gone = (asked & self._ready) - {row.deal_id for row in made}
        ready_rows.put(self._engine, made, gone, rows.moment.to_pydatetime())
        self._ready = (self._ready - gone) | {row.deal_id for row in made}


def _ready(rows: LiveRows) -> Iterable[ReadyRow]:
    as_of = rows.moment.to_pydatetime()
    about = rows.about
    for deal_id, stage, partner, customer, facts in zip(
        about.index, about["stage"], about["partner_id"], about["customer_id"], rows.facts(), strict=True
    ):
        amount = facts.get("amount")
        yield ReadyRow(
            str(deal_id),
            as_of,
            stage,
            partner,
            customer,
            amount if isinstance(amount, float) else None,
            facts,
        )


class Desk:
    """Answers the server's processes, one after the other, and keeps the rows fresh between them.

    Trouble is an event of the log, as the server's own are; without a log it is a sentence on stderr.
    """

    def __init__(self, builder: Builder, refresh_seconds: float, logs: Logs | None = None) -> None:
        self.builder, self.refresh_seconds, self.logs = builder, refresh_seconds, logs or Logs(None)
        self.is_loaded = False
        self._said = ""
        self._failures: set[str] = set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="builder")

    async def run(self, path: Path) -> None:
        """Listen at `path`, read what there is, and go on until cancelled."""
        path.unlink(missing_ok=True)
        server = await asyncio.start_unix_server(self._serve, path, backlog=_BACKLOG)
        async with server:
            while not await self._done(self.builder.load):
                await asyncio.sleep(RETRY_SECONDS)
            self.is_loaded = True
            refreshed = time.monotonic()
            while True:
                await asyncio.sleep(0 if self.builder.stale else LOOK_AGAIN_SECONDS)
                if time.monotonic() - refreshed >= self.refresh_seconds:
                    refreshed = time.monotonic()
                    await self._done(self.builder.freshen)
                elif not await self._done(self._look):
                    await asyncio.sleep(RETRY_SECONDS)

    def _look(self) -> None:
        self.builder.catch_up()
        if self.builder.stale:
            self.builder.rebuild_some()

    async def _done(self, work: Callable[[], None]) -> bool:
        """Do work in the builder's thread; what goes wrong is told once. The rows stay as they were."""
        try:
            await self._do(work)
        except Exception as error:
            self._trouble(error)
            return False
        self._said = ""
        return True

    def _trouble(self, error: Exception) -> str:
        """Put what went wrong into a sentence, and say it: our own faults once, the rest once a spell."""
        if isinstance(error, UserError):
            trouble = str(error)
        elif isinstance(error, DBAPIError):
            trouble = f"The database cannot be used ({type(error).__name__})."
        else:
            trouble = f"It is a fault of stepin's own: {type(error).__name__} in {_place(error)}."
            if trouble in self._failures:
                return trouble
            self._failures.add(trouble)
        self._say(trouble)
        return trouble

    def _say(self, trouble: str) -> None:
        if trouble != self._said:
            self._said = trouble
            sentence = f"Facts of known deals cannot be built. {trouble}"
            if self.logs.is_on:
                self.logs.event("builder_trouble", sentence=sentence)
            else:
                print(f"stepin: {sentence}", file=sys.stderr, flush=True)

    async def _do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(frames.BadFrame, ConnectionError):
            while (asked := await frames.receive(reader)) is not None:
                frames.send(writer, {"id": asked.get("id"), **await self._answer(asked)})
                await writer.drain()
        writer.close()

    async def _answer(self, asked: dict[str, Any]) -> dict[str, Any]:
        if not self.is_loaded:
            return {"trouble": "The CRM tables are being read."}
        try:
            return {"answer": await self._do(self._work, asked)}
        except Exception as error:
            return {"trouble": self._trouble(error)}

    def _work(self, asked: dict[str, Any]) -> Any:
        builder = self.builder
        match asked.get("do"):
            case "apply":
                builder.catch_up()
                return builder.fates(asked["event_ids"])
            case "build":
                return builder.build(asked["deals"])
            case "standing":
                builder.catch_up()
                return builder.standing(asked["deal_id"])
        return None


def _place(error: Exception) -> str:
    """Where our code failed. The error's own text may hold what was sent: it is left out."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent.name in ("features", "serving")]
    frame = (ours or frames)[-1]
    return f"{Path(frame.filename).parent.name}/{Path(frame.filename).name}:{frame.lineno}"


def main() -> int:
    """Build until the standard input ends."""
    settings = Settings.from_environ(os.environ)
    assert settings.builder_socket is not None, "serving.building says where to listen"
    threading.Thread(target=_end_with_parent, args=(settings.builder_socket,), daemon=True).start()
    builder = Builder(
        read_url(
            settings.database
        ).engine(),  # never made here: it may be lost, and another must not stand in
        lambda: read_data(settings.data),
        _currency(settings),
        stamp=lambda: stamp_of(settings.data),
    )
    os.umask(0o077)
    desk = Desk(builder, 60 * settings.refresh_minutes, Logs.of(settings.log))
    asyncio.run(desk.run(settings.builder_socket))
    return 0


def read_data(place: str | None) -> Tables | None:
    """Read the CRM tables from a folder or a database; None where nothing is named.

    Raises
    ------
    UserError
        They cannot be used.
    """
    if place is None:
        return None
    return read_database(place) if is_database(place) else read_tables(Path(place))


def stamp_of(place: str | None) -> object:
    """Return what changes when the tables' files do; a database may have changed at any time."""
    if place is None:
        return None
    if is_database(place):
        return object()
    about = [(file.name, file.stat()) for file in sorted(Path(place).glob("*")) if file.is_file()]
    return [(name, found.st_size, found.st_mtime_ns) for name, found in about]


def _currency(settings: Settings) -> str | None:
    with suppress(UserError, OSError):
        currency = model_folder.read_facts(settings.model).get("currency")
        return currency if isinstance(currency, str) else None
    return None


def _end_with_parent(socket: Path) -> None:
    sys.stdin.buffer.read()
    with suppress(OSError):  # the parent does it too, unless it was killed
        socket.unlink(missing_ok=True)
        socket.parent.rmdir()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())

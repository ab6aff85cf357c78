"""The database behind the journal: SQLite in WAL, or PostgreSQL, by its URL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from features.problems import UserError

BUSY_SECONDS = 5.0
_WRITES = "stepin_writes"
_FORMS = "sqlite:///stepin.db, or postgresql://user:password@host/database"
_POSTGRES_ARGUMENTS: dict[str, Any] = {
    # Notice within seconds that the other side is gone, rather than after the kernel's quarter of an hour.
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
Durability = Literal["FULL", "NORMAL"]


class FileMoved(Exception):  # noqa: N818 - what happened, rather than whose error
    """The journal's file is no longer at its path: what was committed went where nobody will look."""


@dataclass(frozen=True)
class Database:
    """Where the journal is; makes engines for it.

    Parameters
    ----------
    url : with its driver, as `read_url` returns it
    """

    url: URL

    @property
    def is_sqlite(self) -> bool:
        """Is it a file of ours?"""
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file, where it is one."""
        name = self.url.database if self.is_sqlite else None
        assert name, "no file, but a server's database"
        return Path(name)

    @property
    def name(self) -> str:
        """What a sentence may say: never the password, wherever in the URL it stands."""
        if self.is_sqlite:
            return str(self.path)
        shown = {name: self.url.query[name] for name in ("host", "port") if name in self.url.query}
        return self.url.set(drivername="postgresql", query=shown).render_as_string(hide_password=True)

    def engine(
        self, durability: Durability = "FULL", *, create: bool = False, writes: bool = False, **pool: Any
    ) -> Engine:
        """Make an engine whose errors never show a row's values.

        Parameters
        ----------
        durability : SQLite's ``synchronous``. NORMAL survives the process's end, but the last commits may
            not survive the machine's; FULL survives both. PostgreSQL decides for itself.
        create : make the SQLite file where there is none; else its absence is an error
        writes : each of its transactions begins as `writing` does
        pool : as `sqlalchemy.create_engine` takes it
        """
        if not self.is_sqlite:
            return create_engine(
                self.url, hide_parameters=True, pool_pre_ping=True, connect_args=_POSTGRES_ARGUMENTS, **pool
            )
        engine = create_engine(
            self.url, hide_parameters=True, creator=lambda: self._connect_file(durability, create), **pool
        )
        event.listen(engine, "connect", self._note_file)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "before_cursor_execute", _refuse_upgrade)
        return engine.execution_options(**{_WRITES: True}) if writes else engine

    def check_there(self, connection: Connection) -> None:
        """Refuse to believe in a commit to a file that was deleted or replaced meanwhile.

        Raises
        ------
        FileMoved
            The path leads elsewhere than when `connection` was made, or nowhere.
        """
        if self.is_sqlite and connection.info["file"] != _identity(self.path):
            raise FileMoved

    def _connect_file(self, durability: Durability, create: bool) -> sqlite3.Connection:
        mode = "rwc" if create else "rw"
        connection = sqlite3.connect(
            f"file:{quote(str(self.path))}?mode={mode}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,  # we begin ourselves: see _begin
            check_same_thread=False,  # the pool hands a connection to one thread at a time
        )
        connection.execute(f"PRAGMA synchronous={durability}")
        return connection

    def _note_file(self, _connection: Any, record: Any) -> None:
        record.info["file"] = _identity(self.path)


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """Begin a transaction that may read and then write; commit it at the end.

    On SQLite it waits for its turn to write at once: one that reads first and then wants to write would be
    refused with 'database is locked' when another process wrote in between.
    """
    with engine.execution_options(**{_WRITES: True}).begin() as connection:
        yield connection


def read_url(text: str) -> Database:
    """Read where the journal is.

    Raises
    ------
    UserError
        Not a URL, or a password that is not escaped; another kind of database, a database in memory, or a
        driver that is not installed. Nothing of the URL is repeated but the kind of database.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # the latter of a port that is no number
        raise UserError(f"The database should be a URL such as {_FORMS}; came something else.") from None
    backend = "postgresql" if url.drivername == "postgres" else url.get_backend_name()
    if backend == "sqlite":
        if not url.database or url.database == ":memory:" or url.query:
            raise UserError(f"The database should be a file, without options: {_FORMS}.")
        return Database(url.set(drivername="sqlite+pysqlite"))
    if backend == "postgresql":
        if "@" in (url.host or ""):  # the end of a password would pass for a host, and be told as one
            raise UserError(
                "The database's URL has more than one @: write one within a password as %40 (and : / # ? as "
                "%3A %2F %23 %3F)."
            )
        _need_psycopg()
        return Database(url.set(drivername="postgresql+psycopg"))
    raise UserError(f"The database should be SQLite or PostgreSQL ({_FORMS}); came {url.drivername}.")


def _need_psycopg() -> None:
    try:
        import psycopg  # noqa: F401 - asked whether it is there
    except ImportError:
        raise UserError(
            "PostgreSQL needs psycopg, which is not installed: pip install 'stepin[postgres]'."
        ) from None


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.info["has_read"] = False
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _refuse_upgrade(
    connection: Connection, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    """Fail always where SQLite would fail now and then: a write after a read, not begun with `writing`."""
    if context is None or connection.get_execution_options().get(_WRITES):
        return
    if context.isinsert or context.isupdate or context.isdelete:
        assert not connection.info.get("has_read"), "reads, then writes: begin with journal.writing()"
    elif context.compiled is not None:
        connection.info["has_read"] = True

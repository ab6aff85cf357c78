"""Bring a database to the newest version of the tables, whoever else is starting at the same time."""

from __future__ import annotations

import time
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect
from sqlalchemy.exc import DBAPIError, OperationalError

from features.problems import UserError
from serving.journal.database import BUSY_SECONDS, Database, writing

NEWEST = "0001"
VERSION_TABLE = "stepin_version"
SCRIPTS = Path(__file__).with_name("migrations")
_LOCK = 0x57E9_1011  # for pg_advisory_xact_lock: any number that is ours
_PAGE_BYTES = 8192  # an answer with its facts is 1 to 2 KB: fewer pages are written than with 4096


def migrate(database: Database) -> None:
    """Make or change the tables, in one transaction, one process at a time.

    Raises
    ------
    UserError
        The database cannot be reached or used, or a later stepin has changed it.
    """
    engine = database.engine(create=True, pool_size=1)
    try:
        if database.is_sqlite:
            _use_wal(engine, database)
        with writing(engine) as connection:
            if not database.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            if _version(connection, database) != NEWEST:
                _upgrade(connection)
    except DBAPIError as error:
        raise UserError(_sentence(database, error)) from None
    finally:
        engine.dispose()


def check_newest(database: Database) -> None:
    """Refuse a database that is not there, or not of this version; change nothing.

    Raises
    ------
    UserError
        As said.
    """
    if database.is_sqlite and not database.path.is_file():
        raise UserError(
            f"There is no journal at {database.name}: name it with --database or STEPIN_DATABASE."
        )
    engine = database.engine(pool_size=1)
    try:
        with engine.connect() as connection:
            version = _version(connection, database)
    except DBAPIError as error:
        raise UserError(_sentence(database, error)) from None
    finally:
        engine.dispose()
    if version is None:
        raise UserError(f"{database.name} holds no journal: name another with --database or STEPIN_DATABASE.")
    if version != NEWEST:
        raise UserError(
            f"The journal in {database.name} has version {version}, and this stepin wants {NEWEST}: "
            "start its server once, which brings it up to date."
        )


def _version(connection: Connection, database: Database) -> str | None:
    """The version of the tables, None where there are none; refused if it is not one of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()
    if found is not None and not (found.isdigit() and found <= NEWEST):
        raise UserError(
            f"The journal in {database.name} has version {found}, and this stepin knows up to {NEWEST}: "
            "install the stepin that wrote it, or a later one."
        )
    return found


def _upgrade(connection: Connection) -> None:
    from alembic import command  # 0.2 s, and needed once in a journal's life
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _use_wal(engine: Engine, database: Database) -> None:
    """Switch to WAL, for good. SQLite does not wait for others here, so we do."""
    deadline = time.monotonic() + 2 * BUSY_SECONDS
    while True:
        try:
            connection = engine.raw_connection()
            try:
                cursor = connection.cursor()
                cursor.execute(f"PRAGMA page_size={_PAGE_BYTES}")  # of a new file; no effect on another
                mode = cursor.execute("PRAGMA journal_mode=WAL").fetchone()[0]
            finally:
                connection.close()
        except Exception as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise OperationalError("PRAGMA journal_mode=WAL", None, error) from None
            time.sleep(0.02)
        else:
            break
    if mode != "wal":
        raise UserError(
            f"{database.name} lies where SQLite's WAL cannot work (a network folder?): "
            "name a file on a disk of this machine, or use PostgreSQL."
        )


def _sentence(database: Database, error: DBAPIError) -> str:
    """What the driver said, in ours. Its text may name host and user, and never holds a password or a row."""
    said = (str(error.orig).strip().splitlines() or ["no reason given"])[0]
    if database.is_sqlite and "not a database" in said:
        return (
            f"{database.name} is no SQLite database: name a file that stepin made, or one that is not there."
        )
    if "already exists" in said:
        return f"{database.name} holds tables of somebody else with our names: name a database of its own."
    advice = "see that its folder is there and can be written" if database.is_sqlite else "see that it runs"
    return f"The journal in {database.name} cannot be opened ({said}): {advice}."

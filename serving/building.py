"""The server's side of the builder: the process that knows the CRM is started, kept up, and ended with it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from features.problems import UserError
from serving.journal.database import read_url
from serving.journal.migrate import migrate
from serving.settings import Settings
from serving.side_process import SideProcess

RESTART_SECONDS = 1.0
_NEEDED = ("deals", "stage_entries", "involvements", "partners", "customers", "relationships")


@contextmanager
def building(settings: Settings) -> Iterator[Settings]:
    """Give settings that say where a builder listens, which runs until the end.

    Raises
    ------
    UserError
        ``STEPIN_DATA`` names a folder that is not there, or lacks a table; or the database cannot be opened
        (`migrate`). What else is wrong with the tables the builder says on stderr: the server answers without
        it meanwhile.
    """
    running = start_builder(settings)
    try:
        yield running.settings
    finally:
        running.stop()


def start_builder(settings: Settings) -> SideProcess:
    """Bring the database up to date and start a builder; it may take seconds until it answers.

    Raises
    ------
    UserError
        As `building`.
    """
    refuse_no_tables(settings.data)
    migrate(read_url(settings.database))  # here, and not in the builder, which starts again by itself
    place = Path(tempfile.mkdtemp(prefix="stepin-"))  # a socket's path is 107 bytes at most
    told = replace(settings, builder_socket=place / "builder")
    running = SideProcess.start("serving.builder", told, place, RESTART_SECONDS)
    running.keep_up()  # one that starts anew reads everything anew
    return running


def refuse_no_tables(data: str | None) -> None:
    """Refuse a folder that cannot hold CRM tables, without reading any.

    Raises
    ------
    UserError
        As said.
    """
    if data is None or "://" in data:
        return
    folder = Path(data)
    if not folder.is_dir():
        raise UserError(f"STEPIN_DATA should name a folder of CRM tables, or a database; {data} is neither.")
    there = {file.name.partition(".")[0] for file in folder.iterdir()}
    missing = [name for name in _NEEDED if name not in there]
    if missing:
        raise UserError(f"STEPIN_DATA names {data}, which lacks {', '.join(missing)} (.parquet or .csv).")

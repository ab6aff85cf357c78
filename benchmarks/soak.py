"""A server at half of what it can do, for minutes: no error, a steady answer, memory that stays.

``python -m benchmarks.soak MODEL --minutes 10`` starts the server itself, on the loopback, finds out what it
can do, asks at half that rate, and ends by itself.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

_CALLERS = 8
_CAPACITY_SECONDS = 3.0
_SAMPLE_SECONDS = 1.0


@dataclass
class Soak:
    """What was seen."""

    capacity: float
    """Answers a second that `_CALLERS` connections got when each asked again at once."""
    asked: int = 0
    errors: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)
    """From the moment a request was due to its reply: a late start counts."""
    memory: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the start, MiB resident)."""

    def quantile(self, share: float) -> float:
        """Milliseconds within which this share of the answers came."""
        return float(np.quantile(self.milliseconds, share))

    def growth(self, after_seconds: float) -> float:
        """MiB a minute that memory grew by after `after_seconds`: the slope of a line through it."""
        late = np.array([each for each in self.memory if each[0] >= after_seconds])
        return 60 * float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) if len(late) > 2 else 0.0

    def lines(self) -> list[str]:
        """For people."""
        p50, p99 = self.quantile(0.5), self.quantile(0.99)
        return [
            f"capacity {self.capacity:,.0f} answers/s; asked {self.asked:,} at half of it",
            f"errors {len(self.errors)}; p50 {p50:.2f} ms, p99 {p99:.2f} ms ({p99 / p50:.1f} times), "
            f"slowest {max(self.milliseconds):.1f} ms",
            f"memory {self.memory[0][1]:.0f} MiB at the start, {self.memory[-1][1]:.0f} MiB at the end, "
            f"{self.growth(60):+.2f} MiB a minute after the first",
        ]


class Caller:
    """One connection that asks the same deal again and again."""

    def __init__(self, port: int, body: bytes) -> None:
        self.port = port
        head = "POST /v1/recommendations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        self._request = f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port)

    async def ask(self) -> int:
        """Ask once; the status."""
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        assert length is not None
        await self._reader.readexactly(int(length[1]))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        """Hang up."""
        self._writer.close()


async def soak(port: int, process: int, bodies: Sequence[bytes], seconds: float) -> Soak:
    """Ask a server at half its capacity for so many seconds.

    Parameters
    ----------
    port, process : where it listens on the loopback, and its process
    bodies : one request for each connection
    """
    callers = [Caller(port, body) for body in bodies]
    for each in callers:
        await each.open()
    seen = Soak(await _capacity(callers))
    start = time.perf_counter()
    watch = asyncio.create_task(_watch(process, seen, start))
    pause = len(callers) / (seen.capacity / 2)
    await asyncio.gather(*(_steadily(each, i, pause, start, seconds, seen) for i, each in enumerate(callers)))
    watch.cancel()
    for each in callers:
        each.close()
    return seen


async def _capacity(callers: Sequence[Caller]) -> float:
    """Answers a second when each caller asks again as soon as it was answered."""
    end = time.perf_counter() + _CAPACITY_SECONDS
    counts = [0] * len(callers)

    async def hurry(i: int) -> None:
        while time.perf_counter() < end:
            assert await callers[i].ask() == 200
            counts[i] += 1

    await asyncio.gather(*(hurry(i) for i in range(len(callers))))
    return sum(counts) / _CAPACITY_SECONDS


async def _steadily(
    caller: Caller, place: int, pause: float, start: float, seconds: float, seen: Soak
) -> None:
    """Ask every `pause` seconds; one that is late asks at once, and its lateness counts."""
    due = start + pause * place / _CALLERS
    while due < start + seconds:
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        status = await caller.ask()
        seen.asked += 1
        seen.milliseconds.append(1000 * (time.perf_counter() - due))
        if status != 200:
            seen.errors.append(f"status {status}")
        due += pause


async def _watch(process: int, seen: Soak, start: float) -> None:
    while True:
        seen.memory.append((time.perf_counter() - start, resident_mib(process)))
        await asyncio.sleep(_SAMPLE_SECONDS)


def resident_mib(process: int) -> float:
    """Memory of a process as Linux counts it, MiB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return int(found[1]) / 1024 if found else float("nan")


def usual_requests(model: Path, n: int) -> list[bytes]:
    """Make n requests of a model's own features, with other numbers each."""
    from serving.model import load
    from serving.openapi import example
    from serving.settings import Settings

    asked = example(load(Settings(model)))
    return [json.dumps({**asked, "deal_id": f"D-{i}"}).encode() for i in range(n)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Start a server of a model folder, soak it, print what was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        environ = {**os.environ, "STEPIN_DATABASE": f"sqlite:///{folder}/stepin.db", "STEPIN_LOG": "off"}
        command = [sys.executable, "-m", "stepin", "serve", str(given.model), "--port", "0"]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environ) as server:
            try:
                assert server.stderr is not None
                line = server.stderr.readline()
                port = int(line.split("127.0.0.1:")[1].split()[0])
                bodies = usual_requests(given.model, _CALLERS)
                seen = asyncio.run(soak(port, server.pid, bodies, 60 * given.minutes))
            finally:
                server.terminate()
    print("\n".join(seen.lines()))


if __name__ == "__main__":
    main()

"""What the server counts, for Prometheus: right whichever worker is asked.

A request costs a few look-ups in plain dicts. Each worker writes its counts to a file of its own a moment
after they changed, and the one that is asked adds up its own and the others' files. (The client library's
multiprocess mode keeps a memory-mapped file for each metric and worker instead: an increment costs as much as
all of this together, and has to be set up before the library is imported.) Counts of a worker that ended stay
in the sums, which must never fall; its gauges do not.
"""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import orjson

from serving.routes import METHODS, Told

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds."""
FLUSH_SECONDS = 0.5


class JournalSeen(Protocol):
    """What is told of the journal (`serving.journal.Journal`)."""

    def is_well(self) -> bool:
        """Can it be written?"""

    def lag(self) -> tuple[int, float]:
        """Rows that wait, and the seconds that the oldest has waited."""

    def unjournaled(self) -> int:
        """Answers that were given without being recorded."""


class Metrics:
    """Counts of one worker, and the way to everybody's.

    Parameters
    ----------
    folder : where the workers of this server leave their counts; None for a worker that is alone
    journal : what is told of it; None where there is none
    """

    def __init__(self, folder: Path | None = None, journal: JournalSeen | None = None) -> None:
        self.folder, self.journal = folder, journal
        self.in_flight = 0
        self.dropped_lines = 0
        self._requests: dict[tuple[str, str, int], int] = {}
        self._times: dict[str, list[float]] = {}  # route: counts by bucket, the last beyond all; then the sum
        self._advice: dict[str, int] = {}
        self._missing: Counter[str] = Counter()
        self._events: dict[str, int] = {}
        self._without_support = 0
        self._models: dict[str, dict[str, str]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request: `route` is a template."""
        key = (route, method if method in METHODS else "other", status)
        self._requests[key] = self._requests.get(key, 0) + 1
        times = self._times.get(route)
        if times is None:
            times = self._times[route] = [0.0] * (len(BUCKETS) + 2)
        times[bisect_left(BUCKETS, seconds)] += 1
        times[-1] += seconds
        if self._timer is None and self.folder is not None:
            self._flush_later()

    def told(self, told: Told) -> None:
        """Count what an answer told."""
        for advice in told.advice:
            self._advice[advice] = self._advice.get(advice, 0) + 1
        self._without_support += told.without_support
        self._missing.update(told.missing)

    def event(self, kind: str) -> None:
        """Count something that is no request, by one of our own words: ``journal_lost``, say."""
        self._events[kind] = self._events.get(kind, 0) + 1

    def serves(self, tag: Mapping[str, Any], role: str = "served") -> None:
        """Say which model answers from now on: `ServedModel.name_tag`, as ``served`` or ``shadow``."""
        self._models[role] = {name: str(tag.get(name) or "") for name in ("name", "version", "digest")}

    def _flush_later(self) -> None:
        with suppress(RuntimeError):  # no loop runs: `render` and `flush` are called by hand
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Leave the counts where the other workers find them, whole or not at all."""
        self._timer = None
        if self.folder is None:
            return
        with suppress(OSError):  # the counts stay here, and are left the next time
            part = self.folder / f"{os.getpid()}.part"
            part.write_bytes(orjson.dumps(self._counts()))
            part.replace(part.with_suffix(".json"))

    def render(self) -> bytes:
        """Return everybody's counts in Prometheus' text format."""
        from serving.metrics_page import page  # the client library is loaded by the worker that is asked

        return page([self._counts(), *self._others()])

    def _others(self) -> Iterator[dict[str, Any]]:
        """Read what the other workers left; one that has ended keeps its counts, not its gauges."""
        for file in sorted(self.folder.glob("*.json")) if self.folder else ():
            if file.stem == str(os.getpid()):
                continue
            with suppress(OSError, ValueError):
                counts = orjson.loads(file.read_bytes())
                yield counts if _is_alive(int(file.stem)) else {**counts, "gauges": {}, "models": []}

    def _counts(self) -> dict[str, Any]:
        """Copy the counts (each dict in one step, so that any thread may ask)."""
        waiting, age = self.journal.lag() if self.journal else (0, 0.0)
        return {
            "requests": [[*key, n] for key, n in dict(self._requests).items()],
            "times": dict(self._times),
            "advice": dict(self._advice),
            "missing": dict(self._missing),
            "events": dict(self._events),
            "without_support": self._without_support,
            "unjournaled": self.journal.unjournaled() if self.journal else 0,
            "dropped_lines": self.dropped_lines,
            "models": [[role, *tag.values()] for role, tag in dict(self._models).items()],
            "gauges": {
                "in_flight": self.in_flight,
                "waiting": waiting,
                "lag_seconds": age,
                "journal_well": self.journal.is_well() if self.journal else True,
            },
        }


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

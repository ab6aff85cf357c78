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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import orjson

from serving.routes import METHODS, Told

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds in seconds."""
FLUSH_SECONDS = 0.5
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


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
        """Count something that is no request, by one of our own words: ``swap``, ``successor_refused``."""
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
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(_Told([self._counts(), *self._others()]))
        return generate_latest(registry)

    def _others(self) -> Iterator[dict[str, Any]]:
        """Read what the other workers left; one that has ended keeps its counts, not its gauges."""
        for file in sorted(self.folder.glob("*.json")) if self.folder else ():
            if file.stem == str(os.getpid()):
                continue
            with suppress(OSError, ValueError):
                counts = orjson.loads(file.read_bytes())
                yield counts if _is_alive(int(file.stem)) else {**counts, "gauges": {}, "models": []}

    def _counts(self) -> dict[str, Any]:
        waiting, age = self.journal.lag() if self.journal else (0, 0.0)
        return {
            "requests": [[*key, n] for key, n in self._requests.items()],
            "times": self._times,
            "advice": self._advice,
            "missing": self._missing,
            "events": self._events,
            "without_support": self._without_support,
            "unjournaled": self.journal.unjournaled() if self.journal else 0,
            "dropped_lines": self.dropped_lines,
            "models": [[role, *tag.values()] for role, tag in self._models.items()],
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


class _Told:
    """The workers' counts, added up, as the client library asks for them."""

    def __init__(self, workers: list[dict[str, Any]]) -> None:
        self.workers = workers

    def collect(self) -> Iterable[Any]:
        yield from self._requests()
        yield from self._answers()
        yield from self._health()

    def _requests(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        requests: Counter[tuple[str, str, str]] = Counter()
        times: dict[str, list[float]] = {}
        for worker in self.workers:
            for route, method, status, n in worker["requests"]:
                requests[route, method, str(status)] += n
            for route, counts in worker["times"].items():
                before = times.get(route, [0.0] * len(counts))
                times[route] = [a + b for a, b in zip(before, counts, strict=True)]
        family = CounterMetricFamily(
            "stepin_requests", "Requests, by route template.", labels=["route", "method", "status"]
        )
        for labels, n in sorted(requests.items()):
            family.add_metric(labels, n)
        yield family
        latency = HistogramMetricFamily(
            "stepin_request_seconds", "Seconds from the headers to the reply.", labels=["route"]
        )
        for route, counts in sorted(times.items()):
            latency.add_metric([route], _cumulated(counts), counts[-1])
        yield latency

    def _answers(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for name, what, label, key in (
            ("stepin_advice", "Deals advised on.", "advice", "advice"),
            ("stepin_missing_features", "Deals that lacked a feature.", "feature", "missing"),
            ("stepin_events", "What happened to the server, by kind.", "kind", "events"),
        ):
            family = CounterMetricFamily(name, what, labels=[label])
            for value, n in sorted(self._sum_of(key).items()):
                family.add_metric([value], n)
            yield family
        advised, alone = sum(self._sum_of("advice").values()), self._total("without_support")
        yield CounterMetricFamily(
            "stepin_answers_without_support", "Deals unlike any seen both ways.", value=alone
        )
        yield GaugeMetricFamily(
            "stepin_share_without_support", "Share of such deals.", value=alone / advised if advised else 0.0
        )

    def _health(self) -> Iterable[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        models = GaugeMetricFamily(
            "stepin_model", "Models that answer now.", labels=["role", "name", "version", "digest"]
        )
        for labels in sorted({tuple(model) for worker in self.workers for model in worker["models"]}):
            models.add_metric(labels, 1)
        yield models
        gauges = [worker["gauges"] for worker in self.workers if worker["gauges"]]
        for name, what, value in (
            ("stepin_requests_in_flight", "Requests under way.", sum(each["in_flight"] for each in gauges)),
            ("stepin_journal_waiting", "Answers to be recorded.", sum(each["waiting"] for each in gauges)),
            (
                "stepin_journal_lag_seconds",
                "How long the oldest of them has waited.",
                max(each["lag_seconds"] for each in gauges),
            ),
            (
                "stepin_journal_up",
                "1: every worker can record its answers.",
                all(each["journal_well"] for each in gauges),
            ),
        ):
            yield GaugeMetricFamily(name, what, value=float(value))
        for name, what, key in (
            ("stepin_unjournaled_answers", "Answers given but never recorded.", "unjournaled"),
            ("stepin_dropped_log_lines", "Lines that the log's reader was too slow for.", "dropped_lines"),
        ):
            yield CounterMetricFamily(name, what, value=self._total(key))

    def _sum_of(self, key: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for worker in self.workers:
            total.update(worker[key])
        return total

    def _total(self, key: str) -> int:
        return sum(worker[key] for worker in self.workers)


def _cumulated(counts: list[float]) -> list[tuple[str, float]]:
    """Turn counts by bucket into counts up to each bound, as the text format wants them."""
    bounds, total = (*map(str, BUCKETS), "+Inf"), 0.0
    cumulated = []
    for bound, n in zip(bounds, counts[:-1], strict=True):
        total += n
        cumulated.append((bound, total))
    return cumulated

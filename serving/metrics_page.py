"""The page at /metrics: the counts of all workers, added up, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from serving.metrics import BUCKETS

Counts = Mapping[str, Any]
"""What one worker counted, as `Metrics` writes it."""


def page(workers: Sequence[Counts]) -> bytes:
    """Add up what the workers counted, and write it as Prometheus reads it."""
    registry = CollectorRegistry()
    registry.register(_Collector(workers))
    return generate_latest(registry)


class _Collector(Collector):
    """The workers' counts, added up, as the client library asks for them."""

    def __init__(self, workers: Sequence[Counts]) -> None:
        self.workers = workers

    def collect(self) -> Iterable[Any]:
        yield from self._requests()
        yield from self._answers()
        yield from self._health()

    def _requests(self) -> Iterable[Any]:
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

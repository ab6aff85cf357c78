"""Counts that are right whichever worker is asked, and that Prometheus' own parser reads."""

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.journal.writer import JOURNAL_BACK, JOURNAL_LOST
from serving.metrics import BUCKETS, Metrics
from serving.routes import Told
from serving.slot import EVENTS

WORKER = """
import sys
from pathlib import Path
from serving.metrics import Metrics
from serving.routes import Told
metrics = Metrics(Path(sys.argv[1]))
metrics.serves({"name": "old", "version": "1", "digest": "sha256:old"})
metrics.in_flight = 7
for _ in range(int(sys.argv[2])):
    metrics.request("/v1/recommendations", "POST", 200, 0.003)
    metrics.told(Told(["step_in", "step_back"], "d", 1, ["amount"]))
metrics.flush()
print("left", flush=True)
sys.stdin.read()
"""


class Journal:
    def __init__(self, well=True):
        self.well = well

    def is_well(self):
        return self.well

    def lag(self):
        return 4, 1.5

    def unjournaled(self):
        return 3


def samples(metrics):
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (each.name, *sorted(each.labels.items())): each.value
        for family in families
        for each in family.samples
    }


def value(metrics, sample, /, **labels):
    return samples(metrics)[(sample, *sorted(labels.items()))]


def test_a_histogram_counts_up_to_each_bound():
    metrics = Metrics()
    for seconds in (0.0001, 0.0005, 0.003, 0.003, 9.0):
        metrics.request("/a", "GET", 200, seconds)
    told = samples(metrics)
    buckets = {dict(key[1:])["le"]: n for key, n in told.items() if key[0] == "stepin_request_seconds_bucket"}
    assert list(buckets) == [*map(str, BUCKETS), "+Inf"]
    assert (buckets["0.0005"], buckets["0.0025"], buckets["0.005"], buckets["+Inf"]) == (2, 2, 4, 5)
    assert told[("stepin_request_seconds_count", ("route", "/a"))] == 5
    assert told[("stepin_request_seconds_sum", ("route", "/a"))] == pytest.approx(9.0066)


def test_every_figure_has_its_place():
    metrics = Metrics(journal=Journal())
    metrics.told(Told(["step_in"] * 3 + ["not_enough_evidence"], "d", 1, ["amount", "amount", "stage"]))
    metrics.event("swap")
    metrics.serves({"name": "winter", "version": None, "digest": "sha256:1", "trained_at": "x"})
    metrics.serves({"name": "spring", "version": "4", "digest": "sha256:2"}, "shadow")
    metrics.in_flight, metrics.dropped_lines = 2, 9
    assert value(metrics, "stepin_advice_total", advice="step_in") == 3
    assert value(metrics, "stepin_answers_without_support_total") == 1
    assert value(metrics, "stepin_share_without_support") == 0.25
    assert value(metrics, "stepin_missing_features_total", feature="amount") == 2
    assert value(metrics, "stepin_events_total", kind="swap") == 1
    assert value(metrics, "stepin_model", role="served", name="winter", version="", digest="sha256:1") == 1
    assert value(metrics, "stepin_model", role="shadow", name="spring", version="4", digest="sha256:2") == 1
    assert value(metrics, "stepin_requests_in_flight") == 2
    assert value(metrics, "stepin_journal_waiting") == 4
    assert value(metrics, "stepin_journal_lag_seconds") == 1.5
    assert value(metrics, "stepin_journal_up") == 1
    assert value(metrics, "stepin_unjournaled_answers_total") == 3
    assert value(metrics, "stepin_dropped_log_lines_total") == 9


def test_the_documentation_names_every_metric_and_no_other():
    metrics = Metrics(journal=Journal())
    metrics.request("/a", "GET", 200, 0.1)
    metrics.told(Told(["step_in"], "d", 1, ["amount"]))
    metrics.event("swap")
    metrics.serves({"name": "winter"})
    families = text_string_to_metric_families(metrics.render().decode())
    names = {each.name + "_total" * (each.type == "counter") for each in families}
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`(stepin_[a-z_]+)`", page)) == names


def test_the_documentation_names_every_kind_of_event():
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    [row] = re.findall(r"^\| `stepin_events_total` \|(.*)$", page, re.M)
    assert set(re.findall(r"`(\w+)`", row)) == {*EVENTS, JOURNAL_LOST, JOURNAL_BACK}


def test_a_lost_journal_is_down_and_nothing_counted_is_nothing():
    assert value(Metrics(journal=Journal(well=False)), "stepin_journal_up") == 0
    assert value(Metrics(), "stepin_share_without_support") == 0


def test_a_model_that_was_replaced_is_told_no_more():
    metrics = Metrics()
    for version in "12":
        metrics.serves({"name": "winter", "version": version, "digest": f"sha256:{version}"})
    versions = [dict(key[1:])["version"] for key in samples(metrics) if key[0] == "stepin_model"]
    assert versions == ["2"]


def test_a_method_that_was_made_up_adds_no_series():
    metrics = Metrics()
    for n in range(100):
        metrics.request("none", f"M{n}", 400, 0.1)
    assert value(metrics, "stepin_requests_total", route="none", method="other", status="400") == 100


def test_the_one_that_is_asked_tells_everybodys_counts(tmp_path):
    """The other worker's counts stay when it has ended; what it was doing then does not."""
    other = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path), "5"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "left\n"
    metrics = Metrics(tmp_path)
    metrics.request("/v1/recommendations", "POST", 200, 0.003)
    metrics.in_flight = 1
    metrics.flush()  # its own file is not counted beside its own counts
    labels = {"route": "/v1/recommendations", "method": "POST", "status": "200"}
    for is_alive in (True, False):
        if not is_alive:
            other.communicate("", timeout=20)
        assert value(metrics, "stepin_requests_total", **labels) == 6
        assert value(metrics, "stepin_advice_total", advice="step_in") == 5
        assert value(metrics, "stepin_request_seconds_count", route="/v1/recommendations") == 6
        assert value(metrics, "stepin_requests_in_flight") == (8 if is_alive else 1)
        old = (
            "stepin_model",
            ("digest", "sha256:old"),
            ("name", "old"),
            ("role", "served"),
            ("version", "1"),
        )
        assert (old in samples(metrics)) == is_alive


def test_half_a_file_or_a_strangers_is_passed_over(tmp_path):
    (tmp_path / "123.json").write_text('{"requests": [')
    (tmp_path / "stranger.json").write_text("{}")
    (tmp_path / "5.part").write_text("{}")
    metrics = Metrics(tmp_path)
    metrics.request("/a", "GET", 200, 0.1)
    assert value(metrics, "stepin_requests_total", route="/a", method="GET", status="200") == 1


def test_counts_are_left_by_themselves_a_moment_after_they_changed(tmp_path):
    async def go():
        metrics = Metrics(tmp_path)
        metrics.request("/a", "GET", 200, 0.1)
        assert list(tmp_path.iterdir()) == []
        await asyncio.sleep(0.8)

    asyncio.run(go())
    assert [file.name for file in tmp_path.iterdir()] == [f"{os.getpid()}.json"]


def test_a_folder_that_has_gone_harms_nobody(tmp_path):
    metrics = Metrics(tmp_path / "gone")
    metrics.request("/a", "GET", 200, 0.1)
    metrics.flush()
    assert value(metrics, "stepin_requests_total", route="/a", method="GET", status="200") == 1


def test_counting_a_request_costs_microseconds():
    metrics, told, best = Metrics(), Told(("step_in",), "d", 0, ("amount",)), 1.0
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(500):
            metrics.request("/v1/recommendations", "POST", 200, 0.003)
            metrics.told(told)
        best = min(best, (time.perf_counter() - start) / 500)
    assert best < 15e-6

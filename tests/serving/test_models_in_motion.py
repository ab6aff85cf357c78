"""A real server of two workers under load, while the alias in a real registry moves."""

import http.client
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from training import model_folder, registry

SECONDS = 60
POLL_SECONDS = 1.0
WORKERS = 2
DEAL = json.dumps({"deal_id": "D-1", "features": {"stage": "propose", "amount": 120000.0}})
SERVE = """
import os
from serving.server import serve
from serving.settings import Settings
serve(Settings.from_environ(os.environ), port=0, workers=int(os.environ["WORKERS"]))
"""


@pytest.fixture(scope="module")
def registered(tmp_path_factory, made):
    """The store: versions 1 and 2, whose uplifts differ by 8.5 points, and 3, which is broken; digests."""
    place, card = tmp_path_factory.mktemp("models"), made.scorecard()
    store = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    winter = made.folder(place / "winter", card)
    spring = made.folder(place / "spring", replace(card, baseline=np.r_[0.11, card.baseline[1:]]))
    shutil.copytree(spring, place / "broken")
    (place / "broken" / "scorecard.npz").write_bytes(b"broken")
    for folder in (winter, spring, place / "broken"):
        registry.log_run("deals", {}, {}, {}, folder, register_as="stepin", tracking_uri=store)
    return store, [model_folder.verify(folder).digest for folder in (winter, spring)]


@contextmanager
def serving(store, folder):
    """A server that follows champion and challenger; the port, and the lines that it logs."""
    environ = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store,
        "WORKERS": str(WORKERS),
        "STEPIN_MODEL": "models:/stepin@champion",
        "STEPIN_SHADOW": "models:/stepin@challenger",
        "STEPIN_POLL_SECONDS": str(POLL_SECONDS),
        "STEPIN_DATABASE": f"sqlite:///{folder / 'stepin.db'}",
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], env=environ, cwd=folder, stderr=log, start_new_session=True
        )
    try:
        yield int(until(lambda: re.search(r"127\.0\.0\.1:(\d+)", (folder / "log").read_text()))[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(found, seconds=SECONDS):
    end = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
    return what


class Asker(threading.Thread):
    """Asks without a pause, over one connection."""

    def __init__(self, port, finished):
        super().__init__()
        self.port, self.finished, self.answers = port, finished, []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        while not self.finished.is_set():
            connection.request("POST", "/v1/recommendations", DEAL, {"content-type": "application/json"})
            response = connection.getresponse()
            self.answers.append((response.status, json.loads(response.read())))
        connection.close()


def readiness(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    connection.request("GET", "/readyz")
    response = connection.getresponse()
    said = response.status, json.loads(response.read())
    connection.close()
    return said


def times(folder, kind):
    """How often the workers have logged an event of that kind."""
    return (folder / "log").read_text().count(f'"event":"{kind}"')


def test_no_request_fails_while_the_alias_moves_and_each_answer_names_its_model(registered, tmp_path):
    store, digests = registered
    registry.promote("stepin", 1, store)
    with serving(store, tmp_path) as port:
        until(
            lambda: times(tmp_path, "shadow_refused") == WORKERS
        )  # version 3: each worker is up and follows
        finished = threading.Event()
        askers = [Asker(port, finished) for _ in range(4)]
        for asker in askers:
            asker.start()
        try:
            until(lambda: all(asker.answers for asker in askers))
            registry.promote("stepin", 2, store)
            until(lambda: times(tmp_path, "model_swapped") == WORKERS)
            time.sleep(0.5)
            registry.rollback("stepin", store)
            until(lambda: times(tmp_path, "model_swapped") == 2 * WORKERS)
            registry.promote("stepin", 3, store)
            until(lambda: times(tmp_path, "successor_refused") == WORKERS)
            refused = [readiness(port) for _ in range(20)]
            registry.rollback("stepin", store)
            until(lambda: not any(readiness(port)[1]["successor_refused"] for _ in range(20)))
        finally:
            finished.set()
            for asker in askers:
                asker.join()
    assert {status for status, _ in refused} == {200}
    for _, said in refused:
        assert (said["model"]["version"], said["status"]) == ("1", "ready")
        assert "scorecard.npz is missing or was changed" in said["successor_refused"]
    answers = [answer for asker in askers for answer in asker.answers]
    assert {status for status, _ in answers} == {200}
    points = {}
    for _, answer in answers:
        key = (answer["model"]["version"], answer["model"]["digest"])
        points.setdefault(key, set()).add(round(answer["uplift_points"], 9))
    assert set(points) == {("1", digests[0]), ("2", digests[1])}
    assert {len(each) for each in points.values()} == {1}
    first, second = (points[key].pop() for key in sorted(points))
    assert second - first == pytest.approx(8.5)
    for asker in askers:
        order = [answer["model"]["version"] for _, answer in asker.answers]
        assert sum(a != b for a, b in pairwise(order)) == 2
    assert times(tmp_path, "model_swapped") == 2 * WORKERS


def test_what_the_shadow_would_have_said_is_in_the_journal_beside_the_answer(registered, tmp_path):
    store, digests = registered
    registry.promote("stepin", 1, store)
    import mlflow

    mlflow.MlflowClient(store).set_registered_model_alias("stepin", "challenger", "2")
    with serving(store, tmp_path) as port:
        until(lambda: times(tmp_path, "shadow_swapped") == WORKERS)
        finished = threading.Event()
        asker = Asker(port, finished)
        asker.start()
        until(lambda: len(asker.answers) >= 20)
        finished.set()
        asker.join()
    with sqlite3.connect(tmp_path / "stepin.db") as journal:
        rows = journal.execute("SELECT role, recommendation_id, model_digest, uplift FROM answers").fetchall()
    journal.close()
    served = {row[1]: row for row in rows if row[0] == "served"}
    shadow = {row[1]: row for row in rows if row[0] == "shadow"}
    assert set(served) == set(shadow) == {answer["recommendation_id"] for _, answer in asker.answers}
    for name, row in served.items():
        assert (row[2], shadow[name][2]) == tuple(digests)
        assert shadow[name][3] - row[3] == pytest.approx(0.085)

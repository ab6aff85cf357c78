"""What an answer costs: real servers in the short form, and what the page says of figures."""

import json
import socket
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import page, serving, words
from benchmarks.processes import Connection, free_port, running
from features import UserError
from training import model_folder
from training.basis import Feature
from training.scorecard import Cells, Scorecard, Support

if not Path("/proc/self/smaps_rollup").exists():
    pytest.skip("this system does not tell a process's time and memory in /proc", allow_module_level=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model folder with a number, a truth and a few levels; nothing in it matters but its form."""
    none, rng = np.empty(0), np.random.default_rng(0)
    features = (
        Feature("amount", "number", np.linspace(0, 9e5, 5), np.linspace(-1, 1, 5), (), True),
        Feature("stage", "category", none, none, ("qualify", "propose"), True),
        Feature("pair_first_sale", "boolean", none, none, ("false", "true"), True),
    )
    zeros = tuple(np.zeros(f.n_rows) for f in features)
    card = Scorecard(
        features=features,
        binary=True,
        heterogeneous=True,
        baseline=rng.normal(scale=0.02, size=21),
        effect=tuple(rng.normal(scale=0.02, size=(f.n_rows, 21)) for f in features),
        low=tuple(np.zeros((f.n_rows, 0)) for f in features),
        pairs=(),
        doubt=zeros,
        misfit_variance=1e-4,
        outcome_intercept=0.0,
        outcome=zeros,
        propensity_intercept=0.0,
        propensity=zeros,
        cells=Cells((1,), np.full((4, 2), 50)),
        support_rule=Support(),
        importance=(0.1, 0.1, 0.1),
    )
    folder = tmp_path_factory.mktemp("served") / "m"
    with model_folder.writing(folder) as fresh:
        card.write(fresh)
        model_folder.write_facts(fresh, {"name": "m", "stage_order": ["qualify", "propose"]})
    return folder


def test_every_server_is_measured_and_a_peer_that_cannot_be_made_says_why(model):
    lines = list(serving.measure(model, serving.SHORT, UserError("no shap here")))
    of = {line["learner"]: line for line in lines}
    own = [serving.OURS, serving.BATCH, serving.BARE, serving.BARE_BATCH]
    assert list(of) == [serving.ECHO, *own, serving.MLFLOW]
    assert of[serving.MLFLOW]["failed"] == "no shap here"
    for name in (serving.ECHO, *own):
        figures = of[name]
        assert 10 < figures["cpu_us"] < 1e6
        assert figures["start"] < 30
        assert 5 < figures["share"] <= figures["resident"] < 500
    assert of[serving.OURS]["cpu_us"] > of[serving.ECHO]["cpu_us"]
    assert of[serving.BATCH]["deals_a_second"] > of[serving.OURS]["deals_a_second"]


def test_deals_asked_about_are_such_as_the_model_takes_and_no_two_alike(model):
    card = Scorecard.read(model)
    deals = serving.random_deals(card, 50, 1)
    for deal in deals:
        card.check_values(deal["features"])
    assert len({json.dumps(deal["features"]) for deal in deals}) > 40
    assert serving.random_deals(card, 50, 1) == deals


BUSY = """
import http.server, sys, time
class Busy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        end = time.process_time() + 0.05
        while self.path == "/busy" and time.process_time() < end:
            pass
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Busy).serve_forever()
"""


def test_a_server_s_time_is_what_it_computed_and_it_is_ended(tmp_path):
    port = free_port()
    with running([sys.executable, "-c", BUSY, str(port)], port, "/", tmp_path) as server:
        connection = Connection(port)
        before = server.cpu_seconds()
        for _ in range(4):
            connection.get("/busy")
        assert 0.19 < server.cpu_seconds() - before < 0.4
        connection.close()
        pid = server.process.pid
    assert server.process.returncode is not None
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=2)


LARGE_CHILD = """
import subprocess, sys
child = "x = bytearray(90_000_000); print('here', flush=True); input()"
beside = subprocess.Popen([sys.executable, "-c", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
beside.stdout.readline()
"""


def test_memory_is_that_of_the_process_that_answers(tmp_path):
    port = free_port()
    command = [sys.executable, "-c", LARGE_CHILD + BUSY, str(port)]
    with running(command, port, "/", tmp_path) as server:
        resident, share, beside = server.megabytes()
    assert 5 < share <= resident < 60
    assert 85 < beside < 150


def test_a_server_that_ends_at_once_is_told_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no model here')"]
    with (
        pytest.raises(UserError, match="did not start; it said: no model here"),
        running(command, free_port(), "/", tmp_path),
    ):
        pass


def line(name, cpu_us, deals_a_second=None, **more):
    key = {"table": "serving", "world": "crm", "rows": 41, "seed": 0, "learner": name}
    figures = {"cpu_us": cpu_us, "deals_a_second": deals_a_second or 1e6 / cpu_us}
    return {**key, **figures, "start": 1.0, "resident": 100.0, "share": 80.0, **more}


@pytest.mark.parametrize(
    ("ours_us", "start", "deals", "verdicts"),
    [
        (120.0, 1.2, 45_000, ["met", "met", "met", "met"]),
        (200.0, 1.6, 20_000, ["missed", "missed", "missed", "missed"]),
    ],
)
def test_the_page_says_of_each_target_whether_it_is_met(ours_us, start, deals, verdicts):
    runs = [
        line(serving.ECHO, 50.0),
        line(serving.OURS, ours_us, start=start),
        line(serving.BATCH, 1e9 / deals, deals),
        line(serving.MLFLOW, 20_000.0),
    ]
    text = page.write(runs)
    said = [each.rstrip(".").split()[-1] for each in text.splitlines() if "; the target of " in each]
    assert said == verdicts
    assert (words.WHERE_ANSWERS_GO in text) == ("missed" in verdicts)
    assert f"An answer costs {ours_us / 50:.1f} times the echo" in text
    assert f"In requests of 1,000 a core answers {deals:,} deals a second" in text


def test_a_page_without_a_peer_says_nothing_of_it():
    failed = {**line(serving.MLFLOW, 1.0), "failed": "it said: no module named shap"}
    text = page.write([line(serving.ECHO, 50.0), line(serving.OURS, 120.0), failed])
    assert "it said: no module named shap" in text
    assert "times ours" not in text

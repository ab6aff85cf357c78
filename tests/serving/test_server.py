"""Real processes on the loopback: started, asked, and told to stop."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from features.problems import UserError
from serving.server import serve
from serving.settings import Settings

SECONDS = 30
RUN = """
import sys
from pathlib import Path
from serving.server import serve
from serving.settings import Settings
serve(Settings(Path(sys.argv[1]), break_even_points=7.0, log="off"), port=0, workers=int(sys.argv[2]))
print("ended")
"""


@contextmanager
def running(folder, workers=1):
    """A server in a process of its own, and the line that it says."""
    command = [sys.executable, "-c", RUN, str(folder), str(workers)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    too_long = threading.Timer(SECONDS, end, [process])
    too_long.start()
    try:
        yield process, process.stderr.readline()
    finally:
        too_long.cancel()
        end(process)
        process.communicate()


def end(process):
    """End what is left of it, its workers too: they are in a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def port_of(line):
    return int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])


def ask(line, method, path, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port_of(line), timeout=SECONDS)
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"content-type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_server_says_where_it_is_answers_and_ends_when_told(model, workers, stop):
    with running(model, workers) as (process, line):
        where = re.fullmatch(
            r"stepin serves winter 3 at (http://127\.0\.0\.1:\d+) - docs at (http://127\.0\.0\.1:\d+)/docs\n",
            line,
        )
        assert where
        assert where[1] == where[2]
        status, ready = ask(line, "GET", "/readyz")
        assert (status, ready["status"], ready["model"]["name"]) == (200, "ready", "winter")
        status, answer = ask(line, "POST", "/v1/recommendations", {"deal_id": "D", "features": {}})
        assert (status, answer["break_even_points"]) == (200, pytest.approx(7))
        start = time.monotonic()
        process.send_signal(stop)
        stdout, stderr = process.communicate(timeout=SECONDS)
        assert (process.returncode, stdout, stderr) == (0, "ended\n", "")
        assert time.monotonic() - start < 10


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_while_it_starts_ends_it_without_a_traceback(model, workers):
    """A terminal sends it to all processes at once, whatever they are importing."""
    for seconds in (0.0, 0.4):
        with running(model, workers) as (process, line):
            assert line.startswith("stepin serves")
            time.sleep(seconds)
            os.killpg(process.pid, signal.SIGINT)
            stdout, stderr = process.communicate(timeout=SECONDS)
            assert (process.returncode, stdout, stderr) == (0, "ended\n", "")
            until = time.monotonic() + SECONDS / 2
            while of_session(process.pid):
                assert time.monotonic() < until
                time.sleep(0.05)


def of_session(session):
    """The processes of a session that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, _, of, *_ = stat.read_text().rpartition(")")[2].split()
            found += [int(stat.parent.name)] if int(of) == session and state != "Z" else []
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_server_leaves_neither_a_process_nor_a_folder(model, workers, monkeypatch):
    """Workers that went on would keep the port, and answer without anything beside them."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # a socket's path is 107 bytes at most
        monkeypatch.setenv("TMPDIR", place)
        with running(model, workers) as (process, line):
            assert ask(line, "GET", "/readyz")[0] == 200
            assert len(of_session(process.pid)) > workers
            assert list(Path(place).glob("stepin-*"))
            process.kill()
            until = time.monotonic() + SECONDS / 2
            while of_session(process.pid) or list(Path(place).glob("stepin-*")):
                assert time.monotonic() < until, (of_session(process.pid), list(Path(place).iterdir()))
                time.sleep(0.1)
            with pytest.raises(ConnectionRefusedError):
                ask(line, "GET", "/healthz")


def test_an_answer_is_sent_without_waiting_for_the_network(model):
    """Headers and body leave in two pieces; with Nagle's algorithm the second waits some 40 ms."""
    with running(model) as (_, line):
        connection = http.client.HTTPConnection("127.0.0.1", port_of(line), timeout=SECONDS)
        seconds = []
        for _ in range(20):
            start = time.monotonic()
            connection.request("GET", "/healthz")
            assert connection.getresponse().read() == b'{"status":"alive"}'
            seconds.append(time.monotonic() - start)
        connection.close()
    assert sorted(seconds)[5] < 0.02


def test_a_taken_port_is_told_in_one_sentence(model):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError) as refused:
            serve(Settings(model), "127.0.0.1", port)
    assert str(refused.value) == (
        f"Cannot listen on port {port} of 127.0.0.1: address already in use. "
        "Choose another port; 0 takes a free one."
    )


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"port": 70000}, "The port should be a number from 0 to 65535; came 70000."),
        ({"port": 0, "workers": 0}, "workers should be 1 or more; came 0."),
        (
            {"port": 0, "host": "no host"},
            "Cannot listen on port 0 of no host: no such host. Name another address.",
        ),
    ],
)
def test_a_place_that_cannot_be_is_refused(model, where, sentence):
    with pytest.raises(UserError) as refused:
        serve(Settings(model), **where)
    assert str(refused.value) == sentence


def test_the_server_process_loads_nothing_that_only_learning_needs(model):
    code = """
import asyncio, json, sys
from pathlib import Path
import serving.server
from serving.app import create_app
from serving.settings import Settings

app = create_app(Settings(Path(sys.argv[1]), log="off"))
body = json.dumps({"deal_id": "D", "features": {"stage": "propose"}}).encode()
scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
         "path": "/v1/recommendations", "raw_path": b"/v1/recommendations", "query_string": b"",
         "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
         "scheme": "http", "root_path": "",
         "server": ("test", 80), "client": ("test", 1)}
sent = []

async def receive():
    return {"type": "http.request", "body": body, "more_body": False}

async def send(message):
    sent.append(message)

asyncio.run(app(scope, receive, send))
heavy = {"pandas", "sklearn", "scipy", "mlflow", "matplotlib", "pandera", "pyarrow", "joblib"}
print(json.dumps([sent[0]["status"], sorted(heavy & set(sys.modules))]))
"""
    ran = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert json.loads(ran.stdout) == [200, []]

"""Servers in processes of their own, that want keys, count together, and tell of it."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import pytest

SECONDS = 30
DEAL = {"deal_id": "D", "features": {"stage": "propose"}}


class Server:
    """`stepin serve` on a free port, with a database of its own."""

    def __init__(self, model, folder, *options, **variables):
        self.log = folder / "log"
        self.environ = {
            **{name: text for name, text in os.environ.items() if not name.startswith("STEPIN_")},
            "STEPIN_DATABASE": f"sqlite:///{folder / 'stepin.db'}",
            **{f"STEPIN_{name.upper()}": str(value) for name, value in variables.items()},
        }
        self.command = [sys.executable, "-m", "stepin", "serve", str(model), "--port", "0", *options]
        self.port = 0
        self.request_ids = []

    @contextmanager
    def running(self):
        with self.log.open("wb") as log:
            process = subprocess.Popen(self.command, stderr=log, env=self.environ, start_new_session=True)
        try:
            end = time.monotonic() + SECONDS
            while not (line := re.search(rb"http://\S+?:(\d+) ", self.log.read_bytes())):
                assert process.poll() is None, self.log.read_text()
                assert time.monotonic() < end
                time.sleep(0.05)
            self.port = int(line[1])
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def key(self, *arguments):
        ran = subprocess.run(
            [sys.executable, "-m", "stepin", "key", *arguments],
            env=self.environ,
            capture_output=True,
            text=True,
            check=True,
        )
        return ran.stdout.strip()

    def ask(self, method, path, body=None, key=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {key}"} if key else {})}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            self.request_ids.append(response.headers["x-request-id"])
            return response.status, response.read().decode()
        finally:
            connection.close()

    def lines(self):
        return [json.loads(line) for line in self.log.read_bytes().splitlines() if line.startswith(b"{")]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_nobody_serves_to_others_without_a_key(model, tmp_path, workers):
    server = Server(model, tmp_path, "--host", "0.0.0.0", "--workers", workers)
    ran = subprocess.run(server.command, env=server.environ, capture_output=True, text=True, timeout=SECONDS)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "stepin: An API key is needed, for others reach the server at 0.0.0.0, but there is none yet. "
        "Make one with stepin key create NAME --scope score, or serve at 127.0.0.1.\n"
    )


def test_a_key_opens_what_it_was_made_for_until_it_is_revoked(model, tmp_path):
    server = Server(model, tmp_path, "--host", "0.0.0.0", "--workers", "2")
    score, read = (server.key("create", scope, "--scope", scope) for scope in ("score", "read"))
    with server.running() as process:
        statuses = {
            (name, path): {server.ask(method, path, body, key)[0] for _ in range(8)}  # either worker
            for name, key in {"score": score, "read": read, "none": None}.items()
            for method, path, body in (
                ("POST", "/v1/recommendations", DEAL),
                ("GET", "/v1/model", None),
                ("GET", "/metrics", None),
                ("GET", "/healthz", None),
            )
        }
        assert statuses == {
            ("score", "/v1/recommendations"): {200},
            ("score", "/v1/model"): {403},
            ("score", "/metrics"): {403},
            ("score", "/healthz"): {200},
            ("read", "/v1/recommendations"): {403},
            ("read", "/v1/model"): {200},
            ("read", "/metrics"): {200},
            ("read", "/healthz"): {200},
            ("none", "/v1/recommendations"): {401},
            ("none", "/v1/model"): {401},
            ("none", "/metrics"): {401},
            ("none", "/healthz"): {200},
        }
        server.key("revoke", score.split("_")[1])
        later = server.key("create", "later", "--scope", "score")
        time.sleep(6)  # as documented
        assert {server.ask("POST", "/v1/recommendations", DEAL, score)[0] for _ in range(8)} == {401}
        assert {server.ask("POST", "/v1/recommendations", DEAL, later)[0] for _ in range(8)} == {200}
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    ids = {line["key_id"] for line in server.lines() if line.get("status") == 200}
    assert ids == {"anonymous", *(key.split("_")[1] for key in (score, read, later))}
    written = server.log.read_text()
    assert [key for key in (score, read, later) if key.split("_", 2)[2] in written] == []


def test_counts_are_the_same_whichever_worker_is_asked(model, tmp_path):
    server = Server(model, tmp_path, "--workers", "2")
    with server.running() as process:
        with ThreadPoolExecutor(8) as callers:
            for _ in range(50):  # until both workers had something to do
                asked = [callers.submit(server.ask, "POST", "/v1/recommendations", DEAL) for _ in range(8)]
                assert {each.result()[0] for each in asked} == {200}
                if len({each.split("-")[0] for each in server.request_ids}) == 2:
                    break
        answered = len(server.request_ids)
        time.sleep(1.2)  # counts are left for the others every half second
        labels = 'method="POST",route="/v1/recommendations",status="200"'
        wanted = f"stepin_requests_total{{{labels}}} {answered}.0"
        pages = [server.ask("GET", "/metrics") for _ in range(10)]
        assert [status for status, text in pages if wanted not in text.splitlines()] == []
        assert all('stepin_model{digest="sha256:' in text for _, text in pages)
        process.send_signal(signal.SIGTERM)
        process.wait(SECONDS)
    told = [line for line in server.lines() if line.get("route") == "/v1/recommendations"]
    assert {line["answers"] for line in told} == {1}
    assert sorted(line["request_id"] for line in told) == sorted(server.request_ids[:answered])
    assert len({line["request_id"].split("-")[0] for line in told}) == 2  # both worked


def test_what_was_taken_is_finished_and_told_when_the_server_is_stopped(model, tmp_path):
    """The body of a request is still coming when SIGTERM comes."""
    server = Server(model, tmp_path)
    body = json.dumps(DEAL).encode()
    with server.running() as process:
        with socket.create_connection(("127.0.0.1", server.port), timeout=SECONDS) as connection:
            connection.sendall(
                b"POST /v1/recommendations HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(body)
            )
            connection.sendall(body[:5])
            time.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            connection.sendall(body[5:])
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert process.wait(SECONDS) == 0
    assert [line["status"] for line in server.lines() if "status" in line] == [200]


def test_settings_of_the_door_reach_the_workers(model, tmp_path):
    server = Server(
        model, tmp_path, rate_per_minute=5, most_body_kib=16, log="off", cors_origins="https://crm.example"
    )
    with server.running():
        large = {"deal_id": "D", "features": {}, "more": "x" * 2048}
        assert server.ask("POST", "/v1/recommendations", large)[0] == 413
        statuses = [server.ask("POST", "/v1/recommendations", DEAL)[0] for _ in range(6)]
        assert statuses == [200] * 4 + [429] * 2  # the one that was too large counts
        assert server.ask("GET", "/readyz")[0] == 200
    assert server.lines() == []

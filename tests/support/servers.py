"""Real servers on the loopback, in processes of their own: started, asked, and ended whatever happens."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 30
RUN = """
import os, sys
from serving.server import serve
from serving.settings import Settings
serve(Settings.from_environ(os.environ), host=sys.argv[1], port=0, workers=int(sys.argv[2]))
print("ended")
"""


@dataclass
class Server:
    """One that runs, and the line it said when it was ready."""

    process: subprocess.Popen
    line: str
    errors: list[str] = field(default_factory=list)
    """Everything else that it wrote on stderr so far."""

    @property
    def port(self) -> int:
        return int(re.search(r"http://[^ ]*?:(\d+)", self.line)[1])

    def connect(self, seconds: float = SECONDS) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """The status and the content: JSON where it is, else text."""
        line = connection or self.connect()
        try:
            content = body if isinstance(body, bytes | None) else json.dumps(body)
            line.request(method, path, content, {"content-type": "application/json", **(headers or {})})
            response = line.getresponse()
            text = response.read()
            is_json = "json" in (response.getheader("content-type") or "")
            return response.status, json.loads(text) if is_json else text.decode()
        finally:
            if connection is None:
                line.close()

    def until(self, path, status, seconds=SECONDS):
        """Ask until the answer has this status."""
        until = time.monotonic() + seconds
        while (came := self.ask("GET", path))[0] != status:
            assert time.monotonic() < until, came
            time.sleep(0.1)

    def kill(self) -> None:
        """End it and its workers at once, as a power cut would; they are in a session of their own."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self.process.terminate()
        self.process.wait(SECONDS)


@contextmanager
def running(folder: Path, workers: int = 1, host: str = "127.0.0.1", seconds: float = 60, **settings: str):
    """A server of a model folder; `settings` by their names without STEPIN_, in small letters."""
    told = {f"STEPIN_{name.upper()}": str(value) for name, value in settings.items()}
    clean = {name: text for name, text in os.environ.items() if not name.startswith("STEPIN_")}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, host, str(workers)],
        env={**clean, "STEPIN_LOG": "off", **told, "STEPIN_MODEL": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    server = Server(process, "")
    too_long = threading.Timer(seconds, server.kill)
    too_long.start()
    try:
        server.line = process.stderr.readline()
        reader = threading.Thread(target=lambda: server.errors.extend(process.stderr), daemon=True)
        reader.start()
        yield server
        server.kill()
        reader.join(SECONDS)
    finally:
        too_long.cancel()
        server.kill()
        process.stdout.close()
        process.stderr.close()

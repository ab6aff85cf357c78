"""A generator of requests reads the documentation, and holds the running server to it."""

import re
import subprocess
import sys
import time
from pathlib import Path

from servers import running

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)


def until_the_builder_is_there(server):
    """It starts beside the server; until then deals by their CRM fields get a 503, as documented."""
    for _ in range(200):
        if server.ask("POST", "/v1/recommendations", {"deal_id": "D", "deal": {}})[0] != 503:
            return
        time.sleep(0.1)
    raise AssertionError("no builder in 20 seconds")


def test_the_running_server_is_as_its_documentation_says(model):
    """No failure of ours, no status nor answer off the documentation, nothing wrong that is let in."""
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run"),
        *(
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "15",
            "--seed",
            "1",
            "--request-timeout",
            "30",
        ),
        *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-color"),
    ]
    with running(model, seconds=300) as server:
        until_the_builder_is_there(server)
        address = f"http://127.0.0.1:{server.port}/openapi.json"
        ran = subprocess.run([*command, address], capture_output=True, text=True, timeout=270, check=False)
        assert server.ask("GET", "/readyz")[0] == 200
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]
    selected, total = re.search(r"Operations: +(\d+) selected / (\d+) total", ran.stdout).groups()
    assert selected == total
    assert int(re.search(r"(\d+) generated", ran.stdout)[1]) > 300
    assert server.errors == []

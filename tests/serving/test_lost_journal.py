"""A real server whose journal is lost while it runs: it says so, and goes on when the journal is back."""

import json
import re
import sqlite3
import time
from contextlib import closing

import pytest
from servers import SECONDS, running

DEAL = {"deal_id": "D", "features": {"stage": "propose"}}


def events(server):
    """What is counted in stepin_events_total, by kind."""
    _, page = server.ask("GET", "/metrics")
    return {
        kind: float(n) for kind, n in re.findall(r'^stepin_events_total\{kind="(\w+)"\} (\S+)$', page, re.M)
    }


@pytest.mark.parametrize("when_lost", ["refuse", "answer"])
def test_a_lost_journal_is_told_everywhere_and_found_again(model, here, when_lost):
    settings = {"database": "sqlite:///stepin.db", "journal": "strict", "journal_lost": when_lost}
    with running(model, log="json", **settings) as server:
        assert server.ask("POST", "/v1/recommendations", DEAL)[0] == 200
        for file in list(here.glob("stepin.db*")):
            file.rename(here / f"away-{file.name}")
        status, answer = server.ask("POST", "/v1/recommendations", DEAL)
        assert status == (503 if when_lost == "refuse" else 200), answer
        status, problem = server.ask("GET", "/readyz")
        assert (status, problem["type"]) == (503, "urn:stepin:problem:not-ready")
        assert events(server) == {"journal_lost": 1}
        assert "\nstepin_journal_up 0.0\n" in server.ask("GET", "/metrics")[1]
        assert server.ask("POST", "/v1/outcomes", {"deal_id": "D", "outcome": "won"})[0] == 503

        for file in list(here.glob("away-*")):
            file.rename(here / file.name.removeprefix("away-"))
        server.until("/readyz", 200)
        assert events(server) == {"journal_lost": 1, "journal_back": 1}
        assert server.ask("POST", "/v1/outcomes", {"deal_id": "D", "outcome": "won"})[0] == 201
        wanted = {
            "journal_lost": r"trying again until it is back\.$",
            "journal_back": r"^The journal is back; ",
        }
        until = time.monotonic() + SECONDS
        while any(f'"event":"{kind}"' not in "".join(server.errors) for kind in wanted):
            assert time.monotonic() < until
            time.sleep(0.05)
        told = [json.loads(line) for line in server.errors]
        for kind, sentence in wanted.items():
            [line] = [each for each in told if each.get("event") == kind]
            assert re.search(sentence, line["sentence"])
    with closing(sqlite3.connect(here / "stepin.db")) as journal:
        [(n_answers,)] = journal.execute("SELECT count(*) FROM answers")
    assert n_answers == 2  # what was refused may be written late; what was answered must be

"""An outcome that is told reaches those who answer by deal: once, whatever was lost on the way."""

import asyncio
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import orjson
import pytest
from servers import running

from serving.events import outcome_event, read_events
from serving.journal import Journal
from serving.knowledge import Knowledge
from serving.problems import JournalLost

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
WON = {"deal_id": "D-7", "outcome": "won", "closed_at": "2025-05-30T10:00:00Z"}


def events_in(database):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT kind, deal_id, payload FROM events").fetchall()


def test_a_deal_known_from_events_alone_is_closed_by_its_outcome(model, here):
    at = datetime.now(UTC).isoformat()
    deal = {"partner_id": "P", "customer_id": "C", "amount": 9000, "created_at": at}
    told = [
        {"event_id": "e-1", "kind": "deal", "deal_id": "D-7", "happened_at": at, "deal": deal},
        {"event_id": "e-2", "kind": "stage", "deal_id": "D-7", "happened_at": at, "stage": "propose"},
    ]
    with running(model, database="sqlite:///stepin.db") as server:
        server.until("/v1/deals/nobody/recommendation", 404)  # the builder is there
        assert server.ask("POST", "/v1/events", {"events": told})[1]["applied"]
        assert server.ask("GET", "/v1/deals/D-7/recommendation")[0] == 200
        status, stored = server.ask("POST", "/v1/outcomes", {"deal_id": "D-7", "outcome": "lost"})
        assert (status, stored["status"]) == (201, "recorded")
        status, problem = server.ask("GET", "/v1/deals/D-7/recommendation")
        assert (status, problem["type"]) == (409, "urn:stepin:problem:nothing-to-decide")
        again = server.ask("POST", "/v1/outcomes", {"deal_id": "D-7", "outcome": "lost"})
        assert again == (200, {**stored, "status": "already"})
    assert [kind for kind, _, _ in events_in(here / "stepin.db")] == ["deal", "stage", "outcome"]


def test_an_outcome_whose_event_was_lost_is_known_when_it_is_sent_again(
    model, make_client, tmp_path, monkeypatch
):
    client = make_client(model, builder_socket=tmp_path / "nobody")
    write = Journal.write

    def lose_events(self, work, what):
        if what == "events":
            raise JournalLost
        return write(self, work, what)

    with monkeypatch.context() as lossy:
        lossy.setattr(Journal, "write", lose_events)
        assert client.post("/v1/outcomes", WON).status_code == 503
    assert events_in(tmp_path / "stepin.db") == []
    again = client.post("/v1/outcomes", WON)
    assert (again.status_code, again.json()["status"]) == (200, "already")
    assert client.post("/v1/outcomes", WON).json() == again.json()
    [(kind, deal_id, payload)] = events_in(tmp_path / "stepin.db")
    assert (kind, deal_id) == ("outcome", "D-7")
    assert orjson.loads(payload) == {"outcome": "won", "closed_at": "2025-05-30T10:00:00+00:00"}


def test_events_to_a_database_that_was_moved_away_are_refused(tmp_path):
    path = tmp_path / "stepin.db"
    event = {"event_id": "e", "kind": "stage", "deal_id": "D", "happened_at": "2025-05-01", "stage": "x"}

    async def go():
        journal = Journal.open(f"sqlite:///{path}", "off", "refuse")
        knowledge = Knowledge(journal, None)
        told = read_events(orjson.dumps({"events": [event]}), NOW)
        await knowledge.add_events(told, "key-1")
        path.rename(tmp_path / "elsewhere.db")
        with pytest.raises(JournalLost):
            await knowledge.add_events(told, "key-1")
        await journal.close()

    asyncio.run(go())


def test_outcomes_with_long_ids_that_differ_at_their_end_are_two_events():
    ids = [
        outcome_event({**WON, "closed_at": None, "outcome_id": "o" * 199 + last, "received_at": NOW}, NOW)
        for last in "ab"
    ]
    assert len({told.event.event_id for [told] in ids}) == 2

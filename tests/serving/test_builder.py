"""Real processes: a builder that knows a CRM, asked over its socket as the server asks it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import orjson
import pytest
from pandas.testing import assert_frame_equal

from features import simulate
from features.build import build_features
from features.live import Ledger
from features.moments import open_deals
from features.problems import UserError
from features.schema import read_tables
from serving.builder import Desk
from serving.building import building, start_builder
from serving.deal_form import read_deal_form
from serving.events import read_events
from serving.journal import Journal
from serving.knowledge import Knowledge
from serving.problems import BuilderAway, Contradiction, NothingToDecide, UnknownDeal
from serving.settings import Settings

SECONDS = 60


def with_nothing_in_common(tables, deal_ids):
    """Deals of as many partners and customers: no test's events reach another test's deal."""
    deals = tables.deals.set_index("deal_id")
    taken = {deals["partner_id"].iloc[0], deals["customer_id"].iloc[0]}
    found = []
    for deal_id in deal_ids:
        whose = {deals.at[deal_id, "partner_id"], deals.at[deal_id, "customer_id"]}
        if taken.isdisjoint(whose):
            taken |= whose
            found.append(deal_id)
    return found


@pytest.fixture(scope="module")
def crm(tmp_path_factory):
    """A simulated CRM's folder, and its tables."""
    folder = tmp_path_factory.mktemp("crm") / "tables"
    simulate(400, seed=3).write(folder)
    tables = read_tables(folder)
    open_ids = with_nothing_in_common(tables, open_deals(tables)["deal_id"])
    closed = tables.deals["deal_id"][tables.deals["outcome"] != "open"].iloc[0]
    return SimpleNamespace(folder=folder, tables=tables, open_ids=open_ids, closed=closed)


@pytest.fixture(scope="module")
def running(crm, model, tmp_path_factory):
    """A builder on that CRM; the tests share it, each with deals of its own."""
    database = f"sqlite:///{tmp_path_factory.mktemp('database')}/stepin.db"
    with building(Settings(model, data=str(crm.folder), database=database)) as settings:
        yield settings


@asynccontextmanager
async def knowing(settings):
    journal = Journal.open(settings.database, "off", "refuse")
    knowledge = Knowledge(journal, settings.builder_socket)
    try:
        yield knowledge
    finally:
        await knowledge.close()
        await journal.close()


async def patiently(ask, *arguments):
    """Ask until the builder has started."""
    until = time.monotonic() + SECONDS
    while True:
        try:
            return await ask(*arguments)
        except BuilderAway:
            assert time.monotonic() < until
            await asyncio.sleep(0.1)


def now():
    return datetime.now(UTC)


def told(*events):
    """Events as a caller sends them, each with an id made of its content."""
    named = [
        {"event_id": f"{each['deal_id']} {each['kind']} {number}", **each}
        for number, each in enumerate(events)
    ]
    return read_events(orjson.dumps({"events": named}), now())


def statuses(reply):
    return [each["status"] for each in reply["events"]]


def test_facts_of_a_known_deal_are_those_that_training_would_build(running, crm):
    deal_id = crm.open_ids[0]

    async def ask():
        async with knowing(running) as knowledge:
            return await patiently(knowledge.deal, deal_id)

    known = asyncio.run(ask())
    assert timedelta(0) < now() - known.as_of < timedelta(seconds=SECONDS)
    asked = open_deals(crm.tables, known.as_of)
    asked = asked[asked["deal_id"] == deal_id]
    [expected] = [build_features(crm.tables, asked)]
    live = Ledger(crm.tables).rows([deal_id], known.as_of)
    assert known.facts == live.facts()[0]
    assert_frame_equal(
        live.features.astype(dict.fromkeys(live.features.select_dtypes("category"), "str")).reset_index(
            drop=True
        ),
        expected.astype(dict.fromkeys(expected.select_dtypes("category"), "str")).reset_index(drop=True),
        check_exact=True,
    )


def test_the_next_answer_knows_what_was_told(running, crm):
    deal_id = crm.open_ids[1]
    day_ago = (now() - timedelta(days=1)).isoformat()

    async def ask():
        async with knowing(running) as knowledge:
            before = await patiently(knowledge.deal, deal_id)
            reply = await knowledge.add_events(
                told(
                    {"deal_id": deal_id, "kind": "stage", "happened_at": day_ago, "stage": "negotiation"},
                    {"deal_id": deal_id, "kind": "deal", "happened_at": day_ago, "deal": {"amount": 123456}},
                    {"deal_id": deal_id, "kind": "involvement", "happened_at": day_ago},
                ),
                "key-1",
            )
            return before, reply, await knowledge.deal(deal_id)

    before, reply, after = asyncio.run(ask())
    assert (reply["applied"], statuses(reply)) == (True, ["applied"] * 3)
    assert after.as_of > before.as_of
    assert after.facts["stage"] == "negotiation"
    assert after.facts["amount"] == 123456.0
    assert after.facts["already_involved"] is True
    assert 0.99 < after.facts["days_in_stage"] < 1.01


def test_an_event_counts_once_and_waits_for_its_deal(running, crm):
    new = {"deal_id": "N-1", "kind": "deal", "happened_at": "2026-01-02T00:00:00Z"}
    deal = crm.tables.deals.iloc[0]
    new["deal"] = {"partner_id": deal["partner_id"], "customer_id": deal["customer_id"], "amount": 5000}
    stage = {"deal_id": "N-1", "kind": "stage", "happened_at": "2026-01-03T00:00:00Z", "stage": "qualify"}
    other = {**stage, "stage": "proposal"}

    async def ask():
        async with knowing(running) as knowledge:
            replies = [await patiently(knowledge.add_events, told(stage), "key-1")]
            with pytest.raises(NothingToDecide, match="none says yet who its partner and its customer are"):
                await knowledge.deal("N-1")
            replies += [await knowledge.add_events(told(each), "key-1") for each in (new, stage, other)]
            return replies, await knowledge.deal("N-1")

    replies, known = asyncio.run(ask())
    assert [statuses(reply) for reply in replies] == [["waits"], ["applied"], ["already"], ["differs"]]
    assert known.facts["stage"] == "qualify"
    assert known.facts["days_open"] == 1.0


def test_a_deal_that_closes_is_answered_no_more_until_it_opens_again(running, crm):
    deal_id = crm.open_ids[2]

    def outcome(outcome):
        return told(
            {
                "deal_id": deal_id,
                "kind": "outcome",
                "happened_at": now().isoformat(),
                "outcome": outcome,
                "event_id": outcome,
            }
        )

    async def ask():
        async with knowing(running) as knowledge:
            await patiently(knowledge.deal, deal_id)
            await knowledge.add_events(outcome("lost"), "key-1")
            with pytest.raises(NothingToDecide, match="The deal is closed"):
                await knowledge.deal(deal_id)
            await knowledge.add_events(outcome("open"), "key-1")
            return await knowledge.deal(deal_id)

    assert asyncio.run(ask()).facts["stage"] is not None


def test_deals_that_cannot_be_advised_on_are_told_apart(running, crm):
    async def ask():
        async with knowing(running) as knowledge:
            await patiently(knowledge.deal, crm.open_ids[0])
            with pytest.raises(UnknownDeal):
                await knowledge.deal("nobody's")
            with pytest.raises(NothingToDecide, match="The deal is closed"):
                await knowledge.deal(crm.closed)

    asyncio.run(ask())


def test_what_contradicts_the_rest_is_set_aside_and_says_why(running, crm):
    deal_id = crm.open_ids[3]
    early = {"deal_id": deal_id, "kind": "stage", "happened_at": "2001-01-01", "stage": "qualify"}
    dear = {
        "deal_id": deal_id,
        "kind": "deal",
        "happened_at": "2026-01-01",
        "deal": {"amount": 9, "currency": "USD"},
    }
    odd = {"deal_id": deal_id, "kind": "deal", "happened_at": "2026-01-01", "deal": {"complexity": "high"}}

    async def ask():
        async with knowing(running) as knowledge:
            return await patiently(knowledge.add_events, told(early, dear, odd), "key-1")

    reply = asyncio.run(ask())
    assert statuses(reply) == ["set_aside"] * 3
    assert [each["detail"] for each in reply["events"]] == [
        "stage: happened_at should not lie before the deal's created_at.",
        "deal: currency should be EUR, as in the tables; the amount was not taken: convert it.",
        "deals: a further column should be a number, as in the tables.",
    ]


def test_a_deal_by_value_is_joined_with_what_is_known(running, crm):
    deal = crm.tables.deals.iloc[0]
    whose = {"partner_id": deal["partner_id"], "customer_id": deal["customer_id"]}
    forms = [
        {"deal_id": "V-1", "deal": {**whose, "amount": 7000}, "stage": "proposal"},
        {"deal_id": "V-2", "deal": {"amount": 7000}, "partner": {"tier": "gold"}},
    ]

    async def ask():
        async with knowing(running) as knowledge:
            known = await patiently(knowledge.deal, crm.open_ids[4])
            forms.append({"deal_id": crm.open_ids[4], "deal": {}, "as_of": known.as_of.isoformat()})
            built = await knowledge.build([read_deal_form(each, now()) for each in forms])
            with pytest.raises(UnknownDeal):  # nothing of it was kept
                await knowledge.deal("V-1")
            early = {
                "deal_id": "V-1",
                "deal": {"created_at": "2026-01-02"},
                "stage": "x",
                "stage_entered_at": "2026-01-01",
            }
            with pytest.raises(Contradiction, match="should not lie before the deal's created_at"):
                await knowledge.build([read_deal_form(early, now())])
            return known, built

    known, (first, second, third) = asyncio.run(ask())
    assert first.facts["partner_deals_before"] > 0
    assert first.facts["stage"] == "proposal"
    assert first.facts["already_involved"] is None
    assert second.facts["partner_tier"] == "gold"
    assert [
        second.facts[name] for name in ("partner_id", "partner_win_rate", "stage", "pair_first_sale")
    ] == [None] * 4
    assert third == known


# Processes that end, and places that are not there


def test_a_builder_that_is_killed_comes_back_and_knows_what_was_told_meanwhile(crm, model, tmp_path):
    deal_id, closing = crm.open_ids[0], crm.open_ids[1]

    async def ask(running):
        async with knowing(running.settings) as knowledge:
            await patiently(knowledge.deal, deal_id)
            os.kill(running.process.pid, signal.SIGKILL)
            start = time.monotonic()
            reply = await knowledge.add_events(told(stage(deal_id, "negotiation"), lost(closing)), "key-1")
            seconds = time.monotonic() - start
            early = await knowledge.deal(deal_id)  # its facts are ready, and say how old they are
            until = time.monotonic() + SECONDS
            while (known := await knowledge.deal(deal_id)).as_of == early.as_of:
                assert time.monotonic() < until
                await asyncio.sleep(0.1)
            with pytest.raises(NothingToDecide):
                await patiently(knowledge.deal, closing)
            return reply, seconds, known

    running = start_builder(Settings(model, data=str(crm.folder), database=f"sqlite:///{tmp_path}/stepin.db"))
    try:
        reply, seconds, known = asyncio.run(ask(running))
    finally:
        running.stop()
    assert (reply["applied"], statuses(reply)) == (False, ["recorded", "recorded"])
    assert seconds < 6
    assert known.facts["stage"] == "negotiation"
    assert not running.settings.builder_socket.parent.exists()


def stage(deal_id, name):
    return {"deal_id": deal_id, "kind": "stage", "happened_at": now().isoformat(), "stage": name}


def lost(deal_id):
    return {"deal_id": deal_id, "kind": "outcome", "happened_at": now().isoformat(), "outcome": "lost"}


def test_a_builder_ends_with_the_process_that_started_it(crm, model, tmp_path):
    code = """
import sys, time
from pathlib import Path
from serving.building import start_builder
from serving.settings import Settings
running = start_builder(Settings(Path(sys.argv[1]), data=sys.argv[2], database=sys.argv[3]))
print(running.process.pid, flush=True)
time.sleep(60)
"""
    arguments = [str(model), str(crm.folder), f"sqlite:///{tmp_path}/stepin.db"]
    parent = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)
    builder = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    until = time.monotonic() + SECONDS
    while (
        Path(f"/proc/{builder}").exists() and "Z" not in Path(f"/proc/{builder}/stat").read_text().split()[2]
    ):
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda folder: None,
            "STEPIN_DATA should name a folder of CRM tables, or a database; {} is neither.",
        ),
        (
            lambda folder: (folder.mkdir(), (folder / "deals.csv").touch()),
            "STEPIN_DATA names {}, which lacks stage_entries, involvements, partners, customers, "
            "relationships (.parquet or .csv).",
        ),
    ],
)
def test_a_place_without_tables_is_refused_before_anything_starts(model, tmp_path, make, sentence):
    folder = tmp_path / "crm"
    make(folder)
    with pytest.raises(UserError) as refused:
        start_builder(Settings(model, data=str(folder)))
    assert str(refused.value) == sentence.format(folder)


class Faulty:
    """Stands for a builder with a fault of its own: in what it is asked, and once in reading its tables."""

    def __init__(self):
        self.stale, self.loads = set(), 0

    def load(self):
        self.loads += 1
        if self.loads == 1:
            raise KeyError("pelican")

    def build(self, deals):
        raise ZeroDivisionError("pelican")

    def catch_up(self):
        pass

    def standing(self, deal_id):
        return "closed"


def test_a_fault_of_the_builders_own_is_told_once_and_stops_nothing(model, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("serving.builder.RETRY_SECONDS", 0.05)
    with tempfile.TemporaryDirectory(dir="/tmp") as place:  # a socket's path is 107 bytes at most
        settings = Settings(
            model, database=f"sqlite:///{tmp_path}/stepin.db", builder_socket=Path(place) / "builder"
        )

        async def ask():
            desk = asyncio.create_task(Desk(Faulty(), 60.0).run(settings.builder_socket))
            async with knowing(settings) as knowledge:
                with pytest.raises(NothingToDecide):
                    await patiently(knowledge.deal, "D")
                for _ in range(3):
                    with pytest.raises(BuilderAway):
                        await knowledge.build([{"deal_id": "D", "deal": {}}])
                with pytest.raises(NothingToDecide):
                    await knowledge.deal("D")
                assert not desk.done()
            desk.cancel()
            await asyncio.gather(desk, return_exceptions=True)

        asyncio.run(ask())
    said = capfd.readouterr().err.splitlines()
    assert [re.sub(r":\d+\.$", "", line) for line in said] == [
        "stepin: Facts of known deals cannot be built. It is a fault of stepin's own: "
        f"{error} in serving/test_builder.py"
        for error in ("KeyError", "ZeroDivisionError")
    ]


def test_without_a_builder_what_needs_one_is_told_to_come_back(model, tmp_path):
    settings = Settings(model, database=f"sqlite:///{tmp_path}/stepin.db", builder_socket=tmp_path / "nobody")

    async def ask(of):
        async with knowing(of) as knowledge:
            with pytest.raises(BuilderAway) as away:
                await knowledge.deal("D")
            with pytest.raises(BuilderAway):
                await knowledge.build([{"deal_id": "D", "deal": {}}])
            reply = await knowledge.add_events(told(stage("D", "qualify")), "key-1")
            return away.value.headers, reply

    for of in (settings, replace(settings, builder_socket=None)):
        headers, reply = asyncio.run(ask(of))
        assert headers == {"Retry-After": "2"}
        assert not reply["applied"]

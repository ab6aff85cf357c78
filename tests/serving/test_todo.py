"""The to-do list: complete, in order, page by page, and cut where the hours run out."""

import asyncio
import itertools
import math
from datetime import UTC, datetime
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.problems import UserError
from serving import ready_rows
from serving.journal import Journal
from serving.problems import InvalidRequest
from serving.ready_rows import ReadyRow
from serving.settings import Settings
from serving.slot import prepare
from serving.todo import ADVICE, STEP_IN, Capacity, Judged, TodoList, Wanted, refuse_capacity_without_hours
from training.policy import Policy

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
COSTS = {"hours": 8.0, "cost_per_hour": 10.0, "margin": 0.3}
STAGES = ("qualify", "propose", "negotiate")


def row(number, **facts):
    """A deal's facts; every third deal has the same as two others, and some have no amount."""
    kind = number // 3
    amount = None if kind % 7 == 0 else 20_000.0 + 9_000 * (kind % 40)
    told = {
        "amount": amount,
        "stage": STAGES[kind % 3],
        "days_open": 3.0 * (kind % 50),
        "product_line": "core",
    }
    facts = {**told, "of_no_model": 1.0, **facts}
    return ReadyRow(f"D{number:03}", NOON, facts["stage"], "P", "C", facts["amount"], facts)


@pytest.fixture(scope="module")
def bold(made, tmp_path_factory):
    """A model whose policy says step_in where it is a little surer than not."""
    facts = {**made.facts, "policy": {"sure": 0.52}}
    return made.folder(tmp_path_factory.mktemp("models") / "bold", made.scorecard(), facts)


@pytest.fixture
def listed(bold, tmp_path):
    """A list over 150 ready rows; ``listed.ask(...)`` gives a page's content."""
    journal = Journal.open(f"sqlite:///{tmp_path}/stepin.db", "off", "refuse")
    held = prepare(Settings(bold, **COSTS))

    def put(rows, gone=()):
        ready_rows.put(journal.engine, rows, gone, NOON)

    def make(capacity_hours=None):
        todo = TodoList(journal, capacity_hours, lambda: NOON)

        def ask(query=b"", of=held):
            page = asyncio.run(todo.page(of, Wanted.read(query)))
            content = orjson.loads(page.body)
            assert [each.recommendation_id for each in page.served] == [
                each["recommendation_id"] for each in content["recommendations"]
            ]
            return content

        return ask

    put([row(number) for number in range(150)])
    yield SimpleNamespace(journal=journal, held=held, put=put, make=make)
    asyncio.run(journal.close())


def all_pages(ask, query):
    """Every deal of a list, page by page."""
    found, follows = [], b""
    while True:
        content = ask(query + (b"&cursor=" + follows if follows else b""))
        found += content["recommendations"]
        if content["next"] is None:
            assert len(found) == content["total"]
            return found
        follows = content["next"].encode()


def value_of(answer, sort):
    if sort == "expected_value":
        return -math.inf if answer["expected_value"] is None else answer["expected_value"]["amount"]
    value = answer["score"] if sort == "score" else answer["uplift_points"]
    return -math.inf if value is None else value


@pytest.mark.parametrize("sort", ["expected_value", "score", "uplift"])
@pytest.mark.parametrize("limit", [1, 7, 200])
def test_pages_hold_every_deal_once_and_in_order(listed, sort, limit):
    found = all_pages(listed.make(), f"sort={sort}&limit={limit}".encode())
    assert sorted(each["deal_id"] for each in found) == [f"D{number:03}" for number in range(150)]
    keys = [(-value_of(each, sort), each["deal_id"]) for each in found]
    rounded = [(round(value, 6) if math.isfinite(value) else value, deal_id) for value, deal_id in keys]
    assert rounded == sorted(rounded)


def test_a_list_of_one_advice_holds_all_of_it_and_nothing_else(listed):
    ask = listed.make()
    everything = all_pages(ask, b"limit=200")
    by_advice = {advice: all_pages(ask, b"advice=" + advice.encode()) for advice in ADVICE}
    assert sum(map(len, by_advice.values())) == 150
    assert sum(bool(found) for found in by_advice.values()) > 1
    for advice, found in by_advice.items():
        expected = {each["deal_id"] for each in everything if each["advice"] == advice}
        assert {each["deal_id"] for each in found} == expected


def test_a_deal_that_closes_between_two_pages_moves_no_other(listed):
    ask = listed.make()
    first = ask(b"limit=10")
    ids = [each["deal_id"] for each in first["recommendations"]]
    expected = [each["deal_id"] for each in all_pages(listed.make(), b"limit=200")][10:]
    listed.put([], gone=ids[:5])
    rest = all_pages_after(ask, first["next"])
    assert rest == expected


def all_pages_after(ask, follows):
    found = []
    while follows:
        content = ask(b"limit=10&cursor=" + follows.encode())
        found += [each["deal_id"] for each in content["recommendations"]]
        follows = content["next"]
    return found


def test_what_changes_is_judged_anew_and_the_rest_is_not(listed, monkeypatch):
    ask = listed.make()
    ask()
    listed.put([row(4, amount=5e6), row(200)], gone=["D007"])
    judged = []
    several = type(listed.held.recommender).answer_many

    def counted(self, asked, *more):
        judged.extend(deal.deal_id for deal in asked)
        return several(self, asked, *more)

    monkeypatch.setattr(type(listed.held.recommender), "answer_many", counted)
    ours = all_pages(ask, b"limit=200")
    assert sorted(judged) == ["D004", "D200"]
    afresh = all_pages(listed.make(), b"limit=200")
    assert [each["deal_id"] for each in ours] == [each["deal_id"] for each in afresh]
    assert "D007" not in [each["deal_id"] for each in ours]


def test_another_policy_judges_all_deals_anew(listed, bold):
    ask = listed.make()
    before = ask(b"advice=step_in")["total"]
    dear = prepare(Settings(bold, hours=8.0, cost_per_hour=5000.0, margin=0.3))
    assert ask(b"advice=step_in", dear)["total"] < before


def test_without_a_capacity_there_is_no_cut_and_no_price(listed):
    content = listed.make()(b"limit=1")
    assert content["capacity"] is None
    assert content["recommendations"][0]["shadow_price"] is None


def test_the_list_is_cut_where_the_hours_run_out(listed):
    whole = all_pages(listed.make(), b"advice=step_in&limit=200")
    worth = [each for each in whole if value_of(each, "expected_value") > 0]
    assert len(worth) > 12
    ask = listed.make(capacity_hours=8.0 * 10 + 7)
    content = ask(b"advice=step_in&limit=200")
    kept = content["recommendations"]
    assert [each["deal_id"] for each in kept] == [each["deal_id"] for each in worth[:10]]
    price = {"amount_per_hour": pytest.approx(worth[10]["expected_value"]["amount"] / 8), "currency": "EUR"}
    assert content["capacity"] == {
        "hours": 87.0,
        "hours_per_deal": 8.0,
        "deals": 10,
        "left_out": len(worth) - 10,
        "shadow_price": price,
    }
    assert all(each["shadow_price"] == price for each in kept)
    by_score = ask(b"advice=step_in&limit=200&sort=score")["recommendations"]
    assert {each["deal_id"] for each in by_score} == {each["deal_id"] for each in kept}


VALUES = st.lists(st.one_of(st.none(), st.floats(-100, 1000).map(lambda value: round(value, 1))), max_size=9)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(values=VALUES, hours=st.floats(0, 40), hours_per_deal=st.sampled_from([1.0, 3.0, 8.0]))
def test_no_other_choice_earns_more_and_the_price_is_what_one_more_deal_would(values, hours, hours_per_deal):
    judged = [Judged(f"D{i}", STEP_IN, 50.0, 0.1, value) for i, value in enumerate(values)]

    def best(room):
        worth = [value or 0.0 for value in values]
        chosen = (
            sum(some) for n in range(room + 1) for some in itertools.combinations(worth, min(n, len(worth)))
        )
        return max(chosen, default=0.0)

    room = math.floor(hours / hours_per_deal)
    capacity = Capacity.of(judged, hours, hours_per_deal)
    assert len(capacity.deals) * hours_per_deal <= hours
    taken = sum(each.value or 0.0 for each in judged if each.deal_id in capacity.deals)
    assert taken == pytest.approx(best(room))
    assert capacity.shadow_price * hours_per_deal == pytest.approx(best(room + 1) - best(room))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"sort=amount", "sort"),
        (b"advice=maybe", "advice"),
        (b"limit=0", "limit"),
        (b"limit=201", "limit"),
        (b"limit=1e2", "limit"),
        (b"limit=%D9%A1", "limit"),
        (b"limit=99999999999999999999", "limit"),
        (b"cursor=!!", "cursor"),
        (b"cursor=%FF", "cursor"),
        (b"cursor=bnVsbA", "cursor"),
        (b"cursor=W10", "cursor"),
        (b"offset=3", "query"),
    ],
)
def test_a_query_that_cannot_be_is_refused_by_field(query, field):
    with pytest.raises(InvalidRequest) as refused:
        Wanted.read(query)
    assert [error.field for error in refused.value.errors] == [field]


def test_a_cursor_belongs_to_its_list():
    cursor = Wanted(advice=STEP_IN).cursor((-3.5, "D1")).encode()
    assert Wanted.read(b"advice=step_in&cursor=" + cursor).after == (-3.5, "D1")
    for other in (b"", b"advice=step_back&", b"advice=step_in&sort=score&"):
        with pytest.raises(InvalidRequest):
            Wanted.read(other + b"cursor=" + cursor)
    last = Wanted().cursor((math.inf, "D1")).encode()
    assert Wanted.read(b"cursor=" + last).after == (math.inf, "D1")


def test_a_capacity_needs_the_hours_of_a_deal():
    refuse_capacity_without_hours(None, Policy())
    refuse_capacity_without_hours(100.0, Policy(**COSTS))
    with pytest.raises(UserError) as refused:
        refuse_capacity_without_hours(100.0, Policy())
    assert str(refused.value) == (
        "STEPIN_CAPACITY_HOURS needs the hours that stepping in takes: set STEPIN_HOURS, "
        "STEPIN_COST_PER_HOUR and STEPIN_MARGIN, or train with them."
    )

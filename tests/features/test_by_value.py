"""A deal by value gets the row that it would get if its CRM told of it, and nothing of it is kept."""

from datetime import timedelta
from functools import cache

import numpy as np
import pandas as pd
import pytest

from features import simulate
from features.by_value import DealByValue, row_by_value, rows_by_value
from features.events import Event
from features.live import Ledger
from features.problems import UserError
from features.schema import check

HOUR = timedelta(hours=1)


@cache
def crm():
    return check(simulate(600, seed=8).tables)


@pytest.fixture
def ledger():
    return Ledger(crm())


@pytest.fixture
def now():
    return crm().now.to_pydatetime() + timedelta(days=2)


@pytest.fixture
def whose():
    """A partner and a customer with a history together, and another customer."""
    deals = crm().deals
    pair = deals.groupby(["partner_id", "customer_id"]).size().idxmax()
    return dict(zip(("partner_id", "customer_id"), pair, strict=True))


def test_a_known_deal_of_which_nothing_is_brought_has_its_own_row(ledger, now):
    open_ids = crm().deals["deal_id"][crm().deals["outcome"] == "open"]
    rows = ledger.rows(set(open_ids), now)
    for deal_id, expected in zip(rows.about.index[:10], rows.facts(), strict=False):
        assert row_by_value(ledger, DealByValue(deal_id), now) == (expected, now)


def test_a_deal_brought_whole_has_the_row_that_events_would_give_it(ledger, now, whose):
    created = now - timedelta(days=40)
    fields = {**whose, "created_at": created, "amount": 91_000.0, "competitor": "Altira", "complexity": 4.0}
    brought = DealByValue(
        "NEW",
        {**fields, "product_line": crm().deals["product_line"].iloc[0]},
        stage="proposal",
        stage_entered_at=now - timedelta(days=3),
        relationship={"since": now - timedelta(days=300), "executive_contact": True},
        stage_entries=[{"stage": "qualify", "entered_at": created}],
        involvements=[{"started_at": created + HOUR, "ended_at": created + 2 * HOUR, "kind": "technical"}],
    )
    row, _ = row_by_value(ledger, brought, now)
    content = {"deal": brought.deal, "relationship": {**brought.relationship, **whose}}
    told = [
        ("deal", created, content),
        ("stage", created, {"stage": "qualify"}),
        ("stage", now - timedelta(days=3), {"stage": "proposal"}),
        ("involvement", created + HOUR, {"started_at": created + HOUR, "ended_at": created + 2 * HOUR}),
    ]
    ledger.apply(
        Event(f"E{i}", kind, "NEW", at, at, now - HOUR, what) for i, (kind, at, what) in enumerate(told)
    )
    [expected] = ledger.rows(["NEW"], now).facts()
    unknown = {"uncoordinated", "uncoordinated_days"}  # who touched the customer, the caller cannot say
    assert {name: row[name] for name in unknown} == dict.fromkeys(unknown)
    assert {name: row[name] for name in row if name not in unknown} == {
        name: expected[name] for name in expected if name not in unknown
    }
    assert row["pair_deals_before"] > 0
    assert row["already_involved"] is True


def test_what_the_caller_brings_outweighs_what_is_known(ledger, now):
    deal_id = crm().deals["deal_id"][crm().deals["outcome"] == "open"].iloc[0]
    brought = DealByValue(deal_id, {"amount": 77.0}, stage="elsewhere", partner={"tier": "platinum"})
    row, _ = row_by_value(ledger, brought, now)
    assert (row["amount"], row["stage"], row["partner_tier"]) == (77.0, "elsewhere", "platinum")


def test_nothing_that_was_brought_is_kept_and_no_other_deal_sees_it(ledger, now, whose):
    deals = crm().deals
    other = deals["deal_id"][(deals["outcome"] == "open") & (deals["partner_id"] == whose["partner_id"])]
    before = ledger.rows(set(other), now).facts()
    row_by_value(ledger, DealByValue("NEW", {**whose, "amount": 5.0}, "qualify", partner={"tier": "x"}), now)
    assert ledger.standing("NEW") == "unknown"
    assert ledger.rows(set(other), now).facts() == before
    assert len(other)


MISSING = [
    (
        {},
        {"partner_id", "partner_deals_before", "partner_win_rate", "customer_wins_before", "pair_first_sale"}
        | {"stage", "days_open", "already_involved", "stage_moves", "uncoordinated"},
    ),
    ({"partner_id": "nobody knows"}, {"partner_win_rate", "pair_first_sale", "partner_deals_before"}),
    ({"customer_id": "nobody knows"}, {"customer_deals_before", "pair_wins_before"}),
]


@pytest.mark.parametrize(("fields", "missing"), MISSING)
def test_what_neither_side_knows_is_missing_and_never_none_so_far(ledger, now, fields, missing):
    row, _ = row_by_value(ledger, DealByValue("NEW", {"amount": 5.0, **fields}), now)
    assert {name for name in missing if row[name] is not None} == set()
    assert row["amount"] == 5.0


def test_a_caller_who_says_that_there_were_none_is_believed(ledger, now, whose):
    row, _ = row_by_value(
        ledger, DealByValue("NEW", whose, "qualify", stage_entries=[], involvements=[]), now
    )
    assert (row["already_involved"], row["vendor_involvements_before"], row["stage_moves"]) == (
        False,
        0.0,
        0.0,
    )


def test_an_earlier_as_of_knows_no_more_than_was_on_record_then(ledger, now, whose):
    then = crm().deals["created_at"].quantile(0.5).to_pydatetime()
    early, moment = row_by_value(ledger, DealByValue("NEW", whose, "qualify", as_of=then), now)
    late, _ = row_by_value(ledger, DealByValue("NEW", whose, "qualify"), now)
    assert moment == then
    deals = crm().deals
    earlier = (deals["partner_id"] == whose["partner_id"]) & (deals["created_at"] < pd.Timestamp(then))
    assert early["partner_deals_before"] == earlier.sum() < late["partner_deals_before"]


@pytest.mark.parametrize(
    ("brought", "sentence"),
    [
        (
            {"deal": {"currency": "USD", "amount": 1.0}},
            "deal: currency should be EUR, as in the tables; the amount was not taken: convert it.",
        ),
        ({"deal": {"complexity": "high"}}, "deals: a further column should be a number, as in the tables."),
    ],
)
def test_what_contradicts_what_is_known_is_refused(ledger, now, whose, brought, sentence):
    with pytest.raises(UserError) as refused:
        row_by_value(ledger, DealByValue("NEW", {**whose, **brought["deal"]}, "qualify"), now)
    assert str(refused.value) == sentence


def test_many_are_built_as_each_would_be_alone(ledger, now):
    deals = crm().deals
    rng = np.random.default_rng(0)
    asked = []
    for number in range(60):
        deal = deals.iloc[rng.integers(len(deals))]
        kept = [name for name in ("partner_id", "customer_id") if rng.random() < 0.8]
        fields = {**{name: deal[name] for name in kept}, "amount": float(rng.integers(1, 9)) * 1e4}
        if number % 10 == 7:
            fields["currency"] = "USD"
        deal_id = rng.choice([deal["deal_id"], f"N{number}", "twice"])
        as_of = now - timedelta(days=30) if number % 7 == 0 else None
        asked.append(DealByValue(deal_id, fields, rng.choice(["qualify", "proposal"]), as_of=as_of))
    together = rows_by_value(ledger, asked, now)
    alone = [rows_by_value(ledger, [each], now)[0] for each in asked]
    assert [str(each) for each in together] == [str(each) for each in alone]
    refused = [isinstance(each, UserError) for each in together]
    assert 0 < sum(refused) < 10

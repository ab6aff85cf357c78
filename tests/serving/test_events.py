"""Events and deals by value: what is read of them, and what is refused in which words."""

import re
import warnings
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.by_value import DealByValue, row_by_value
from features.events import KINDS
from features.live import Ledger
from features.problems import UserError
from features.tables import COLUMNS
from serving import crm_fields
from serving.deal_form import FIELDS, is_deal_form, read_deal_form
from serving.events import (
    ACTIVITY,
    COMMON,
    CONTENT,
    INVOLVEMENT,
    MOST_EVENTS,
    event_of,
    read_events,
    with_times,
)
from serving.form_bodies import MOST_FORMS
from serving.problems import InvalidRequest, NotJson, Problem

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DAY = "2025-05-31T10:00:00+02:00"
STAGE = {"event_id": "e", "kind": "stage", "deal_id": "D", "happened_at": DAY, "stage": "qualify"}
SECRET = "pelican"


def body(*events):
    return orjson.dumps({"events": list(events)})


def refusal(*events):
    with pytest.raises(InvalidRequest) as refused:
        read_events(body(*events), NOW)
    assert SECRET not in str(refused.value) + repr(refused.value.errors)
    return [(error.field, error.expected) for error in refused.value.errors]


def of_kind(kind, **content):
    return {"event_id": "e", "kind": kind, "deal_id": "D", "happened_at": DAY, **content}


def test_the_fields_are_the_columns_of_the_crm_tables():
    for name, table in (("deal", "deals"), ("partner", "partners"), ("customer", "customers")):
        columns = {column: rule.kind for column, rule in COLUMNS[table].items() if column != "deal_id"}
        assert crm_fields.TABLES[name] == columns
    pairs = {
        column: rule.kind for column, rule in COLUMNS["relationships"].items() if column != "recorded_at"
    }
    assert pairs == crm_fields.RELATIONSHIP
    assert COLUMNS["deals"]["outcome"].one_of == crm_fields.OUTCOMES


EVENTS = [
    STAGE,
    {**STAGE, "recorded_at": "2025-05-31T09:00:00Z"},
    of_kind(
        "deal",
        deal={
            "partner_id": "P",
            "customer_id": "C",
            "created_at": "2025-05-01",
            "amount": 12,
            "competitor": None,
            "as_of": "not a time, but the user's own",
            "is_public": True,
            "outcome": "won",
            "closed_at": DAY,
        },
        partner={"tier": "gold", "joined_at": "1999-01-01"},
        customer={"customer_id": "C", "since": "1987"},
        relationship={"since": "2020-01-01", "executive_contact": False},
    ),
    of_kind("involvement"),
    of_kind(
        "involvement", involvement={"involvement_id": "I", "ended_at": DAY, "kind": "technical", "hours": 3}
    ),
    of_kind("outcome", outcome="lost", closed_at="2025-05-30"),
    of_kind("outcome", outcome="open"),
    of_kind("activity", activity={"by": "vendor", "kind": "call"}),
]


def test_the_documentation_names_the_kinds_of_events_and_their_fields():
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    inner = {"involvement": INVOLVEMENT, "activity": ACTIVITY}
    told = {}
    for kind in KINDS:
        [fields] = re.findall(rf"^\| `{kind}` \|[^|]*\|(.*)\|$", page, re.M)
        told[kind] = set(re.findall(r"`(\w+)`", fields))
    assert told == {kind: {*CONTENT[kind], *inner.get(kind, ())} for kind in KINDS}
    [common] = re.findall(r"Each has (.*), and by its kind:", page)
    assert tuple(re.findall(r"`(\w+)`", common)) == COMMON
    assert f"Up to {MOST_FORMS} such deals go in one batch" in page


@pytest.mark.parametrize("sent", EVENTS, ids=lambda sent: sent["kind"])
def test_an_event_comes_out_of_the_database_as_it_came_in(sent):
    [told] = read_events(body(sent), NOW)
    event = told.event
    columns = {
        name: getattr(event, name) for name in ("event_id", "kind", "deal_id", "happened_at", "received_at")
    }
    assert event_of({**columns, "payload": told.payload}) == event


def test_times_are_read_in_utc_and_ids_of_the_deal_stand_for_those_of_its_parts():
    [told] = read_events(body(EVENTS[2]), NOW)
    event = told.event
    assert event.happened_at == datetime(2025, 5, 31, 8, tzinfo=UTC)
    assert event.recorded_at == event.received_at == NOW
    assert event.content["deal"]["closed_at"] == datetime(2025, 5, 31, 8, tzinfo=UTC)
    assert event.content["deal"]["amount"] == 12.0
    assert event.content["partner"]["partner_id"] == "P"
    assert event.content["relationship"]["customer_id"] == "C"


def test_the_same_content_in_another_order_is_the_same_payload():
    first = of_kind("deal", deal={"amount": 1, "currency": "EUR"})
    second = of_kind("deal", deal={"currency": "EUR", "amount": 1.0})
    assert read_events(body(first), NOW)[0].payload == read_events(body(second), NOW)[0].payload


def test_a_clock_a_little_ahead_is_forgiven():
    soon = (NOW + timedelta(minutes=4)).isoformat()
    [told] = read_events(body({**STAGE, "happened_at": soon}), NOW)
    assert told.event.happened_at == NOW
    later = (NOW + timedelta(minutes=6)).isoformat()
    assert refusal({**STAGE, "happened_at": later}) == [
        ("events/0/happened_at", "a time that is not in the future")
    ]


A_TEXT = "a text of 1 to 500 characters, or null where it is not known"
CASES = [
    ({**STAGE, "kind": SECRET}, "kind", "one of deal, stage, involvement, outcome, activity"),
    ({**STAGE, "deal_id": ""}, "deal_id", "a text of 1 to 200 characters without control characters"),
    ({**STAGE, "event_id": None}, "event_id", "a text of 1 to 200 characters without control characters"),
    ({**STAGE, "happened_at": SECRET}, "happened_at", crm_fields.A_TIME),
    ({**STAGE, "happened_at": "1900-01-01"}, "happened_at", crm_fields.NOT_BLANK),
    ({**STAGE, "recorded_at": 3}, "recorded_at", crm_fields.A_TIME),
    ({**STAGE, "stage": ""}, "stage", "a text of 1 to 500 characters"),
    ({**STAGE, "stage": None}, "stage", "a text of 1 to 500 characters"),
    (
        {**STAGE, "outcome": "won"},
        "outcome",
        "no such field: the fields are event_id, kind, deal_id, happened_at, recorded_at, stage",
    ),
    (of_kind("deal"), "", "at least one of deal, partner, customer, relationship"),
    (of_kind("deal", deal=SECRET), "deal", "an object: fields of the deal and their values"),
    (of_kind("deal", deal={"amount": SECRET}), "deal/amount", crm_fields.A_NUMBER),
    (of_kind("deal", deal={"amount": -1}), "deal/amount", crm_fields.A_NUMBER),
    (of_kind("deal", deal={"amount": True}), "deal/amount", crm_fields.A_NUMBER),
    (of_kind("deal", deal={"deal_type": 3}), "deal/deal_type", A_TEXT),
    (of_kind("deal", deal={"own": [SECRET]}), "deal/own", crm_fields.A_VALUE),
    (of_kind("deal", deal={"outcome": SECRET}), "deal/outcome", "one of won, lost, open"),
    (of_kind("deal", deal={"closed_at": DAY}), "deal/closed_at", "nothing, unless outcome is won or lost"),
    (
        of_kind("deal", partner={"partner_id": "P", "win_rate": 1}),
        "partner/win_rate",
        "another name: with this one it would hide a feature of the same name",
    ),
    (of_kind("deal", partner={"tier": "gold"}), "partner/partner_id", "an id, here or in deal"),
    (of_kind("deal", deal={str(i): 1 for i in range(201)}), "deal", "at most 200 fields"),
    (of_kind("outcome"), "outcome", "one of won, lost, open"),
    (
        of_kind("outcome", outcome="open", closed_at=DAY),
        "closed_at",
        "nothing, unless outcome is won or lost",
    ),
    (of_kind("activity"), "activity", "an object with by and kind"),
    (of_kind("activity", activity={"by": SECRET}), "activity/by", "one of vendor, partner"),
    (
        of_kind("involvement", involvement={"who": SECRET}),
        "involvement/who",
        "no such field: the fields are involvement_id, started_at, ended_at, kind, hours",
    ),
]


@pytest.mark.parametrize(
    ("sent", "field", "expected"), CASES, ids=lambda case: case if isinstance(case, str) else ""
)
def test_an_event_that_cannot_be_is_refused_by_field_and_never_repeated(sent, field, expected):
    assert refusal(STAGE, sent) == [(f"events/1/{field}".rstrip("/"), expected)]


@pytest.mark.parametrize("content", [b"[]", b'{"events": []}', b'{"events": 3}', b'{"events": null}'])
def test_a_body_without_events_is_refused(content):
    with pytest.raises(InvalidRequest) as refused:
        read_events(content, NOW)
    assert refused.value.errors[0].expected == "a list of 1 to 1,000 events"


def test_too_many_events_are_refused():
    with pytest.raises(InvalidRequest):
        read_events(body(*[STAGE] * (MOST_EVENTS + 1)), NOW)
    assert len(read_events(body(*[STAGE] * MOST_EVENTS), NOW)) == MOST_EVENTS


# Deals by value

FORM = {
    "deal_id": "D",
    "deal": {"amount": 3, "partner_id": "P"},
    "stage": "qualify",
    "stage_entered_at": DAY,
    "partner": {"tier": "gold"},
    "customer": {"customer_id": "C"},
    "relationship": {"executive_contact": True},
    "stage_entries": [{"stage": "lead", "entered_at": "2025-05-01"}],
    "involvements": [{"started_at": "2025-05-02", "hours": 2}],
    "as_of": DAY,
}


def test_a_deal_by_value_is_read_whole():
    form = read_deal_form(FORM, NOW)
    assert set(form) == set(FIELDS)
    assert form["deal"] == {"amount": 3.0, "partner_id": "P", "customer_id": "C"}
    assert form["stage_entries"] == [{"stage": "lead", "entered_at": "2025-05-01T00:00:00+00:00"}]
    assert orjson.loads(orjson.dumps(form)) == form
    assert is_deal_form(FORM)
    assert not is_deal_form({"deal_id": "D", "features": {}})


FORM_CASES = [
    ({"deal": None}, "deal", "an object: fields of the deal and their values"),
    ({"deal": {"outcome": "won"}}, "deal/outcome", "open, or nothing: advice is for open deals"),
    ({"deal": {"closed_at": DAY}}, "deal/closed_at", "nothing: advice is for open deals"),
    ({"partner": {"partner_id": SECRET}}, "partner/partner_id", "the same id as deal/partner_id, or nothing"),
    ({"stage_entries": SECRET}, "stage_entries", "a list of at most 1,000 objects"),
    ({"stage_entries": [{"stage": "lead"}]}, "stage_entries/0/entered_at", "a time that has come"),
    ({"involvements": [{}]}, "involvements/0/started_at", "a time that has come"),
    ({"as_of": "2999-01-01"}, "as_of", "a time that is not in the future"),
    ({"features": {}}, "features", f"no such field: the fields are {', '.join(FIELDS)}"),
]


@pytest.mark.parametrize(("change", "field", "expected"), FORM_CASES)
def test_a_deal_by_value_that_cannot_be_is_refused_by_field(change, field, expected):
    with pytest.raises(InvalidRequest) as refused:
        read_deal_form({**FORM, **change}, NOW, ("deals", 2))
    assert SECRET not in str(refused.value)
    assert [(error.field, error.expected) for error in refused.value.errors] == [
        (f"deals/2/{field}", expected)
    ]


# Anything at all

NAMES = st.sampled_from(
    [*COMMON, *FIELDS, *INVOLVEMENT, *ACTIVITY, "outcome", "closed_at", "customer", "x", "\ud800"]
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([DAY, "0001-01-01", "9999-12-31T23:59:59-14:00", "won", "vendor", *KINDS, "", "\x00"]),
    st.text(max_size=5),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=12,
)


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(content=ANYTHING, kind=st.sampled_from(KINDS), data=st.data())
def test_whatever_comes_is_read_or_refused_in_words(content, kind, data):
    parts = {name: data.draw(ANYTHING) for name in CONTENT[kind]}
    for sent in (content, of_kind(kind, **parts)):
        try:
            raw = orjson.dumps({"events": [sent]})
        except TypeError:  # half a surrogate pair
            continue
        try:
            [told] = read_events(raw, NOW)
        except Problem:
            continue
        columns = ("event_id", "kind", "deal_id", "happened_at", "received_at")
        row = {name: getattr(told.event, name) for name in columns}
        assert event_of({**row, "payload": told.payload}) == told.event


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(content=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=9))
def test_whatever_a_deal_by_value_holds_is_read_or_refused_in_words(content):
    try:
        form = read_deal_form({"deal_id": "D", "deal": {}, **content}, NOW)
    except Problem:
        return
    assert form["deal_id"]


def test_a_body_that_is_no_json_is_refused():
    with pytest.raises(NotJson):
        read_events(b"{", NOW)


# What is accepted can be used

NUMBERS = st.floats(-1e308, 1e308) | st.integers(-(2**60), 2**60)
OWN = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=4), st.just(DAY))
OWN_NAMES = st.sampled_from(["grade", "x", "deal", "amount_usd", " ", "ß", "id2", "stage", "hours"])
IDS = st.sampled_from(["A", "B", "a b", "ß"])
TIMES = st.sampled_from(["1970-01-02", "2024-02-29T23:59:59.999999+14:00", DAY, NOW.isoformat()])
DEALS = st.fixed_dictionaries(
    {},
    optional={
        "partner_id": IDS,
        "customer_id": IDS,
        "created_at": TIMES,
        "amount": st.floats(0, 1e308),
        "currency": st.sampled_from(["EUR", "USD"]),
        "product_line": st.text(min_size=1, max_size=4),
        "competitor": st.none() | st.text(min_size=1, max_size=4),
    },
)
OF_KIND = {
    "deal": st.fixed_dictionaries(
        {
            "deal": st.builds(
                lambda deal, own: {**own, **deal}, DEALS, st.dictionaries(OWN_NAMES, OWN, max_size=3)
            )
        },
        optional={
            "partner": st.builds(
                lambda own, an_id: {**own, "partner_id": an_id, "employees": 1e300},
                st.dictionaries(OWN_NAMES, OWN, max_size=2),
                IDS,
            ),
            "relationship": st.fixed_dictionaries(
                {"partner_id": IDS, "customer_id": IDS},
                optional={"since": TIMES, "executive_contact": st.booleans()},
            ),
        },
    ),
    "stage": st.fixed_dictionaries({"stage": st.text(min_size=1, max_size=4)}),
    "involvement": st.fixed_dictionaries(
        {},
        optional={
            "involvement": st.fixed_dictionaries(
                {},
                optional={
                    "involvement_id": IDS,
                    "started_at": TIMES,
                    "ended_at": TIMES,
                    "hours": st.floats(0, 9),
                },
            )
        },
    ),
    "outcome": st.fixed_dictionaries({"outcome": st.sampled_from(crm_fields.OUTCOMES)}),
    "activity": st.fixed_dictionaries({"activity": st.fixed_dictionaries({"by": st.just("vendor")})}),
}


@st.composite
def several(draw):
    found = []
    for number in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(KINDS))
        common = {"event_id": f"E{number}", "deal_id": draw(IDS), "happened_at": draw(TIMES)}
        found.append({**common, "kind": kind, **draw(OF_KIND[kind])})
    return found


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(sent=several())
def test_no_event_that_was_accepted_can_stop_the_builder(sent):
    """It would come again after each restart."""
    ledger = Ledger()
    columns = ("event_id", "kind", "deal_id", "happened_at", "received_at")
    for told in read_events(body(*sent), NOW):
        row = {name: getattr(told.event, name) for name in columns}
        ledger.apply([event_of({**row, "payload": told.payload})])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # amounts near the end of all floats add up to infinity
        facts = ledger.rows(None, NOW + timedelta(days=1)).facts()
        form = {"deal_id": "A", "deal": sent[0].get("deal") or {}}
        with suppress(UserError):  # another currency, or another kind, than the events told
            row_by_value(
                ledger, DealByValue(**with_times(read_deal_form(form, NOW))), NOW + timedelta(days=1)
            )
    for row in facts:
        assert set(orjson.loads(orjson.dumps(row))) == set(row)

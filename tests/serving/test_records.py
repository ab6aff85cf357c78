import json
from datetime import UTC, datetime

import pytest

from serving.problems import InvalidRequest, NotJson
from serving.records import read_outcome, read_override

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def outcome(**fields):
    return read_outcome(json.dumps({"deal_id": "D-1", "outcome": "won", **fields}).encode(), NOW)


def override(**fields):
    content = {"deal_id": "D-1", "decided": "step_back", "reason": "The partner asked us to wait.", **fields}
    return read_override(json.dumps(content).encode())


def refused(read, *arguments, **fields):
    with pytest.raises(InvalidRequest) as found:
        read(*arguments, **fields)
    return [(error.field, error.expected) for error in found.value.errors]


def test_a_closing_is_read_as_its_moment_in_utc():
    read = outcome(closed_at="2026-02-27T18:00:00+02:00", outcome_id="crm-7")
    assert read == {
        "deal_id": "D-1",
        "outcome": "won",
        "closed_at": datetime(2026, 2, 27, 16, tzinfo=UTC),
        "outcome_id": "crm-7",
    }


def test_what_is_left_out_is_not_made_up():
    assert outcome(closed_at=None, outcome_id=None) == {"deal_id": "D-1", "outcome": "won", "closed_at": None}
    assert override() == {
        "deal_id": "D-1",
        "decided": "step_back",
        "reason": "The partner asked us to wait.",
    }


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"outcome": "Won"}, "outcome"),
        ({"outcome": None}, "outcome"),
        ({"outcome": ["won"]}, "outcome"),
        ({"deal_id": ""}, "deal_id"),
        ({"deal_id": 7}, "deal_id"),
        ({"deal_id": "a\nb"}, "deal_id"),
        ({"outcome_id": ""}, "outcome_id"),
        ({"closed_at": "yesterday"}, "closed_at"),
        ({"closed_at": 1767225600}, "closed_at"),
        ({"closed_at": "2026-03-02"}, "closed_at"),
        ({"outcome": "open", "closed_at": "2026-02-01"}, "closed_at"),
        ({"amount": 5}, "amount"),
    ],
)
def test_a_wrong_outcome_is_refused_by_its_field(fields, field):
    assert [name for name, _ in refused(outcome, **fields)] == [field]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"decided": "wait"}, "decided"),
        ({"reason": " "}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": "x" * 2001}, "reason"),
        ({"reason": "a\x00b"}, "reason"),
        ({"recommendation_id": 3}, "recommendation_id"),
        ({"override_id": "x" * 201}, "override_id"),
        ({"why": "because"}, "why"),
    ],
)
def test_a_wrong_override_is_refused_by_its_field(fields, field):
    assert [name for name, _ in refused(override, **fields)] == [field]


def test_everything_to_mend_is_named_at_once():
    fields = [name for name, _ in refused(override, decided="?", reason="", note=1)]
    assert sorted(fields) == ["decided", "note", "reason"]


@pytest.mark.parametrize("body", [b"[]", b'"won"', b"3"])
def test_another_kind_of_json_is_told_what_belongs_there(body):
    assert refused(read_outcome, body, NOW) == [("", "an object with deal_id and outcome")]


@pytest.mark.parametrize("body", [b"", b"{", b'{"deal_id": NaN}', b"\xff"])
def test_what_is_no_json_is_refused(body):
    with pytest.raises(NotJson):
        read_override(body)

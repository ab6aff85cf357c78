"""Who could be stepped in on, when, who was, and what came of it."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from features import catalog
from features.build import build_features
from features.decisions import DecisionTable, build_decisions, open_decisions
from features.moments import open_deals
from features.problems import UserError
from features.schema import check

ENTERED = pd.Timestamp("2023-06-01", tz="UTC")
SECOND = 1 / 86_400


def day(days):
    return ENTERED + pd.Timedelta(days=days)


@pytest.fixture(scope="module")
def world(make_tables):
    """A CRM exported long after everything, so that only the case at hand can be too young."""
    return replace(make_tables(1), exported_at=day(1000))


def with_case(world, *, closed=None, outcome="open", stays=(), entries=((0, "qualify"),)):
    """One more deal, CASE, with everything in days after its first stage entry."""
    deal = pd.DataFrame(
        {
            "deal_id": ["CASE"],
            "partner_id": ["P1"],
            "customer_id": ["C1"],
            "created_at": [day(-5)],
            "outcome": [outcome],
            "closed_at": [pd.NaT if closed is None else day(closed)],
        }
    )
    stage_entries = pd.DataFrame(
        [{"deal_id": "CASE", "stage": stage, "entered_at": day(entered)} for entered, stage in entries]
    )
    involvements = pd.DataFrame(
        [
            {"deal_id": "CASE", "started_at": day(start), "ended_at": pd.NaT if end is None else day(end)}
            for start, end in stays
        ],
        columns=["deal_id", "started_at", "ended_at"],
    )
    more = {"deals": deal, "stage_entries": stage_entries, "involvements": involvements}
    joined = {
        name: pd.concat([getattr(world, name).astype(object), table.astype(object)], ignore_index=True)
        for name, table in more.items()
    }
    return check(replace(world, **joined))


OUTCOMES = {
    "won in time": ({"closed": 100, "outcome": "won"}, 1),
    "won on the last day": ({"closed": 180, "outcome": "won"}, 1),
    "won too late": ({"closed": 180 + SECOND, "outcome": "won"}, 0),
    "lost": ({"closed": 100, "outcome": "lost"}, 0),
    "still open": ({}, 0),
}


@pytest.mark.parametrize(("case", "outcome"), OUTCOMES.values(), ids=OUTCOMES)
def test_a_deal_is_won_if_it_closes_won_within_the_horizon(world, case, outcome):
    assert build_decisions(with_case(world, **case)).rows.loc["CASE:qualify", "outcome"] == outcome


CHOICES = {
    "nobody ever": ([], False),
    "came within the window": ([(3, 5)], True),
    "came at the entry": ([(0, 5)], True),
    "came on the window's last second": ([(14 - SECOND, 20)], True),
    "came when the window was over": ([(14, 20)], False),
    "came long after": ([(60, 80)], False),
    "had left before": ([(-4, -1)], False),
    "left at the entry": ([(-4, 0)], False),
    "was there and stayed on": ([(-4, 2)], True),
    "was there and never left": ([(-4, None)], True),
    "came and went at one instant": ([(3, 3)], True),
    "one left, another came": ([(-4, -1), (3, None)], True),
    "one left, another came too late": ([(-4, -1), (30, None)], False),
}


@pytest.mark.parametrize(("stays", "stepped_in"), CHOICES.values(), ids=CHOICES)
def test_stepped_in_means_active_within_the_window(world, stays, stepped_in):
    rows = build_decisions(with_case(world, stays=stays)).rows
    assert rows.loc["CASE:qualify", "stepped_in"] == stepped_in


def test_when_it_was_typed_in_does_not_change_who_stepped_in(world):
    tables = with_case(world, stays=[(3, 5)])
    late = tables.involvements.assign(recorded_at=day(500))
    assert build_decisions(replace(tables, involvements=late)).rows.loc["CASE:qualify", "stepped_in"]


LEFT_OUT = {
    "closed before": ({"closed": -1, "outcome": "lost"}, "entered after the deal closed"),
    "closed at the entry": ({"closed": 0, "outcome": "won"}, "entered after the deal closed"),
    "lost in the window": ({"closed": 7, "outcome": "lost"}, "closed within the window"),
    "won at the window's end": ({"closed": 14, "outcome": "won"}, "closed within the window"),
}


@pytest.mark.parametrize(("case", "reason"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_cannot_be_decided_is_left_out_and_counted(world, case, reason):
    without = {step.what: step.n for step in build_decisions(world).flow}
    table = build_decisions(with_case(world, **case))
    counted = {step.what: step.n for step in table.flow}
    assert "CASE:qualify" not in table.rows.index
    assert counted == without | {"stage entries": without["stage entries"] + 1, reason: without[reason] + 1}


def test_a_deal_open_a_second_past_the_window_counts(world):
    table = build_decisions(with_case(world, closed=14 + SECOND, outcome="lost"))
    assert "CASE:qualify" in table.rows.index


@pytest.mark.parametrize("outcome", [{}, {"closed": 60, "outcome": "won"}, {"closed": 60, "outcome": "lost"}])
@pytest.mark.parametrize(("age", "is_in"), [(180, True), (180 - SECOND, False)])
def test_young_decisions_are_left_out_whatever_came_of_them(world, outcome, age, is_in):
    tables = with_case(world, **outcome)
    # Nothing else in the tables is needed to be older: only the case is looked at.
    young = replace(tables, exported_at=day(age))
    assert ("CASE:qualify" in build_decisions(young).rows.index) == is_in


def test_entering_a_stage_again_is_a_decision_of_its_own(world):
    entries = [(0, "qualify"), (20, "proposal"), (40, "qualify"), (60, "qualify")]
    rows = build_decisions(with_case(world, entries=entries)).rows
    mine = rows[rows["deal_id"] == "CASE"]
    assert mine.index.tolist() == ["CASE:qualify", "CASE:proposal", "CASE:qualify:2", "CASE:qualify:3"]
    assert mine["decided_at"].tolist() == [day(0), day(20), day(40), day(60)]


def test_a_deal_already_joined_stays_in_and_is_known_as_such(world):
    entries, stays = [(0, "qualify"), (30, "proposal")], [(3, 40)]
    table = build_decisions(with_case(world, entries=entries, stays=stays))
    joined = table.features.loc[["CASE:qualify", "CASE:proposal"], ["already_involved", "vendor_active_now"]]
    assert joined.to_numpy().tolist() == [[False, False], [True, True]]
    assert table.rows.loc["CASE:proposal", "stepped_in"]


def test_other_windows_and_horizons_are_honoured(world):
    tables = with_case(world, stays=[(20, 30)], closed=100, outcome="won")
    rows = build_decisions(tables, grace_days=30, horizon_days=90).rows
    assert rows.loc["CASE:qualify", ["stepped_in", "outcome"]].tolist() == [True, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_the_counts_add_up_to_the_number_of_stage_entries(make_tables, seed):
    tables = make_tables(seed)
    table = build_decisions(tables)
    total, *left_out, kept = table.flow
    assert total.n == len(tables.stage_entries) == sum(step.n for step in left_out) + kept.n
    assert kept.n == len(table)
    assert left_out[1].n > 0
    assert left_out[2].n > 0


def test_the_features_are_those_at_the_entry(make_tables):
    tables = make_tables(2)
    table = build_decisions(tables)
    moments = table.rows[["deal_id", "stage"]].assign(
        entered_at=table.rows["decided_at"], moment=table.rows["decided_at"]
    )
    assert_frame_equal(table.features, build_features(tables, moments)[table.features.columns])


def test_row_order_does_not_matter(make_tables, shuffle):
    tables = make_tables(2)
    table, other = build_decisions(tables), build_decisions(shuffle(tables, np.random.default_rng(0)))
    assert_frame_equal(other.rows, table.rows)
    assert_frame_equal(other.features, table.features)
    assert other.digest() == table.digest()


def test_columns_that_say_nothing_are_left_out_and_named(make_tables):
    tables = make_tables(2)
    deals = tables.deals.assign(
        competitor=pd.Series(index=tables.deals.index, dtype="str"), lead_source="web"
    )
    table = build_decisions(replace(tables, deals=deals))
    assert table.about["left_out_columns"] == [
        {"column": "days_in_stage", "why": "the same everywhere"},
        {"column": "lead_source", "why": "the same everywhere"},
        {"column": "competitor", "why": "all missing"},
        {"column": "uncoordinated_days", "why": "all missing"},
        {"column": "uncoordinated", "why": "all missing"},
    ]
    assert not {"lead_source", "competitor"} & set(table.features.columns)


def test_the_table_says_where_it_comes_from(make_tables):
    about = build_decisions(make_tables(2)).about
    assert about["stage_order"] == ["qualify", "solution", "proposal", "negotiation"]
    facts = {"kind", "outcome", "outcome_unit", "currency", "amount_feature", "grace_days", "horizon_days"}
    assert {name: about[name] for name in facts} == {
        "kind": "crm",
        "outcome": "binary",
        "outcome_unit": "share",
        "currency": "EUR",
        "amount_feature": "amount",
        "grace_days": 14,
        "horizon_days": 180,
    }
    assert about["question"] == (
        "By how much does it change the chance that the deal is won within 180 days if vendor "
        "people are active "
        "on it within 14 days of its entry into the stage, against their waiting, with later choices left to "
        "nature?"
    )


def three_partners(tables):
    few = tables.deals["partner_id"].isin(["P1", "P2", "P3"])
    deals = tables.deals[few]
    kept = {
        name: getattr(tables, name)[getattr(tables, name)["deal_id"].isin(deals["deal_id"])]
        for name in ("stage_entries", "involvements")
    }
    return replace(tables, deals=deals, **kept)


def everybody_helped(tables):
    deals = tables.deals
    return replace(
        tables,
        involvements=deals[["deal_id"]].assign(
            started_at=deals["created_at"], ended_at=tables.exported_at, recorded_at=deals["created_at"]
        ),
    )


REFUSALS = {
    "3 partners only": (
        three_partners,
        "The decisions come from 3 partners; at least 10 are needed to tell an effect from a "
        "partner's habits.",
    ),
    "nobody stepped in": (
        lambda tables: replace(tables, involvements=tables.involvements[:0]),
        "None of the {n} decisions stepped in; both kinds are needed to compare.",
    ),
    "everybody stepped in": (
        everybody_helped,
        "All of the {n} decisions stepped in; both kinds are needed to compare.",
    ),
    "nothing won": (
        lambda tables: replace(tables, deals=tables.deals.replace({"outcome": {"won": "lost"}})),
        "None of the {n} decisions won within the horizon; both kinds are needed to compare.",
    ),
    "all too young": (
        lambda tables: replace(tables, exported_at=pd.Timestamp("2023-01-02", tz="UTC")),
        "No decision is left of 477 stage entries: 73 entered after the deal closed, 35 closed within the "
        "window, 369 too young. Bring deals that began earlier, or shorten the window (grace_days) or the "
        "horizon (horizon_days).",
    ),
    "no stage on record": (
        lambda tables: replace(tables, stage_entries=tables.stage_entries[:0]),
        "There is no decision: the tables hold no stage entries of deals.",
    ),
}


@pytest.mark.parametrize(("change", "message"), REFUSALS.values(), ids=REFUSALS)
def test_decisions_that_cannot_be_compared_are_refused(make_tables, change, message):
    tables = make_tables(2)
    n = len(build_decisions(tables))
    with pytest.raises(UserError) as refusal:
        build_decisions(change(tables))
    assert str(refusal.value) == message.format(n=n)


@pytest.mark.parametrize(("grace_days", "horizon_days"), [(0, 180), (-1, 180), (30, 30)])
def test_a_window_that_outlasts_the_horizon_is_refused(make_tables, grace_days, horizon_days):
    with pytest.raises(UserError) as refusal:
        build_decisions(make_tables(2), grace_days, horizon_days)
    assert str(refusal.value) == (
        f"grace_days is {grace_days} and horizon_days {horizon_days}; "
        "the window should be longer than 0 days and end before the horizon."
    )


def test_open_deals_are_asked_about_with_what_is_known_at_the_export(make_tables):
    tables = make_tables(2)
    table, moments = open_decisions(tables), open_deals(tables)
    assert table.rows.index.tolist() == (moments["deal_id"] + ":" + moments["stage"]).tolist()
    assert table.rows["decided_at"].tolist() == moments["entered_at"].tolist()
    assert table.rows["outcome"].isna().all()
    assert not table.treatment.any()
    assert list(table.features.columns)[: len(catalog.names())] == catalog.names()
    expected = build_features(tables, moments).set_axis(table.rows.index)
    assert_frame_equal(table.features, expected)


# With hindsight, and never a feature


LATER = {
    "nobody ever": ([], None),
    "came when the window was over": ([(14, 20)], 14),
    "came later, twice": ([(60, 80), (30, 31)], 30),
    "came within the window: it stepped in": ([(3, 5), (60, 80)], None),
    "came before, and again later": ([(-4, -1), (60, 80)], 60),
    "came when the deal had closed": ([(120, 130)], None),
}


@pytest.mark.parametrize(("stays", "days"), LATER.values(), ids=LATER)
def test_when_the_vendor_came_later_is_on_record_for_decisions_to_step_back(world, stays, days):
    rows = build_decisions(with_case(world, closed=100, outcome="lost", stays=stays)).rows
    came = rows.loc["CASE:qualify", "joined_later_at"]
    assert pd.isna(came) if days is None else came == day(days)
    assert rows.loc["CASE:qualify", "closed_at"] == day(100)


def test_what_is_known_with_hindsight_is_no_feature_and_survives_the_file(world, tmp_path):
    table = build_decisions(world)
    assert {"closed_at", "joined_later_at"} & set(table.X.columns) == set()
    table.write(tmp_path / "decisions.parquet")
    again = DecisionTable.read(tmp_path / "decisions.parquet")
    assert_frame_equal(again.rows, table.rows)
    assert table.rows["joined_later_at"].notna().any()


def test_the_simplest_comparison_is_counted_over_all_closed_deals(world):
    counts = np.array(build_decisions(world).about["ever_against_never"]["partners"])
    deals = world.deals[world.deals["outcome"] != "open"]
    joined = deals["deal_id"].isin(world.involvements["deal_id"])
    won = deals["outcome"] == "won"
    by_hand = [joined.sum(), (joined & won).sum(), (~joined).sum(), (~joined & won).sum()]
    assert counts.sum(axis=0).tolist() == by_hand
    assert counts.shape == (deals["partner_id"].nunique(), 4)


def test_the_flow_counts_deals_beside_moments(world):
    flow = {step.what: step for step in build_decisions(world).flow}
    assert flow["stage entries"].deals == world.stage_entries["deal_id"].nunique()
    rows = build_decisions(world).rows
    assert (flow["decisions"].n, flow["decisions"].deals) == (len(rows), rows["deal_id"].nunique())

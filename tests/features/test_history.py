"""What a deal's columns held at the moment, rather than in the end."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from features.build import build_features
from features.decisions import build_decisions
from features.schema import check

DAY = pd.Timedelta(days=1)


def with_changes(tables, clock, *changes):
    """The tables with changes: (deal, column, value, days after its creation, days until it was typed in)."""
    created = tables.deals.set_index("deal_id")["created_at"]
    rows = [
        (deal, column, value, created[deal] + days * DAY, created[deal] + (days + late) * DAY)
        for deal, column, value, days, late in changes
    ]
    names = ["deal_id", "column", "value", "changed_at", "recorded_at"]
    return check(replace(tables, deal_changes=pd.DataFrame(rows, columns=names)), clock)


@pytest.fixture
def at(make_tables, the_clock):
    """``at(changes, days)``: a row of features of D0 for each of some days after its creation."""

    def features(changes, days):
        tables = with_changes(make_tables(1), the_clock, *changes)
        deal = tables.deals.set_index("deal_id").loc["D0"]
        moment = deal["created_at"] + pd.Series(days) * DAY
        asked = pd.DataFrame(
            {"deal_id": "D0", "stage": "qualify", "entered_at": deal["created_at"], "moment": moment}
        )
        return build_features(tables, asked)

    return features


def test_the_amount_is_the_last_one_recorded_before_the_moment(at):
    changes = [("D0", "amount", "100", 0, 0), ("D0", "amount", "900", 10, 0), ("D0", "amount", "", 20, 5)]
    amounts = at(changes, [0, 1, 10, 10.5, 24, 25, 26])["amount"]
    assert amounts.tolist()[:5] == [100, 100, 100, 900, 900]
    assert amounts[5] == 900  # recorded at this very moment: not before it
    assert np.isnan(amounts[6])  # blanked


def test_before_the_first_change_on_record_nobody_knows(at):
    assert at([("D0", "amount", "900", 10, 0)], [5, 11])["amount"].isna().tolist() == [True, False]


def test_a_change_typed_in_after_a_later_one_does_not_bring_the_old_value_back(at):
    changes = [
        ("D0", "amount", "100", 0, 0),
        ("D0", "amount", "500", 5, 15),
        ("D0", "amount", "900", 10, 0),
    ]
    assert at(changes, [7, 12, 30])["amount"].tolist() == [100, 900, 900]


def test_texts_and_own_columns_are_taken_as_of_the_moment_too(at):
    changes = [
        ("D0", "competitor", "Altira", 0, 0),
        ("D0", "competitor", "Cobalt", 10, 0),
        ("D0", "complexity", "1", 0, 0),
        ("D0", "complexity", "5", 10, 0),
    ]
    features = at(changes, [5, 15])
    assert features["competitor"].tolist() == ["Altira", "Cobalt"]
    assert features["deal_complexity"].tolist() == [1, 5]


def test_a_deal_without_changes_held_its_value_all_along(make_tables, moments_of, the_clock):
    tables = make_tables(1)
    moments = moments_of(tables)
    changed = with_changes(tables, the_clock, ("D0", "amount", "100", 0, 0))
    others = moments["deal_id"] != "D0"
    before, after = (build_features(each, moments)["amount"][others] for each in (tables, changed))
    pd.testing.assert_series_equal(before, after)


def test_what_a_partner_usually_sells_counts_amounts_as_known_then(make_tables, moments_of, the_clock):
    """By a plain loop over the other deals of the partner."""
    tables = make_tables(3)
    deals = tables.deals
    rng = np.random.default_rng(0)
    changes = []
    for deal in rng.choice(deals["deal_id"], 60, replace=False):
        days = np.sort(rng.choice(np.arange(1, 90), 3, replace=False))
        late = rng.integers(0, 60, 3)
        values = [str(value) if value > 20 else "" for value in rng.integers(1, 200, 4)]
        changes.append((deal, "amount", values[0], 0, 0))
        changes += [(deal, "amount", *each) for each in zip(values[1:], days.tolist(), late, strict=True)]
    tables = with_changes(tables, the_clock, *changes)
    moments = moments_of(tables)
    features = build_features(tables, moments)
    log = tables.deal_changes.assign(known=tables.deal_changes[["changed_at", "recorded_at"]].max(axis=1))
    log["number"] = pd.to_numeric(log["value"])

    def amount_then(deal, moment):
        own = log[log["deal_id"] == deal.deal_id]
        if own.empty:
            return deal.amount
        seen = own[(own["known"] < moment) | (own["known"] <= deal.created_at)].sort_values("changed_at")
        return seen["number"].iloc[-1] if len(seen) else np.nan

    partner = deals.set_index("deal_id")["partner_id"]
    for (_, asked), usual, amount in zip(
        moments.iloc[:150].iterrows(), features["amount_to_partner_usual"], features["amount"], strict=False
    ):
        others = deals[
            (deals["partner_id"] == partner[asked["deal_id"]])
            & (deals["deal_id"] != asked["deal_id"])
            & (deals["created_at"] < asked["moment"])
        ]
        known = [amount_then(deal, asked["moment"]) for deal in others.itertuples()]
        mean = np.nanmean(known) if np.isfinite(known).any() else np.nan
        np.testing.assert_allclose(usual, amount / mean, rtol=1e-9)


def test_later_changes_of_any_deal_change_nothing(make_tables, the_clock):
    tables = make_tables(4)
    cut = pd.Timestamp("2023-09-01", tz="UTC")
    deals = tables.deals["deal_id"]
    early = [(deal, "amount", "500", 0, 0) for deal in deals]
    whole = with_changes(tables, the_clock, *early, *((deal, "amount", "9", 300, 0) for deal in deals))
    known = whole.deal_changes[["changed_at", "recorded_at"]].max(axis=1)
    kept = replace(whole, deal_changes=whole.deal_changes[(known < cut)])
    entries = tables.stage_entries
    asked = entries[entries["entered_at"] < cut].assign(moment=lambda rows: rows["entered_at"])
    assert len(asked) > 100
    assert_frame_equal(build_features(whole, asked), build_features(kept, asked))


def test_the_decision_is_about_the_amount_known_then_and_says_what_has_no_history(make_tables, the_clock):
    tables = make_tables(1)
    changes = [(deal, "amount", "700", 0, 0) for deal in tables.deals["deal_id"]]
    without, with_history = (
        build_decisions(tables),
        build_decisions(with_changes(tables, the_clock, *changes)),
    )
    assert (with_history.rows["amount"] == 700).all()
    final = {line["column"] for line in without.about["final_values"]}
    assert {"amount", "competitor", "deal_complexity", "partner_type", "partner_segment"} <= final
    assert {"customer_annual_revenue", "customer_is_public"} <= final
    assert {"partner_id", "stage", "days_open", "pair_first_sale"} & final == set()
    now_final = {line["column"] for line in with_history.about["final_values"]}
    assert "amount" not in now_final

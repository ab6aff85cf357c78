"""When it is asked: at stage entries, every so many days, and now."""

from dataclasses import replace

import pandas as pd
import pytest

from features.decisions import build_decisions
from features.moments import every_days
from features.problems import UserError
from features.stages import stage_order
from features.target_trial import TargetTrial


def slowly(tables, days):
    """The same moments by plain loops over deals, days and entries."""
    entries = tables.stage_entries
    order = {stage: i for i, stage in enumerate(stage_order(entries))}
    known = entries[["entered_at", "recorded_at"]].max(axis=1)
    found = []
    for deal in tables.deals.itertuples():
        end = tables.now if pd.isna(deal.closed_at) else deal.closed_at
        moment, age = deal.created_at + pd.Timedelta(days=days), days
        while moment <= end:
            seen = entries[(entries["deal_id"] == deal.deal_id) & (known < moment)]
            if len(seen):
                last = max(seen.itertuples(), key=lambda entry: (entry.entered_at, order[entry.stage]))
                found.append((f"{deal.deal_id}:day{age}", last.stage, last.entered_at, moment))
            moment, age = moment + pd.Timedelta(days=days), age + days
    return {decision: rest for decision, *rest in found}


@pytest.mark.parametrize(("seed", "days"), [(1, 7), (2, 30), (3, 45)])
def test_regular_moments_are_what_plain_loops_find(make_tables, seed, days):
    tables = make_tables(seed)
    moments = every_days(tables, days)
    ours = {row.decision_id: [row.stage, row.entered_at, row.moment] for row in moments.itertuples()}
    assert ours == slowly(tables, days)
    assert len(ours) > 100


def test_regular_decisions_know_how_long_the_deal_has_been_in_its_stage(make_tables):
    table = build_decisions(make_tables(1, n_deals=300), every_days=20)
    assert (table.X["days_in_stage"] >= 0).all()
    assert table.X["days_in_stage"].nunique() > 5
    age = table.rows.index.str.extract(r":day(\d+)$")[0].astype(int)
    assert (age % 20 == 0).all()
    assert [step.what for step in table.flow] == [
        "moments",
        "asked after the deal closed",
        "closed within the window",
        "too young",
        "decisions",
    ]
    counts = [step.n for step in table.flow]
    assert counts[0] == sum(counts[1:])
    assert "within 14 days of the moment" in table.about["question"]


def test_a_regular_decision_does_not_know_what_came_after_it(make_tables):
    tables = make_tables(2, n_deals=200)
    whole = build_decisions(tables, every_days=30)
    first = whole.rows["decided_at"].quantile(0.5)
    entries = tables.stage_entries
    known = entries[["entered_at", "recorded_at"]].max(axis=1)
    earlier = replace(tables, stage_entries=entries[known < first])
    cut = every_days(earlier, 30).set_index("decision_id")
    early = whole.rows.index[whole.rows["decided_at"] <= first]
    assert len(early) > 50
    assert (cut.loc[early, "stage"] == whole.rows.loc[early, "stage"]).all()


# The trial


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"grace_days": 0},
            "grace_days is 0 and horizon_days 180; "
            "the window should be longer than 0 days and end before the horizon.",
        ),
        ({"every_days": 0}, "every_days is 0; it should be 1 or more, or left out."),
        ({"against": "ever"}, "against is 'ever'; it should be wait or never."),
    ],
)
def test_a_trial_that_cannot_be_is_refused(settings, message):
    with pytest.raises(UserError) as refusal:
        TargetTrial(**settings)
    assert str(refusal.value) == message


PARTS = [
    "Eligibility",
    "The two choices",
    "Assignment",
    "Time zero",
    "Follow-up",
    "Outcome",
    "Estimand",
]


def test_the_trial_has_its_seven_parts_and_names_what_is_compared():
    wait, never = (dict(TargetTrial(against=against).protocol()) for against in ("wait", "never"))
    assert list(wait) == list(never) == PARTS
    changed = {part for part in PARTS if wait[part] != never[part]}
    assert changed == {"The two choices", "Estimand"}
    assert TargetTrial().question() == (
        "By how much does it change the chance that the deal is won within 180 days if vendor people are "
        "active on it within 14 days of its entry into the stage, against their waiting, with later choices "
        "left to nature?"
    )
    assert (
        TargetTrial(against="never")
        .question()
        .endswith("against their not coming at all within these 180 days?")
    )


def test_a_table_says_which_trial_it_imitates(make_tables):
    about = build_decisions(make_tables(1), against="never", horizon_days=90).about
    assert about["protocol"] == [list(part) for part in TargetTrial(14, 90, None, "never").protocol()]
    assert (about["against"], about["every_days"], about["horizon_days"]) == ("never", None, 90)

"""Vendor and partner on one customer in the same days, without a hand-over."""

from dataclasses import replace

import duckdb
import numpy as np
import pandas as pd
import pytest

from features.build import build_features
from features.decisions import build_decisions
from features.schema import check

DAY = pd.Timedelta(days=1)


@pytest.fixture
def at(make_tables, the_clock):
    """``at(touches, days)``: uncoordinated days of D0, so many days after its creation.

    A touch is (by, kind, day after the creation, days until it was typed in).
    """

    def days_of(touches, days):
        tables = make_tables(1)
        deal = tables.deals.set_index("deal_id").loc["D0"]
        midnight = deal["created_at"].floor("D")
        rows = [
            ("D0", by, kind, midnight + (day + 0.5) * DAY, midnight + (day + 0.5 + late) * DAY)
            for by, kind, day, late in touches
        ]
        names = ["deal_id", "by", "kind", "happened_at", "recorded_at"]
        tables = check(replace(tables, activities=pd.DataFrame(rows, columns=names)), the_clock)
        asked = pd.DataFrame(
            {
                "deal_id": "D0",
                "stage": "qualify",
                "entered_at": deal["created_at"],
                "moment": midnight + pd.Series(days) * DAY,
            }
        )
        return build_features(tables, asked)

    return days_of


CASES = {
    "both on one day": ([("vendor", "call", 3, 0), ("partner", "email", 3, 0)], 1),
    "a day apart": ([("vendor", "call", 3, 0), ("partner", "email", 4, 0)], 1),
    "two days apart": ([("vendor", "call", 3, 0), ("partner", "email", 5, 0)], 0),
    "the vendor alone": ([("vendor", "call", 3, 0), ("vendor", "email", 3, 0)], 0),
    "many touches are one day": ([("vendor", "call", 3, 0)] * 3 + [("partner", "email", 3, 0)] * 2, 1),
    "a hand-over that day": (
        [("vendor", "call", 3, 0), ("partner", "email", 3, 0), ("partner", "handover", 3, 0)],
        0,
    ),
    "a hand-over long before": (
        [("vendor", "call", 9, 0), ("partner", "email", 9, 0), ("partner", "handover", 3, 0)],
        1,
    ),
    "a hand-over alone": ([("vendor", "handover", 3, 0), ("partner", "handover", 3, 0)], 0),
}


@pytest.mark.parametrize(("touches", "days"), CASES.values(), ids=CASES)
def test_a_day_is_uncoordinated_if_both_touched_the_customer_without_a_hand_over(at, touches, days):
    features = at(touches, [12])
    assert features["uncoordinated_days"].tolist() == [days]
    assert features["uncoordinated"].tolist() == [days > 0]


def test_a_touch_typed_in_later_is_invisible_earlier_and_old_days_fade(at):
    touches = [("vendor", "call", 3, 0), ("partner", "email", 3, 6)]
    assert at(touches, [9, 10, 33, 35])["uncoordinated_days"].tolist() == [0, 1, 1, 0]


def test_a_folder_without_activities_has_no_such_features(make_tables):
    table = build_decisions(make_tables(1))
    assert {"uncoordinated_days", "uncoordinated"} & set(table.X.columns) == set()
    assert table.about["coordination"] is None


SLOWLY = """
with days as (select deal_id, "by", kind = 'handover' as hands_over, date_trunc('day', happened_at) as day,
              greatest(happened_at, coalesce(recorded_at, happened_at)) as known from activities)
select count(distinct v.day) as days from asked a
left join days v on v.deal_id = a.deal_id and v."by" = 'vendor' and not v.hands_over and v.known < a.moment
    and v.day >= date_trunc('day', a.moment) - interval 30 day
    and exists (select 1 from days p where p.deal_id = v.deal_id and p."by" = 'partner' and not p.hands_over
        and p.known < a.moment and abs(date_diff('day', p.day, v.day)) <= 1)
    and not exists (select 1 from days h where h.deal_id = v.deal_id and h.hands_over
        and h.known < a.moment and abs(date_diff('day', h.day, v.day)) <= 1)
group by a.row_id order by a.row_id
"""


def test_uncoordinated_days_are_what_sql_makes_of_the_activities(make_tables, moments_of, the_clock):
    tables = make_tables(2, n_deals=60)
    rng = np.random.default_rng(0)
    n = 1500
    deal = rng.integers(0, 60, n)
    created = tables.deals["created_at"].take(deal).reset_index(drop=True)
    happened = created + pd.to_timedelta(rng.integers(0, 60 * 24, n), "h")
    delay = pd.to_timedelta(rng.choice([0, 0, 1, 30, 400], n), "h")
    activities = pd.DataFrame(
        {
            "deal_id": tables.deals["deal_id"].to_numpy()[deal],
            "by": rng.choice(["vendor", "partner"], n),
            "kind": rng.choice(["call", "email", "handover"], n, p=[0.5, 0.42, 0.08]),
            "happened_at": happened,
            "recorded_at": pd.Series(happened + delay).mask(rng.random(n) < 0.2),
        }
    )
    tables = check(replace(tables, activities=activities), the_clock)
    moments = moments_of(tables)
    moments = pd.concat([moments, moments.assign(moment=moments["moment"] + 7.3 * DAY)], ignore_index=True)
    ours = build_features(tables, moments)["uncoordinated_days"]
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        times = {name: tables.activities[name].dt.tz_convert(None) for name in ("happened_at", "recorded_at")}
        connection.register("activities", tables.activities.assign(**times))
        asked = moments[["deal_id"]].assign(
            moment=moments["moment"].dt.tz_convert(None), row_id=range(len(moments))
        )
        connection.register("asked", asked)
        theirs = connection.execute(SLOWLY).df()["days"]
    assert ours.tolist() == theirs.tolist()
    assert ours.nunique() > 4

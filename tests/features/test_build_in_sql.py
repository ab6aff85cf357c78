"""The features a second way: DuckDB over the same tables, every definition written out again."""

import duckdb
import numpy as np
import pandas as pd
import pytest

from features.build import build_features
from features.moments import open_deals

VIEWS = """
create view asked as select m.*, d.* exclude (deal_id) from moments m join deals d using (deal_id);
create view entries as
    select *, greatest(entered_at, coalesce(recorded_at, entered_at)) as known from stage_entries;
create view joins as
    select *, greatest(started_at, coalesce(recorded_at, started_at)) as known from involvements;
create view pairs as
    select *, coalesce(recorded_at, since, timestamp '1900-01-01') as known from relationships;
create macro days(a, b) as date_diff('microsecond', a, b) / 864e8;
"""
# What is joined to each moment `a`, and the features that come of the rows joined.
QUESTIONS = {
    """left join partners x on x.partner_id = a.partner_id
       left join customers c on c.customer_id = a.customer_id""": """
        days(any_value(a.created_at), any_value(a.entered)) as days_open,
        days(any_value(a.moment), date_trunc('quarter', any_value(a.moment)) + interval 3 month)
            as days_to_quarter_end,
        any_value(a.amount / nullif(c.annual_revenue, 0)) as amount_to_customer_revenue,
        any_value(case when x.joined_at < a.moment then days(x.joined_at, a.moment) end)
            as partner_tenure_days,
        any_value(x.employees) as partner_employees, any_value(c.employees) as customer_employees
        """,
    "left join entries x on x.deal_id = a.deal_id and x.known < a.moment and x.entered_at < a.entered": """
        count(x.deal_id) as stage_moves,
        days(max(x.entered_at), any_value(a.entered)) as days_in_previous_stage
        """,
    "left join joins x on x.deal_id = a.deal_id and x.known < a.moment": """
        count(x.deal_id) as vendor_involvements_before,
        count(x.deal_id) > 0 as already_involved,
        count(x.deal_id) filter (x.ended_at is null or x.ended_at >= a.moment) > 0 as vendor_active_now
        """,
    """left join deals x on x.partner_id = a.partner_id
        and x.created_at < a.moment and x.deal_id <> a.deal_id""": """
        count(x.deal_id) as partner_deals_before,
        any_value(a.amount) / avg(x.amount) as amount_to_partner_usual,
        case when any_value(a.product_line) is not null then count(x.deal_id) filter (
            x.outcome = 'won' and x.closed_at < a.moment and x.product_line = a.product_line) end
            as partner_wins_with_product
        """,
    "left join deals x on x.closed_at < a.moment": """
        (10 * coalesce(avg((x.outcome = 'won')::int), 0.3)
            + count(x.deal_id) filter (x.outcome = 'won' and x.partner_id = a.partner_id))
            / (10 + count(x.deal_id) filter (x.partner_id = a.partner_id)) as partner_win_rate
        """,
    """left join deals x on x.customer_id = a.customer_id
        and x.created_at < a.moment and x.deal_id <> a.deal_id""": """
        count(x.deal_id) as customer_deals_before,
        count(x.deal_id) filter (x.outcome = 'won' and x.closed_at < a.moment) as customer_wins_before,
        count(x.deal_id) filter (x.partner_id = a.partner_id) as pair_deals_before,
        count(x.deal_id) filter (x.partner_id = a.partner_id and x.outcome = 'won' and x.closed_at < a.moment)
            as pair_wins_before,
        count(x.deal_id) filter (
            x.partner_id = a.partner_id and x.outcome = 'won' and x.closed_at < a.moment) = 0
            as pair_first_sale,
        days(max(x.created_at) filter (x.partner_id = a.partner_id), any_value(a.moment))
            as pair_days_since_last_deal
        """,
    """left join deals x on x.customer_id = a.customer_id and x.partner_id = a.partner_id
        and x.created_at < a.moment and x.deal_id <> a.deal_id
       left join joins j on j.deal_id = x.deal_id and j.known < a.moment""": """
        count(distinct j.deal_id) as pair_vendor_involved_before
        """,
    """left join pairs x on x.partner_id = a.partner_id and x.customer_id = a.customer_id
        and x.known < a.moment""": """
        first(case when x.since < a.moment then days(x.since, a.moment) end
            order by x.known desc, x.since nulls last, x.executive_contact desc nulls last)
            as pair_tenure_days,
        first(x.executive_contact
            order by x.known desc, x.since nulls last, x.executive_contact desc nulls last)
            as pair_executive_contact
        """,
}


def naive(frame):
    times = frame.select_dtypes("datetimetz").columns
    return frame.assign(**{column: frame[column].dt.tz_convert(None) for column in times})


def in_sql(tables, moments):
    """The features by DuckDB, as floats, in the order of the moments."""
    asked = naive(moments).rename(columns={"entered_at": "entered"}).drop(columns="stage")
    with duckdb.connect() as connection:
        connection.execute("set threads = 1")
        for name, table in tables.by_name().items():
            connection.register(name, naive(table))
        connection.register("moments", asked.assign(row_id=np.arange(len(asked))))
        connection.execute(VIEWS)
        answers = [
            connection.execute(
                f"select row_id, {what} from asked a {joined} group by row_id order by row_id"
            ).df()
            for joined, what in QUESTIONS.items()
        ]
    return pd.concat([answer.drop(columns="row_id") for answer in answers], axis=1)


def as_floats(column):
    return column.astype("Float64").to_numpy(dtype=float, na_value=np.nan)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("live", [False, True], ids=["past decisions", "live deals"])
def test_features_are_what_sql_makes_of_the_tables(make_tables, moments_of, seed, live):
    tables = make_tables(seed, n_deals=200)
    moments = moments_of(tables)
    if live:
        days_before = [pd.Timedelta(days=days) for days in (-1, 0, 60, 150, 300)]
        moments = pd.concat([open_deals(tables, tables.exported_at - days) for days in days_before])
    expected = in_sql(tables, moments)
    features = build_features(tables, moments)
    for name in expected.columns:
        ours, theirs = as_floats(features[name]), as_floats(expected[name])
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9, equal_nan=True, err_msg=name)


def test_the_tables_compared_are_awkward_enough_to_tell(make_tables, moments_of):
    tables = make_tables(1, n_deals=200)
    features = build_features(tables, moments_of(tables))
    compared = in_sql(tables, moments_of(tables)).columns
    assert len(compared) >= 22
    assert (features[compared].nunique() > 1).all()
    sometimes_missing = ["days_in_previous_stage", "pair_tenure_days", "pair_executive_contact"]
    assert features[sometimes_missing].isna().any().all()

"""Features know what was on record before the moment, and nothing else."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from features import catalog
from features.build import build_features
from features.moments import open_deals
from features.problems import TableError, UserError
from features.schema import check
from features.stages import stage_order

SEEDS = st.integers(0, 10_000)
few_examples = settings(
    max_examples=15, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)


def plain(features: pd.DataFrame) -> pd.DataFrame:
    """Without the levels of categories, which may differ between tables."""
    texts = dict.fromkeys(features.select_dtypes("category"), "str")
    return features.astype(texts)


def test_columns_are_the_catalogs_then_the_users_own(make_tables, moments_of):
    tables = make_tables(0)
    features = build_features(tables, moments_of(tables))
    own = ["deal_complexity", "partner_segment", "customer_is_public"]
    assert list(features.columns) == catalog.names() + own
    kinds = {"number": "float64", "boolean": "boolean", "category": "category"}
    for name in catalog.names():
        assert str(features[name].dtype) == kinds[catalog.feature(name).kind], name
    assert [str(features[name].dtype) for name in own] == ["float64", "category", "boolean"]


def test_the_index_of_the_moments_is_kept(make_tables, moments_of):
    tables = make_tables(0)
    moments = moments_of(tables).sample(20, random_state=0)
    features = build_features(tables, moments)
    assert features.index.tolist() == moments.index.tolist()


@few_examples
@given(seed=SEEDS, row=st.integers(0, 10_000))
def test_one_live_deal_gets_what_it_gets_among_all(make_tables, moments_of, seed, row):
    tables = make_tables(seed)
    moments = moments_of(tables)
    row %= len(moments)
    alone = build_features(tables, moments.iloc[[row]])
    assert_frame_equal(alone, build_features(tables, moments).iloc[[row]], check_exact=True)


@few_examples
@given(seed=SEEDS)
def test_row_order_does_not_matter(make_tables, moments_of, shuffle, seed):
    tables = make_tables(seed)
    other = shuffle(tables, np.random.default_rng(seed))
    moments = moments_of(tables)
    shuffled = moments.sample(frac=1, random_state=seed)
    expected = build_features(tables, moments)
    assert_frame_equal(build_features(other, shuffled).loc[expected.index], expected, check_exact=True)


@few_examples
@given(seed=SEEDS)
def test_ids_of_deals_do_not_matter(make_tables, moments_of, seed):
    tables = make_tables(seed)
    ids = tables.deals["deal_id"]
    renamed = dict(
        zip(ids, "X" + pd.Series(np.random.default_rng(seed).permutation(len(ids)).astype(str)), strict=True)
    )
    frames = {
        name: getattr(tables, name).assign(deal_id=lambda table: table["deal_id"].map(renamed))
        for name in ("deals", "stage_entries", "involvements")
    }
    moments = moments_of(tables)
    other = build_features(replace(tables, **frames), moments.assign(deal_id=moments["deal_id"].map(renamed)))
    assert_frame_equal(other, build_features(tables, moments), check_exact=True)


def with_later_events(tables, moment, rng):
    """The same tables after much more has happened, or been typed in, at the moment or later."""
    n = 40
    recorded = pd.Series(moment + pd.to_timedelta(rng.integers(0, 50, n), unit="D"))
    earlier = pd.Series(moment - pd.to_timedelta(rng.integers(0, 50, n), unit="D"))
    happened = recorded.where(rng.random(n) < 0.5, earlier)
    happened_then_typed_in = {"recorded_at": recorded.dt.as_unit("us")}
    deals, pairs, ends = tables.deals, tables.relationships, tables.involvements["ended_at"]
    deal = rng.choice(deals.loc[deals["created_at"] < moment, "deal_id"], n)
    events = pd.DataFrame({"deal_id": deal, **happened_then_typed_in})
    stage = rng.choice(["qualify", "proposal"], n)
    pair = rng.integers(0, len(pairs), n)
    closes_later = ~(deals["closed_at"] < moment)
    closed = deals.assign(
        outcome=deals["outcome"].mask(closes_later, pd.Series(rng.choice(["won", "lost"], len(deals)))),
        closed_at=deals["closed_at"].mask(closes_later, moment + pd.Timedelta(days=70)),
    )
    born = closed.iloc[rng.integers(0, len(deals), n)].reset_index(drop=True)
    born = born.assign(deal_id=[f"L{i}" for i in range(n)], created_at=recorded, closed_at=recorded)
    more = {
        "deals": [born, closed],
        "stage_entries": [events.assign(stage=stage, entered_at=happened), tables.stage_entries],
        "involvements": [
            events.assign(started_at=happened),
            tables.involvements.assign(ended_at=ends.mask(~(ends < moment), moment + pd.Timedelta(days=1))),
        ],
        "relationships": [
            pairs.iloc[pair]
            .reset_index(drop=True)
            .assign(executive_contact=True, since=happened, **happened_then_typed_in),
            pairs,
        ],
    }
    return replace(tables, **{name: pd.concat(parts, ignore_index=True) for name, parts in more.items()})


@few_examples
@given(seed=SEEDS, day=st.integers(60, 400))
def test_what_happens_or_is_typed_in_later_changes_nothing(make_tables, seed, day):
    tables = make_tables(seed)
    moment = pd.Timestamp("2023-01-01", tz="UTC") + pd.Timedelta(days=day)
    asked = open_deals(tables, moment)
    later = with_later_events(tables, moment, np.random.default_rng(seed))
    assert_frame_equal(build_features(later, asked), build_features(tables, asked), check_exact=True)
    assert_frame_equal(open_deals(later, moment), asked)


def as_the_crm_stood(tables, moment, deal_id):
    """What an export at the moment would have held (the deal asked about is there in any case)."""

    def known(table, happened):
        record = table["recorded_at"].where(table["recorded_at"].notna(), table[happened])
        return table[(record < moment) & ~(table[happened] >= moment) | record.isna()]

    deals = tables.deals[(tables.deals["created_at"] < moment) | (tables.deals["deal_id"] == deal_id)]
    is_open = ~(deals["closed_at"] < moment)
    deals = deals.assign(
        outcome=deals["outcome"].mask(is_open, "open"), closed_at=deals["closed_at"].mask(is_open)
    )
    involvements = known(tables.involvements, "started_at")
    ended = involvements["ended_at"]
    involvements = involvements.assign(ended_at=ended.mask(~(ended < moment)))
    known_pairs = tables.relationships
    record = known_pairs["recorded_at"].fillna(known_pairs["since"])
    return replace(
        tables,
        deals=deals,
        stage_entries=known(tables.stage_entries, "entered_at"),
        involvements=involvements[involvements["deal_id"].isin(deals["deal_id"])],
        relationships=known_pairs[(record < moment) | record.isna()],
    )


@few_examples
@given(seed=SEEDS, row=st.integers(0, 10_000))
def test_looking_back_gives_what_the_crm_showed_then(make_tables, moments_of, seed, row):
    tables = make_tables(seed)
    moments = moments_of(tables)
    asked = moments.iloc[[row % len(moments)]]
    then = as_the_crm_stood(tables, asked["moment"].iloc[0], asked["deal_id"].iloc[0])
    assert_frame_equal(
        plain(build_features(then, asked)), plain(build_features(tables, asked)), check_exact=True
    )


def test_a_call_typed_in_later_is_invisible_earlier(make_tables):
    tables = make_tables(3)
    deal_id, monday = tables.deals["deal_id"].iloc[0], pd.Timestamp("2023-05-01 10:00", tz="UTC")
    thursday = monday + pd.Timedelta(days=3)
    call = pd.DataFrame({"deal_id": [deal_id], "started_at": [monday], "recorded_at": [thursday]})
    tables = check(replace(tables, involvements=call))
    asked = pd.Series([monday + pd.Timedelta(days=1), thursday, thursday + pd.Timedelta(1, unit="us")])
    moments = pd.DataFrame({"deal_id": deal_id, "stage": "qualify", "entered_at": monday, "moment": asked})
    assert build_features(tables, moments)["already_involved"].tolist() == [False, False, True]


def test_time_in_the_current_stage_is_in_no_feature_of_the_deals_progress(make_tables):
    tables = make_tables(4)
    now = open_deals(tables)
    later = now.assign(moment=now["moment"] + pd.Timedelta(days=30))
    progress = ["days_open", "days_in_previous_stage", "stage_moves", "stage"]
    assert_frame_equal(build_features(tables, now)[progress], build_features(tables, later)[progress])


def test_open_deals_stand_in_the_stage_last_recorded(make_tables):
    tables = make_tables(5)
    deals = tables.deals
    moments = open_deals(tables)
    assert set(moments["deal_id"]) == set(deals.loc[deals["outcome"] == "open", "deal_id"])
    entries = tables.stage_entries
    newest = entries.groupby("deal_id")["entered_at"].max()
    assert (moments.set_index("deal_id")["entered_at"] == newest[moments["deal_id"]]).all()
    assert (moments["moment"] == tables.exported_at + pd.Timedelta(1, unit="us")).all()


def test_an_earlier_as_of_sees_closed_deals_open_again(make_tables):
    tables = make_tables(5)
    day = pd.Timestamp("2023-08-01", tz="UTC")
    closed_since = tables.deals[
        (tables.deals["created_at"] < day - pd.Timedelta(days=50)) & (tables.deals["closed_at"] >= day)
    ]
    assert len(closed_since) > 3
    assert set(closed_since["deal_id"]) <= set(open_deals(tables, day)["deal_id"])


def test_stages_are_ordered_as_deals_pass_them(make_tables):
    assert stage_order(make_tables(0).stage_entries) == ["qualify", "solution", "proposal", "negotiation"]


def test_unknown_is_missing_and_never_zero(make_tables, moments_of):
    tables = make_tables(6)
    blank = replace(
        tables,
        deals=tables.deals.assign(
            amount=np.nan, product_line=pd.Series(np.nan, tables.deals.index, dtype="str")
        ),
        relationships=tables.relationships.iloc[:0],
    )
    features = build_features(blank, moments_of(tables))
    unknown = ["amount", "amount_to_customer_revenue", "amount_to_partner_usual", "partner_wins_with_product"]
    unknown += ["pair_tenure_days", "pair_executive_contact", "product_line"]
    assert features[unknown].isna().all().all()
    free = build_features(tables, moments_of(tables))
    no_revenue = (free["customer_annual_revenue"] == 0).to_numpy()
    assert no_revenue.any()
    assert free.loc[no_revenue, "amount_to_customer_revenue"].isna().all()
    assert not np.isinf(free.select_dtypes("number").to_numpy()).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.drop(columns="moment"),
            "moments lack moment; needed are deal_id, stage, entered_at, moment.",
        ),
        (
            lambda m: m.assign(deal_id="D-1").head(2),
            "moments: column 'deal_id' should name a deal of the tables (2 rows: D-1, D-1).",
        ),
    ],
)
def test_moments_that_cannot_be_answered_are_refused(make_tables, moments_of, change, message):
    tables = make_tables(0)
    with pytest.raises(UserError) as refusal:
        build_features(tables, change(moments_of(tables)))
    assert str(refusal.value) == message


def test_a_column_that_would_hide_a_feature_is_refused(make_tables, moments_of):
    tables = make_tables(0)
    clash = replace(tables, partners=tables.partners.assign(win_rate=0.5))
    with pytest.raises(TableError) as refusal:
        build_features(clash, moments_of(tables))
    expected = (
        "partners: column 'win_rate' would become the feature 'partner_win_rate', which exists; rename it."
    )
    assert str(refusal.value) == expected


def test_texts_that_name_each_row_and_times_are_no_features(make_tables, moments_of):
    tables = make_tables(0)
    names = "Deal number " + tables.deals["deal_id"]
    more = replace(tables, deals=tables.deals.assign(title=names, signed_on=tables.deals["closed_at"]))
    assert not {"deal_title", "deal_signed_on"} & set(build_features(more, moments_of(tables)).columns)

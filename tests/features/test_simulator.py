import numpy as np
import pandas as pd
import pytest

from features import build_decisions, read_tables, simulate
from features.mechanism import (
    BEFORE,
    HORIZON_DAYS,
    STAGES,
    Situation,
    advance_probability,
    draw_stage_days,
    join_probability,
    late_join_probability,
    share_of_help,
    truth,
    within_horizon,
)
from features.problems import UserError


@pytest.fixture(scope="module")
def crm():
    return simulate(6000, seed=1)


def test_the_same_seed_gives_the_same_crm_and_another_seed_another(crm):
    again, other = simulate(6000, seed=1), simulate(6000, seed=2)
    for name, table in crm.tables.by_name().items():
        pd.testing.assert_frame_equal(table, again.tables.by_name()[name])
    pd.testing.assert_frame_equal(crm.truth, again.truth)
    assert not crm.tables.deals.equals(other.tables.deals)


def test_the_tables_read_back_as_they_were_simulated_and_the_truth_lies_apart(crm, tmp_path):
    crm.write(tmp_path / "crm")
    tables = read_tables(tmp_path / "crm")
    assert len(tables.deals) == 6000
    pd.testing.assert_frame_equal(
        build_decisions(tables).features, build_decisions(crm.tables).features, check_dtype=False
    )
    assert list(pd.read_parquet(tmp_path / "crm" / "truth.parquet").columns) == [
        "deal_id",
        "stage",
        "decided_at",
        "uplift",
        "propensity",
        "win_if_step_back",
        "win_if_step_in",
        "uplift_against_never",
    ]


def test_a_folder_that_holds_something_is_not_overwritten(crm, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is not empty; name a new folder, or empty it first"):
        crm.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few_deals_are_refused():
    with pytest.raises(UserError, match=r"^--deals is 5; a simulated CRM needs at least 100\.$"):
        simulate(5)


def _one_deal(n):
    """The same big, complex first sale n times."""
    ones = np.ones(n)
    return Situation(
        size=0.8 * ones,
        complexity=1.0 * ones,
        novel=ones,
        strategic=0 * ones,
        competitor=ones,
        first_sale=ones,
        wins=0 * ones,
        tenure_years=0 * ones,
        executive_contact=0 * ones,
        integrator=0 * ones,
        small_partner=0.8 * ones,
        big_customer=0.7 * ones,
        always_joined=0 * ones,
        skill=0 * ones,
        help_gain=0 * ones,
        pace=np.full(n, 3),
    )


@pytest.mark.parametrize("start", range(len(STAGES)))
def test_the_truth_is_what_playing_the_deal_many_times_gives(start):
    """The backward recursion against brute force: both choices now, nature after."""
    n, rng = 120_000, np.random.default_rng(start)
    deal, known = _one_deal(n), truth(_one_deal(1))
    for before in BEFORE:
        for choice, expected in (
            (True, known.win_if_step_in),
            (False, known.win_if_step_back),
            ("never", known.win_if_never),
        ):
            won = _play(deal, start, before, choice, rng)
            assert won.mean() == pytest.approx(expected[start, before, 0], abs=4 * 0.5 / np.sqrt(n))


def _play(deal, start, before, first_choice, rng):
    n = len(deal.size)
    alive, state, days = np.ones(n, dtype=bool), np.full(n, before), np.zeros(n)
    for stage in range(start, len(STAGES)):
        joins = rng.random(n) < join_probability(deal, stage, state)
        late = rng.random(n) < late_join_probability(deal)
        if first_choice == "never":
            joins, late = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
        elif stage == start:
            joins = np.full(n, first_choice)
        late &= ~joins
        advances = rng.random(n) < advance_probability(deal, stage, share_of_help(joins, late, state))
        quick = (rng.random(n) < 0.05) if stage > start else np.zeros(n, dtype=bool)
        alive &= advances & ~quick
        days += draw_stage_days(deal.pace, rng)
        state = np.where(joins | late, 2, np.minimum(state, 1))
    return alive & (days <= HORIZON_DAYS)


def test_the_chance_to_end_in_time_is_what_drawing_the_stages_gives():
    rng = np.random.default_rng(0)
    pace = np.full(100_000, 4)
    days = sum(draw_stage_days(pace, rng) for _ in range(len(STAGES)))
    assert np.mean(days <= HORIZON_DAYS) == pytest.approx(within_horizon()[0, 4], abs=0.006)


def test_win_rates_are_what_the_truth_says_of_the_choice_that_was_made(crm):
    decisions = build_decisions(crm.tables)
    known = crm.truth.set_index(["deal_id", "stage"]).loc[
        pd.MultiIndex.from_frame(decisions.rows[["deal_id", "stage"]])
    ]
    treated = decisions.treatment
    for chosen, column in ((treated, "win_if_step_in"), (~treated, "win_if_step_back")):
        gap = decisions.outcome[chosen] - known[column].to_numpy()[chosen]
        assert abs(gap.mean()) < 4 * 0.45 / np.sqrt(chosen.sum() / 3)
    assert abs(np.mean(treated - known["propensity"].to_numpy())) < 0.015


def test_without_effect_the_truth_is_zero_everywhere():
    made = simulate(1500, seed=3, effect=False)
    assert (made.truth[["uplift", "uplift_against_never"]].abs() < 1e-12).all(axis=None)


def test_the_effect_follows_the_mission(crm):
    """High for first sales, low or negative where trust has grown, fading as wins add up."""
    decisions = build_decisions(crm.tables)
    known = crm.truth.set_index(["deal_id", "stage"])["uplift"]
    uplift = known.loc[pd.MultiIndex.from_frame(decisions.rows[["deal_id", "stage"]])].to_numpy()
    features = decisions.features
    wins = features["pair_wins_before"].to_numpy()
    assert uplift[wins == 0].mean() > 0.05
    assert uplift[wins == 0].mean() > uplift[wins == 1].mean() > uplift[wins >= 3].mean()
    assert uplift[wins >= 3].mean() < 0
    complex_novel = features["product_line"].isin(["Cloud", "Edge AI"]).to_numpy()
    assert uplift[complex_novel].mean() > uplift[~complex_novel].mean() + 0.05
    integrator = (features["partner_type"] == "si").to_numpy() & (
        features["stage"] == "negotiation"
    ).to_numpy()
    executive = features["pair_executive_contact"].fillna(False).to_numpy(dtype=bool)
    assert uplift[integrator & executive].mean() < -0.05


def test_the_world_is_hard_in_the_ways_that_real_ones_are(crm):
    deals, entries, joined = crm.tables.deals, crm.tables.stage_entries, crm.tables.involvements
    decisions = build_decisions(crm.tables)
    treated, outcome = decisions.treatment, decisions.outcome
    true = crm.truth["uplift"].mean()
    assert outcome[treated].mean() - outcome[~treated].mean() < true - 0.06  # confounded, wrong direction
    ever = deals["deal_id"].isin(joined["deal_id"])
    stages = entries.groupby("deal_id").size().reindex(deals["deal_id"]).to_numpy()
    assert stages[ever].mean() > stages[~ever].mean() + 0.4  # long deals had more chances to be joined
    always = (decisions.features["partner_region"] == "Gulf").to_numpy()
    assert treated[always].mean() > 0.95  # no overlap
    assert (entries["recorded_at"] - entries["entered_at"] > pd.Timedelta(days=1)).mean() > 0.03
    assert deals["amount"].isna().any()
    assert deals["complexity"].isna().any()
    assert (deals["outcome"] == "open").mean() > 0.02
    volumes = deals["partner_id"].value_counts()
    assert volumes.iloc[0] > 4 * volumes.median()


def test_amounts_are_corrected_at_signing_and_the_amount_as_of_a_decision_is_not(crm):
    decisions = build_decisions(crm.tables)
    deals = crm.tables.deals.set_index("deal_id")
    corrected = crm.tables.deal_changes["deal_id"].unique()
    is_won = deals["outcome"] == "won"
    share = is_won.index.isin(corrected)
    assert share[is_won].mean() > 3 * share[~is_won].mean() > 0
    first = crm.tables.deal_changes.drop_duplicates("deal_id").set_index("deal_id")["value"].astype(float)
    then = decisions.rows["amount"]
    final = deals.loc[decisions.rows["deal_id"], "amount"].set_axis(then.index)
    was_corrected = decisions.rows["deal_id"].isin(corrected)
    pd.testing.assert_series_equal(then[~was_corrected], final[~was_corrected])
    then_by_deal = then[was_corrected].to_numpy()
    assert (then_by_deal == first.loc[decisions.rows.loc[was_corrected, "deal_id"]].to_numpy()).all()
    assert (final[was_corrected] / then_by_deal).mean() > 1.1
    assert "amount" not in {line["column"] for line in decisions.about["final_values"]}


def test_who_touched_the_customer_is_on_record_while_the_deal_lives(crm):
    touches = crm.tables.activities.merge(crm.tables.deals, on="deal_id")
    assert (touches["happened_at"] >= touches["created_at"]).all()
    assert not (touches["happened_at"] >= touches["closed_at"]).any()
    assert (touches["recorded_at"] >= touches["happened_at"]).all()
    assert touches["recorded_at"].max() <= crm.tables.now
    vendor = touches[touches["by"] == "vendor"]
    assert vendor["deal_id"].isin(crm.tables.involvements["deal_id"]).all()
    coordination = build_decisions(crm.tables).about["coordination"]
    assert 0.03 < coordination["uncoordinated_share"] < 0.3


def test_an_uncoordinated_deal_is_one_that_was_not_handed_over(crm):
    decisions = build_decisions(crm.tables)
    handed = crm.tables.activities.query("kind == 'handover'")["deal_id"]
    joined = decisions.X["already_involved"].to_numpy(dtype=bool)
    was_handed = decisions.rows["deal_id"].isin(handed)[joined]
    days = decisions.X["uncoordinated_days"][joined]
    assert days[~was_handed].mean() > 3 * days[was_handed].mean()

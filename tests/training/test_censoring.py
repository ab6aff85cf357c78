"""Later joiners are weighted away: what is left is what nobody's coming would have brought."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from features import DecisionTable, UserError, build_decisions, simulate
from training import censoring, pipeline
from training.config import TrainingConfig

DAY_0 = pd.Timestamp("2024-01-01", tz="UTC")
GRACE, HORIZON = 14, 180


def days(values):
    return pd.Series(DAY_0 + pd.to_timedelta(np.asarray(values, dtype=float), "D"))


def one_decision_a_deal(joined, closed, stepped_in=None, seed=0):
    """Decisions on day 0 of deals that nothing sets apart, every fourth stepped in on; missing is never."""
    n, rng = len(joined), np.random.default_rng(seed)
    stepped_in = np.arange(n) % 4 == 0 if stepped_in is None else stepped_in
    index = pd.Index([f"D{i}" for i in range(n)], name="decision_id")
    rows = pd.DataFrame(
        {
            "deal_id": index.to_numpy(),
            "partner_id": [f"P{i % 30}" for i in range(n)],
            "stage": "qualify",
            "decided_at": days(np.zeros(n)),
            "stepped_in": stepped_in,
            "outcome": rng.integers(0, 2, n).astype(float),
            "amount": 1.0,
            "closed_at": days(closed),
            "joined_later_at": days(np.where(stepped_in, np.nan, joined)),
        }
    ).set_index(index)
    features = pd.DataFrame({"noise": rng.normal(size=n)}, index=index)
    about = {
        "kind": "crm",
        "outcome": "binary",
        "against": "never",
        "exported_at": "2025-01-01T00:00:00+00:00",
    }
    return DecisionTable(rows, features, about | {"grace_days": GRACE, "horizon_days": HORIZON, "flow": []})


@pytest.fixture(scope="module")
def crm():
    return simulate(8000, seed=2)


@pytest.fixture(scope="module")
def decisions(crm):
    return build_decisions(crm.tables, against="never")


@pytest.fixture(scope="module")
def weighed(decisions):
    return censoring.weigh(decisions, n_jobs=1)


def test_the_weighted_win_rate_is_that_of_deals_that_nobody_ever_joins(crm, decisions, weighed):
    places = pd.MultiIndex.from_frame(decisions.rows[["deal_id", "stage"]])
    truth = crm.truth.set_index(["deal_id", "stage"]).loc[places]
    never = (truth["win_if_step_in"] - truth["uplift_against_never"]).to_numpy()
    left = ~decisions.treatment
    gap, weight = (decisions.outcome - never)[left], weighed.of(decisions)[left]
    assert abs(np.average(gap, weights=weight)) < 0.025
    assert np.mean(gap[weight > 0]) < -0.04  # leaving later joiners out without weights lets quick losses in


def test_each_decision_counts_for_what_it_shows(decisions, weighed):
    weight, rows = weighed.of(decisions), decisions.rows
    horizon_ends = rows["decided_at"] + pd.Timedelta(HORIZON, "D")
    known = rows["closed_at"].where(rows["closed_at"] < horizon_ends, horizon_ends)
    later = (~rows["stepped_in"] & (rows["joined_later_at"] < known)).to_numpy()
    assert set(weight[decisions.treatment]) == {1.0}
    assert set(weight[later]) == {0.0}
    alone = weight[~later & ~decisions.treatment]
    assert 1.0 <= alone.min() < alone.max() <= censoring.MOST_WEIGHT
    assert weighed.n_controls == (~decisions.treatment).sum()
    assert weighed.n_joined_later == later.sum()
    assert weighed.effective == pytest.approx(alone.sum() ** 2 / (alone**2).sum())


def test_at_a_constant_rate_of_joining_the_weight_is_its_exponential():
    rng, rate, n = np.random.default_rng(1), 0.006, 4000
    closed = rng.uniform(30, 400, n)
    joined = GRACE + rng.exponential(1 / rate, n)
    joined[joined >= closed] = np.nan
    table = one_decision_a_deal(joined, closed)
    found = censoring.weigh(table, n_jobs=1)
    known = np.minimum(closed, HORIZON)
    left = ~table.treatment
    alone = left & ~(joined < known)
    expected = np.exp(rate * (known - GRACE))[alone]
    ratio = found.of(table)[alone] / expected
    assert np.mean(ratio) == pytest.approx(1, abs=0.04)
    assert np.quantile(np.abs(ratio - 1), 0.9) < 0.25
    assert found.of(table)[left].sum() == pytest.approx(left.sum(), rel=0.03)  # those left stand for all


def test_where_nobody_is_joined_later_everyone_counts_once():
    table = one_decision_a_deal(np.full(200, np.nan), np.full(200, 90.0))
    found = censoring.weigh(table, n_jobs=1)
    assert set(found.weight) == {1.0}
    assert (found.n_joined_later, found.n_controls, found.effective) == (0, 150, 150.0)


def test_an_involvement_after_the_horizon_or_the_closing_changes_nothing():
    rng = np.random.default_rng(2)
    joined, closed = np.where(rng.random(400) < 0.3, rng.uniform(20, 100, 400), np.nan), np.full(400, 300.0)
    before = censoring.weigh(one_decision_a_deal(joined, closed), n_jobs=1)
    after = np.where(np.isnan(joined) & (np.arange(400) % 2 == 0), 200.0, joined)
    assert censoring.weigh(one_decision_a_deal(after, closed), n_jobs=1).weight.equals(before.weight)


def test_the_order_of_the_decisions_does_not_matter(decisions, weighed):
    turned = decisions.take(np.random.default_rng(0).permutation(len(decisions)))
    again = censoring.weigh(turned, n_jobs=1).weight
    pd.testing.assert_series_equal(again.reindex(weighed.weight.index), weighed.weight, rtol=1e-9)


def test_a_table_that_does_not_say_who_joined_later_is_refused(decisions):
    times = decisions.rows["decided_at"]
    undated = replace(decisions, rows=decisions.rows.assign(decided_at=times.mask(times == times.iloc[0])))
    with pytest.raises(UserError) as refusal:
        censoring.weigh(undated)
    assert str(refusal.value) == (
        "The decisions ask for 'now against not within the horizon', but do not say when each was made, "
        "closed, and joined later; build them anew with 'stepin features'."
    )


def test_where_every_deal_left_alone_was_joined_later_nothing_is_said():
    helped = np.arange(60) % 2 == 0
    table = one_decision_a_deal(np.where(helped, np.nan, 40.0), np.full(60, 90.0), helped)
    with pytest.raises(UserError, match=r"^Every deal that was left alone was joined later; "):
        censoring.weigh(table, n_jobs=1)


def test_a_model_against_never_says_so_in_its_facts_and_its_report(tmp_path):
    config = TrainingConfig(draws=30, most_pairs=1, n_folds=2, n_jobs=1, judged_blocks=2)
    decisions = build_decisions(simulate(3000, seed=2).tables, every_days=45, against="never")
    with threadpool_limits(limits=1):
        trained = pipeline.train(
            decisions, tmp_path / "model", config, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC)
        )
    joiners = trained.facts["learned_from"]["later_joiners"]
    assert 0 < joiners["joined_later"] < joiners["controls"] == int((~decisions.treatment).sum())
    page = " ".join((tmp_path / "model" / "report.html").read_text(encoding="utf-8").split())
    assert "against their not coming at all within these 180 days? (Now against not within the" in page
    assert "Answered is <b>now against not within the horizon</b>." in page
    assert f"Of {joiners['controls']:,} decisions to step back, {joiners['joined_later']:,} (" in page
    assert "it has been open for 45 days, or a multiple of that" in page

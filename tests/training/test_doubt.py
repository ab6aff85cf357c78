import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from features.decisions import DecisionTable
from training.clustered import Estimate
from training.doubt import doubts, missing_shares, overlap
from training.scorecard import OUTSIDE
from training.sensitivity import (
    Unexplained,
    bias_bound,
    bias_per_unit_strength,
    measured,
    strength_to_erase,
    unexplained,
)
from training.uplift import UpliftModel, cross_fit_for_judging


def test_each_decision_outside_counts_under_the_rule_that_ruled_it_out():
    found = overlap([0, 0, 1, 2, 3, 4, -1, -1, -1, -1])
    assert [round(rule.share, 3) for rule in found.rules] == [0.2, 0.1, 0.1, 0.1, 0.1]
    assert found.share_outside == pytest.approx(sum(rule.share for rule in found.rules)) == pytest.approx(0.6)
    assert found.rules[0].rule == "The vendor hardly ever stepped in on such deals (chance below 5%)"
    assert overlap([]).share_outside == 0


def test_every_rule_of_the_scorecard_has_its_words():
    rules = [rule.rule for rule in overlap(range(len(OUTSIDE))).rules]
    assert len(set(rules)) == len(OUTSIDE) == 5


def world_with_a_hidden_factor(n=200_000, seed=0):
    """Two alike binary factors, one on record and one hidden: the bias of the short regression is known."""
    rng = np.random.default_rng(seed)
    seen, hidden = rng.integers(0, 2, n), rng.integers(0, 2, n)
    propensity = 0.2 + 0.25 * seen + 0.25 * hidden
    treatment = rng.random(n) < propensity
    outcome = rng.random(n) < 0.2 + 0.2 * seen + 0.2 * hidden  # no effect at all
    return pd.DataFrame({"seen": seen, "hidden": hidden, "t": treatment, "y": outcome.astype(float)})


def fitted(table, by):
    """Exact nuisances given the columns `by`: cell means, and the average effect they imply."""
    e = table.groupby(by)["t"].transform("mean") if by else pd.Series(table["t"].mean(), table.index)
    expected = table.groupby([*by, "t"])["y"].transform("mean")
    rest = unexplained(table["y"], table["t"], expected, e)
    t, y = table["t"].to_numpy(), table["y"].to_numpy()
    return rest, float(np.mean(t * y / e - (1 - t) * y / (1 - e)))


def test_the_bias_of_a_hidden_factor_stays_within_its_bound():
    table = world_with_a_hidden_factor()
    long, truth = fitted(table, ["seen", "hidden"])
    short, biased = fitted(table, ["seen"])
    bound = bias_bound(
        short.sigma2,
        short.nu2,
        (short.sigma2 - long.sigma2) / short.sigma2,
        (long.nu2 - short.nu2) / short.nu2,
    )
    assert abs(truth) < 0.01
    assert 0.8 * bound < biased - truth <= bound * 1.02


def test_a_known_feature_measures_a_hidden_one_of_its_strength():
    table = world_with_a_hidden_factor()
    short, biased = fitted(table, ["seen"])
    per_unit = bias_per_unit_strength(short, fitted(table, [])[0])
    assert per_unit == pytest.approx(biased, rel=0.25)
    assert strength_to_erase(biased, per_unit) == pytest.approx(1, abs=0.25)


def test_the_riesz_representer_of_a_fair_coin_has_mean_square_four():
    t = np.tile([True, False], 50)
    found = unexplained(np.ones(100), t, np.zeros(100), np.full(100, 0.5))
    assert found == Unexplained(sigma2=1.0, nu2=4.0)


@pytest.mark.parametrize(("sigma2", "nu2"), [(0.2, 4.0), (0.25, 5.0), (0.1, 6.0)])
def test_a_feature_that_explains_nothing_measures_nothing(sigma2, nu2):
    assert bias_per_unit_strength(Unexplained(0.2, 5.0), Unexplained(sigma2, nu2)) is None


def test_strength_grows_with_the_distance_to_the_break_even():
    assert strength_to_erase(0.09, 0.02, needed=0.03) == pytest.approx(3)
    assert strength_to_erase(-0.03, 0.02, needed=0.03) == pytest.approx(3)
    assert strength_to_erase(0.09, None) is None
    assert bias_bound(0.2, 4, 0.05, 0.1) == pytest.approx(math.sqrt(0.004))


def test_missing_shares_name_only_what_is_missing():
    frame = pd.DataFrame({"full": [1, 2, 3, 4], "half": [1, None, None, 4], "some": ["a", None, "b", "c"]})
    assert missing_shares(frame) == {"half": 0.5, "some": 0.25}


@pytest.fixture
def one_thread():
    """On a busy machine the threads of small fits wait for each other, many times as long as they work."""
    with threadpool_limits(limits=1):
        yield


def as_table(world, measure, scale=1.0):
    n = len(world.outcome)
    rows = pd.DataFrame(
        {
            "deal_id": [f"D{i}" for i in range(n)],
            "partner_id": world.partner,
            "stage": world.X["stage"].astype(str),
            "decided_at": pd.Series(pd.NaT, range(n), dtype="datetime64[us, UTC]"),
            "stepped_in": world.treatment,
            "outcome": scale * world.outcome,
            "amount": 1.0,
        }
    )
    ids = pd.Index([f"D{i}" for i in range(n)])
    about = {"kind": "flat", "amount_feature": measure}
    return DecisionTable(rows.set_index(ids), world.X.set_axis(ids), about)


@pytest.mark.parametrize("measure", ["size", None])
def test_all_doubts_come_together(make_world, one_thread, measure):
    world = make_world(2000, seed=2)
    model = UpliftModel(draws=20, most_pairs=0).fit(world.X, world.treatment, world.outcome, world.partner)
    table = as_table(world, measure)
    nuisances = cross_fit_for_judging(world.X, world.treatment, world.outcome, world.partner, 1, 1)
    judged = SimpleNamespace(average=Estimate(0.04, 0.01, 0.02, 0.06, 2000, 60), break_even=0.03)
    found = json.loads(json.dumps(doubts(table, nuisances, model, judged, 1), allow_nan=False))
    assert found["missing"].keys() == {"complexity"}
    assert found["missing"]["complexity"] == pytest.approx(world.X["complexity"].isna().mean())
    shares = [rule["share"] for rule in found["overlap"]["rules"]]
    assert found["overlap"]["share_outside"] == pytest.approx(sum(shares))
    strength = found["bias_per_unit_strength"] or 0
    assert (strength > 0.02) == (measure is not None)
    assert (found["strength_to_erase"] is not None) == (measure is not None)
    assert len(found["placebo"]["tries"]) == 3
    assert found["influence"]["n_partners"] == 60
    assert found["negative_control"]["why_not"].startswith("it is not known which columns")


def strength(table, most_rows=100_000, measure="size"):
    nuisances = cross_fit_for_judging(table.X, table.treatment, table.outcome, table.groups, 1, 1)
    everywhere = np.ones(len(table), dtype=bool)
    return measured(table, nuisances, everywhere, measure, 1, 1, most_rows)


def test_deal_size_measures_hidden_factors_and_noise_does_not(make_world, one_thread):
    table = as_table(make_world(4000, seed=2), "size")
    assert strength(table) > 0.02
    assert (strength(table, measure="noise") or 0) < 0.005


def test_a_sample_of_whole_deals_measures_nearly_the_same(make_world, one_thread):
    table = as_table(make_world(10_000, seed=4), "size")
    assert strength(table, most_rows=5_000) == pytest.approx(strength(table), rel=0.25)


def test_a_numeric_outcome_is_measured_in_its_own_unit(make_world, one_thread):
    world = make_world(4000, seed=4, numeric=True)
    thousands, ones = strength(as_table(world, "size")), strength(as_table(world, "size", 0.001))
    assert thousands == pytest.approx(1000 * ones, rel=0.05)
    assert 0.02 < ones < 0.3

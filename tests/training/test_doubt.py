import json
import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from training.clustered import Estimate
from training.doubt import (
    Unexplained,
    bias_bound,
    bias_per_unit_strength,
    doubts,
    missing_shares,
    overlap,
    strength_to_erase,
    unexplained,
)
from training.uplift import UpliftModel, cross_fit_for_judging


def test_each_decision_outside_counts_under_one_rule():
    found = overlap([0.01, 0.5, 0.99, 0.5, 0.3], [False, False, False, True, True])
    assert [round(rule.share, 3) for rule in found.rules] == [0.2, 0.2, 0.2]
    assert found.share_outside == pytest.approx(sum(rule.share for rule in found.rules)) == pytest.approx(0.6)
    assert found.rules[0].rule == "The vendor hardly ever stepped in (chance below 5%)"
    assert overlap([], []).share_outside == 0


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


@pytest.mark.parametrize(("measure", "measures"), [("size", True), ("noise", False), (None, False)])
def test_deal_size_measures_hidden_factors_and_noise_does_not(make_world, one_thread, measure, measures):
    world = make_world(2000, seed=2)
    model = UpliftModel(random_state=0, n_jobs=1).fit(world.X, world.treatment, world.outcome, world.partner)
    table = SimpleNamespace(
        X=world.X,
        treatment=world.treatment,
        outcome=world.outcome,
        groups=world.partner,
        about={"amount_feature": measure},
    )
    nuisances = cross_fit_for_judging(world.X, world.treatment, world.outcome, world.partner, 1, 1)
    judged = SimpleNamespace(average=Estimate(0.04, 0.01, 0.02, 0.06, 2000, 60))
    found = json.loads(json.dumps(doubts(table, nuisances, model, judged, 1), allow_nan=False))
    assert found["missing"].keys() == {"complexity"}
    assert found["missing"]["complexity"] == pytest.approx(world.X["complexity"].isna().mean())
    shares = [rule["share"] for rule in found["overlap"]["rules"]]
    assert found["overlap"]["share_outside"] == pytest.approx(sum(shares))
    strength = found["bias_per_unit_strength"] or 0
    assert (strength > 0.02) == measures

"""Small forms of what the learner promises; a learner with a broken part misses one of the bounds."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from benchmarks import lalonde, worlds
from training import UpliftModel
from training.evaluate import heterogeneity_test
from training.nuisance import PROPENSITY_CLIP, Nuisances, scores
from training.uplift import cross_fit_for_judging


def fitted(d, deals=None, groups=None):
    return UpliftModel(draws=60, n_jobs=1).fit(d.X, d.treatment, d.outcome, groups, deals=deals)


def naive(d):
    return d.outcome[d.treatment].mean() - d.outcome[~d.treatment].mean()


def rmse(effects, truth):
    return float(np.sqrt(np.mean((effects - truth) ** 2)))


# Accuracy and coverage


class Answered(NamedTuple):
    """A smooth world's test decisions and what was said of them."""

    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]
    average: float
    """The doubly robust one, of the rows learned from."""
    covered: float


def answered(n, seed):
    world = worlds.smooth(n, seed, n_test=3_000)
    train, test = world.train, world.test
    model = fitted(train, train.deals, train.groups)
    low, high = model.predict_interval(test.X).T
    average = scores(model.nuisances_, train.treatment, train.outcome).doubly_robust.mean()
    covered = np.mean((low <= test.uplift) & (test.uplift <= high))
    return Answered(model.predict(test.X), test.uplift, float(average), float(covered))


@pytest.fixture(scope="module")
def of_2000():
    return [answered(2_000, seed) for seed in (1, 2, 3)]


@pytest.fixture(scope="module")
def of_8000():
    return [answered(8_000, seed) for seed in (1, 2)]


def test_8000_decisions_leave_a_quarter_less_error_than_one_effect_for_all(of_8000):
    error = np.mean([rmse(a.predicted, a.truth) for a in of_8000])
    error_of_constant = np.mean([rmse(a.average, a.truth) for a in of_8000])
    assert error < 0.075
    assert error < 0.75 * error_of_constant


@pytest.mark.parametrize("size", ["of_2000", "of_8000"])
def test_ninety_percent_intervals_hold_82_to_98_percent_of_the_truths(size, request):
    assert 0.82 < np.mean([a.covered for a in request.getfixturevalue(size)]) < 0.98


# Where effects do not differ


@pytest.mark.parametrize("uplift", [0.04, 0.0])
def test_one_effect_for_all_is_not_taken_for_many(uplift):
    world = worlds.constant(8_000, 1 if uplift else 2, n_test=3_000, uplift=uplift)
    train, test = world.train, world.test
    predicted = fitted(train, train.deals, train.groups).predict(test.X)
    known = cross_fit_for_judging(test.X, test.treatment, test.outcome, test.groups, 0, 1)
    phi = scores(known, test.treatment, test.outcome).doubly_robust
    assert predicted.std() < 0.04
    assert abs(predicted.mean() - test.uplift.mean()) < 0.03
    assert min(heterogeneity_test(predicted, phi, test.groups).values()) > 0.1


# The average, against confounding


@pytest.fixture(scope="module")
def steep():
    """Outcomes rise steeply with what the vendor looks for: no outcome model of trees follows all the way."""
    rng = np.random.default_rng(1)
    n = 2_000
    x = rng.normal(size=(n, 3))
    drive = x.sum(axis=1)
    e = worlds.sigmoid(0.7 * drive)
    treatment = rng.random(n) < e
    outcome = 3 * drive + treatment + 0.3 * rng.normal(size=n)
    own = np.arange(n)
    d = worlds.Decisions(
        pd.DataFrame(x, columns=["a", "b", "c"]), treatment, outcome, own, own, np.ones(n), e
    )
    return d, fitted(d)


def test_the_average_is_right_where_the_outcome_models_are_not(steep):
    d, model = steep
    view = scores(model.nuisances_, d.treatment, d.outcome)
    assert naive(d) > 5
    assert view.imputed.mean() > 1.5
    assert abs(view.doubly_robust.mean() - 1) < 0.25
    assert abs(model.predict(d.X).mean() - 1) < 0.25


# Rows that belong together


@pytest.fixture(scope="module")
def shared():
    """Four decisions share an outcome and four traits that all but name them; each step-in adds 15 points."""
    rng = np.random.default_rng(3)
    unit = np.repeat(np.arange(800), 4)
    treatment = rng.random(3_200) < 0.5
    outcome = (rng.random(800) < 0.1 + 0.15 * np.bincount(unit, treatment)).astype(float)[unit]
    traits = {f"trait_{i}": pd.Categorical(rng.integers(0, 60, 800).astype(str)[unit]) for i in range(4)}
    uplift, e = np.full(3_200, 0.15), np.full(3_200, 0.5)
    return worlds.Decisions(pd.DataFrame(traits), treatment, outcome, unit, unit, uplift, e)


def test_rows_of_one_deal_do_not_tell_each_others_outcome(shared):
    """If they did, both outcome models would say what happened, and leave no effect."""
    model = fitted(shared, deals=shared.deals)
    assert abs(model.predict(shared.X).mean() - 0.15) < 0.06
    assert_nothing_leaks(shared, model.nuisances_)


def test_deals_of_one_partner_do_not_tell_each_others_outcome(shared):
    model = fitted(shared, groups=shared.groups)
    assert abs(model.predict(shared.X).mean() - 0.15) < 0.06
    assert_nothing_leaks(shared, model.nuisances_)


def test_held_out_scores_do_not_know_a_partners_other_deals(shared):
    known = cross_fit_for_judging(shared.X, shared.treatment, shared.outcome, shared.groups, 0, 1)
    assert abs(scores(known, shared.treatment, shared.outcome).doubly_robust.mean() - 0.15) < 0.06
    assert_nothing_leaks(shared, known)


def assert_nothing_leaks(d, nuisances):
    expected = np.where(d.treatment, nuisances.step_in, nuisances.step_back)
    assert abs(np.corrcoef(expected, d.outcome)[0, 1]) < 0.15
    assert abs(np.corrcoef(nuisances.propensity, d.treatment)[0, 1]) < 0.1


# Weights


def test_rows_that_could_hardly_go_the_other_way_do_not_drown_the_others():
    """In two regions of three the vendor joins 3 or 97% of decisions; effects differ alike in all."""
    errors = []
    for seed in (1, 2, 3):
        d = two_regions_settled(4_000, seed)
        errors.append(rmse(fitted(d).predict(d.X), d.uplift) / d.uplift.std())
    assert np.mean(errors) < 0.47


def two_regions_settled(n, seed):
    rng = np.random.default_rng(seed)
    region = rng.choice(["coin", "seldom", "usual"], n, p=[0.4, 0.3, 0.3])
    x, z = rng.normal(size=n), rng.normal(size=n)
    e = np.select([region == "seldom", region == "usual"], [0.03, 0.97], 0.5)
    treatment = rng.random(n) < e
    uplift = 0.15 * np.tanh(x) + 0.2 * (z > 0)
    outcome = (rng.random(n) < 0.35 - 0.1 * np.tanh(z) + treatment * uplift).astype(float)
    own, X = np.arange(n), pd.DataFrame({"region": pd.Categorical(region), "x": x, "z": z})
    return worlds.Decisions(X, treatment, outcome, own, own, uplift, e)


# Rarely treated, seldom comparable


@pytest.fixture(scope="module")
def programme():
    """A programme for the young and poor in a survey of everybody, as LaLonde's; earnings in thousands."""
    rng = np.random.default_rng(4)
    n = 8_000
    age, school = rng.uniform(18, 60, n), rng.integers(6, 17, n).astype(float)
    before = np.maximum(rng.normal(14, 9, n), 0)
    jobless = before == 0
    e = worlds.sigmoid(-0.5 - 0.28 * before - 0.09 * (age - 18) + 0.8 * jobless)
    treatment = rng.random(n) < e
    uplift = 1.8 + 0.4 * jobless - 0.02 * (age - 30)
    alone = 2 + 0.75 * before + 0.15 * (school - 6) + 0.05 * (age - 18) + 4 * rng.normal(size=n)
    X = pd.DataFrame({"age": age, "before": before, "school": school, "jobless": jobless})
    own = np.arange(n)
    d = worlds.Decisions(X, treatment, np.maximum(alone, 0) + treatment * uplift, own, own, uplift, e)
    return d, fitted(d)


def test_the_effect_on_the_few_treated_is_found_among_those_who_have_a_like(programme):
    d, model = programme
    supported = model.support(d.X)
    found = lalonde.effect_on_treated(d, model.nuisances_, supported)
    truth = d.uplift[d.treatment & supported].mean()
    assert 0.02 < d.treatment.mean() < 0.05
    assert naive(d) < truth - 7
    assert abs(found.value - truth) < found.se < 0.4


def test_those_whom_the_programme_never_reached_are_named(programme):
    d, model = programme
    supported = model.support(d.X)
    assert not supported[d.propensity < 0.005].any()
    assert supported[d.propensity > 0.1].mean() > 0.95
    assert supported[d.treatment].mean() > 0.7


def test_chances_that_were_clipped_are_counted(programme):
    nuisances: Nuisances = programme[1].nuisances_
    at_the_limit = np.isin(nuisances.propensity, [PROPENSITY_CLIP, 1 - PROPENSITY_CLIP])
    assert nuisances.propensity.min() == 0.02
    assert nuisances.clipped == at_the_limit.sum() > 4_000

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from features.problems import UserError
from training import UpliftModel, effect
from training.nuisance import Nuisances


@pytest.fixture(scope="module")
def world(make_world):
    return make_world(20_000, seed=1)


@pytest.fixture(scope="module")
def model(world):
    return UpliftModel().fit(world.X, world.treatment, world.outcome, world.partner)


def test_a_planted_effect_is_found_though_the_naive_comparison_has_the_wrong_sign(world, model):
    naive = world.outcome[world.treatment].mean() - world.outcome[~world.treatment].mean()
    predicted = model.predict(world.X)
    assert naive < -0.06
    assert abs(predicted.mean() - world.uplift.mean()) < 0.03
    assert np.corrcoef(predicted, world.uplift)[0, 1] > 0.85


def test_ninety_percent_intervals_hold_the_truth_about_as_often_as_they_say(world, model):
    low, high = model.predict_interval(world.X).T
    covered = np.mean((low <= world.uplift) & (world.uplift <= high))
    assert 0.82 < covered < 0.99
    assert np.mean(high - low) < 0.30


def test_a_wider_level_gives_a_wider_interval(world, model):
    narrow, wide = (np.diff(model.predict_interval(world.X, level), axis=1) for level in (0.5, 0.95))
    assert (wide > 2 * narrow).all()


def test_nothing_is_found_where_there_is_nothing(make_world):
    null = make_world(8000, seed=2, effect=0.0)
    model = UpliftModel().fit(null.X, null.treatment, null.outcome, null.partner)
    low, high = model.predict_interval(null.X).T
    assert model.predict(null.X).std() < 0.03
    assert np.mean((low <= 0) & (high >= 0)) > 0.9


def test_baseline_and_terms_add_up_to_the_prediction(world, model):
    explained = model.explain(world.X)
    assert list(explained.columns) == list(model.scorecard_.term_names)
    total = model.baseline_ + explained.sum(axis=1).to_numpy()
    np.testing.assert_allclose(total, model.predict(world.X), rtol=0, atol=1e-12)


def test_the_term_that_matters_has_the_largest_part_and_noise_has_none(world, model):
    spread = model.explain(world.X).std()
    assert {"first_sale", "tenure", "complexity"} <= set(spread.nlargest(3).index)
    assert spread["noise"] < 0.01


def test_outcomes_are_probabilities_that_differ_by_the_uplift(world, model):
    outcomes = model.predict_outcomes(world.X)
    assert outcomes.min() >= 0
    assert outcomes.max() <= 1
    np.testing.assert_allclose(np.diff(outcomes, axis=1)[:, 0], model.predict(world.X), rtol=0, atol=1e-12)
    chosen = outcomes[np.arange(len(outcomes)), world.treatment.astype(int)]
    assert abs(chosen.mean() - world.outcome.mean()) < 0.02


def test_a_numeric_outcome_is_learned_in_its_own_unit(make_world):
    world = make_world(8000, seed=3, numeric=True)
    model = UpliftModel().fit(world.X, world.treatment, world.outcome, world.partner)
    predicted = model.predict(world.X)
    assert np.corrcoef(predicted, world.uplift)[0, 1] > 0.8
    assert abs(predicted.mean() - world.uplift.mean()) < 30
    np.testing.assert_allclose(np.diff(model.predict_outcomes(world.X), axis=1)[:, 0], predicted, atol=1e-9)


def test_booked_revenue_mostly_zero_with_a_heavy_tail_is_learned_from(make_world):
    """A won deal books 10,000 on average, a few of them more than ten times as much; lost ones nothing."""
    world = make_world(12_000, seed=7)
    booked = 10_000 * world.outcome * np.random.default_rng(1007).lognormal(-(0.9**2) / 2, 0.9, 12_000)
    assert np.mean(booked == 0) > 0.5
    assert booked.max() > 10 * booked[booked > 0].mean()
    model = UpliftModel().fit(world.X, world.treatment, booked, world.partner)
    predicted, truth = model.predict(world.X), 10_000 * world.uplift
    low, high = model.predict_interval(world.X).T
    naive = booked[world.treatment].mean() - booked[~world.treatment].mean()
    assert naive - truth.mean() < -600
    assert abs(predicted.mean() - truth.mean()) < 300
    assert np.corrcoef(predicted, truth)[0, 1] > 0.75
    assert 0.84 < np.mean((low <= truth) & (truth <= high)) < 0.99


@pytest.mark.parametrize("unit", [1e-3, 1e6])
def test_the_unit_of_a_numeric_outcome_does_not_matter(make_world, unit):
    world = make_world(1500, seed=3, numeric=True)
    args = (world.X, world.treatment)
    plain, scaled = (
        UpliftModel(draws=40).fit(*args, world.outcome * factor, world.partner).answers(world.X)
        for factor in (1.0, unit)
    )
    assert np.corrcoef(scaled.uplift, plain.uplift)[0, 1] > 0.97  # boosting bins in single precision
    assert np.std(scaled.uplift) / unit == pytest.approx(np.std(plain.uplift), rel=0.2)
    assert np.mean(scaled.sd) / unit == pytest.approx(np.mean(plain.sd), rel=0.2)


def test_a_saved_model_answers_the_same_and_holds_no_pickle(world, model, tmp_path):
    model.save(tmp_path / "m")
    loaded = UpliftModel.load(tmp_path / "m")
    assert {p.suffix for p in (tmp_path / "m").iterdir()} == {".json", ".npz"}
    np.testing.assert_array_equal(loaded.predict(world.X), model.predict(world.X))
    np.testing.assert_array_equal(loaded.predict_interval(world.X), model.predict_interval(world.X))
    np.testing.assert_array_equal(loaded.support(world.X), model.support(world.X))
    assert list(loaded.feature_names_in_) == list(world.X.columns)


def test_the_same_seed_gives_the_same_model_whatever_the_order_of_the_rows(make_world):
    world = make_world(2000, seed=4)
    settings = {"draws": 60, "random_state": 5}
    first = UpliftModel(**settings).fit(world.X, world.treatment, world.outcome, world.partner)
    again = UpliftModel(**settings).fit(world.X, world.treatment, world.outcome, world.partner)
    mixed = np.random.default_rng(0).permutation(len(world.X))
    other = UpliftModel(**settings).fit(
        world.X.iloc[mixed], world.treatment[mixed], world.outcome[mixed], world.partner[mixed]
    )
    np.testing.assert_array_equal(first.predict(world.X), again.predict(world.X))
    np.testing.assert_allclose(first.predict(world.X), other.predict(world.X), rtol=0, atol=1e-9)


def test_neither_threads_nor_row_order_nor_names_of_deals_change_the_model(make_world):
    world = make_world(1500, seed=11)
    deal, settings = np.arange(1500) // 2, {"draws": 30, "random_state": 5}
    args = (world.X, world.treatment, world.outcome)
    mixed = np.random.default_rng(1).permutation(1500)
    for groups in (world.partner, None):
        first = UpliftModel(**settings).fit(*args, groups, deals=None if groups is None else deal)
        other = UpliftModel(**settings, n_jobs=2).fit(
            world.X.iloc[mixed],
            world.treatment[mixed],
            world.outcome[mixed],
            None if groups is None else groups[mixed],
            deals=None if groups is None else -deal[mixed],
        )
        np.testing.assert_allclose(other.predict(world.X), first.predict(world.X), rtol=0, atol=1e-9)
        np.testing.assert_allclose(other.answers(world.X).sd, first.answers(world.X).sd, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(other.nuisances_.step_in, first.nuisances_.step_in[mixed])


def test_a_partner_never_seen_gets_the_average_and_a_wider_interval(make_world):
    world = make_world(6000, seed=9, partners=20)
    helped = world.treatment & (np.char.str_len(world.partner) == 2)  # P0 to P9 make much of help
    outcome = np.where(helped & (np.random.default_rng(0).random(6000) < 0.4), 1.0, world.outcome)
    model = UpliftModel(draws=100).fit(world.X, world.treatment, outcome, world.partner)
    known, stranger = world.X.head(200), world.X.head(200).assign(partner="a stranger")
    width = [np.diff(model.predict_interval(X), axis=1).mean() for X in (known, stranger)]
    assert (model.explain(stranger)["partner"] == 0).all()
    assert width[1] > 1.1 * width[0]


def test_a_value_missing_where_none_ever_was_widens_the_interval(world, model):
    known, gap = world.X.head(200), world.X.head(200).assign(tenure=np.nan)
    width = [np.diff(model.predict_interval(X), axis=1).mean() for X in (known, gap)]
    assert (model.explain(gap)["tenure"] == 0).all()
    assert width[1] > width[0]


def test_a_region_where_the_vendor_always_steps_in_has_no_support(make_world):
    world = make_world(6000, seed=6)
    region = np.where(np.arange(len(world.X)) % 8 == 0, "Gulf", "elsewhere")
    treatment = world.treatment | (region == "Gulf")
    model = UpliftModel().fit(world.X.assign(region=region), treatment, world.outcome, world.partner)
    supported = model.support(world.X.assign(region=region))
    assert not supported[region == "Gulf"].any()
    assert supported[region != "Gulf"].mean() > 0.9


def test_rows_of_one_deal_count_for_less_than_as_many_deals(make_world, monkeypatch):
    world = make_world(1500, seed=7)
    four = np.repeat(np.arange(1500), 4)
    args = (world.X.iloc[four], world.treatment[four], world.outcome[four], world.partner[four])
    seen = []
    measured = effect._design_effect
    monkeypatch.setattr(effect, "_design_effect", lambda *a: seen.append(measured(*a)) or seen[-1])
    UpliftModel(draws=30).fit(*args, deals=four)
    UpliftModel(draws=30).fit(*args)
    assert seen == [pytest.approx(4.0), 1.0]


def test_nuisances_that_were_made_elsewhere_are_used_as_they_are(make_world):
    world = make_world(1500, seed=10)
    args = (world.X, world.treatment, world.outcome, world.partner)
    own = UpliftModel(draws=30).fit(*args)
    given = UpliftModel(draws=30).fit(*args, nuisances=own.nuisances_)
    np.testing.assert_array_equal(given.predict(world.X), own.predict(world.X))
    flat = Nuisances(np.full(1500, 0.4), np.full(1500, 0.3), np.full(1500, 0.3), 0)
    other = UpliftModel(draws=30).fit(*args, nuisances=flat)
    assert other.nuisances_ is flat
    assert not np.allclose(other.predict(world.X), own.predict(world.X), atol=0.01)
    with pytest.raises(UserError, match=r"^nuisances are of 100 rows, X has 1500; give those of the same"):
        UpliftModel().fit(*args, nuisances=flat.take(np.arange(100)))


def test_it_is_a_scikit_learn_estimator(model):
    fresh = clone(model)
    assert fresh.get_params() == model.get_params()
    assert not hasattr(fresh, "scorecard_")
    assert UpliftModel(draws=17).set_params(random_state=3).get_params()["random_state"] == 3


def _few(world):
    return world.X.head(300), world.treatment[:300], world.outcome[:300], world.partner[:300]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"treatment": np.ones(300)}, "treatment has one value only (1); there is nothing to compare."),
        ({"outcome": np.zeros(300)}, "outcome has one value only (0); there is nothing to compare."),
        (
            {"treatment": np.arange(300)},
            "treatment should be 0 or 1 (or booleans) in every row; other numbers came.",
        ),
        ({"outcome": np.full(300, np.nan)}, "outcome is missing or infinite in 300 rows; leave them out."),
        (
            {"outcome": np.array(["won"] * 300)},
            "outcome should be numbers or booleans; came texts. Code it as 0 and 1.",
        ),
        ({"treatment": np.ones(3)}, "treatment has 3 values for 300 rows of X; give one for each row."),
        (
            {"groups": np.array(["P1", "P2"] * 150)},
            "2 groups (partners) came; cross-fitting needs at least 3, so that each is judged by a model "
            "that never saw it.",
        ),
    ],
)
def test_targets_that_cannot_be_learned_from_are_refused(world, change, message):
    X, treatment, outcome, groups = _few(world)
    given = {"treatment": treatment, "outcome": outcome, "groups": groups} | change
    with pytest.raises(UserError) as refused:
        UpliftModel().fit(X, **given)
    assert str(refused.value) == message


def test_columns_that_do_not_fit_are_refused(world, model):
    with pytest.raises(UserError, match=r"^X lacks 1 of the model's 7 columns: stage\. Give every column"):
        model.predict(world.X.drop(columns="stage"))
    with pytest.raises(
        UserError, match=r"^X: column 'size' should hold numbers, as in training; came texts\."
    ):
        model.predict(world.X.assign(size="12,000 EUR"))
    with pytest.raises(UserError, match=r"^X: column 'size' holds infinite numbers"):
        model.predict(world.X.assign(size=np.inf))


def test_columns_may_come_in_any_order_with_others_between(world, model):
    mixed = world.X[world.X.columns[::-1]].assign(unrelated=1)
    np.testing.assert_array_equal(model.predict(mixed), model.predict(world.X))


def test_constant_and_empty_columns_do_no_harm(make_world):
    world = make_world(1500, seed=8)
    X = world.X.assign(same=1.0, none=np.nan, one_level="x", no_level=pd.Series([None] * 1500, dtype="str"))
    model = UpliftModel(draws=40).fit(X, world.treatment, world.outcome, world.partner)
    assert (model.explain(X)[["same", "none", "one_level", "no_level"]].abs().max() < 1e-9).all()


def weights_for(world, seed=0):
    """A third of the outcomes without the vendor are of another choice; the others count for more."""
    rng = np.random.default_rng(seed)
    return np.where(world.treatment, 1.0, (rng.random(len(world.outcome)) < 2 / 3) * 1.5)


def test_outcomes_that_do_not_count_leave_no_trace(make_world):
    world = make_world(1200, seed=21)
    weight = weights_for(world)
    turned = np.where(weight > 0, world.outcome, 1 - world.outcome)
    flat = Nuisances(np.full(1200, 0.4), np.full(1200, 0.3), np.full(1200, 0.35), 0)
    first, second = (
        UpliftModel(draws=20, most_pairs=2).fit(
            world.X, world.treatment, y, world.partner, nuisances=flat, outcome_weight=weight
        )
        for y in (world.outcome, turned)
    )
    assert (turned != world.outcome).sum() > 200
    np.testing.assert_allclose(first.predict(world.X), second.predict(world.X), atol=1e-9)


def test_weights_go_with_their_rows(make_world):
    world = make_world(1500, seed=22)
    weight = weights_for(world)
    mixed = np.random.default_rng(3).permutation(1500)
    first, second = (
        UpliftModel(draws=20, most_pairs=2).fit(
            world.X.iloc[order],
            world.treatment[order],
            world.outcome[order],
            world.partner[order],
            outcome_weight=weight[order],
        )
        for order in (np.arange(1500), mixed)
    )
    np.testing.assert_allclose(first.predict(world.X), second.predict(world.X), atol=1e-9)
    shuffled = UpliftModel(draws=20, most_pairs=2).fit(
        world.X,
        world.treatment,
        world.outcome,
        world.partner,
        outcome_weight=np.where(world.treatment, 1.0, weights_for(world, seed=1)),
    )
    assert np.abs(first.predict(world.X) - shuffled.predict(world.X)).max() > 1e-3


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(10), "outcome_weight has 10 values for 500 rows; give one for each."),
        (
            np.full(500, np.nan),
            "outcome_weight should be 0 or more in every row; smaller or unknown ones came.",
        ),
        (
            np.full(500, -1.0),
            "outcome_weight should be 0 or more in every row; smaller or unknown ones came.",
        ),
        (np.zeros(500), "outcome_weight is 0 for every row of stepping in; its outcome can't be learned."),
    ],
)
def test_weights_that_cannot_be_meant_are_refused(make_world, weight, message):
    world = make_world(500, seed=23)
    with pytest.raises(UserError) as caught:
        UpliftModel().fit(world.X, world.treatment, world.outcome, outcome_weight=weight)
    assert str(caught.value) == message

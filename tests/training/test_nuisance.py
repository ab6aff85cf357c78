import numpy as np
import pytest

from features.problems import UserError
from training.columns import ColumnKinds
from training.folds import grouped_folds
from training.nuisance import Nuisances, cross_fit, scores
from training.rows import read_rows


def test_a_partner_is_predicted_only_by_models_that_never_saw_it():
    """A partner whose deals are all won is not known to be a winner by its own rows' predictions."""
    rng = np.random.default_rng(0)
    n, partner = 3000, np.repeat(np.arange(30), 100)
    winner = partner < 10
    outcome = (rng.random(n) < np.where(winner, 0.95, 0.05)).astype(float)
    treatment = rng.random(n) < 0.5
    order = rng.permutation(30)[partner].astype(float)  # names the partner, in no order
    grouped = cross_fit(np.column_stack([order]), [False], treatment, outcome, partner)
    rowwise = cross_fit(np.column_stack([order]), [False], treatment, outcome, np.arange(n))
    gap = [np.corrcoef(m.step_back, outcome)[0, 1] for m in (grouped, rowwise)]
    assert gap[1] > 0.7
    assert gap[0] < 0.4


def test_folds_keep_groups_whole_and_do_not_depend_on_the_order_of_rows():
    groups = np.random.default_rng(1).integers(0, 20, 500)
    fold = grouped_folds(groups, 3)
    assert all(len(set(fold[groups == g])) == 1 for g in range(20))
    assert np.bincount(fold).min() > 120
    mixed = np.random.default_rng(2).permutation(500)
    np.testing.assert_array_equal(grouped_folds(groups[mixed], 3), fold[mixed])


def test_fewer_groups_than_folds_are_refused():
    with pytest.raises(UserError, match=r"^1 group \(partners\) came; cross-fitting needs at least 3"):
        grouped_folds(np.zeros(10, dtype=int), 3)


def test_scores_are_unbiased_when_either_nuisance_is_right():
    rng = np.random.default_rng(3)
    n = 200_000
    x = rng.normal(size=n)
    e = 1 / (1 + np.exp(-x))
    back, step_in = 0.4 - 0.1 * np.tanh(x), 0.45 - 0.05 * np.tanh(x)
    t = rng.random(n) < e
    y = (rng.random(n) < np.where(t, step_in, back)).astype(float)
    truth = np.mean(step_in - back)
    half = np.full(n, 0.5)
    for wrong in (Nuisances(e, half, half, 0), Nuisances(half, back, step_in, 0)):
        assert abs(scores(wrong, t, y).doubly_robust.mean() - truth) < 0.006
    both_wrong = scores(Nuisances(half, half, half, 0), t, y).doubly_robust.mean()
    assert abs(both_wrong - truth) > 0.02


def test_weights_are_the_inverse_variances_of_the_scores():
    rng = np.random.default_rng(4)
    n = 400_000
    e, back, step_in = np.full(n, 0.1), np.full(n, 0.3), np.full(n, 0.5)
    t = rng.random(n) < e
    y = (rng.random(n) < np.where(t, step_in, back)).astype(float)
    view = scores(Nuisances(e, back, step_in, 0), t, y)
    assert view.doubly_robust.var() == pytest.approx(1 / view.doubly_robust_weight[0], rel=0.03)


def test_propensities_are_clipped_and_the_clipped_are_counted():
    rng = np.random.default_rng(5)
    region = np.repeat([0.0, 1.0], 1500)
    treatment = np.where(region == 1, True, rng.random(3000) < 0.5)
    made = cross_fit(region[:, None], [False], treatment, (rng.random(3000) < 0.5) * 1.0, np.arange(3000))
    assert made.propensity.max() == 0.98
    assert made.clipped == 1500


def test_columns_with_many_levels_are_left_to_the_effect_model(make_world):
    world = make_world(500, seed=0, partners=200)
    kinds = ColumnKinds.of(world.X)
    rows = read_rows(world.X, kinds, 300, world.treatment, world.outcome, None, None)
    matrix, is_code = rows.nuisance_matrix()
    assert matrix.shape == (500, len(world.X.columns) - 1)
    assert sum(is_code) == 1


def partly_told(n=200_000, seed=6):
    """The deals left alone that would have been lost are joined later more often, and then won."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    trouble = rng.random(n) < 0.5
    e = 1 / (1 + np.exp(-x))
    back, step_in = 0.5 - 0.1 * np.tanh(x), 0.6 - 0.1 * np.tanh(x)
    t = rng.random(n) < e
    chance = np.where(t, step_in, back + np.where(trouble, -0.2, 0.2))
    stays = np.where(trouble, 0.3, 0.9)
    is_told = t | (rng.random(n) < stays)
    y = np.where(is_told, rng.random(n) < chance, 1.0).astype(float)
    weight = np.where(t, 1.0, is_told / stays)
    return e, back, step_in, t, y, weight


def averages(view):
    """What each score says of an effect that is the same for all."""
    pairs = [*view.robust, (view.imputed, view.imputed_weight)]
    return [float(np.average(score, weights=w)) for score, w in pairs]


def test_every_score_finds_the_effect_where_some_outcomes_are_of_another_choice():
    e, back, step_in, t, y, weight = partly_told()
    known = Nuisances(e, back, step_in, 0)
    assert averages(scores(known, t, y, weight)) == pytest.approx([0.1] * 3, abs=0.008)
    wrong = scores(Nuisances(e, back + 0.2, step_in, 0), t, y, weight).doubly_robust
    assert wrong.mean() == pytest.approx(0.1, abs=0.01)
    for told_as in (np.ones(len(t)), (weight > 0).astype(float)):  # all as they are; the joined left out
        assert all(abs(found - 0.1) > 0.04 for found in averages(scores(known, t, y, told_as))[:2])


def test_the_outcome_models_learn_from_what_counts_for_as_much_as_it_counts():
    e, back, _, t, y, weight = partly_told(40_000, seed=7)
    x = np.log(e / (1 - e))[:, None]
    made = cross_fit(x, [False], t, y, np.arange(len(t)), outcome_weight=weight)
    assert np.mean(made.step_back - back) == pytest.approx(0, abs=0.012)
    left_out = cross_fit(x, [False], t, y, np.arange(len(t)), outcome_weight=(weight > 0).astype(float))
    assert np.mean(left_out.step_back - back) > 0.06
    np.testing.assert_array_equal(made.propensity, left_out.propensity)


def test_outcomes_that_count_once_each_change_nothing():
    e, back, step_in, t, y, _ = partly_told(5_000)
    ones, x = np.ones(len(t)), np.log(e / (1 - e))[:, None]
    plain = cross_fit(x, [False], t, y, np.arange(len(t)))
    weighted = cross_fit(x, [False], t, y, np.arange(len(t)), outcome_weight=ones)
    np.testing.assert_allclose(weighted.step_back, plain.step_back, atol=1e-9)
    known = Nuisances(e, back, step_in, 0)
    np.testing.assert_allclose(
        scores(known, t, y, ones).residual, scores(known, t, y).residual, rtol=1e-12, atol=1e-12
    )


def test_the_weight_of_a_score_knows_how_unevenly_outcomes_count():
    rng = np.random.default_rng(8)
    n = 400_000
    e, back, step_in = np.full(n, 0.3), np.full(n, 0.3), np.full(n, 0.5)
    t = rng.random(n) < e
    y = (rng.random(n) < np.where(t, step_in, back)).astype(float)
    weight = np.where(t, 1.0, (rng.random(n) < 0.25) / 0.25)
    view = scores(Nuisances(e, back, step_in, 0), t, y, weight)
    assert view.doubly_robust.var() == pytest.approx(1 / view.doubly_robust_weight[0], rel=0.03)

import numpy as np
import pytest

from training.targeting import autoc, qini, toc_curve


def test_autoc_is_a_quarter_for_uniform_effects_in_their_true_order():
    rng = np.random.default_rng(3)
    tau = rng.uniform(0, 1, 40_000)
    noisy = tau + rng.normal(0, 0.5, len(tau))
    area = autoc(tau, noisy, np.arange(len(tau)))
    assert area.value == pytest.approx(0.25, abs=3 * area.se)
    assert area.se < 0.006


def test_autoc_is_the_plain_mean_of_toc():
    rng = np.random.default_rng(4)
    priority, phi = rng.normal(size=200), rng.normal(size=200)
    ordered = phi[np.argsort(-priority)]
    toc = np.cumsum(ordered) / np.arange(1, 201) - phi.mean()
    assert autoc(priority, phi, np.arange(200)).value == pytest.approx(toc.mean(), abs=1e-12)


def test_the_toc_curve_is_what_autoc_averages():
    rng = np.random.default_rng(5)
    priority, groups = rng.normal(size=400), np.arange(400)
    phi = priority + rng.normal(size=400)
    curve = toc_curve(priority, phi, groups, n_points=400)
    mean = np.mean([point["value"] for point in curve])
    assert mean == pytest.approx(autoc(priority, phi, groups).value, abs=1e-12)
    assert curve[-1]["value"] == pytest.approx(0, abs=1e-12)


def test_the_order_of_rows_within_a_tie_does_not_matter():
    rng = np.random.default_rng(6)
    priority, phi, groups = (
        rng.integers(0, 4, 300).astype(float),
        rng.normal(size=300),
        rng.integers(0, 9, 300),
    )
    first = autoc(priority, phi, groups)
    for _ in range(3):
        order = rng.permutation(300)
        again = autoc(priority[order], phi[order], groups[order])
        assert (again.value, again.se) == pytest.approx((first.value, first.se), abs=1e-12)


def test_a_ranking_that_ranks_nothing_has_no_area():
    area = autoc(np.ones(50), np.random.default_rng(0).normal(size=50), np.arange(50))
    assert area.value == 0
    assert area.p_positive == 1


def test_the_standard_error_of_autoc_is_its_spread_over_worlds():
    areas = []
    rng = np.random.default_rng(7)
    for _ in range(300):
        groups = np.repeat(np.arange(40), 20)
        tau = rng.uniform(0, 1, 800) + rng.normal(0, 0.3, 40)[groups]
        areas.append(autoc(tau, tau + rng.normal(0, 0.5, 800), groups))
    spread = np.std([area.value for area in areas])
    assert np.mean([area.se for area in areas]) == pytest.approx(spread, rel=0.15)


def test_qini_is_a_twelfth_for_uniform_effects_in_their_true_order():
    rng = np.random.default_rng(3)
    tau = rng.uniform(0, 1, 40_000)
    found = qini(tau, tau + rng.normal(0, 0.5, len(tau)), np.arange(len(tau)))
    assert found.value == pytest.approx(1 / 12, abs=3 * found.se)
    assert found.se < 0.002


def test_qini_is_the_mean_of_the_share_times_toc():
    rng = np.random.default_rng(4)
    priority, phi = rng.normal(size=200), rng.normal(size=200)
    share = np.arange(1, 201) / 200
    toc = np.cumsum(phi[np.argsort(-priority)]) / np.arange(1, 201) - phi.mean()
    assert qini(priority, phi, np.arange(200)).value == pytest.approx(np.mean(share * toc), abs=1e-12)


def test_a_mean_of_toc_weighted_by_one_over_q_is_another_figure_that_grows_with_the_number_of_decisions():
    found = {}
    for n in (400, 40_000):
        tau = (np.arange(n) + 0.5) / n
        share = np.arange(1, n + 1) / n
        toc = np.cumsum(tau[::-1]) / np.arange(1, n + 1) - tau.mean()
        assert (
            autoc(tau, tau, np.arange(n)).value == pytest.approx(toc.mean()) == pytest.approx(0.25, abs=0.002)
        )
        found[n] = np.mean(toc / share)
    assert found[400] == pytest.approx((np.log(400) + np.euler_gamma - 1) / 2, abs=0.01)  # 2.8, not 0.25
    assert found[40_000] == pytest.approx((np.log(40_000) + np.euler_gamma - 1) / 2, abs=0.01)  # 5.1


def test_the_standard_error_of_qini_is_its_spread_over_worlds():
    rng = np.random.default_rng(7)
    found = []
    for _ in range(300):
        groups = np.repeat(np.arange(40), 20)
        tau = rng.uniform(0, 1, 800) + rng.normal(0, 0.3, 40)[groups]
        found.append(qini(tau, tau + rng.normal(0, 0.5, 800), groups))
    spread = np.std([each.value for each in found])
    assert np.mean([each.se for each in found]) == pytest.approx(spread, rel=0.15)


@pytest.mark.parametrize("area", [autoc, qini])
def test_models_of_different_blocks_are_not_compared_with_each_other(area):
    rng = np.random.default_rng(8)
    n = 3000
    blocks, groups, tau = rng.integers(0, 3, n), rng.integers(0, 40, n), rng.normal(size=n)
    phi = tau + 2 * blocks + rng.normal(size=n)
    first = area(tau, phi, groups, blocks)
    again = area((1 + blocks) * tau - 5 * blocks, phi, groups, blocks)  # the same order in each block
    assert (again.value, again.se) == pytest.approx((first.value, first.se))
    parts = [area(tau[blocks == k], phi[blocks == k], groups[blocks == k]).value for k in range(3)]
    assert first.value == pytest.approx(np.dot(parts, np.bincount(blocks) / n))
    curves = [
        [point["value"] for point in toc_curve(order, phi, groups, blocks=blocks)]
        for order in (tau, (1 + blocks) * tau - 5 * blocks)
    ]
    assert curves[0] == pytest.approx(curves[1])
    assert np.mean(curves[0]) > 0


def test_a_partner_in_many_blocks_is_one_cluster():
    rng = np.random.default_rng(9)
    groups, blocks = np.tile(np.arange(30), 40), np.repeat(np.arange(4), 300)
    taste, order = rng.normal(size=30)[groups], rng.normal(size=30)[groups]
    phi = taste + rng.normal(0, 0.2, 1200)
    joint = autoc(order, phi, groups, blocks)
    apart = autoc(order, phi, groups + 30 * blocks, blocks)
    assert (joint.n_groups, apart.n_groups) == (30, 120)
    assert joint.se > 1.5 * apart.se

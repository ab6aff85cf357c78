import math

import numpy as np
import pytest

from training import clustered
from training.clustered import from_influence, regress
from training.few_clusters import correction, intra_class_correlation


def unequal(seed=0, sizes=(40, 12, 9, 7, 5, 3, 2, 1, 1)):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    return rng, codes, rng.normal(size=len(codes)) + rng.normal(size=len(sizes))[codes]


def by_hand(codes, design, a, alike):
    """Factor and degrees of freedom from whole matrices."""
    n = len(codes)
    same = codes[:, None] == codes[None, :]
    omega = (1 - alike) * np.eye(n) + alike * same
    left = np.eye(n) - design @ np.linalg.pinv(design)
    each = np.where(codes[:, None] == np.arange(codes.max() + 1), a[:, None], 0.0)
    b, independent = each.T @ left @ omega @ left @ each, each.T @ left @ each
    df = np.trace(independent) ** 2 / np.trace(independent @ independent)
    return a @ omega @ a / np.trace(b), df


def test_the_correction_is_that_of_whole_matrices():
    rng, codes, x = unequal()
    y = rng.normal(size=len(codes)) + rng.normal(size=9)[codes]
    design = np.column_stack([np.ones(len(codes)), x])
    rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    a = np.linalg.pinv(design)[1]
    found = correction(codes, 7 * a, design, rest)
    factor, df = by_hand(codes, design, a, intra_class_correlation(rest, codes))
    assert (found.factor, found.df) == (pytest.approx(factor), pytest.approx(df))
    assert found.factor > 1.2


def test_of_equal_partners_the_mean_has_one_degree_of_freedom_less():
    codes = np.repeat(np.arange(12), 10)
    found = correction(codes, np.ones(120), None, np.random.default_rng(1).normal(size=120))
    assert (found.factor, found.df) == (pytest.approx(12 / 11), pytest.approx(11))


@pytest.mark.parametrize("planted", [0.0, 0.15, 0.6])
def test_how_alike_the_decisions_of_a_partner_are_is_found(planted):
    rng = np.random.default_rng(2)
    codes = np.repeat(np.arange(600), 10)
    shared = rng.normal(0, math.sqrt(planted), 600)[codes]
    found = intra_class_correlation(shared + rng.normal(0, math.sqrt(1 - planted), 6000), codes)
    assert found == pytest.approx(planted, abs=0.03)


def test_what_comes_from_one_partner_alone_has_no_interval():
    groups = np.repeat([0, 1, 2], 10)
    found = from_influence(0.1, np.where(groups == 0, 1.0, 0.0), groups, np.where(groups == 0, 1.0, 0.0))
    assert (found.lo, found.hi, found.p_positive) == (-math.inf, math.inf, 1.0)


def test_coefficients_are_those_of_least_squares():
    rng, codes, x = unequal(3)
    columns = np.column_stack([np.ones(len(x)), x, rng.normal(size=len(x))])
    y = rng.normal(size=len(x))
    expected = np.linalg.lstsq(columns, y, rcond=None)[0]
    assert [each.value for each in regress(y, columns, codes)] == pytest.approx(expected)


def test_the_standard_error_of_a_slope_is_its_spread_over_worlds():
    rng = np.random.default_rng(4)
    sizes = [120, 60, *[10] * 28]
    groups = np.repeat(np.arange(30), sizes)
    x = rng.normal(size=len(groups)) + rng.normal(size=30)[groups]
    found = [
        clustered.slope(x, rng.normal(size=len(groups)) + rng.normal(size=30)[groups], groups)
        for _ in range(400)
    ]
    spread = np.std([each.value for each in found])
    assert math.sqrt(np.mean([each.se**2 for each in found])) == pytest.approx(spread, rel=0.15)


def test_the_slope_within_blocks_does_not_see_what_lies_between_them():
    rng = np.random.default_rng(5)
    blocks, groups = np.repeat([0, 1], 300), rng.integers(0, 20, 600)
    x = rng.normal(size=600)
    y = 0.5 * x + 4 * blocks + rng.normal(0, 0.1, 600)
    found = clustered.slope(x + 3 * blocks, y, groups, blocks)
    assert found.value == pytest.approx(0.5, abs=0.02)
    assert clustered.slope(x + 3 * blocks, y, groups).value > 1


@pytest.mark.parametrize("labels", [["b", "a", "b"], [7, 0, 7], [10**12, 5, 10**12], [-1, -2, -1]])
def test_partners_are_numbered_without_gaps(labels):
    codes = clustered.codes_of(labels)
    assert codes[0] == codes[2] != codes[1]
    assert set(codes) == {0, 1}


def test_counts_by_partner_say_what_their_rows_say():
    rng = np.random.default_rng(6)
    partner = np.repeat(np.arange(12), rng.integers(1, 60, 12))
    joined = rng.random(len(partner)) < 0.4
    won = (rng.random(len(partner)) < 0.3 + 0.02 * partner).astype(float)
    counts = [
        [np.sum(at & side & of) for side in (joined, ~joined) for of in (True, won == 1)]
        for at in (partner == c for c in range(12))
    ]
    found, expected = clustered.difference_of_shares(counts), clustered.difference(won, joined, partner)
    assert found.value == pytest.approx(expected.value)
    assert (found.se, found.df) == (pytest.approx(expected.se), pytest.approx(expected.df))
    assert (found.n, found.n_groups) == (len(partner), 12)

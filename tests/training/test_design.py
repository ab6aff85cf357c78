"""Sums over rows, computed a second way."""

import numpy as np
import pytest

from training import additive
from training.basis import Levels, Place, learn_levels, learn_number
from training.design import add_up, cross, gram, make_design

N = 5000


@pytest.fixture(scope="module")
def made():
    """Numbers, a yes/no, few levels, many levels twice; missing values; pairs of every kind."""
    rng = np.random.default_rng(0)

    def gaps(values):
        return [None if gone else str(v) for v, gone in zip(values, rng.random(N) < 0.1, strict=True)]

    columns = {
        "amount": np.where(rng.random(N) < 0.1, np.nan, rng.normal(size=N)),
        "count": rng.poisson(2.0, N).astype(float),
        "first": gaps(np.where(rng.random(N) < 0.4, "true", "false")),
        "stage": gaps(rng.choice(["a", "b", "c"], N)),
        "partner": gaps(rng.integers(0, 40, N)),
        "city": gaps(rng.integers(0, 90, N)),
    }
    kinds = ["number", "number", "boolean", "category", "category", "category"]
    features = [
        learn_number(name, values) if kind == "number" else learn_levels(name, kind, values, 50)
        for (name, values), kind in zip(columns.items(), kinds, strict=True)
    ]
    places = [feature.locate(columns[feature.name]) for feature in features]
    design = make_design(features, places, rng.random(N)).with_pairs([(0, 1), (0, 3), (2, 3)])
    return design, places, design.rows(places, slice(0, N)), rng


def test_sums_level_by_level_equal_the_product_of_the_whole_design(made):
    design, places, rows, rng = made
    weight, y = rng.random(N), rng.normal(size=N)
    assert rows.shape == (N, design.n_columns)
    np.testing.assert_allclose(gram(design, places, weight), (rows * weight[:, None]).T @ rows, atol=1e-9)
    np.testing.assert_allclose(cross(design, places, y), y @ rows, atol=1e-9)


def test_look_ups_equal_the_design_times_coefficients(made):
    design, places, rows, rng = made
    beta = rng.normal(size=(design.n_columns, 2))
    np.testing.assert_allclose(
        np.column_stack([design.apply(places, column) for column in beta.T]), rows @ beta, atol=1e-9
    )
    np.testing.assert_allclose(design.apply(places, beta[:, 0]), rows @ beta[:, 0], atol=1e-9)


def test_sums_of_partitions_add_up_to_those_of_all_rows(made):
    design, places, _, rng = made
    y, w = rng.normal(size=N), rng.random(N)
    whole = add_up(design, places, [(y, w)])
    cut = [slice(0, 1700), slice(1700, N)]
    first, second = (add_up(design, [p.take(at) for p in places], [(y[at], w[at])]) for at in cut)
    np.testing.assert_allclose((first + second).gram, whole.gram, atol=1e-9)
    np.testing.assert_allclose((first + second).cross, whole.cross, atol=1e-9)
    assert (first + second).square == pytest.approx(whole.square)
    assert (first + second).n == N


def test_adding_up_is_the_transpose_of_reading(made):
    design, places, _, rng = made
    values = rng.normal(size=N)
    for place, feature in zip(places, design.features, strict=True):
        table = rng.normal(size=(feature.n_rows, 2))
        total = place.add_up(values, feature.n_rows)
        np.testing.assert_allclose(total @ table, values @ place.read(table), atol=1e-9)


def test_starting_from_a_sample_of_the_rows_leads_to_the_same_probabilities(made, monkeypatch):
    design, places, _, rng = made
    target = (rng.random(N) < 0.3).astype(float)
    whole = additive.fit_additive(design, places, target, logistic=True)
    monkeypatch.setattr(additive, "_SAMPLE", N // 10)
    by_sample = additive.fit_additive(design, places, target, logistic=True)
    for one, other in zip(whole.tables, by_sample.tables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


def test_a_cell_takes_at_most_six_bytes(made):
    _, places, _, _ = made
    for place in places:
        assert place.low.itemsize + (0 if place.weight is None else place.weight.itemsize) <= 6


def test_texts_and_their_codes_are_located_alike():
    texts = ["b", None, "a", "zz", "b"]
    feature = learn_levels("stage", "category", ["a", "b", "b", None], 10)
    by_code = feature.locate(Levels(np.array([2, -1, 0, 1, 2]), ("a", "zz", "b")))
    np.testing.assert_array_equal(feature.locate(texts).low, [1, 2, 0, 3, 1])
    np.testing.assert_array_equal(by_code.low, feature.locate(texts).low)


def test_a_place_between_knots_reads_between_them():
    feature = learn_number("x", np.array([0.0, 1.0, 3.0]))
    table = np.array([10.0, 20.0, 40.0, -1.0, -2.0])
    place = feature.locate(np.array([-5.0, 0.5, 2.0, 3.0, 99.0, np.nan]))
    np.testing.assert_allclose(place.read(table), [10.0, 15.0, 30.0, 40.0, 40.0, -1.0])
    assert isinstance(place.take(slice(0, 2)), Place)

"""With many features each one brings fewer columns."""

import numpy as np
import pytest

from training.basis import learn_levels, learn_number
from training.budget import MOST_COLUMNS, hats, most_levels, with_fewer_levels
from training.design import make_design

N = 3000
RNG = np.random.default_rng(0)


def numbers(count):
    return [(f"x{i}", RNG.normal(size=N)) for i in range(count)]


def ids(count, levels):
    return [(f"id{i}", RNG.integers(0, levels, N).astype(str).tolist()) for i in range(count)]


def features_of(columns):
    return [
        learn_levels(name, "category", values, 300)
        if isinstance(values, list)
        else learn_number(name, values)
        for name, values in columns
    ]


@pytest.mark.parametrize(
    ("columns", "n_hats"),
    [
        (numbers(20), 9),
        (numbers(20) + ids(2, 100), 9),
        (numbers(150), 7),
        (numbers(300), 3),
        (numbers(600), 0),
        (ids(10, 200), 9),
        (ids(10, 200) + numbers(100), 7),
    ],
)
def test_the_design_stays_within_the_budget(columns, n_hats):
    features = features_of(columns)
    places = [f.locate(values) for f, (_, values) in zip(features, columns, strict=True)]
    most = most_levels(features)
    fitting = [with_fewer_levels(f, p, most) for f, p in zip(features, places, strict=True)]
    assert hats(features) == n_hats
    design = make_design([f for f, _ in fitting], [p for _, p in fitting], np.ones(N))
    assert design.n_columns <= MOST_COLUMNS + 1
    assert design.n_columns > 0.3 * min(MOST_COLUMNS, sum(f.n_known for f in features))


def test_the_commonest_levels_are_kept_and_the_others_count_as_never_seen():
    values = ["a"] * 3 + ["b"] * 9 + ["c"] * 5 + ["d"] + [None] * 2
    feature = learn_levels("id", "category", values, 300)
    fewer, place = with_fewer_levels(feature, feature.locate(values), 2)
    assert fewer.levels == ("b", "c")
    np.testing.assert_array_equal(place.low, fewer.locate(values).low)


def test_levels_of_few_rows_are_left_out_only_where_levels_are_many():
    many = [str(i) for i in range(70) for _ in range(9 + i % 2)]
    assert len(learn_levels("id", "category", many, 300).levels) == 35
    few = [str(i) for i in range(40) for _ in range(9 + i % 2)]
    assert len(learn_levels("id", "category", few, 300).levels) == 40

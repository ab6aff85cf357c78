"""Tables that nobody would draw up and somebody will send: learned from, or refused in a sentence."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from features.problems import UserError
from training import UpliftModel, budget
from training.nuisance import Nuisances

N = 600
RNG = np.random.default_rng(0)
TREATMENT = RNG.random(N) < 0.4
OUTCOME = (RNG.random(N) < 0.4).astype(float)
SIZE = RNG.normal(size=N)
WORD = RNG.choice(["a", "b", "c"], N)


FLAT = Nuisances(np.full(N, 0.4), np.full(N, 0.4), np.full(N, 0.4), 0)  # spares the boosting


def fit(X, treatment=TREATMENT, outcome=OUTCOME, nuisances=FLAT):
    return UpliftModel(draws=10, most_pairs=2).fit(X, treatment, outcome, nuisances=nuisances)


def gaps(values, missing=None):
    """Every seventh value missing, in a column of objects."""
    return pd.Series([missing if i % 7 == 0 else v for i, v in enumerate(values)], dtype=object)


COLUMNS = {
    "constant": np.ones(N),
    "all missing": np.full(N, np.nan),
    "all missing texts": pd.Series([None] * N, dtype="str"),
    "nearly always one number": np.where(np.arange(N) == 5, 7.0, 0.0),
    "every text its own": np.arange(N).astype(str),
    "texts of many lengths": np.char.multiply("x", np.arange(N) % 50),
    "empty texts": np.where(SIZE > 0, "", " "),
    "mixed types": pd.Series([1, "1", 2.5, None, True, "ü", b"x"] * (N // 7) + [0] * (N % 7), dtype=object),
    "objects that are numbers": gaps([float(v) for v in SIZE]),
    "objects that are yes and no": gaps([bool(v > 0) for v in SIZE]),
    "decimals": gaps([Decimal(f"{v:.2f}") for v in SIZE]),
    "integers as categories": pd.Categorical(np.arange(N) % 5),
    "numbers with gaps as categories": pd.Categorical(gaps(np.arange(N) % 5, np.nan)),
    "levels that never occur": pd.Categorical(WORD, categories=["a", "b", "c", "never", "nowhere"]),
    "nullable integers": pd.Series(np.arange(N) % 9, dtype="Int64").mask(SIZE > 1),
    "nullable floats": pd.Series(SIZE, dtype="Float32").mask(SIZE > 1),
    "nullable yes and no": pd.Series(SIZE > 0, dtype="boolean").mask(np.abs(SIZE) > 1),
    "yes and no of Arrow": pd.Series(SIZE > 0, dtype="bool[pyarrow]").mask(np.abs(SIZE) > 1),
    "numbers of Arrow": pd.Series(SIZE, dtype="double[pyarrow]").mask(SIZE > 1),
    "integers of Arrow": pd.Series(np.arange(N) % 9, dtype="int8[pyarrow]").mask(SIZE > 1),
    "texts of Arrow": pd.Series(WORD, dtype="string[pyarrow]").mask(SIZE > 1),
    "huge numbers": 1e300 * np.sign(SIZE) * (np.abs(SIZE) > 0.5),
    "tiny numbers": 5e-324 * np.round(SIZE),
    "small steps far from zero": 1e9 + np.round(SIZE),
    "negative zero": np.where(SIZE > 0, 0.0, -0.0),
    "unsigned and small": (np.arange(N) % 200).astype("uint8"),
    "half precision": SIZE.astype("float16"),
    "one level in nearly all rows": np.where(np.arange(N) < 3, "rare", "usual"),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_this_kind_is_learned_from_and_asked_about(name):
    X = pd.DataFrame({"size": SIZE, "odd": COLUMNS[name]})
    model = fit(X)
    answers = model.answers(X)
    for values in (answers.uplift, answers.sd, answers.win, answers.propensity):
        assert np.isfinite(values).all()
    explained = model.explain(X)
    np.testing.assert_allclose(model.baseline_ + explained.sum(axis=1), answers.uplift, atol=1e-12)
    one_by_one = np.concatenate([model.predict(X.iloc[[i]]) for i in range(5)])
    np.testing.assert_allclose(one_by_one, answers.uplift[:5], atol=1e-12)


def test_all_of_them_at_once_go_through_the_nuisances_too():
    X = pd.DataFrame(COLUMNS)
    model = fit(X, nuisances=None)
    assert np.isfinite(model.nuisances_.propensity).all()
    assert np.isfinite(model.predict(X)).all()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pd.date_range("2024-01-01", periods=N), "X: column 'odd' holds dates or times"),
        (pd.Series([pd.Timestamp("2024-01-01").date()] * N), "X: column 'odd' holds dates or times"),
        (pd.to_timedelta(np.arange(N), unit="D"), "X: column 'odd' holds dates or times"),
        (
            pd.Series(pd.date_range("2024", periods=N)).astype("timestamp[us][pyarrow]"),
            "X: column 'odd' holds d",
        ),
        (np.where(SIZE > 0, np.inf, 1.0), "X: column 'odd' holds infinite numbers, or some beyond 1e+300"),
        (np.full(N, -1e307), "X: column 'odd' holds infinite numbers, or some beyond 1e+300"),
        (SIZE + 1j, "X: column 'odd': Complex data not supported"),
    ],
)
def test_a_column_that_can_mean_nothing_is_refused_by_name(column, message):
    with pytest.raises(UserError) as refused:
        fit(pd.DataFrame({"size": SIZE, "odd": column}))
    assert str(refused.value).startswith(message)


def test_numbers_and_yes_no_mean_the_same_in_every_type():
    plain = pd.DataFrame({"size": np.round(SIZE, 2), "yes": SIZE > 0, "k": np.arange(N) % 4})
    wanted = fit(plain).predict(plain)
    for other in (
        plain.convert_dtypes(),
        plain.convert_dtypes(dtype_backend="pyarrow"),
        plain.astype(object),
        plain.astype({"size": "Float64", "k": "int8"}),
    ):
        np.testing.assert_array_equal(fit(other).predict(other), wanted)
        np.testing.assert_array_equal(fit(plain).predict(other), wanted)


def test_an_integer_level_is_the_same_when_a_missing_neighbour_turns_it_to_a_float():
    X = pd.DataFrame({"size": SIZE, "team": pd.Categorical(np.arange(N) % 5)})
    model = fit(X)
    as_floats = X.assign(team=(np.arange(N) % 5).astype(float))
    np.testing.assert_array_equal(model.predict(as_floats), model.predict(X))


def test_names_need_not_be_texts_but_must_differ_as_texts():
    X = pd.DataFrame({0: SIZE, ("a", 1): WORD, None: SIZE**2})
    assert list(fit(X).explain(X).columns) == ["0", "('a', 1)", "None"]
    with pytest.raises(UserError, match=r"^X has the column '1' twice; rename or drop one\.$"):
        fit(pd.DataFrame([[1.0, 2.0]] * N, columns=[1, "1"]))


@pytest.mark.parametrize("share", [0.02, 0.98])
def test_a_choice_that_is_nearly_always_the_same_is_learned_from_and_widens_the_interval(share):
    X = pd.DataFrame({"size": SIZE, "word": WORD})
    rare = np.random.default_rng(1).random(N) < share
    model, usual = (fit(X, treated, nuisances=None) for treated in (rare, TREATMENT))
    assert np.isfinite(model.predict(X)).all()
    assert model.answers(X).sd.mean() > usual.answers(X).sd.mean()
    assert not model.support(X).all()


def test_an_outcome_that_nearly_always_is_the_same_is_learned_from():
    X = pd.DataFrame({"size": SIZE, "word": WORD})
    won_once = (np.arange(N) == 17).astype(float)
    outcomes = fit(X, outcome=won_once, nuisances=None).predict_outcomes(X)
    assert outcomes.min() >= 0
    assert outcomes.max() < 0.2


def test_rows_that_repeat_each_other_are_learned_from():
    X = pd.DataFrame({"size": np.round(SIZE), "word": WORD})
    ten = np.arange(N) % 10
    assert np.isfinite(fit(X.iloc[ten], nuisances=None).predict(X)).all()


def test_columns_beyond_the_budget_get_less_each_and_all_are_learned_from(monkeypatch):
    monkeypatch.setattr(budget, "MOST_COLUMNS", 150)
    rng = np.random.default_rng(2)
    X = pd.DataFrame(rng.normal(size=(N, 60))).assign(id=(np.arange(N) % 50).astype(str))
    tables = fit(X).scorecard_.tables()
    assert len(tables) == 61
    assert {len(table.xs) for table in tables if table.kind == "category"} == {30}


def test_more_columns_than_can_be_learned_from_are_refused():
    X = pd.DataFrame(np.zeros((N, 751)))
    with pytest.raises(UserError, match=r"^X has 751 columns; at most 750 can be learned from\. Leave out"):
        fit(X)

"""scikit-learn's own checks of an estimator, on the real code; and which are not run, and why."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_dataframe_column_names_consistency, parametrize_with_checks

from features.problems import UserError
from training import UpliftModel


class FitsXy(UpliftModel):
    """`UpliftModel` for checks that know only ``fit(X, y)``: every other row is treated, y is the outcome."""

    def fit(self, X, y):
        return super().fit(X, np.arange(np.shape(X)[0] if np.ndim(X) else 0) % 2, y)


NOT_APPLICABLE = {
    "check_requires_y_none": "it wants scikit-learn's sentence about y; ours is called outcome, and "
    "the sentence says so (tested below)",
}


@parametrize_with_checks(
    [FitsXy(draws=3, most_pairs=1)], expected_failed_checks=lambda _: NOT_APPLICABLE, xfail_strict=True
)
def test_scikit_learn_has_nothing_to_object(estimator, check):
    """All that `check_estimator` runs for an estimator that is neither classifier nor regressor, save

    - `check_array_api_input`: skipped by scikit-learn itself, where SCIPY_ARRAY_API is not set;
    - those for classifiers, regressors, clusterers, transformers, outlier detectors and for sample weights,
      which scikit-learn leaves out by the estimator's tags: an uplift is none of these;
    - `check_dataframe_column_names_consistency`, which it leaves to its own tests: below.
    """
    check(estimator)


def test_a_data_frame_may_have_more_columns_in_another_order():
    """scikit-learn's check of names wants an error there. Ours are found by name, so that a table with more
    columns, or the same in another order, is answered alike; up to that point the check agrees."""
    with pytest.raises(AssertionError, match=r"^predict did not raise$"):
        check_dataframe_column_names_consistency("FitsXy", FitsXy(draws=3, most_pairs=1))


X = pd.DataFrame({"size": np.random.default_rng(0).normal(size=80), "word": list("abcd") * 20})
TREATMENT, OUTCOME = np.arange(80) % 2, (np.arange(80) % 3 == 0).astype(float)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_folds": 1}, "n_folds should be a whole number, 2 or more; came 1."),
        ({"draws": 0.5}, "draws should be a whole number, 2 or more; came 0.5."),
        ({"most_pairs": -1}, "most_pairs should be a whole number, 0 or more; came -1."),
        ({"most_levels": "all"}, "most_levels should be a whole number, 1 or more; came 'all'."),
        ({"least_propensity": 0.5}, "least_propensity should be at least 0 and below 0.5; came 0.5."),
    ],
)
def test_settings_are_checked_when_fitting_not_before(settings, message):
    model = UpliftModel(**settings)
    with pytest.raises(UserError) as refused:
        model.fit(X, TREATMENT, OUTCOME)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("treatment", "outcome", "message"),
    [
        (TREATMENT, None, "outcome is None; give one value for each of the 80 rows of X."),
        (TREATMENT, OUTCOME[:, None], "outcome should be a 1d array; came 2 dimensions."),
        (TREATMENT + 1j, OUTCOME, "treatment: Complex data not supported; give real numbers."),
    ],
)
def test_targets_of_another_shape_are_refused(treatment, outcome, message):
    with pytest.raises(UserError) as refused:
        UpliftModel().fit(X, treatment, outcome)
    assert str(refused.value) == message


@pytest.fixture(scope="module")
def fitted():
    return UpliftModel(draws=5).fit(X, TREATMENT, OUTCOME)


def test_a_pickled_model_answers_the_same(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict_interval(X), fitted.predict_interval(X))


def test_an_array_is_read_by_position(fitted):
    np.testing.assert_array_equal(fitted.predict(X.to_numpy(dtype=object)), fitted.predict(X))
    with pytest.raises(
        UserError, match=r"^X has 1 features, but UpliftModel is expecting 2 features as input\.$"
    ):
        fitted.predict(X[["size"]].to_numpy())


def test_an_array_has_no_feature_names(fitted):
    assert list(fitted.feature_names_in_) == ["size", "word"]
    refitted = clone(fitted).fit(X, TREATMENT, OUTCOME).fit(X.to_numpy(dtype=object), TREATMENT, OUTCOME)
    assert not hasattr(refitted, "feature_names_in_")
    assert refitted.n_features_in_ == 2


@pytest.mark.parametrize("ask", ["predict", "predict_interval", "predict_outcomes", "explain", "support"])
def test_what_is_not_fitted_says_so(ask):
    with pytest.raises(NotFittedError):
        getattr(UpliftModel(), ask)(X)


def test_a_random_state_may_be_drawn_from():
    first, same, other = (
        UpliftModel(draws=5, random_state=np.random.RandomState(seed)).fit(X, TREATMENT, OUTCOME).predict(X)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)

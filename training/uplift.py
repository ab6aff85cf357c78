"""UpliftModel: the effect of stepping in, deal by deal, with its doubt and its reasons."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from features.problems import UserError
from training import model_folder
from training.additive import fit_additive
from training.basis import Array
from training.checks import check_nuisances, check_settings, check_targets, check_weights, label_codes
from training.columns import ColumnKinds, Columns, as_frame, codes_of
from training.compile import compile_scorecard
from training.design import make_design
from training.effect import EffectSettings, fit_effect
from training.nuisance import Nuisances, cross_fit, scores
from training.rows import MOST_NUISANCE_LEVELS, Rows, read_rows
from training.scorecard import Answers, Scorecard, Support


class UpliftModel(BaseEstimator):
    """Effect of a yes/no treatment on an outcome, as a sum of readable terms.

    Nuisances are cross-fitted with grouped folds; doubly robust and residual scores are regressed on an
    additive, shrunken model; the result is compiled to a scorecard of tables, which predicts.

    Parameters
    ----------
    n_folds : folds of the cross-fitting
    draws : posterior draws behind the intervals
    most_pairs : at most this many pairs of features act together; 0 for none
    most_levels : levels of a category that get a coefficient of their own; rarer ones get the average
    least_propensity : a decision is supported where P(step in) lies within [this, 1 - this]
    random_state : the same seed gives the same model; None or a RandomState draws one
    n_jobs : threads for the folds, as joblib counts them: None is one, -1 one a core

    Attributes
    ----------
    baseline_ : average effect, where every explanation starts
    scorecard_ : the model as tables
    nuisances_ : out-of-fold nuisances of the training rows (absent in a loaded model)
    n_features_in_, feature_names_in_ : as scikit-learn has them: an array's columns have no names

    Notes
    -----
    Assumes that, given X, nothing else moved both the treatment and the outcome; that each row's
    treatment changed no other row's outcome; and that both choices were possible (see `support`). If the
    first fails, the uplift is biased by an amount that no interval here shows.

    The same rows give the same model to 1e-9 in whatever order they come and whatever `n_jobs`. Renamed
    partners may fall into other folds, and renamed levels of X change places: that alters predictions as
    another `random_state` would.
    """

    def __init__(
        self,
        *,
        n_folds: int = 3,
        draws: int = 200,
        most_pairs: int = 15,
        most_levels: int = 300,
        least_propensity: float = 0.05,
        random_state: int | np.random.RandomState | None = 0,
        n_jobs: int | None = None,
    ) -> None:
        self.n_folds = n_folds
        self.draws = draws
        self.most_pairs = most_pairs
        self.most_levels = most_levels
        self.least_propensity = least_propensity
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(
        self,
        X: pd.DataFrame,
        treatment: NDArray | pd.Series,
        outcome: NDArray | pd.Series,
        groups: NDArray | pd.Series | None = None,
        *,
        deals: NDArray | pd.Series | None = None,
        nuisances: Nuisances | None = None,
        outcome_weight: NDArray | pd.Series | None = None,
    ) -> "UpliftModel":
        """Learn from n decisions.

        Parameters
        ----------
        X : DataFrame of shape (n, n_features): numbers, booleans, strings, categories; missing values
        treatment : shape (n,), 0/1 or booleans: did the vendor step in
        outcome : shape (n,): 0/1, or numbers in a unit of their own
        groups : shape (n,): partners; a row is never judged by a model that saw its group
        deals : shape (n,): rows of one deal share its outcome and count for less than as many rows;
            by default every row is a deal of its own
        nuisances : of the same n rows, from models that never saw a row's group; made here by default
        outcome_weight : shape (n,): what each outcome counts for. 0 where it is not the outcome of the choice
            that is asked about, and for the others the inverse of their chance to be of that choice, so
            that the average over alike rows is 1 (`training.censoring`). 1 for all by default.

        Raises
        ------
        UserError
            Lengths differ, a value is missing or infinite, or only one treatment or outcome came.
        """
        check_settings(self.get_params())
        frame = as_frame(X)
        treated, result, binary = check_targets(len(frame), treatment, outcome)
        weight = check_weights(outcome_weight, treated)
        group_codes = label_codes(groups, len(frame), "groups")
        deal_codes = label_codes(deals, len(frame), "deals")
        check_nuisances(len(frame), nuisances)
        kinds = ColumnKinds.of(frame)
        group_codes = deal_codes if group_codes is None else group_codes
        seed = _seed(self.random_state)
        rows = read_rows(frame, kinds, self.most_levels, treated, result, group_codes, deal_codes, weight)
        known = (
            nuisances.take(rows.order)
            if nuisances
            else cross_fit(
                *rows.nuisance_matrix(),
                rows.treated,
                rows.outcome,
                rows.groups,
                binary=binary,
                n_folds=self.n_folds,
                seed=seed,
                n_jobs=self.n_jobs,
                outcome_weight=rows.outcome_weight,
            )
        )
        self._adopt(self._fit_tables(rows, known, binary, seed), named=isinstance(X, pd.DataFrame))
        self.nuisances_ = nuisances or known.take(np.argsort(rows.order))
        return self

    def _fit_tables(self, rows: Rows, nuisances: Nuisances, binary: bool, seed: int) -> Scorecard:
        view = scores(nuisances, rows.treated, rows.outcome, rows.outcome_weight)
        design = make_design(rows.features, rows.places, view.doubly_robust_weight)
        posterior = fit_effect(
            design,
            rows.places,
            view.robust,
            (view.imputed, view.imputed_weight),
            rows.deals,
            float(np.std(rows.told_outcome)),
            EffectSettings(draws=self.draws, most_pairs=self.most_pairs),
            np.random.default_rng(seed),
        )
        midpoint = (nuisances.step_back + nuisances.step_in) / 2
        return compile_scorecard(
            posterior,
            rows.places,
            fit_additive(design, rows.places, midpoint, logistic=binary),
            fit_additive(design, rows.places, rows.treated.astype(float), logistic=True),
            rows.treated,
            binary,
            Support(self.least_propensity),
            nuisances.propensity,
        )

    def _adopt(self, card: Scorecard, named: bool = True) -> None:
        self.scorecard_ = card
        self.baseline_ = float(card.baseline[0])
        kinds = {feature.name: feature.kind for feature in card.features}
        self._kinds = ColumnKinds(kinds)
        self.n_features_in_ = len(kinds)
        if named:
            self.feature_names_in_ = np.array(list(kinds), dtype=object)
        elif hasattr(self, "feature_names_in_"):
            del self.feature_names_in_

    def answers(self, X: pd.DataFrame, with_sd: bool = True) -> Answers:
        """Everything that the scorecard says of the n rows of X; cheap without `sd`, which is NaN then."""
        columns = self.read(X)
        return self.scorecard_.evaluate(columns, with_sd)

    def read(self, X: pd.DataFrame | NDArray) -> Columns:
        """X as the scorecard takes it: a mapping from feature to values of shape (n,).

        A DataFrame may have its columns in any order, and others between; an array has them in the order of
        the fit.
        """
        check_is_fitted(self, "scorecard_")
        frame = as_frame(X)
        if not isinstance(X, pd.DataFrame):
            if frame.shape[1] != self.n_features_in_:
                raise UserError(
                    f"X has {frame.shape[1]} features, but {type(self).__name__} is expecting "
                    f"{self.n_features_in_} features as input."
                )
            frame.columns = pd.Index(list(self._kinds.kinds))
        return self._kinds.read(frame)

    def predict(self, X: pd.DataFrame) -> Array:
        """Uplift of shape (n,): a fraction, or in the outcome's unit where that is numeric."""
        return self.answers(X, with_sd=False).uplift

    def predict_interval(self, X: pd.DataFrame, level: float = 0.9) -> Array:
        """Low and high end of the uplift, shape (n, 2), from the model's own posterior.

        Raises
        ------
        UserError
            `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise UserError(f"level should lie between 0 and 1, for example 0.9; came {level}.")
        answers = self.answers(X)
        half = norm.ppf(0.5 + level / 2) * answers.sd
        return np.column_stack([answers.uplift - half, answers.uplift + half])

    def predict_outcomes(self, X: pd.DataFrame) -> Array:
        """Expected outcome if the vendor steps back, and if it steps in: shape (n, 2).

        Their difference is `predict`; both lie within [0, 1] where the outcome is binary.
        """
        return self.answers(X, with_sd=False).win

    def explain(self, X: pd.DataFrame) -> pd.DataFrame:
        """Contribution of every term, shape (n, n_terms): ``baseline_`` plus a row's sum is its uplift."""
        terms = self.answers(X, with_sd=False).terms
        return pd.DataFrame(terms, index=as_frame(X).index, columns=list(self.scorecard_.term_names))

    def support(self, X: pd.DataFrame) -> NDArray[np.bool_]:
        """Whether decisions like this one were seen both ways, shape (n,)."""
        return self.answers(X, with_sd=False).supported

    def save(self, folder: Path | str) -> None:
        """Write the model folder: JSON and npz, no pickles; whole or not at all."""
        check_is_fitted(self, "scorecard_")
        with model_folder.writing(Path(folder)) as fresh:
            self.scorecard_.write(fresh)

    @classmethod
    def load(cls, folder: Path | str) -> "UpliftModel":
        """Read a model folder; no code in it is ever run.

        Raises
        ------
        UserError
            It is no model, damaged, or of a later format.
        """
        model_folder.verify(Path(folder))
        model = cls()
        model._adopt(Scorecard.read(Path(folder)))
        return model

    def __sklearn_tags__(self) -> Any:
        """Tell scikit-learn that missing values, texts and categories are welcome."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.categorical = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        return tags


def cross_fit_for_judging(
    X: pd.DataFrame,
    treatment: NDArray,
    outcome: Array,
    groups: NDArray,
    seed: int,
    n_jobs: int | None,
    outcome_weight: NDArray | None = None,
) -> Nuisances:
    """Out-of-fold nuisances of all rows of X, with grouped folds: what held-out scores are made of.

    `outcome_weight` as in `UpliftModel.fit`.
    """
    frame = as_frame(X)
    treated, result, binary = check_targets(len(frame), treatment, outcome)
    weight = check_weights(outcome_weight, treated)
    kinds, partners = ColumnKinds.of(frame), codes_of(groups)
    rows = read_rows(frame, kinds, MOST_NUISANCE_LEVELS, treated, result, partners, None, weight)
    made = cross_fit(
        *rows.nuisance_matrix(),
        rows.treated,
        rows.outcome,
        rows.groups,
        binary=binary,
        seed=seed,
        n_jobs=n_jobs,
        outcome_weight=rows.outcome_weight,
    )
    return made.take(np.argsort(rows.order))


def _seed(random_state: int | np.random.RandomState | None) -> int:
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))

# ruff: noqa: D102 - the interface `Learner` says what they do
"""Learners of other packages, each with settings that its users would choose.

Packages are imported when a learner is fitted, so that the list can be read where none is installed. Each
peer's settings were the best of several tried on seeds 100 and 101, which no table uses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.boosting import boosted, final_settings, nuisance_settings, reasons_of
from benchmarks.encoding import LEFT_OUT, Encoding
from benchmarks.learners import LEVEL
from benchmarks.worlds import Decisions

Floats = NDArray[np.float64]


class Peer:
    """What the peers have in common: their encoding, and how they are called."""

    filled = False
    final = "DR"

    def __init__(self, ids: str = LEFT_OUT, **settings: Any) -> None:
        self.encoding = Encoding(ids, self.filled)
        self.settings = settings

    def fit(self, decisions: Decisions) -> None:
        self.is_binary = set(np.unique(decisions.outcome)) <= {0.0, 1.0}
        matrix = self.encoding.fit_transform(decisions)
        self.nuisance = nuisance_settings(len(matrix))
        self.last = final_settings(self.final, len(matrix))
        self.learn(matrix, decisions)

    def effect(self, X: pd.DataFrame) -> Floats:
        return self.effect_of(self.encoding.transform(X))

    def interval(self, X: pd.DataFrame) -> Floats | None:  # noqa: ARG002
        return None

    def one_row(self, X: pd.DataFrame) -> Callable[[], Any]:
        row = self.encoding.transform(X)
        return lambda: (self.effect_of(row), self.explain(row))

    def learn(self, matrix: Floats, decisions: Decisions) -> None:
        """Fit the package's own estimator."""
        raise NotImplementedError

    def effect_of(self, matrix: Floats) -> Floats:
        """Effects of encoded rows."""
        raise NotImplementedError

    def explain(self, row: Floats) -> Any:
        """Reasons for one encoded row; None where the package has none."""


class CausalMLX(Peer):
    """CausalML's X-learner with LightGBM throughout."""

    final = "X"

    def learn(self, matrix: Floats, decisions: Decisions) -> None:
        from causalml.inference.meta import BaseXClassifier, BaseXRegressor
        from sklearn.model_selection import cross_val_predict

        chances, numbers = boosted(self.encoding.codes)
        treated = decisions.treatment.astype(int)
        self.propensity = chances(**self.nuisance)
        e = cross_val_predict(self.propensity, matrix, treated, cv=3, method="predict_proba")[:, 1]
        self.propensity.fit(matrix, treated)
        if self.is_binary:
            self.model = BaseXClassifier(chances(**self.nuisance), numbers(**self.last))
        else:
            outcome = numbers(**self.nuisance)
            effect = numbers(**self.last)
            self.model = BaseXRegressor(
                control_outcome_learner=outcome,
                treatment_outcome_learner=outcome,
                control_effect_learner=effect,
                treatment_effect_learner=effect,
            )
        self.model.fit(matrix, treatment=treated, y=decisions.outcome, p=_within(e))

    def effect_of(self, matrix: Floats) -> Floats:
        e = _within(self.propensity.predict(matrix))
        return np.asarray(self.model.predict(matrix, p=e)).ravel()

    def explain(self, row: Floats) -> Any:
        e = _within(self.propensity.predict(row))[0]
        parts = (reasons_of(models[1], row) for models in (self.model.models_tau_c, self.model.models_tau_t))
        of_control, of_treated = parts
        return e * of_control + (1 - e) * of_treated


class Metalearner(Peer):
    """One of metalearners' learners with LightGBM throughout, three folds."""

    def __init__(self, kind: str, ids: str = LEFT_OUT) -> None:
        super().__init__(ids)
        self.kind = kind
        self.final = "X" if kind == "XLearner" else "DR"

    def learn(self, matrix: Floats, decisions: Decisions) -> None:
        import metalearners

        _mend(metalearners)
        chances, numbers = boosted(self.encoding.codes)
        self.model = getattr(metalearners, self.kind)(
            is_classification=self.is_binary,
            n_variants=2,
            nuisance_model_factory=chances if self.is_binary else numbers,
            propensity_model_factory=chances,
            treatment_model_factory=numbers,
            nuisance_model_params=self.nuisance,
            propensity_model_params=self.nuisance,
            treatment_model_params=self.last,
            n_folds=3,
            random_state=0,
        )
        outcome = decisions.outcome.astype(int) if self.is_binary else decisions.outcome
        self.model.fit(matrix, outcome, decisions.treatment.astype(int), n_jobs_cross_fitting=1)

    def effect_of(self, matrix: Floats) -> Floats:
        return np.asarray(self.model.predict(matrix, is_oos=True, oos_method="overall"))[:, 0, -1]

    def explain(self, row: Floats) -> Any:
        finals = self.model._treatment_models.values()
        return [reasons_of(models[0]._overall_estimator, row) for models in finals]


def _mend(metalearners: Any) -> None:
    """Let 0.13.0 ask classes what they are; scikit-learn since 1.8 answers for its own instances only."""
    for module in (metalearners._utils, metalearners.cross_fit_estimator):
        for kind in ("classifier", "regressor"):
            setattr(module, f"is_{kind}", lambda made, kind=kind: made._estimator_type == kind)


class EconMLDR(Peer):
    """EconML's DRLearner: LightGBM nuisances and final stage, propensities of at least 0.02."""

    def learn(self, matrix: Floats, decisions: Decisions) -> None:
        from econml.dr import DRLearner

        chances, numbers = boosted(self.encoding.codes)
        self.model = DRLearner(
            model_propensity=chances(**self.nuisance),
            model_regression=(chances if self.is_binary else numbers)(**self.nuisance),
            model_final=numbers(**self.last),
            discrete_outcome=self.is_binary,
            min_propensity=0.02,
            cv=3,
            allow_missing=True,
            random_state=0,
        )
        _fit_econml(self.model, matrix, decisions)

    def effect_of(self, matrix: Floats) -> Floats:
        return np.asarray(self.model.effect(matrix)).ravel()

    def explain(self, row: Floats) -> Any:
        return reasons_of(self.model.model_cate(T=1), row)


class EconMLLinearDR(Peer):
    """EconML's LinearDRLearner: the additive peer, with intervals of its own."""

    filled = True

    def learn(self, matrix: Floats, decisions: Decisions) -> None:
        from econml.dr import LinearDRLearner, SparseLinearDRLearner

        chances, numbers = boosted([])
        make = SparseLinearDRLearner if self.settings.get("sparse") else LinearDRLearner
        self.model = make(
            model_propensity=chances(**self.nuisance),
            model_regression=(chances if self.is_binary else numbers)(**self.nuisance),
            discrete_outcome=self.is_binary,
            min_propensity=0.02,
            cv=3,
            random_state=0,
        )
        self.center, self.scale = matrix.mean(axis=0), np.maximum(matrix.std(axis=0), 1e-9)
        _fit_econml(self.model, self._scaled(matrix), decisions)

    def effect_of(self, matrix: Floats) -> Floats:
        return np.asarray(self.model.effect(self._scaled(matrix))).ravel()

    def interval(self, X: pd.DataFrame) -> Floats | None:
        return _interval(self.model, self._scaled(self.encoding.transform(X)))

    def explain(self, row: Floats) -> Any:
        return self.model.coef_(T=1) * self._scaled(row)[0]

    def _scaled(self, matrix: Floats) -> Floats:
        """Standardised; heavy tails cut at 4 standard deviations, as a linear form needs."""
        return np.clip((matrix - self.center) / self.scale, -4, 4)


class EconMLForest(Peer):
    """EconML's causal forest on residuals of LightGBM nuisances."""

    filled = True

    def learn(self, matrix: Floats, decisions: Decisions) -> None:
        from econml.dml import CausalForestDML

        chances, numbers = boosted([])
        self.model = CausalForestDML(
            model_y=(chances if self.is_binary else numbers)(**self.nuisance),
            model_t=chances(**self.nuisance),
            discrete_treatment=True,
            discrete_outcome=self.is_binary,
            cv=3,
            n_jobs=1,
            random_state=0,
            **self.settings,
        )
        _fit_econml(self.model, matrix, decisions)

    def effect_of(self, matrix: Floats) -> Floats:
        return np.asarray(self.model.effect(matrix)).ravel()

    def interval(self, X: pd.DataFrame) -> Floats | None:
        return _interval(self.model, self.encoding.transform(X))

    def explain(self, row: Floats) -> Any:
        return self.model.shap_values(row)


def _fit_econml(model: Any, matrix: Floats, decisions: Decisions) -> None:
    _, deal = np.unique(decisions.deals, return_inverse=True)
    whole = {"groups": deal} if deal.max() + 1 < len(deal) else {}
    model.fit(decisions.outcome, decisions.treatment.astype(int), X=matrix, **whole)


def _interval(model: Any, matrix: Floats) -> Floats:
    low, high = model.effect_interval(matrix, alpha=1 - LEVEL)
    return np.column_stack([np.ravel(low), np.ravel(high)])


def _within(propensity: Floats) -> Floats:
    return np.clip(propensity, 0.02, 0.98)

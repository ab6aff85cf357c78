"""LightGBM as the peers use it, for nuisances and for the effect."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
# Up to so many rows: trees, leaves of each, fewest rows in a leaf. As in stepin's own nuisances.
_SIZES = (10_000, 100_000, float("inf"))
_NUISANCES = ((60, 7, 40), (83, 15, 80), (166, 31, 200))
# Final stages by the same sizes: trees, leaves, fewest rows, learning rate; the best of those tried.
FINALS = {
    "X": ((60, 3, 150, 0.06), (150, 7, 300, 0.06), (300, 15, 1000, 0.08)),
    "DR": ((60, 2, 100, 0.08), (83, 4, 500, 0.08), (166, 7, 2000, 0.08)),
}


def nuisance_settings(n_rows: int) -> dict[str, Any]:
    """LightGBM's settings for propensity and outcome models learned from so many rows."""
    return _settings(*_NUISANCES[_size(n_rows)], 0.12)


def final_settings(kind: str, n_rows: int) -> dict[str, Any]:
    """LightGBM's settings for the effect model of an X-learner, or of one that regresses noisy scores."""
    return _settings(*FINALS[kind][_size(n_rows)])


def _size(n_rows: int) -> int:
    return next(number for number, most in enumerate(_SIZES) if n_rows <= most)


def _settings(trees: int, leaves: int, least: int, rate: float) -> dict[str, Any]:
    return {
        "learning_rate": rate,
        "n_estimators": trees,
        "num_leaves": leaves,
        "min_child_samples": least,
        "max_bin": 63,
        "colsample_bytree": 0.4,
        "reg_lambda": 5.0,
        "random_state": 0,
        "n_jobs": 1,
        "verbose": -1,
    }


def final_words(kind: str) -> str:
    """The final stage's settings in words, by size."""
    by_size = [
        f"{trees} trees of {leaves} leaves (≥ {least} rows, rate {rate:g})"
        for trees, leaves, least, rate in FINALS[kind]
    ]
    return "effect: " + " / ".join(by_size)


def boosted(codes: list[int]) -> tuple[type, type]:
    """LightGBM's classifier and regressor, that know which columns are codes of levels.

    The classifier's `predict` gives probabilities: a package that asks a classifier for labels, by mistake,
    gets the probability that it needs.
    """
    from lightgbm import LGBMClassifier, LGBMRegressor

    class Chances(LGBMClassifier):
        _estimator_type = "classifier"  # scikit-learn has tags instead by now; metalearners reads this

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Chances:
            return super().fit(X, y, sample_weight, categorical_feature=codes or "auto")

        def predict(self, X: Any, **further: Any) -> Floats:
            return self.predict_proba(X, **further)[:, 1]

        def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
            return -float(np.average((np.ravel(y) - self.predict(X)) ** 2, weights=sample_weight))

    class Numbers(LGBMRegressor):
        _estimator_type = "regressor"

        def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Numbers:
            return super().fit(X, y, sample_weight, categorical_feature=codes or "auto")

    return Chances, Numbers


def reasons_of(model: Any, row: Floats) -> Floats:
    """Contributions of each column (TreeSHAP, LightGBM's own and fastest), the last being the average."""
    return np.asarray(model.predict(row, pred_contrib=True))[0]

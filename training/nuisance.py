"""Propensity and outcome models, cross-fitted, and the scores that they make.

Nothing here is the product's opinion on the effect: these models only remove what deal, partner and
customer would have brought about anyway. Classifiers give probabilities, never labels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from training.basis import Array
from training.folds import grouped_folds

PROPENSITY_CLIP = 0.02
_LEAST_VARIANCE = 0.02
# Up to so many rows: trees, leaves of each, fewest rows in a leaf.
_SIZES = ((10_000, (60, 7, 40)), (100_000, (83, 15, 80)), (math.inf, (83, 31, 200)))
MOST_ROWS = 100_000  # that one model is learned from: more would cost, and change nothing that is seen


@dataclass(frozen=True)
class Nuisances:
    """Predictions for rows that the predicting models never saw. Shapes (n,)."""

    propensity: Array
    """P(step in), clipped to [0.02, 0.98]."""
    step_back: Array
    """Expected outcome if the vendor steps back."""
    step_in: Array
    clipped: int
    """Rows whose propensity was clipped."""
    residual_variance: float | None = None
    """For numeric outcomes: variance of outcome given features; None for binary ones."""

    def take(self, rows: NDArray) -> "Nuisances":
        """Keep the rows of a mask or index."""
        return Nuisances(
            self.propensity[rows],
            self.step_back[rows],
            self.step_in[rows],
            self.clipped,
            self.residual_variance,
        )


@dataclass(frozen=True)
class Scores:
    """Noisy views of each row's effect, and the weight that each deserves. Shapes (n,).

    The first two are unbiased if the nuisances are good; the third, which trusts the outcome models, is less
    noisy and inherits their errors.
    """

    doubly_robust: Array
    doubly_robust_weight: Array
    residual: Array
    residual_weight: Array
    imputed: Array
    imputed_weight: Array

    @property
    def robust(self) -> list[tuple[Array, Array]]:
        """Scores and weights of the two that need not trust the outcome models."""
        return [(self.doubly_robust, self.doubly_robust_weight), (self.residual, self.residual_weight)]


def cross_fit(
    matrix: Array,
    is_code: list[bool],
    treatment: NDArray[np.bool_],
    outcome: Array,
    groups: NDArray[np.int64],
    *,
    binary: bool = True,
    n_folds: int = 3,
    seed: int = 0,
    n_jobs: int | None = None,
    outcome_weight: Array | None = None,
) -> Nuisances:
    """Predict each row with models that saw no row of its group.

    Parameters
    ----------
    matrix : features of shape (n, k), NaN where missing; `is_code` says which columns are codes of levels
    treatment, outcome, groups : shape (n,)
    outcome_weight : what each outcome counts for in the outcome models, shape (n,): 0 where it is not that
        of the choice that is asked about; None is 1 for all. The propensity counts every row alike.
    """
    fold = grouped_folds(groups, n_folds)
    make = _Boosting(len(outcome), is_code, binary, seed)
    told = np.ones(len(outcome), dtype=bool) if outcome_weight is None else outcome_weight > 0
    jobs = [
        (number, name, thinned(learn_from))
        for number in range(n_folds)
        for name, learn_from in (
            ("propensity", fold != number),
            ("step_back", (fold != number) & ~treatment & told),
            ("step_in", (fold != number) & treatment & told),
        )
    ]
    target = {"propensity": treatment, "step_back": outcome, "step_in": outcome}
    weight = {"propensity": None, "step_back": outcome_weight, "step_in": outcome_weight}
    done = Parallel(n_jobs=n_jobs, prefer="threads")(
        delayed(make.fit_predict)(name, matrix, target[name], rows, fold == number, weight[name])
        for number, name, rows in jobs
    )
    out = {name: np.empty(len(outcome)) for name in ("propensity", "step_back", "step_in")}
    for (number, name, _), predicted in zip(jobs, done, strict=True):
        out[name][fold == number] = predicted
    raw = out["propensity"]
    e = np.clip(raw, PROPENSITY_CLIP, 1 - PROPENSITY_CLIP)
    rest = np.where(treatment, outcome - out["step_in"], outcome - out["step_back"])
    return Nuisances(
        e,
        out["step_back"],
        out["step_in"],
        int((raw != e).sum()),
        None if binary else float(np.average(rest**2, weights=outcome_weight)),
    )


def reweighted(
    nuisances: Nuisances, treatment: NDArray[np.bool_], outcome: Array, outcome_weight: Array | None
) -> Array:
    """Outcomes that stand in for those that the choice would have brought everywhere, shape (n,).

    ``g + w (Y - g)`` with w the weight of the row's outcome and g its expectation under the row's choice: g
    itself where the outcome is of another choice (w = 0). Without weights the outcome as it is.

    Notes
    -----
    With w the inverse of the chance to have kept to the choice, E[w | x, T] = 1 and E[w Y | x, T] = g(x), so
    that the stand-in has the expectation g(x) for whatever g is put in; a good g takes noise away (the
    augmented inverse probability of censoring of Robins & Rotnitzky 1992; Rubin & van der Laan 2007 call it
    a censoring unbiased transformation). So every score and every figure that is right for outcomes is
    right for these. The doubly robust score becomes
    ``mu1 - mu0 + T w (Y - mu1) / e - (1 - T) w (Y - mu0) / (1 - e)``. In the residual regression, weights w
    on the rows would serve too, since E[w (T - e) | x] = 0; they would also multiply the part ``mu - m`` of
    the residual, which is no noise and need not be made noisy.
    """
    if outcome_weight is None:
        return outcome
    expected = np.where(treatment, nuisances.step_in, nuisances.step_back)
    stand_in: Array = expected + outcome_weight * (outcome - expected)
    return stand_in


def scores(
    nuisances: Nuisances, treatment: NDArray[np.bool_], outcome: Array, outcome_weight: Array | None = None
) -> Scores:
    """Doubly robust, residual-on-residual and imputed scores, of `reweighted` outcomes.

    Sources: Robins & Rotnitzky (1995) and Kennedy (2023) for the first, weighted by inverse variance
    (Fisher & Fisher 2023); Robinson (1988) and Nie & Wager (2021) for the second; Künzel et al. (2019) for
    the third, the outcome less what the other choice would have brought.
    """
    e, back, step_in = nuisances.propensity, nuisances.step_back, nuisances.step_in
    t = treatment.astype(float)
    outcome = reweighted(nuisances, treatment, outcome, outcome_weight)
    gap = np.where(treatment, (outcome - step_in) / e, -(outcome - back) / (1 - e))
    if nuisances.residual_variance is None:
        v_in, v_back = (np.maximum(m * (1 - m), _LEAST_VARIANCE) for m in (step_in, back))
    else:
        v_in = v_back = np.full(len(e), nuisances.residual_variance)
    if outcome_weight is not None:
        v_in, v_back = (
            v * np.mean(outcome_weight[arm] ** 2) for v, arm in ((v_in, treatment), (v_back, ~treatment))
        )
    mean = e * step_in + (1 - e) * back
    v_mean = np.maximum(mean * (1 - mean), _LEAST_VARIANCE) if nuisances.residual_variance is None else v_in
    return Scores(
        doubly_robust=step_in - back + gap,
        doubly_robust_weight=1.0 / (v_in / e + v_back / (1 - e)),
        residual=(outcome - mean) / (t - e),
        residual_weight=(t - e) ** 2 / v_mean,
        imputed=np.where(treatment, outcome - back, step_in - outcome),
        imputed_weight=1.0 / np.where(treatment, v_in, v_back),
    )


def thinned(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of the mask, evenly thinned to at most ``MOST_ROWS``."""
    rows = np.flatnonzero(mask)
    return rows[:: -(-len(rows) // MOST_ROWS) or 1]


def boosting_settings(n_rows: int, n_learned: int, is_code: list[bool], seed: int) -> dict[str, Any]:
    """Settings of scikit-learn's boosting for a table of `n_rows`, of which one model gets `n_learned`."""
    size = next(size for most, size in _SIZES if n_rows <= most)
    return {
        "learning_rate": 0.12,
        "max_iter": size[0],
        "max_leaf_nodes": size[1],
        "min_samples_leaf": min(size[2], max(5, n_learned // 20)),
        "max_bins": 63,
        "max_features": 0.4,
        "l2_regularization": 5.0,
        "early_stopping": False,
        "categorical_features": is_code if any(is_code) else None,
        "random_state": seed,
    }


@dataclass(frozen=True)
class _Boosting:
    """Cheap settings that grow with the number of rows."""

    n_rows: int
    is_code: list[bool]
    binary: bool
    seed: int

    def fit_predict(
        self,
        name: str,
        matrix: Array,
        target: NDArray,
        rows: NDArray,
        new: NDArray,
        weight: Array | None = None,
    ) -> Array:
        y = target[rows]
        if len(np.unique(y)) < 2:
            return np.full(new.sum(), float(y[0]) if len(y) else 0.0)
        settings = boosting_settings(self.n_rows, len(y), self.is_code, self.seed)
        is_chance = self.binary or name == "propensity"
        model = (HistGradientBoostingClassifier if is_chance else HistGradientBoostingRegressor)(**settings)
        with threadpool_limits(1, user_api="openmp"):  # waiting threads spin, and starve each other
            model.fit(matrix[rows], y, None if weight is None else weight[rows])
            return model.predict_proba(matrix[new])[:, 1] if is_chance else model.predict(matrix[new])

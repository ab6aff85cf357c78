"""Whether the choice was open at all: what is on record must not foretell who gets help.

Where the vendor joins exactly the deals above an amount, or those of one kind of partner, no deal with help
has a like without. No method can then tell the help from the deals' own differences; one that adjusts for
the amount only draws its curve on into deals that it never saw.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from training.basis import NUMBER, Array
from training.columns import ColumnKinds, codes_of
from training.folds import grouped_folds
from training.sample import whole_deals

MOST_ROWS = 20_000
LEAST_OPEN = 40
_N_FOLDS = 3


@dataclass(frozen=True)
class OpenChoice:
    """How open the choice was."""

    n: int
    n_open: int
    """Decisions whose chance of stepping in lies within the bounds of the support."""
    n_open_with: int
    """Of these, with the vendor."""
    left: float
    """Share of the choice's variance that is left when all on record is used to foretell it."""
    left_open: float
    """The same among the open ones, against the variance that their chances promise: near 1 where these
    are right, near 0 where the choice only looked open."""
    decided_by: str
    """Feature that tells most about the choice."""

    @property
    def is_settled(self) -> bool:
        """Whether so little is open that nothing can be compared.

        In all 95% of the choice's variance is foretold; or 60% where it looked open; or, where hardly any
        choice looked open on one of the two sides, 75% in all. Measured on logs of 1,500 to 20,000
        decisions: choices settled by an edge, a trait, a partner or a weighted sum leave 0 to 21% where
        they looked open; open ones 75% and more, be they ever so confounded (an AUC of .95, or LaLonde's
        treated among the CPS: 122%). A choice that is merely rare is not foretold, and not settled.
        """
        few = min(self.n_open_with, self.n_open - self.n_open_with) < LEAST_OPEN
        return self.left < 0.05 or (self.left < 0.25 if few else self.left_open < 0.40)

    @property
    def share_open(self) -> float:
        """Share of decisions that could have gone either way, at most."""
        return self.n_open / max(self.n, 1) * min(self.left_open, 1.0)


def open_choice(
    X: pd.DataFrame,
    treatment: NDArray[np.bool_],
    propensity: Array,
    deals: NDArray | pd.Series,
    *,
    least_propensity: float = 0.05,
    seed: int = 0,
) -> OpenChoice:
    """Look at the choice a second time, with models that care for nothing but foretelling it.

    Parameters
    ----------
    X : features of shape (n, k)
    treatment, deals : shape (n,)
    propensity : out-of-fold chance of stepping in, shape (n,)

    Notes
    -----
    The chances that serve as nuisances come from cautious models of few trees. Around a sharp edge they
    pass from 0 to 1 gradually, so that some decisions look open that are not. There, a tree that splits
    exactly and a boosting without brakes foretell the choice out of fold; half of the deals tell them how
    often each level (a partner) went with the vendor, the other half is foretold. Their mean squared error,
    over the mean of e(1-e) that an open choice has, is `left_open`. At most `MOST_ROWS` decisions of whole
    deals are looked at so.
    """
    n = len(treatment)
    is_open = (propensity >= least_propensity) & (propensity <= 1 - least_propensity)
    some = np.flatnonzero(whole_deals(deals, MOST_ROWS, seed))
    deal, chosen = codes_of(pd.Series(np.asarray(deals))[some]), treatment[some]
    asked = np.random.default_rng(seed).random(deal.max() + 1)[deal] < 0.5
    names, matrix = _levels_as_shares(X.iloc[some], chosen, ~asked)
    foretold, importance = _foretell(matrix[asked], chosen[asked], deal[asked], seed)
    there, e = is_open[some][asked], propensity[some][asked]
    errors = np.array([(chosen[asked] - each) ** 2 for each in foretold])
    promised = float(np.sum((e * (1 - e))[there]))
    return OpenChoice(
        n=n,
        n_open=int(is_open.sum()),
        n_open_with=int((is_open & treatment).sum()),
        left=float(errors.mean(axis=1).min() / max(np.var(chosen[asked]), 1e-12)),
        left_open=float(errors[:, there].sum(axis=1).min() / promised) if promised else 0.0,
        decided_by=_simplest(names, matrix[asked], int(np.argmax(importance)), X.iloc[some]),
    )


def _simplest(names: list[str], matrix: Array, decider: int, X: pd.DataFrame) -> str:
    """Of the features that say just what the decider says, the one with the fewest values.

    A type of partners, not each partner of that type: as shares they are the same column.
    """
    same = np.isclose(matrix, matrix[:, [decider]], atol=0.01, equal_nan=True).mean(axis=0) > 0.99
    return min(
        (name for name, alike in zip(names, same, strict=True) if alike), key=lambda name: X[name].nunique()
    )


def _levels_as_shares(
    X: pd.DataFrame, treatment: NDArray[np.bool_], teaches: NDArray[np.bool_]
) -> tuple[list[str], Array]:
    """Numbers as they are; each level as how often it went with the vendor among the rows that teach."""
    kinds = ColumnKinds.of(X)
    columns = []
    for name, values in kinds.read(X).items():
        if kinds.kinds[name] == NUMBER:
            columns.append(np.asarray(values, dtype=float))
            continue
        level = pd.Series(np.asarray(values, dtype=object))
        shares = pd.Series(treatment[teaches]).groupby(level[teaches].to_numpy()).mean()
        columns.append(level.map(shares).to_numpy(dtype=float))
    return list(kinds.kinds), np.column_stack(columns)


def _foretell(
    matrix: Array, treatment: NDArray[np.bool_], deals: NDArray[np.int64], seed: int
) -> tuple[list[Array], Array]:
    """Out-of-fold chances by three kinds of model, each of shape (n,), and the features' importance."""
    fold = grouped_folds(deals, _N_FOLDS)
    out = [np.full(len(treatment), treatment.mean()) for _ in range(3)]
    importance = np.zeros(matrix.shape[1])
    for number in range(_N_FOLDS):
        rest, here = fold != number, fold == number
        if treatment[rest].all() or not treatment[rest].any():
            continue
        models = _forecasters(seed)
        with threadpool_limits(1), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # where all is foretold nothing converges
            for each, model in zip(out, models, strict=True):
                model.fit(matrix[rest], treatment[rest])
                each[here] = model.predict_proba(matrix[here])[:, 1]
        importance += models[0].feature_importances_
    return out, importance


def _forecasters(seed: int) -> list[Any]:
    """A sharp edge, many edges, a weighted sum: each finds one way of deciding that the others blur."""
    return [
        DecisionTreeClassifier(max_depth=6, min_samples_leaf=5, random_state=seed),
        HistGradientBoostingClassifier(
            learning_rate=0.15, max_iter=100, early_stopping=False, min_samples_leaf=10, random_state=seed
        ),
        make_pipeline(
            SimpleImputer(strategy="median", keep_empty_features=True),
            SplineTransformer(n_knots=5, degree=1, knots="quantile", extrapolation="linear"),
            StandardScaler(),
            LogisticRegression(C=100.0, max_iter=100),
        ),
    ]

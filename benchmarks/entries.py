"""Who takes part, with which settings."""

from __future__ import annotations

from benchmarks.boosting import final_words
from benchmarks.learners import Constant, Entry, Stepin
from benchmarks.peers import CausalMLX, EconMLDR, EconMLForest, EconMLLinearDR, Metalearner
from features import UserError

_TUNED = {"n_estimators": 500, "min_samples_leaf": 10, "max_features": None, "min_var_fraction_leaf": 0.1}
_STEPIN = ("training.uplift", "training.clustered")
_LIGHTGBM = ("lightgbm", "sklearn.model_selection")
_CAUSALML = ("causalml.inference.meta", *_LIGHTGBM)
_META = ("metalearners", *_LIGHTGBM)
_ECONML = ("econml.dr", "econml.dml", *_LIGHTGBM)
_FOLDS = "3 folds; "
ENTRIES = (
    Entry("stepin", Stepin, "as it comes; partners as groups", "exact terms", _STEPIN),
    Entry("constant", Constant, "doubly robust average, stepin's nuisances", "", _STEPIN),
    Entry("CausalML X-learner", CausalMLX, final_words("X"), "TreeSHAP", _CAUSALML),
    Entry(
        "metalearners X-learner",
        lambda: Metalearner("XLearner"),
        _FOLDS + final_words("X"),
        "TreeSHAP",
        _META,
    ),
    Entry(
        "metalearners DR-learner",
        lambda: Metalearner("DRLearner"),
        _FOLDS + final_words("DR"),
        "TreeSHAP",
        _META,
    ),
    Entry(
        "metalearners R-learner",
        lambda: Metalearner("RLearner"),
        _FOLDS + final_words("DR"),
        "TreeSHAP",
        _META,
    ),
    Entry(
        "EconML DRLearner",
        EconMLDR,
        "3 folds by deal, propensity ≥ 0.02; " + final_words("DR"),
        "TreeSHAP",
        _ECONML,
    ),
    Entry(
        "EconML LinearDRLearner",
        EconMLLinearDR,
        "3 folds by deal, propensity ≥ 0.02; standardised columns, cut at 4 standard deviations",
        "coefficients",
        _ECONML,
    ),
    Entry("EconML forest, default", EconMLForest, "`CausalForestDML` as it comes, 3 folds", "SHAP", _ECONML),
    Entry(
        "EconML forest, tuned",
        lambda: EconMLForest(**_TUNED),
        "500 trees, all columns, ≥ 10 rows a leaf and a tenth of the treatment's variance",
        "SHAP",
        _ECONML,
    ),
)


def entry(name: str) -> Entry:
    """Find a learner by its name.

    Raises
    ------
    UserError
        There is none.
    """
    for one in ENTRIES:
        if one.name == name:
            return one
    raise UserError(f"no learner is called '{name}'; known: {', '.join(one.name for one in ENTRIES)}.")

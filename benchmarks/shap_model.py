"""What one would serve with MLflow instead: a boosted uplift model whose answers come with SHAP values.

``python -m benchmarks.shap_model DECISIONS.parquet FOLDER COLUMN...`` learns it from a decision table and
saves it as an MLflow model. Effects are regressed on doubly robust scores; how good they are is judged
elsewhere, here only what an answer costs.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas as pd

from benchmarks.boosting import final_settings, nuisance_settings
from features import DecisionTable

_CLIP = 0.05


class UpliftWithReasons(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    """Effect in points, and each column's SHAP value."""

    def __init__(self, effect: Any, levels: dict[str, list[str]]) -> None:
        self.effect, self.levels = effect, levels

    def load_context(self, context: Any) -> None:  # noqa: ARG002
        """Make the explainer once."""
        import shap

        self.explainer = shap.TreeExplainer(self.effect)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:  # noqa: ARG002
        """Answer rows of raw features."""
        encoded = encode(model_input, self.levels)
        shares = 100 * np.asarray(self.explainer.shap_values(encoded))
        uplift = 100 * self.effect.predict(encoded)
        return pd.DataFrame(shares, columns=encoded.columns).assign(uplift_points=uplift)


def encode(rows: pd.DataFrame, levels: dict[str, list[str]]) -> pd.DataFrame:
    """Columns as LightGBM takes them: levels as categories, everything else as numbers."""
    columns = {
        name: pd.Categorical(rows[name], categories=levels[name])
        if name in levels
        else pd.to_numeric(rows[name], errors="coerce").astype(float)
        for name in rows
    }
    return pd.DataFrame(columns, index=rows.index)


def learn(table: DecisionTable, names: list[str]) -> UpliftWithReasons:
    """Learn the effect from the table's columns `names`."""
    from lightgbm import LGBMClassifier, LGBMRegressor

    rows, treated = table.X[names], table.treatment
    outcome = table.outcome
    texts = [name for name in names if not pd.api.types.is_numeric_dtype(rows[name])]
    levels = {name: sorted(map(str, rows[name].dropna().unique())) for name in texts}
    encoded = encode(rows, levels)
    settings = nuisance_settings(len(encoded))
    chance = LGBMClassifier(**settings).fit(encoded, treated).predict_proba(encoded)[:, 1]
    chance = np.clip(chance, _CLIP, 1 - _CLIP)
    won = {
        arm: LGBMClassifier(**settings).fit(encoded[treated == arm], outcome[treated == arm])
        for arm in (True, False)
    }
    win = {arm: model.predict_proba(encoded)[:, 1] for arm, model in won.items()}
    left = np.where(treated, (outcome - win[True]) / chance, -(outcome - win[False]) / (1 - chance))
    effect = LGBMRegressor(**final_settings("DR", len(encoded)))
    return UpliftWithReasons(effect.fit(encoded, win[True] - win[False] + left), levels)


def main() -> None:
    """Learn and save."""
    warnings.simplefilter("ignore")
    decisions, folder, *names = sys.argv[1:]
    model = learn(DecisionTable.read(Path(decisions)), names)
    mlflow.pyfunc.save_model(folder, python_model=model, pip_requirements=["shap"])


if __name__ == "__main__":
    from benchmarks import shap_model

    shap_model.main()  # under its own name, by which the saved model is found again

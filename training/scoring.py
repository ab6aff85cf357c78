"""A model folder applied to a decision table."""

import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from features.column_types import as_text
from features.decisions import DecisionTable
from features.problems import TableError, UserError
from training import model_folder
from training.basis import BOOLEAN, CATEGORY, NUMBER, Levels
from training.columns import ColumnKinds, Values
from training.pipeline import answer_columns
from training.policy import Policy
from training.uplift import UpliftModel


def learned_categories(folder: Path) -> list[str]:
    """Names of the features whose values are texts to the model, even where they look like numbers.

    Raises
    ------
    UserError
        The folder is no whole model.
    """
    features = UpliftModel.load(folder).scorecard_.features
    return [feature.name for feature in features if feature.kind == CATEGORY]


def score_table(folder: Path, decisions: DecisionTable) -> pd.DataFrame:
    """Advise on every decision: one row each, effects as fractions, and the strongest reason each way.

    Raises
    ------
    UserError
        The folder is no whole model, there is no decision, or the decisions lack features that it learned
        from; further ones are not looked at.
    """
    model = UpliftModel.load(folder)
    if len(decisions.rows) == 0:
        raise UserError("There is no decision to score: no deal is open. Nothing was written.")
    facts = model_folder.read_facts(folder)
    policy = Policy.from_dict(facts.get("policy", {}))
    answers = model.answers(_as_learned(decisions, model))
    amount = decisions.rows["amount"].to_numpy(dtype=float)
    advice = policy.advise(answers.uplift, answers.sd, amount, answers.supported)
    about = decisions.rows[["deal_id", "partner_id", "stage", "decided_at", "amount"]].reset_index()
    terms = pd.Index(model.scorecard_.term_names)
    return about.assign(
        **answer_columns(answers, advice),
        expected_value=advice.expected_value,
        propensity=answers.propensity,
        strongest_for=terms[answers.terms.argmax(axis=1)],
        strongest_against=terms[answers.terms.argmin(axis=1)],
    )


def values_as_learned(
    folder: Path, decisions: DecisionTable
) -> Iterator[dict[str, float | bool | str | None]]:
    """For each decision the model's own features, as a request to the server brings them; None is missing.

    Raises
    ------
    UserError
        As `score_table`.
    """
    model = UpliftModel.load(folder)
    kinds = ColumnKinds({feature.name: feature.kind for feature in model.scorecard_.features})
    columns = kinds.read(_as_learned(decisions, model))
    plain = [_plain(values, kinds.kinds[name]) for name, values in columns.items()]
    for row in zip(*plain, strict=True):
        yield dict(zip(columns, row, strict=True))


def _plain(values: Values, kind: str) -> list[float | bool | str | None]:
    if isinstance(values, Levels):
        names: list[bool | str | None] = [
            name == "true" if kind == BOOLEAN else name for name in values.names
        ]
        return [*map([*names, None].__getitem__, values.codes)]
    return [None if math.isnan(value) else value for value in values.tolist()]


def _as_learned(decisions: DecisionTable, model: UpliftModel) -> pd.DataFrame:
    """The model's own features, shape (n, n_features), in its order and of its kinds."""
    kinds = ColumnKinds({feature.name: feature.kind for feature in model.scorecard_.features}).kinds
    X = decisions.X
    left_out = {line["column"]: line["why"] for line in decisions.about.get("left_out_columns") or []}
    lacking = [name for name in kinds if name not in X.columns and left_out.get(name) != "all missing"]
    if lacking:
        named = ", ".join(
            f"{name} (left out: {left_out[name]})" if name in left_out else name for name in lacking[:5]
        )
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        raise UserError(
            f"The decisions lack {len(lacking)} of the model's {len(kinds)} features: {named}{more}. "
            "Bring every column that the model learned from; missing values are fine."
        )
    return pd.DataFrame({name: _column(X, name, kind) for name, kind in kinds.items()}, index=X.index)


def _column(X: pd.DataFrame, name: str, kind: str) -> pd.Series:
    if name not in X.columns:
        return pd.Series(float("nan") if kind == NUMBER else None, index=X.index)
    values = X[name]
    is_number = pd.api.types.is_numeric_dtype(values.dtype)
    if kind == CATEGORY and is_number:
        return as_text(values)  # 1.0 and "1" are the same level
    if kind == NUMBER and not is_number:
        numbers = pd.to_numeric(as_text(values), errors="coerce")
        texts = numbers.isna() & values.notna()
        if texts.any():
            came = ", ".join(f"'{text}'" for text in as_text(values[texts]).unique()[:3])
            expected = f"should hold numbers, as when the model learned; came {came}"
            raise TableError("decisions", name, expected, X.index[texts])
        return numbers.astype("float64")
    return values

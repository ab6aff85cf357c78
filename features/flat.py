"""One file with a row per decision, and a columns file that says what its columns mean."""

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.column_types import as_text, decimals_with_comma, infer, is_text, thousands_by_point
from features.columns_file import ColumnsFile, TwoValues
from features.decision_table import DecisionTable, FlowStep, drop_columns_that_say_nothing, refuse_one_valued
from features.leakage import Audit, audit_columns
from features.problems import TableError, UserError
from features.schema import read_frame

MOSTLY_NUMBERS = 0.95  # a column with so many numbers was meant to hold numbers


def read_flat(
    source: Path,
    columns: Path,
    for_scoring: bool = False,
    categories: Collection[str] = (),
    allow: Collection[str] = (),
) -> DecisionTable:
    """Read one file with a row per decision.

    Parameters
    ----------
    source : a .csv, .csv.gz or .parquet file
    columns : the columns file (TOML)
    for_scoring : the columns of ``stepped_in`` and ``outcome`` may be absent, no row is left out, and
        nothing has come of the decisions yet
    categories : columns that a model learned as categories: they stay so, whatever they hold here
    allow : columns that stay features although the leakage audit would stop at them

    Returns
    -------
    DecisionTable
        In the file's order. Numbers as float64, true/false of a Parquet file as boolean, everything else as
        categories. The partner's column becomes the feature ``partner_id``, the stage's ``stage``; the rest
        keep their names. Columns that say nothing are left out and named in ``about["left_out_columns"]``.

    Raises
    ------
    UserError
        The columns file is not one, the decisions all went the same way, or ``allow`` names no column.
    LeakageError
        Columns know the future, and are not in ``allow``.
    TableError
        The source cannot be read, lacks a column, or has one that is neither numbers nor texts.
    """
    source, meaning = Path(source), ColumnsFile.read(columns)
    table = read_frame(source, meaning.missing, meaning.delimiter, meaning.encoding)
    _refuse_missing_columns(table, meaning, source.name, for_scoring)
    if table.empty:
        raise TableError(source.name, None, "holds no rows")
    table.index = _ids(table, meaning.id, source.name)
    features = _features(table, meaning, source.name, categories)
    rows, flow = _rows(table, meaning, source.name, for_scoring)
    kept = (rows["stepped_in"].notna() & rows["outcome_known"]).to_numpy()
    rows, features = rows[kept], features.set_axis(rows.index)[kept]
    left_out: list[dict[str, str]] = []
    audit = Audit(())
    if not for_scoring:
        _refuse_too_little(rows, meaning, source.name)
        features, left_out = drop_columns_that_say_nothing(features)
        audit = _audit(features, rows, [str(column) for column in table.columns], allow)
        audit.refuse(f" under [features] of {meaning.name}")
    if features.columns.empty:
        raise UserError(f"{source.name}: no column is left as a feature; see [features] of {meaning.name}.")
    about = _about(meaning, features, flow, left_out) | {"audit": audit.to_list()}
    return DecisionTable(rows, features, about)


def _audit(features: pd.DataFrame, rows: pd.DataFrame, there: list[str], allow: Collection[str]) -> Audit:
    stepped_in = rows["stepped_in"].astype(bool)
    return audit_columns(
        features, rows["outcome"], stepped_in, allow, deals=rows["deal_id"], also_known=there
    )


def _refuse_missing_columns(
    table: pd.DataFrame, meaning: ColumnsFile, source: str, for_scoring: bool
) -> None:
    there = [str(column) for column in table.columns]
    for key, column in meaning.named_columns(for_scoring).items():
        if column not in there:
            near = get_close_matches(column, there, n=3) or there[:5]
            offered = ", ".join(f"'{name}'" for name in near)
            raise TableError(
                source, column, f"is missing, but {meaning.name} names it ({key}); the nearest are {offered}"
            )


def _ids(table: pd.DataFrame, column: str | None, source: str) -> pd.Index:
    if column is None:
        return pd.Index("row " + pd.Series(np.arange(len(table)) + 1).astype("str"))
    ids = table[column]
    if ids.isna().any():
        rows = ids.index[ids.isna()] + 1
        raise TableError(source, column, "should not be empty", [f"row {row}" for row in rows])
    return pd.Index(as_text(ids))


def _features(
    table: pd.DataFrame, meaning: ColumnsFile, source: str, categories: Collection[str]
) -> pd.DataFrame:
    never = {meaning.id, meaning.stepped_in.column, meaning.outcome.column, meaning.decided_at}
    renamed = {meaning.partner: "partner_id", meaning.stage: "stage"}
    wanted = meaning.include if meaning.include is not None else tuple(table.columns)
    for column in meaning.include or ():
        if column in never:
            raise UserError(f"{meaning.name}: [features] include has '{column}', which cannot be a feature.")
    named = [column for column in table.columns if column in wanted or column in renamed]
    chosen = [column for column in named if column not in never and column not in meaning.exclude]
    clash = [new for old, new in renamed.items() if old and new != old and new in chosen]
    if clash:
        raise TableError(source, clash[0], f"stands beside '{meaning.partner or meaning.stage}'; exclude one")
    columns = {
        renamed.get(column, column): _category(table[column])
        if column in renamed or column in categories
        else _feature(table[column], source)
        for column in chosen
    }
    return pd.DataFrame(columns, index=table.index)


def _feature(values: pd.Series, source: str) -> pd.Series:
    """Return a column as numbers, booleans or categories; refuse one that is mostly numbers but not all."""
    if not is_text(values):
        typed = infer(values)
        return _category(typed) if is_text(typed) else typed
    known = as_text(values).dropna()
    numbers = pd.to_numeric(as_text(values), errors="coerce").astype("float64")
    is_number = np.isfinite(numbers[values.notna()].to_numpy())
    share = is_number.mean() if len(known) else 0.0
    if share == 1:
        return numbers
    if share >= MOSTLY_NUMBERS:
        strange = known[~is_number]
        came = ", ".join(f"'{text}'" for text in strange.unique()[:3])
        expected = f"should hold numbers only, as most rows do; came {came}: mend it, or name it as missing"
        raise TableError(source, str(values.name), expected, strange.index)
    if decimals_with_comma(known):
        came = known[~is_number].iloc[0]
        expected = (
            f"should hold numbers with a point; came '{came}': write 1.5 for 1,5, or exclude the column"
        )
        raise TableError(source, str(values.name), expected, known.index[~is_number])
    return _category(values)


def _category(values: pd.Series) -> pd.Series:
    text = as_text(values)
    return text.astype(pd.CategoricalDtype(pd.Index(sorted(text.dropna().unique()), dtype="str")))


def _rows(
    table: pd.DataFrame, meaning: ColumnsFile, source: str, for_scoring: bool
) -> tuple[pd.DataFrame, list[FlowStep]]:
    ids = table.index.to_series()
    again = ids.groupby(level=0).cumcount()
    absent = pd.Series(index=table.index, dtype="str")
    rows = pd.DataFrame(
        {
            "deal_id": ids,
            "partner_id": as_text(table[meaning.partner]) if meaning.partner else absent,
            "stage": as_text(table[meaning.stage]) if meaning.stage else absent,
            "decided_at": _decided_at(table, meaning, source),
            "amount": _amount(table, meaning, source),
            "stepped_in": False,
            "outcome": np.nan,
            "outcome_known": True,
        }
    )
    flow = [FlowStep("rows", len(rows), f"every row of {source}")]
    if not for_scoring:
        stepped_in = _yes_or_no(table[meaning.stepped_in.column], meaning.stepped_in)
        outcome = _outcome(table, meaning, source)
        rows = rows.assign(stepped_in=stepped_in, outcome=outcome, outcome_known=outcome.notna())
        flow += _flow(table, meaning, stepped_in.notna(), outcome.notna())
    suffix = (":" + (again + 1).astype("str")).where(again > 0, "")
    return rows.set_index(pd.Index(ids + suffix, name="decision_id")), flow


def _flow(
    table: pd.DataFrame, meaning: ColumnsFile, has_choice: pd.Series, has_outcome: pd.Series
) -> list[FlowStep]:
    stepped_in, outcome = meaning.stepped_in, meaning.outcome
    other_choice = _others_named(table[stepped_in.column][~has_choice])
    other_outcome = _others_named(table[outcome.column][has_choice & ~has_outcome])
    return [
        FlowStep("another choice", int((~has_choice).sum()), f"'{stepped_in.column}' is {other_choice}"),
        FlowStep(
            "another outcome",
            int((has_choice & ~has_outcome).sum()),
            f"'{outcome.column}' is {other_outcome}",
        ),
        FlowStep(
            "decisions", int((has_choice & has_outcome).sum()), "both the choice and the outcome are known"
        ),
    ]


def _others_named(values: pd.Series) -> str:
    named = as_text(values).fillna("missing").value_counts()
    return ", ".join(f"{text} ({n:,})" for text, n in named.head(5).items()) or "never another value"


def _yes_or_no(values: pd.Series, meaning: TwoValues) -> pd.Series:
    text = as_text(values)
    known = text.isin(meaning.yes + meaning.no)
    return text.isin(meaning.yes).astype("boolean").where(known)


def _outcome(table: pd.DataFrame, meaning: ColumnsFile, source: str) -> pd.Series:
    if meaning.numeric:
        return _number(table, meaning.outcome.column, source)
    return _yes_or_no(table[meaning.outcome.column], meaning.outcome).astype("Float64").astype("float64")


def _amount(table: pd.DataFrame, meaning: ColumnsFile, source: str) -> pd.Series:
    if meaning.amount is None:
        return pd.Series(np.nan, index=table.index)
    amount = _number(table, meaning.amount, source)
    if (amount < 0).any():
        raise TableError(source, meaning.amount, "should be 0 or more; came less", table.index[amount < 0])
    ambiguous = thousands_by_point(table[meaning.amount])
    if ambiguous.any():
        expected = "should say thousands without a point, or have another decimal than three somewhere"
        raise TableError(source, meaning.amount, expected, table.index[ambiguous])
    return amount


def _number(table: pd.DataFrame, column: str, source: str) -> pd.Series:
    numbers = pd.to_numeric(table[column], errors="coerce").astype("float64")
    bad = (numbers.isna() & table[column].notna()) | np.isinf(numbers)
    if bad.any():
        came = ", ".join(f"'{text}'" for text in as_text(table[column])[bad].unique()[:3])
        raise TableError(source, column, f"should be a number; came {came}", table.index[bad])
    return numbers


def _decided_at(table: pd.DataFrame, meaning: ColumnsFile, source: str) -> pd.Series:
    if meaning.decided_at is None:
        return pd.Series(pd.NaT, index=table.index, dtype="datetime64[us, UTC]")
    values = table[meaning.decided_at]
    times = pd.to_datetime(values, utc=True, format="ISO8601" if is_text(values) else None, errors="coerce")
    bad = times.isna() & values.notna()
    if bad.any() or pd.api.types.is_numeric_dtype(values.dtype):
        expected = "should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z; came something else"
        raise TableError(source, meaning.decided_at, expected, table.index[bad])
    return times.astype("datetime64[us, UTC]")


def _refuse_too_little(rows: pd.DataFrame, meaning: ColumnsFile, source: str) -> None:
    if rows.empty:
        raise UserError(
            f"{source}: no row has both a known choice and a known outcome; "
            f"see [stepped_in] and [outcome] of {meaning.name}."
        )
    step, outcome = meaning.stepped_in.column, meaning.outcome.column
    refuse_one_valued(rows, f"are 'yes' in '{step}'", f"are 'yes' in '{outcome}'")


def _about(
    meaning: ColumnsFile, features: pd.DataFrame, flow: list[FlowStep], left_out: list[dict[str, str]]
) -> dict[str, Any]:
    stages = meaning.stages
    if not stages and "stage" in features:
        stages = tuple(features["stage"].cat.categories)
    step, outcome = meaning.stepped_in, meaning.outcome
    yes, no = " or ".join(step.yes), " or ".join(step.no)
    what = f"'{outcome.column}'" if meaning.numeric else f"the chance of {' or '.join(outcome.yes)}"
    has_amount = meaning.amount is not None and meaning.amount in features
    return {
        "kind": "flat",
        "outcome": "numeric" if meaning.numeric else "binary",
        "outcome_unit": meaning.outcome_unit,
        "currency": meaning.currency,
        "amount_feature": meaning.amount if has_amount else None,
        "stage_order": list(stages),
        "grace_days": None,
        "horizon_days": None,
        "exported_at": None,
        "question": f"By how much does it change {what} if '{step.column}' is {yes} instead of {no}?",
        "left_out_columns": left_out,
        "flow": [step.to_dict() for step in flow],
    }

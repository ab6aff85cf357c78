"""A DataFrame as the model sees it: each column a number, a yes/no or a category."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.problems import UserError
from training.basis import BOOLEAN, CATEGORY, NUMBER, Array

Columns = Mapping[str, "Array | list[str | None]"]


@dataclass(frozen=True)
class ColumnKinds:
    """Names and kinds of the columns that a model was fitted on."""

    kinds: Mapping[str, str]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "ColumnKinds":
        """Kinds by dtype: booleans are yes/no, numbers numbers, everything else categories."""
        return cls({str(name): _kind(frame[name]) for name in frame.columns})

    def read(self, frame: pd.DataFrame) -> dict[str, "Array | list[str | None]"]:
        """Arrays of floats (NaN is missing) or lists of texts (None is missing), in the model's order.

        Raises
        ------
        UserError
            A column is missing, or holds texts where the model learned numbers.
        """
        names = [str(name) for name in frame.columns]
        missing = [name for name in self.kinds if name not in names]
        if missing:
            raise UserError(
                f"X lacks {len(missing)} of the model's {len(self.kinds)} columns: {', '.join(missing[:5])}. "
                "Give every column that the model was fitted on; a missing value is fine."
            )
        frame = frame.set_axis(names, axis="columns")
        return {name: _read(frame[name], kind) for name, kind in self.kinds.items()}


def as_frame(X: object) -> pd.DataFrame:
    """`X` as a DataFrame: as it is, or a 2-d array with columns x0, x1, ...

    Raises
    ------
    UserError
        Not two-dimensional, empty, or with two columns of one name.
    """
    if not isinstance(X, pd.DataFrame):
        array = np.asarray(X)
        if array.ndim != 2:
            raise UserError(f"X should be a DataFrame or a 2-d array; came {array.ndim} dimension(s).")
        X = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])]).infer_objects()
    if not X.columns.is_unique:
        twice = X.columns[X.columns.duplicated()][0]
        raise UserError(f"X has the column '{twice}' twice; rename or drop one.")
    if X.shape[1] == 0:
        raise UserError("X has no columns; give at least one feature.")
    return X


def nuisance_matrix(columns: Columns, kinds: ColumnKinds, most_levels: int = 60) -> tuple[Array, list[bool]]:
    """One matrix of floats for boosting: levels as codes; columns with more levels are left out.

    Returns
    -------
    matrix of shape (n, k), and for each of its columns whether its numbers are codes of levels
    """
    parts: list[Array] = []
    is_code: list[bool] = []
    for name, kind in kinds.kinds.items():
        values = columns[name]
        if kind == NUMBER:
            if not np.isnan(numbers := np.asarray(values, dtype=float)).all():
                parts.append(numbers)
                is_code.append(False)
            continue
        codes, levels = pd.factorize(np.asarray(values, dtype=object), sort=True)
        if 1 <= len(levels) <= most_levels:
            parts.append(np.where(codes < 0, np.nan, codes.astype(float)))
            is_code.append(kind == CATEGORY and len(levels) > 1)
    n = len(next(iter(columns.values())))
    return (np.column_stack(parts) if parts else np.zeros((n, 1))), (is_code or [False])


def codes_of(values: Sequence[object] | NDArray | pd.Series) -> NDArray[np.int64]:
    """Codes 0, 1, ... for labels, in the labels' own order (as texts), so that row order does not matter."""
    return pd.factorize(pd.Series(np.asarray(values)).astype(str), sort=True)[0].astype(np.int64)


def _kind(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column.dtype):
        return BOOLEAN
    if pd.api.types.is_numeric_dtype(column.dtype):
        return NUMBER
    present = column.dropna()
    if len(present) and present.map(type).isin([bool, np.bool_]).all():
        return BOOLEAN
    return CATEGORY


def _read(column: pd.Series, kind: str) -> "Array | list[str | None]":
    if kind == NUMBER:
        try:
            values = (
                pd.to_numeric(column, errors="raise").astype("float64").to_numpy(dtype=float, na_value=np.nan)
            )
        except (TypeError, ValueError):
            raise UserError(
                f"X: column '{column.name}' should hold numbers, as in training; came texts. "
                "Convert it, or leave the cells empty."
            ) from None
        if np.isinf(values).any():
            raise UserError(f"X: column '{column.name}' holds infinite numbers; leave those cells empty.")
        return np.asarray(values, dtype=float)
    missing = column.isna().to_numpy()
    texts = column.astype(object).to_numpy()
    if kind == BOOLEAN:
        return [None if gone else _truth(text) for text, gone in zip(texts, missing, strict=True)]
    return [None if gone else str(text) for text, gone in zip(texts, missing, strict=True)]


def _truth(value: object) -> str:
    return (
        str(bool(value)).lower() if isinstance(value, bool | np.bool_ | int | float) else str(value).lower()
    )

"""A DataFrame as the model sees it: each column a number, a yes/no or a category."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.problems import UserError
from training.basis import BOOLEAN, CATEGORY, NUMBER, Array, Levels

Values = Array | Levels
Columns = Mapping[str, Values]

_LARGEST = 1e300
_NUMBERS = ("integer", "floating", "mixed-integer-float", "decimal")
_MOMENTS = ("datetime", "datetime64", "date", "time", "timedelta", "timedelta64")


@dataclass(frozen=True)
class ColumnKinds:
    """Names and kinds of the columns that a model was fitted on."""

    kinds: Mapping[str, str]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "ColumnKinds":
        """Kinds by dtype: booleans are yes/no, numbers numbers, everything else categories.

        A column of objects is what all of its values are; where they differ, it is a category of their texts.

        Raises
        ------
        UserError
            A column holds dates, durations or complex numbers.
        """
        return cls({str(name): _kind(frame[name]) for name in frame.columns})

    def read(self, frame: pd.DataFrame) -> dict[str, Values]:
        """Floats (NaN is missing) or levels for each column, in the model's order.

        Raises
        ------
        UserError
            A column is missing, or holds texts where the model learned numbers.
        """
        return dict(self.each(frame))

    def each(self, frame: pd.DataFrame) -> Iterator[tuple[str, Values]]:
        """One column after the other, as `read` has them, so that not all need be held at once."""
        position = {str(name): i for i, name in enumerate(frame.columns)}
        missing = [name for name in self.kinds if name not in position]
        if missing:
            raise UserError(
                f"X lacks {len(missing)} of the model's {len(self.kinds)} columns: {', '.join(missing[:5])}. "
                "Give every column that the model was fitted on; a missing value is fine."
            )
        for name, kind in self.kinds.items():
            column = frame.iloc[:, position[name]]
            yield name, _numbers(name, column) if kind == NUMBER else _levels(column, kind)


def as_frame(X: object) -> pd.DataFrame:
    """`X` as a DataFrame: as it is, or a 2-d array with columns x0, x1, ...

    Raises
    ------
    UserError
        Not two-dimensional, sparse, empty, or with two columns of one name.
    """
    if not isinstance(X, pd.DataFrame):
        if hasattr(X, "tocsr"):
            raise UserError(
                "X is a sparse matrix; give a DataFrame or a dense array, for example X.toarray()."
            )
        array = np.asarray(X)
        if array.ndim != 2:
            raise UserError(
                f"X should be a DataFrame or a 2-d array; came {array.ndim} dimension(s). Reshape your data: "
                "X.reshape(-1, 1) if it is one feature, X.reshape(1, -1) if it is one row."
            )
        X = pd.DataFrame(array, columns=[f"x{i}" for i in range(array.shape[1])], copy=False).infer_objects()
    names = pd.Index([str(name) for name in X.columns])
    if not names.is_unique:
        raise UserError(f"X has the column '{names[names.duplicated()][0]}' twice; rename or drop one.")
    if X.shape[1] == 0:
        raise UserError(f"X has no columns: 0 feature(s) (shape={X.shape}) while a minimum of 1 is required.")
    return X


def codes_of(labels: Sequence[object] | NDArray | pd.Series) -> NDArray[np.int64]:
    """Codes 0, 1, ... for labels, in the labels' own order (as texts), so that row order does not matter."""
    codes, uniques = pd.factorize(pd.Series(np.asarray(labels)), use_na_sentinel=False)
    names = np.array([str(label) for label in uniques], dtype=object)
    return np.unique(names, return_inverse=True)[1][codes].astype(np.int64)


def _kind(column: pd.Series) -> str:
    if isinstance(column.dtype, pd.CategoricalDtype | pd.StringDtype):
        return CATEGORY
    if pd.api.types.is_bool_dtype(column.dtype):
        return BOOLEAN
    if pd.api.types.is_complex_dtype(column.dtype):
        raise UserError(f"X: column '{column.name}': Complex data not supported; give real numbers.")
    if pd.api.types.is_numeric_dtype(column.dtype):
        return NUMBER
    inferred = pd.api.types.infer_dtype(column, skipna=True)
    if inferred in _MOMENTS:
        raise UserError(
            f"X: column '{column.name}' holds dates or times, which would each be a value of their own. Give "
            "numbers instead, such as days until the decision, or the month as a text; or drop it."
        )
    return BOOLEAN if inferred == "boolean" else NUMBER if inferred in _NUMBERS else CATEGORY


def _numbers(name: str, column: pd.Series) -> Array:
    try:
        if column.dtype == object:
            column = pd.to_numeric(column, errors="raise")
        values = column.astype("float64").to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError):
        raise UserError(
            f"X: column '{name}' should hold numbers, as in training; came texts. "
            "Convert it, or leave the cells empty."
        ) from None
    if (np.abs(values) > _LARGEST).any():
        raise UserError(
            f"X: column '{name}' holds infinite numbers, or some beyond {_LARGEST:g}; "
            "leave those cells empty."
        )
    return np.asarray(values, dtype=float)


def _levels(column: pd.Series, kind: str) -> Levels:
    """Codes of the texts that are there, in the texts' own order."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes, uniques = column.cat.codes.to_numpy(), column.cat.categories
    else:
        if column.dtype == object:  # 1 and True are one key, and two texts
            column = column.map(_text, na_action="ignore")
        codes, uniques = pd.factorize(column)
    text = _truth if kind == BOOLEAN else _text
    texts = np.array([text(value) for value in uniques], dtype=object)
    there = np.unique(codes[codes >= 0])
    names = sorted(set(texts[there]))
    of_name = {name: i for i, name in enumerate(names)}
    new = np.array([*(of_name.get(text, -1) for text in texts), -1], dtype=np.int32)
    return Levels(new[codes], tuple(names))


def _text(value: object) -> str:
    """Whole numbers without a decimal point: an integer turns to a float where a neighbour is missing."""
    is_whole = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if is_whole else str(value)  # type: ignore[call-overload]


def _truth(value: object) -> str:
    if isinstance(value, bool | np.bool_ | int | float | np.number):
        return str(bool(value)).lower()
    return {"1": "true", "0": "false"}.get(str(value), str(value).lower())

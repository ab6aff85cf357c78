"""Values as they come in a file -> the types that every later step counts on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

Fault = Callable[[Any, str], Exception]  # (rows at fault, what was expected) -> the error to raise

_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")
_MEND = "mend it, or leave it empty"
_DAY = r"\d{4}-\d\d?-\d\d?|\d{4}/\d\d?/\d\d?|\d{8}"
_WITH_COMMA = r"[-+]?[\d.,' \u00a0\u202f]*,[\d.,' \u00a0\u202f]*"
_COMMA_NUMBER = r"[-+]?\d{1,3}(?:[.' \u00a0\u202f]?\d{3})*,\d+"
_BY_POINT = r"[1-9]\d{0,2}\.\d{3}"
_LARGEST_WHOLE = 2**53  # above it, a float no longer tells a number from the next
_MOST_SHOWN = 40
_LEADING_ZERO = r"0\d+"


def coerce(values: pd.Series, kind: str, fault: Fault) -> pd.Series:
    """Return the values as text, time, number or boolean; refuse what is none.

    Parameters
    ----------
    values : a column of a CSV (all text, missing as NaN) or of a Parquet file
    kind : ``text``, ``time``, ``number`` or ``boolean``
    fault : makes the error from a mask of the rows at fault and a sentence

    Notes
    -----
    Text that reads as a number is taken for one, because a CSV holds nothing else. "nan" and "inf" are
    not numbers that a CRM means: the one is refused as text, the other by the schema.
    """
    if values.isna().all():
        values = values.astype("object").astype("str")
    return {"text": _to_text, "time": _to_time, "number": _to_number, "boolean": _to_boolean}[kind](
        values, fault
    )


def infer(values: pd.Series) -> pd.Series:
    """Return a user's own column as number, boolean, time or text: the first that fits every value."""
    if is_text(values):
        values = as_text(values)
        known = values.dropna()
        if len(known) and known.str.lower().isin(("true", "false")).all():
            return _to_boolean(values, _never)
        numbers = pd.to_numeric(known, errors="coerce")
        is_code = known.str.fullmatch(_LEADING_ZERO).any()  # a postcode, say, would lose its zero
        if len(known) and np.isfinite(numbers).all() and not is_code:
            return numbers.reindex(values.index).astype("float64")
        return values
    if _is_boolean(values):
        return values.astype("boolean")
    if pd.api.types.is_numeric_dtype(values.dtype):
        return values.astype("float64").replace([np.inf, -np.inf], np.nan)
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return _to_time(values, _never)
    return as_text(values)


def is_text(values: pd.Series) -> bool:
    """Tell whether every value that is there is a text."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return is_text(values.cat.categories.to_series())
    if values.dtype == "object":
        return pd.api.types.infer_dtype(values, skipna=True) == "string"
    return isinstance(values.dtype, pd.StringDtype)


def as_text(values: pd.Series) -> pd.Series:
    """Return any values as pandas' str, missing where they were; whole numbers without a decimal point."""
    if is_text(values):
        return values.astype("object").astype("str") if values.dtype != "str" else values
    if pd.api.types.is_float_dtype(values.dtype) and (values.isna() | _is_whole(values)).all():
        values = values.astype("Int64")  # whole numbers turn to floats where one is missing
    return values.astype("object").map(str, na_action="ignore").astype("str")


def _is_whole(values: pd.Series) -> pd.Series:
    return (values == values.round()) & (values.abs() < _LARGEST_WHOLE)


def _never(_bad: Any, text: str) -> Exception:
    raise AssertionError(text)


def _to_text(values: pd.Series, _fault: Fault) -> pd.Series:
    text = as_text(values)
    return text.mask(text == "")


def _to_number(values: pd.Series, fault: Fault) -> pd.Series:
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype("object").astype("str")
    if _is_boolean(values) or values.dtype.kind in "mM":
        raise fault(values.notna(), f"should be a number; came {_what(values)}: {_MEND}")
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    bad = numbers.isna() & values.notna()
    if bad.any():
        came = as_text(values[bad])
        comma = came.str.fullmatch(_WITH_COMMA).all()
        mend = "write decimals with a point and thousands without a sign" if comma else _MEND
        raise fault(bad, f"should be a number; came text such as '{_shortened(came.iloc[0])}': {mend}")
    return numbers


def decimals_with_comma(known: pd.Series) -> bool:
    """Tell whether texts, none missing, are all numbers, some of them with a comma: 1.234,56 and 99,5."""
    with_comma = known.str.fullmatch(_COMMA_NUMBER)
    return bool(with_comma.any() and (with_comma | known.str.fullmatch(r"[-+]?\d+")).all())


def thousands_by_point(values: pd.Series) -> pd.Series:
    """Mark texts such as 12.500 where the whole column is written as if the point parted thousands.

    That is: each number with a point has one to three digits before it and three after it, and no number
    without a point reaches 1,000. One other number tells that the point is the decimal one.
    """
    none = pd.Series(data=False, index=values.index)
    if not is_text(values):
        return none
    text = as_text(values)
    with_point = text.str.contains(".", regex=False, na=False)
    marked = text.str.fullmatch(_BY_POINT, na=False)
    plain = pd.to_numeric(text[~with_point], errors="coerce")
    return marked if marked.any() and (marked == with_point).all() and not (plain >= 1000).any() else none


def _to_time(values: pd.Series, fault: Fault) -> pd.Series:
    expected = "should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z"
    if pd.api.types.is_numeric_dtype(values.dtype):
        raise fault(values.notna(), f"{expected}; came {_what(values)}: {_MEND}")
    if isinstance(values.dtype, pd.CategoricalDtype):
        values = values.astype("object")
    is_time = pd.api.types.is_datetime64_any_dtype(values.dtype)
    times = (
        pd.to_datetime(values, utc=True)
        if is_time
        else pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce")
    )
    bad = times.isna() & values.notna()
    if is_text(values):  # pandas takes "2024" for its first of January, and "now" for the present
        bad |= ~values.astype("str").str.match(_DAY, na=True)
    if bad.any():
        raise fault(bad, f"{expected}; came something else: {_MEND}")
    return times.astype(pd.DatetimeTZDtype("us", "UTC"))


def _to_boolean(values: pd.Series, fault: Fault) -> pd.Series:
    if _is_boolean(values):
        return values.astype("boolean")
    text = as_text(values).str.lower().str.removesuffix(".0")
    bad = text.notna() & ~text.isin(_YES + _NO)
    if bad.any():
        raise fault(bad, f"should be true or false; came something else: {_MEND}")
    return text.isin(_YES).astype("boolean").mask(text.isna())


def _is_boolean(values: pd.Series) -> bool:
    if values.dtype == "object":  # Parquet's booleans, where some are missing
        return pd.api.types.infer_dtype(values, skipna=True) == "boolean"
    return bool(pd.api.types.is_bool_dtype(values.dtype))


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_SHOWN else line[: _MOST_SHOWN - 3] + "..."


def _what(values: pd.Series) -> str:
    if _is_boolean(values):
        return "true and false"
    if values.dtype.kind == "m":
        return "durations"
    return "times" if pd.api.types.is_datetime64_any_dtype(values.dtype) else "numbers"

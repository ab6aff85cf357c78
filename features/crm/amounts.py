"""Numbers as exports write them: 1.234,56 or 1,234.56, decided once for a column."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.problems import UserError

Decimal = Literal[".", ","]

_DIGITS = r"^[+-]?\d+$"
_SCIENTIFIC = r"^[+-]?\d+(\.\d+)?[eE][+-]?\d{1,2}$"
_POINT = r"^[+-]?(\d{1,3}(,\d{3})+\.\d+|\d*\.(\d{1,2}|\d{4,})|\d{4,}\.\d{3}|0?\.\d{3}|\d{1,3}(,\d{3}){2,})$"
_COMMA = r"^[+-]?(\d{1,3}(\.\d{3})+,\d+|\d*,(\d{1,2}|\d{4,})|\d{4,},\d{3}|0?,\d{3}|\d{1,3}(\.\d{3}){2,})$"
_OPEN_POINT = r"^[+-]?[1-9]\d{0,2}\.\d{3}$"  # 1.234
_OPEN_COMMA = r"^[+-]?[1-9]\d{0,2},\d{3}$"  # 1,234
# Money's sign or code, blanks of every width, and apostrophes (1'234) say nothing about the number.
_DRESSING = r"[\p{Sc}\s\x{00a0}\x{2009}\x{202f}'’]|^[A-Za-z]{3}|[A-Za-z]{3}$"
_ODD = "a number that cannot be read: taken for a blank"
_NEGATIVE = "a number below 0: taken for a blank"
_OTHER_WAY = "a number written the other way round than its column: taken for a blank"


@dataclass
class Numbers:
    """A column of numbers: float64, and by rule the positions it touched."""

    values: NDArray[np.float64]
    odd: dict[str, NDArray[np.int64]] = field(default_factory=dict)


def read_numbers(texts: pa.ChunkedArray | pa.Array, decimal: Decimal | None, where: str) -> Numbers:
    """Read a column of numbers, finite and not negative.

    Parameters
    ----------
    texts : Arrow texts, null where blank
    decimal : the sign before the decimals where the mapping says it; None where the column decides
    where : the column's name for an error

    Raises
    ------
    UserError
        Numbers such as 1.234 of which nothing says whether that is about one or more than a thousand.
    """
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    bare = _undressed(texts)
    plain = _matches(bare, _DIGITS) | _matches(bare, _SCIENTIFIC)
    by_point, by_comma = _matches(bare, _POINT), _matches(bare, _COMMA)
    left_open = _matches(bare, _OPEN_POINT) | _matches(bare, _OPEN_COMMA)
    sign = decimal or _decide(by_point, by_comma, left_open, texts, where)
    fits = left_open | (by_point if sign == "." else by_comma)
    values = np.full(len(texts), np.nan)
    _fill(values, plain, bare)
    _fill(values, fits & ~plain, _to_point(bare, sign))
    odd = {}
    given = ~texts.is_null().to_numpy(zero_copy_only=False)
    other_way = (by_comma if sign == "." else by_point) & ~fits & ~plain
    negative = values < 0
    infinite = np.isinf(values)
    values[negative | infinite] = np.nan
    for rule, hit in (
        (_OTHER_WAY, other_way),
        (_NEGATIVE, negative),
        (_ODD, given & ~plain & ~fits & ~other_way | infinite),
    ):
        if hit.any():
            odd[rule] = np.flatnonzero(hit)
    return Numbers(values, odd)


def decimal_sign(texts: pa.Array) -> Decimal | Literal["open"] | None:
    """Tell what stands before a column's decimals: ``open`` where its numbers, such as 1.234, do not say.

    None where nothing in it could say or ask it: whole numbers, or no numbers at all.
    """
    bare = _undressed(texts)
    point, comma = int(_matches(bare, _POINT).sum()), int(_matches(bare, _COMMA).sum())
    if point != comma:
        return "." if point > comma else ","
    asks = point > 0 or bool((_matches(bare, _OPEN_POINT) | _matches(bare, _OPEN_COMMA)).any())
    return "open" if asks else None


def as_text(values: NDArray[np.float64]) -> list[str | None]:
    """Write numbers as text, whole ones without a point, missing ones as None."""
    return [
        None if np.isnan(v) else str(int(v)) if v == int(v) and abs(v) < 1e15 else repr(float(v))
        for v in values
    ]


def _undressed(texts: pa.Array) -> pa.Array:
    trimmed = pc.replace_substring_regex(
        texts, r"^\s*\((.*)\)\s*$", r"-\1"
    )  # (1,234) is a book-keeper's minus
    bare = pc.replace_substring_regex(trimmed, _DRESSING, "")
    bare = pc.replace_substring_regex(bare, r"^[−–]", "-")
    return pc.replace_substring_regex(bare, r"^-[A-Za-z]{3}", "-")


def _matches(texts: pa.Array, pattern: str) -> NDArray[np.bool_]:
    return pc.fill_null(pc.match_substring_regex(texts, pattern), False).to_numpy(zero_copy_only=False)


def _decide(
    by_point: NDArray[np.bool_],
    by_comma: NDArray[np.bool_],
    left_open: NDArray[np.bool_],
    texts: pa.Array,
    where: str,
) -> Decimal:
    n_point, n_comma = int(by_point.sum()), int(by_comma.sum())
    if n_point != n_comma:
        return "." if n_point > n_comma else ","
    if n_point == 0 and not left_open.any():
        return "."
    shown = texts[int(np.flatnonzero(left_open | by_point | by_comma)[0])].as_py()
    raise UserError(
        f"{where} holds numbers such as '{shown}', and nothing says whether the point or the comma stands "
        'before the decimals; copy the mapping, write decimal = "." or "," under [reading], and give it '
        "with --map."
    )


def _to_point(texts: pa.Array, sign: Decimal) -> pa.Array:
    thousands = "," if sign == "." else "."
    return pc.replace_substring(pc.replace_substring(texts, thousands, ""), sign, ".")


def _fill(values: NDArray[np.float64], where: NDArray[np.bool_], texts: pa.Array) -> None:
    if where.any():
        values[where] = pc.cast(texts.filter(pa.array(where)), "float64").to_numpy(zero_copy_only=False)

"""Times as exports write them -> UTC: a column decides its format, a named rule what is odd."""

from dataclasses import dataclass, field
from typing import Literal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.problems import UserError

DayOrder = Literal["month first", "day first"]
UTC_US = pd.DatetimeTZDtype("us", "UTC")

_CLOCK = (
    r"(?:[T ,]+(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<half>[AaPp]\.?[Mm]\.?)?)?"
)
_OFFSET = r"\s*(?P<offset>Z|z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?"
_YEAR_FIRST = r"^(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})" + _CLOCK + _OFFSET + "$"
_SLASHES = r"^(?P<first>\d{1,2})[/-](?P<then>\d{1,2})[/-](?P<year>\d{4}|\d{2})" + _CLOCK + _OFFSET + "$"
_DOTS = r"^(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4}|\d{2})" + _CLOCK + _OFFSET + "$"
_EPOCH = r"^(?P<epoch>\d{12,13})$"
_GAP = "a time that a change of the clocks skips: moved to the first moment after it"
_FOLD = "a time that a change of the clocks repeats: the first of the two taken"
_EARLY = "a time before {year}: taken for a blank"
_ODD = "a time that cannot be read: taken for a blank"


@dataclass
class Times:
    """A column of times.

    Attributes
    ----------
    utc : datetime64[us, UTC], missing where there is none
    day_only : no time of day was given: midnight in the export's zone
    odd : by rule, which rows it touched (positions)
    zoneless : some have a time of day and no offset: the zone was taken for granted
    """

    utc: pd.Series
    day_only: NDArray[np.bool_]
    odd: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    zoneless: bool = False


@dataclass(frozen=True)
class Clockwork:
    """How times are to be read where the text alone leaves it open.

    Attributes
    ----------
    zone : of times that carry no offset
    day_order : of 02/03/2026; None where the column has to decide
    earliest_year : times before it stand for blanks
    """

    zone: ZoneInfo
    day_order: DayOrder | None = None
    earliest_year: int = 1990


def day_order(texts: pa.ChunkedArray) -> DayOrder | Literal["both"] | None:
    """Tell which way round the dates with slashes are: None where they leave it open, or there are none."""
    parts = pc.extract_regex(texts, _SLASHES)
    first, then = (_number(parts, name) for name in ("first", "then"))
    day_first, month_first = bool((first > 12).any()), bool((then > 12).any())
    if day_first and month_first:
        return "both"
    return "day first" if day_first else "month first" if month_first else None


def has_slashes(texts: pa.ChunkedArray) -> bool:
    """Tell whether any date is written with slashes, so that its order has to be known."""
    return bool(pc.any(pc.match_substring_regex(texts, _SLASHES)).as_py())


def read_times(texts: pa.ChunkedArray, how: Clockwork, where: str) -> Times:
    """Read a column of times.

    Parameters
    ----------
    texts : Arrow texts, null where blank
    how : the zone, and what the texts leave open
    where : the column's name for an error, such as ``Opportunity.csv: column 'CloseDate'``

    Raises
    ------
    UserError
        Dates such as 02/03/2026 of which nothing says whether the day or the month comes first.
    """
    texts = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    n = len(texts)
    local = np.full(n, np.iinfo(np.int64).min, dtype=np.int64)  # NaT
    offset = np.full(n, np.nan)
    day_only = np.zeros(n, dtype=bool)
    early = np.zeros(n, dtype=bool)
    left = ~texts.is_null().to_numpy(zero_copy_only=False)
    given = left.copy()
    for pattern in (_YEAR_FIRST, _SLASHES, _DOTS, _EPOCH):
        if not left.any():
            break
        at = np.flatnonzero(left)
        parts = pc.extract_regex(texts.take(pa.array(at)), pattern)
        hit = ~parts.is_null().to_numpy(zero_copy_only=False)
        at, parts = at[hit], parts.filter(pa.array(hit))
        if not len(at):
            continue
        left[at] = False
        if pattern == _EPOCH:
            local[at], offset[at] = pc.cast(_field(parts, "epoch"), "int64").to_numpy() * 1000, 0.0
            continue
        order = _order(texts, how, where) if pattern == _SLASHES else None
        local[at], day_only[at] = _assemble(parts, order)
        offset[at] = _offsets(parts)
        early[at] = _years(parts) < how.earliest_year
    odd = {}
    unreadable = given & (local == np.iinfo(np.int64).min) & ~early
    local[early] = np.iinfo(np.int64).min
    if early.any():
        odd[_EARLY.format(year=how.earliest_year)] = np.flatnonzero(early)
    if unreadable.any():
        odd[_ODD] = np.flatnonzero(unreadable)
    utc = _to_utc(local, offset, how.zone, odd)
    early_epoch = (utc < pd.Timestamp(how.earliest_year, 1, 1, tz="UTC") - pd.Timedelta(days=1)).to_numpy()
    if early_epoch.any():
        odd[_EARLY.format(year=how.earliest_year)] = np.flatnonzero(early | early_epoch)
        utc = utc.mask(early_epoch)
    zoneless = bool((given & np.isnan(offset) & ~day_only & utc.notna().to_numpy()).any())
    return Times(utc, day_only, odd, zoneless)


def _order(texts: pa.Array, how: Clockwork, where: str) -> DayOrder:
    own = day_order(texts)
    if own == "both":
        own = how.day_order or "month first"  # what does not fit is counted as unreadable
    order = own or how.day_order
    if order is None:
        shown = next(text for text in texts.to_pylist() if (text and "/" in text) or (text and "-" in text))
        raise UserError(
            f"{where} holds dates such as '{shown}', and none of them says whether the day or the month "
            'comes first; copy the mapping, write dates = "month first" or "day first" under '
            "[reading], and give it with --map."
        )
    return order


def _field(parts: pa.StructArray, name: str) -> pa.Array:
    return pc.struct_field(parts, name)


def _number(parts: pa.StructArray, name: str) -> NDArray[np.int64]:
    """Return a group as whole numbers, 0 where it is not there."""
    if isinstance(parts, pa.ChunkedArray):
        parts = parts.combine_chunks()
    values = _field(parts, name)
    values = pc.if_else(pc.equal(values, ""), None, values)
    return pc.fill_null(pc.cast(values, "int64"), 0).to_numpy(zero_copy_only=False)


def _years(parts: pa.StructArray) -> NDArray[np.int64]:
    year = _number(parts, "year")
    short = pc.less(pc.utf8_length(_field(parts, "year")), 3).to_numpy(zero_copy_only=False)
    return np.where(short, np.where(year < 69, 2000 + year, 1900 + year), year)


def _assemble(parts: pa.StructArray, order: DayOrder | None) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Microseconds since 1970 of the wall clock, NaT where there is no such day or time."""
    if order is None:
        month, day = _number(parts, "month"), _number(parts, "day")
    else:
        first, then = _number(parts, "first"), _number(parts, "then")
        month, day = (first, then) if order == "month first" else (then, first)
    year = _years(parts)
    hour, minute, second = (_number(parts, name) for name in ("hour", "minute", "second"))
    half = pc.fill_null(pc.utf8_slice_codeunits(pc.utf8_lower(_field(parts, "half")), 0, 1), "")
    half_day = half.to_numpy(zero_copy_only=False)
    wrong_half = (half_day != "") & ((hour < 1) | (hour > 12))
    hour = np.where(half_day == "p", hour % 12 + 12, np.where(half_day == "a", hour % 12, hour))
    micro = _number_of_texts(pc.utf8_slice_codeunits(pc.utf8_rpad(_field(parts, "part"), 6, "0"), 0, 6))
    ok = (month >= 1) & (month <= 12) & (day >= 1) & (hour < 24) & (minute < 60) & (second < 60) & ~wrong_half
    months = (year - 1970) * 12 + np.clip(month, 1, 12) - 1
    start = months.astype("datetime64[M]")
    days = start.astype("datetime64[D]") + (day - 1)
    ok &= days.astype("datetime64[M]") == start
    ok &= year > 0
    clock = ((hour * 60 + minute) * 60 + second) * 1_000_000 + micro
    value = np.where(ok, days.astype("int64") * 86_400_000_000 + clock, np.iinfo(np.int64).min)
    day_only = pc.equal(pc.fill_null(_field(parts, "hour"), ""), "").to_numpy(zero_copy_only=False)
    return value, day_only


def _number_of_texts(values: pa.Array) -> NDArray[np.int64]:
    values = pc.if_else(pc.match_substring_regex(values, "^[0-9]+$"), values, "0")
    return pc.fill_null(pc.cast(values, "int64"), 0).to_numpy(zero_copy_only=False)


def _offsets(parts: pa.StructArray) -> NDArray[np.float64]:
    """Minutes east of Greenwich, missing where the text carries none."""
    texts = pc.replace_substring(_field(parts, "offset"), ":", "")
    texts = pc.if_else(pc.match_substring_regex(texts, "^(Z|z|UTC|GMT)$"), "+0000", texts)
    hours = _number_of_texts(pc.utf8_slice_codeunits(texts, 1, 3))
    minutes = _number_of_texts(pc.utf8_slice_codeunits(texts, 3, 5))
    sign = pc.fill_null(pc.utf8_slice_codeunits(texts, 0, 1), "").to_numpy(zero_copy_only=False)
    size = (hours * 60 + minutes).astype("float64")
    return np.where(sign == "+", size, np.where(sign == "-", -size, np.nan))


def _to_utc(
    local: NDArray[np.int64], offset: NDArray[np.float64], zone: ZoneInfo, odd: dict[str, NDArray[np.int64]]
) -> pd.Series:
    wall = pd.Series(local.view("datetime64[us]"))
    told = ~np.isnan(offset)
    shift = pd.to_timedelta(np.where(told, offset, 0.0).astype("int64") * 60_000_000, unit="us")
    utc = (wall - shift).dt.tz_localize("UTC").astype(UTC_US)
    if told.all() or zone.key == "UTC":
        return utc
    own = wall.mask(told)
    aware = own.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    doubtful = (aware.isna() & own.notna()).to_numpy()
    if doubtful.any():
        moved = own[doubtful].dt.tz_localize(
            zone, ambiguous=np.ones(int(doubtful.sum()), dtype=bool), nonexistent="shift_forward"
        )
        skipped = moved.dt.tz_localize(None) != own[doubtful]
        at = np.flatnonzero(doubtful)
        for rule, hit in ((_GAP, skipped.to_numpy()), (_FOLD, ~skipped.to_numpy())):
            if hit.any():
                odd[rule] = at[hit]
        aware = aware.where(~doubtful, moved.reindex(own.index))
    return utc.where(told, aware.dt.tz_convert("UTC")).astype(UTC_US)

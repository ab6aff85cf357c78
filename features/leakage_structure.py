"""Rules that hold columns against each other: parts of a whole, sums, classes of another column."""

from collections.abc import Callable, Iterator, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from features.leakage_evidence import Column, Evidence
from features.leakage_rules import Finding, is_duration

FrameRule = Callable[[Sequence[Column], Evidence], Iterator[Finding]]
_SKETCH = 2_000  # rows on which combinations are tried before all rows decide
_MOST_PARTS, _MOST_TRIED = 4, 12
_MOST_CLASSES = 20


def parts_of_a_whole(columns: Sequence[Column], _evidence: Evidence) -> Iterator[Finding]:
    """Shares that add up to 1 (or 100): of time, they are known only when the time is over."""
    shares = [column for column in columns if _is_share(column)][:_MOST_TRIED]
    for size in range(2, _MOST_PARTS + 1):
        for parts in combinations(shares, size):
            if (
                _adds_up(parts, slice(None, _SKETCH)) >= 0.8
                and (exact := _adds_up(parts, slice(None))) >= 0.9
            ):
                of_time = any(is_duration(part.name) for part in parts)
                yield from (_part(part, parts, exact, of_time) for part in parts)
                return


def sums_of_durations(columns: Sequence[Column], _evidence: Evidence) -> Iterator[Finding]:
    """A length of time that others add up to, or that never falls short of another and mostly equals it."""
    times = [c for c in columns if c.numbers is not None and is_duration(c.name) and c.distinct() > 5]
    for total in times[:_MOST_TRIED]:
        others = [column for column in times[:_MOST_TRIED] if column is not total]
        for parts in combinations(others, 2):
            if _equals(total, parts) >= 0.95:
                names = " and ".join(f"'{part.name}'" for part in parts)
                yield Finding(
                    total.name,
                    "stop",
                    "accumulates",
                    f"it is the sum of {names} in {_equals(total, parts):.0%} of the rows; "
                    "a total of times is known only when the last of them is over",
                )


def classes_of_another(columns: Sequence[Column], _evidence: Evidence) -> Iterator[Finding]:
    """Few levels that are ranges of a number in another column."""
    fine = [column for column in columns if column.numbers is not None and column.distinct() > 60]
    for column in columns:
        n_classes = column.distinct()
        if not 3 <= n_classes <= _MOST_CLASSES:
            continue
        for other in fine:
            if other is not column and other.distinct() >= 10 * n_classes and _steps(column, other):
                yield Finding(
                    column.name,
                    "warn",
                    "derived",
                    f"it is '{other.name}' in {n_classes} classes; it tells nothing new, and is wrong "
                    f"wherever '{other.name}' is corrected later",
                )
                break


FRAME_RULES: tuple[FrameRule, ...] = (parts_of_a_whole, sums_of_durations, classes_of_another)


def _is_share(column: Column) -> bool:
    if column.numbers is None or column.distinct() < 5:
        return False
    known = column.numbers[~column.missing]
    return bool(known.min() >= 0 and (known.max() <= 1.05 or 50 < known.max() <= 105))


def _adds_up(parts: Sequence[Column], rows: slice) -> float:
    """The share of rows, among those with any part, in which the parts make a whole."""
    values = np.array([part.numbers[rows] for part in parts if part.numbers is not None])
    whole = 100.0 if np.nanmax(values, initial=0.0) > 2 else 1.0
    total = values.sum(axis=0)
    there = total > 0.01 * whole
    if there.sum() < 30 or (np.nanmean(values, axis=1) < 0.01 * whole).any():
        return 0.0
    return float((np.abs(total[there] - whole) <= 0.02 * whole).mean())


def _part(part: Column, parts: Sequence[Column], share: float, of_time: bool) -> Finding:
    others = " and ".join(f"'{other.name}'" for other in parts if other is not part)
    last = (
        "shares of a time are known only when all of it is over"
        if of_time
        else ("if it is a share of something that goes on until the closing, it is known only then")
    )
    return Finding(
        part.name,
        "stop" if of_time else "warn",
        "accumulates",
        f"together with {others} it makes a whole in {share:.0%} of the rows; {last}",
    )


def _equals(total: Column, parts: Sequence[Column]) -> float:
    assert total.numbers is not None
    added = np.sum([part.numbers for part in parts if part.numbers is not None], axis=0)
    there = ~np.isnan(added) & ~np.isnan(total.numbers) & (total.numbers > 0)
    if there.sum() < 30 or any(
        (part.numbers[there] > 0).mean() < 0.1 for part in parts if part.numbers is not None
    ):
        return 0.0
    return float(np.isclose(added[there], total.numbers[there], rtol=0.01, atol=0.01).mean())


def _steps(column: Column, other: Column) -> bool:
    """Whether the levels are ranges of the other's numbers that do not overlap, each with several numbers."""
    if not _in_order(_ranges(column, other, slice(None, _SKETCH))):
        return False  # what overlaps on some rows does so on all of them
    ranges = _ranges(column, other, slice(None))
    return len(ranges) >= 3 and ranges["nunique"].median() >= 5 and _in_order(ranges)


def _ranges(column: Column, other: Column, rows: slice) -> pd.DataFrame:
    """Return where the other's numbers lie within each level, in order."""
    assert other.numbers is not None
    level = column.texts.to_numpy() if column.texts is not None else column.numbers
    assert level is not None
    both = (~column.missing & ~other.missing)[rows]
    table = pd.DataFrame({"level": level[rows][both], "number": other.numbers[rows][both]})
    return table.groupby("level")["number"].agg(["min", "max", "nunique"]).sort_values(["min", "max"])


def _in_order(ranges: pd.DataFrame) -> bool:
    return bool((ranges["min"].to_numpy()[1:] >= ranges["max"].to_numpy()[:-1]).all())

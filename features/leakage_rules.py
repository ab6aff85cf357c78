"""Rules that look at one column: what it tells of the outcome and the choice, and what its name says."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from features.leakage_evidence import Column, Evidence, share_bounds

STOP_AREA, WARN_AREA = 0.95, 0.85
LEAST_ROWS = 30
BIG_JUMP = 0.30  # of the win rate, at the cautious ends of both bounds
CLEAR = 4.0  # -log10 of a p-value: one in ten thousand
WEAK_LINK = 0.05  # Cramér's V

# What each rule looks for, in words; the documentation holds the same names.
RULES = {
    "outcome": "the column repeats the outcome, or sets nearly every won deal apart from the lost ones",
    "missingness": "whether it is filled tells won from lost",
    "openness": "it is empty on open deals only, or filled on closed deals only",
    "treatment": "the column repeats who stepped in",
    "accumulates": "a duration, a count or a share of time that runs until the deal closes",
    "close date": "a date that lies at the closing, or is named after it",
    "after closing": "its values were typed in when the deal had closed",
    "contains the deal": "one value makes the win rate jump: the deal itself may be counted in it",
    "derived": "the column is another column in classes",
    "id": "the column names or numbers each row",
    "free text": "the column holds sentences",
}


Verdict = Literal["stop", "warn"]


@dataclass(frozen=True)
class Finding:
    """One column that may know the future."""

    column: str
    verdict: Verdict
    rule: str
    """One of `RULES`."""
    why: str
    """What was seen, with figures, and what it means: a sentence without its full stop."""


Rule = Callable[[Column, Evidence], Iterator[Finding]]

_LONG = re.compile(r"\b(days?|hours?|weeks?|months?|duration|time|elapsed|length|age)\b")
_UNTIL_THE_END = re.compile(
    r"\belapsed\b|\bthrough\b|\bclos(e|ed|ing)\b|\btotal days\b|\bsales cycle\b|\bcycle (time|length)\b"
    r"|\bdays? in (sales )?stage\b|\btime in (sales )?stage\b"
)
_COUNTED = re.compile(r"\b(count|number|num|n|nr|total|how many)\b")
_OF_THE_PROCESS = re.compile(
    r"\b(changes?|push(es)?|slips?|calls?|e?mails?|meetings?|visits|demos|notes|contacted|touch(es)?"
    r"|activit(y|ies)|interactions)\b"
)
_MAYBE_COUNTED = re.compile(
    r"(calls|e?mails|meetings|visits|demos|notes|activities|interactions)( (made|sent))?"
)
_PLANNED = re.compile(r"\b(expected|planned|estimated|est|forecast)\b")
_EARLIER = re.compile(
    r"\b(before|since|prior|previous|tenure|until|quarter|creation|contract|payment|warranty)\b"
)
_CLOSES = re.compile(r"\b(clos(e|ed|ing)|won|lost|signed|actual|end(ed)?)\b")
_MOVED = re.compile(
    r"\b(probability|likelihood|forecast category|status reason|(win|won|loss|lost) reason)\b"
    r"|^((deal|opportunity|lead) )?rating$"
)
_NAMES = re.compile(r"\b(id|guid|uuid|key|number|no|code)\b")


def words_of(name: str) -> str:
    """Return a column's name in lower-case words: ``TotalDays_toClose`` is ``total days to close``."""
    parted = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", " ", name)
    return " ".join(parted.lower().split())


def is_duration(name: str) -> bool:
    """Tell whether the name speaks of a length of time that is not over before the decision."""
    words = words_of(name)
    return bool(_LONG.search(words)) and not _EARLIER.search(words)


def outcome_alone(column: Column, evidence: Evidence) -> Iterator[Finding]:
    """The column by itself sets won from lost apart."""
    if not evidence.is_binary:
        yield from _equals_number(column, evidence)
        return
    won = evidence.won
    if min(won.sum(), (~won).sum()) < LEAST_ROWS:
        return
    area, low = column.tells("won", won, evidence.half)
    if low >= WARN_AREA:
        verdict: Verdict = "stop" if low >= STOP_AREA else "warn"
        yield Finding(
            column.name,
            verdict,
            "outcome",
            f"by itself it tells a won deal from a lost one in {area:.1%} of pairs ({_extremes(column)}); "
            "nothing known beforehand is that good, so it was written when the outcome was known",
        )
        return
    yield from _pure_level(column, won)


def missing_tells(column: Column, evidence: Evidence) -> Iterator[Finding]:
    """Whether the column is filled tells won from lost."""
    missing, won = column.missing, evidence.won
    if not evidence.is_binary or min(missing.sum(), (~missing).sum()) < LEAST_ROWS:
        return
    sides = _alike(evidence, missing, ~missing)
    if sides is None:
        return
    empty, filled = (_rate(won, side) for side in sides)
    if max(empty[1] - filled[2], filled[1] - empty[2]) < BIG_JUMP:
        return
    pure = [rate for rate in (empty[0], filled[0]) if rate in (0.0, 1.0)]
    yield Finding(
        column.name,
        "stop" if pure else "warn",
        "missingness",
        f"{empty[0]:.0%} of the deals without it were won and {filled[0]:.0%} of those with it; "
        "so it is filled in, or emptied, because of how the deal ended",
    )


def repeats_choice(column: Column, evidence: Evidence) -> Iterator[Finding]:
    """The column is who stepped in, under another name."""
    chosen = evidence.stepped_in
    if min(chosen.sum(), (~chosen).sum()) < LEAST_ROWS or _may_decide(column):
        return
    if column.numbers is not None and column.distinct() > 10:  # an edge in a number is a policy, not a copy
        return
    if int((column.n > 0).sum()) > 10:
        return
    with_vendor = np.bincount(column.group, weights=chosen, minlength=len(column.n))
    wrong = np.minimum(with_vendor, column.n - with_vendor).sum()
    if wrong > 0.005 * len(chosen) or column.tells("choice", chosen, evidence.half)[0] < 0.99:
        return
    is_copy = int((column.n > 0).sum()) == 2
    yield Finding(
        column.name,
        "stop" if is_copy else "warn",
        "treatment",
        f"it agrees with who stepped in on all but {wrong:,.0f} of {len(chosen):,} deals; "
        "so it records the choice and cannot help to compare the two",
    )


def named_to_run_on(column: Column, _evidence: Evidence) -> Iterator[Finding]:
    """A duration or a count whose name says that it runs until the end."""
    words = words_of(column.name)
    if column.numbers is None or _EARLIER.search(words):
        return
    runs = bool(_LONG.search(words) and _UNTIL_THE_END.search(words))
    is_bare = bool(_MAYBE_COUNTED.fullmatch(words))
    counts = is_bare or bool(_COUNTED.search(words) and _OF_THE_PROCESS.search(words))
    maybe = is_bare or bool(_PLANNED.search(words))  # counted, or planned, before the decision perhaps
    if not (runs or counts) or np.nanmin(column.numbers, initial=0) < 0:
        return
    clear, link = column.strength()
    tells = clear >= CLEAR and link >= WEAK_LINK
    kind = "a length of time" if runs else "a count"
    seen = f", and goes with the outcome ({_extremes(column)})" if tells else ""
    yield Finding(
        column.name,
        "stop" if tells and not maybe else "warn",
        "accumulates",
        f"by its name it is {kind} that runs on until the deal closes{seen}; "
        "in the middle of a deal nobody knows its final value",
    )


def named_to_be_moved(column: Column, evidence: Evidence) -> Iterator[Finding]:
    """A verdict on the deal itself, which people or the system correct until it closes."""
    if not evidence.is_binary or not _MOVED.search(words_of(column.name)):
        return
    clear, link = column.strength()
    if clear >= CLEAR and link >= WEAK_LINK:
        yield Finding(
            column.name,
            "warn",
            "outcome",
            "by its name it is moved towards the end as the deal goes on, and it goes with the outcome "
            f"({_extremes(column)}); if it is not as it stood at the decision, it knows how the deal ended",
        )


def jumps(column: Column, evidence: Evidence) -> Iterator[Finding]:
    """Having any of it at all makes the win rate jump."""
    if column.numbers is None or not evidence.is_binary or column.distinct() < 3:
        return
    sides = _alike(evidence, column.numbers == 0, column.numbers > 0)
    if sides is None:
        return
    none, some = sides
    without, with_some = _rate(evidence.won, none), _rate(evidence.won, some)
    smallest = some & (column.numbers == column.numbers[some].min())
    first = _rate(evidence.won, smallest) if smallest.sum() >= LEAST_ROWS else with_some
    best = max(with_some, first, key=lambda rate: rate[1])
    if best[1] - without[2] < BIG_JUMP:
        return
    where = "the lowest value above it" if best is first and first is not with_some else "more than that"
    yield Finding(
        column.name,
        "warn",
        "contains the deal",
        f"{without[0]:.0%} of the deals with 0 were won, and {best[0]:.0%} of those with {where}; "
        "perhaps what a won deal brought in is counted in it",
    )


def names_rows(column: Column, _evidence: Evidence) -> Iterator[Finding]:
    """An id, a number of the row, or a text that nobody else has."""
    known = int((~column.missing).sum())
    if _may_decide(column) or known <= 50:
        return
    if column.texts is not None and column.distinct() > 0.5 * known:
        is_prose = column.texts.dropna().str.count(" ").mean() >= 4
        yield Finding(
            column.name,
            "warn",
            "free text" if is_prose else "id",
            f"{column.distinct():,} different texts in {known:,} rows; nothing that one row teaches can be "
            "used for another, and notes often tell how it ended",
        )
    if column.numbers is not None and _NAMES.search(words_of(column.name)):
        numbers = column.numbers[~column.missing]
        if column.distinct() >= 0.95 * known and (numbers == np.round(numbers)).all():
            yield Finding(
                column.name,
                "warn",
                "id",
                f"another whole number in nearly each of {known:,} rows; it names the row and "
                "at best tells how old it is",
            )


def dated(column: Column, _evidence: Evidence) -> Iterator[Finding]:
    """A date, kept as a text."""
    if column.texts is None or column.distinct() < 5:
        return
    levels = column.texts.dropna()
    if not levels.head(200).str.match(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}").mean() >= 0.95:
        return
    closes = bool(_CLOSES.search(words_of(column.name)))
    yield Finding(
        column.name,
        "stop" if closes else "warn",
        "close date",
        "it holds dates, and its name speaks of the closing; when a deal closes is not known before it does"
        if closes
        else "it holds dates as texts; if it was typed in at the closing, it knows how long the deal took",
    )


COLUMN_RULES: tuple[Rule, ...] = (
    outcome_alone,
    missing_tells,
    repeats_choice,
    named_to_run_on,
    named_to_be_moved,
    jumps,
    dated,
    names_rows,
)


def _may_decide(column: Column) -> bool:
    """Whose choice may honestly follow from it alone: help for some partners only, or from a stage on."""
    return column.name in ("partner_id", "stage")


def _rate(won: np.ndarray, rows: np.ndarray) -> tuple[float, float, float]:
    """The win rate of the rows, and its bounds."""
    n, yes = int(rows.sum()), int(won[rows].sum())
    return (yes / n, *share_bounds(yes, n))


def _alike(evidence: Evidence, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """The two kinds of rows in the stage that has most of both; None where no stage has enough.

    Deals in late stages are won more often, and whatever only they can have would look like a leak.
    """
    n_one = np.bincount(evidence.stage, weights=one)
    n_other = np.bincount(evidence.stage, weights=other)
    fewer = np.minimum(n_one, n_other)
    if fewer.max(initial=0) < LEAST_ROWS:
        return None
    there = evidence.stage == np.argmax(fewer)
    return one & there, other & there


def _equals_number(column: Column, evidence: Evidence) -> Iterator[Finding]:
    if column.numbers is None:
        return
    known = ~column.missing
    if known.sum() < LEAST_ROWS or np.ptp(column.numbers[known]) == 0 or np.ptp(evidence.outcome[known]) == 0:
        return
    same = abs(float(np.corrcoef(column.numbers[known], evidence.outcome[known])[0, 1]))
    if same >= 0.98:
        yield Finding(
            column.name,
            "stop" if same >= 0.9999 else "warn",
            "outcome",
            f"it moves with the outcome as if it were it (correlation {same:.4f}); "
            "so it was written when the outcome was known",
        )


def _pure_level(column: Column, won: np.ndarray) -> Iterator[Finding]:
    """A value that only won, or only lost, deals have."""
    rate = won.mean()
    for one_kind, share, word in ((column.n_won, rate, "won"), (column.n - column.n_won, 1 - rate, "lost")):
        pure = ~column.is_range & (column.n >= 50) & (one_kind >= 0.995 * column.n)
        covered = one_kind[pure].sum() / max(share * len(won), 1)
        by_chance = column.n[pure].max(initial=0) * -np.log10(max(share, 1e-9))
        if covered >= 0.2 and by_chance >= 8:
            shown = ", ".join(np.array(column.labels, dtype=object)[pure][:3])
            yield Finding(
                column.name,
                "stop" if covered >= 0.8 else "warn",
                "outcome",
                f"all {one_kind[pure].sum():,} deals with {shown} were {word}, {covered:.0%} of all that "
                f"were; a value that is written only when a deal is {word} gives the outcome away",
            )
            return


def _extremes(column: Column) -> str:
    """The groups won most and least often, in words."""
    rate = (column.n_won + 0.5) / (column.n + 1)
    big = np.flatnonzero(column.n >= max(0.01 * column.n.sum(), 1))
    least, most = big[np.argmin(rate[big])], big[np.argmax(rate[big])]
    return " and ".join(
        f"{column.labels[at]}: {column.n_won[at] / column.n[at]:.0%} won of {column.n[at]:,}"
        for at in (most, least)
    )

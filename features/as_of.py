"""What was on record before a moment: the one place that knows.

Something is known at a moment if it happened, and was recorded, strictly before the moment. Where no time
of recording is given, the time of the event stands for it.

Assumption that no test can check: what carries no time of recording (a deal's amount without a history, its
closing, the traits of partners and customers) stood in the CRM then as it stands in the export. If amounts
are corrected at signing and nothing tells of it, the amount knows the future.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

NEVER = np.iinfo(np.int64).max  # not known at any moment
ALWAYS = np.iinfo(np.int64).min + 1  # known at every moment
DAY = 86_400_000_000  # microseconds


def microseconds(times: pd.Series) -> Ints:
    """Return times as microseconds since 1970 UTC; a missing one is ``NEVER``."""
    stamps = times.to_numpy(dtype="datetime64[us]").astype(np.int64)
    return np.where(times.isna().to_numpy(), NEVER, stamps)


def known_at(happened: pd.Series, recorded: pd.Series) -> Ints:
    """Return from when each event is known: once it happened and was recorded, in microseconds."""
    event, record = microseconds(happened), microseconds(recorded)
    return np.maximum(event, np.where(record == NEVER, event, record))


def codes_of(ids: pd.Series, of: pd.Series) -> Ints:
    """Return the position of each id among those of a table, -1 where it is not there."""
    return pd.Index(of).get_indexer(pd.Index(ids)).astype(np.int64)


def is_among(ids: pd.Series, others: pd.Series) -> NDArray[np.bool_]:
    """Tell which ids are among others; pandas' own ``isin`` walks texts one by one."""
    return codes_of(ids, others.drop_duplicates()) >= 0


def days_between(start: Ints, end: Ints) -> Floats:
    """Return the days from start to end; missing where one of them is."""
    is_there = (start != NEVER) & (end != NEVER) & (start != ALWAYS)
    return np.where(is_there, np.where(is_there, end - start, 0) / DAY, np.nan)


class EventLog:
    """Events of many owners, asked about as of a moment: counts, sums, the last one.

    Parameters
    ----------
    keys : array of shape (n_events,)
        Whose event it is, as codes from 0. Events with a negative key are never found.
    known_at : array of shape (n_events,)
        From when it is known, in microseconds; ``NEVER`` where it is not.
    weights : array of shape (n_events,), optional
        What ``total`` adds up.

    Notes
    -----
    A question is a binary search over events sorted by key and time: n log n in all. The answer for one
    key depends on that key's events alone, to the last bit, and not on the order of the rows.
    """

    def __init__(self, keys: Ints, known_at: Ints, weights: Floats | None = None) -> None:
        weights = np.zeros(len(keys)) if weights is None else np.asarray(weights, dtype=np.float64)
        found = np.flatnonzero((keys >= 0) & (known_at != NEVER))
        order = found[np.lexsort((weights[found], known_at[found], keys[found]))]
        self.rows = order
        self._times, ranks = np.unique(known_at[order], return_inverse=True)
        self._step = len(self._times) + 1
        self._places = keys[order] * self._step + ranks
        every_key = np.arange(keys.max(initial=-1) + 2)
        self._starts = np.searchsorted(self._places, every_key * self._step)
        summed = pd.Series(weights[order]).groupby(keys[order], sort=False).cumsum()
        self._sums = summed.to_numpy(dtype=np.float64)

    def count(self, keys: Ints, moments: Ints) -> Ints:
        """Return how many events of each key are known before its moment, shape (n_questions,)."""
        return self.count_and_total(keys, moments)[0]

    def count_and_total(self, keys: Ints, moments: Ints) -> tuple[Ints, Floats]:
        """Return how many there are, and the sum of their weights, 0 where there are none."""
        start, stop = self._range(keys, moments)
        if not len(self.rows):
            return stop - start, np.zeros(len(keys))
        return stop - start, np.where(stop > start, self._sums[np.maximum(stop - 1, 0)], 0.0)

    def last_row(self, keys: Ints, moments: Ints, but_not: Ints | None = None) -> Ints:
        """Return the position of the last event known before each moment, -1 where there is none.

        ``but_not`` names one event for each question (its position, or -1) that is passed over.
        """
        start, stop = self._range(keys, moments)
        if not len(self.rows):
            return np.full(len(keys), -1)
        last = np.where(stop > start, self.rows[np.maximum(stop - 1, 0)], -1)
        if but_not is None:
            return last
        one_before = np.where(stop - 1 > start, self.rows[np.maximum(stop - 2, 0)], -1)
        return np.where((last == but_not) & (last >= 0), one_before, last)

    def first_row_from(self, keys: Ints, moments: Ints) -> Ints:
        """Return the position of the first event at or after each moment, -1 where there is none."""
        _, stop = self._range(keys, moments)
        known = np.clip(keys, 0, len(self._starts) - 2)
        found = (keys >= 0) & (stop < self._starts[known + 1])
        return np.where(found, np.append(self.rows, -1)[np.where(found, stop, -1)], -1)

    def _range(self, keys: Ints, moments: Ints) -> tuple[Ints, Ints]:
        known = np.clip(keys, 0, len(self._starts) - 1)
        asked = known * self._step + np.searchsorted(self._times, moments)
        order = np.argsort(asked)  # sorted questions find what they need in the cache
        stop = np.empty_like(asked)
        stop[order] = np.searchsorted(self._places, asked[order])
        start = self._starts[known]
        return start, np.where(keys >= 0, stop, start)


@dataclass(frozen=True)
class Matches:
    """Every (question, event) pair of the same key, questions in order, events of one by their time.

    Attributes
    ----------
    question, event : arrays of shape (n_matches,)
        Positions in the arrays that were matched.
    n_questions : how many questions there were
    """

    question: Ints
    event: Ints
    n_questions: int

    def count(self, holds: NDArray[np.bool_]) -> Ints:
        """Return for each question how many of its events fulfil the condition."""
        return np.bincount(self.question[holds], minlength=self.n_questions)

    def last(self, holds: NDArray[np.bool_]) -> Ints:
        """Return for each question the position of its last such event, -1 where there is none."""
        last = np.full(self.n_questions, -1)
        last[self.question[holds]] = self.event[holds]  # of several, the last assigned stays
        return last


def match(keys: Ints, event_keys: Ints, event_times: Ints) -> Matches:
    """Match questions and events of the same key; for keys with few events each, such as a deal."""
    order = np.lexsort((event_times, event_keys))
    ordered = event_keys[order]
    start, stop = np.searchsorted(ordered, keys), np.searchsorted(ordered, keys, side="right")
    counts = np.where(keys >= 0, stop - start, 0)
    question = np.repeat(np.arange(len(keys)), counts)
    within = np.arange(len(question)) - np.repeat(np.cumsum(counts) - counts, counts)
    return Matches(question, order[start[question] + within], len(keys))

"""What a deal's features read beyond its own deal, partner and customer."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from features.as_of import NEVER, Floats, Ints, microseconds
from features.column_types import is_text
from features.tables import COLUMNS, Tables

OWNERS = ("deals", "partners", "customers")
"""The tables whose further columns may become features."""


@dataclass(frozen=True)
class Everybody:
    """The few things that a row depends on across all deals.

    With them a row can be built from the deals of its own partner and customer alone, and comes out the same
    as from whole tables.

    Attributes
    ----------
    closed, won : arrays of shape (n_closed,) and (n_won,): when deals closed, and were won, sorted
    names_rows : (table, column) of the texts that name each row, such as a title; they are no features
    active_deals : deals with any activity on record; where it is 0 nobody knows who contacted whom
    """

    closed: Ints
    won: Ints
    names_rows: frozenset[tuple[str, str]]
    active_deals: int

    @classmethod
    def of(cls, tables: Tables) -> "Everybody":
        """Read them from whole tables."""
        closed = microseconds(tables.deals["closed_at"])
        won = closed[(tables.deals["outcome"] == "won").to_numpy()]
        return cls(
            closed=sorted_times(closed),
            won=sorted_times(won),
            names_rows=frozenset(_naming(tables)),
            active_deals=int(tables.activities["deal_id"].nunique()),
        )

    def share_won(self, moments: Ints, where_none: float) -> Floats:
        """Return the share of the deals closed before each moment that was won; `where_none` before any."""
        closed = np.searchsorted(self.closed, moments)
        won = np.searchsorted(self.won, moments)
        return np.where(closed > 0, won / np.maximum(closed, 1), where_none)


def sorted_times(times: Ints) -> Ints:
    """Return the times that are there, sorted."""
    return np.sort(times[times != NEVER])


def _naming(tables: Tables) -> list[tuple[str, str]]:
    frames = tables.by_name()
    return [
        (name, column)
        for name in OWNERS
        for column in frames[name].columns.difference(list(COLUMNS[name]), sort=False)
        if is_text(frames[name][column]) and _names_each_row(frames[name][column])
    ]


def _names_each_row(values: pd.Series) -> bool:
    distinct = values.nunique()
    return distinct > 50 and distinct > 0.5 * values.notna().sum()

"""The tables of an export with an index: which rows are a deal's, a partner's, a customer's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from features.as_of import Ints, microseconds
from features.deal_state import BaseDeal, Row
from features.tables import COLUMNS, Tables, empty_table

_OLDEST = pd.Timestamp("1677-09-22", tz="UTC")


class RowsById:
    """Where the rows of each id stand in a table.

    Parameters
    ----------
    ids : the table's column
    of : every id once; a row with another id is found under none
    """

    def __init__(self, ids: pd.Series, of: pd.Index) -> None:
        codes = of.get_indexer(pd.Index(ids))
        self._order = np.argsort(codes, kind="stable")
        self._starts = np.searchsorted(codes[self._order], np.arange(len(of) + 1))

    def of(self, codes: Ints) -> Ints:
        """Return the positions of all rows of some ids, given as positions in `of`, in the table's order."""
        if len(codes) == len(self._starts) - 1:  # all of them, as `places` names each once
            return np.sort(self._order[self._starts[0] :])
        parts = [self._order[self._starts[code] : self._starts[code + 1]] for code in codes]
        return np.sort(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)

    def of_one(self, code: int) -> Ints:
        """Return the positions of one id's rows."""
        return self._order[self._starts[code] : self._starts[code + 1]]


@dataclass(frozen=True)
class BaseTables:
    """Tables of one export, found by id; empty ones where there is no export.

    Attributes
    ----------
    now : the export's newest time; long ago where there is none
    currency : of the amounts; None where not told
    """

    tables: Tables
    now: pd.Timestamp
    currency: str | None

    @classmethod
    def of(cls, tables: Tables | None) -> "BaseTables":
        """Index checked tables, or none."""
        if tables is None:
            frames: dict[str, Any] = {name: empty_table(name) for name in COLUMNS}
            return cls(Tables(**frames, exported_at=_OLDEST), _OLDEST, None)
        currencies = tables.deals["currency"].dropna().unique()
        return cls(tables, tables.now, str(currencies[0]) if len(currencies) else None)

    @cached_property
    def ids(self) -> Mapping[str, pd.Index]:
        """The ids of deals, partners and customers, by table."""
        keys = {"deals": "deal_id", "partners": "partner_id", "customers": "customer_id"}
        return {name: pd.Index(getattr(self.tables, name)[key]) for name, key in keys.items()}

    @cached_property
    def of_deal(self) -> Mapping[str, RowsById]:
        """Rows by deal, for each table that has some."""
        names = ("stage_entries", "involvements", "activities", "deal_changes")
        return {name: RowsById(getattr(self.tables, name)["deal_id"], self.ids["deals"]) for name in names}

    @cached_property
    def deals_of(self) -> Mapping[str, RowsById]:
        """Deals by partner and by customer."""
        deals = self.tables.deals
        return {
            "partners": RowsById(deals["partner_id"], self.ids["partners"]),
            "customers": RowsById(deals["customer_id"], self.ids["customers"]),
        }

    @cached_property
    def pairs_of(self) -> RowsById:
        """Relationships by partner."""
        return RowsById(self.tables.relationships["partner_id"], self.ids["partners"])

    @cached_property
    def closed(self) -> Ints:
        """When each deal closed, in microseconds."""
        return microseconds(self.tables.deals["closed_at"])

    @cached_property
    def is_won(self) -> np.ndarray:
        """Which deals are won."""
        return (self.tables.deals["outcome"] == "won").to_numpy()

    @cached_property
    def _columns(self) -> Mapping[str, Mapping[str, pd.api.extensions.ExtensionArray]]:
        """Every column by table: one value of it is read in a microsecond, one of a frame in a hundred."""
        frames = self.tables.by_name()
        return {
            name: {str(column): table[column].array for column in table} for name, table in frames.items()
        }

    def places(self, name: str, ids: Iterable[str]) -> Ints:
        """Return where ids stand in deals, partners or customers; those unknown are left out."""
        found = self.ids[name].get_indexer(pd.Index(list(ids), dtype="str")).astype(np.int64)
        return found[found >= 0]

    def place(self, name: str, an_id: str) -> int | None:
        """Return where one id stands; None where it is unknown."""
        try:
            return int(self.ids[name].get_loc(an_id))  # type: ignore[arg-type]
        except KeyError:
            return None

    def row(self, name: str, an_id: str) -> Row | None:
        """Return one row of deals, partners or customers, its missing values None; None if there is none."""
        place = self.place(name, an_id)
        return None if place is None else self._row(name, place)

    def deal(self, deal_id: str) -> BaseDeal | None:
        """Return what the export holds of a deal; None if nothing."""
        place = self.place("deals", deal_id)
        if place is None:
            return None
        entries, changes = self._columns["stage_entries"], self._columns["deal_changes"]
        changed: dict[str, list[pd.Timestamp]] = {}
        for at in self.of_deal["deal_changes"].of_one(place):
            changed.setdefault(changes["column"][at], []).append(changes["changed_at"][at])
        return BaseDeal(
            row=self._row("deals", place),
            entries=frozenset(
                (entries["stage"][at], entries["entered_at"][at])
                for at in self.of_deal["stage_entries"].of_one(place)
            ),
            involvements=[
                self._row("involvements", at, COLUMNS["involvements"])
                for at in self.of_deal["involvements"].of_one(place)
            ],
            changed=changed,
        )

    def entries(self, deal_id: str) -> list[Row]:
        """Return the rows of a deal's stage entries."""
        place = self.place("deals", deal_id)
        found = () if place is None else self.of_deal["stage_entries"].of_one(place)
        return [self._row("stage_entries", at, COLUMNS["stage_entries"]) for at in found]

    def outcome(self, place: int) -> str:
        """Return what became of the deal at a place."""
        return str(self._columns["deals"]["outcome"][place])

    def _row(self, name: str, place: int, columns: Iterable[str] | None = None) -> Row:
        table = self._columns[name]
        return {column: _plain(table[column][place]) for column in columns or table}


def _plain(value: Any) -> Any:
    """Return a value as Python has it; None where it is missing."""
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value

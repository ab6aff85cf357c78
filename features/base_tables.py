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

    def places(self, name: str, ids: Iterable[str]) -> Ints:
        """Return where ids stand in deals, partners or customers; those unknown are left out."""
        found = self.ids[name].get_indexer(pd.Index(list(ids), dtype="str")).astype(np.int64)
        return found[found >= 0]

    def row(self, name: str, an_id: str) -> Row | None:
        """Return one row of deals, partners or customers, its missing values None; None if there is none."""
        place = self.places(name, [an_id])
        return _rows(getattr(self.tables, name).iloc[place])[0] if len(place) else None

    def deal(self, deal_id: str) -> BaseDeal | None:
        """Return what the export holds of a deal; None if nothing."""
        place = self.places("deals", [deal_id])
        if not len(place):
            return None

        def own(name: str) -> pd.DataFrame:
            return getattr(self.tables, name).iloc[self.of_deal[name].of(place)]

        entries, changes = own("stage_entries"), own("deal_changes")
        changed: dict[str, list[pd.Timestamp]] = {}
        for column, at in zip(changes["column"], changes["changed_at"], strict=True):
            changed.setdefault(column, []).append(at)
        involvements = own("involvements")[list(COLUMNS["involvements"])]
        return BaseDeal(
            row=_rows(self.tables.deals.iloc[place])[0],
            entries=frozenset(zip(entries["stage"], entries["entered_at"], strict=True)),
            involvements=_rows(involvements),
            changed=changed,
        )


def _rows(table: pd.DataFrame) -> list[Row]:
    plain = table.astype("object")
    rows = plain.where(table.notna(), None).to_dict("records")
    return [{str(name): value for name, value in row.items()} for row in rows]

"""The CRM tables: which columns each has, of which type, and what one export of them is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import pandas as pd

Kind = Literal["text", "time", "number", "boolean"]


@dataclass(frozen=True)
class Column:
    """One column of a CRM table.

    Attributes
    ----------
    kind : text (also ids), time (datetime64[us, UTC]), number (float64, finite and not negative), or
        boolean (pandas' nullable one)
    required : the column must be there, and no value may be missing
    unique : no value twice
    one_of : the only values allowed
    """

    kind: Kind
    required: bool = False
    unique: bool = False
    one_of: tuple[str, ...] = ()


_ID = Column("text", required=True)
_KEY = Column("text", required=True, unique=True)
_TEXT, _TIME, _NUMBER, _BOOLEAN = Column("text"), Column("time"), Column("number"), Column("boolean")
_TIME_NEEDED = Column("time", required=True)

COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "deals": {
        "deal_id": _KEY,
        "partner_id": _ID,
        "customer_id": _ID,
        "created_at": _TIME_NEEDED,
        "outcome": Column("text", required=True, one_of=("won", "lost", "open")),
        "closed_at": _TIME,
        "amount": _NUMBER,
        "currency": _TEXT,
        "product_line": _TEXT,
        "deal_type": _TEXT,
        "lead_source": _TEXT,
        "competitor": _TEXT,
    },
    "stage_entries": {
        "deal_id": _ID,
        "stage": _ID,
        "entered_at": _TIME_NEEDED,
        "recorded_at": _TIME,
    },
    "involvements": {
        "deal_id": _ID,
        "started_at": _TIME_NEEDED,
        "ended_at": _TIME,
        "kind": _TEXT,
        "hours": _NUMBER,
        "recorded_at": _TIME,
    },
    "partners": {
        "partner_id": _KEY,
        "partner_type": _TEXT,
        "tier": _TEXT,
        "region": _TEXT,
        "employees": _NUMBER,
        "certifications": _NUMBER,
        "joined_at": _TIME,
    },
    "customers": {
        "customer_id": _KEY,
        "industry": _TEXT,
        "region": _TEXT,
        "employees": _NUMBER,
        "annual_revenue": _NUMBER,
    },
    "relationships": {
        "partner_id": _ID,
        "customer_id": _ID,
        "since": _TIME,
        "executive_contact": _BOOLEAN,
        "recorded_at": _TIME,
    },
    "activities": {
        "deal_id": _ID,
        "by": Column("text", required=True, one_of=("vendor", "partner")),
        "happened_at": _TIME_NEEDED,
        "kind": _TEXT,
        "recorded_at": _TIME,
    },
    "deal_changes": {
        "deal_id": _ID,
        "column": _ID,
        "value": _TEXT,
        "changed_at": _TIME_NEEDED,
        "recorded_at": _TIME,
    },
}
OPTIONAL = ("activities", "deal_changes")  # a folder without their files has none of them
TABLE_NAMES = tuple(name for name in COLUMNS if name not in OPTIONAL)
MAY_BE_EMPTY = ("involvements", "relationships", *OPTIONAL)
DTYPES: Mapping[str, Any] = {
    "text": "str",
    "time": pd.DatetimeTZDtype("us", "UTC"),
    "number": "float64",
    "boolean": "boolean",
}


def empty_table(name: str) -> pd.DataFrame:
    """Return a table without rows, every column in its type."""
    return pd.DataFrame(
        {column: pd.Series(dtype=DTYPES[rule.kind]) for column, rule in COLUMNS[name].items()}
    )


@dataclass(frozen=True)
class Tables:
    """The CRM tables of one export: six that every export has, and two that some have.

    Attributes
    ----------
    deals, stage_entries, involvements, partners, customers, relationships
        Columns as in ``COLUMNS``; further columns of deals, partners and customers may follow.
    activities : what vendor and partner each did with the customer, where that is on record
    deal_changes : what columns of ``deals`` held before, where that is on record; ``value`` as text
    exported_at : the "now" of the export (UTC): nothing after it is known. ``check`` sets it to the newest
        time in any of the tables where it is not given.
    """

    deals: pd.DataFrame
    stage_entries: pd.DataFrame
    involvements: pd.DataFrame
    partners: pd.DataFrame
    customers: pd.DataFrame
    relationships: pd.DataFrame
    activities: pd.DataFrame = field(default_factory=lambda: empty_table("activities"))
    deal_changes: pd.DataFrame = field(default_factory=lambda: empty_table("deal_changes"))
    exported_at: pd.Timestamp | None = None

    @property
    def now(self) -> pd.Timestamp:
        """The export's "now", also where it was not given."""
        return self.exported_at if self.exported_at is not None else newest_time(self)

    def by_name(self) -> dict[str, pd.DataFrame]:
        """Return the tables by their names, in the order of the surface."""
        return {name: getattr(self, name) for name in (each.name for each in fields(self)) if name in COLUMNS}


def newest_time(tables: Tables) -> pd.Timestamp:
    """Return the newest time in any of the tables' own columns, in UTC."""
    newest = [
        table[name].max()
        for table_name, table in tables.by_name().items()
        for name, column in COLUMNS[table_name].items()
        if column.kind == "time" and name in table.columns
    ]
    return max(time for time in newest if not pd.isna(time))


def row_ids(table_name: str, table: pd.DataFrame) -> pd.Series:
    """Return a name for each row: the deal's, partner's, customer's or pair's id, else the row's number."""
    keys = [key for key in ("deal_id", "partner_id", "customer_id") if key in COLUMNS[table_name]]
    keys = keys[:2] if table_name == "relationships" else keys[:1]
    ids = table[keys[0]].astype("str")
    for key in keys[1:]:
        ids = ids + "/" + table[key].astype("str")
    numbers = pd.Series(table.index + 1, index=table.index).astype("str")
    return ids.fillna("row " + numbers)

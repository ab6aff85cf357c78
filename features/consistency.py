"""What must hold between the columns and the tables of a CRM: ids that exist, times in order."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.column_types import thousands_by_point
from features.problems import TableError
from features.tables import COLUMNS, Tables, row_ids

Finding = tuple[str, str | None, str, pd.Series]  # table, column, what was expected, rows at fault

_STARTS = ("joined_at", "since")  # partners and customers may be older than any CRM
_OLDEST_START = pd.Timestamp("1900-01-02", tz="UTC")
_OLDEST_EVENT = pd.Timestamp("1970-01-02", tz="UTC")


def check_consistency(tables: Tables, now: pd.Timestamp, sources: Mapping[str, str]) -> None:
    """Refuse tables that contradict themselves, each other, or the clock.

    Parameters
    ----------
    tables : every column present and in its type
    now : no date may lie after it (UTC)
    sources : the name that an error gives to each table

    Raises
    ------
    TableError
        The first contradiction found: unknown ids, one row twice, dates in the future or for a blank, times
        out of order, several currencies, changes of what cannot change.

    Notes
    -----
    A stage entered after the deal closed is none: the deal was opened again, or somebody typed it in late.
    Such entries stay in the tables, and are no decisions; the flow of ``build_decisions`` counts them.
    """
    for findings in (
        _unknown_ids(tables),
        _entries_twice(tables),
        _dates_in_the_future(tables, now),
        _dates_for_blanks(tables),
        _closing(tables.deals),
        _order_of_times(tables),
        _currencies(tables.deals),
        _changes(tables),
    ):
        for name, column, expected, bad in findings:
            if bad.any():
                ids = row_ids(name, tables.by_name()[name][bad])
                raise TableError(sources[name], column, expected, ids)


def _unknown_ids(tables: Tables) -> Iterator[Finding]:
    frames = tables.by_name()
    for name, key, home in (
        ("deals", "partner_id", "partners"),
        ("deals", "customer_id", "customers"),
        ("stage_entries", "deal_id", "deals"),
        ("involvements", "deal_id", "deals"),
        ("activities", "deal_id", "deals"),
        ("deal_changes", "deal_id", "deals"),
        ("relationships", "partner_id", "partners"),
        ("relationships", "customer_id", "customers"),
    ):
        unknown = pd.Series(_places(frames[name][key], frames[home][key]) < 0, index=frames[name].index)
        yield name, key, f"should name a row of {home}; came an id that is not there", unknown


def _places(ids: pd.Series, keys: pd.Series) -> NDArray[np.int64]:
    """Return where each id stands among the keys, which hold each once; -1 where it does not."""
    codes = pd.factorize(pd.concat([keys, ids], ignore_index=True))[0][len(keys) :].astype(np.int64)
    return np.where(codes < len(keys), codes, -1)


def _created(deals: pd.DataFrame, ids: pd.Series) -> pd.Series:
    """Return when the deal of each id was created; all ids are known by now."""
    return deals["created_at"].iloc[_places(ids, deals["deal_id"])].set_axis(ids.index)


def _entries_twice(tables: Tables) -> Iterator[Finding]:
    keys = ["deal_id", "stage", "entered_at"]
    twice = tables.stage_entries.duplicated(keys, keep=False)
    yield "stage_entries", None, f"should hold each ({', '.join(keys)}) once; came more than once", twice


def _dates_in_the_future(tables: Tables, now: pd.Timestamp) -> Iterator[Finding]:
    for name, table in tables.by_name().items():
        for column, rule in COLUMNS[name].items():
            if rule.kind == "time":
                expected = f"should not lie in the future; it is {now:%Y-%m-%d %H:%M} UTC"
                yield name, column, expected, table[column] > now


def _dates_for_blanks(tables: Tables) -> Iterator[Finding]:
    """Years such as 1 or 1900, and the first day of 1970, are how software writes that it has no date."""
    for name, table in tables.by_name().items():
        for column, rule in COLUMNS[name].items():
            if rule.kind == "time":
                first = _OLDEST_START if column in _STARTS else _OLDEST_EVENT
                mend = "mend it, or leave the row out" if rule.required else "mend it, or leave it empty"
                expected = (
                    f"should not lie before {first:%Y-%m-%d}, as dates that stand for a blank do: {mend}"
                )
                yield name, column, expected, table[column] < first


def _closing(deals: pd.DataFrame) -> Iterator[Finding]:
    is_open = deals["outcome"] == "open"
    yield "deals", "closed_at", "should be given for deals won or lost", ~is_open & deals["closed_at"].isna()
    yield "deals", "closed_at", "should be empty for open deals", is_open & deals["closed_at"].notna()
    before = deals["closed_at"] < deals["created_at"]
    yield "deals", "closed_at", "should not lie before created_at", before


def _order_of_times(tables: Tables) -> Iterator[Finding]:
    entries, involvements = tables.stage_entries, tables.involvements
    early = entries["entered_at"] < _created(tables.deals, entries["deal_id"])
    yield "stage_entries", "entered_at", "should not lie before the deal's created_at", early
    reversed_ = involvements["ended_at"] < involvements["started_at"]
    yield "involvements", "ended_at", "should not lie before started_at", reversed_


def _currencies(deals: pd.DataFrame) -> Iterator[Finding]:
    counts = deals["currency"].value_counts()
    named = ", ".join(sorted(counts.index))
    expected = f"should hold one currency; came {named}: convert the amounts to one"
    others = deals["currency"].notna() & (deals["currency"] != (counts.index[0] if len(counts) else ""))
    yield "deals", "currency", expected, others


def _changes(tables: Tables) -> Iterator[Finding]:
    changes = tables.deal_changes
    fixed = ("deal_id", "partner_id", "customer_id", "created_at", "outcome", "closed_at")
    may_change = [str(column) for column in tables.deals.columns if column not in fixed]
    expected = f"should name a column of deals that can change, one of {', '.join(may_change)}"
    yield "deal_changes", "column", expected, ~changes["column"].isin(may_change)
    is_amount = changes["column"] == "amount"
    numbers = pd.to_numeric(changes["value"], errors="coerce")
    bad = is_amount & changes["value"].notna() & ~(numbers.between(0, float("inf"), inclusive="left"))
    yield "deal_changes", "value", "should be a number of 0 or more where the column is amount", bad
    thousands = thousands_by_point(changes["value"].where(is_amount))
    yield (
        "deal_changes",
        "value",
        "should say thousands without a point where the column is amount",
        thousands,
    )
    keys = ["deal_id", "column", "changed_at"]
    twice = changes.duplicated(keys, keep=False)
    yield "deal_changes", None, f"should hold each ({', '.join(keys)}) once; came more than once", twice
    early = changes["changed_at"] < _created(tables.deals, changes["deal_id"])
    yield "deal_changes", "changed_at", "should not lie before the deal's created_at", early

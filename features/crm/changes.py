"""Put the changes of deals right: numbers as numbers, one value a moment, the first from the creation on."""

import numpy as np
import pandas as pd
import pyarrow as pa

from features.crm.amounts import as_text, read_numbers
from features.crm.blocks import BEFORE, FILE, HAS_BEFORE, ROW
from features.crm.draft import Draft, Mask, value_of
from features.tables import DTYPES

FIXED = ("deal_id", "partner_id", "customer_id", "created_at", "outcome", "closed_at", "currency")
_INSTANT, _DAY = pd.Timedelta(1, "us"), pd.Timedelta(1, "D")
_KEYS = ["deal_id", "column"]
_ODD_AMOUNT = "an amount that cannot be read, or is below 0"
_SOON = "a history that starts within a day of the creation: its first value taken from the creation on"
_EARLY = "a change before the deal was created: taken at its creation"


def read_amounts(draft: Draft) -> None:
    """Write what an amount was and became as plain numbers; refuse what is none."""
    changes = draft.frames["deal_changes"]
    is_amount = (changes["column"] == "amount").to_numpy()
    columns = [column for column in (BEFORE, "value") if column in changes.columns]
    odd = np.zeros(len(changes), dtype=bool)
    for column in columns:
        texts = changes[column][is_amount].astype("object").where(changes[column][is_amount].notna(), None)
        where = f"deal_changes: {column.strip(BEFORE[0])} of amount"
        numbers = read_numbers(pa.array(texts, pa.large_string()), draft.export.reading.decimal, where)
        written = changes[column].copy()
        written[is_amount] = pd.array(as_text(numbers.values), dtype="str")
        changes = changes.assign(**{column: written})
        for places in numbers.odd.values():
            odd[np.flatnonzero(is_amount)[places]] = True
    draft.frames["deal_changes"] = changes
    draft.refuse("deal_changes", odd, _ODD_AMOUNT)


def put_changes_right(draft: Draft) -> None:
    """Leave one value a moment, of columns that deals have, none before the deal was created."""
    deals = draft.frames["deals"]
    may_change = [column for column in deals.columns if column not in (*FIXED, FILE, ROW)]
    strange = ~draft.frames["deal_changes"]["column"].isin(may_change)
    draft.pass_over("deal_changes", strange, "a change of something that the deals here do not carry")
    _from_creation_on(draft)
    again = draft.frames["deal_changes"].duplicated([*_KEYS, "changed_at"], keep="last").to_numpy()
    draft.pass_over("deal_changes", again, "another change of the same moment came after it")
    _values_at_creation(draft)


def _created(draft: Draft, changes: pd.DataFrame) -> pd.Series:
    return value_of(changes["deal_id"], draft.frames["deals"], "deal_id", "created_at")


def _from_creation_on(draft: Draft) -> None:
    """Date changes before the creation at it; and a history's first row that was typed in soon after it.

    A history opens with a row that is written as the deal is, but not always in the same second.
    """
    changes = draft.frames["deal_changes"].sort_values([*_KEYS, "changed_at", ROW], kind="stable")
    draft.frames["deal_changes"] = changes = changes.reset_index(drop=True)
    created = _created(draft, changes)
    early = (changes["changed_at"] < created).to_numpy()
    draft.repair("deal_changes", early, _EARLY)
    first = ~changes.duplicated(_KEYS).to_numpy() & ~_tells_before(changes)
    soon = first & (changes["changed_at"] - created).between(_INSTANT, _DAY).to_numpy()
    draft.repair("deal_changes", soon, _SOON)
    changes["changed_at"] = changes["changed_at"].mask(early | soon, created)


def _tells_before(changes: pd.DataFrame) -> Mask:
    if HAS_BEFORE not in changes.columns:
        return np.zeros(len(changes), dtype=bool)
    return changes[HAS_BEFORE].fillna(False).to_numpy(dtype=bool)


def _values_at_creation(draft: Draft) -> None:
    """Add what the first change of a column says it was before, as the value at creation."""
    changes = draft.frames["deal_changes"]
    created = _created(draft, changes)
    later = (changes["changed_at"] > created).to_numpy()
    told = ~changes.duplicated(_KEYS).to_numpy() & later & _tells_before(changes)
    if not told.any():
        return
    before = changes[told].assign(value=changes[BEFORE][told], changed_at=created[told])
    before["recorded_at"] = pd.Series(pd.NaT, index=before.index, dtype=DTYPES["time"])
    both = pd.concat([before, changes], ignore_index=True)
    draft.frames["deal_changes"] = both.sort_values([*_KEYS, "changed_at"], kind="stable", ignore_index=True)

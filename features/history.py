"""What the columns of deals held before the export, as of a moment."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.as_of import ALWAYS, EventLog, Floats, Ints, codes_of, known_at, match, microseconds
from features.column_types import is_text
from features.tables import Tables

_NO_HISTORY = {
    "deals": "deal_changes holds no change of it: as it stands in the export, for every moment",
    "partners": "partners have no history: as it stands in the export, for every moment",
    "customers": "customers have no history: as it stands in the export, for every moment",
}
_DEAL_FEATURES = ("amount", "product_line", "deal_type", "lead_source", "competitor")


def final_values(tables: Tables, used: Collection[str]) -> list[dict[str, str]]:
    """Return the columns behind the features used that carry no history: ``column``, and ``why`` it matters.

    Each is the final value, and may know what came after the moment.
    """
    changed = set(tables.deal_changes["column"])
    found = []
    for name, why in _NO_HISTORY.items():
        owner = name.removesuffix("s")
        for column in tables.by_name()[name].columns:
            if column.endswith("_id") or (name == "deals" and column in changed):
                continue
            is_named_alike = column in _DEAL_FEATURES or column.startswith(f"{owner}_")
            names = (f"{owner}_{column}", column) if is_named_alike else (f"{owner}_{column}",)
            found += [{"column": each, "why": why} for each in names if each in used]
    return found


@dataclass(frozen=True)
class DealHistory:
    """The deals' columns, and their changes where these are on record.

    A column of which the export holds no change at all has no history: its final value stands for every
    moment. In a column that has one, a deal without a change held its final value all along; a deal with
    changes held what the last of them recorded before the moment says, and before the first nobody knows.

    Assumption that no test can check: where a column has a history, every change of it is there.
    """

    deals: pd.DataFrame
    changes: pd.DataFrame
    """``deal_changes``, with ``deal``, ``changed`` and ``known``: the deal's position, and when it held from
    and was known from, in microseconds."""

    @classmethod
    def of(cls, tables: Tables) -> "DealHistory":
        """Read the history of an export's deals."""
        changes, deals = tables.deal_changes, tables.deals
        deal = codes_of(changes["deal_id"], deals["deal_id"])
        changed = microseconds(changes["changed_at"])
        known = known_at(changes["changed_at"], changes["recorded_at"])
        created = microseconds(deals["created_at"])[deal] if len(deals) else deal
        at_creation = known <= created  # as a deal comes into the CRM, so do its values
        known = np.where(at_creation, ALWAYS, known)
        return cls(deals, changes.assign(deal=deal, changed=changed, known=known))

    def has(self, column: str) -> bool:
        """Tell whether the export holds any change of the column."""
        return bool((self.changes["column"] == column).any())

    def at(self, column: str, deal: Ints, moments: Ints) -> pd.Series:
        """Return what the column held at each moment, of shape (n_moments,), in the column's type."""
        final = self.deals[column]
        values = final.take(deal).reset_index(drop=True)
        changes = self.changes[self.changes["column"] == column]
        if changes.empty:
            return values
        own = changes["deal"].to_numpy()
        matches = match(deal, own, changes["changed"].to_numpy())
        known = changes["known"].to_numpy()
        last = matches.last(known[matches.event] < moments[matches.question])
        held = _as(changes["value"], final).take(np.maximum(last, 0)).reset_index(drop=True)
        unknown = held.mask(last < 0)
        return values.where(~np.isin(deal, own), unknown)

    def levels(self, column: str) -> NDArray[np.object_]:
        """Return every text that the column ever held."""
        before = self.changes.loc[self.changes["column"] == column, "value"]
        both = pd.concat([self.deals[column].astype("object"), before.astype("object")])
        return both.dropna().unique()

    def amounts(self) -> "AmountLog":
        """Return the amounts, to be summed over many deals as of a moment."""
        created = microseconds(self.deals["created_at"])
        changes = self.changes[self.changes["column"] == "amount"]
        changes = changes.sort_values(["deal", "changed"])
        superseded = changes.iloc[::-1].groupby("deal")["known"].cummin().iloc[::-1]
        later = superseded.groupby(changes["deal"]).shift(-1)
        changes = changes[~(changes["known"] >= later)]  # recorded after a change that came later
        changed = changes["deal"].to_numpy()
        steady = np.setdiff1d(np.arange(len(self.deals)), changed)
        deal = np.concatenate([steady, changed])
        amount = np.concatenate(
            [
                self.deals["amount"].to_numpy(dtype=np.float64)[steady],
                _as(changes["value"], self.deals["amount"]).to_numpy(dtype=np.float64),
            ]
        )
        known = np.concatenate([created[steady], np.maximum(changes["known"].to_numpy(), created[changed])])
        return AmountLog.of(deal, known, amount)


@dataclass(frozen=True)
class AmountLog:
    """How each deal's amount moved: differences whose sum, as of a moment, is the amount known then."""

    deal: Ints
    known: Ints
    difference: Floats
    is_known: Floats
    """1 where the amount came to be known, -1 where it was blanked, 0 where it only moved."""

    @classmethod
    def of(cls, deal: Ints, known: Ints, amount: Floats) -> "AmountLog":
        """Take amounts of shape (n,), those of one deal in the order in which they held."""
        there = (~np.isnan(amount)).astype(np.float64)
        value = np.where(there > 0, amount, 0.0)
        first = np.r_[True, deal[1:] != deal[:-1]] if len(deal) else np.zeros(0, dtype=bool)
        before, was_there = (np.where(first, 0.0, np.r_[0.0, each[:-1]]) for each in (value, there))
        return cls(deal, known, value - before, there - was_there)

    def mean(self, owner: Ints, keys: Ints, deal: Ints, moments: Ints) -> Floats:
        """Return the mean amount of the owner's other deals created before each moment; NaN without any.

        Parameters
        ----------
        owner : whose each deal is, shape (n_deals,)
        keys, deal, moments : the owner, the deal itself and the moment of each question, shape (n,)
        """
        theirs = self._totals(owner[self.deal], keys, moments)
        own = self._totals(self.deal, deal, moments)
        total, count = theirs[0] - own[0], theirs[1] - own[1]
        some = count > 0.5
        return np.where(some, total / np.where(some, count, 1.0), np.nan)

    def _totals(self, keys: Ints, asked: Ints, moments: Ints) -> tuple[Floats, Floats]:
        _, total = EventLog(keys, self.known, self.difference).count_and_total(asked, moments)
        _, count = EventLog(keys, self.known, self.is_known).count_and_total(asked, moments)
        return total, count


def _as(values: pd.Series, like: pd.Series) -> pd.Series:
    """Return texts as values of another column's type; what is none of it is missing."""
    if is_text(like):
        return values
    if pd.api.types.is_bool_dtype(like.dtype):
        folded = values.str.lower()
        return folded.isin(("true", "yes", "1")).astype("boolean").mask(folded.isna())
    if pd.api.types.is_datetime64_any_dtype(like.dtype):
        return pd.to_datetime(values, utc=True, format="ISO8601", errors="coerce").astype(like.dtype)
    return pd.to_numeric(values, errors="coerce").astype("float64")

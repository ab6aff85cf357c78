"""One reporting currency: by a file of rates, or by keeping one and refusing the others."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from features.crm.amounts import as_text
from features.crm.blocks import BEFORE
from features.crm.draft import Draft, value_of
from features.problems import TableError, UserError
from features.schema import read_frame

RATE_COLUMNS = ("date", "currency", "rate")


@dataclass(frozen=True)
class Rates:
    """What one unit of a currency was worth in the reporting currency, from a day on.

    Attributes
    ----------
    currency : the reporting currency
    table : columns ``date`` (UTC), ``currency``, ``rate``; sorted by date
    """

    currency: str
    table: pd.DataFrame

    @classmethod
    def read(cls, path: Path, currency: str | None) -> "Rates":
        """Read a CSV with the columns date, currency, rate.

        Raises
        ------
        TableError
            It lacks a column, holds a date or rate that is none, or two rates for one currency and day.
        UserError
            ``currency`` is not given and the file does not say it: no currency, or several, have rate 1
            throughout. Or it is given, and the rates contradict it.
        """
        path = Path(path)
        frame = read_frame(path)
        frame.columns = frame.columns.str.strip().str.lower()
        for column in RATE_COLUMNS:
            if column not in frame.columns:
                came = ", ".join(map(str, frame.columns))
                raise TableError(
                    path.name, column, f"is missing; came {came}, needed are {', '.join(RATE_COLUMNS)}"
                )
        table = _typed(frame, path.name)
        return cls(_reporting(table, currency, path.name), table)

    def at(self, currency: pd.Series, when: pd.Series) -> pd.Series:
        """Return the rate on each day: the last one on or before it; missing where there is none yet."""
        asked = pd.DataFrame({"currency": currency, "date": when, "place": np.arange(len(when))})
        asked = asked[asked["currency"].notna()].sort_values("date", kind="stable")
        found = pd.merge_asof(asked, self.table, on="date", by="currency")
        rates = found.set_index("place")["rate"].reindex(np.arange(len(when)))
        own = (currency == self.currency).to_numpy(dtype=bool, na_value=False)
        return rates.mask(own, 1.0).reset_index(drop=True)


def _typed(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    dates = pd.to_datetime(frame["date"], utc=True, format="ISO8601", errors="coerce")
    rates = pd.to_numeric(frame["rate"], errors="coerce")
    for column, bad, expected in (
        ("date", dates.isna(), "should be a date such as 2024-03-31"),
        ("rate", ~(rates > 0) | np.isinf(rates), "should be a number above 0"),
        ("currency", frame["currency"].isna(), "should not be empty"),
    ):
        if bad.any():
            raise TableError(
                name, column, f"{expected}; came something else", [f"row {i + 1}" for i in frame.index[bad]]
            )
    table = pd.DataFrame(
        {
            "date": dates.astype("datetime64[us, UTC]"),
            "currency": frame["currency"].str.strip().str.upper(),
            "rate": rates.astype("float64"),
        }
    )
    table = table.drop_duplicates()
    again = table.duplicated(["date", "currency"])
    if again.any():
        expected = "should be one for each currency and day; came another one"
        raise TableError(name, "rate", expected, [f"row {i + 1}" for i in table.index[again]])
    return table.sort_values("date", kind="stable")


def _reporting(table: pd.DataFrame, currency: str | None, name: str) -> str:
    is_one = (table["rate"] == 1).groupby(table["currency"]).all()
    ones = [str(each) for each in is_one.index[is_one]]
    if currency is None:
        if len(ones) == 1:
            return ones[0]
        raise UserError(f"{name} does not say which currency its rates lead to; name it with --currency.")
    asked = currency.strip().upper()
    if not is_one.get(asked, True):
        raise UserError(f"{name} has rates of {asked} other than 1, so they do not lead to {asked}.")
    if asked not in ones and len(ones) == 1:
        raise UserError(
            f"The rates of {name} lead to {ones[0]}, whose rate is 1, and not to {asked}; leave "
            f"--currency out, or add {asked} with the rate 1."
        )
    return asked


def one_currency(draft: Draft, rates: Rates | None, keep: str | None) -> str | None:
    """Leave one currency in the deals; return a sentence on what was done, if anything.

    Amounts are converted at the rate of the deal's creation, its changes too, so that a change of the
    rate is no change of the deal. Own columns are left as they are.

    Raises
    ------
    UserError
        Several currencies, and neither rates nor one to keep.
    """
    deals = draft.frames["deals"]
    deals["currency"] = deals["currency"].str.upper().astype("str")
    counts = deals["currency"].value_counts()
    if rates is not None:
        return _convert(draft, rates)
    if keep is not None:
        return _keep_one(draft, keep.strip().upper(), counts)
    if len(counts) > 1:
        named = ", ".join(f"{currency} ({n:,})" for currency, n in counts.items())
        raise UserError(
            f"The deals hold several currencies: {named}. Give a file of rates with --rates, or keep one "
            f"with --keep-currency {counts.index[0]}."
        )
    return None


def _keep_one(draft: Draft, keep: str, counts: pd.Series) -> str | None:
    if keep not in counts.index:
        came = ", ".join(counts.index) or "none"
        raise UserError(f"--keep-currency {keep}: no deal is in {keep}; the deals' currencies are {came}.")
    other = ~(draft.frames["deals"]["currency"] == keep).to_numpy(dtype=bool, na_value=False)
    named = draft.frames["deals"]["currency"][other].fillna("none on record")
    draft.refuse("deals", other, [f"its currency is {text}; only {keep} is kept" for text in named])
    return f"Only deals in {keep} are kept."


def _convert(draft: Draft, rates: Rates) -> str:
    deals = draft.frames["deals"]
    if deals["currency"].isna().all():
        raise UserError("--rates is given, but no deal says its currency; leave it out, or map the currency.")
    lacks = (deals["currency"].isna() & deals["amount"].notna()).to_numpy()
    draft.refuse("deals", lacks, "has an amount without a currency")
    deals = draft.frames["deals"]
    rate = rates.at(deals["currency"], deals["created_at"])
    unknown = (rate.isna() & deals["currency"].notna()).to_numpy()
    named = [
        f"no rate for {currency} on or before {created:%Y-%m-%d}"
        for currency, created in zip(deals["currency"][unknown], deals["created_at"][unknown], strict=True)
    ]
    by_deal = pd.DataFrame({"deal_id": deals["deal_id"], "rate": rate.to_numpy(dtype="float64")})
    draft.frames["deals"] = deals.assign(
        amount=deals["amount"] * rate,
        currency=deals["currency"].where(deals["currency"].isna(), rates.currency),
    )
    draft.refuse("deals", unknown, named)
    _convert_changes(draft, by_deal)
    return f"Amounts are in {rates.currency}, at the last rate on or before the day a deal was created."


def _convert_changes(draft: Draft, by_deal: pd.DataFrame) -> None:
    changes = draft.frames["deal_changes"]
    is_amount = (changes["column"] == "amount").to_numpy()
    for column in ("value", BEFORE):
        if column in changes.columns and is_amount.any():
            numbers = pd.to_numeric(changes[column].where(is_amount), errors="coerce")
            converted = numbers * value_of(changes["deal_id"], by_deal, "deal_id", "rate")
            texts = pd.Series(as_text(converted.to_numpy(dtype="float64")), index=changes.index, dtype="str")
            changes[column] = changes[column].where(~is_amount, texts)

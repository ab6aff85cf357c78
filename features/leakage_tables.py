"""Rules that need the CRM tables themselves: open deals, dates of closing, changes after it."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from features.as_of import is_among, microseconds
from features.column_types import as_text, is_text
from features.history import DealHistory
from features.leakage_evidence import share_bounds
from features.leakage_rules import LEAST_ROWS, Finding, Verdict
from features.tables import Tables

_DAY = 86_400_000_000
_NEVER_FEATURES = ("deal_id", "partner_id", "customer_id", "created_at", "closed_at", "outcome", "currency")
_NOBODY = r"(?i)\s*|unknown|none|n/?a|null|nan|-+|\?+|0+[a-z]{0,3}|[0{}-]{30,}"
_CLOSE_TO = 1.5  # days
_AT_CLOSING = 0.8  # share of the closed deals
_LEAST_LATE = 0.05
_MOSTLY = 0.9  # of the closed deals that hold a value


def closed_deals(tables: Tables, most: int) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Return what columns held when deals closed, whether each was won, and whether vendor people ever came.

    Returns
    -------
    frame : the columns of deals, partners and customers that become features, one row a closed deal, at
        most ``most`` of them; times are none of them
    won, joined : shape (n,)
    """
    deals = tables.deals
    closed = np.flatnonzero((deals["outcome"] != "open").to_numpy())
    rows = np.sort(np.random.default_rng(0).permutation(closed)[:most])
    frame = _columns(tables, rows)
    of = deals.iloc[rows]
    won = (of["outcome"] == "won").to_numpy(dtype=float)
    return frame, won, is_among(of["deal_id"], tables.involvements["deal_id"])


def table_findings(tables: Tables, frame: pd.DataFrame) -> Iterator[Finding]:
    """Yield what the tables themselves tell of the columns in ``frame``, and of the two ids."""
    yield from _openness(tables, [*frame.columns, "customer_id", "partner_id"])
    yield from _at_closing(tables)
    yield from _after_closing(tables)


def _columns(tables: Tables, rows: np.ndarray) -> pd.DataFrame:
    deals, history = tables.deals, DealHistory.of(tables)
    moments = microseconds(deals["closed_at"])[rows]
    columns: dict[str, pd.Series] = {}
    for name in _features_of(deals):
        columns[name] = history.at(name, rows, moments)
    for owner, key in (("partners", "partner_id"), ("customers", "customer_id")):
        table = tables.by_name()[owner]
        at = pd.Index(table[key]).get_indexer(deals[key].iloc[rows])
        for name in _features_of(table):
            columns[name if name not in columns else f"{owner}.{name}"] = (
                table[name].take(np.maximum(at, 0)).mask(at < 0).reset_index(drop=True)
            )
    return pd.DataFrame(columns)


def _features_of(table: pd.DataFrame) -> list[str]:
    return [
        str(name)
        for name in table.columns
        if name not in _NEVER_FEATURES and not pd.api.types.is_datetime64_any_dtype(table[name].dtype)
    ]


def _openness(tables: Tables, names: list[str]) -> Iterator[Finding]:
    """Empty on open deals only, or filled on closed ones only."""
    deals = tables.deals
    is_open = (deals["outcome"] == "open").to_numpy()
    if min(is_open.sum(), (~is_open).sum()) < LEAST_ROWS:
        return
    for name in names:
        if name not in deals.columns or _filling_is_on_record(tables, name, ~is_open):
            continue
        empty = _is_blank(deals[name], is_id=name.endswith("_id"))
        found = _open_finding(name, empty, is_open)
        if found is not None:
            yield found


def _filling_is_on_record(tables: Tables, name: str, is_closed: np.ndarray) -> bool:
    """Whether the history says since when most closed deals held a value: it is used from then on."""
    filled = tables.deals.loc[is_closed & tables.deals[name].notna().to_numpy(), "deal_id"]
    changed = tables.deal_changes.loc[tables.deal_changes["column"] == name, "deal_id"]
    return len(filled) > 0 and bool(is_among(filled, changed).mean() >= _MOSTLY)


def _open_finding(name: str, empty: np.ndarray, is_open: np.ndarray) -> Finding | None:
    of_open, of_closed = (empty & is_open).sum() / is_open.sum(), empty[~is_open].mean()
    low_open, _ = share_bounds((empty & is_open).sum(), is_open.sum())
    _, high_closed = share_bounds(empty[~is_open].sum(), (~is_open).sum())
    only_open = low_open >= 0.1 and of_closed <= 0.005 and high_closed < low_open
    only_closed = 1 - of_open <= 0.005 and high_closed <= 0.9 and high_closed < low_open
    if not (only_open or only_closed or low_open - high_closed >= 0.3):
        return None
    seen = f"it is empty on {of_open:.0%} of the open deals and on {of_closed:.0%} of the closed ones"
    return Finding(
        name,
        "stop" if only_open or only_closed else "warn",
        "openness",
        f"{seen}; so it is filled in when a deal closes, and past decisions would see what nobody knew then",
    )


def _is_blank(values: pd.Series, is_id: bool) -> np.ndarray:
    blank = values.isna().to_numpy()
    if is_id and is_text(values):
        blank = blank | values.str.fullmatch(_NOBODY).fillna(False).to_numpy(dtype=bool)
    return blank


def _at_closing(tables: Tables) -> Iterator[Finding]:
    """Own columns that are the date of the closing, or the days until it."""
    closed = tables.deals[tables.deals["outcome"] != "open"]
    if len(closed) < LEAST_ROWS:
        return
    closed = closed.sample(min(len(closed), 100_000), random_state=0)
    ended, began = microseconds(closed["closed_at"]) / _DAY, microseconds(closed["created_at"]) / _DAY
    for name in _features_of(closed):
        values = closed[name]
        if pd.api.types.is_bool_dtype(values.dtype):
            continue
        if pd.api.types.is_numeric_dtype(values.dtype):
            yield from _days_open(name, values.to_numpy(dtype=float, na_value=np.nan), ended - began)
        elif is_text(values):
            yield from _day_of_closing(name, as_text(values), ended)


def _days_open(name: str, numbers: np.ndarray, took: np.ndarray) -> Iterator[Finding]:
    known = ~np.isnan(numbers)
    if known.sum() < LEAST_ROWS or np.ptp(took[known]) == 0 or np.ptp(numbers[known]) == 0:
        return
    same = float((np.abs(numbers[known] - took[known]) <= _CLOSE_TO).mean())
    order = float(pd.Series(numbers[known]).rank().corr(pd.Series(took[known]).rank()))
    if same >= _AT_CLOSING or order >= 0.8:
        seen = (
            f"it equals the days from creation to closing on {same:.0%} of the closed deals"
            if same >= _AT_CLOSING
            else f"it grows with the days from creation to closing (rank correlation {order:.2f})"
        )
        verdict: Verdict = "stop" if same >= _AT_CLOSING or order >= 0.95 else "warn"
        yield Finding(name, verdict, "accumulates", f"{seen}; how long a deal takes is known when it is over")


def _day_of_closing(name: str, texts: pd.Series, ended: np.ndarray) -> Iterator[Finding]:
    if not texts.dropna().head(200).str.match(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}").mean() >= 0.95:
        return
    times = pd.to_datetime(texts, utc=True, errors="coerce", format="mixed")
    known = times.notna().to_numpy()
    if known.sum() < LEAST_ROWS:
        return
    days = microseconds(times.astype("datetime64[us, UTC]")) / _DAY
    near = float((np.abs(days - ended)[known] <= _CLOSE_TO).mean())
    if near >= _AT_CLOSING:
        why = f"it is the day of the closing on {near:.0%} of the closed deals; nobody knows that day before"
        yield Finding(name, "stop", "close date", why)


def _after_closing(tables: Tables) -> Iterator[Finding]:
    """Columns that were first typed in, for all that is on record, when the deal had closed."""
    closed = tables.deals.loc[tables.deals["outcome"] != "open", ["deal_id", "closed_at"]]
    changes = tables.deal_changes.merge(closed, on="deal_id", how="inner")
    if changes.empty:
        return
    first = changes.groupby(["column", "deal_id"]).agg(
        at=("changed_at", "min"), closed=("closed_at", "first")
    )
    late = (first["at"] >= first["closed"]).groupby(level="column").sum()
    for name, n in late.items():
        share = n / len(closed)
        if n >= LEAST_ROWS and share >= _LEAST_LATE:
            why = (
                f"on {share:.0%} of the closed deals its first value on record was typed in when the deal "
                "had closed; what it held before is not known, and that it is unknown tells how it ended"
            )
            yield Finding(str(name), "warn", "after closing", why)

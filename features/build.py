"""Features of decisions: one row per moment, from what was on record before it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from features import catalog
from features.as_of import (
    ALWAYS,
    NEVER,
    EventLog,
    Floats,
    Ints,
    codes_of,
    days_between,
    known_at,
    microseconds,
)
from features.column_types import is_text
from features.coordination import Touches
from features.everybody import OWNERS, Everybody
from features.history import DealHistory
from features.problems import TableError, UserError
from features.stages import stage_history
from features.tables import COLUMNS, Tables

PRIOR_DEALS = 10  # a partner's win rate counts as much as ten deals won at everybody's rate
PRIOR_WITHOUT_HISTORY = 0.3
MOMENT_COLUMNS = ("deal_id", "stage", "entered_at", "moment")

Columns = dict[str, object]


def build_features(tables: Tables, moments: pd.DataFrame, everybody: Everybody | None = None) -> pd.DataFrame:
    """Return one row per moment, from what was on record strictly before it.

    Parameters
    ----------
    tables : as ``schema.check`` returns them
    moments : columns ``deal_id``, ``stage``, ``entered_at`` (when that stage was entered) and ``moment``
        (when the question is asked; the same as ``entered_at`` where it is asked at stage entries). UTC.
    everybody : what rows read of all deals, where `tables` hold only those of the partners and customers
        asked about; read from `tables` by default

    Returns
    -------
    DataFrame of shape (n_moments, n_features)
        Index of ``moments``; columns exactly ``catalog.names()``, then the user's own columns of deals,
        partners and customers, named with that prefix. Numbers float64, booleans nullable, texts as
        categories. Days, and the export's currency. Unknown is missing, never 0.

    Raises
    ------
    UserError
        A moment names a deal that the tables do not have, or columns are missing.

    Notes
    -----
    The time of recording decides, not the time of the event: a call held on Monday and typed in on Thursday
    is not known on Tuesday. What ``deal_changes`` tells of a column is taken as of the moment. Only
    ``days_in_stage`` measures the time spent in the current stage; it is 0 wherever the past is asked about
    at a stage's start. A row depends on its own deal, partner and customer, and on the share that everybody
    won; not on which other moments are asked about, nor on the order of any rows.
    """
    history = _History(tables)
    asked = _Asked.read(tables, history, moments)
    everybody = everybody or Everybody.of(tables)
    columns: Columns = {}
    for part in (_deal, _partner, _customer, _pair, _vendor, _coordination):
        columns.update(part(tables, history, asked, everybody))
    own = _own_columns(tables, history.deals, asked, everybody, taken=set(columns))
    ordered = {name: columns[name] for name in catalog.names()}
    return pd.DataFrame({**ordered, **own}, index=moments.index)


class _History:
    """What deals, partners and pairs had done, as logs to be asked as of a moment."""

    def __init__(self, tables: Tables) -> None:
        deals = tables.deals
        self.created = microseconds(deals["created_at"])
        self.closed = microseconds(deals["closed_at"])
        won = (deals["outcome"] == "won").to_numpy()
        self.won = np.where(won, self.closed, NEVER)
        self.partner = codes_of(deals["partner_id"], tables.partners["partner_id"])
        self.customer = codes_of(deals["customer_id"], tables.customers["customer_id"])
        self.pair = self.pair_key(self.partner, self.customer, len(tables.customers))
        self.deals = DealHistory.of(tables)
        self._products = pd.Series(self.deals.levels("product_line"), dtype="str")
        self._final_product = codes_of(deals["product_line"], self._products)
        once_won = np.where(won, self.closed + 1, self.created + 1)
        self.product = self.product_at(np.arange(len(deals)), once_won)

    def product_at(self, deal: Ints, moments: Ints) -> Ints:
        """Return the code of the product that each deal had at the moment; -1 where it was not on record."""
        if not self.deals.has("product_line"):
            return self._final_product[deal]
        return codes_of(self.deals.at("product_line", deal, moments), self._products)

    @staticmethod
    def pair_key(first: Ints, second: Ints, n_second: int) -> Ints:
        """Return one code for two; -1 where one of them is missing."""
        dense = pd.factorize(first.astype(np.int64) * n_second + second)[0]
        return np.where((first >= 0) & (second >= 0), dense, -1)


@dataclass(frozen=True)
class _Asked:
    """The moments asked about, and where their deals, partners and customers stand in the tables."""

    deal: Ints
    partner: Ints
    customer: Ints
    stage: pd.Series
    entered: Ints
    moment: Ints
    moment_times: pd.Series

    @classmethod
    def read(cls, tables: Tables, history: _History, moments: pd.DataFrame) -> "_Asked":
        lacking = [name for name in MOMENT_COLUMNS if name not in moments.columns]
        if lacking:
            raise UserError(f"moments lack {', '.join(lacking)}; needed are {', '.join(MOMENT_COLUMNS)}.")
        deal = codes_of(moments["deal_id"], tables.deals["deal_id"])
        if (deal < 0).any():
            raise TableError(
                "moments", "deal_id", "should name a deal of the tables", moments["deal_id"][deal < 0]
            )
        return cls(
            deal=deal,
            partner=history.partner[deal],
            customer=history.customer[deal],
            stage=moments["stage"].reset_index(drop=True),
            entered=microseconds(moments["entered_at"]),
            moment=microseconds(moments["moment"]),
            moment_times=moments["moment"].reset_index(drop=True),
        )


def _deal(tables: Tables, history: _History, asked: _Asked, _everybody: Everybody) -> Columns:
    deals = tables.deals
    amount = history.deals.at("amount", asked.deal, asked.moment).to_numpy(dtype=np.float64)
    entries = tables.stage_entries
    entry_deals = codes_of(entries["deal_id"], deals["deal_id"])
    moves, previous = stage_history(entries, entry_deals, asked.deal, asked.entered, asked.moment)
    revenue = tables.customers["annual_revenue"].to_numpy(dtype=np.float64)[asked.customer]
    levels = pd.Index(
        np.unique(np.concatenate([_levels(entries["stage"]), _levels(asked.stage)])), dtype="str"
    )
    named = {name: _deal_text(history.deals, name, asked) for name in _DEAL_TEXTS}
    return {
        "amount": amount,
        "amount_to_customer_revenue": _ratio(amount, revenue),
        "amount_to_partner_usual": _ratio(
            amount,
            history.deals.amounts().mean(history.partner, asked.partner, asked.deal, asked.moment),
        ),
        "stage": pd.Categorical(asked.stage, categories=levels),
        "days_open": days_between(history.created[asked.deal], asked.entered),
        "days_in_previous_stage": previous,
        "days_in_stage": days_between(asked.entered, asked.moment),
        "stage_moves": moves,
        **named,
        "days_to_quarter_end": _days_to_quarter_end(asked.moment_times),
    }


_DEAL_TEXTS = ("product_line", "deal_type", "lead_source", "competitor")


def _deal_text(deals: DealHistory, name: str, asked: _Asked) -> pd.Categorical:
    """Return what the deals' column held at the moments; the levels are all that it ever held, sorted."""
    if not deals.has(name):
        return _category(deals.deals[name], asked.deal)
    levels = pd.Index(sorted(deals.levels(name)), dtype="str")
    return pd.Categorical(deals.at(name, asked.deal, asked.moment), categories=levels)


def _partner(tables: Tables, history: _History, asked: _Asked, everybody: Everybody) -> Columns:
    partners = tables.partners
    is_won = (history.won != NEVER).astype(np.float64)
    prior = everybody.share_won(asked.moment, PRIOR_WITHOUT_HISTORY)
    closings = EventLog(history.partner, history.closed, is_won)
    closed, won = closings.count_and_total(asked.partner, asked.moment)
    with_product = _wins_with_product(history, asked)
    return {
        "partner_id": _category(partners["partner_id"], asked.partner),
        "partner_type": _category(partners["partner_type"], asked.partner),
        "partner_tier": _category(partners["tier"], asked.partner),
        "partner_region": _category(partners["region"], asked.partner),
        "partner_employees": partners["employees"].to_numpy(dtype=np.float64)[asked.partner],
        "partner_certifications": partners["certifications"].to_numpy(dtype=np.float64)[asked.partner],
        "partner_tenure_days": _days_since(microseconds(partners["joined_at"])[asked.partner], asked.moment),
        "partner_deals_before": _others(history.partner, history.created, asked),
        "partner_win_rate": (won + PRIOR_DEALS * prior) / (closed + PRIOR_DEALS),
        "partner_wins_with_product": with_product,
    }


def _wins_with_product(history: _History, asked: _Asked) -> Floats:
    """Count the partner's wins with the product that the deal had at the moment; missing without one."""
    product = history.product_at(asked.deal, asked.moment)
    n_products = history.product.max(initial=0) + 1
    both = np.concatenate([history.partner, asked.partner]), np.concatenate([history.product, product])
    keys = history.pair_key(*both, n_products)
    theirs, asked_for = keys[: len(history.partner)], keys[len(history.partner) :]
    count = EventLog(theirs, history.won).count(asked_for, asked.moment)
    own = (theirs[asked.deal] == asked_for) & (history.won[asked.deal] < asked.moment)
    return np.where(product >= 0, count - own, np.nan)


def _customer(tables: Tables, history: _History, asked: _Asked, _everybody: Everybody) -> Columns:
    customers = tables.customers
    return {
        "customer_industry": _category(customers["industry"], asked.customer),
        "customer_region": _category(customers["region"], asked.customer),
        "customer_employees": customers["employees"].to_numpy(dtype=np.float64)[asked.customer],
        "customer_annual_revenue": customers["annual_revenue"].to_numpy(dtype=np.float64)[asked.customer],
        "customer_deals_before": _others(history.customer, history.created, asked),
        "customer_wins_before": _others(history.customer, history.won, asked),
    }


def _pair(tables: Tables, history: _History, asked: _Asked, _everybody: Everybody) -> Columns:
    wins = _others(history.pair, history.won, asked)
    last = EventLog(history.pair, history.created).last_row(
        history.pair[asked.deal], asked.moment, asked.deal
    )
    last_created = np.where(last >= 0, history.created[last], NEVER)
    since, executive = _relationship(tables, asked)
    return {
        "pair_first_sale": pd.array(wins == 0, dtype="boolean"),
        "pair_deals_before": _others(history.pair, history.created, asked),
        "pair_wins_before": wins,
        "pair_days_since_last_deal": days_between(last_created, asked.moment),
        "pair_tenure_days": _days_since(since, asked.moment),
        "pair_executive_contact": executive,
    }


def _relationship(tables: Tables, asked: _Asked) -> tuple[Ints, pd.api.extensions.ExtensionArray]:
    """Return ``since`` and executive contact from the pair's row last recorded before the moment."""
    table, n = tables.relationships, len(tables.customers)
    since, recorded = microseconds(table["since"]), microseconds(table["recorded_at"])
    known = np.where(recorded != NEVER, recorded, np.where(since != NEVER, since, ALWAYS))
    partner = codes_of(table["partner_id"], tables.partners["partner_id"])
    customer = codes_of(table["customer_id"], tables.customers["customer_id"])
    keys = np.concatenate([partner * n + customer, asked.partner * n + asked.customer])
    codes = pd.factorize(keys)[0]
    executive = table["executive_contact"].astype("boolean")
    # Of two rows recorded at the same time the longer relationship counts, whichever stands first.
    order = np.lexsort((executive.fillna(False).to_numpy(dtype=bool), -since))
    log = EventLog(codes[: len(table)], known, np.argsort(order).astype(np.float64))
    row = log.last_row(codes[len(table) :], asked.moment)
    return np.append(since, NEVER)[row], executive.array.take(row, allow_fill=True)


def _vendor(tables: Tables, history: _History, asked: _Asked, _everybody: Everybody) -> Columns:
    involvements = tables.involvements
    deal = codes_of(involvements["deal_id"], tables.deals["deal_id"])
    known = known_at(involvements["started_at"], involvements["recorded_at"])
    ended = np.maximum(known, microseconds(involvements["ended_at"]))
    joined = EventLog(deal, known).count(asked.deal, asked.moment)
    left = EventLog(deal, ended).count(asked.deal, asked.moment)
    first = np.full(len(tables.deals), NEVER)
    np.minimum.at(first, deal, known)
    pair_known = np.where(first == NEVER, NEVER, np.maximum(first, history.created))
    return {
        "already_involved": pd.array(joined > 0, dtype="boolean"),
        "vendor_active_now": pd.array(joined > left, dtype="boolean"),
        "vendor_involvements_before": joined.astype(np.float64),
        "pair_vendor_involved_before": _others(history.pair, pair_known, asked),
    }


def _coordination(tables: Tables, _history: _History, asked: _Asked, everybody: Everybody) -> Columns:
    touches = replace(Touches.of(tables), n_deals=everybody.active_deals)
    days = touches.uncoordinated_days(asked.deal, asked.moment)
    flag = pd.array(days > 0, dtype="boolean")
    flag[np.isnan(days)] = pd.NA
    return {"uncoordinated_days": days, "uncoordinated": flag}


def _others(keys: Ints, times: Ints, asked: _Asked) -> Floats:
    """Count the deals of the same key with a time before the moment, other than the deal asked about."""
    count = EventLog(keys, times).count(keys[asked.deal], asked.moment)
    own = (keys[asked.deal] >= 0) & (times[asked.deal] < asked.moment)
    return (count - own).astype(np.float64)


def _own_columns(
    tables: Tables, deals: DealHistory, asked: _Asked, everybody: Everybody, taken: set[str]
) -> Columns:
    """Return the user's own columns; times, and texts that name each row, are no features."""
    owners: Mapping[str, Ints] = dict(zip(OWNERS, (asked.deal, asked.partner, asked.customer), strict=True))
    columns: Columns = {}
    for table_name, rows in owners.items():
        table = tables.by_name()[table_name]
        for column in table.columns.difference(list(COLUMNS[table_name]), sort=False):
            name = f"{table_name.removesuffix('s')}_{column}"
            if name in taken:
                raise TableError(
                    table_name, column, f"would become the feature '{name}', which exists; rename it"
                )
            if is_text(table[column]):
                if (table_name, column) not in everybody.names_rows:
                    of_deal = table_name == "deals"
                    columns[name] = (
                        _deal_text(deals, column, asked) if of_deal else _category(table[column], rows)
                    )
                continue
            values = (
                deals.at(column, rows, asked.moment) if table_name == "deals" else table[column].take(rows)
            )
            if pd.api.types.is_bool_dtype(values.dtype):
                columns[name] = values.astype("boolean").array
            elif pd.api.types.is_numeric_dtype(values.dtype):
                columns[name] = values.to_numpy(dtype=np.float64, na_value=np.nan)
    return columns


def _levels(values: pd.Series) -> np.ndarray:
    return values.dropna().unique().astype(object)


def _category(values: pd.Series, rows: Ints) -> pd.Categorical:
    """Return the rows' texts; the levels are all of the table's, sorted, whichever rows are asked for."""
    codes, levels = pd.factorize(values.astype("str"), sort=True)
    return pd.Categorical.from_codes(codes[rows], categories=levels)


def _ratio(numerator: Floats, denominator: Floats | Ints) -> Floats:
    positive = denominator > 0
    return np.where(positive, numerator / np.where(positive, denominator, 1), np.nan)


def _days_since(start: Ints, moments: Ints) -> Floats:
    """Return the days from start to moment; missing where it starts at the moment or later."""
    return np.where(start < moments, days_between(start, moments), np.nan)


def _days_to_quarter_end(moments: pd.Series) -> Floats:
    naive = moments.dt.tz_convert("UTC").dt.tz_localize(None)
    quarter_end = (naive.dt.to_period("Q") + 1).dt.start_time.dt.tz_localize("UTC")
    return days_between(microseconds(moments), microseconds(quarter_end))

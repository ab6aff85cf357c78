"""Features of decisions: one row per moment, from what was on record before it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from features import catalog
from features.as_of import ALWAYS, NEVER, EventLog, Floats, Ints, days_between, known_at, microseconds
from features.column_types import is_text
from features.problems import TableError, UserError
from features.stages import current_stages, stage_history
from features.tables import COLUMNS, Tables

PRIOR_DEALS = 10  # a partner's win rate counts as much as ten deals won at everybody's rate
PRIOR_WITHOUT_HISTORY = 0.3
MOMENT_COLUMNS = ("deal_id", "stage", "entered_at", "moment")

Columns = dict[str, object]


def build_features(tables: Tables, moments: pd.DataFrame) -> pd.DataFrame:
    """Return one row per moment, from what was on record strictly before it.

    Parameters
    ----------
    tables : as ``schema.check`` returns them
    moments : columns ``deal_id``, ``stage``, ``entered_at`` (when that stage was entered) and ``moment``
        (when the question is asked; the same as ``entered_at`` for past decisions). Times in UTC.

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
    is not known on Tuesday. Nothing measures the time spent in the current stage, because the past is only
    ever asked about at a stage's start. A row depends on its own deal, partner and customer, and on the
    share that everybody won; not on which other moments are asked about, nor on the order of any rows.
    """
    history = _History(tables)
    asked = _Asked.read(tables, history, moments)
    columns: Columns = {}
    for part in (_deal, _partner, _customer, _pair, _vendor):
        columns.update(part(tables, history, asked))
    own = _own_columns(tables, asked, taken=set(columns))
    ordered = {name: columns[name] for name in catalog.names()}
    return pd.DataFrame({**ordered, **own}, index=moments.index)


def open_deals(tables: Tables, as_of: pd.Timestamp | None = None) -> pd.DataFrame:
    """Return the moments of the deals that are open at ``as_of``, each in the stage last recorded.

    ``as_of`` defaults to a microsecond after the export, so that all of it is known; without an
    offset it is UTC. Deals without a stage
    on record are left out. Sorted by deal.
    """
    moment = tables.now.as_unit("us") + pd.Timedelta(1, unit="us") if as_of is None else pd.Timestamp(as_of)
    moment = moment.tz_localize("UTC") if moment.tzinfo is None else moment
    deals = tables.deals
    is_open = (deals["created_at"] < moment) & ~(deals["closed_at"] < moment)
    stages = current_stages(tables.stage_entries, moment)
    moments = stages[stages["deal_id"].isin(deals.loc[is_open, "deal_id"])].reset_index(drop=True)
    return moments.assign(moment=pd.Series(moment, index=moments.index, dtype="datetime64[us, UTC]"))


class _History:
    """What deals, partners and pairs had done, as logs to be asked as of a moment."""

    def __init__(self, tables: Tables) -> None:
        deals = tables.deals
        self.created = microseconds(deals["created_at"])
        self.closed = microseconds(deals["closed_at"])
        won = (deals["outcome"] == "won").to_numpy()
        self.won = np.where(won, self.closed, NEVER)
        self.partner = _codes(deals["partner_id"], tables.partners["partner_id"])
        self.customer = _codes(deals["customer_id"], tables.customers["customer_id"])
        self.product = pd.factorize(deals["product_line"], sort=True)[0]
        self.pair = self.pair_key(self.partner, self.customer, len(tables.customers))
        self.partner_product = self.pair_key(self.partner, self.product, self.product.max(initial=0) + 1)
        self.amount = deals["amount"].to_numpy(dtype=np.float64)

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
        deal = _codes(moments["deal_id"], tables.deals["deal_id"])
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


def _deal(tables: Tables, history: _History, asked: _Asked) -> Columns:
    deals, amount = tables.deals, history.amount[asked.deal]
    entries = tables.stage_entries
    entry_deals = _codes(entries["deal_id"], deals["deal_id"])
    moves, previous = stage_history(entries, entry_deals, asked.deal, asked.entered, asked.moment)
    revenue = tables.customers["annual_revenue"].to_numpy(dtype=np.float64)[asked.customer]
    levels = pd.Index(
        np.unique(np.concatenate([_levels(entries["stage"]), _levels(asked.stage)])), dtype="str"
    )
    named = {name: _category(deals[name], asked.deal) for name in _DEAL_TEXTS}
    return {
        "amount": amount,
        "amount_to_customer_revenue": _ratio(amount, revenue),
        "amount_to_partner_usual": _ratio(amount, _partner_usual(history, asked)),
        "stage": pd.Categorical(asked.stage, categories=levels),
        "days_open": days_between(history.created[asked.deal], asked.entered),
        "days_in_previous_stage": previous,
        "stage_moves": moves,
        **named,
        "days_to_quarter_end": _days_to_quarter_end(asked.moment_times),
    }


_DEAL_TEXTS = ("product_line", "deal_type", "lead_source", "competitor")


def _partner_usual(history: _History, asked: _Asked) -> Floats:
    """Return the mean amount of the partner's other deals created before the moment."""
    has = ~np.isnan(history.amount)
    log = EventLog(history.partner, np.where(has, history.created, NEVER), np.where(has, history.amount, 0.0))
    own = has[asked.deal] & (history.created[asked.deal] < asked.moment)
    count, total = log.count_and_total(asked.partner, asked.moment)
    return _ratio(total - np.where(own, history.amount[asked.deal], 0.0), count - own)


def _partner(tables: Tables, history: _History, asked: _Asked) -> Columns:
    partners = tables.partners
    everybody = np.zeros_like(history.partner)
    nobody_else = np.zeros_like(asked.partner)
    is_won = (history.won != NEVER).astype(np.float64)
    closings_of_all = EventLog(everybody, history.closed, is_won)
    closed_of_all, won_of_all = closings_of_all.count_and_total(nobody_else, asked.moment)
    prior = np.where(closed_of_all > 0, won_of_all / np.maximum(closed_of_all, 1), PRIOR_WITHOUT_HISTORY)
    closings = EventLog(history.partner, history.closed, is_won)
    closed, won = closings.count_and_total(asked.partner, asked.moment)
    with_product = _others(history.partner_product, history.won, asked)
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
        "partner_wins_with_product": np.where(history.product[asked.deal] >= 0, with_product, np.nan),
    }


def _customer(tables: Tables, history: _History, asked: _Asked) -> Columns:
    customers = tables.customers
    return {
        "customer_industry": _category(customers["industry"], asked.customer),
        "customer_region": _category(customers["region"], asked.customer),
        "customer_employees": customers["employees"].to_numpy(dtype=np.float64)[asked.customer],
        "customer_annual_revenue": customers["annual_revenue"].to_numpy(dtype=np.float64)[asked.customer],
        "customer_deals_before": _others(history.customer, history.created, asked),
        "customer_wins_before": _others(history.customer, history.won, asked),
    }


def _pair(tables: Tables, history: _History, asked: _Asked) -> Columns:
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
    partner = _codes(table["partner_id"], tables.partners["partner_id"])
    customer = _codes(table["customer_id"], tables.customers["customer_id"])
    keys = np.concatenate([partner * n + customer, asked.partner * n + asked.customer])
    codes = pd.factorize(keys)[0]
    executive = table["executive_contact"].astype("boolean")
    # Of two rows recorded at the same time the longer relationship counts, whichever stands first.
    order = np.lexsort((executive.fillna(False).to_numpy(dtype=bool), -since))
    log = EventLog(codes[: len(table)], known, np.argsort(order).astype(np.float64))
    row = log.last_row(codes[len(table) :], asked.moment)
    return np.append(since, NEVER)[row], executive.array.take(row, allow_fill=True)


def _vendor(tables: Tables, history: _History, asked: _Asked) -> Columns:
    involvements = tables.involvements
    deal = _codes(involvements["deal_id"], tables.deals["deal_id"])
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


def _others(keys: Ints, times: Ints, asked: _Asked) -> Floats:
    """Count the deals of the same key with a time before the moment, other than the deal asked about."""
    count = EventLog(keys, times).count(keys[asked.deal], asked.moment)
    own = (keys[asked.deal] >= 0) & (times[asked.deal] < asked.moment)
    return (count - own).astype(np.float64)


def _own_columns(tables: Tables, asked: _Asked, taken: set[str]) -> Columns:
    """Return the user's own columns; times, and texts that name each row, are no features."""
    owners: Mapping[str, Ints] = {"deals": asked.deal, "partners": asked.partner, "customers": asked.customer}
    columns: Columns = {}
    for table_name, rows in owners.items():
        table = tables.by_name()[table_name]
        for column in table.columns.difference(list(COLUMNS[table_name]), sort=False):
            name = f"{table_name.removesuffix('s')}_{column}"
            if name in taken:
                raise TableError(
                    table_name, column, f"would become the feature '{name}', which exists; rename it"
                )
            values = table[column]
            if is_text(values):
                if not _names_each_row(values):
                    columns[name] = _category(values, rows)
            elif pd.api.types.is_bool_dtype(values.dtype):
                columns[name] = values.astype("boolean").array.take(rows)
            elif pd.api.types.is_numeric_dtype(values.dtype):
                columns[name] = values.to_numpy(dtype=np.float64, na_value=np.nan)[rows]
    return columns


def _names_each_row(values: pd.Series) -> bool:
    distinct = values.nunique()
    return distinct > 50 and distinct > 0.5 * values.notna().sum()


def _codes(ids: pd.Series, of: pd.Series) -> Ints:
    """Return where each id stands in ``of``, which holds each once; -1 where it does not."""
    found = pd.factorize(pd.concat([of, ids], ignore_index=True))[0][len(of) :].astype(np.int64)
    return np.where(found < len(of), found, -1)


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

"""What the CRM of the simulated market would export on the last day: nothing later, and the truth apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import mechanism
from features.simulated_market import DAY, FIRST_DAY, WEEKS, Market
from features.tables import Tables

if TYPE_CHECKING:
    from features.simulator import Drawn

CUT = WEEKS * 7 * DAY
TRUTH = ("uplift", "propensity", "win_if_step_back", "win_if_step_in", "uplift_against_never")
_KINDS = ("materials", "technical", "proposal", "closing")  # the usual kind, by stage

Ints = NDArray[np.int64]


def export(drawn: Drawn, market: Market, rng: np.random.Generator) -> Tables:
    """Return the tables as the CRM holds them on the last day."""
    deals = _deals(drawn, market, rng)
    entries = _stage_entries(drawn, rng)
    involvements = _involvements(drawn, rng)
    return Tables(
        deals=deals,
        stage_entries=entries,
        involvements=involvements,
        partners=market.partners_table(FIRST_DAY, rng),
        customers=market.customers_table(rng),
        relationships=_relationships(drawn, market, rng),
        exported_at=_newest(deals, entries, involvements),
    )


def truth_table(drawn: Drawn) -> pd.DataFrame:
    """Return what each decision is truly worth: one row per stage entry, fractions."""
    stage, deal = np.nonzero((drawn.entered >= 0) & (drawn.entered < CUT))
    return pd.DataFrame(
        {
            "deal_id": deal_ids(drawn)[deal],
            "stage": np.array(mechanism.STAGES)[stage],
            "decided_at": as_times(drawn.entered[stage, deal]),
            **{name: drawn.truth[i, stage, deal] for i, name in enumerate(TRUTH)},
        }
    )


def deal_ids(drawn: Drawn) -> NDArray[np.str_]:
    """Return the deals' ids, in the order of their creation."""
    return np.char.add("D", np.char.zfill(np.arange(len(drawn.pair)).astype(str), 7))


def _deals(drawn: Drawn, market: Market, rng: np.random.Generator) -> pd.DataFrame:
    n, is_open = len(drawn.pair), drawn.closed >= CUT
    partner, customer = market.pair_partner[drawn.pair], market.pair_customer[drawn.pair]
    deal_type = np.where(
        drawn.first_sale, "new_business", np.where(rng.random(n) < 0.6, "expansion", "renewal")
    )
    rivals = np.array(["none", "Altira", "Borealis", "Cobalt"])[drawn.traits["rival"]]
    return pd.DataFrame(
        {
            "deal_id": deal_ids(drawn),
            "partner_id": market.partner_ids[partner],
            "customer_id": market.customer_ids[customer],
            "created_at": as_times(drawn.created),
            "outcome": np.where(is_open, "open", np.where(drawn.won, "won", "lost")),
            "closed_at": as_times(np.where(is_open, -1, drawn.closed)),
            "amount": _with_gaps(np.round(np.exp(drawn.log_amount), -2), 0.02, rng),
            "currency": "EUR",
            "product_line": np.array(market.products)[drawn.product],
            "deal_type": deal_type,
            "lead_source": rng.choice(["partner", "vendor", "event", "web"], n, p=[0.55, 0.2, 0.15, 0.1]),
            "competitor": _with_gaps(rivals, 0.06, rng),
            "complexity": _with_gaps(drawn.traits["complexity"].astype(float), 0.05, rng),
            "strategic": drawn.traits["strategic"].astype(bool),
        }
    )


def _stage_entries(drawn: Drawn, rng: np.random.Generator) -> pd.DataFrame:
    stage, deal = np.nonzero((drawn.entered >= 0) & (drawn.entered < CUT))
    entered = drawn.entered[stage, deal]
    return pd.DataFrame(
        {
            "deal_id": deal_ids(drawn)[deal],
            "stage": np.array(mechanism.STAGES)[stage],
            "entered_at": as_times(entered),
            "recorded_at": as_times(np.minimum(typed_in(entered, 0.08, 10, rng), CUT)),
        }
    )


def _involvements(drawn: Drawn, rng: np.random.Generator) -> pd.DataFrame:
    stage, deal = np.nonzero((drawn.started >= 0) & (drawn.started < CUT))
    started, ended = drawn.started[stage, deal], drawn.ended[stage, deal]
    usual = rng.random(len(stage)) < 0.7
    kind = np.where(usual, np.array(_KINDS)[stage], rng.choice([*_KINDS, "executive", "other"], len(stage)))
    hours = np.round(rng.gamma(2.0, 3.0, len(stage)) + 2 * drawn.traits["complexity"][deal], 1)
    return pd.DataFrame(
        {
            "deal_id": deal_ids(drawn)[deal],
            "started_at": as_times(started),
            "ended_at": as_times(np.where(ended < CUT, ended, -1)),
            "kind": kind,
            "hours": _with_gaps(hours, 0.1, rng),
            "recorded_at": as_times(np.minimum(typed_in(started, 0.06, 12, rng), CUT)),
        }
    )


def _relationships(drawn: Drawn, market: Market, rng: np.random.Generator) -> pd.DataFrame:
    """Pairs that knew each other before, or have dealt; typed in within days of the first deal."""
    pairs, first = np.unique(drawn.pair, return_index=True)
    since = (market.pair_since_day[pairs] * DAY).astype(np.int64)
    known = np.maximum(since, 0) + DAY
    known = np.where(since < 0, -DAY, np.maximum(known, drawn.created[first] + DAY))
    recorded = np.where(rng.random(len(pairs)) < 0.9, known, np.maximum(known, 0) + 90 * DAY)
    keep = (recorded < CUT) & (since < CUT)
    executive = pd.array(market.pair_executive[pairs] > 0, dtype="boolean")
    executive[rng.random(len(pairs)) < 0.04] = pd.NA
    table = pd.DataFrame(
        {
            "partner_id": market.partner_ids[market.pair_partner[pairs]],
            "customer_id": market.customer_ids[market.pair_customer[pairs]],
            "since": as_times(since, missing_below=None),
            "executive_contact": executive,
            "recorded_at": as_times(recorded, missing_below=None),
        }
    )
    return table[keep].reset_index(drop=True)


def typed_in(when: Ints, share_late: float, mean_days: float, rng: np.random.Generator) -> Ints:
    """Most things are typed in within the hour; a share waits for days."""
    delay = rng.uniform(0, DAY / 24, len(when))
    waits = rng.exponential(mean_days * DAY, len(when))
    return when + np.where(rng.random(len(when)) < share_late, waits, delay).astype(np.int64)


def _with_gaps(values: NDArray, share: float, rng: np.random.Generator) -> pd.Series:
    series = pd.Series(values)
    return series.mask(rng.random(len(values)) < share)


def as_times(offsets: Ints, missing_below: int | None = 0) -> pd.Series:
    """Microseconds since the first day as UTC times; offsets below ``missing_below`` are missing."""
    moments = pd.Series(FIRST_DAY.as_unit("us") + pd.to_timedelta(offsets, unit="us"))
    return moments if missing_below is None else moments.mask(offsets < missing_below)


def _newest(*tables: pd.DataFrame) -> pd.Timestamp:
    return max(table.select_dtypes("datetimetz").max().max() for table in tables)

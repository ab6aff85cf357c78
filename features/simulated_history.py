"""Histories of the simulated CRM: amounts corrected at signing, and who touched the customer when.

Nothing here moves an outcome. All of it is drawn from a stream of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.simulated_export import CUT, Ints, as_times, deal_ids, typed_in
from features.simulated_market import DAY, FIRST_DAY
from features.tables import Tables

if TYPE_CHECKING:
    from features.simulator import Drawn

_CORRECTED_IF_WON, _CORRECTED_IF_LOST = 0.6, 0.15
_HANDED_OVER = 0.8
_PARTNER_TOUCHES, _VENDOR_TOUCHES = 0.7, 1.0  # a stage, and an involvement, on average
_KINDS = ("call", "meeting", "email", "demo", "other")

Mask = NDArray[np.bool_]


def with_corrected_amounts(tables: Tables, rng: np.random.Generator) -> Tables:
    """Overwrite amounts at closing, as CRMs do, and keep what they were before in ``deal_changes``.

    Deals that are won are corrected more often, and upwards on average: the final amount knows the outcome,
    the amount as of any decision does not.
    """
    deals = tables.deals
    won, closed = deals["outcome"] == "won", deals["closed_at"].notna()
    chance = np.where(won, _CORRECTED_IF_WON, _CORRECTED_IF_LOST)
    factor = np.exp(rng.normal(0.1, 0.25, len(deals)))
    final = (deals["amount"] * factor).round(-2)
    corrected = closed & (rng.random(len(deals)) < chance) & final.notna() & (final != deals["amount"])
    before = deals[corrected].assign(
        value=deals["amount"].astype("str"), changed_at=deals["created_at"], recorded_at=deals["created_at"]
    )
    typed = deals["closed_at"] + pd.to_timedelta(rng.uniform(0, 3600, len(deals)).round(), unit="s")
    after = deals[corrected].assign(
        value=final.astype("str"),
        changed_at=deals["closed_at"],
        recorded_at=typed.where(typed <= tables.now, deals["closed_at"]),
    )
    changes = pd.concat([before, after], ignore_index=True).assign(column="amount")
    return replace(
        tables,
        deals=deals.assign(amount=final.where(corrected, deals["amount"])),
        deal_changes=changes[["deal_id", "column", "value", "changed_at", "recorded_at"]],
    )


def activities(drawn: Drawn, tables: Tables, rng: np.random.Generator) -> pd.DataFrame:
    """Draw who touched the customer: partners all along, vendor people while they are on the deal.

    Four in five involvements begin with a hand-over, and the partner holds still while they last. In the
    others the partner goes on, and touches the customer on the vendor's days.
    """
    now = int((tables.now - FIRST_DAY) / pd.Timedelta(1, unit="us"))
    handed_over = (drawn.started >= 0) & (rng.random(drawn.started.shape) < _HANDED_OVER)
    parts = [
        _of_partners(drawn, handed_over, rng),
        *_of_the_vendor(drawn, handed_over, rng),
        _hand_overs(drawn, handed_over),
    ]
    deal, by, kind, when = (np.concatenate(each) for each in zip(*parts, strict=True))
    recorded = typed_in(when, 0.06, 5, rng)
    seen = (when < np.minimum(drawn.closed[deal], CUT)) & (recorded <= now)
    table = pd.DataFrame(
        {
            "deal_id": deal_ids(drawn)[deal[seen]],
            "by": np.array(["vendor", "partner"])[by[seen]],
            "kind": np.array([*_KINDS, "handover"])[kind[seen]],
            "happened_at": as_times(when[seen]),
            "recorded_at": as_times(recorded[seen]),
        }
    )
    return table.sort_values(["happened_at", "deal_id"], ignore_index=True)


Touches = tuple[Ints, Ints, Ints, Ints]  # deal, by (0 vendor, 1 partner), kind, when


def _of_partners(drawn: Drawn, handed_over: Mask, rng: np.random.Generator) -> Touches:
    stage, deal = np.nonzero(drawn.entered >= 0)
    ends = np.vstack([drawn.entered[1:], np.full(drawn.entered.shape[1], -1)])
    ends = np.where(ends < 0, drawn.closed, ends)
    count = rng.poisson(_PARTNER_TOUCHES, len(deal))
    stage, deal = np.repeat(stage, count), np.repeat(deal, count)
    start = drawn.entered[stage, deal]
    when = start + (rng.random(len(deal)) * (ends[stage, deal] - start)).astype(np.int64)
    away = handed_over[stage, deal] & (when > drawn.started[stage, deal]) & (when < drawn.ended[stage, deal])
    return _touches(deal[~away], 1, when[~away], rng)


def _of_the_vendor(drawn: Drawn, handed_over: Mask, rng: np.random.Generator) -> tuple[Touches, Touches]:
    """Return the vendor's touches, and the partner's on the same days where nothing was handed over."""
    stage, deal = np.nonzero(drawn.started >= 0)
    count = 1 + rng.poisson(_VENDOR_TOUCHES, len(deal))
    stage, deal = np.repeat(stage, count), np.repeat(deal, count)
    start = drawn.started[stage, deal]
    when = start + (rng.random(len(deal)) * (drawn.ended[stage, deal] - start)).astype(np.int64)
    both = ~handed_over[stage, deal]
    same_day = when[both] + rng.integers(-DAY // 4, DAY // 4, both.sum())
    same_day = np.maximum(same_day, drawn.entered[stage, deal][both])
    return _touches(deal, 0, when, rng), _touches(deal[both], 1, same_day, rng)


def _hand_overs(drawn: Drawn, handed_over: Mask) -> Touches:
    stage, deal = np.nonzero(handed_over)
    kind = np.full(len(deal), len(_KINDS))
    return deal, np.ones(len(deal), dtype=np.int64), kind, drawn.started[stage, deal]


def _touches(deal: Ints, by: int, when: Ints, rng: np.random.Generator) -> Touches:
    return deal, np.full(len(deal), by), rng.integers(0, len(_KINDS), len(deal)), when

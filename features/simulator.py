"""A CRM whose truth we know, with everything that makes the real question hard.

Vendors join big, complex, strategic first sales, which are won less often whoever sells them; long
deals have had more chances to be joined; partners differ in skill and in what they make of help; in
one region the vendor nearly always steps in; things are typed in late, values are missing, amounts are
corrected at signing, and some deals are still open when the export is taken. What help is worth stands in
``features.mechanism``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import mechanism
from features.mechanism import Situation
from features.problems import UserError
from features.schema import Tables
from features.simulated_export import TRUTH, export, truth_table
from features.simulated_history import activities, with_corrected_amounts
from features.simulated_market import DAY, WEEKS, Market, draw_market

FEWEST_DEALS = 100

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Simulated:
    """CRM tables and, apart from them, what each decision is truly worth."""

    tables: Tables
    truth: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Write one Parquet file a table, and ``truth.parquet``.

        Raises
        ------
        UserError
            The folder exists and is not empty: nothing is overwritten.
        """
        folder = Path(folder)
        refuse_occupied(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            fresh = Path(scratch) / folder.name
            fresh.mkdir()
            for name, table in self.tables.by_name().items():
                table.to_parquet(fresh / f"{name}.parquet", index=False)
            self.truth.to_parquet(fresh / "truth.parquet", index=False)
            fresh.replace(folder)


def refuse_occupied(folder: Path) -> None:
    """Refuse a place that holds something already; see `Simulated.write`."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not empty; name a new folder, or empty it first.")


def simulate(n_deals: int = 20_000, seed: int = 0, effect: bool = True) -> Simulated:
    """Simulate four years of partner deals.

    Parameters
    ----------
    n_deals : deals created in all, at least 100
    seed : the same seed gives the same CRM
    effect : ``False`` makes the vendor's help worth exactly nothing, everywhere

    Returns
    -------
    Simulated
        Tables as ``read_tables`` would give them, and the truth: one row per stage entry with
        ``uplift``, ``propensity``, ``win_if_step_back``, ``win_if_step_in`` (fractions), of stepping in
        now against waiting, with later choices left to nature; and ``uplift_against_never``, of stepping in
        now against nobody coming within the horizon.
    """
    if n_deals < FEWEST_DEALS:
        raise UserError(f"--deals is {n_deals}; a simulated CRM needs at least {FEWEST_DEALS}.")
    rng = np.random.default_rng(seed)
    market = draw_market(n_deals, rng)
    drawn = Drawn(n_deals, market)
    wins = np.zeros(len(market.pair_partner), dtype=np.int64)
    weeks = np.sort(rng.integers(0, WEEKS, n_deals))
    edges = np.searchsorted(weeks, np.arange(WEEKS + 1))
    for week in range(WEEKS):
        np.add.at(wins, drawn.pairs_won_in(week), 1)
        batch = np.arange(edges[week], edges[week + 1])
        if len(batch):
            drawn.run(batch, week, wins, float(effect), rng)
    return _exported(drawn, market, rng, np.random.default_rng([seed, 1]))


def _exported(
    drawn: "Drawn", market: Market, rng: np.random.Generator, further: np.random.Generator
) -> Simulated:
    """What the CRM would export on the last day; histories have a stream of their own."""
    tables = with_corrected_amounts(export(drawn, market, rng), further)
    return Simulated(replace(tables, activities=activities(drawn, tables, further)), truth_table(drawn))


class Drawn:
    """What happened to every deal; filled week by week, because wins change what comes after."""

    def __init__(self, n_deals: int, market: Market) -> None:
        n_stages = len(mechanism.STAGES)
        self.market = market
        self.pair = np.zeros(n_deals, dtype=np.int64)
        self.product = np.zeros(n_deals, dtype=np.int64)
        self.created = np.zeros(n_deals, dtype=np.int64)  # microseconds since the first day
        self.closed = np.zeros(n_deals, dtype=np.int64)
        self.won = np.zeros(n_deals, dtype=bool)
        self.log_amount = np.zeros(n_deals)
        self.traits = {
            name: np.zeros(n_deals, dtype=np.int64) for name in ("complexity", "strategic", "rival")
        }
        self.entered = np.full((n_stages, n_deals), -1, dtype=np.int64)
        self.started = np.full((n_stages, n_deals), -1, dtype=np.int64)
        self.ended = np.full((n_stages, n_deals), -1, dtype=np.int64)
        self.truth = np.full((len(TRUTH), n_stages, n_deals), np.nan)
        self.first_sale = np.zeros(n_deals, dtype=bool)
        self._wins_by_week: dict[int, list[Ints]] = {}

    def pairs_won_in(self, week: int) -> Ints:
        """Pairs with a win closed in the week before, so that it is known now."""
        return np.concatenate(self._wins_by_week.pop(week, [np.empty(0, dtype=np.int64)]))

    def run(self, batch: Ints, week: int, wins: Ints, effect: float, rng: np.random.Generator) -> None:
        """Create the deals of one week and play each to its end."""
        self._create(batch, week, rng)
        deal = self._situation(batch, wins)
        self.first_sale[batch] = deal.first_sale > 0
        truth = mechanism.truth(deal, effect)
        row = np.arange(len(batch))
        now = self.created[batch].copy()
        before = np.zeros(len(batch), dtype=np.int64)
        alive = np.ones(len(batch), dtype=bool)
        for stage in range(len(mechanism.STAGES)):
            stands = batch[alive]
            self.entered[stage, stands] = now[alive]
            chance = truth.propensity[stage, before, row]
            back, step_in = (
                truth.win_if_step_back[stage, before, row],
                truth.win_if_step_in[stage, before, row],
            )
            never = truth.win_if_never[stage, before, row]
            for i, values in enumerate((step_in - back, chance, back, step_in, step_in - never)):
                self.truth[i, stage, stands] = values[alive]
            joins = rng.random(len(batch)) < chance
            late = ~joins & (rng.random(len(batch)) < mechanism.late_join_probability(deal))
            quick = rng.random(len(batch)) < mechanism.QUICK_LOSS
            days = np.where(
                quick,
                rng.integers(2, mechanism.GRACE_DAYS, len(batch)),
                mechanism.draw_stage_days(deal.pace, rng),
            )
            ends = now + days * DAY
            self._involve(stage, batch, alive, now, ends, joins, late & ~quick, rng)
            help_had = mechanism.share_of_help(joins, late, before)
            advances = rng.random(len(batch)) < mechanism.advance_probability(deal, stage, help_had, effect)
            lost = alive & (quick | ~advances)
            self.closed[batch[lost]] = ends[lost]
            alive = alive & ~lost
            before = np.where(joins | late, mechanism.LAST_STAGE, np.minimum(before, mechanism.EARLIER))
            now = ends
        self.closed[batch[alive]], self.won[batch[alive]] = now[alive], True
        self._remember_wins(batch[alive])

    def _create(self, batch: Ints, week: int, rng: np.random.Generator) -> None:
        market, n = self.market, len(batch)
        self.created[batch] = week * 7 * DAY + rng.integers(0, 7 * DAY // 1_000_000, n) * 1_000_000
        self.pair[batch] = pair = market.draw_pairs(n, rng)
        self.product[batch] = product = rng.choice(len(market.products), n, p=market.product_share)
        complexity = np.clip(np.rint(rng.normal(market.product_complexity[product], 1.0)), 1, 5).astype(
            np.int64
        )
        size = 0.45 * market.customer_size_z[market.pair_customer[pair]] + 0.30 * (complexity - 3)
        self.log_amount[batch] = 10.6 + size + rng.normal(0, 0.75, n)
        self.traits["complexity"][batch] = complexity
        self.traits["strategic"][batch] = rng.random(n) < 0.10 + 0.10 * (size > 0.5)
        self.traits["rival"][batch] = rng.choice(4, n, p=[0.45, 0.25, 0.18, 0.12])

    def _situation(self, batch: Ints, wins: Ints) -> Situation:
        market, pair = self.market, self.pair[batch]
        partner, customer = market.pair_partner[pair], market.pair_customer[pair]
        complexity = (self.traits["complexity"][batch] - 3) / 1.15
        size = (self.log_amount[batch] - 10.6) / 0.95
        tenure_days = np.maximum(self.created[batch] / DAY - market.pair_since_day[pair], 0)
        return Situation(
            size=size,
            complexity=complexity,
            novel=market.product_novel[self.product[batch]],
            strategic=self.traits["strategic"][batch].astype(float),
            competitor=(self.traits["rival"][batch] > 0).astype(float),
            first_sale=(wins[pair] == 0).astype(float),
            wins=wins[pair].astype(float),
            tenure_years=tenure_days / 365.25,
            executive_contact=market.pair_executive[pair] * (tenure_days > 30),
            integrator=(market.partner_type[partner] == 0).astype(float),
            small_partner=market.partner_small[partner],
            big_customer=market.customer_big[customer],
            always_joined=market.partner_always_joined[partner],
            skill=market.partner_skill[partner],
            help_gain=market.partner_help_gain[partner],
            pace=np.clip(np.rint(1.6 + 0.8 * complexity + 0.5 * size), 0, 4).astype(np.int64),
        )

    def _involve(
        self,
        stage: int,
        batch: Ints,
        alive: NDArray[np.bool_],
        now: Ints,
        ends: Ints,
        joins: NDArray[np.bool_],
        late: NDArray[np.bool_],
        rng: np.random.Generator,
    ) -> None:
        """Vendor people start within the window, or after it; they leave an hour before the stage ends."""
        leaves = ends - DAY // 24
        soon = now + (rng.uniform(0.02, 0.96, len(batch)) * mechanism.GRACE_DAYS * DAY).astype(np.int64)
        window = now + mechanism.GRACE_DAYS * DAY
        later = window + ((0.02 + 0.9 * rng.random(len(batch))) * np.maximum(leaves - window, 0)).astype(
            np.int64
        )
        starts = np.where(joins, soon, later)
        comes = alive & (joins | late) & (starts < leaves)
        self.started[stage, batch[comes]] = starts[comes]
        self.ended[stage, batch[comes]] = leaves[comes]

    def _remember_wins(self, won: Ints) -> None:
        weeks = self.closed[won] // (7 * DAY) + 1
        for week in np.unique(weeks):
            self._wins_by_week.setdefault(int(week), []).append(self.pair[won[weeks == week]])

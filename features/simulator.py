"""A CRM whose truth we know, with everything that makes the real question hard.

Vendors join big, complex, strategic first sales, which are won less often whoever sells them; long
deals have had more chances to be joined; partners differ in skill and in what they make of help; in
one region the vendor nearly always steps in; things are typed in late, values are missing, and some
deals are still open when the export is taken. What help is worth stands in ``features.mechanism``.
"""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import mechanism
from features.mechanism import Situation
from features.problems import UserError
from features.schema import Tables
from features.simulated_market import Market, draw_market

FIRST_DAY = pd.Timestamp("2021-07-01", tz="UTC")
WEEKS = 208
FEWEST_DEALS = 100
_DAY = 86_400_000_000  # microseconds
_KINDS = ("materials", "technical", "proposal", "closing")  # the usual kind, by stage

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
        now against waiting, with later choices left to nature.
    """
    if n_deals < FEWEST_DEALS:
        raise UserError(f"--deals is {n_deals}; a simulated CRM needs at least {FEWEST_DEALS}.")
    rng = np.random.default_rng(seed)
    market = draw_market(n_deals, rng)
    drawn = _Drawn(n_deals, market)
    wins = np.zeros(len(market.pair_partner), dtype=np.int64)
    weeks = np.sort(rng.integers(0, WEEKS, n_deals))
    edges = np.searchsorted(weeks, np.arange(WEEKS + 1))
    for week in range(WEEKS):
        np.add.at(wins, drawn.pairs_won_in(week), 1)
        batch = np.arange(edges[week], edges[week + 1])
        if len(batch):
            drawn.run(batch, week, wins, float(effect), rng)
    return _as_tables(drawn, market, rng)


class _Drawn:
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
        self.truth = np.full((4, n_stages, n_deals), np.nan)
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
            for i, values in enumerate((step_in - back, chance, back, step_in)):
                self.truth[i, stage, stands] = values[alive]
            joins = rng.random(len(batch)) < chance
            late = ~joins & (rng.random(len(batch)) < mechanism.late_join_probability(deal))
            quick = rng.random(len(batch)) < mechanism.QUICK_LOSS
            days = np.where(
                quick,
                rng.integers(2, mechanism.GRACE_DAYS, len(batch)),
                mechanism.draw_stage_days(deal.pace, rng),
            )
            ends = now + days * _DAY
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
        self.created[batch] = week * 7 * _DAY + rng.integers(0, 7 * _DAY // 1_000_000, n) * 1_000_000
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
        tenure_days = np.maximum(self.created[batch] / _DAY - market.pair_since_day[pair], 0)
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
        leaves = ends - _DAY // 24
        soon = now + (rng.uniform(0.02, 0.96, len(batch)) * mechanism.GRACE_DAYS * _DAY).astype(np.int64)
        window = now + mechanism.GRACE_DAYS * _DAY
        later = window + ((0.02 + 0.9 * rng.random(len(batch))) * np.maximum(leaves - window, 0)).astype(
            np.int64
        )
        starts = np.where(joins, soon, later)
        comes = alive & (joins | late) & (starts < leaves)
        self.started[stage, batch[comes]] = starts[comes]
        self.ended[stage, batch[comes]] = leaves[comes]

    def _remember_wins(self, won: Ints) -> None:
        weeks = self.closed[won] // (7 * _DAY) + 1
        for week in np.unique(weeks):
            self._wins_by_week.setdefault(int(week), []).append(self.pair[won[weeks == week]])


def _as_tables(drawn: _Drawn, market: Market, rng: np.random.Generator) -> Simulated:
    """What the CRM would export on the last day: nothing that happened, or was typed in, later."""
    cut = WEEKS * 7 * _DAY
    deal_ids = np.char.add("D", np.char.zfill(np.arange(len(drawn.pair)).astype(str), 7))
    deals = _deals(drawn, market, deal_ids, cut, rng)
    entries = _stage_entries(drawn, deal_ids, cut, rng)
    involvements = _involvements(drawn, deal_ids, cut, rng)
    truth = _truth(drawn, deal_ids, cut)
    tables = Tables(
        deals=deals,
        stage_entries=entries,
        involvements=involvements,
        partners=market.partners_table(FIRST_DAY, rng),
        customers=market.customers_table(rng),
        relationships=_relationships(drawn, market, cut, rng),
        exported_at=_newest(deals, entries, involvements),
    )
    return Simulated(tables, truth)


def _deals(
    drawn: _Drawn, market: Market, deal_ids: NDArray[np.str_], cut: int, rng: np.random.Generator
) -> pd.DataFrame:
    n, is_open = len(deal_ids), drawn.closed >= cut
    partner, customer = market.pair_partner[drawn.pair], market.pair_customer[drawn.pair]
    deal_type = np.where(
        drawn.first_sale, "new_business", np.where(rng.random(n) < 0.6, "expansion", "renewal")
    )
    rivals = np.array(["none", "Altira", "Borealis", "Cobalt"])[drawn.traits["rival"]]
    return pd.DataFrame(
        {
            "deal_id": deal_ids,
            "partner_id": market.partner_ids[partner],
            "customer_id": market.customer_ids[customer],
            "created_at": _time(drawn.created),
            "outcome": np.where(is_open, "open", np.where(drawn.won, "won", "lost")),
            "closed_at": _time(np.where(is_open, -1, drawn.closed)),
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


def _stage_entries(
    drawn: _Drawn, deal_ids: NDArray[np.str_], cut: int, rng: np.random.Generator
) -> pd.DataFrame:
    stage, deal = np.nonzero((drawn.entered >= 0) & (drawn.entered < cut))
    entered = drawn.entered[stage, deal]
    return pd.DataFrame(
        {
            "deal_id": deal_ids[deal],
            "stage": np.array(mechanism.STAGES)[stage],
            "entered_at": _time(entered),
            "recorded_at": _time(np.minimum(_typed_in(entered, 0.08, 10, rng), cut)),
        }
    )


def _involvements(
    drawn: _Drawn, deal_ids: NDArray[np.str_], cut: int, rng: np.random.Generator
) -> pd.DataFrame:
    stage, deal = np.nonzero((drawn.started >= 0) & (drawn.started < cut))
    started, ended = drawn.started[stage, deal], drawn.ended[stage, deal]
    usual = rng.random(len(stage)) < 0.7
    kind = np.where(usual, np.array(_KINDS)[stage], rng.choice([*_KINDS, "executive", "other"], len(stage)))
    hours = np.round(rng.gamma(2.0, 3.0, len(stage)) + 2 * drawn.traits["complexity"][deal], 1)
    return pd.DataFrame(
        {
            "deal_id": deal_ids[deal],
            "started_at": _time(started),
            "ended_at": _time(np.where(ended < cut, ended, -1)),
            "kind": kind,
            "hours": _with_gaps(hours, 0.1, rng),
            "recorded_at": _time(np.minimum(_typed_in(started, 0.06, 12, rng), cut)),
        }
    )


def _relationships(drawn: _Drawn, market: Market, cut: int, rng: np.random.Generator) -> pd.DataFrame:
    """Pairs that knew each other before, or have dealt; typed in within days of the first deal."""
    pairs, first = np.unique(drawn.pair, return_index=True)
    since = (market.pair_since_day[pairs] * _DAY).astype(np.int64)
    known = np.maximum(since, 0) + _DAY
    known = np.where(since < 0, -_DAY, np.maximum(known, drawn.created[first] + _DAY))
    recorded = np.where(rng.random(len(pairs)) < 0.9, known, np.maximum(known, 0) + 90 * _DAY)
    keep = (recorded < cut) & (since < cut)
    executive = pd.array(market.pair_executive[pairs] > 0, dtype="boolean")
    executive[rng.random(len(pairs)) < 0.04] = pd.NA
    table = pd.DataFrame(
        {
            "partner_id": market.partner_ids[market.pair_partner[pairs]],
            "customer_id": market.customer_ids[market.pair_customer[pairs]],
            "since": _time(since, missing_below=None),
            "executive_contact": executive,
            "recorded_at": _time(recorded, missing_below=None),
        }
    )
    return table[keep].reset_index(drop=True)


def _truth(drawn: _Drawn, deal_ids: NDArray[np.str_], cut: int) -> pd.DataFrame:
    stage, deal = np.nonzero((drawn.entered >= 0) & (drawn.entered < cut))
    columns = ("uplift", "propensity", "win_if_step_back", "win_if_step_in")
    return pd.DataFrame(
        {
            "deal_id": deal_ids[deal],
            "stage": np.array(mechanism.STAGES)[stage],
            "decided_at": _time(drawn.entered[stage, deal]),
            **{name: drawn.truth[i, stage, deal] for i, name in enumerate(columns)},
        }
    )


def _typed_in(when: Ints, share_late: float, mean_days: float, rng: np.random.Generator) -> Ints:
    """Most things are typed in within the hour; a share waits for days."""
    delay = rng.uniform(0, _DAY / 24, len(when))
    waits = rng.exponential(mean_days * _DAY, len(when))
    return when + np.where(rng.random(len(when)) < share_late, waits, delay).astype(np.int64)


def _with_gaps(values: NDArray, share: float, rng: np.random.Generator) -> pd.Series:
    series = pd.Series(values)
    return series.mask(rng.random(len(values)) < share)


def _time(offsets: Ints, missing_below: int | None = 0) -> pd.Series:
    """Microseconds since the first day as UTC times; offsets below ``missing_below`` are missing."""
    moments = pd.Series(FIRST_DAY.as_unit("us") + pd.to_timedelta(offsets, unit="us"))
    return moments if missing_below is None else moments.mask(offsets < missing_below)


def _newest(*tables: pd.DataFrame) -> pd.Timestamp:
    return max(table.select_dtypes("datetimetz").max().max() for table in tables)

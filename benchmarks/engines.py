"""Engines side by side on the heaviest features: ``python -m benchmarks.engines ENGINE FOLDER`` measures one.

Asked is, for each stage entry, what was on record about the partner just before it: the shrunken share of
deals won (`partner_win_rate`, the heaviest feature), and the deal's amount relative to the mean of the
partner's others (`amount_to_partner_usual`, the next). Every engine gets the same pandas frames and returns
one, because pandas is the language of the public functions; what that costs is part of its time.
"""

from __future__ import annotations

import importlib
import inspect
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import one
from features import build
from features.as_of import NEVER, EventLog, microseconds
from features.simulator import simulate
from features.tables import Tables

ROOT = Path(__file__).parents[1]
REPEATS = 5
WIN_RATE, USUAL = "partner_win_rate", "amount_to_partner_usual"
_DEAL_COLUMNS = ["deal_id", "partner_id", "created_at", "closed_at", "outcome", "amount"]
Engine = Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]


def questions(tables: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The deals, and the stage entries asked about in order of time: ``deal_id`` and ``moment``."""
    asked = tables.stage_entries[["deal_id", "entered_at"]].rename(columns={"entered_at": "moment"})
    asked = asked.sort_values(["moment", "deal_id"], ignore_index=True)
    return tables.deals[_DEAL_COLUMNS].reset_index(drop=True), asked


def compare(n_deals: int, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Figures of each engine on one simulated CRM, each from a process of its own.

    An engine that is not installed says so; one that answers otherwise than the first is our mistake.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        deals, asked = questions(simulate(n_deals, seed).tables)
        deals.to_parquet(folder / "deals.parquet")
        asked.to_parquet(folder / "asked.parquet")
        expected = None
        for engine in ENGINES:
            about = {"table": "engines", "world": "crm", "rows": n_deals, "seed": seed, "learner": engine}
            about |= {"asked": len(asked), "lines": lines_of(engine)}
            if find_spec(engine) is None:
                yield about | {"failed": f"{engine} is not installed"}
                continue
            figures = _measured_apart(engine, folder)
            answers = pd.read_parquet(folder / f"{engine}.parquet")
            expected = answers if expected is None else expected
            pd.testing.assert_frame_equal(answers, expected, rtol=1e-9, atol=0)
            yield about | figures


def lines_of(engine: str) -> int:
    """How many lines state the question: of code, of its docstring, and of SQL."""
    sql = len(_SQL.splitlines()) if engine == "duckdb" else 0
    return len(inspect.getsource(ENGINES[engine]).splitlines()) + sql


def _measured_apart(engine: str, folder: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.engines", engine, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Read the questions, answer them five times, print the cheapest and the peak memory."""
    engine, folder = sys.argv[1], Path(sys.argv[2])
    importlib.import_module(engine)
    deals, asked = pd.read_parquet(folder / "deals.parquet"), pd.read_parquet(folder / "asked.parquet")
    before = one.resident_megabytes()
    cpu, wall = [], []
    for _ in range(REPEATS):
        started = time.process_time(), time.perf_counter()
        answers = ENGINES[engine](deals, asked)
        cpu.append(time.process_time() - started[0])
        wall.append(time.perf_counter() - started[1])
    peak = one.peak_megabytes()
    answers.to_parquet(folder / f"{engine}.parquet")
    print(json.dumps({"cpu": min(cpu), "wall": min(wall), "memory": peak, "grown": peak - before}))


def with_event_log(deals: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """As `features.build` does it: codes, and a binary search in `EventLog`."""
    moment = microseconds(asked["moment"])
    codes = pd.factorize(pd.concat([deals["deal_id"], asked["deal_id"]], ignore_index=True))[0]
    deal, every_partner = codes[len(deals) :], pd.factorize(deals["partner_id"])[0]
    partner, all_one = every_partner[deal], np.zeros_like(every_partner)
    created, closed = microseconds(deals["created_at"]), microseconds(deals["closed_at"])
    is_won = (deals["outcome"] == "won").to_numpy(dtype=float)
    n_closed, n_won = EventLog(every_partner, closed, is_won).count_and_total(partner, moment)
    all_closed, all_won = EventLog(all_one, closed, is_won).count_and_total(all_one[deal], moment)
    amount = deals["amount"].to_numpy()
    has = ~np.isnan(amount)
    log = EventLog(every_partner, np.where(has, created, NEVER), np.nan_to_num(amount))
    is_own = has[deal] & (created[deal] < moment)
    others, total = log.count_and_total(partner, moment)
    total = total - np.where(is_own, amount[deal], 0.0)
    return _features(n_closed, n_won, all_closed, all_won, amount[deal], others - is_own, total)


def with_pandas(deals: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Running counts and sums, looked up with `merge_asof`."""
    asked = asked.merge(deals, on="deal_id", how="left").sort_values("moment", kind="stable")
    closings = deals[["partner_id", "closed_at"]].assign(closed=1.0, won=1.0 * (deals["outcome"] == "won"))
    closings = closings.dropna(subset="closed_at").sort_values("closed_at")
    openings = deals[["partner_id", "created_at"]].assign(opened=1.0, total=deals["amount"])
    openings = openings.dropna(subset="total").sort_values("created_at")
    everybody = closings[["closed", "won"]].cumsum().add_prefix("all_").assign(at=closings["closed_at"])
    closed = closings.groupby("partner_id")[["closed", "won"]].cumsum()
    closed = closed.assign(partner_id=closings["partner_id"], at=closings["closed_at"])
    opened = openings.groupby("partner_id")[["opened", "total"]].cumsum()
    opened = opened.assign(partner_id=openings["partner_id"], at=openings["created_at"])
    found = asked[["partner_id", "moment"]]
    for known, by in ((everybody, None), (closed, "partner_id"), (opened, "partner_id")):
        found = pd.merge_asof(
            found, known, left_on="moment", right_on="at", by=by, allow_exact_matches=False
        ).drop(columns="at")
    found = found.set_index(asked.index).fillna(dict.fromkeys(found.columns[2:], 0.0))
    is_own = asked["amount"].notna() & (asked["created_at"] < asked["moment"])
    others, total = found["opened"] - is_own, found["total"] - asked["amount"].where(is_own, 0.0)
    counts = (found[name] for name in ("closed", "won", "all_closed", "all_won"))
    return _features(*counts, asked["amount"], others, total).sort_index()


def with_polars(deals: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Running counts and sums, looked up with `join_asof`."""
    import polars as pl

    every, count = pl.from_pandas(deals), pl.int_range(1, pl.len() + 1)
    wins = (pl.col("outcome") == "won").cum_sum()
    closings = every.drop_nulls("closed_at").sort("closed_at")
    everybody = closings.select("closed_at", all_closed=count, all_won=wins)
    by = "partner_id"
    closed = closings.select(by, "closed_at", closed=count.over(by), won=wins.over(by))
    openings = every.filter(pl.col("amount").is_not_nan() & pl.col("amount").is_not_null()).sort("created_at")
    total = pl.col("amount").cum_sum().over(by)
    opened = openings.select(by, "created_at", opened=count.over(by), total=total)
    found = pl.from_pandas(asked).with_row_index("row").join(every, on="deal_id", how="left").sort("moment")
    before: dict[str, Any] = {"left_on": "moment", "allow_exact_matches": False, "check_sortedness": False}
    found = (
        found.join_asof(everybody, right_on="closed_at", suffix="_all", **before)
        .join_asof(closed, right_on="closed_at", suffix="_of", by=by, **before)
        .join_asof(opened, right_on="created_at", suffix="_of_opened", by=by, **before)
        .sort("row")
    )
    is_own = pl.col("amount").is_not_nan() & (pl.col("created_at") < pl.col("moment")).fill_null(value=False)
    names = ["closed", "won", "all_closed", "all_won", "opened", "total"]
    found = found.with_columns(pl.col(names).fill_null(0)).with_columns(
        opened=pl.col("opened").cast(pl.Int64) - is_own,
        total=pl.col("total") - pl.when(is_own).then("amount").otherwise(0.0),
    )
    return _features(*(found[name].to_numpy() for name in (*names[:4], "amount", *names[4:])))


def with_duckdb(deals: pd.DataFrame, asked: pd.DataFrame) -> pd.DataFrame:
    """Running counts and sums, looked up with `asof join`."""
    import duckdb

    with duckdb.connect() as connection:
        connection.register("deals", deals)
        connection.register("asked", asked)
        found = connection.execute(_SQL).df()
    return _features(*(found[name] for name in _IN_ORDER))


_IN_ORDER = ("closed", "won", "all_closed", "all_won", "amount", "opened", "total")
_SQL = """
    with questions as (
        select q.place, q.moment, d.partner_id, d.amount,
            d.created_at < q.moment and d.amount is not null and not isnan(d.amount) as is_own
        from (select *, row_number() over () as place from asked) q join deals d using (deal_id)
    ), closings as (  -- ties are one step, so that the running counts do not hang on their order
        select partner_id, closed_at as known, count(*) as n, count(*) filter (outcome = 'won') as n_won
        from deals where closed_at is not null group by all
    ), openings as (
        select partner_id, created_at as known, count(*) as n, sum(amount) as amounts
        from deals where amount is not null and not isnan(amount) group by all
    ), everybody as (
        select distinct known, sum(n) over step as closed, sum(n_won) over step as won
        from closings window step as (order by known)
    ), of_partner as (
        select partner_id, known, sum(n) over step as closed, sum(n_won) over step as won
        from closings window step as (partition by partner_id order by known)
    ), opened_by as (
        select partner_id, known, sum(n) over step as opened, sum(amounts) over step as total
        from openings window step as (partition by partner_id order by known)
    )
    select coalesce(c.closed, 0) as closed, coalesce(c.won, 0) as won,
        coalesce(e.closed, 0) as all_closed, coalesce(e.won, 0) as all_won, q.amount,
        coalesce(o.opened, 0) - q.is_own::int as opened,
        coalesce(o.total, 0) - case when q.is_own then q.amount else 0 end as total
    from questions q
    asof left join everybody e on e.known < q.moment
    asof left join of_partner c on c.partner_id = q.partner_id and c.known < q.moment
    asof left join opened_by o on o.partner_id = q.partner_id and o.known < q.moment
    order by q.place
"""


def _features(n_closed: Any, n_won: Any, all_closed: Any, all_won: Any, *amounts: Any) -> pd.DataFrame:
    """The last step, the same for every engine: shares and ratios of (n_asked,) counts and sums."""
    amount, others, total = amounts
    prior = np.where(all_closed > 0, all_won / np.maximum(all_closed, 1), build.PRIOR_WITHOUT_HISTORY)
    rate = (n_won + build.PRIOR_DEALS * prior) / (n_closed + build.PRIOR_DEALS)
    usual = np.where((others > 0) & (total > 0), total / np.maximum(others, 1), np.nan)
    index = amount.index if isinstance(amount, pd.Series) else None
    columns = {WIN_RATE: rate, USUAL: amount / usual}
    return pd.DataFrame({name: np.asarray(values, dtype=float) for name, values in columns.items()}, index)


ENGINES: dict[str, Engine] = {
    "numpy": with_event_log,
    "pandas": with_pandas,
    "polars": with_polars,
    "duckdb": with_duckdb,
}

if __name__ == "__main__":
    main()

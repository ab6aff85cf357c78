"""Small random CRMs, valid but awkward: ties, late typing-in, gaps, re-entries, open deals, shuffled rows."""

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.schema import Tables, check

START = pd.Timestamp("2023-01-01", tz="UTC").as_unit("us")
STAGES = ("qualify", "solution", "proposal", "negotiation")


def clock() -> datetime:
    return datetime(2025, 1, 1, tzinfo=UTC)


def times(days: np.ndarray) -> pd.Series:
    """Days since the start (NaN: missing) as UTC times; whole days, so that many times are the same."""
    return pd.Series(START + pd.to_timedelta(np.nan_to_num(days), unit="D")).mask(np.isnan(days))


@cache
def random_tables(seed: int, n_deals: int = 120, n_partners: int = 12, n_customers: int = 15) -> Tables:
    """Tables as ``check`` returns them, drawn from a seed."""
    rng = np.random.default_rng(seed)
    partners = [f"P{i}" for i in range(n_partners)]
    customers = [f"C{i}" for i in range(n_customers)]
    created = rng.integers(0, 400, n_deals).astype(float)
    length = rng.integers(1, 160, n_deals)
    is_open = (rng.random(n_deals) < 0.2) | (created + length > 500)
    deals = pd.DataFrame(
        {
            "deal_id": [f"D{i}" for i in range(n_deals)],
            "partner_id": rng.choice(partners, n_deals),
            "customer_id": rng.choice(customers, n_deals),
            "created_at": times(created),
            "outcome": np.where(is_open, "open", rng.choice(["won", "lost"], n_deals)),
            "closed_at": times(np.where(is_open, np.nan, created + length)),
            "amount": np.where(rng.random(n_deals) < 0.1, np.nan, rng.integers(1, 500, n_deals) * 100.7),
            "currency": "EUR",
            "product_line": pd.Series(rng.choice(["A", "B", "C"], n_deals)).mask(rng.random(n_deals) < 0.1),
            "deal_type": rng.choice(["new_business", "renewal"], n_deals),
            "lead_source": rng.choice(["web", "event"], n_deals),
            "competitor": pd.Series(rng.choice(["none", "Altira"], n_deals)).mask(rng.random(n_deals) < 0.2),
            "complexity": rng.integers(1, 6, n_deals),
        }
    )
    owner, place = np.repeat(np.arange(n_deals), 4), np.tile(np.arange(4), n_deals)
    entered = created[owner] + np.sort(rng.integers(0, 60, (n_deals, 4)), axis=1).ravel() * (place > 0)
    stage = np.where(rng.random(len(owner)) < 0.15, rng.choice(STAGES, len(owner)), np.array(STAGES)[place])
    entries = pd.DataFrame(
        {
            "deal_id": deals["deal_id"].to_numpy()[owner],
            "stage": stage,
            "entered_at": times(entered),
            "recorded_at": times(late(entered, rng)),
        }
    ).drop_duplicates(["deal_id", "stage", "entered_at"])
    helped = rng.integers(0, n_deals, n_deals)
    started = created[helped] + rng.integers(-60, 60, n_deals)
    ended = np.where(rng.random(n_deals) < 0.3, np.nan, started + rng.integers(0, 30, n_deals))
    involvements = pd.DataFrame(
        {
            "deal_id": deals["deal_id"].to_numpy()[helped],
            "started_at": times(started),
            "ended_at": times(ended),
            "kind": rng.choice(["technical", "executive"], n_deals),
            "hours": rng.integers(1, 40, n_deals),
            "recorded_at": times(late(started, rng)),
        }
    )
    revenue = np.where(rng.random(n_customers) < 0.2, 0, rng.integers(1, 900, n_customers) * 1e5)
    known, n_pairs = rng.integers(-200, 450, 100), 100
    relationships = pd.DataFrame(
        {
            "partner_id": rng.choice(partners, n_pairs),
            "customer_id": rng.choice(customers, n_pairs),
            "since": times(np.where(rng.random(n_pairs) < 0.2, np.nan, known)),
            "executive_contact": pd.array(rng.random(n_pairs) < 0.5, dtype="boolean"),
            "recorded_at": times(late(known - rng.choice([0, 0, 60], n_pairs), rng)),
        }
    )
    relationships.loc[::9, "executive_contact"] = pd.NA
    tables = Tables(
        deals=deals,
        stage_entries=entries,
        involvements=involvements,
        partners=pd.DataFrame(
            {
                "partner_id": partners,
                "partner_type": rng.choice(["si", "var"], n_partners),
                "tier": rng.choice(["gold", "silver"], n_partners),
                "region": rng.choice(["north", "south"], n_partners),
                "employees": rng.integers(1, 500, n_partners),
                "certifications": rng.integers(0, 9, n_partners),
                "joined_at": times(rng.integers(-300, 300, n_partners).astype(float)),
                "segment": rng.choice(["x", "y"], n_partners),
            }
        ),
        customers=pd.DataFrame(
            {
                "customer_id": customers,
                "industry": rng.choice(["steel", "retail"], n_customers),
                "region": rng.choice(["north", "south"], n_customers),
                "employees": rng.integers(5, 9000, n_customers),
                "annual_revenue": revenue,
                "is_public": rng.random(n_customers) < 0.5,
            }
        ),
        relationships=relationships,
    )
    return check(shuffled(tables, rng), clock)


def late(days: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """When it was typed in: often at once, sometimes days later, sometimes nobody knows."""
    delay = rng.choice([0, 0, 1, 7, 40], len(days))
    return np.where(rng.random(len(days)) < 0.2, np.nan, days + delay)


def shuffled(tables: Tables, rng: np.random.Generator) -> Tables:
    frames = {name: table.iloc[rng.permutation(len(table))] for name, table in tables.by_name().items()}
    return Tables(**frames, exported_at=tables.exported_at)


@pytest.fixture(scope="session")
def make_tables() -> Callable[..., Tables]:
    """``make_tables(seed, n_deals=120)``: a random CRM, checked."""
    return random_tables


@pytest.fixture(scope="session")
def shuffle() -> Callable[[Tables, np.random.Generator], Tables]:
    """The same tables with their rows in another order."""
    return shuffled


@pytest.fixture(scope="session")
def the_clock() -> Callable[[], datetime]:
    """A clock that stands on the first day of 2025."""
    return clock


@pytest.fixture(scope="session")
def moments_of() -> Callable[[Tables], pd.DataFrame]:
    """Every stage entry as a moment asked about when it happened, by decision."""

    def moments(tables: Tables) -> pd.DataFrame:
        asked = tables.stage_entries[["deal_id", "stage", "entered_at"]]
        return asked.assign(moment=asked["entered_at"])

    return moments


@pytest.fixture(scope="session")
def write_folder() -> Callable[[Tables, Path, str], Path]:
    """Write the tables to a folder as ``csv`` or ``parquet``."""

    def write(tables: Tables, folder: Path, ending: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for name, table in tables.by_name().items():
            if ending == "csv":
                table.to_csv(folder / f"{name}.csv", index=False)
            else:
                table.to_parquet(folder / f"{name}.parquet", index=False)
        return folder

    return write

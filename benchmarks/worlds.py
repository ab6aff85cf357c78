"""Decisions whose true effect is known, as flat tables: what every learner in a comparison is given.

A learner sees `X`, `treatment`, `outcome`, `groups` and `deals` of the decisions to learn from; it is
judged on others, on `uplift`, which it never sees.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import build_decisions, simulate

Floats = NDArray[np.float64]
TEST_ROWS = 20_000


@dataclass(frozen=True)
class Decisions:
    """Decisions with their truth; arrays of shape (n,)."""

    X: pd.DataFrame
    treatment: NDArray[np.bool_]
    outcome: Floats
    groups: NDArray[Any]
    """Partner."""
    deals: NDArray[Any]
    uplift: Floats
    """True effect of stepping in, a fraction."""
    propensity: Floats
    """True chance that the vendor stepped in; NaN where it is not known."""

    def __len__(self) -> int:
        return len(self.X)

    def take(self, rows: NDArray[Any]) -> Decisions:
        """Keep the rows of a mask or index."""
        kept = {f.name: np.asarray(getattr(self, f.name))[rows] for f in fields(self) if f.name != "X"}
        return replace(self, X=self.X.loc[rows] if rows.dtype == bool else self.X.iloc[rows], **kept)


@dataclass(frozen=True)
class World:
    """Decisions to learn from, and others, of the same partners, to be judged on."""

    name: str
    train: Decisions
    test: Decisions


def crm(n: int, seed: int, n_test: int = TEST_ROWS, effect: bool = True) -> World:
    """The simulated CRM's decisions as a flat table; deals are on one side with all their decisions."""
    made = simulate(int((n + n_test) / 2.1) + 200, seed, effect=effect)
    table = build_decisions(made.tables)
    truth = made.truth.set_index(["deal_id", "stage"])[["uplift", "propensity"]]
    known = truth.reindex(pd.MultiIndex.from_frame(table.rows[["deal_id", "stage"]].astype(str)))
    everything = Decisions(
        table.X.reset_index(drop=True),
        np.asarray(table.treatment, dtype=bool),
        np.asarray(table.outcome, dtype=float),
        np.asarray(table.groups),
        table.rows["deal_id"].to_numpy(dtype=str),
        known["uplift"].to_numpy(),
        known["propensity"].to_numpy(),
    )
    assert np.isfinite(everything.uplift).all()
    return apart("simulated CRM", everything, n, n_test, seed)


def apart(name: str, decisions: Decisions, n: int, n_test: int, seed: int) -> World:
    """Whole deals in random order: the first n rows to learn from, the next ones to be judged on."""
    _, deal = np.unique(decisions.deals, return_inverse=True)
    place = np.random.default_rng(seed + 10_000).permutation(deal.max() + 1)[deal]
    rows = np.argsort(place, kind="stable")
    edges = place[rows[min(n, len(rows) - 1)]], place[rows[min(n + n_test, len(rows) - 1)]]
    return World(
        name,
        decisions.take(np.flatnonzero(place < edges[0])),
        decisions.take(np.flatnonzero((place >= edges[0]) & (place < edges[1]))),
    )


# A channel without time: one decision a deal

_PARTNERS, _CITIES = 300, 900
_STAGES = ("1_qualify", "2_solution", "3_proposal", "4_negotiation")
_TYPES = ("alliance", "distributor", "msp", "si", "var")
_REGIONS = ("apac", "benelux", "dach", "france", "iberia", "italy", "nordics", "uk")
_INDUSTRIES = (
    "bank",
    "energy",
    "food",
    "health",
    "insurance",
    "public",
    "retail",
    "school",
    "steel",
    "telco",
)


def smooth(n: int, seed: int, n_test: int = TEST_ROWS, effect: float = 1.0) -> World:
    """Effects that add up over features, and some pairs of them."""
    return _channel("smooth", n, seed, n_test, lambda f: effect * _smooth_effect(f))


def sharp(n: int, seed: int, n_test: int = TEST_ROWS) -> World:
    """Effects that jump where three conditions meet: the worst case of an additive form."""
    return _channel("sharp", n, seed, n_test, _sharp_effect)


def constant(n: int, seed: int, n_test: int = TEST_ROWS, uplift: float = 0.04) -> World:
    """The same effect for every decision (0 for none)."""
    return _channel(f"constant {100 * uplift:g} points", n, seed, n_test, lambda f: np.full(len(f), uplift))


def _channel(name: str, n: int, seed: int, n_test: int, effect: Callable[[pd.DataFrame], Floats]) -> World:
    """Mixed columns, a tenth of the cells missing, the hard deals joined most, one region always joined."""
    rng = np.random.default_rng(seed)
    total = n + n_test
    f = _traits(rng, total)
    gain, habit, skill = (rng.normal(0, sd, _PARTNERS)[f["partner"]] for sd in (0.025, 0.3, 0.3))
    uplift = effect(f) + (0 if name.startswith("constant") else gain)
    hard = 0.5 * f["amount"] + 0.35 * (f["complexity"] - 3) + 0.5 * f["competitor"] - 0.4 * f["exec_access"]
    back = sigmoid(0.1 - 0.95 * hard + 0.25 * f["fit"] + skill)
    late = f["stage"].isin(_STAGES[2:])
    back = np.clip(back + 0.08 * late, 0.03, 0.97)
    step_in = np.clip(back + uplift, 0.01, 0.99)
    propensity = sigmoid(-0.5 + 0.9 * hard + 0.5 * late - 0.3 * f["product_novel"] + habit)
    propensity = np.where(f["region"] == "iberia", 0.985, np.clip(propensity, 0.03, 0.97))
    treatment = rng.random(total) < propensity
    outcome = (rng.random(total) < np.where(treatment, step_in, back)).astype(float)
    partner = np.char.add("P", np.char.zfill(f["partner"].to_numpy().astype(str), 3))
    everything = Decisions(
        _observed(f, partner, rng), treatment, outcome, partner, np.arange(total), step_in - back, propensity
    )
    return World(name, everything.take(np.arange(n)), everything.take(np.arange(n, total)))


def _traits(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """What is true of each deal, before anything goes missing."""
    of_partner = {
        "partner_type": rng.choice(_TYPES, _PARTNERS),
        "region": rng.choice(_REGIONS, _PARTNERS),
        "tier": rng.choice(["gold", "registered", "silver"], _PARTNERS),
        "partner_staff": np.exp(rng.normal(4, 1.2, _PARTNERS)),
    }
    partner = np.minimum((rng.pareto(1.2, n) * 20).astype(int), _PARTNERS - 1)
    partner = np.where(rng.random(n) < 0.5, rng.integers(0, _PARTNERS, n), partner)
    amount = rng.normal(size=n)
    complexity = np.clip(np.round(3 + 0.6 * amount + rng.normal(size=n)), 1, 5)
    novel = rng.random(n) < 0.35
    return pd.DataFrame(
        {
            "partner": partner,
            **{name: values[partner] for name, values in of_partner.items()},
            "amount": amount,
            "complexity": complexity,
            "customer_staff": np.exp(5 + 0.8 * amount + rng.normal(size=n)),
            "tenure": rng.exponential(2.5, n),
            "deals_before": rng.poisson(3, n).astype(float),
            "fit": rng.normal(size=n),
            "days_open": rng.gamma(2, 30, n),
            "discount": rng.beta(2, 8, n),
            "seats": np.exp(3 + 0.5 * amount + rng.normal(0, 0.7, n)),
            "support_calls": rng.poisson(2, n).astype(float),
            "distance": rng.gamma(1.5, 100, n),
            "first_sale": rng.random(n) < 0.4,
            "exec_access": rng.random(n) < 0.35,
            "competitor": rng.random(n) < 0.45,
            "product_novel": novel,
            "stage": rng.choice(_STAGES, n, p=[0.4, 0.3, 0.2, 0.1]),
            "industry": rng.choice(_INDUSTRIES, n),
            "lead": rng.choice(["event", "partner", "referral", "web"], n),
            "city": rng.integers(0, _CITIES, n),
        }
    )


def _smooth_effect(f: pd.DataFrame) -> Floats:
    late = f["stage"].isin(_STAGES[2:]).to_numpy()
    size = np.log(f["customer_staff"].to_numpy()) - 5
    value = (
        0.05
        + 0.09 * f["first_sale"]
        + 0.035 * np.tanh(1.5 * f["amount"])
        + 0.018 * (f["complexity"] - 3)
        - 0.05 * np.minimum(f["tenure"], 4) / 2
        - 0.07 * f["exec_access"]
        + 0.04 * f["product_novel"]
        + f["partner_type"].map(
            {"si": -0.05, "alliance": -0.02, "msp": 0.01, "distributor": 0.02, "var": 0.03}
        )
        + 0.05 * np.exp(-((f["days_open"] - 60) ** 2) / 800)
        - 0.05 * (late & (f["partner_type"] == "si"))
        + 0.06 * (f["first_sale"] & (size > 0.5))
        + 0.02 * f["product_novel"] * f["fit"]
    )
    return np.asarray(value, dtype=float)


def _sharp_effect(f: pd.DataFrame) -> Floats:
    late, si = f["stage"].isin(_STAGES[2:]), f["partner_type"].isin(["si", "alliance"])
    big, young = f["amount"] > 0.3, f["tenure"] < 1.5
    value = (
        0.02
        + 0.20 * (f["first_sale"] & big & young)
        - 0.18 * (si & f["exec_access"] & late)
        + 0.14 * (f["product_novel"] & (f["complexity"] >= 4) & ~si)
        - 0.10 * (~f["first_sale"] & ~young & ~big)
        + 0.12 * (f["competitor"] & (f["discount"] > 0.2) & ~late)
    )
    return np.asarray(value, dtype=float)


def _observed(f: pd.DataFrame, partner: NDArray[np.str_], rng: np.random.Generator) -> pd.DataFrame:
    """What was written down: texts as categories, and a tenth of most columns missing."""
    seen: dict[str, Any] = {}
    for name in f.columns.drop(["partner", "city"]):
        gone = rng.random(len(f)) < (0.0 if name in ("stage", "partner_type", "region") else 0.1)
        column = f[name]
        if column.dtype == bool:
            seen[name] = column.astype("boolean").mask(gone)
        elif column.dtype == float:
            seen[name] = column.mask(gone)
        else:
            seen[name] = column.astype("category").mask(gone)
    seen["partner_id"] = pd.Categorical(partner)
    seen["city"] = pd.Categorical(np.char.add("C", f["city"].to_numpy().astype(str)))
    return pd.DataFrame(seen)


def sigmoid(x: Any) -> Any:
    """Chance from log odds."""
    return 1 / (1 + np.exp(-x))

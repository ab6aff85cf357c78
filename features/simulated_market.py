"""The simulated market: partners with Zipf-like volumes, customers, and the pairs that deal."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]

FIRST_DAY = pd.Timestamp("2021-07-01", tz="UTC")
WEEKS = 208  # that are simulated
DAY = 86_400_000_000  # microseconds
PARTNER_TYPES = ("si", "alliance", "var", "distributor", "msp")
REGIONS = ("DACH", "France", "UK", "Nordics", "Iberia", "Italy", "Benelux", "Gulf")
ALWAYS_JOINED_REGION = "Gulf"
INDUSTRIES = ("manufacturing", "finance", "public", "retail", "health", "energy", "telecom", "transport")
TIERS = ("registered", "silver", "gold", "platinum")
_YEAR_DAYS = 365.25


@dataclass(frozen=True)
class Market:
    """Who can deal with whom. Partner, customer, pair and product arrays, each by position."""

    partner_ids: NDArray[np.str_]
    partner_type: Ints  # position in PARTNER_TYPES; 0 is an integrator
    partner_tier: Ints
    partner_region: Ints
    partner_employees: Array
    partner_skill: Array
    partner_help_gain: Array
    customer_ids: NDArray[np.str_]
    customer_employees: Array
    customer_region: Ints
    customer_size_z: Array
    pair_partner: Ints
    pair_customer: Ints
    pair_since_day: Array  # days after the first simulated day; negative is before it
    pair_executive: Array
    products: tuple[str, ...]
    product_share: Array
    product_complexity: Array
    product_novel: Array
    first_pair: Ints  # where a partner's pairs start
    portfolio: Ints  # how many customers a partner has
    partner_share: Array  # of all deals

    @property
    def partner_small(self) -> Array:
        """0 to 1: how small the partner is, half at 60 people."""
        return 1 / (1 + np.exp(2.0 * (np.log(self.partner_employees) - np.log(60))))

    @property
    def customer_big(self) -> Array:
        """0 to 1: how big the customer is, half at 1,000 people."""
        return 1 / (1 + np.exp(-1.6 * (np.log(self.customer_employees) - np.log(1000))))

    @property
    def partner_always_joined(self) -> Array:
        """1 in the region where the vendor nearly always steps in."""
        return (np.array(REGIONS)[self.partner_region] == ALWAYS_JOINED_REGION).astype(float)

    def draw_pairs(self, n: int, rng: np.random.Generator) -> Ints:
        """Pairs of new deals: a partner by its volume, then one of its customers, some far more often."""
        partner = rng.choice(len(self.partner_share), n, p=self.partner_share)
        slot = np.floor(self.portfolio[partner] * rng.random(n) ** 2.2).astype(np.int64)
        return self.first_pair[partner] + slot

    def partners_table(self, first_day: pd.Timestamp, rng: np.random.Generator) -> pd.DataFrame:
        """The CRM's partners."""
        n = len(self.partner_ids)
        joined = first_day - pd.to_timedelta(np.rint(rng.gamma(2.0, 2.5 * _YEAR_DAYS, n)), unit="D")
        tier = pd.Series(np.array(TIERS)[self.partner_tier]).mask(rng.random(n) < 0.03)
        return pd.DataFrame(
            {
                "partner_id": self.partner_ids,
                "partner_type": np.array(PARTNER_TYPES)[self.partner_type],
                "tier": tier,
                "region": np.array(REGIONS)[self.partner_region],
                "employees": np.rint(self.partner_employees),
                "certifications": rng.poisson(1 + 2.0 * self.partner_tier).astype(float),
                "joined_at": joined.as_unit("us"),
            }
        )

    def customers_table(self, rng: np.random.Generator) -> pd.DataFrame:
        """The CRM's customers; some sizes are not known."""
        n = len(self.customer_ids)
        revenue = self.customer_employees * np.exp(rng.normal(12.0, 0.5, n))
        return pd.DataFrame(
            {
                "customer_id": self.customer_ids,
                "industry": rng.choice(INDUSTRIES, n),
                "region": np.array(REGIONS)[self.customer_region],
                "employees": pd.Series(np.rint(self.customer_employees)).mask(rng.random(n) < 0.04),
                "annual_revenue": pd.Series(np.round(revenue, -4)).mask(rng.random(n) < 0.12),
            }
        )


def draw_market(n_deals: int, rng: np.random.Generator) -> Market:
    """A market for about `n_deals` deals: one partner to 80 deals (at least 24), one customer to 5."""
    n_partners, n_customers = max(24, n_deals // 80), max(40, n_deals // 5)
    share = 1.0 / (np.arange(n_partners) + 6.0) ** 0.85
    share = rng.permutation(share / share.sum())
    kind = rng.choice(5, n_partners, p=[0.22, 0.10, 0.36, 0.14, 0.18])
    region = rng.choice(8, n_partners, p=[0.2, 0.14, 0.16, 0.12, 0.1, 0.12, 0.1, 0.06])
    size = rng.normal(np.array([5.6, 6.2, 3.8, 4.6, 3.9])[kind], 0.8)
    tier = np.clip(np.rint(rng.normal(1.0 + 2.2 * (size - 4.4) / 4, 0.8)), 0, 3).astype(np.int64)
    customer_size = rng.normal(6.2, 1.5, n_customers)
    portfolio = np.maximum(2, np.rint(share * n_deals / 3.2)).astype(np.int64)
    pair_partner = np.repeat(np.arange(n_partners), portfolio)
    first_pair = np.concatenate([[0], np.cumsum(portfolio)[:-1]])
    pair_customer = rng.integers(0, n_customers, len(pair_partner))
    slot = np.arange(len(pair_partner)) - first_pair[pair_partner]
    knew_before = rng.random(len(pair_partner)) < 0.75 - 0.55 * slot / portfolio[pair_partner]
    since = np.where(
        knew_before,
        -rng.gamma(1.5, 3.0 * _YEAR_DAYS, len(pair_partner)),
        rng.uniform(0, 4 * _YEAR_DAYS, len(pair_partner)),
    )
    executive_share = np.array([0.55, 0.40, 0.18, 0.08, 0.22])[kind][pair_partner]
    return Market(
        partner_ids=_ids("P", n_partners),
        partner_type=kind,
        partner_tier=tier,
        partner_region=region,
        partner_employees=np.maximum(np.exp(size), 3.0),
        partner_skill=rng.normal(0, 0.25, n_partners),
        partner_help_gain=rng.normal(0, 0.20, n_partners),
        customer_ids=_ids("C", n_customers),
        customer_employees=np.maximum(np.exp(customer_size), 5.0),
        customer_region=rng.choice(8, n_customers, p=[0.2, 0.14, 0.16, 0.12, 0.1, 0.12, 0.1, 0.06]),
        customer_size_z=(customer_size - 6.2) / 1.5,
        pair_partner=pair_partner,
        pair_customer=pair_customer,
        pair_since_day=since,
        pair_executive=(rng.random(len(pair_partner)) < executive_share).astype(float),
        products=("Core", "Backup", "Network", "Security", "Cloud", "Edge AI"),
        product_share=np.array([0.28, 0.20, 0.18, 0.14, 0.12, 0.08]),
        product_complexity=np.array([2.2, 2.0, 2.8, 3.3, 3.5, 4.2]),
        product_novel=np.array([0.0, 0.0, 0.0, 0.0, 1.0, 1.0]),
        first_pair=first_pair,
        portfolio=portfolio,
        partner_share=np.asarray(share, dtype=float),
    )


def _ids(letter: str, n: int) -> NDArray[np.str_]:
    return np.char.add(letter, np.char.zfill(np.arange(n).astype(str), 6))

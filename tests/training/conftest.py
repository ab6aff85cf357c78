"""Worlds whose effects we planted."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray


@dataclass(frozen=True)
class World:
    """Decisions with their truth: arrays of shape (n,)."""

    X: pd.DataFrame
    treatment: NDArray[np.bool_]
    outcome: NDArray[np.float64]
    partner: NDArray[np.str_]
    uplift: NDArray[np.float64]
    propensity: NDArray[np.float64]


def planted_world(n: int, seed: int, effect: float = 1.0, numeric: bool = False, partners: int = 60) -> World:
    """Vendors join big, complex deals, which are won less often: the naive comparison has the wrong sign."""
    rng = np.random.default_rng(seed)
    size, tenure, noise = rng.normal(size=n), rng.exponential(2.0, n), rng.normal(size=n)
    complexity = rng.integers(1, 6, n).astype(float)
    stage = rng.choice(["a_qualify", "b_proposal", "c_closing"], n)
    first_sale = rng.random(n) < 0.4
    partner = rng.integers(0, partners, n)
    skill, gain = rng.normal(0, 0.06, partners)[partner], rng.normal(0, 0.02, partners)[partner]
    uplift = effect * (
        0.02
        + 0.10 * first_sale
        + 0.03 * (complexity - 3)
        - 0.05 * np.minimum(tenure, 3)
        + 0.06 * (stage == "b_proposal")
        + gain
    )
    base = 0.45 - 0.11 * size - 0.05 * (complexity - 3) - 0.08 * first_sale + skill
    propensity = 1 / (1 + np.exp(-(-0.6 + 0.9 * size + 0.45 * (complexity - 3) + 0.5 * first_sale)))
    treatment = rng.random(n) < propensity
    back, step_in = np.clip(base, 0.03, 0.97), np.clip(base + uplift, 0.03, 0.97)
    chance = np.where(treatment, step_in, back)
    outcome = (
        1000 * (chance + 0.3 * rng.normal(size=n)) if numeric else (rng.random(n) < chance).astype(float)
    )
    X = pd.DataFrame(
        {
            "size": size,
            "complexity": pd.Series(complexity).mask(rng.random(n) < 0.05),
            "tenure": tenure,
            "noise": noise,
            "first_sale": pd.array(first_sale, dtype="boolean"),
            "stage": pd.Categorical(stage),
            "partner": pd.Series(np.char.add("P", partner.astype(str))),
        }
    )
    scale = 1000.0 if numeric else 1.0
    return World(
        X, treatment, outcome, np.char.add("P", partner.astype(str)), scale * (step_in - back), propensity
    )


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return planted_world

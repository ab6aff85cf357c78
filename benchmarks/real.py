"""Real tables: covariates with a planted choice and effect, an e-mail trial, and a job-training trial."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.worlds import TEST_ROWS, Decisions, World, apart, sigmoid
from features import UserError, read_flat

Floats = NDArray[np.float64]


# A planted choice and effect on real covariates


def planted_on(path: Path, columns_file: Path, n: int, seed: int, n_test: int = TEST_ROWS) -> World:
    """A real table's features with a choice and an outcome that were drawn, so that the effect is known.

    The functions are the same for every seed; which rows are learned from, and what is drawn, is not. Choice
    and outcome of the file are read, but not used.

    Raises
    ------
    UserError
        The file holds no more than `n` rows.
    """
    table = read_flat(path, columns_file)
    X = table.X.reset_index(drop=True)
    if len(X) <= n:
        raise UserError(f"{path.name} has {len(X)} usable rows; ask for fewer than that, not {n}.")
    uplift, back, propensity = _planted(X)
    rng = np.random.default_rng(seed)
    treatment = rng.random(len(X)) < propensity
    outcome = (rng.random(len(X)) < back + treatment * uplift).astype(float)
    deals = table.rows["deal_id"].to_numpy(dtype=str)
    groups = np.asarray(table.groups)
    everything = Decisions(X, treatment, outcome, groups, deals, uplift, propensity)
    return apart(f"planted on {path.name.split('.')[0]}", everything, n, n_test, seed)


def _planted(X: pd.DataFrame) -> tuple[Floats, Floats, Floats]:
    """Effect, chance to win without the vendor, and chance that the vendor stepped in: shapes (n,).

    Columns take turns: some move the effect in steps, some in bends, the first two also together.
    """
    rng = np.random.default_rng(7)
    parts = [_scaled(X[name], rng) for name in X]
    hard = sum((rng.normal(0, 0.5) * part for part in parts), np.zeros(len(X)))
    effect = 0.02 + 0.05 * (parts[0] > 0.4) * (parts[1] > 0)
    for number, part in enumerate(parts):
        shape = np.tanh(2 * part) if number % 2 else (part > 0.5) - 0.3
        effect = effect + rng.normal(0, 0.04) * shape
    back = np.clip(sigmoid(-0.6 - hard), 0.03, 0.97)
    step_in = np.clip(back + effect, 0.01, 0.99)
    propensity = np.clip(sigmoid(-0.3 + hard + rng.normal(0, 0.4) * parts[0]), 0.03, 0.97)
    return step_in - back, back, propensity


def _scaled(column: pd.Series, rng: np.random.Generator) -> Floats:
    """Mean 0, standard deviation 1: a number's rank, or a draw for each level; missing is a level."""
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        values = column.rank(pct=True).fillna(0.5).to_numpy(dtype=float)
    else:
        _, level = np.unique(column.astype("string").fillna("").to_numpy(dtype=str), return_inverse=True)
        values = rng.normal(size=level.max() + 1)[level]
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-9))


# Hillstrom's e-mail trial (MineThatData 2008): the reader brings the file

_HILLSTROM = (
    "recency history_segment history mens womens zip_code newbie channel segment visit conversion spend"
)
HILLSTROM_PROPENSITY = 0.5


def hillstrom(path: Path, seed: int = 0) -> tuple[Decisions, Decisions]:
    """E-mail for women against none, by who visited: one half to learn from, the other to be judged on.

    The truth is not known (`uplift` is NaN); the choice was a coin's, which makes unbiased scores easy.

    Raises
    ------
    UserError
        Columns are missing, or one of the two groups is.
    """
    table = pd.read_csv(path, keep_default_na=False)
    missing = [name for name in _HILLSTROM.split() if name not in table]
    if missing:
        raise UserError(
            f"{path.name} lacks {', '.join(missing)}; expected Hillstrom's columns: {_HILLSTROM}."
        )
    table = table[table["segment"].isin(["Womens E-Mail", "No E-Mail"])].reset_index(drop=True)
    treatment = (table["segment"] == "Womens E-Mail").to_numpy()
    if treatment.all() or not treatment.any():
        raise UserError(f"{path.name} needs rows of both segments, 'Womens E-Mail' and 'No E-Mail'.")
    X = table[["recency", "history", "mens", "womens", "zip_code", "newbie", "channel"]].copy()
    X[["mens", "womens", "newbie"]] = X[["mens", "womens", "newbie"]].astype(bool).astype("boolean")
    X[["recency", "history"]] = X[["recency", "history"]].astype(float)
    X[["zip_code", "channel"]] = X[["zip_code", "channel"]].astype("category")
    everything = _without_groups(X, treatment, table["visit"].to_numpy(dtype=float))
    half = np.random.default_rng(seed).permutation(len(X)) < len(X) // 2
    return everything.take(half), everything.take(~half)


# LaLonde's job training, with the comparison group that no trial drew

_EARNINGS = ["age", "educ", "re74", "re75"]
_FLAGS = ["black", "hisp", "marr", "nodegree"]


def lalonde() -> tuple[Decisions, Decisions]:
    """NSW's treated among CPS's people, to learn from; and the trial itself, to be judged on.

    Outcome: earnings in 1978, dollars. Sources: LaLonde 1986; Dehejia & Wahba 1999 (the 445 of the trial with
    earnings of 1974 on record), as the package causaldata ships them.
    """
    from causaldata import cps_mixtape, nsw_mixtape

    trial, people = nsw_mixtape.load_pandas().data, cps_mixtape.load_pandas().data
    pooled = pd.concat([trial[trial["treat"] == 1], people[people["treat"] == 0]], ignore_index=True)
    return _of_lalonde(pooled), _of_lalonde(trial)


def _of_lalonde(table: pd.DataFrame) -> Decisions:
    X = pd.concat([table[_EARNINGS].astype(float), table[_FLAGS].astype(bool).astype("boolean")], axis=1)
    return _without_groups(
        X.reset_index(drop=True), table["treat"].to_numpy() == 1, table["re78"].to_numpy(dtype=float)
    )


def _without_groups(X: pd.DataFrame, treatment: NDArray[np.bool_], outcome: Floats) -> Decisions:
    own, unknown = np.arange(len(X)), np.full(len(X), np.nan)
    return Decisions(X, treatment, outcome, own, own, unknown, unknown)

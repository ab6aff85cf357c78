"""A choice that is settled by what is on record is refused; one that is only hard to compare is not."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from features import build_decisions
from features.decisions import DecisionTable
from features.simulator import simulate
from training import pipeline
from training.config import TrainingConfig
from training.gate import NotEnoughEvidenceError, refuse_no_overlap
from training.separation import open_choice
from training.uplift import cross_fit_for_judging


@pytest.fixture(scope="module")
def decisions():
    return build_decisions(simulate(1200, seed=4).tables)


def judged(decisions, treatment):
    """Whether it is refused: the sentence, or None."""
    table = replace(decisions, rows=decisions.rows.assign(stepped_in=treatment))
    with threadpool_limits(1):
        nuisances = cross_fit_for_judging(table.X, table.treatment, table.outcome, table.groups, 1, 1)
        try:
            refuse_no_overlap(table, nuisances.propensity)
        except NotEnoughEvidenceError as error:
            return str(error)
    return None


def big(decisions):
    return decisions.X["amount"].fillna(0).to_numpy() > 60_000


def weighted_sum(decisions):
    size = np.log(decisions.X["amount"].fillna(40_000).to_numpy()) - 10.6
    return 0.6 * size + decisions.X["deal_complexity"].fillna(3).to_numpy() - 3


def chance(decisions, strength):
    """Stepping in grows with the amount: at 0.8 by an AUC of about 0.7, at 2 by 0.87, at 4 by 0.95."""
    size = np.log(decisions.X["amount"].fillna(40_000).to_numpy()) - 10.6
    return 1 / (1 + np.exp(-strength * size))


SETTLED = {
    "deals above an amount": ("amount", lambda d, rng: big(d)),
    "one type of partner": ("partner_type", lambda d, rng: (d.X["partner_type"] == "si").to_numpy()),
    "some partners, all their deals": (
        "partner_id",
        lambda d, rng: d.X["partner_id"].cat.codes.to_numpy() % 3 == 0,
    ),
    "above an amount, one in fifty by mistake": (
        "amount",
        lambda d, rng: big(d) ^ (rng.random(len(d)) < 0.02),
    ),
    "a weighted sum of traits": ("deal_complexity", lambda d, rng: weighted_sum(d) > 0.3),
}


@pytest.mark.parametrize("kind", SETTLED)
def test_a_choice_settled_by_what_is_on_record_is_refused(decisions, kind):
    by, choose = SETTLED[kind]
    said = judged(decisions, choose(decisions, np.random.default_rng(0)))
    assert said is not None
    assert f"above all by '{by}'" in said
    share = float(re.search(r"At most ([\d.]+)%", said)[1])
    assert share < 12


OPEN = {
    "as usual": lambda d, rng: d.treatment,
    "strongly confounded": lambda d, rng: rng.random(len(d)) < chance(d, 2),
    "very strongly confounded": lambda d, rng: rng.random(len(d)) < chance(d, 4),
    "all above an amount, a fifth below": lambda d, rng: big(d) | (rng.random(len(d)) < 0.2),
    "open for a seventh, settled for the rest": lambda d, rng: np.where(
        np.abs(chance(d, 1) - 0.5) < 0.05, rng.random(len(d)) < 0.5, chance(d, 1) > 0.5
    ),
    "seldom and at random": lambda d, rng: rng.random(len(d)) < 0.04,
    "partners with habits": lambda d, rng: (
        rng.random(len(d)) < rng.permutation(np.linspace(0.1, 0.8, 24))[d.X["partner_id"].cat.codes % 24]
    ),
}


@pytest.mark.parametrize("kind", OPEN)
def test_a_choice_that_is_open_somewhere_is_not_refused(decisions, kind):
    assert judged(decisions, OPEN[kind](decisions, np.random.default_rng(0))) is None


def test_a_few_treated_who_resemble_a_part_of_the_others_are_answered():
    """Like LaLonde's: of 6,000 people one in seventy is treated, all among the young and poor."""
    rng = np.random.default_rng(0)
    n = 6000
    age, earned = rng.gamma(9, 4, n), rng.exponential(12_000, n) * (rng.random(n) < 0.85)
    near = (age < 32) & (earned < 4000)
    X = pd.DataFrame({"age": age, "earned": earned, "school": rng.integers(5, 17, n).astype(float)})
    treated = near & (rng.random(n) < 0.11)
    assert 0.01 < treated.mean() < 0.03
    rows = pd.DataFrame(
        {
            "deal_id": np.arange(n).astype(str),
            "partner_id": None,
            "stage": None,
            "decided_at": pd.Series(pd.NaT, range(n), "datetime64[us, UTC]"),
            "stepped_in": treated,
            "outcome": earned + rng.normal(0, 2000, n),
            "amount": np.nan,
        }
    )
    assert judged(DecisionTable(rows, X, {"outcome": "numeric"}), treated) is None


def test_training_stops_with_one_sentence_and_writes_nothing(decisions, tmp_path):
    settled = replace(decisions, rows=decisions.rows.assign(stepped_in=big(decisions)))
    with pytest.raises(NotEnoughEvidenceError, match="settled by what is on record, above all by 'amount'"):
        pipeline.train(settled, tmp_path / "model", TrainingConfig(draws=10, most_pairs=0, n_jobs=1))
    assert not (tmp_path / "model").exists()


def test_partners_seen_a_few_times_do_not_foretell_their_own_choices():
    """Told by the deals that are foretold, shares by partner would give all away."""
    rng = np.random.default_rng(0)
    n = 3000
    X = pd.DataFrame({"partner": rng.integers(0, 1500, n).astype(str), "size": rng.normal(size=n)})
    seen = open_choice(X, rng.random(n) < 0.4, np.full(n, 0.4), np.arange(n).astype(str))
    assert seen.left_open > 0.95
    assert not seen.is_settled

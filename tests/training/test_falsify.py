"""The questions whose answer is nothing: nothing where all is well, something where it is not."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from features import build_decisions
from features.simulator import simulate
from training import falsify as questions
from training.falsify import Machinery, falsify, future_involvement, negative_control, placebo

MACHINERY = Machinery(seed=1)


@pytest.fixture(scope="module")
def decisions():
    return build_decisions(simulate(3000, seed=5).tables)


def moved_slowly(decisions):
    """Whether more time than usual had passed since the deal's decision before, shape (n,)."""
    rows = decisions.rows.sort_values(["deal_id", "decided_at"])
    gap = rows.groupby("deal_id")["decided_at"].diff().dt.total_seconds()
    slow = gap > gap.groupby(rows["stage"]).transform("median")
    return slow.reindex(decisions.rows.index).to_numpy(dtype=bool)


def one_placebo(decisions, machinery):
    return placebo(decisions, machinery, permutations=1)


def with_choice(decisions, treatment):
    return replace(decisions, rows=decisions.rows.assign(stepped_in=treatment))


def test_where_vendors_choose_by_what_is_on_record_all_three_hold(decisions):
    found = falsify(decisions, MACHINERY)
    assert list(found) == ["placebo", "negative_control", "future_involvement"]
    for answer in found.values():
        assert answer["holds"]
        assert abs(answer["estimate"]["value"]) < 0.04
        assert answer["why_not"] is None
    assert found["placebo"]["held"] >= 2
    assert found["negative_control"]["n"] > 2 * found["future_involvement"]["n"] > 1000


@pytest.mark.parametrize("question", [negative_control, future_involvement])
def test_vendors_drawn_by_slow_deals_are_found_out(decisions, question):
    rng = np.random.default_rng(0)
    drawn = moved_slowly(decisions) & (rng.random(len(decisions)) < 0.2)
    answer = question(with_choice(decisions, decisions.treatment | drawn), MACHINERY)
    assert not answer["holds"]
    assert answer["estimate"]["hi"] < -0.03


def test_a_placebo_is_no_effect_where_the_true_choice_has_one(decisions):
    """Each choice decides its outcome here; dealt out anew, the choices decide nothing."""
    told = np.where(np.random.default_rng(0).random(len(decisions)) < 0.8, decisions.treatment, 0.0)
    sure = replace(decisions, rows=decisions.rows.assign(outcome=told))
    assert MACHINERY.average(sure.X, sure.treatment, sure.outcome, sure.groups).lo > 0.5
    answer = placebo(sure, MACHINERY, permutations=2)
    assert (answer["held"], answer["holds"]) == (2, True)


def test_choices_are_dealt_out_within_partner_and_stage(decisions):
    within = questions._strata(decisions)
    dealt = questions._permuted(decisions.treatment, within, np.random.default_rng(0))
    counts = [np.bincount(within, weights=choice) for choice in (decisions.treatment, dealt)]
    assert counts[0].tolist() == counts[1].tolist()
    assert (dealt != decisions.treatment).mean() > 0.2


def test_the_answers_do_not_depend_on_the_order_of_the_rows(decisions, monkeypatch):
    monkeypatch.setattr(questions, "MOST_ROWS", 900)
    mixed = np.random.default_rng(0).permutation(len(decisions))
    shuffled = replace(decisions, rows=decisions.rows.iloc[mixed], features=decisions.features.iloc[mixed])
    for question in (negative_control, future_involvement, one_placebo):
        first, second = question(decisions, MACHINERY), question(shuffled, MACHINERY)
        assert first["n"] == second["n"] <= 900
        assert first["estimate"]["value"] == pytest.approx(second["estimate"]["value"], abs=1e-9)


@pytest.mark.parametrize(
    ("kept", "n_asked", "why_not"),
    [
        (100, "placebo", "100 decisions are too few"),
        (300, "negative_control", "too few, or nearly all alike"),
    ],
)
def test_too_few_decisions_are_not_asked(decisions, kept, n_asked, why_not):
    few = decisions.take(np.arange(len(decisions)) < kept)
    answer = falsify(few, MACHINERY)[n_asked]
    assert (answer["estimate"], answer["holds"]) == (None, None)
    assert why_not in answer["why_not"]


def test_where_help_is_rare_no_placebo_is_claimed_to_hold(decisions):
    few = decisions.take(np.arange(len(decisions)) < 1500)
    rare = with_choice(few, np.random.default_rng(0).random(1500) < 0.01)
    answer = placebo(rare, MACHINERY, permutations=1)
    assert (answer["estimate"], answer["holds"]) == (None, None)
    assert answer["why_not"] == "too few decisions in which either choice had a chance"


def test_a_flat_table_is_told_why_it_is_not_asked(decisions):
    rows = decisions.rows.assign(decided_at=pd.Series(pd.NaT, decisions.rows.index, "datetime64[us, UTC]"))
    flat = replace(decisions, rows=rows, about=decisions.about | {"kind": "flat"})
    assert negative_control(flat, MACHINERY)["why_not"] == (
        "it is not known which columns of a flat file carry the deal's past pace"
    )
    assert future_involvement(flat, MACHINERY)["why_not"] == "the decisions have no dates"

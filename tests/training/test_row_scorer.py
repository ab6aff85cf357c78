"""One decision at a time, and a batch, say what `Scorecard.evaluate` says, whatever the values."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.basis import BOOLEAN, NUMBER, Feature
from training.batch_scorer import BatchScorer
from training.row_scorer import RowScorer
from training.scorecard import Cells, Pair, Scorecard, Support
from training.stacked import Stacked

N_DRAWS = 30
STAGES = ("early", "late", "middle")


def number(name, *knots):
    return Feature(name, "number", np.array(knots), np.linspace(-1, 1, len(knots)), (), True)


def levels(name, kind, *names):
    return Feature(name, kind, np.empty(0), np.empty(0), names, True)


FEATURES = (
    number("amount", *np.cumsum(np.random.default_rng(3).exponential(size=33))),
    levels("stage", "category", *STAGES),
    number("two", 0.0, 1e-9),
    number("one", 5.0),
    levels("first", "boolean", "false", "true"),
    levels("partner", "category", *(f"P{i}" for i in range(40))),
    number("count", 0.0, 1.0, 2.0, 7.0),
    levels("region", "category", "north", "south"),
)
AT = {feature.name: i for i, feature in enumerate(FEATURES)}
PAIRS = (("amount", "count"), ("amount", "stage"), ("stage", "first"), ("first", "region"))


def make_card(scale=0.02, binary=True, pairs=PAIRS, features=FEATURES, seed=0):
    """Random tables: every row has an effect, draws, a doubt, and a part in outcome and propensity."""
    rng = np.random.default_rng(seed)
    at = {feature.name: i for i, feature in enumerate(features)}
    in_pairs = {name for pair in pairs for name in pair}
    k = [(2 if f.kind == NUMBER else 1 + (f.kind == "category")) * (f.name in in_pairs) for f in features]
    low = tuple(rng.normal(size=(f.n_rows, n)) for f, n in zip(features, k, strict=True))
    terms = [(at[a], at[b]) for a, b in pairs]
    cells = tuple(at[name] for name in ("stage", "first", "region") if name in at)
    shape = (*(features[i].n_rows for i in cells), 2)
    return Scorecard(
        features=tuple(features),
        binary=binary,
        heterogeneous=True,
        baseline=rng.normal(scale=scale, size=1 + N_DRAWS),
        effect=tuple(rng.normal(scale=scale, size=(f.n_rows, 1 + N_DRAWS)) for f in features),
        low=low,
        pairs=tuple(Pair(a, b, rng.normal(scale=scale, size=(k[a], k[b], 1 + N_DRAWS))) for a, b in terms),
        doubt=tuple(rng.exponential(1e-4, f.n_rows) for f in features),
        misfit_variance=1e-4,
        outcome_intercept=-0.3,
        outcome=tuple(rng.normal(size=f.n_rows) for f in features),
        propensity_intercept=-0.5,
        propensity=tuple(rng.normal(size=f.n_rows) for f in features),
        cells=Cells(cells, rng.integers(5, 60, shape), ((at["partner"], 7), (at["stage"], 1))),
        support_rule=Support(),
        importance=(0.01,) * (len(features) + len(pairs)),
    )


def value_of(feature):
    """Missing, seen, at a knot, between two, beyond both ends, never seen."""
    if feature.kind == NUMBER:
        inside = st.floats(float(feature.knots[0]), float(feature.knots[-1]))
        anything = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**80), 2**80)
        return st.none() | st.sampled_from(feature.knots.tolist()) | inside | anything
    if feature.kind == BOOLEAN:
        return st.none() | st.booleans()
    return st.none() | st.sampled_from(feature.levels) | st.text(max_size=3)


DECISIONS = st.fixed_dictionaries({}, optional={f.name: value_of(f) for f in FEATURES})
CARDS = {
    "pairs": make_card(),
    "no pairs": make_card(pairs=(), seed=1),
    "absurd": make_card(scale=0.4, seed=2),
    "numeric": make_card(scale=3.0, binary=False, seed=3),
    "average only": make_card(seed=4).average_only(0.03, 0.01),
    "nothing known": make_card(seed=5).average_only(0.03, 0.01, enough=False),
    "certain": replace(make_card(seed=6).average_only(0.03, 0.0), misfit_variance=0.0),
}
each_card = pytest.mark.parametrize("card", CARDS.values(), ids=CARDS)
NUMBERS = ("uplift", "sd", "win_if_step_back", "win_if_step_in", "propensity")


def assert_scored(scored, told):
    for name in NUMBERS:
        assert getattr(scored, name) == pytest.approx(getattr(told, name), abs=1e-12, rel=1e-12), name
    assert (scored.supported, scored.similar) == (told.supported, told.similar_decisions)


@each_card
@given(values=DECISIONS, elsewhere=st.lists(st.sampled_from([*STAGES, "never seen"]), max_size=3))
@settings(max_examples=40, deadline=None)
def test_one_decision_is_answered_as_the_scorecard_answers_it(card, values, elsewhere):
    row = RowScorer(Stacked.of(card), "stage").score(values, elsewhere)
    told = card.evaluate_one(values)
    assert_scored(row.here, told)
    contributions = [each.uplift for each in told.contributions]
    np.testing.assert_allclose(row.terms, contributions, rtol=1e-12, atol=1e-12)
    assert (tuple(row.missing), tuple(row.unseen)) == (told.missing, told.unseen)
    assert len(row.elsewhere) == len(elsewhere)
    for stage, scored in zip(elsewhere, row.elsewhere, strict=True):
        there = card.evaluate_one({**values, "stage": stage})
        assert scored[:2] == pytest.approx((there.uplift, there.sd), abs=1e-12, rel=1e-12)
        assert scored.supported == there.supported


@each_card
@given(values=DECISIONS)
@settings(max_examples=20, deadline=None)
def test_without_a_moving_feature_the_answer_is_the_same(card, values):
    row = RowScorer(Stacked.of(card)).score(values)
    assert_scored(row.here, card.evaluate_one(values))
    assert row.elsewhere == []


def test_a_scorer_answers_alike_after_any_other_decision():
    scorer = RowScorer(Stacked.of(CARDS["pairs"]), "stage")
    values = {"amount": 3.0, "stage": "late", "first": True}
    first = scorer.score(values, ["early"])
    scorer.score({"amount": -1.0, "partner": "P7"}, ["late", "never seen"])
    again = scorer.score(values, ["early"])
    assert (again.here, again.elsewhere) == (first.here, first.elsewhere)
    assert again.terms == first.terms


def test_the_cases_reach_both_sides_of_every_rule():
    rng = np.random.default_rng(0)
    card = CARDS["absurd"]
    deals = [{"amount": float(rng.uniform(0, 40)), "partner": f"P{rng.integers(45)}"} for _ in range(300)]
    answers = [RowScorer(Stacked.of(card), "stage").score(deal, STAGES).elsewhere for deal in deals]
    assert {each.supported for scored in answers for each in scored} == {True, False}
    assert {abs(each.uplift) == 1 for scored in answers for each in scored} == {True, False}


# Many at once


@each_card
@given(decisions=st.lists(DECISIONS, min_size=1, max_size=4))
@settings(max_examples=20, deadline=None)
def test_a_batch_is_answered_as_the_scorecard_answers_each(card, decisions):
    elsewhere = [*STAGES, "never seen"]
    batch = BatchScorer(Stacked.of(card), "stage", elsewhere).score(decisions)
    for i, values in enumerate(decisions):
        told = card.evaluate_one(values)
        for j, stage in enumerate([values.get("stage"), *elsewhere]):
            there = card.evaluate_one({**values, "stage": stage})
            assert batch.uplift[i, j] == pytest.approx(there.uplift, abs=1e-12, rel=1e-12)
            assert batch.sd[i, j] == pytest.approx(there.sd, abs=1e-12, rel=1e-12)
            assert batch.supported[i, j] == there.supported
        assert batch.win[i] == pytest.approx(
            (told.win_if_step_back, told.win_if_step_in), abs=1e-12, rel=1e-12
        )
        assert batch.propensity[i] == pytest.approx(told.propensity, abs=1e-12)
        assert batch.similar[i] == told.similar_decisions
        contributions = [each.uplift for each in told.contributions]
        np.testing.assert_allclose(batch.terms[i], contributions, rtol=1e-12, atol=1e-12)
        names = np.array([feature.name for feature in FEATURES])
        assert tuple(names[batch.missing[i]]) == told.missing
        assert tuple(names[batch.unseen[i]]) == told.unseen


@given(decisions=st.lists(DECISIONS, min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_without_a_moving_feature_a_batch_is_answered_the_same(decisions):
    card = CARDS["pairs"]
    batch = BatchScorer(Stacked.of(card)).score(decisions)
    told = [card.evaluate_one(values) for values in decisions]
    np.testing.assert_allclose(batch.uplift[:, 0], [each.uplift for each in told], rtol=0, atol=1e-12)
    np.testing.assert_allclose(batch.sd[:, 0], [each.sd for each in told], rtol=0, atol=1e-12)
    assert batch.supported[:, 0].tolist() == [each.supported for each in told]
    assert batch.similar.tolist() == [each.similar_decisions for each in told]


def test_a_batch_of_many_chunks_is_answered_as_one_by_one():
    rng = np.random.default_rng(0)
    card, n = CARDS["pairs"], 600
    amount, stages = rng.uniform(-1, 40, n), rng.choice([*STAGES, "never seen"], n)
    decisions = [{"amount": float(a), "stage": str(s)} for a, s in zip(amount, stages, strict=True)]
    batch = BatchScorer(Stacked.of(card), "stage", STAGES).score(decisions)
    one = RowScorer(Stacked.of(card), "stage")
    for i, values in enumerate(decisions):
        row = one.score(values, STAGES)
        expected = [(row.here.uplift, row.here.sd), *(there[:2] for there in row.elsewhere)]
        np.testing.assert_allclose(np.c_[batch.uplift[i], batch.sd[i]], expected, rtol=0, atol=1e-12)

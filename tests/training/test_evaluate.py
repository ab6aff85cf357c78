import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from training.calibration import (
    best_linear_predictor,
    calibration_by_fifth,
    calibration_slope,
    less_loss,
)
from training.claims import compare_claims, decompose, ever_against_never
from training.clustered import difference, mean
from training.evaluate import HeldOut, judge
from training.policy import Policy
from training.verdict import amount
from training.worth import compare, first_ones, policy_value


def planted(n=6000, partners=60, effect=None, seed=3):
    """Decisions with known effects: big deals are joined more and won less; the true nuisances."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    groups = rng.integers(0, partners, n)
    skill = rng.normal(0, 0.05, partners)[groups]
    tau = (0.05 + 0.15 * x) if effect is None else np.full(n, effect)
    size = rng.uniform(0, 1, n)
    base = np.clip(0.5 - 0.35 * size + skill, 0.02, 0.75)
    propensity = 0.15 + 0.7 * size
    treatment = rng.random(n) < propensity
    outcome = (rng.random(n) < np.where(treatment, np.clip(base + tau, 0, 1), base)).astype(float)
    back, both = base, np.clip(base + tau, 0, 1)
    phi = both - back + treatment * (outcome - both) / propensity
    phi -= ~treatment * (outcome - back) / (1 - propensity)
    return x, both - back, phi, treatment, outcome, groups, propensity, back


def held_out(uplift=None, sd=0.02, effect=None, seed=3, n=6000, **more):
    x, tau, phi, treatment, outcome, groups, propensity, back = planted(n=n, effect=effect, seed=seed)
    said = tau if uplift is None else uplift(x)
    defaults = {"supported": np.ones(len(x), dtype=bool), "propensity": propensity, "step_back": back}
    return HeldOut(
        phi=phi,
        uplift=said,
        sd=np.full(len(x), sd),
        treatment=treatment,
        outcome=outcome,
        groups=groups,
        **{**defaults, **more},
    )


# --- intervals that know their partners


def test_one_dominant_partner_widens_the_interval():
    rng = np.random.default_rng(10)
    phi = rng.normal(size=1000)
    even, lopsided = np.repeat(np.arange(20), 50), np.minimum(np.arange(1000) // 10, 50)
    assert mean(phi, lopsided).df < 10 < mean(phi, even).df == pytest.approx(19)


def test_with_equal_partners_the_error_is_that_of_the_partner_means():
    rng = np.random.default_rng(12)
    phi, groups = rng.normal(size=120), np.repeat(np.arange(12), 10)
    means = phi.reshape(12, 10).mean(axis=1)
    found = mean(phi, groups)
    assert found.se == pytest.approx(means.std(ddof=1) / math.sqrt(12))
    assert found.hi - found.value == pytest.approx(2.200985160082949 * found.se)  # t with 11 d.f.


@pytest.mark.parametrize("groups", [[], ["a"] * 5])
def test_without_two_partners_nothing_is_claimed(groups):
    found = mean(np.ones(len(groups)), groups)
    assert (found.lo, found.hi) == (-math.inf, math.inf)
    assert found.p_positive == 1
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["lo"] is None


def test_row_order_and_names_of_partners_do_not_matter():
    _, _, _, treatment, outcome, groups, *_ = planted(n=500)
    order = np.random.default_rng(0).permutation(500)
    named = np.array([f"partner {group:03d}" for group in groups])
    first = difference(outcome, treatment, groups)
    again = difference(outcome[order], treatment[order], named[order])
    assert (again.value, again.se) == pytest.approx((first.value, first.se))


# --- effects


def test_the_adjusted_average_finds_the_effect_and_the_naive_difference_has_the_wrong_sign():
    _, tau, phi, treatment, outcome, groups, *_ = planted(n=20_000)
    average, naive = mean(phi, groups), difference(outcome, treatment, groups)
    assert average.contains(tau.mean())
    assert average.lo > 0 > naive.hi


def test_naive_difference_is_the_difference_of_the_means():
    found = difference([1, 0, 1, 0, 0], [True, True, False, False, False], ["a", "b", "a", "b", "c"])
    assert found.value == pytest.approx(1 / 2 - 1 / 3)
    assert math.isnan(difference([1, 0], [True, True], ["a", "b"]).value)


@pytest.mark.parametrize(("stretch", "slope"), [(1.0, 1.0), (2.0, 0.5), (0.5, 2.0)])
def test_the_slope_says_how_much_differences_are_overstated(stretch, slope):
    x, _, phi, _, _, groups, *_ = planted(n=30_000)
    found = calibration_slope(stretch * 0.15 * x, phi, groups)
    assert found.contains(slope)
    assert found.se < 0.15 * slope


def test_fifths_hold_equal_numbers_and_the_planted_effects():
    _, tau, *_, groups, _, _ = planted()
    noise = np.random.default_rng(0).normal(0, 0.2, len(tau))
    table = calibration_by_fifth(tau, tau + noise, groups)
    assert list(table["fifth"]) == [1, 2, 3, 4, 5]
    assert set(table["n"]) == {1_200}
    assert np.all(np.abs(table["predicted"] - np.array([-0.065, -0.01, 0.05, 0.11, 0.17])) < 0.015)
    assert np.all(np.abs(table["observed"] - table["predicted"]) < 0.02)
    assert np.all((table["hi"] - table["lo"]).between(0.015, 0.035))


def test_equal_predictions_share_one_fifth():
    table = calibration_by_fifth(np.full(40, 0.1), np.ones(40), np.arange(40))
    assert table[["fifth", "n"]].to_numpy().tolist() == [[3, 40]]


def in_blocks(x, n_blocks=3):
    """Blocks whose models say the same in other words: stretched, and shifted."""
    blocks = np.arange(len(x)) % n_blocks
    return blocks, 0.15 * x + 0.3 * blocks


def test_fifths_and_slopes_are_taken_within_blocks():
    x, tau, phi, _, _, groups, *_ = planted(n=9_000)
    blocks, said = in_blocks(x)
    alone, within = calibration_by_fifth(tau, phi, groups), calibration_by_fifth(said, phi, groups, blocks)
    assert np.all(np.abs(within["observed"] - alone["observed"]) < 0.03)
    assert set(within["n"]) == {1_800}
    assert calibration_slope(said, phi, groups, blocks).contains(1)
    assert calibration_slope(said, phi, groups).hi < 0.5
    assert best_linear_predictor(said, phi, groups, blocks)["difference"].contains(1)
    assert best_linear_predictor(said, phi, groups)["difference"].hi < 0.5


@pytest.mark.parametrize(("level", "stretch"), [(1.0, 1.0), (2.0, 1.0), (1.0, 2.0)])
def test_the_best_linear_predictor_tells_level_from_differences(level, stretch):
    x, _, phi, _, _, groups, *_ = planted(n=30_000)
    found = best_linear_predictor(level * 0.05 + stretch * 0.15 * x, phi, groups)
    assert found["mean"].contains(1 / level)
    assert found["difference"].contains(1 / stretch)
    assert found["difference"].p_positive < 1e-6
    assert found["mean"].se < 0.3


def test_the_best_linear_predictor_has_no_say_where_nothing_differs():
    phi, groups = np.random.default_rng(0).normal(size=200), np.arange(200) % 20
    found = best_linear_predictor(np.full(200, 0.1), phi, groups)
    assert math.isfinite(found["mean"].value)
    assert found["difference"].p_positive == 1
    assert math.isnan(best_linear_predictor(np.zeros(200), phi, groups)["mean"].value)


# --- what the naive difference is made of


def test_the_naive_difference_is_the_effect_and_two_kinds_of_picking():
    _, tau, phi, treatment, outcome, groups, propensity, back = planted(n=40_000)
    parts = decompose(treatment, outcome, phi, propensity, back, groups)
    naive = difference(outcome, treatment, groups).value
    assert sum(part.value for part in parts.values()) == pytest.approx(naive, abs=1e-12)
    truth = {
        "adjusted": tau.mean(),
        "baseline": back[treatment].mean() - back[~treatment].mean(),
        "gain": tau[treatment].mean() - tau.mean(),
    }
    for name, part in parts.items():
        assert part.contains(truth[name]), name
        assert part.se < 0.012, name
    assert parts["baseline"].hi < 0


def test_picking_by_gain_is_told_from_picking_by_chance():
    """Joined where it helps, by people who know; the chance without them is alike everywhere."""
    rng = np.random.default_rng(5)
    n = 40_000
    tau, groups = rng.uniform(-0.2, 0.3, n), rng.integers(0, 60, n)
    propensity, back = 0.5 + tau, np.full(n, 0.4)
    treatment = rng.random(n) < propensity
    outcome = (rng.random(n) < back + tau * treatment).astype(float)
    phi = tau + treatment * (outcome - back - tau) / propensity
    phi -= ~treatment * (outcome - back) / (1 - propensity)
    for wrong in (np.full(n, 0.4), np.full(n, 0.55)):  # the propensity makes a wrong outcome model good
        parts = decompose(treatment, outcome, phi, propensity, wrong, groups)
        assert parts["gain"].contains(tau[treatment].mean() - tau.mean())
        assert parts["gain"].lo > 0.02
        assert parts["baseline"].contains(0)


# --- against one number for all


def test_the_loss_says_who_is_nearer_to_the_truth():
    _, tau, phi, _, _, groups, *_ = planted(n=20_000)
    other = np.full(len(tau), tau.mean())
    found = less_loss(tau, other, phi, groups)
    assert found.contains(-np.var(tau))
    assert found.hi < 0
    assert less_loss(3 * tau, other, phi, groups).lo > 0
    assert less_loss(tau, tau, phi, groups).value == 0


def test_a_model_that_ranks_well_but_says_far_too_much_is_not_served():
    found = judge(held_out(uplift=lambda x: 0.05 + 0.6 * x))
    assert found.autoc.p_positive < 0.001
    assert found.less_loss["constant"].value > 0
    assert not found.heterogeneous


def test_the_constant_may_differ_by_block_and_is_what_the_model_must_beat():
    held = held_out(n=9_000)
    blocks, said = in_blocks((held.uplift - 0.05) / 0.15)
    found = judge(replace(held, uplift=said, blocks=blocks), constant=(0.05 + 0 * said, 0.02))
    assert not found.heterogeneous  # each model ranks well, but two of the three are far off
    assert found.autoc.p_positive < 0.001
    right = judge(replace(held, blocks=blocks), constant=(0.05, 0.02))
    assert right.heterogeneous
    assert right.loss["model"] < right.loss["constant"] < right.loss["zero"]
    assert right.less_loss["constant"].value == pytest.approx(right.loss["model"] - right.loss["constant"])


# --- the worth of the advice


def test_the_value_of_a_rule_is_its_held_out_gain_less_its_cost():
    phi, groups = np.array([0.2, -0.1, 0.3, 0.0]), np.array(["a", "b", "c", "d"])
    acts = np.array([True, False, True, False])
    assert policy_value(phi, acts, 0.03, groups).value == pytest.approx((0.17 + 0.27) / 4)
    against = compare(phi, acts, np.ones(4, dtype=bool), 0.03, groups)
    assert against.value == pytest.approx(-(-0.13 - 0.03) / 4)


def test_pairing_makes_the_comparison_of_alike_rules_sharp():
    x, tau, phi, _, _, groups, *_ = planted(n=10_000)
    nearly = tau > 0.03
    almost = nearly ^ (np.arange(len(x)) % 50 == 0)
    apart = math.hypot(policy_value(phi, nearly, 0.03, groups).se, policy_value(phi, almost, 0.03, groups).se)
    assert compare(phi, nearly, almost, 0.03, groups).se < apart / 3


def test_following_good_advice_beats_always_never_and_people():
    verdict = judge(held_out(n=20_000))
    for name in ("always", "never", "people"):
        assert verdict.gain[name].lo > 0, name
    _, tau, *_ = planted(n=20_000)
    acts = Policy().advise(tau, 0.02).advice == "step_in"
    assert verdict.value["advice"].contains(np.mean(acts * (tau - 0.03)))


def test_what_people_did_is_valued_from_what_came_of_it():
    held = held_out(n=20_000)
    _, tau, _, treatment, *_ = planted(n=20_000)
    truth = np.mean(treatment * (tau - 0.03))
    assert judge(held).value["people"].contains(truth)
    # a wrong outcome model is made good by the propensity
    off = held_out(n=20_000, step_back=np.clip(held.step_back + 0.1, 0, 1))
    assert judge(off).value["people"].contains(truth)


def test_first_come_the_highest_as_many_as_the_advice_takes_in_each_block():
    order = np.array([5.0, np.nan, 7.0, 1.0, 9.0, 2.0])
    acts = np.array([True, False, False, True, True, False])
    blocks = np.array([0, 0, 0, 1, 1, 1])
    assert first_ones(order, acts, blocks).tolist() == [0, 0, 1, 0, 1, 1]
    assert first_ones(order, acts).tolist() == [1, 0, 1, 0, 1, 0]
    assert first_ones(np.array([3.0, 3.0, 3.0, np.nan]), np.array([True] * 2 + [False] * 2)).tolist() == [
        *[pytest.approx(2 / 3)] * 3,
        0,
    ]
    assert first_ones(order, np.zeros(6, dtype=bool)).tolist() == [0] * 6


def test_the_advice_beats_the_biggest_and_the_likeliest_first_where_size_says_nothing_of_the_effect():
    held = held_out(n=20_000)
    size = np.random.default_rng(1).lognormal(10, 1, 20_000)
    found = judge(replace(held, amount=size, chance=held.step_back))
    _, tau, *_ = planted(n=20_000)
    acts = Policy().advise(tau, 0.02).advice == "step_in"
    for name in ("biggest", "likeliest"):
        assert found.gain[name].lo > 0.02, name
        assert found.value[name].contains(acts.mean() * (tau.mean() - 0.03))
    assert not {"biggest", "likeliest"} & set(judge(held).gain)


# --- the judgement


def test_effects_that_differ_are_seen():
    found = judge(held_out())
    assert found.heterogeneous
    assert found.evidence == "differing"
    assert found.slope.contains(1)
    assert found.verdict.startswith("Stepping in helps some deals more than others: +")


@pytest.mark.parametrize(
    ("effect", "n", "evidence", "opening"),
    [
        (0.10, 3000, "average_only", "Stepping in changes the chance of winning by +"),
        (-0.05, 3000, "average_only", "Stepping in changes the chance of winning by -"),
        (
            0.015,
            600,
            "not_enough",
            "The evidence is not enough: stepping in changes the chance of winning by +",
        ),
    ],
)
def test_one_effect_for_all_is_called_one_effect(effect, n, evidence, opening):
    found = judge(held_out(uplift=lambda x: 0.05 * x, effect=effect, seed=1, n=n))
    assert not found.heterogeneous
    assert found.evidence == evidence
    assert found.verdict.startswith(opening)


def test_constant_worlds_are_rarely_called_different():
    called = [
        judge(held_out(uplift=lambda x: 0.1 * x, effect=0.05, seed=seed, n=600)).heterogeneous
        for seed in range(100)
    ]
    assert np.mean(called) <= 0.11  # 5% promised; more than 11 of 100 has a chance below 0.5%


def test_a_ranking_upside_down_is_not_evidence():
    assert not judge(held_out(uplift=lambda x: -0.15 * x)).heterogeneous


def test_where_differences_are_not_shown_the_average_is_what_is_judged():
    held = held_out(uplift=lambda x: 0.2 * x, effect=0.10, seed=1, n=3000)
    found = judge(held, constant=(0.10, 0.01))
    assert found.advice_shares["step_in"] == 1
    assert found.gain["always"].value == 0


def test_unsupported_decisions_are_counted_and_kept_out():
    held = held_out()
    supported = np.arange(len(held.phi)) % 3 > 0
    phi = np.where(supported, held.phi, 1e6)
    found = judge(_with(held, supported, phi))
    assert (found.n, found.n_unsupported) == (4000, 2000)
    assert abs(found.average.value) < 1


def _with(held, supported, phi):
    return HeldOut(
        phi=phi,
        uplift=held.uplift,
        sd=held.sd,
        supported=supported,
        treatment=held.treatment,
        outcome=held.outcome,
        groups=held.groups,
    )


def test_with_nothing_supported_it_says_so():
    held = held_out()
    found = judge(_with(held, np.zeros(len(held.phi), dtype=bool), held.phi))
    assert found.evidence == "not_enough"
    assert found.verdict == "The evidence is not enough: 0 comparable held-out decisions of 0 partners."


def test_the_judgement_is_plain_json():
    for held in (held_out(n=400), _with(held_out(n=10), np.zeros(10, dtype=bool), np.zeros(10))):
        found = judge(held)
        assert set(json.loads(json.dumps(found.to_dict(), allow_nan=False))) >= {
            "verdict",
            "heterogeneous",
            "gain",
        }
        assert all(math.isfinite(number) for number in found.metrics().values())


@pytest.mark.parametrize(
    ("value", "outcome", "words"),
    [
        (0.0234, "binary", "+2.3 points"),
        (-0.031, "binary", "-3.1 points"),
        (-0.0004, "binary", "0.0 points"),
        (1234.5, "numeric", "+1,234"),
        (0.123, "numeric", "+0.123"),
        (-25_000.0, "numeric", "-25,000"),
    ],
)
def test_an_effect_in_words_has_its_sign_and_unit(value, outcome, words):
    assert amount(value, outcome) == words


# --- what simpler comparisons would have claimed


def test_ever_against_never_credits_waiting_time_to_the_vendor():
    rng = np.random.default_rng(11)
    rows = []
    for deal in range(3000):  # help does nothing; deals that live long are won more
        stages = int(rng.integers(1, 7))
        won = rng.random() < 0.1 + 0.12 * stages
        rows += [(deal, deal % 40, rng.random() < 0.25, float(won)) for _ in range(stages)]
    table = pd.DataFrame(rows, columns=["deal", "partner", "joined", "won"])
    phi = np.random.default_rng(0).normal(0, 0.1, len(table))
    ever, naive, adjusted = compare_claims(
        table["joined"], table["won"], phi, table["partner"], table["deal"]
    )
    assert ever.estimate.lo > 0.10
    assert abs(naive.estimate.value) < 0.03
    assert adjusted.estimate.contains(0)


def test_flat_tables_have_no_ever_against_never():
    _, _, phi, treatment, outcome, groups, *_ = planted(n=300)
    assert len(compare_claims(treatment, outcome, phi, groups)) == 2


def test_all_closed_deals_are_compared_where_they_were_counted():
    _, _, phi, treatment, outcome, groups, *_ = planted(n=300)
    about = {"ever_against_never": {"partners": [[10, 6, 20, 5], [30, 12, 10, 2], [0, 0, 5, 5]]}}
    ever, counts = ever_against_never(about)
    assert counts == {"joined": 40, "won_joined": 18, "left": 35, "won_left": 12}
    assert ever.value == pytest.approx(18 / 40 - 12 / 35)
    first, *_ = compare_claims(treatment, outcome, phi, groups, ever=ever)
    assert first.estimate == ever


@pytest.mark.parametrize("said", [{}, {"ever_against_never": None}, {"ever_against_never": {"partners": []}}])
def test_without_counts_of_both_there_is_nothing_to_compare(said):
    assert ever_against_never(said) is None
    assert ever_against_never({"ever_against_never": {"partners": [[0, 0, 5, 5]]}}) is None

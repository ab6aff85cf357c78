import ast
import math
import re
from pathlib import Path

import numpy as np
import pytest

from features.problems import UserError
from training import policy as policy_module
from training.policy import Policy


@pytest.mark.parametrize(
    ("uplift", "sd", "supported", "expected"),
    [
        (0.10, 0.02, True, "step_in"),
        (0.03, 0.02, True, "too_close_to_call"),
        (-0.05, 0.02, True, "step_back"),
        (0.10, 0.02, False, "not_enough_evidence"),
        (-0.05, 0.02, False, "not_enough_evidence"),
        (0.05, 0.15, True, "not_enough_evidence"),  # 90% interval +-25 points and undecided
        (0.30, 0.15, True, "step_in"),  # as wide, but clear
        (0.05, 0.10, True, "too_close_to_call"),  # +-16 points
        (math.nan, 0.02, True, "not_enough_evidence"),
        (0.05, 0.0, True, "step_in"),
        (0.03, 0.0, True, "too_close_to_call"),
    ],
)
def test_advice_follows_from_uplift_doubt_and_support(uplift, sd, supported, expected):
    answer = Policy().advise(uplift, sd, supported=supported)
    assert answer.advice.tolist() == [expected]
    assert answer.default_action_applied.tolist() == [
        expected in ("too_close_to_call", "not_enough_evidence")
    ]


def test_the_score_is_the_chance_that_the_gain_beats_the_break_even():
    rng = np.random.default_rng(0)
    drawn = rng.normal(0.06, 0.04, 400_000)
    assert Policy().advise(0.06, 0.04).score[0] == pytest.approx(100 * np.mean(drawn > 0.03), abs=0.3)


def test_being_sure_enough_is_a_line_that_counts_as_crossed():
    at = 0.03 + 0.05 * 0.2533471031357997  # the 60% point of the normal
    assert Policy().advise([at + 1e-6, at - 1e-6], 0.05).advice.tolist() == ["step_in", "too_close_to_call"]
    below = 0.06 - at
    assert Policy().advise([below - 1e-6, below + 1e-6], 0.05).advice.tolist() == [
        "step_back",
        "too_close_to_call",
    ]


def test_costs_set_the_break_even_of_each_deal_whose_amount_is_known():
    policy = Policy(hours=20, cost_per_hour=100, margin=0.4)
    assert policy.break_even([100_000, 10_000, math.nan, 0]).tolist() == [0.05, 0.5, 0.03, 0.03]
    assert Policy(margin=0.4).break_even([100_000]).tolist() == [0.03]
    assert policy.break_even(None, 2).tolist() == [0.03, 0.03]


def test_expected_value_is_the_margin_gained_less_the_cost():
    policy = Policy(hours=20, cost_per_hour=100, margin=0.4)
    value = policy.advise([0.10, 0.10], 0.01, [100_000, math.nan]).expected_value
    assert value[0] == pytest.approx(0.4 * 100_000 * 0.10 - 2_000)
    assert math.isnan(value[1])
    assert np.isnan(policy.advise([0.1], 0.01).expected_value).all()
    assert Policy().advise(0.10, 0.01, 1_000).expected_value[0] == pytest.approx(70)


def test_a_numeric_outcome_is_weighed_in_its_own_unit():
    policy = Policy(outcome="numeric", hours=10, cost_per_hour=100, margin=0.5)
    answer = policy.advise([5_000.0, 1_000.0], 500.0)
    assert answer.break_even.tolist() == [2_000, 2_000]
    assert answer.advice.tolist() == ["step_in", "step_back"]
    assert answer.expected_value.tolist() == [1_500, -500]


@pytest.mark.parametrize(
    ("advice", "lo", "expected"),
    [
        ("step_in", 0.14, "vendor"),
        ("step_in", 0.12, "joint"),
        ("step_back", 0.5, "partner"),
        ("too_close_to_call", 0.5, "partner"),
        ("not_enough_evidence", 0.5, "partner"),
    ],
)
def test_the_vendor_leads_only_where_the_gain_is_clear(advice, lo, expected):
    assert Policy().lead(advice, lo, 0.03) == expected


def test_a_policy_survives_being_written_down():
    policy = Policy(hours=5, cost_per_hour=90, margin=0.25, sure=0.9)
    assert Policy.from_dict(policy.to_dict()) == policy
    assert Policy.from_dict({}) == Policy()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sure": 0.4}, "sure should be between 0.5 and 1; came 0.4."),
        ({"break_even_points": math.nan}, "break_even_points should be between -100 and 100; came nan."),
        ({"margin": 30}, "margin should be between 0 and 1; came 30."),
        ({"margin": 0}, "margin should be above 0: with no margin no deal pays for stepping in."),
        ({"hours": 5}, "hours and cost_per_hour belong together: give both, or neither."),
        (
            {"hours": 5, "cost_per_hour": 80},
            "hours and cost_per_hour need a margin as well (for example 0.3).",
        ),
        ({"outcome": "won"}, "outcome should be binary or numeric; came 'won'."),
    ],
)
def test_a_senseless_policy_is_refused(settings, message):
    with pytest.raises(UserError, match=f"^{re.escape(message)}$"):
        Policy(**settings)


def test_an_unknown_setting_is_refused_by_name():
    with pytest.raises(UserError, match=r"^Unknown policy setting break_evn\. Known: break_even_points, "):
        Policy.from_dict({"break_evn": 3})


def test_the_policy_needs_numpy_and_nothing_heavier():
    tree = ast.parse(Path(policy_module.__file__).read_text(encoding="utf-8"))
    imported = {node.module.split(".")[0] for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {a.name.split(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    assert imported <= {"__future__", "collections", "dataclasses", "typing", "math", "numpy", "features"}


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(sure=0.9, widest_points=5.0, margin=0.4),
        Policy(hours=20, cost_per_hour=90, margin=0.3),
        Policy(hours=0, cost_per_hour=90, margin=1.0),
        Policy(outcome="numeric", break_even_amount=2.0),
        Policy(outcome="numeric", hours=1, cost_per_hour=1, margin=0.5),
    ],
)
def test_one_deal_is_advised_on_as_among_many(policy):
    rng = np.random.default_rng(0)
    n = 600
    uplift = np.r_[rng.normal(0.03, 0.1, n - 3), 0.03, 0.5, 2.0]
    sd = np.r_[rng.exponential(0.08, n - 3), 0.0, 0.0, 0.0]
    amount = rng.choice([math.nan, 0.0, 5.0, 80_000.0, 1e12], n)
    supported = rng.random(n) < 0.8
    many = policy.advise(uplift, sd, amount, supported)
    leads = policy.leads(many, uplift - sd)
    assert len(set(many.advice)) >= 3
    for i in range(n):
        one = policy.decide(float(uplift[i]), float(sd[i]), float(amount[i]), bool(supported[i]))
        assert (one.advice, one.default_action_applied) == (many.advice[i], many.default_action_applied[i])
        assert policy.lead(one.advice, float(uplift[i] - sd[i]), one.break_even) == leads[i]
        expected = (many.score[i], many.break_even[i], many.expected_value[i])
        told = (one.score, one.break_even, one.expected_value)
        assert told == pytest.approx(expected, rel=1e-12, nan_ok=True)

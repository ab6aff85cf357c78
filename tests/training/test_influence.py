import numpy as np
import pandas as pd
import pytest

from training.influence import influence


def scores_with_a_giant(seed=0, n=2000):
    """Fifty partners whose effect is -2 points, and one with a tenth of all decisions and +30."""
    rng = np.random.default_rng(seed)
    partner = np.where(rng.random(n) < 0.1, "giant", np.char.add("P", rng.integers(0, 50, n).astype(str)))
    return np.where(partner == "giant", 0.30, -0.02) + 0.05 * rng.normal(size=n), partner


def test_the_partner_on_whom_the_average_rests_is_named():
    phi, partner = scores_with_a_giant()
    found = influence(phi, partner, break_even=0.03)
    assert found["average"] == pytest.approx(phi.mean())
    assert found["largest"][0]["partner"] == "giant"
    assert found["turns_sign"] == {"n": 1, "partners": ["giant"]}
    assert found["lo"] == found["largest"][0]["without"] < -0.015
    assert found["hi"] < found["average"] + 0.01
    assert len(found["largest"]) == 5


def test_leaving_a_partner_out_equals_computing_without_it():
    phi, partner = scores_with_a_giant(seed=1)
    found = influence(phi, partner, break_even=0.03, most_named=51)
    for each in found["largest"]:
        rest = partner != each["partner"]
        assert each["without"] == pytest.approx(phi[rest].mean(), abs=1e-12)
        assert each["n"] == (~rest).sum()


def test_the_break_even_can_hang_on_one_partner_too():
    phi, partner = scores_with_a_giant()
    found = influence(phi + 0.03, partner, break_even=0.03)
    assert (found["turns_sign"]["n"], found["crosses_break_even"]["partners"]) == (0, ["giant"])


def test_where_partners_are_alike_none_matters():
    phi, partner = scores_with_a_giant()
    found = influence(phi[partner != "giant"], partner[partner != "giant"], break_even=0.03)
    assert (found["turns_sign"]["n"], found["crosses_break_even"]["n"]) == (0, 0)
    assert found["hi"] - found["lo"] < 0.002


def test_an_average_near_the_line_hangs_on_many_and_names_the_heaviest():
    phi, partner = scores_with_a_giant()
    phi, partner = phi[partner != "giant"], partner[partner != "giant"]
    found = influence(phi - phi.mean() + 1e-6, partner, break_even=0.03, most_named=50)
    first = [each["partner"] for each in found["largest"] if each["without"] < 0]
    assert found["turns_sign"] == {"n": len(first), "partners": first}
    assert len(first) > 10


def test_without_partners_there_is_nothing_to_leave_out():
    assert influence(np.ones(3), pd.array([None] * 3), 0.0) is None
    assert influence(np.ones(3), np.array(["a", "a", None], dtype=object), 0.0) is None

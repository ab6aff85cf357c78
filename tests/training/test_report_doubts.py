"""What the page says of the doubts, in words and with each number."""

import re
from pathlib import Path

import pytest
from jinja2 import Environment, FileSystemLoader, StrictUndefined

import training
from training.report_doubts import view


def estimate(value, lo, hi):
    return {"value": value, "lo": lo, "hi": hi, "se": 0.01, "n": 5000, "n_groups": 60}


def answer(value, lo, hi, **more):
    holds = lo <= 0 <= hi
    found = {"what": "", "n": 5000, "estimate": estimate(value, lo, hi), "holds": holds, "why_not": None}
    return found | more


def doubts(**more):
    tries = [estimate(0.001, -0.01, 0.012), estimate(0.02, 0.001, 0.04), estimate(-0.003, -0.02, 0.01)]
    return {
        "overlap": {"n": 9000, "share_outside": 0.118, "rules": [{"rule": "Hardly ever", "share": 0.118}]},
        "missing": {"pair_tenure_days": 0.31},
        "clipped_share": 0.013,
        "measure": "amount",
        "bias_per_unit_strength": 0.021,
        "strength_to_erase": 1.9,
        "placebo": answer(0.001, -0.01, 0.012, tries=tries, held=2),
        "negative_control": answer(-0.06, -0.08, -0.04),
        "future_involvement": {
            "what": "",
            "n": 120,
            "estimate": None,
            "holds": None,
            "why_not": "120 such decisions are too few",
        },
        "influence": {
            "average": 0.012,
            "lo": -0.018,
            "hi": 0.02,
            "n": 9000,
            "n_partners": 51,
            "largest": [{"partner": "P7 & Sons", "n": 900, "share": 0.1, "without": -0.018, "change": -0.03}],
            "turns_sign": {"n": 1, "partners": ["P7 & Sons"]},
            "crosses_break_even": {"n": 0, "partners": []},
        },
    } | more


def section(found, outcome="binary"):
    folder = Path(training.__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    shown = view({"source_kind": "crm", "doubts": found}, outcome)
    page = environment.get_template("report_doubts.html.j2").render(shown | {"settings": []})
    return re.sub(r"\s+", " ", page)


@pytest.mark.parametrize(
    "said",
    [
        "For <b>12%</b> of the decisions nothing can be said",
        "On 1.3% of the decisions the chance of stepping in was so near 0 or 1 that it was clipped",
        "A hidden factor would have to be <b>1.9 times</b> as strong as Deal amount in both to erase",
        "it could move the average by up to 2.1 points",
        "<b>1 of 2</b> such questions got the answer that they should. By chance alone, one",
        "+0.1 points, +2.0 points, -0.3 points; 2 of 3 intervals hold zero",
        "Found: -6.0 points (95% interval -8.0 to -4.0). People go by how a deal has moved",
        "Not asked: 120 such decisions are too few.",
        "the average is +1.2 points. Without any one of the 51 partners it lies "
        "between <b>-1.8 points</b> and <b>+2.0 points</b>. Leaving out P7 &amp; Sons changes its sign: take",
        '<td>P7 &amp; Sons</td><td class="n">10.0%</td>',
    ],
)
def test_each_doubt_is_said_with_its_number(said):
    assert said in section(doubts())


def test_what_holds_is_folded_and_what_does_not_is_said_aloud():
    aloud = section(doubts()).split("<details>")[0]
    assert "whether the stage before it was passed quicker" in aloud
    assert "dealt out anew" not in aloud
    calm = section(doubts(negative_control=answer(0.002, -0.01, 0.014)))
    assert "<b>2 of 2</b> such questions got the answer that they should.</p>" in calm
    assert "whether the stage before it was passed quicker" not in calm.split("<details>")[0]


def test_many_partners_are_not_all_named():
    found = doubts()["influence"] | {
        "turns_sign": {"n": 0, "partners": []},
        "crosses_break_even": {"n": 83, "partners": list("ABCDE")},
    }
    said = section(doubts(influence=found))
    assert "so near the break-even that leaving out any one of 83 partners moves it to the other side" in said
    found |= {"crosses_break_even": {"n": 0, "partners": []}}
    assert "No single partner changes its sign" in section(doubts(influence=found))


def test_a_numeric_outcome_keeps_its_unit_and_pace_stays_in_points():
    said = section(doubts(placebo=answer(1234.0, -10.0, 2000.0), bias_per_unit_strength=1500.0), "numeric")
    assert "+1,234 (95% interval -10 to +2,000)" in said
    assert "in choosing deals and in what comes of them, it could move the average by up to 1,500" in said
    assert "Found: -6.0 points" in said


@pytest.mark.parametrize("found", [None, {}, {"missing": {"amount": 0.2}}])
def test_models_of_before_have_a_shorter_section(found):
    said = section(found)
    assert "What no figure here can check" in said
    assert "Questions whose answer" not in said

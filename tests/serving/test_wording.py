import re

import pytest

from features.catalog import Feature, feature
from serving.wording import Wording, change, quantity

WORDS = {
    name: feature(name)
    for name in ("amount", "days_open", "stage", "pair_first_sale", "partner_type", "amount_to_partner_usual")
}
WORDS["tech"] = Feature("tech", "deal", "boolean", "", "", "Technical review")
WORDS["complexity"] = Feature(
    "complexity", "deal", "number", "", "", "Complexity", {}, "Deal complexity is not recorded"
)
WORDING = Wording(WORDS, "EUR")


@pytest.mark.parametrize(
    ("features", "values", "points", "sentence"),
    [
        (
            ("pair_first_sale",),
            {"pair_first_sale": True},
            6.2,
            "First sale of this partner to this customer: vendor help adds 6.2 points more than on average.",
        ),
        (
            ("amount",),
            {"amount": 120000.0},
            -3.1,
            "Deal amount (120,000 EUR): vendor help is worth 3.1 points less than on average.",
        ),
        (
            ("complexity",),
            {},
            1.0,
            "Deal complexity is not recorded: vendor help adds 1.0 points more than on average.",
        ),
        (
            ("amount",),
            {"amount": None},
            1.0,
            "Deal amount (not on record): vendor help adds 1.0 points more than on average.",
        ),
        (
            ("stage",),
            {"stage": "propose"},
            0.04,
            "Stage (propose): vendor help is worth about as much as on average.",
        ),
        (
            ("tech",),
            {"tech": False},
            -1234.56,
            "Technical review (no): vendor help is worth 1,234.6 points less than on average.",
        ),
        (
            ("amount", "pair_first_sale"),
            {"amount": 5.5, "pair_first_sale": True},
            2.0,
            "Deal amount (5.5 EUR), together with first sale of this partner to this customer: "
            "vendor help adds 2.0 points more than on average.",
        ),
    ],
)
def test_a_sentence_names_the_fact_and_what_it_changes(features, values, points, sentence):
    assert WORDING.sentence(features, values, points) == sentence


def test_a_value_new_to_the_model_is_called_new():
    sentence = WORDING.sentence(["stage"], {"stage": "Zeta"}, -2.0, unseen=["stage"])
    assert sentence == "Stage (Zeta, new to the model): vendor help is worth 2.0 points less than on average."


@pytest.mark.parametrize("points", [0.05, 0.051, 3.14159, 0.96, 250.0])
def test_the_sign_can_be_read_from_the_words_alone(points):
    more, less = change(points), change(-points)
    assert "adds" in more
    assert "more than on average" in more
    assert "less" not in more
    assert "less than on average" in less
    assert "adds" not in less
    assert "more" not in less
    shown = re.search(r"[\d.,]+(?= points)", more)
    assert shown
    assert float(shown[0].replace(",", "")) == pytest.approx(points, abs=0.0501)
    assert "-" not in more + less


@pytest.mark.parametrize("points", [0.0, 0.0499, -0.0499])
def test_what_rounds_to_nothing_is_not_worded_as_a_change(points):
    assert change(points) == "vendor help is worth about as much as on average."


@pytest.mark.parametrize(
    ("value", "unit", "currency", "text"),
    [
        (1, "days", None, "1 day"),
        (0, "days", None, "0 days"),
        (0.5, "days", None, "0.5 days"),
        (-1, "days", None, "-1 day"),
        (1.04, "days", None, "1 day"),
        (1, "people", None, "1 person"),
        (1234.4, "people", None, "1,234 people"),
        (1234567.8, "currency", "EUR", "1,234,568 EUR"),
        (1234567.8, "currency", None, "1,234,568"),
        (0.354, "share", None, "35.4%"),
        (2.44, "ratio", None, "2.4 times"),
        (0.47, "ratio", None, "47%"),
        (0.00012, "ratio", None, "0.012%"),
        (19.67, "days", None, "20 days"),
        (3, "count", None, "3"),
        (3, "", None, "3"),
        (-0.0, "", None, "0"),
        (99.96, "", None, "100"),
        (2.5e17, "currency", "EUR", "2.5e+17 EUR"),
        (0.00002, "", None, "2.0e-05"),
    ],
)
def test_a_quantity_bears_its_unit_in_the_right_number(value, unit, currency, text):
    assert quantity(value, unit, currency) == text


def test_a_hostile_text_stays_one_short_line():
    fact = WORDING.fact("stage", "a\r\nINFO forged\x1b[31m \u202e" + "x" * 400)
    assert fact == "Stage (a INFO forged [31m " + "x" * 40 + "…)"

import json
import tracemalloc
from datetime import UTC, datetime

import numpy as np
import pytest

from features.journal_columns import ANSWER_COLUMNS
from serving.model import load
from serving.reading import DealAsked
from serving.recommend import Recommender
from serving.settings import Settings
from training.basis import BOOLEAN, NUMBER
from training.scorecard import Z_90, Scorecard

DEAL: dict = {
    "deal_id": "D-1",
    "features": {
        "amount": 120000.0,
        "days_open": 12,
        "stage": "propose",
        "product_line": "edge",
        "pair_first_sale": True,
        "competitor": None,
    },
}
N_DEALS = 200


def random_values(feature, rng):
    """A value such as a caller may send: missing, in range, far outside, or never seen."""
    if rng.random() < 0.2:
        return None
    if feature.kind == NUMBER:
        return float(rng.choice([rng.uniform(0, feature.knots[-1]), -1e308, 1e308, 0.0, 1e-320]))
    if feature.kind == BOOLEAN:
        return bool(rng.random() < 0.5)
    return str(rng.choice([*feature.levels, "never seen"]))


@pytest.fixture(scope="module")
def deals(made):
    rng = np.random.default_rng(7)
    return [
        {"deal_id": f"D{i}", "features": {f.name: random_values(f, rng) for f in made.features()}}
        for i in range(N_DEALS)
    ]


@pytest.mark.parametrize("query", ["", "?reasons=all"])
def test_the_parts_add_up_to_the_uplift(client, deals, query):
    response = client.post(f"/v1/recommendations/batch{query}", {"deals": deals})
    answers = response.json()["recommendations"]
    assert [answer["deal_id"] for answer in answers] == [deal["deal_id"] for deal in deals]
    for answer in answers:
        points = sum(reason["points"] for reason in answer["reasons"])
        total = answer["baseline_points"] + points + answer["other_points"]
        assert total == pytest.approx(answer["uplift_points"], abs=1e-6)
        win = answer["win_probability"]
        assert 100 * (win["step_in"] - win["step_back"]) == pytest.approx(answer["uplift_points"], abs=1e-6)


def test_an_answer_says_what_the_scorecard_says(client, model, deals):
    scorecard = Scorecard.read(model)
    for deal in deals[:50]:
        answer = client.recommend(deal["features"], "?reasons=all")
        told = scorecard.evaluate_one(deal["features"])
        assert answer["uplift_points"] == pytest.approx(100 * told.uplift, abs=1e-9)
        assert answer["uplift_interval_points"] == pytest.approx([100 * told.lo, 100 * told.hi], abs=1e-9)
        assert answer["missing"] == list(told.missing)
        assert answer["unseen"] == list(told.unseen)
        assert answer["evidence"] == {
            "seen_both_ways": told.supported,
            "chance_vendor_steps_in": pytest.approx(told.propensity),
            "similar_decisions": told.similar_decisions,
            "hidden_factor_to_flip": None,
        }
        terms = {each.term: 100 * each.uplift for each in told.contributions if each.uplift}
        assert {each["feature"]: each["points"] for each in answer["reasons"]} == pytest.approx(terms)
        assert answer["other_points"] == 0


def test_a_deal_is_answered_alike_alone_and_among_others(client, deals):
    together = client.post("/v1/recommendations/batch", {"deals": deals}).json()["recommendations"]
    for deal, among in list(zip(deals, together, strict=True))[:20]:
        alone = client.post("/v1/recommendations", deal).json()
        assert alone.pop("recommendation_id") != among.pop("recommendation_id")
        numbers = ("uplift_points", "other_points", "score")
        for name in numbers:
            assert alone.pop(name) == pytest.approx(among.pop(name), abs=1e-9)
        assert [each["sentence"] for each in alone["reasons"]] == [
            each["sentence"] for each in among["reasons"]
        ]
        assert alone["advice"] == among["advice"]
        assert [each["lead"] for each in alone["playbook"]] == [each["lead"] for each in among["playbook"]]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_batch_of_any_size_is_one_list(client, deals, n):
    answers = client.post("/v1/recommendations/batch", {"deals": deals[:n]}).json()
    assert list(answers) == ["recommendations"]
    assert [answer["deal_id"] for answer in answers["recommendations"]] == [f"D{i}" for i in range(n)]


def test_reasons_are_the_five_largest_each_way_and_largest_first(client, deals):
    for deal in deals[:50]:
        everything = client.recommend(deal["features"], "?reasons=all")["reasons"]
        shown = client.recommend(deal["features"])["reasons"]
        helping = [each for each in everything if each["points"] > 0][:5]
        hindering = [each for each in everything if each["points"] < 0][:5]
        assert sorted(map(str, shown)) == sorted(map(str, helping + hindering))
        for reasons in (shown, everything):
            sizes = [abs(each["points"]) for each in reasons]
            assert sizes == sorted(sizes, reverse=True)


def test_a_term_of_no_size_is_no_reason(tmp_path, make_client, made):
    flat = made.scorecard().average_only(0.04, 0.01)
    answer = make_client(made.folder(tmp_path / "m", flat)).recommend(DEAL["features"], "?reasons=all")
    assert answer["reasons"] == []
    assert answer["other_points"] == 0
    assert answer["uplift_points"] == answer["baseline_points"] == pytest.approx(4)


def test_two_features_together_show_both_values(client):
    answer = client.recommend({"amount": 120000, "days_open": 1}, "?reasons=all")
    pair = next(each for each in answer["reasons"] if each["feature"] == "amount × days_open")
    assert pair["value"] == {"amount": 120000, "days_open": 1}
    assert pair["sentence"].startswith("Deal amount (120,000 EUR), together with ")
    assert "(1 day): vendor help " in pair["sentence"]


def test_a_value_never_seen_is_answered_and_widens_the_interval(client):
    def width(features):
        lo, hi = client.recommend(features)["uplift_interval_points"]
        return hi - lo

    known = DEAL["features"]
    assert client.recommend({**known, "product_line": "warp"})["unseen"] == ["product_line"]
    seen_widths = [width({**known, "product_line": level}) for level in ("core", "edge")]
    assert width({**known, "product_line": "warp"}) > max(seen_widths)


@pytest.mark.parametrize(
    ("stage", "stages"),
    [
        ("qualify", ["qualify", "propose", "negotiate"]),
        ("negotiate", ["negotiate"]),
        ("never seen", ["never seen"]),
        (None, []),
    ],
)
def test_the_playbook_is_this_stage_and_the_later_ones(client, stage, stages):
    features = {**DEAL["features"], "stage": stage}
    answer = client.recommend(features)
    assert [each["stage"] for each in answer["playbook"]] == stages
    assert answer["stage"] == stage
    for play in answer["playbook"]:
        there = client.recommend({**features, "stage": play["stage"]})
        assert play["uplift_points"] == pytest.approx(there["uplift_points"])
        assert play["lead"] == there["playbook"][0]["lead"]


def test_a_model_without_stages_has_no_playbook(tmp_path, make_client, made):
    features = [each for each in made.features() if each.name != "stage"]
    client = make_client(made.folder(tmp_path / "m", made.scorecard(features)))
    answer = client.recommend({"amount": 5.0})
    assert answer["playbook"] == []
    assert answer["stage"] is None


@pytest.mark.parametrize(
    ("points", "advice", "lead", "is_default"),
    [
        (14.0, "step_in", "vendor", False),
        (8.0, "step_in", "joint", False),
        (3.03, "too_close_to_call", "partner", True),
        (-2.0, "step_back", "partner", False),
    ],
)
def test_advice_follows_from_uplift_and_break_even(
    tmp_path, make_client, points, advice, lead, is_default, made
):
    certain = made.scorecard().average_only(points / 100, 0.003)
    answer = make_client(made.folder(tmp_path / "m", certain)).recommend(DEAL["features"])
    assert (answer["advice"], answer["default_action_applied"]) == (advice, is_default)
    assert answer["playbook"][0] == {
        "stage": "propose",
        "lead": lead,
        "uplift_points": pytest.approx(points),
    }
    lo, hi = answer["uplift_interval_points"]
    assert (lo, hi) == pytest.approx((points - Z_90 * 0.3, points + Z_90 * 0.3))


def test_without_both_choices_seen_there_is_an_uplift_but_no_score(client):
    answer = client.recommend({**DEAL["features"], "stage": "negotiate"})
    assert answer["evidence"]["seen_both_ways"] is False
    assert answer["advice"] == "not_enough_evidence"
    assert answer["default_action_applied"] is True
    assert answer["score"] is None
    assert isinstance(answer["uplift_points"], float)


def test_costs_in_the_settings_override_the_model_and_price_each_deal(model, make_client):
    client = make_client(model, hours=20, cost_per_hour=90, margin=0.3)
    answer = client.recommend(DEAL["features"])
    assert answer["break_even_points"] == pytest.approx(100 * 20 * 90 / (0.3 * 120000))
    gain = (answer["uplift_points"] - answer["break_even_points"]) / 100
    assert answer["expected_value"] == {"amount": pytest.approx(0.3 * 120000 * gain), "currency": "EUR"}


@pytest.mark.parametrize("amount", [None, 0, -5.0, 1e-320, 1e308])
def test_an_amount_that_no_deal_has_counts_as_unknown(model, make_client, amount):
    client = make_client(model, hours=20, cost_per_hour=90, margin=0.3, break_even_points=4)
    answer = client.recommend({**DEAL["features"], "amount": amount})
    assert answer["break_even_points"] == pytest.approx(4)
    assert answer["expected_value"] is None


def test_the_policy_of_the_model_holds_where_no_setting_says_otherwise(tmp_path, make_client, made):
    facts = {**made.facts, "policy": {"break_even_points": 7.5}}
    folder = made.folder(tmp_path / "m", made.scorecard(), facts)
    assert make_client(folder).recommend({})["break_even_points"] == pytest.approx(7.5)
    assert make_client(folder, break_even_points=1.0).recommend({})["break_even_points"] == pytest.approx(1)


def test_the_hidden_factor_is_the_distance_in_its_own_strength(tmp_path, make_client, made):
    facts = {**made.facts, "bias_per_unit_strength": 0.02}
    folder = made.folder(tmp_path / "m", made.scorecard(), facts)
    answer = make_client(folder).recommend(DEAL["features"])
    distance = abs(answer["uplift_points"] - answer["break_even_points"]) / 100
    assert answer["evidence"]["hidden_factor_to_flip"] == pytest.approx(distance / 0.02)


def test_a_flat_file_speaks_of_its_own_columns(tmp_path, make_client, made):
    facts = {**made.facts, "source_kind": "flat", "amount_feature": "days_open", "currency": None}
    folder = made.folder(tmp_path / "m", made.scorecard(), facts)
    answer = make_client(folder).recommend(
        {"amount": 3, "days_open": 1200, "stage": "propose"}, "?reasons=all"
    )
    sentences = [each["sentence"].partition(": ")[0] for each in answer["reasons"]]
    assert "Amount (3)" in sentences
    assert "Days open (1,200)" in sentences
    assert "Stage (propose)" in sentences
    assert "Pair first sale (not on record)" in sentences


def test_stage_names_are_those_of_the_data(client, made):
    assert client.get("/v1/model").json()["stages"] == list(made.stages)


# What the journal keeps

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
THEN = datetime(2025, 3, 31, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def recommender(model):
    return Recommender.of(load(Settings(model)))


@pytest.mark.parametrize("as_of", [None, THEN])
@pytest.mark.parametrize("stage", ["qualify", "negotiate", None])
def test_the_record_says_what_the_answer_says(recommender, as_of, stage):
    features = {**DEAL["features"], "stage": stage}
    answered = recommender.answer(DealAsked("D-1", features, as_of), NOW)
    answer, record = json.loads(answered.body), answered.record
    assert tuple(record) == ANSWER_COLUMNS
    assert record["recommendation_id"] == answered.recommendation_id == answer["recommendation_id"]
    assert (record["asked_at"], record["as_of"]) == (NOW, as_of or NOW)
    for name in ("deal_id", "stage", "advice", "default_action_applied", "score"):
        assert record[name] == answer[name]
    low, high = answer["uplift_interval_points"]
    said = (answer["uplift_points"], low, high, answer["break_even_points"])
    kept = (record["uplift"], record["uplift_low"], record["uplift_high"], record["break_even"])
    assert [100 * each for each in kept] == pytest.approx(said, abs=1e-12)
    assert record["chance"] == 1
    assert {name: record[f"model_{name}"] for name in ("name", "version", "digest")} == {
        name: answer["model"][name] for name in ("name", "version", "digest")
    }
    assert (record["role"], record["asked_by"]) == ("served", "anonymous")
    assert json.loads(record["facts"]) == features


def test_further_fields_follow_the_others(recommender):
    asked = DealAsked("D-1", DEAL["features"], None)
    plain = json.loads(recommender.answer(asked, NOW).body)
    price = {"shadow_price": {"amount_per_hour": 120.5, "currency": "EUR"}}
    answer = json.loads(recommender.answer(asked, NOW, extra=price).body)
    assert list(answer) == [*plain, "shadow_price"]
    assert answer["shadow_price"] == price["shadow_price"]


def test_every_recommendation_has_an_id_of_its_own(recommender):
    asked = DealAsked("D-1", {}, None)
    ids = [recommender.answer(asked, NOW).recommendation_id for _ in range(1000)]
    ids += [answered.recommendation_id for answered in recommender.answer_many([asked] * 1000, NOW)]
    assert len(set(ids)) == 2000


def test_sentences_are_those_of_the_wording(recommender):
    wording, rng = recommender.model.wording, np.random.default_rng(3)
    features = recommender.model.scorecard.features
    words = {'a "quoted"\n\\ level', "é"}
    for _ in range(100):
        values = {f.name: random_values(f, rng) for f in features}
        values["competitor"] = str(rng.choice([*words, "acme"]))
        asked = DealAsked("D-1", values, None)
        alone = recommender.answer(asked, NOW, all_reasons=True)
        among = recommender.answer_many([asked] * 2, NOW, all_reasons=True)[1]
        for answered in (alone, among):
            answer = json.loads(answered.body)
            assert len(answer["reasons"]) == len(recommender.model.scorecard.term_names)
            for reason in answer["reasons"]:
                names = reason["feature"].split(" × ")
                expected = wording.sentence(names, values, reason["points"], answer["unseen"])
                assert reason["sentence"] == expected
                own = {name: values[name] for name in names}
                assert reason["value"] == (own if len(names) > 1 else values[names[0]])


def test_new_numbers_and_unknown_texts_leave_nothing_behind(recommender):
    def ask(some):
        for i in some:
            features = {"amount": i + 0.5, "days_open": i / 7, "competitor": f"unknown {i}"}
            recommender.answer(DealAsked("D-1", features, None), NOW, all_reasons=True)

    ask(range(1000))
    tracemalloc.start()
    ask(range(1000, 3000))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000

import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from features.catalog import CATALOG
from training.evaluate import HeldOut, judge
from training.policy import Policy
from training.report import write_report
from training.scorecard import TermTable

NASTY = "<script>alert('a $ % _ × b')</script>"


class Page(HTMLParser):
    """Tags, texts and pictures of a page, and whether each tag was closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.images, self.open = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def judged(gain=0.15, n=3000, seed=4, policy=None, scale=1.0, deals=True, **more):
    rng = np.random.default_rng(seed)
    x, groups, treated = rng.uniform(-1, 1, n), rng.integers(0, 50, n), rng.random(n) < 0.4
    tau = scale * (0.04 + gain * x)
    outcome = scale * (rng.random(n) < 0.4 - 0.1 * treated)
    held = HeldOut(
        phi=tau + scale * rng.normal(0, 0.5, n),
        uplift=tau,
        sd=np.full(n, 0.02 * scale),
        supported=np.arange(n) % 10 > 0,
        treatment=treated,
        outcome=outcome,
        groups=groups,
        deals=np.arange(n) // 3 if deals else None,
        **more,
    )
    return judge(held, policy)


def card(name="amount", heterogeneous=True):
    tables = [
        TermTable(name, "number", [1e3, 1e4, 1e5, 1e6], [-0.05, -0.02, 0.03, 0.06], 0.05),
        TermTable("pair_first_sale", "boolean", ["false", "true"], [-0.03, 0.06], 0.04),
        TermTable(
            "partner_id", "category", [f"P{i}" for i in range(30)], np.linspace(-0.1, 0.1, 30).tolist(), 0.03
        ),
        TermTable("competitor", "category", ["A", "B"], [0.0, 0.0], 0.0),
    ]
    return SimpleNamespace(heterogeneous=heterogeneous, tables=lambda: tables)


def facts(**more):
    return {
        "name": "steps",
        "trained_at": "2026-03-01T10:00:00+00:00",
        "question": "Does stepping in now raise the chance of winning within 180 days?",
        "source_kind": "crm",
        "learned_from": {
            "decisions": 41_230,
            "deals": 15_000,
            "partners": 180,
            "stepped_in_share": 0.31,
            "from": "2023-01-01T00:00:00",
            "to": "2025-05-01T00:00:00",
            "held_out": {"decisions": 3000, "from": "2025-05-01T00:00:00", "to": "2025-09-01T00:00:00"},
            "flow": [
                {"what": "Stage entries", "n": 61_000, "why": "every stage entry is a decision"},
                {"what": "Too young", "n": 9_400, "why": "180 days have not passed yet"},
            ],
            "left_out_columns": ["constant_one"],
        },
        "doubts": {
            "overlap": {
                "n": 41_230,
                "share_outside": 0.118,
                "rules": [{"rule": "Hardly ever", "share": 0.1}],
            },
            "missing": {"pair_tenure_days": 0.31},
            "clipped_share": 0.013,
            "measure": "amount",
            "bias_per_unit_strength": 0.021,
            "strength_to_erase": 1.9,
        },
        "settings": {"random_state": 0, "policy": {"sure": 0.8}},
        **more,
    }


def page(tmp_path, known=None, evaluation=None, tables=None):
    path = write_report(
        tmp_path, facts() if known is None else known, evaluation or judged(), tables or card()
    )
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_says_what_a_reader_came_for(tmp_path):
    evaluation = judged()
    found = page(tmp_path, evaluation=evaluation)
    assert found.open == []
    for said in (
        evaluation.verdict,
        "Help pays on some deals and not on others",
        "41,230 decisions of 180 partners",
        "Deals the vendor ever joined against deals it never joined",
        "what people did",
        "61,000",
        "180 days have not passed yet",
        "For 12 % of the decisions nothing can be said".replace(" %", "%"),
        "1.9 times",
        "31%",
        "constant_one",
        "policy.sure",
        "Everything that moved both the choice and the outcome was on record",
    ):
        assert re.sub(r"\s+", "", said) in re.sub(r"\s+", "", found.text), said


def test_the_page_shows_the_rivals_the_parts_and_the_blocks(tmp_path):
    n = 3000
    rng = np.random.default_rng(0)
    known = facts()
    blocks = [
        {
            "block": k,
            "learned_from": 10_000 * k,
            "decisions": 1_500,
            "from": f"2025-0{k}-01",
            "to": f"2025-0{k}-28",
        }
        for k in (1, 2)
    ]
    known["learned_from"]["held_out"] |= {"blocks": blocks, "by_time": True, "fewer_blocks_than_asked": True}
    evaluation = judged(
        amount=rng.lognormal(9, 1, n),
        chance=rng.random(n),
        propensity=np.full(n, 0.4),
        step_back=np.full(n, 0.4),
    )
    text = page(tmp_path, known, evaluation).text
    for said in (
        "as many of the biggest deals",
        "as many of the deals likeliest to be won anyway",
        "The vendor joins deals that would be won",
        "It joins deals that gain",
        "Best linear predictor, difference",
        "Qini",
        "Loss less that of one number for all",
        "the model beats it",
        "later than those it had learned from",
        "too few old deals to judge in as many blocks as usual",
        "2025-02-01 to 2025-02-28",
    ):
        assert said in text, said


def test_where_the_model_does_not_beat_one_number_the_page_says_so(tmp_path):
    evaluation = judged(gain=0.0, seed=1)
    text = page(tmp_path, evaluation=evaluation, tables=card(heterogeneous=False)).text
    assert "So the one number is served." in text
    assert "the model beats it" not in text


def test_nothing_is_fetched_and_nothing_runs(tmp_path):
    found = page(tmp_path)
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in found.tags}
    addresses = [attrs[key] for _, attrs in found.tags for key in ("src", "href", "srcset") if key in attrs]
    assert len(addresses) == 4
    assert all(address.startswith("data:image/png;base64,") for address in addresses)
    assert not [key for _, attrs in found.tags for key in attrs if key.startswith("on")]
    whole = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in whole
    assert "@import" not in whole
    assert len(whole) < 1_000_000


def test_every_picture_can_be_read_aloud(tmp_path):
    alts = [image["alt"] for image in page(tmp_path).images]
    assert all(len(alt) > 30 for alt in alts)
    assert any("moves the effect by -5.0 points to +6.0 points" in alt for alt in alts)
    assert any("fifth 5, predicted +" in alt for alt in alts)


@pytest.mark.filterwarnings("error")
def test_names_from_the_data_are_words_and_never_code(tmp_path):
    known = facts(name=NASTY, question=NASTY, source_kind="flat")
    known["learned_from"]["flow"] = [{"what": NASTY, "n": 1, "why": NASTY}]
    known["learned_from"]["left_out_columns"] = [NASTY, {"column": NASTY, "why": "constant"}]
    known["doubts"] = {"missing": {NASTY: 0.5}, "measure": NASTY, "strength_to_erase": 2.0, "overlap": {}}
    tables = card(NASTY)
    tables.tables()[2].xs[29] = NASTY
    found = page(tmp_path, known, tables=tables)
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.open == []
    assert found.text.count(NASTY) >= 9


def test_features_of_a_crm_bear_the_words_of_the_catalog(tmp_path):
    amount = next(feature for feature in CATALOG if feature.name == "amount")
    first_sale = next(feature for feature in CATALOG if feature.name == "pair_first_sale")
    assert amount.label in page(tmp_path).text
    assert first_sale.phrases["true"] in page(tmp_path).text
    assert amount.label not in page(tmp_path, facts(source_kind="flat")).text


def test_of_many_levels_both_ends_are_shown(tmp_path):
    text = page(tmp_path, facts(source_kind="flat")).text
    assert "24 others between" in text
    assert all(level in text for level in ("P29", "P28", "P27", "P0", "P1", "P2"))
    assert "P15" not in text
    assert "competitor" not in text  # moves nothing


def test_without_shown_differences_no_winners_are_listed(tmp_path):
    evaluation = judged(gain=0.0, seed=1)
    assert not evaluation.heterogeneous
    found = page(tmp_path, evaluation=evaluation, tables=card(heterogeneous=False))
    assert "One average effect is served for all" in found.text
    assert "P29" not in found.text


def test_a_numeric_outcome_is_told_in_its_own_unit(tmp_path):
    evaluation = judged(policy=Policy(outcome="numeric"), scale=50_000.0)
    text = page(tmp_path, evaluation=evaluation).text
    assert "points" not in text.replace("One point is", "")
    assert "+2" in evaluation.verdict or "+1" in evaluation.verdict


def test_little_knowledge_makes_a_short_page_not_a_broken_one(tmp_path):
    for evaluation in (judged(n=12, deals=False), judged(n=1)):
        json.dumps(evaluation.to_dict(), allow_nan=False)
        found = page(tmp_path, {}, evaluation, card(heterogeneous=False))
        assert found.open == []
        assert "nan" not in found.text.lower().split()
        assert "inf" not in found.text.lower()


def test_the_same_facts_make_the_same_page(tmp_path):
    first = write_report(tmp_path, facts(), judged(), card()).read_bytes()
    assert write_report(tmp_path, facts(), judged(), card()).read_bytes() == first


def with_data(**more):
    known = facts(against="wait", protocol=[["Time zero", "The entry into the stage."]], **more)
    known["learned_from"] |= {
        "closed_deals": {"joined": 3210, "won_joined": 1316, "left": 5100, "won_left": 1428},
        "audit": [{"column": "Rating", "verdict": "warn", "rule": "outcome", "why": "Hot is always won."}],
        "final_values": [{"column": "amount", "why": "no history in the export"}],
        "coordination": {"deals_with_activities": 4000, "uncoordinated_share": 0.123},
    }
    return known


def test_the_page_says_which_question_is_answered(tmp_path):
    text = page(tmp_path, with_data()).text
    assert "Answered is now against wait ." in text
    assert "The entry into the stage." in text
    never = page(tmp_path, with_data() | {"against": "never"}).text
    assert "Answered is now against not within the horizon ." in never
    assert "later is left to nature" not in never


def test_the_page_counts_the_closed_deals_behind_the_first_claim(tmp_path):
    text = re.sub(r"\s+", " ", page(tmp_path, with_data()).text)
    assert "Of the 3,210 closed deals that the vendor ever joined, 41% were won" in text
    assert "of the 5,100 that it never joined, 28%" in text
    assert "closed deals that the vendor ever joined" not in page(tmp_path).text


def test_the_page_counts_the_deals_of_each_step_where_they_are_known(tmp_path):
    known = with_data()
    known["learned_from"]["flow"] = [
        {"what": "stage entries", "n": 61_000, "deals": 20_345, "why": "each is a moment"},
        {"what": "made by hand", "n": 7, "deals": None, "why": "nobody counted"},
    ]
    text = re.sub(r"\s+", " ", page(tmp_path, known).text)
    assert "Step Rows Deals Why stage entries 61,000 20,345 each is a moment made by hand 7 nobody" in text
    assert "Step Rows Why" in re.sub(r"\s+", " ", page(tmp_path).text)


def test_columns_without_a_history_for_one_reason_share_a_line(tmp_path):
    known = with_data()
    known["learned_from"]["final_values"] = [
        {"column": column, "why": f"{table} have no history"}
        for column, table in (("tier", "partners"), ("industry", "customers"), ("region", "partners"))
    ]
    text = page(tmp_path, known).text
    assert "tier, region: partners have no history" in text
    assert "industry: customers have no history" in text


def test_the_page_says_what_the_data_cannot_say(tmp_path):
    gate = [
        {"level": "ok", "what": "1,300 won with the vendor", "why": "40 are needed"},
        {"level": "warn", "what": "32 partners", "why": "under 40 intervals are wide"},
    ]
    found = page(tmp_path, with_data(gate=gate))
    for said in (
        "What the data can and cannot say",
        "32 partners",
        "under 40 intervals are wide",
        "Hot is always won.",
        "amount: no history in the export",
        "12% of the 4,000 deals",
        "Columns left out: constant_one",
    ):
        assert said in re.sub(r"\s+", " ", found.text).replace(" %", "%"), said
    assert ("td", {"class": "warn"}) in found.tags
    assert found.open == []


def test_what_weighting_later_joiners_away_cost_is_told(tmp_path):
    known = with_data() | {"against": "never"}
    known["learned_from"]["later_joiners"] = {
        "controls": 4000,
        "joined_later": 1000,
        "clipped_share": 0.012,
        "largest_weight": 31.26,
        "most_weight": 20.0,
        "effective_controls": 2512.3,
    }
    text = page(tmp_path, known).text
    assert "Of 4,000 decisions to step back, 1,000 (25%) are on deals that the vendor joined later" in text
    assert "as 2,512 decisions of equal weight" in text
    assert "The largest weight is 31.3; weights above 20 were cut to it, on 1.2% of them." in text


@pytest.mark.filterwarnings("error")
def test_what_the_data_say_is_words_and_never_code(tmp_path):
    known = with_data(gate=[{"level": NASTY, "what": NASTY, "why": NASTY}])
    known["protocol"] = [[NASTY, NASTY]]
    known["learned_from"] |= {
        "audit": [{"column": NASTY, "verdict": NASTY, "rule": NASTY, "why": NASTY}],
        "final_values": [{"column": NASTY, "why": NASTY}],
    }
    found = page(tmp_path, known)
    assert "script" not in {tag for tag, _ in found.tags}
    assert found.open == []
    assert found.text.count(NASTY) >= 8

"""How good the evidence is, and how much more would be enough, is said in figures."""

import numpy as np
import pandas as pd
import pytest

from features.decision_table import DecisionTable
from training.enough import counts_of, design_effect, look, more_like_these
from training.gate import NotEnoughEvidenceError, refuse_too_little


def decisions(n=4000, partners=80, base=0.3, with_vendor=0.5, habit=0.0, rng=None):
    """Decisions of as many partners; `habit` makes each partner's deals alike, in both of its choices."""
    rng = rng or np.random.default_rng(0)
    partner = rng.integers(0, partners, n) if partners else np.zeros(n, dtype=int)
    own = rng.normal(0, habit, (2, max(partners, 1)))
    stepped_in = rng.random(n) < with_vendor
    chance = np.clip(base + own[stepped_in.astype(int), partner], 0, 1)
    rows = pd.DataFrame(
        {
            "deal_id": [f"D{i}" for i in range(n)],
            "partner_id": [f"P{p}" for p in partner] if partners else pd.Series([None] * n, dtype="str"),
            "stage": "qualify",
            "decided_at": pd.Timestamp("2024-01-01", tz="UTC") + pd.to_timedelta(np.arange(n) * 365 / n, "D"),
            "stepped_in": stepped_in,
            "outcome": (rng.random(n) < chance).astype(float),
            "amount": 1.0,
        },
        index=pd.Index([f"D{i}:q" for i in range(n)]),
    )
    features = pd.DataFrame({"size": rng.random(n)}, index=rows.index)
    return DecisionTable(rows, features, {"kind": "crm", "outcome": "binary"})


def levels(lines):
    return [line["level"] for line in lines]


def test_plenty_is_fine_and_every_line_says_what_and_why():
    lines = look(decisions(), np.full(4000, 0.5))
    assert levels(lines) == ["ok"] * 4
    assert all(line["what"] and line["why"] for line in lines)


def test_a_rare_choice_is_told_how_many_more_would_resolve_five_points():
    table = decisions(with_vendor=0.1)
    line = look(table)[2]
    n, rate = int(table.treatment.sum()), table.outcome.mean()
    wanted = int(np.ceil(16 * rate * (1 - rate) / 0.05**2 * design_effect(table)))
    assert line["level"] == "warn"
    assert line["what"].startswith(f"5 points of difference at {rate:.0%} won show with {wanted:,} decisions")
    assert line["why"].startswith(f"{n:,} are with the vendor: about ")
    said = int(line["why"].split("about ")[1].split(" more")[0].replace(",", ""))
    assert wanted - n <= said <= 1.1 * (wanted - n)
    months = float(line["why"].split("about ")[2].split(" months")[0])
    assert months == pytest.approx(12 * (wanted - n) / n, rel=0.1)


def test_independent_deals_at_thirty_percent_take_1344_on_each_side():
    table = decisions(n=4000)
    won = np.zeros(4000)
    won[:1200] = 1
    table = DecisionTable(
        table.rows.assign(outcome=won, partner_id=table.rows["deal_id"]), table.features, table.about
    )
    assert "at 30% won show with 1,344 decisions" in look(table)[2]["what"]


def test_partners_with_habits_of_their_own_take_more_decisions():
    assert design_effect(decisions(habit=0.0)) < 1.5
    assert design_effect(decisions(habit=0.2)) > 3


@pytest.mark.parametrize(
    ("partners", "level", "what", "why"),
    [
        (3, "stop", "3 partners", "at least 10 are needed to tell an effect from a partner's habits: 7 more"),
        (25, "warn", "25 partners", "under 40 a few partners can decide the result: 15 more would be enough"),
        (60, "ok", "60 partners", "no few of them decide the result"),
        (
            0,
            "warn",
            "no partners on record",
            "deals of one partner are alike; intervals may be too narrow",
        ),
    ],
)
def test_partners_are_counted(partners, level, what, why):
    assert look(decisions(partners=partners))[1] == {"level": level, "what": what, "why": why}


@pytest.mark.parametrize(("n", "level"), [(300, "stop"), (1200, "warn"), (4000, "ok")])
def test_the_rarest_kind_decides_how_good_the_outcomes_are(n, level):
    table = decisions(n=n, with_vendor=0.3)
    line = look(table)[0]
    assert line["level"] == level
    assert line["what"] == ", ".join(f"{count:,} {name}" for name, count in counts_of(table).items())


def test_as_many_more_as_was_said_are_enough():
    small = decisions(n=300, with_vendor=0.3)
    more = more_like_these(small, 40)
    fewest = min(counts_of(small).values())
    assert fewest * (len(small) + more) / len(small) >= 40
    assert f"about {more:,} more decisions like these would be enough" in look(small)[0]["why"]
    with pytest.raises(
        NotEnoughEvidenceError, match=rf"Bring more past deals: about {more:,} more decisions like these\.$"
    ):
        refuse_too_little(small)


def test_little_support_is_a_warning():
    propensity = np.where(np.arange(4000) < 1600, 0.5, 0.99)
    assert look(decisions(), propensity)[3] == {
        "level": "warn",
        "what": "40% of the decisions could have gone either way",
        "why": "the others have no like with the other choice and get no advice: bring deals that went both",
    }


def test_a_numeric_outcome_is_counted_by_choice_alone():
    table = decisions(n=100)
    table = DecisionTable(table.rows, table.features, {"kind": "flat", "outcome": "numeric"})
    lines = look(table)
    assert levels(lines) == ["stop", "ok"]
    assert "at least 80 of each" in lines[0]["why"]

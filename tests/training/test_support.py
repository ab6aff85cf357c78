"""Where nothing can be said: on whom, and why, and on whom not."""

import json

import numpy as np
import pandas as pd
import pytest

from training.scorecard import OUTSIDE
from training.uplift import UpliftModel

RULE = {name: i for i, name in enumerate(OUTSIDE)}


@pytest.fixture(scope="module")
def world_with_habits(make_world):
    """P1 never had the vendor in some fifty decisions, P2 always; P3, seen nineteen times, never had it."""
    world = make_world(3000, seed=3)
    treatment = world.treatment & ~np.isin(world.partner, ["P1", "P3"]) | (world.partner == "P2")
    few = np.flatnonzero(world.partner == "P3")[19:]
    kept = np.setdiff1d(np.arange(3000), few)
    X, partner = world.X.iloc[kept].reset_index(drop=True), world.partner[kept]
    model = UpliftModel(draws=40).fit(X, treatment[kept], world.outcome[kept], partner)
    return model, X, partner


def test_a_partner_seen_often_but_one_way_is_outside(world_with_habits):
    model, X, partner = world_with_habits
    outside = model.answers(X).outside
    for one_way in ("P1", "P2"):
        assert (outside[partner == one_way] >= 0).all()
        assert (outside[partner == one_way] == RULE["one_way"]).mean() > 0.5
    assert not (outside[~np.isin(partner, ["P1", "P2"])] == RULE["one_way"]).any()


def test_a_partner_seen_seldom_or_never_stays_in(world_with_habits):
    model, X, partner = world_with_habits
    usual = X[partner == "P4"]
    for name in ("P3", "a new partner"):
        stranger = usual.assign(partner=pd.Series([name] * len(usual), index=usual.index))
        assert not (model.answers(stranger).outside == RULE["one_way"]).any()
        assert model.support(stranger).mean() > 0.6


def test_twenty_decisions_without_a_rarely_used_vendor_are_no_habit():
    """With the vendor on 6% of decisions, a partner of forty without it is nothing strange."""
    rng = np.random.default_rng(0)
    n, treated = 6000, rng.random(6000) < 0.06
    partner = np.char.add("P", (np.arange(n) // 40).astype(str))
    treated[partner == "P1"] = False
    X = pd.DataFrame({"size": rng.normal(size=n), "partner": partner})
    model = UpliftModel(draws=10).fit(X, treated, rng.random(n) < 0.5, partner)
    assert model.scorecard_.cells.one_way == ()


def test_a_level_never_seen_is_outside_for_that_reason(world_with_habits):
    model, X, _ = world_with_habits
    cells = model.scorecard_.cells.features
    stage = [f.name for f in model.scorecard_.features].index("stage")
    assert stage in cells
    strange = X.head(200).assign(stage="d_unheard_of")
    answers = model.answers(strange)
    chance_allows = (answers.propensity >= 0.05) & (answers.propensity <= 0.95)
    other = np.isin(answers.outside, [RULE["never_seen"], RULE["one_way"]])
    assert other[chance_allows].all()
    assert chance_allows.sum() > 100


def test_supported_is_what_no_rule_leaves_out(world_with_habits):
    model, X, _ = world_with_habits
    answers = model.answers(X)
    assert (answers.supported == (answers.outside == -1)).all()
    assert (answers.outside == RULE["chance_too_low"]).tolist() == (answers.propensity < 0.05).tolist()
    assert (answers.outside == RULE["chance_too_high"]).tolist() == (answers.propensity > 0.95).tolist()


def test_habits_survive_saving_and_older_folders_have_none(world_with_habits, tmp_path):
    model, X, partner = world_with_habits
    card = model.scorecard_
    assert len(card.cells.one_way) == 2
    card.write(tmp_path)
    assert type(card).read(tmp_path).cells.one_way == card.cells.one_way
    about = json.loads((tmp_path / "scorecard.json").read_text())
    del about["one_way"]  # as it was written before this rule
    (tmp_path / "scorecard.json").write_text(json.dumps(about))
    older = type(card).read(tmp_path)
    assert older.cells.one_way == ()
    assert (older.evaluate(model.read(X)).supported[partner == "P1"]).mean() > 0.3

"""The comparison with other packages: worlds whose truth is true, figures on known cases, page, loaders."""

import json
import pickle
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks import hillstrom, lalonde, measures, one, page, real, runs, worlds
from benchmarks.encoding import ENCODED, LEFT_OUT, LEVELS, Encoding
from benchmarks.entries import ENTRIES, entry
from benchmarks.learners import Constant, Stepin
from benchmarks.words import TITLES
from features import UserError

ROOT = Path(__file__).parents[1]
MADE = {
    "crm": lambda n, seed: worlds.crm(n, seed, n_test=300),
    "smooth": lambda n, seed: worlds.smooth(n, seed, n_test=300),
    "sharp": lambda n, seed: worlds.sharp(n, seed, n_test=300),
    "constant": lambda n, seed: worlds.constant(n, seed, n_test=300),
}
each_world = pytest.mark.parametrize("make", MADE.values(), ids=MADE)


# Worlds


@each_world
def test_a_seed_makes_the_same_world_again_and_another_seed_another(make):
    first, again, other = make(600, 3), make(600, 3), make(600, 4)
    pd.testing.assert_frame_equal(first.train.X, again.train.X)
    np.testing.assert_array_equal(first.train.outcome, again.train.outcome)
    np.testing.assert_array_equal(first.test.uplift, again.test.uplift)
    assert not np.array_equal(first.train.uplift[:500], other.train.uplift[:500])


@each_world
def test_no_deal_is_both_learned_from_and_judged_on(make):
    world = make(600, 1)
    assert not set(world.train.deals) & set(world.test.deals)
    assert abs(len(world.train) - 600) <= 5
    assert abs(len(world.test) - 300) <= 5


def weighted_by_chance(d):
    """Scores of Horvitz & Thompson: unbiased, and ignorant of the effect's formula and the chance to win."""
    e = d.propensity
    return (d.treatment - e) / (e * (1 - e)) * (d.outcome - 0.5)


@pytest.mark.parametrize("name", ["smooth", "sharp", "constant"])
def test_the_truth_is_what_weighting_by_the_true_propensity_finds(name):
    d = MADE[name](100_000, 5).train
    both_ways = d.propensity < 0.98
    own, stage = weighted_by_chance(d), d.X["stage"].astype(str).to_numpy()
    for cell in (both_ways, *(both_ways & (stage == level) for level in np.unique(stage))):
        se = own[cell].std() / np.sqrt(cell.sum())
        assert abs(own[cell].mean() - d.uplift[cell].mean()) < 3 * se < 0.04
    naive = d.outcome[d.treatment].mean() - d.outcome[~d.treatment].mean()
    assert naive < d.uplift.mean() - 0.05


def test_effects_that_are_said_to_be_larger_are_larger():
    d = MADE["sharp"](100_000, 5).train
    own, both_ways = weighted_by_chance(d), d.propensity < 0.98
    for lo, hi in ((-1, 0), (0, 0.08), (0.08, 1)):
        cell = both_ways & (d.uplift >= lo) & (d.uplift < hi)
        se = own[cell].std() / np.sqrt(cell.sum())
        assert abs(own[cell].mean() - d.uplift[cell].mean()) < 3 * se < 0.05


def test_a_planted_effect_on_real_columns_is_what_weighting_finds(tmp_path):
    path, columns = real_table(tmp_path, 40_000)
    d = real.planted_on(path, columns, 39_000, 1, n_test=500).train
    own = weighted_by_chance(d)
    se = own.std() / np.sqrt(len(d))
    assert abs(own.mean() - d.uplift.mean()) < 3 * se < 0.03
    assert d.uplift.std() > 0.01
    assert d.X["size"].isna().any()


def test_a_planted_world_keeps_its_functions_and_draws_anew(tmp_path):
    path, columns = real_table(tmp_path, 900)
    first, other = (real.planted_on(path, columns, 500, seed, n_test=300) for seed in (0, 1))
    known = dict(zip(first.train.deals, first.train.uplift, strict=True))
    both = [deal in known for deal in other.train.deals]
    assert [known[deal] for deal in other.train.deals[both]] == list(other.train.uplift[both])
    assert set(other.train.deals) != set(first.train.deals)


def test_more_rows_than_the_file_holds_are_refused(tmp_path):
    path, columns = real_table(tmp_path, 100)
    with pytest.raises(
        UserError, match=r"^table\.csv has 100 usable rows; ask for fewer than that, not 100\.$"
    ):
        real.planted_on(path, columns, 100, 0)


def real_table(folder, n):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "id": np.arange(n),
            "kind": rng.choice(["a", "b", "c"], n),
            "size": np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n)),
            "age": rng.exponential(size=n),
            "joined": rng.choice(["yes", "no"], n),
            "won": rng.choice(["Won", "Loss"], n),
        }
    )
    table.to_csv(folder / "table.csv", index=False)
    (folder / "columns.toml").write_text(
        '[decision]\nid = "id"\n[stepped_in]\ncolumn = "joined"\nyes = ["yes"]\nno = ["no"]\n'
        '[outcome]\ncolumn = "won"\nyes = ["Won"]\nno = ["Loss"]\n[reading]\nmissing = [""]\n'
    )
    return folder / "table.csv", folder / "columns.toml"


# Measures


def test_the_truth_itself_scores_perfectly():
    truth = np.random.default_rng(0).normal(0.02, 0.05, 1_000)
    assert measures.accuracy(truth, truth) == pytest.approx(
        {"rmse": 0, "r2": 1, "rank": 1, "regret": 0, "slope": 1, "bias": 0, "sd": 100 * truth.std()}
    )


def test_a_timid_and_shifted_effect_is_told_by_slope_bias_and_error():
    truth = np.random.default_rng(0).normal(0.02, 0.05, 1_000)
    said = 0.01 + truth / 2
    found = measures.accuracy(said, truth)
    assert found["slope"] == pytest.approx(2)
    assert found["rank"] == pytest.approx(1)
    assert found["bias"] == pytest.approx(1 - 100 * truth.mean() / 2)
    assert found["rmse"] ** 2 == pytest.approx(np.mean((said - truth) ** 2))
    assert found["r2"] == pytest.approx(1 - np.mean((said - truth) ** 2) / truth.var())


def test_regret_counts_what_wrong_advice_costs():
    truth = np.array([0.10, 0.05, 0.00, -0.05])
    assert measures.advice_regret(np.array([0.0, 0.2, 0.0, 0.2]), truth) == pytest.approx((7 + 8) / 4)
    assert measures.advice_regret(np.full(4, 1.0), truth) == pytest.approx((3 + 8) / 4)


def test_what_is_not_defined_is_none_not_a_number():
    same = np.full(10, 0.04)
    found = measures.accuracy(np.linspace(0, 0.1, 10), same)
    assert (found["r2"], found["rank"], found["slope"]) == (None, None, None)


def test_coverage_counts_both_ends():
    interval = np.array([[0.0, 0.1], [0.0, 0.1], [0.2, 0.3], [-0.1, 0.0]])
    found = measures.interval_quality(interval, np.array([0.0, 0.2, 0.1, -0.05]))
    assert found == pytest.approx({"coverage": 0.5, "width": 10})


def test_autoc_of_uniform_effects_ranked_right_is_a_quarter_and_qini_a_twelfth():
    effect = (np.arange(20_000) + 0.5) / 20_000
    assert measures.autoc(effect, effect) == pytest.approx(0.25, abs=1e-3)
    assert measures.qini(effect, effect) == pytest.approx(1 / 12, abs=1e-3)
    assert measures.autoc(np.zeros(20_000), effect) == pytest.approx(0, abs=1e-9)
    assert measures.autoc(-effect, effect) == pytest.approx(-0.25, abs=1e-3)


# What peers are fed


def test_ids_are_encoded_out_of_fold_so_that_noise_does_not_look_like_knowledge():
    world = worlds.smooth(6_000, 2, n_test=2_000)
    rng = np.random.default_rng(1)
    world.train.X["city"] = pd.Categorical(rng.integers(0, 2_000, len(world.train)).astype(str))
    encoding = Encoding(ENCODED)
    matrix = encoding.fit_transform(world.train)
    at = matrix.shape[1] - 3  # city: stepped in, outcome without, outcome with
    assert abs(np.corrcoef(matrix[:, at], world.train.treatment)[0, 1]) < 0.05
    assert encoding.transform(world.test.X).shape == (len(world.test), matrix.shape[1])


@pytest.mark.parametrize("ids", [LEVELS, ENCODED, LEFT_OUT])
def test_a_filled_matrix_has_no_gap_and_an_open_one_keeps_them(ids):
    world = worlds.smooth(1_500, 2, n_test=300)
    filled, bare = Encoding(ids, filled=True), Encoding(ids)
    assert np.isfinite(filled.fit_transform(world.train)).all()
    assert np.isfinite(filled.transform(world.test.X)).all()
    matrix = bare.fit_transform(world.train)
    assert np.isnan(matrix[:, bare.codes]).any()
    assert np.nanmin(matrix[:, bare.codes]) == 0
    assert matrix[:, bare.codes].shape[1] == len(bare.codes) > 0


@pytest.mark.parametrize("filled", [False, True])
def test_a_level_that_training_never_saw_reads_as_missing(filled):
    world = worlds.smooth(1_500, 2, n_test=300)
    encoding = Encoding(LEFT_OUT, filled)
    encoding.fit_transform(world.train)
    odd = world.test.X.assign(industry=pd.Categorical(["new"] * len(world.test)))
    gone = world.test.X.assign(industry=pd.Categorical([None] * len(world.test)))
    np.testing.assert_array_equal(encoding.transform(odd), encoding.transform(gone))


# Learners


def test_stepin_beats_the_constant_on_a_smooth_world():
    world = worlds.smooth(2_500, 7, n_test=2_000)
    error = {}
    for make in (Stepin, Constant):
        learner = make()
        learner.fit(world.train)
        error[make] = measures.accuracy(learner.effect(world.test.X), world.test.uplift)["rmse"]
        assert learner.interval(world.test.X).shape == (2_000, 2)
    assert error[Stepin] < 0.95 * error[Constant]


PEERS = [each for each in ENTRIES if each.name not in page.NOT_PEERS]


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_finds_a_large_planted_effect(peer):
    absent = [name for name in peer.modules if find_spec(name.split(".")[0]) is None]
    if absent:
        pytest.skip(f"{', '.join(absent)} not installed: `make bench` has an environment with it")
    world = worlds.constant(2_000, 3, n_test=200, uplift=0.3)
    learner = peer.make()
    learner.fit(world.train)
    assert abs(learner.effect(world.test.X).mean() - world.test.uplift.mean()) < 0.1
    assert learner.one_row(world.test.X.iloc[[0]])() is not None


def test_an_unknown_learner_is_refused_by_name():
    with pytest.raises(UserError, match=r"^no learner is called 'oracle'; known: stepin, constant, "):
        entry("oracle")


# One run


def test_a_run_in_a_process_of_its_own_says_all_figures(tmp_path):
    (tmp_path / "world.pkl").write_bytes(pickle.dumps(worlds.smooth(1_200, 1, n_test=300)))
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.one", tmp_path / "world.pkl", "constant", "60"],
        cwd=ROOT,
        env=one.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    figures = json.loads(ended.stdout)
    assert set(figures) == {
        *("cpu", "memory", "latency", "coverage", "width"),
        *("rmse", "r2", "rank", "regret", "slope", "bias", "sd"),
    }
    assert 0 < figures["cpu"] < 30
    assert 50 < figures["memory"] < 2_000
    assert figures["r2"] <= 0


def test_a_repeated_run_replaces_its_line_and_no_other(tmp_path):
    results = runs.Results(tmp_path / "new" / "results.jsonl")
    key = {"table": "worlds", "world": "smooth", "rows": 5_000, "learner": "stepin"}
    for seed, rmse in ((0, 0.1), (1, 0.2), (0, 0.3)):
        results.put({**key, "seed": seed, "rmse": rmse})
    assert [(run["seed"], run["rmse"]) for run in results.read()] == [(0, 0.3), (1, 0.2)]
    assert results.has(**key, seed=1)
    assert not results.has(**key, seed=2)


# The page


def run(learner, seed, rmse, **more):
    figures = {"r2": 0.5, "rank": 0.7, "regret": 1.0, "slope": 1.0, "bias": 0.1, "sd": 8.0, "cpu": 2.0}
    key = {"table": "worlds", "world": "smooth", "rows": 5_000, "seed": seed, "learner": learner}
    return {**key, "rmse": rmse, **figures, "memory": 300.0, "latency": 0.5, **more}


def test_the_page_shows_mean_and_spread_and_the_paired_difference():
    made = [run("stepin", s, 0.05 + s / 100, coverage=0.9, width=12.0) for s in (0, 1)]
    made += [run("CausalML X-learner", s, 0.06 + s / 50, cpu=3.0) for s in (0, 1)]
    made += [run("EconML DRLearner", s, 0.2, r2=-1.0) for s in (0, 1)]
    text = page.write(made)
    assert "| **stepin** | 5.50 ± 0.71 | 0.50 |" in text
    rows = re.findall(r"^\| (\S+).* ± .*–? \|$", text.split("## Smooth")[1], flags=re.MULTILINE)
    assert rows == ["**stepin**", "CausalML", "EconML"]
    assert (
        "The best peer's error (CausalML X-learner) less stepin's, on the same data: +1.50 points (standard "
        "deviation 0.71); stepin's is smaller in 2 of 2 seeds. CPU time: 0.67 times that of CausalML "
        "X-learner, the fastest peer within 0.02 R² of it." in text
    )
    assert (
        "| Smooth world | 5,000 | 5.50 ± 0.71 | CausalML X-learner | 7.00 ± 1.41 | 2 of 2 | 90% | 2.0 |"
        in text
    )


def test_the_page_says_so_where_stepin_is_worse():
    made = [run("stepin", 0, 0.09), run("EconML DRLearner", 0, 0.08), run("constant", 0, 0.01)]
    assert (
        "(EconML DRLearner) less stepin's, on the same data: -1.00 points; stepin's is smaller nowhere."
        in page.write(made)
    )


def test_a_run_that_was_ended_is_shown_with_its_reason():
    made = [run("stepin", 0, 0.09), {**run("EconML DRLearner", 0, 0.08), "failed": "over 60 CPU seconds"}]
    del made[1]["rmse"]
    assert "| EconML DRLearner | over 60 CPU seconds |" in page.write(made)


def test_every_learner_states_its_settings_on_the_page():
    text = page.write([])
    for each in ENTRIES:
        assert each.settings
        assert f"| {each.name} | {each.settings} |" in text


def test_every_world_has_a_title():
    assert set(runs.makers()) <= set(TITLES)


# Real data


def test_hillstroms_file_is_read_and_split_in_halves(tmp_path):
    train, test = real.hillstrom(hillstrom_file(tmp_path, 400))
    assert abs(len(train) - len(test)) <= 1
    assert set(train.X) == {"recency", "history", "mens", "womens", "zip_code", "newbie", "channel"}
    assert np.isnan(train.uplift).all()
    assert 0.3 < np.concatenate([train.treatment, test.treatment]).mean() < 0.7


def test_scores_of_a_trial_average_to_its_difference(tmp_path):
    _, test = real.hillstrom(hillstrom_file(tmp_path, 6_000))
    own = lalonde.difference(test, np.ones(len(test), dtype=bool))
    assert hillstrom.trial_scores(test).mean() == pytest.approx(own.value, abs=own.se / 3)


def test_who_ranks_a_trial_right_has_the_higher_autoc(tmp_path):
    found = hillstrom.compare(hillstrom_file(tmp_path, 6_000), ["stepin", "constant"])
    by = {line["learner"]: line for line in found}
    assert by["stepin"]["autoc"] > by["constant"]["autoc"] + 2 * by["stepin"]["autoc_se"]
    assert "| stepin |" in page.write(found)


def test_a_file_that_is_not_hillstroms_is_refused(tmp_path):
    (tmp_path / "h.csv").write_text("recency,history\n1,2\n")
    with pytest.raises(UserError, match=r"^h\.csv lacks history_segment, mens, .*; expected Hillstrom's"):
        real.hillstrom(tmp_path / "h.csv")


def hillstrom_file(folder, n):
    """A made file in the trial's format: e-mail works on buyers of women's clothes only."""
    rng = np.random.default_rng(0)
    womens = rng.integers(0, 2, n)
    segment = rng.choice(["Womens E-Mail", "No E-Mail", "Mens E-Mail"], n)
    visit = rng.random(n) < 0.2 + 0.4 * womens * (segment == "Womens E-Mail")
    pd.DataFrame(
        {
            "recency": rng.integers(1, 13, n),
            "history_segment": "1) $0 - $100",
            "history": rng.gamma(2, 100, n).round(2),
            "mens": 1 - womens,
            "womens": womens,
            "zip_code": rng.choice(["Urban", "Rural", "Surburban"], n),
            "newbie": rng.integers(0, 2, n),
            "channel": rng.choice(["Web", "Phone", "Multichannel"], n),
            "segment": segment,
            "visit": visit.astype(int),
            "conversion": 0,
            "spend": 0.0,
        }
    ).to_csv(folder / "hillstrom.csv", index=False)
    return folder / "hillstrom.csv"


def test_the_effect_on_the_treated_survives_a_wrong_propensity_or_a_wrong_outcome_model():
    from training.nuisance import Nuisances

    rng = np.random.default_rng(3)
    n = 200_000
    x = rng.random(n)
    e = 0.2 + 0.6 * x
    treatment = rng.random(n) < e
    outcome = 5 * x + treatment * (1 + 2 * x) + rng.normal(size=n)
    own, unknown = np.arange(n), np.full(n, np.nan)
    d = worlds.Decisions(pd.DataFrame({"x": x}), treatment, outcome, own, own, unknown, unknown)
    truth = (1 + 2 * x)[treatment].mean()
    rows, zero, half = np.ones(n, dtype=bool), np.zeros(n), np.full(n, 0.5)
    for e_said, back in ((e, zero), (half, 5 * x)):
        found = lalonde.effect_on_treated(d, Nuisances(e_said, back, back, 0, 1.0), rows)
        assert abs(found.value - truth) < 4 * found.se < 0.1
    both_wrong = lalonde.effect_on_treated(d, Nuisances(half, zero, zero, 0, 1.0), rows)
    assert abs(both_wrong.value - truth) > 0.5


def test_the_page_says_how_far_an_estimate_is_from_the_trials_own():
    counts = dict.fromkeys(["rows", "rarely", "nearly_always", "few_alike", "controls_supported", "trial"], 9)
    about = {**counts, "supported": 9, "treated": 9, "treated_supported": 9, "trial_supported": 9}
    trial = {"table": "lalonde", "learner": "the trial", "value": 1800.0, "se": 600.0, "all": 1700.0, **about}
    near = {"table": "lalonde", "learner": "near", "value": 1500.0, "se": 900.0}
    none = {"table": "lalonde", "learner": "none", "all": -50.0}
    text = page.write([trial, near, none])
    assert "| the trial | 1,800 (600) |  | 1,700 |" in text
    assert "| near | 1,500 (900) | -0.50 | – |" in text
    assert "| none | – | – | -50 |" in text


def test_lalondes_tables_are_those_of_the_trial():
    if find_spec("causaldata") is None:
        pytest.skip("causaldata not installed: `make bench` has an environment with it")
    pooled, trial = real.lalonde()
    assert (len(pooled), pooled.treatment.sum(), len(trial)) == (16_177, 185, 445)
    own = lalonde.difference(trial, np.ones(445, dtype=bool))
    assert (own.value, own.se) == pytest.approx((1794.34, 671.0), abs=0.05)


def test_the_command_writes_the_page_from_what_is_on_file(tmp_path):
    runs.Results(tmp_path / "r.jsonl").put(run("stepin", 0, 0.05))
    ended = bench("--worlds", "--results", tmp_path / "r.jsonl", "--out", tmp_path / "page.md")
    assert (ended.returncode, ended.stdout) == (0, "")
    assert "| **stepin** | 5.00 |" in (tmp_path / "page.md").read_text()


def test_the_command_refuses_a_world_that_it_does_not_know(tmp_path):
    ended = bench("--worlds", "moon", "--out", tmp_path / "page.md")
    assert ended.returncode == 1
    assert ended.stderr.startswith(
        "no world is called 'moon' here; known: crm, smooth, sharp, constant, zero"
    )
    assert not (tmp_path / "page.md").exists()


def bench(*words):
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )

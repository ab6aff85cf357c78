"""From a small simulated CRM to a model folder, its answers and its run in MLflow."""

import asyncio
import json
import math
import re
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import numpy as np
import pandas as pd
import pytest
from threadpoolctl import threadpool_limits

from features import build_decisions, open_decisions
from features.simulator import simulate
from serving.app import create_app
from serving.settings import Settings
from training import model_folder, pipeline, registry, tracking
from training.config import TrainingConfig
from training.gate import NotEnoughEvidenceError, refuse_too_little
from training.scorecard import Scorecard
from training.scoring import learned_categories, score_table
from training.sequence import blocks_in_time, judged_blocks

CONFIG = TrainingConfig(draws=40, most_pairs=2, n_folds=2, n_jobs=1, judged_blocks=2)
FILES = {
    "manifest.json",
    "facts.json",
    "scorecard.json",
    "scorecard.npz",
    "held_out.parquet",
    "report.html",
}


def learn(decisions, folder, **more):
    with threadpool_limits(limits=1):  # threads of so small a fit mostly wait for each other
        return pipeline.train(
            decisions, folder, CONFIG, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC), **more
        )


@pytest.fixture(scope="module")
def crm():
    return simulate(3000, seed=3).tables


@pytest.fixture(scope="module")
def decisions(crm):
    return build_decisions(crm)


@pytest.fixture(scope="module")
def trained(decisions, tmp_path_factory):
    return learn(decisions, tmp_path_factory.mktemp("models") / "model", name="winter")


@pytest.fixture(scope="module")
def waiting(crm):
    return open_decisions(crm)


def numbers_in(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in numbers_in(inner)]
    return [value] if isinstance(value, float) else []


def test_a_model_folder_holds_what_was_promised_and_no_pickle(trained):
    assert {path.name for path in trained.folder.iterdir()} == FILES
    assert set(model_folder.verify(trained.folder).files) == FILES - {"manifest.json"}
    with np.load(trained.folder / "scorecard.npz", allow_pickle=False) as stored:
        assert all(stored[name].dtype != object for name in stored.files)


def test_the_facts_are_json_that_every_parser_reads(trained):
    def refuse(constant):
        raise AssertionError(f"facts.json holds {constant}, which is not JSON")

    text = (trained.folder / "facts.json").read_text(encoding="utf-8")
    facts = json.loads(text, parse_constant=refuse)
    assert facts == json.loads(json.dumps(trained.facts))
    assert all(map(math.isfinite, numbers_in(facts)))
    assert facts["name"] == "winter"
    assert facts["trained_at"] == "2026-01-01T00:00:00+00:00"


def test_each_judged_block_is_newer_than_what_its_model_learned_from(trained, decisions):
    held_out = pd.read_parquet(trained.folder / "held_out.parquet").set_index("decision_id")
    block = held_out["block"].reindex(decisions.rows.index, fill_value=0)
    deals = decisions.rows.assign(block=block).groupby("deal_id")
    assert (deals["block"].nunique() == 1).all()  # a deal brings all its decisions
    first = deals["decided_at"].min().groupby(deals["block"].first())
    shares = first.size() / decisions.rows["deal_id"].nunique()
    assert shares.tolist() == pytest.approx([0.4, 0.3, 0.3], abs=0.01)
    assert (first.max().to_numpy()[:-1] < first.min().to_numpy()[1:]).all()


def test_the_facts_say_what_was_learned_from_and_what_was_judged(trained, decisions):
    held_out = pd.read_parquet(trained.folder / "held_out.parquet")
    learned = trained.facts["learned_from"]
    judged = learned["held_out"]
    assert (learned["decisions"], judged["decisions"]) == (len(decisions), len(held_out))
    assert judged["fewer_blocks_than_asked"] is False
    sizes = held_out["block"].value_counts().sort_index().tolist()
    assert [block["decisions"] for block in judged["blocks"]] == sizes
    before = len(decisions) - len(held_out) + np.cumsum([0, *sizes[:-1]])
    assert [block["learned_from"] for block in judged["blocks"]] == before.tolist()


def test_the_served_model_learned_from_all_decisions(trained, decisions):
    assert Scorecard.read(trained.folder).cells.counts.sum() == len(decisions)


def test_where_nothing_helps_one_number_is_served_that_each_block_knew_before(tmp_path):
    quick = replace(CONFIG, draws=10, most_pairs=0)
    nothing = build_decisions(simulate(1500, seed=5, effect=False).tables)
    with threadpool_limits(limits=1):
        found = pipeline.train(nothing, tmp_path / "model", quick)
    assert not found.evaluation.heterogeneous
    card = Scorecard.read(found.folder)
    assert not card.heterogeneous
    held_out = pd.read_parquet(found.folder / "held_out.parquet")
    served = held_out.groupby("block")["uplift"].unique()
    assert [len(values) for values in served] == [1, 1]
    assert len({card.baseline[0], *np.concatenate(served.tolist())}) == 3  # more was known each time
    assert "So the one number is served." in (found.folder / "report.html").read_text(encoding="utf-8")


def test_a_block_is_answered_without_its_own_outcomes_or_choices(decisions):
    blocks, _ = blocks_in_time(decisions, replace(CONFIG, judged_blocks=1))
    newest = blocks == 1
    turned = decisions.rows.assign(
        outcome=np.where(newest, 1 - decisions.outcome, decisions.outcome),
        stepped_in=np.where(newest, ~decisions.treatment, decisions.treatment),
    )
    first, again = (
        judged_blocks(table, blocks, lambda older: pipeline._fit(older, CONFIG))[0]
        for table in (decisions, replace(decisions, rows=turned))
    )
    np.testing.assert_array_equal(again.answers.uplift, first.answers.uplift)
    np.testing.assert_array_equal(again.answers.supported, first.answers.supported)
    assert again.constant == first.constant
    assert first.learned == np.sum(~newest)


def test_too_small_a_first_block_takes_the_next_ones_in(decisions):
    one_of_five = decisions.take(np.arange(len(decisions)) % 5 == 0)
    config = replace(CONFIG, first_share=0.05, judged_blocks=6)
    blocks, fewer = blocks_in_time(one_of_five, config)
    assert fewer
    assert 1 < blocks.max() < 6
    refuse_too_little(one_of_five.take(blocks == 0))
    plenty, fewer = blocks_in_time(decisions, replace(CONFIG, first_share=0.4, judged_blocks=6))
    assert (plenty.max(), fewer) == (6, False)


def test_without_dates_partners_are_judged_that_the_model_never_saw(decisions):
    undated = replace(
        decisions,
        rows=decisions.rows.assign(decided_at=pd.Series(pd.NaT, decisions.rows.index, "M8[us, UTC]")),
    )
    blocks, _ = blocks_in_time(undated, CONFIG)
    assert (pd.Series(blocks).groupby(decisions.groups).nunique() == 1).all()
    assert set(blocks) == {0, 1, 2}


def test_the_same_seed_gives_the_same_files(trained, decisions, tmp_path):
    again = learn(decisions, tmp_path / "again", name="winter")
    assert again.digest == trained.digest


def test_open_deals_are_scored_as_the_server_answers_them(trained, waiting):
    table = score_table(trained.folder, waiting).set_index("deal_id")
    names = trained.facts["features"]
    deals = [
        {
            "deal_id": deal_id,
            "features": {f["name"]: plain(waiting.features[f["name"]].iloc[row]) for f in names},
        }
        for row, deal_id in enumerate(waiting.rows["deal_id"].head(200))
    ]
    answers = ask(trained.folder, {"deals": deals})
    assert len(answers) == len(deals) > 50
    for answer in answers:
        row = table.loc[answer["deal_id"]]
        assert answer["advice"] == row["advice"]
        assert answer["uplift_points"] == pytest.approx(100 * row["uplift"], abs=1e-6)
        low, high = answer["uplift_interval_points"]
        assert (low, high) == pytest.approx((100 * row["uplift_lo"], 100 * row["uplift_hi"]), abs=1e-6)
        assert answer["win_probability"]["step_in"] == pytest.approx(row["win_if_step_in"], abs=1e-6)
        assert answer["break_even_points"] == pytest.approx(100 * row["break_even"], abs=1e-6)


def plain(value):
    if pd.isna(value):
        return None
    return value.item() if isinstance(value, np.generic) else value


def ask(folder, document):
    async def go():
        transport = httpx.ASGITransport(
            create_app(Settings(folder, database=f"sqlite:///{folder.parent / 'stepin.db'}", log="off"))
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            reply = await client.post("/v1/recommendations/batch", json=document)
            assert reply.status_code == 200, reply.text
            return reply.json()["recommendations"]

    return asyncio.run(go())


def test_further_columns_change_no_score_and_lacking_ones_are_named(trained, waiting):
    plainly = score_table(trained.folder, waiting)
    wider = replace(waiting, features=waiting.features.assign(shoe_size=42.0))
    pd.testing.assert_frame_equal(score_table(trained.folder, wider), plainly)
    narrower = replace(waiting, features=waiting.features.drop(columns=["stage", "pair_first_sale"]))
    n = len(trained.facts["features"])
    message = (
        f"The decisions lack 2 of the model's {n} features: stage, pair_first_sale. "
        "Bring every column that the model learned from; missing values are fine."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        score_table(trained.folder, narrower)


def test_a_feature_that_was_left_out_for_being_empty_counts_as_missing(trained, waiting):
    empty = replace(waiting, features=waiting.features.assign(product_line=pd.Series(None, dtype="str")))
    why = [{"column": "product_line", "why": "all missing"}]
    left_out = replace(
        waiting,
        features=waiting.features.drop(columns="product_line"),
        about=waiting.about | {"left_out_columns": why},
    )
    expected, came = (score_table(trained.folder, table)["uplift"] for table in (empty, left_out))
    assert came.tolist() == expected.tolist()


def test_a_category_never_seen_in_training_is_scored(trained, waiting):
    new = replace(waiting, features=waiting.features.assign(product_line="never heard of"))
    table = score_table(trained.folder, new)
    assert np.isfinite(table[["uplift", "uplift_lo", "uplift_hi"]]).all(axis=None)
    assert "product_line" in learned_categories(trained.folder)


def test_texts_for_a_number_are_refused_with_their_rows(trained, waiting):
    amounts = waiting.features["amount"].astype("object")
    amounts.iloc[1] = "a lot"
    texts = replace(waiting, features=waiting.features.assign(amount=amounts.astype("str")))
    message = (
        "decisions: column 'amount' should hold numbers, as when the model learned; came 'a lot' "
        f"(1 row: {waiting.rows.index[1]})."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        score_table(trained.folder, texts)


def few(decisions, n):
    return decisions.take(np.arange(len(decisions)) < n)


def test_too_little_data_is_refused_with_counts(decisions, tmp_path):
    small = few(decisions, 120)
    t, y = small.treatment, small.outcome == 1
    counts = [int(np.sum(a & b)) for a, b in ((t, y), (t, ~y), (~t, y), (~t, ~y))]
    named = "{} won with the vendor, {} lost with the vendor, {} won without, {} lost without".format(*counts)
    message = (
        f"The evidence is not enough to advise on: 120 decisions, {named}; "
        "at least 40 of each are needed. Nothing was written. Bring more past deals"
    )
    with pytest.raises(
        NotEnoughEvidenceError, match=f"^{re.escape(message)}: about [\\d,]+ more decisions like these\\.$"
    ):
        learn(small, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_three_partners_are_too_few(decisions, tmp_path):
    largest = decisions.rows["partner_id"].value_counts().index[:3]
    three = decisions.take(decisions.rows["partner_id"].isin(largest))
    message = (
        "The evidence is not enough to advise on: it comes from 3 partners; at least 10 are needed to tell "
        "an effect from a partner's habits. Nothing was written."
    )
    with pytest.raises(NotEnoughEvidenceError, match=f"^{re.escape(message)}$"):
        learn(three, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def on_one_day(rows):
    return rows.assign(decided_at=rows["decided_at"].iloc[0])


def lately_always_helped(rows):
    return rows.assign(
        stepped_in=rows["stepped_in"] | (rows["decided_at"] > rows["decided_at"].quantile(0.3))
    )


@pytest.mark.parametrize("change", [on_one_day, lately_always_helped])
def test_newest_deals_that_cannot_be_judged_are_refused(change, decisions, tmp_path):
    with pytest.raises(
        NotEnoughEvidenceError,
        match=r"^The evidence is not enough to judge a model on: [\d,]+ decisions were "
        r"set aside for that, .* 0 won without, 0 lost without; at least 10 of each are needed\. "
        r"Nothing was written\. Are the dates right, and did both happen lately\?$",
    ):
        learn(replace(decisions, rows=change(decisions.rows)), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_fails_leaves_nothing_behind(decisions, tmp_path, monkeypatch):
    def break_down(folder, *_rest):
        assert (folder / "facts.json").is_file()  # all but the report is written by then
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "write_report", break_down)
    with pytest.raises(KeyboardInterrupt):
        learn(few(decisions, 1200), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_is_refused_before_anything_is_learned(trained, decisions):
    steps = []
    with pytest.raises(model_folder.ModelFolderError, match=r"^.*model already holds a model; name another"):
        learn(decisions, trained.folder, notify=steps.append)
    assert steps == []


def test_the_run_is_recorded_and_the_model_registered_under_its_aliases(
    trained, decisions, tmp_path, monkeypatch
):
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    run = tracking.track(trained, decisions, CONFIG, "winter")
    import mlflow

    kept = mlflow.MlflowClient(store).get_run(run.run_id)
    assert kept.data.params["draws"] == "40"
    assert kept.data.params["policy_break_even_points"] == "3.0"
    assert kept.data.metrics == pytest.approx(trained.evaluation.metrics())
    assert kept.data.tags["data_digest"] == decisions.digest()
    assert kept.data.tags["model_digest"] == trained.digest
    assert kept.inputs.dataset_inputs[0].dataset.digest == decisions.digest()[:36]
    assert run.version == 1
    for alias in ("champion", "challenger"):
        found = registry.resolve(f"models:/winter@{alias}", store)
        assert model_folder.verify(found).digest == trained.digest

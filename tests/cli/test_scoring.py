"""Models at fault, and what a whole one makes of new deals."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from command_line import changed, done, one_document, run


def remake_manifest(model: Path, **changes) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    (model / "manifest.json").write_text(json.dumps(manifest | changes))


DAMAGED = (
    "bad is a damaged model: {} is missing or was changed after it was written. "
    "Copy the model again from where it was made, or train again."
)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda model: (model / "scorecard.npz").unlink(), DAMAGED.format("scorecard.npz")),
        (lambda model: (model / "scorecard.json").write_text("{}"), DAMAGED.format("scorecard.json")),
        (lambda model: (model / "manifest.json").write_bytes(b"\xff["), DAMAGED.format("manifest.json")),
        (
            lambda model: remake_manifest(model, format=9),
            "bad is a model of format 9; this stepin reads up to 1. "
            "Upgrade stepin, or train the model again with this one.",
        ),
    ],
    ids=["a file gone", "a file changed", "no manifest", "a later format"],
)
@pytest.mark.parametrize("command", ["score bad CRM out.parquet", "serve bad --port 0"])
def test_a_model_at_fault_is_refused_in_one_sentence(command, damage, message, model, crm, here):
    shutil.copytree(model, "bad")
    damage(here / "bad")
    said = run(*command.replace("CRM", str(crm)).split())
    assert said.err == f"stepin: {message}\n"
    assert (said.status, said.out) == (1, "")
    assert not list(here.glob("*out*"))


def test_the_open_deals_of_a_folder_are_scored(model, crm, here):
    said = done("score", model, crm, "out.parquet", "--json")
    scored = pd.read_parquet("out.parquet")
    deals = pd.read_parquet(crm / "deals.parquet")
    assert set(scored["deal_id"]) <= set(deals.loc[deals["outcome"] == "open", "deal_id"])
    document = one_document(said.out)
    assert document["decisions"] == len(scored) > 0
    assert document["advice"] == scored["advice"].value_counts().to_dict()


def test_a_value_never_seen_in_training_is_scored(model, crm, here):
    changed(crm, here / "tables", deals=lambda deals: deals.assign(product_line="brand new"))
    done("score", model, "tables", "out.parquet")
    assert np.isfinite(pd.read_parquet("out.parquet")["uplift"]).all()


def test_a_folder_without_open_deals_has_nothing_to_score(model, crm, here):
    def closed(deals):
        is_open = deals["outcome"] == "open"
        return deals.assign(
            closed_at=deals["closed_at"].where(~is_open, deals["closed_at"].max()),
            outcome=deals["outcome"].where(~is_open, "lost"),
        )

    changed(crm, here / "tables", deals=closed)
    said = run("score", model, "tables", "out.parquet")
    assert said.err == "stepin: There is no decision to score: no deal is open. Nothing was written.\n"
    assert said.status == 1
    assert not list(here.glob("*out*"))


FLAT = """
[decision]
id = "deal"
partner = "reseller"
[stepped_in]
column = "helped"
yes = ["y"]
no = ["n"]
[outcome]
column = "result"
yes = ["won"]
no = ["lost"]
"""


def flat_table(n=1200):
    rng = np.random.default_rng(0)
    size, helped = rng.normal(size=n), rng.random(n) < 0.5
    return pd.DataFrame(
        {
            "deal": np.arange(n),
            "reseller": rng.integers(0, 40, n),
            "helped": np.where(helped, "y", "n"),
            "result": np.where(rng.random(n) < 0.4 + 0.1 * helped, "won", "lost"),
            "size": size.round(2),
            "code": rng.choice(["01", "2", "other"], n),
        }
    )


def test_names_of_which_no_two_are_the_same_are_left_out_and_said(here):
    table = flat_table().assign(note=lambda rows: "deal of " + rows["deal"].astype("str"), same="x")
    table.to_csv("past.csv", index=False)
    Path("columns.toml").write_text(FLAT)
    said = done(
        "train", "past.csv", "--columns", "columns.toml", "--out", "model", "--no-track", "--jobs", "1"
    )
    assert said.out.splitlines()[1] == (
        "Left out, for they say nothing: note (another one in every row), same (the same everywhere)"
    )


def test_a_code_that_looks_like_a_number_stays_the_level_it_was(here):
    table = flat_table()
    table.to_csv("past.csv", index=False)
    table[table["code"] != "other"].drop(columns=["helped", "result"]).to_csv("new.csv", index=False)
    Path("columns.toml").write_text(FLAT)
    done("train", "past.csv", "--columns", "columns.toml", "--out", "model", "--no-track", "--jobs", "1")
    done("score", "model", "past.csv", "past.parquet", "--columns", "columns.toml")
    done("score", "model", "new.csv", "new.parquet", "--columns", "columns.toml")
    past, new = (pd.read_parquet(f"{name}.parquet").set_index("deal_id") for name in ("past", "new"))
    assert len(new) > 500
    columns = ["win_if_step_back", "win_if_step_in", "uplift", "propensity"]
    pd.testing.assert_frame_equal(new[columns], past.loc[new.index, columns])

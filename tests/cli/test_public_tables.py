"""Other people's tables, from file to answer."""

import json
import re
import subprocess
import urllib.request

import pandas as pd
import pytest
from command_line import ROOT, STEPIN, done, everything_in, one_document, run

DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def others():
    if not DATA.is_dir():
        pytest.skip(f"the public tables are not in {DATA}")
    return DATA


def test_the_ibm_table_is_learned_from_and_served(others, here):
    table = pd.read_csv(others / "ibm_win_loss" / "sales_win_loss.csv.gz", dtype="str", keep_default_na=False)
    table.sample(12_000, random_state=0).to_csv("sales.csv.gz", index=False)
    columns = ROOT / "examples" / "ibm_win_loss.toml"
    said = done("train", "sales.csv.gz", "--columns", columns, "--out", "ibm", "--no-track", "--json")
    facts = one_document(said.out)["facts"]
    assert facts["learned_from"]["partners"] is None
    assert 10_000 < facts["learned_from"]["decisions"] < 12_000
    assert facts["learned_from"]["held_out"]["decisions"] > 5_000
    server = subprocess.Popen(
        [*STEPIN, "serve", "ibm", "--port", "0"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        url = re.search(r"http://\S+?:\d+", server.stderr.readline()).group(0)
        body = {"deal_id": "1", "features": {"Region": "Midwest", "Opportunity Amount USD": 50000}}
        request = urllib.request.Request(
            f"{url}/v1/recommendations", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=20) as reply:
            answer = json.load(reply)
    finally:
        server.terminate()
        server.communicate(timeout=20)
    parts = answer["baseline_points"] + sum(r["points"] for r in answer["reasons"]) + answer["other_points"]
    assert parts == pytest.approx(answer["uplift_points"], abs=1e-6)
    assert server.returncode == 0


def test_the_salvirt_table_is_too_little(others, here):
    source = others / "salvirt" / "Salvirt_B2B_ML_dataset.csv"
    said = run("train", source, "--columns", ROOT / "examples" / "salvirt.toml", "--out", "model")
    assert said.err.splitlines()[-1] == (
        "stepin: The evidence is not enough to advise on: 448 decisions, 191 won with the vendor, "
        "204 lost with the vendor, 36 won without, 17 lost without; at least 40 of each are needed. "
        "Nothing was written. Bring more past deals: about 610 more decisions like these."
    )
    assert (said.status, said.out) == (1, "")
    assert everything_in(here) == []

"""Advice as a table, and as an import file for a CRM whose loader reads it."""

import csv
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from command_line import ROOT, done, one_document, run

from features import read_tables
from serving.model import load
from serving.reading import DealAsked
from serving.recommend import Recommender
from serving.settings import Settings
from serving.write_back import CRMS, Layout

ADVICE = ("step_in", "step_back", "too_close_to_call", "not_enough_evidence")


def rows_of(path, encoding="utf-8"):
    with Path(path).open(encoding=encoding, newline="") as file:
        return list(csv.DictReader(file, strict=True))


def test_csv_holds_what_parquet_holds(model, crm, here):
    done("score", model, crm, "out.parquet")
    done("score", model, crm, "out.csv")
    table, text = pd.read_parquet("out.parquet"), pd.read_csv("out.csv")
    assert list(text.columns) == list(table.columns)
    assert text["deal_id"].astype(str).tolist() == table["deal_id"].tolist()
    for column in ("uplift", "score", "propensity"):
        assert text[column].to_numpy() == pytest.approx(table[column].to_numpy(), nan_ok=True)
    assert text["advice"].tolist() == table["advice"].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("out.xlsx",), "out.xlsx should end in .parquet or .csv: the table is written as Parquet or CSV."),
        (
            ("out.parquet", "--write-back", "salesforce"),
            "out.parquet should end in .csv: the table is written as CSV.",
        ),
        (
            ("out.csv", "--write-back", "sap"),
            "--write-back takes salesforce, dynamics, hubspot or a file FILE.toml; came 'sap'.",
        ),
        (
            ("out.csv", "--write-back", "mine.toml"),
            "mine.toml does not exist; name salesforce, dynamics, hubspot, or a file FILE.toml.",
        ),
    ],
)
def test_what_cannot_be_written_is_refused_before_any_work(arguments, message, model, crm, here):
    said = run("score", model, crm, *arguments)
    assert (said.status, said.out, said.err) == (1, "", f"stepin: {message}\n")
    assert not list(here.glob("*out*"))


@pytest.mark.parametrize("crm_name", CRMS)
def test_every_open_deal_has_a_record_in_the_crms_own_columns(crm_name, model, crm, here):
    said = done("score", model, crm, "out.csv", "--write-back", crm_name, "--json")
    layout = Layout.read(crm_name)
    rows = rows_of("out.csv", layout.encoding)
    assert list(rows[0]) == list(layout.columns)
    done("score", model, crm, "out.parquet")
    table = pd.read_parquet("out.parquet").set_index("deal_id")
    column = {fact: name for name, fact in layout.columns.items()}
    assert [row[column["deal_id"]] for row in rows] == table.index.tolist()
    for row in rows:
        expected = table.loc[row[column["deal_id"]]]
        assert row[column["advice"]] == layout.advice[expected["advice"]]
        assert float(row[column["uplift_points"]]) == pytest.approx(100 * expected["uplift"], abs=6e-4)
        if row[column["score"]] == layout.missing:
            assert not expected["supported"]
        else:
            assert float(row[column["score"]]) == pytest.approx(expected["score"], abs=6e-4)
    document = one_document(said.out)
    assert document["advice"] == table["advice"].value_counts().to_dict()
    assert (document["decisions"], document["mind"]) == (len(rows), [])


def test_the_reasons_are_the_sentences_that_the_server_says(model, crm, here):
    done("score", model, crm, "out.csv", "--write-back", "hubspot")
    done("score", model, crm, "out.parquet")
    from features import open_decisions
    from training.scoring import values_as_learned

    tables = read_tables(crm)
    decisions = open_decisions(tables)
    recommender = Recommender.of(load(Settings(model)))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for row, values in zip(rows_of("out.csv"), values_as_learned(model, decisions), strict=True):
        recommender.model.scorecard.check_values(values)
        answered = recommender.answer(DealAsked(row["Record ID"], values, None), now)
        said = [reason["sentence"] for reason in json.loads(answered.body)["reasons"]][:3]
        assert [row[f"stepin_reason_{i}"] for i in (1, 2, 3)] == [*said, "", "", ""][:3]
        moment = datetime.strptime(row["stepin_as_of"], "%Y-%m-%dT%H:%M:%S.000Z")
        assert abs(moment - tables.now.to_pydatetime().replace(tzinfo=None)).total_seconds() < 1


def test_each_loader_gets_its_bytes(model, crm, here):
    for name in CRMS:
        done("score", model, crm, f"{name}.csv", "--write-back", name)
    salesforce, dynamics, hubspot = (Path(f"{name}.csv").read_bytes() for name in CRMS)
    assert salesforce.startswith(b"Id,Stepin_Score__c,Stepin_Advice__c,")
    assert dynamics.startswith(b"\xef\xbb\xbfOpportunity,Stepin Score,Stepin Advice,")
    assert hubspot.startswith(b"Record ID,stepin_score,stepin_advice,")
    assert salesforce.count(b"\r\n") == salesforce.count(b"\n") == dynamics.count(b"\r\n")
    assert b"\r" not in hubspot
    times = {name: rows_of(f"{name}.csv", Layout.read(name).encoding)[0] for name in CRMS}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", times["salesforce"]["Stepin_As_Of__c"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", times["dynamics"]["Stepin As Of"])


def test_a_registered_model_is_named_with_its_version(learned, crm, here):
    done("score", "models:/spring@champion", crm, "out.csv", "--write-back", "salesforce")
    assert {row["Stepin_Model_Version__c"] for row in rows_of("out.csv")} == {"1"}


def test_a_layout_of_ones_own_is_used(model, crm, here):
    Path("mine.toml").write_text(
        'missing = "-"\nlongest_text = 20\n'
        '[columns]\nNummer = "deal_id"\nRat = "advice"\nGrund = "reason_1"\n'
        '[advice]\nstep_in = "einsteigen"\n'
    )
    done("score", model, crm, "out.csv", "--write-back", "mine.toml")
    rows = rows_of("out.csv")
    assert list(rows[0]) == ["Nummer", "Rat", "Grund"]
    assert {row["Rat"] for row in rows} <= {"einsteigen", *ADVICE[1:]}
    assert max(len(row["Grund"]) for row in rows) == 20
    assert all(row["Grund"].endswith("…") for row in rows if len(row["Grund"]) == 20)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[columns", "mine.toml is no TOML file in UTF-8: "),
        ("", 'mine.toml needs a table [columns] with a column for deal_id: "Name" = "deal_id".'),
        ('[columns]\nA = "score"', 'mine.toml needs a table [columns] with a column for deal_id: "Name" = '),
        (
            '[columns]\nA = "deal_id"\nB = "mood"',
            "mine.toml: column 'B' holds 'mood'; expected one of deal_id, ",
        ),
        (
            'colour = 1\n[columns]\nA = "deal_id"',
            "mine.toml has 'colour', which no layout has. Known: title, ",
        ),
        ('encoding = "utf-9"\n[columns]\nA = "deal_id"', "mine.toml: encoding 'utf-9' is not known; use "),
        ('line_end = ";"\n[columns]\nA = "deal_id"', 'mine.toml: line_end should be "\\n" or "\\r\\n".'),
        (
            'longest_text = 1\n[columns]\nA = "deal_id"',
            "mine.toml: longest_text should be a whole number from",
        ),
        ('missing = 0\n[columns]\nA = "deal_id"', "mine.toml: title, encoding, line_end, time and missing "),
        (
            '[columns]\nA = "deal_id"\n[advice]\nmaybe = "x"',
            "mine.toml: [advice] should give texts for step_in,",
        ),
    ],
)
def test_a_layout_at_fault_is_refused_by_its_line(content, message, model, crm, here):
    Path("mine.toml").write_text(content)
    said = run("score", model, crm, "out.csv", "--write-back", "mine.toml")
    assert said.status == 1
    assert said.err.startswith(f"stepin: {message}")
    assert not list(here.glob("*out*"))


def test_a_deal_that_comes_twice_is_refused(model, crm, here):
    done("features", crm, "decisions.parquet")
    past = pd.read_parquet("decisions.parquet")
    assert past["deal_id"].duplicated().any()
    said = run("score", model, "decisions.parquet", "out.csv", "--write-back", "hubspot")
    assert re.fullmatch(
        r"stepin: Deal '[^']+' comes twice, but a CRM's loader takes one row for a record\. "
        r"Score the open deals of a folder of CRM tables, or a file with a row per deal\.\n",
        said.err,
    )
    assert not list(here.glob("*out*"))


def test_the_file_says_the_same_as_a_server_with_the_same_costs(model, crm, here):
    done("score", model, crm, "usual.csv", "--write-back", "hubspot")
    costs = {"STEPIN_BREAK_EVEN_POINTS": "60"}
    command = [sys.executable, "-m", "stepin", "score", model, crm, "dear.csv", "--write-back", "hubspot"]
    subprocess.run(
        command, env={**os.environ, **costs, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )
    usual, dear = rows_of("usual.csv"), rows_of("dear.csv")
    assert [row["stepin_uplift_points"] for row in usual] == [row["stepin_uplift_points"] for row in dear]
    assert all(float(row["stepin_score"]) < 50 for row in dear if row["stepin_score"])
    assert any(float(row["stepin_score"]) > 50 for row in usual if row["stepin_score"])

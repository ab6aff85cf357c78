"""One file with a row per decision is read as its columns file says, or refused in one sentence."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.decision_table import DecisionTable
from features.flat import read_flat
from features.problems import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
COLUMNS = """
[decision]
id = "Deal"
partner = "Reseller"
stage = "Phase"
decided_at = "Day"
[stepped_in]
column = "Route"
yes = ["Field"]
no = ["Reseller", "Partner"]
[outcome]
column = "Result"
yes = ["Won"]
no = ["Lost"]
[value]
amount = "Amount"
currency = "USD"
"""


def frame(n=40):
    """Decisions on n deals; the texts of a CSV."""
    at = np.arange(n)
    return pd.DataFrame(
        {
            "Deal": [f"D{i}" for i in at],
            "Reseller": np.array(["R1", "R2", "R3"])[at % 3],
            "Phase": np.array(["late", "early"])[at % 2],
            "Day": [f"2024-01-{1 + i % 28:02d}" for i in at],
            "Route": np.array(["Field", "Reseller", "Partner", "Field"])[at % 4],
            "Result": np.array(["Won", "Lost", "Lost"])[at % 3],
            "Amount": [str(100 + i) for i in at],
            "Rival": np.array(["None", "Altira", ""])[at % 3],
            "Score": [str(i / 4) if i % 5 else "" for i in at],
        }
    )


@pytest.fixture
def read(tmp_path):
    """Write a frame and a columns file, and read them: ``read(frame, columns, ending="csv")``."""

    def read(table, columns=COLUMNS, ending="csv", for_scoring=False, sep=",") -> DecisionTable:
        source = tmp_path / f"deals.{ending}"
        if ending == "parquet":
            table.to_parquet(source)
        else:
            table.to_csv(source, index=False, sep=sep)
        (tmp_path / "columns.toml").write_text(columns)
        return read_flat(source, tmp_path / "columns.toml", for_scoring)

    return read


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_columns_mean_what_the_columns_file_says(read, ending):
    table = read(frame(), ending=ending)
    assert table.rows.index.tolist() == frame()["Deal"].tolist()
    assert table.rows["partner_id"].tolist() == table.groups.tolist() == frame()["Reseller"].tolist()
    assert table.rows["stage"].tolist() == frame()["Phase"].tolist()
    assert table.rows["decided_at"].iloc[1] == pd.Timestamp("2024-01-02", tz="UTC")
    assert table.treatment.tolist() == (frame()["Route"] == "Field").tolist()
    assert table.outcome.tolist() == (frame()["Result"] == "Won").astype(float).tolist()
    assert table.rows["amount"].tolist() == list(range(100, 140))
    assert table.about["amount_feature"] == "Amount"
    assert table.about["currency"] == "USD"
    assert table.about["stage_order"] == ["early", "late"]
    assert table.about["question"] == (
        "By how much does it change the chance of Won if 'Route' is Field instead of Reseller or Partner?"
    )


def test_features_are_all_other_columns_with_partner_and_stage_renamed(read):
    features = read(frame()).features
    types = {name: str(dtype) for name, dtype in features.dtypes.items()}
    assert types == {
        "partner_id": "category",
        "stage": "category",
        "Amount": "float64",
        "Rival": "category",
        "Score": "float64",
    }


def test_the_text_none_is_a_value_and_an_empty_cell_is_missing(read):
    rival = read(frame()).features["Rival"]
    assert rival.cat.categories.tolist() == ["Altira", "None"]
    assert rival.isna().sum() == 13


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_named_texts_mean_missing_and_no_others(read, ending):
    columns = COLUMNS + '[reading]\nmissing = ["None"]'
    features = read(frame(), columns + "\n", ending).features
    assert features["Rival"].cat.categories.tolist() == ["", "Altira"]


def test_include_names_the_features(read):
    features = read(frame(), COLUMNS + '[features]\ninclude = ["Score"]').features
    assert list(features.columns) == ["partner_id", "stage", "Score"]


def test_exclude_takes_columns_away_even_the_partner_but_keeps_it_as_group(read):
    table = read(frame(), COLUMNS + '[features]\nexclude = ["Score", "Reseller"]')
    assert list(table.features.columns) == ["stage", "Amount", "Rival"]
    assert set(table.groups) == {"R1", "R2", "R3"}


def test_stages_are_ordered_as_the_file_says(read):
    columns = COLUMNS.replace('stage = "Phase"', 'stage = "Phase"\nstages = ["late", "early"]')
    assert read(frame(), columns).about["stage_order"] == ["late", "early"]


def test_rows_of_one_id_are_one_deal_with_decisions_of_their_own(read):
    table = read(frame().assign(Deal=["A", "B"] * 20))
    assert table.rows.index[:5].tolist() == ["A", "B", "A:2", "B:2", "A:3"]
    assert set(table.rows["deal_id"]) == {"A", "B"}


def test_without_an_id_every_row_is_a_deal(read):
    table = read(frame(), COLUMNS.replace('id = "Deal"', ""))
    assert table.rows["deal_id"].tolist()[:2] == ["row 1", "row 2"]
    assert table.rows["deal_id"].is_unique


def test_rows_with_other_values_are_left_out_and_counted(read):
    other = frame()
    other.loc[[0, 1, 2], "Route"] = ["Phone", "Phone", ""]
    other.loc[[2, 4], "Result"] = ["Pending", "Pending"]
    table = read(other)
    assert [(step.what, step.n) for step in table.flow] == [
        ("rows", 40),
        ("another choice", 3),
        ("another outcome", 1),
        ("decisions", 36),
    ]
    assert table.flow[1].why == "'Route' is Phone (2), missing (1)"
    assert not {"D0", "D1", "D2", "D4"} & set(table.rows.index)


def test_a_numeric_outcome_keeps_its_numbers_and_unit(read):
    columns = COLUMNS.replace(
        'column = "Result"\nyes = ["Won"]\nno = ["Lost"]', 'column = "Booked"\nnumeric = true'
    )
    booked = frame().assign(Booked=[str(i * 17 % 40 * 2.5) if i else "" for i in range(40)])
    table = read(booked, columns + '[features]\nexclude = ["Result"]')
    assert (table.about["outcome"], table.about["outcome_unit"]) == ("numeric", "USD")
    assert table.outcome.tolist() == [i * 17 % 40 * 2.5 for i in range(1, 40)]


def test_columns_that_say_nothing_are_left_out_and_named(read):
    table = read(frame().assign(Country="DE", Fax=""))
    assert table.about["left_out_columns"] == [
        {"column": "Country", "why": "the same everywhere"},
        {"column": "Fax", "why": "all missing"},
    ]
    assert not {"Country", "Fax"} & set(table.features.columns)


def test_scoring_needs_neither_choice_nor_outcome_and_keeps_every_row(read):
    table = read(frame().drop(columns=["Route", "Result"]), for_scoring=True)
    assert len(table) == 40
    assert np.isnan(table.outcome).all()
    assert list(table.features.columns) == ["partner_id", "stage", "Amount", "Rival", "Score"]


def test_a_scored_row_has_the_features_that_it_was_learned_with(read):
    learned, scored = read(frame()), read(frame(), for_scoring=True)
    pd.testing.assert_frame_equal(learned.features, scored.features)


def test_booleans_and_numbers_of_parquet_keep_their_types(read):
    typed = frame().assign(
        Strategic=np.arange(40) % 2 == 0, Size=np.arange(40), Level=pd.Categorical(["x", "y"] * 20)
    )
    types = read(typed, ending="parquet").features.dtypes.astype(str)
    assert types[["Strategic", "Size", "Level"]].tolist() == ["boolean", "float64", "category"]


def mostly_numbers():
    return frame().assign(Score=["much"] + [str(i) for i in range(39)])


REFUSED_SOURCES = {
    "number as text": (
        mostly_numbers,
        "deals.csv: column 'Score' should hold numbers only, as most rows do; came 'much': mend "
        "it, or name it as "
        "missing (1 row: D0).",
    ),
    "missing column": (
        lambda: frame().rename(columns={"Result": "Results", "Day": "Days"}),
        "deals.csv: column 'Day' is missing, but columns.toml names it (decision.decided_at); "
        "the nearest are 'Days'.",
    ),
    "text amount": (
        lambda: frame().assign(Amount="lots"),
        "deals.csv: column 'Amount' should be a number; came 'lots' (40 rows: D0, D1, D2, D3, D4, ...).",
    ),
    "negative amount": (
        lambda: frame().assign(Amount=["-5"] + ["1"] * 39),
        "deals.csv: column 'Amount' should be 0 or more; came less (1 row: D0).",
    ),
    "infinite amount": (
        lambda: frame().assign(Amount=["inf"] + ["1"] * 39),
        "deals.csv: column 'Amount' should hold numbers only, as most rows do; came 'inf': mend it, "
        "or name it as missing (1 row: D0).",
    ),
    "no date": (
        lambda: frame().assign(Day=["soon"] + ["2024-01-01"] * 39),
        "deals.csv: column 'Day' should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z; "
        "came something else (1 row: D0).",
    ),
    "missing id": (
        lambda: frame().assign(Deal=[""] + [f"D{i}" for i in range(39)]),
        "deals.csv: column 'Deal' should not be empty (1 row: row 1).",
    ),
    "no rows": (lambda: frame().head(0), "deals.csv holds no rows."),
    "no known choice": (
        lambda: frame().assign(Route="Phone"),
        "deals.csv: no row has both a known choice and a known outcome; "
        "see [stepped_in] and [outcome] of columns.toml.",
    ),
    "one choice": (
        lambda: frame().assign(Route="Field"),
        "All of the 40 decisions are 'yes' in 'Route'; both kinds are needed to compare.",
    ),
    "one outcome": (
        lambda: frame().assign(Result="Lost"),
        "None of the 40 decisions are 'yes' in 'Result'; both kinds are needed to compare.",
    ),
    "an id that looks like a repeat": (
        lambda: frame(3).assign(Deal=["A", "A", "A:2"]),
        "decisions would share an id; rename the deals or stages (1 row: A:2).",
    ),
}


@pytest.mark.parametrize(("table", "message"), REFUSED_SOURCES.values(), ids=REFUSED_SOURCES)
def test_a_bad_source_is_refused_in_one_sentence(read, table, message):
    with pytest.raises(UserError) as refusal:
        read(table())
    assert str(refusal.value) == message


REFUSED_COLUMNS = {
    "unknown key": (
        COLUMNS.replace("partner =", "reseller ="),
        "columns.toml: [decision] has an unknown key 'reseller'. "
        "Known keys: id, partner, decided_at, stage, stages.",
    ),
    "unknown section": (
        COLUMNS + "[treatment]\n",
        "columns.toml has an unknown section [treatment]. "
        "Known sections: decision, stepped_in, outcome, value, features, reading.",
    ),
    "a key for a section": (
        "decision = 1\n",
        "columns.toml: decision should be a section; came 1. Write [decision].",
    ),
    "no values": (
        COLUMNS.replace('yes = ["Field"]\n', ""),
        "columns.toml: [stepped_in] yes should name at least one value; came none.",
    ),
    "no column": (
        COLUMNS.replace('column = "Result"\n', ""),
        "columns.toml: [outcome] column is missing; it is needed.",
    ),
    "a value twice": (
        COLUMNS.replace('no = ["Lost"]', 'no = ["Lost", "Won"]'),
        "columns.toml: [outcome] has 'Won' under yes and under no; keep one of them.",
    ),
    "a number for a text": (
        COLUMNS.replace('id = "Deal"', "id = 7"),
        "columns.toml: [decision] id should be a text; came 7.",
    ),
    "a text for a list": (
        COLUMNS.replace('yes = ["Field"]', 'yes = "Field"'),
        "columns.toml: [stepped_in] yes should be a list of texts; came 'Field'.",
    ),
    "a text for a flag": (
        COLUMNS.replace('no = ["Lost"]', 'no = ["Lost"]\nnumeric = "yes"'),
        "columns.toml: [outcome] numeric should be true or false; came 'yes'.",
    ),
    "include and exclude": (
        COLUMNS + '[features]\ninclude = ["Score"]\nexclude = ["Rival"]',
        "columns.toml: [features] has both include and exclude; keep one of them.",
    ),
    "the outcome as a feature": (
        COLUMNS + '[features]\ninclude = ["Result"]',
        "columns.toml: [features] include has 'Result', which cannot be a feature.",
    ),
    "an excluded column that is not there": (
        COLUMNS + '[features]\nexclude = ["Scores"]',
        "deals.csv: column 'Scores' is missing, but columns.toml names it (features.exclude Scores); "
        "the nearest are 'Score'.",
    ),
    "nothing left": (
        COLUMNS + '[features]\nexclude = ["Reseller", "Phase", "Amount", "Rival", "Score"]',
        "deals.csv: no column is left as a feature; see [features] of columns.toml.",
    ),
}


@pytest.mark.parametrize(("columns", "message"), REFUSED_COLUMNS.values(), ids=REFUSED_COLUMNS)
def test_a_bad_columns_file_is_refused_in_one_sentence(read, columns, message):
    with pytest.raises(UserError) as refusal:
        read(frame(), columns)
    assert str(refusal.value) == message


def test_what_is_no_toml_is_refused(read):
    with pytest.raises(UserError, match=r"^columns\.toml is not TOML: .*\.$"):
        read(frame(), "[decision\n")


def test_a_column_named_like_the_renamed_partner_is_refused(read):
    with pytest.raises(UserError) as refusal:
        read(frame().assign(partner_id="x"))
    assert str(refusal.value) == "deals.csv: column 'partner_id' stands beside 'Reseller'; exclude one."


def test_files_that_are_not_there_are_refused(tmp_path):
    source, columns = tmp_path / "deals.csv", tmp_path / "columns.toml"
    with pytest.raises(UserError) as refusal:
        read_flat(source, columns)
    assert str(refusal.value) == f"{columns} cannot be read: No such file or directory."
    columns.write_text(COLUMNS)
    with pytest.raises(UserError) as refusal:
        read_flat(source, columns)
    assert str(refusal.value) == f"{source} is not a file; give a .csv, .csv.gz or .parquet file."


def real(folder, file):
    path = DATA / folder / file
    return pytest.param(
        path, marks=pytest.mark.skipif(not path.exists(), reason=f"{folder} is not on this machine")
    )


@pytest.mark.parametrize("source", [real("ibm_win_loss", "sales_win_loss.csv.gz")])
def test_ibm_reads_to_the_decisions_on_two_routes(source):
    table = read_flat(source, ROOT / "examples" / "ibm_win_loss.toml")
    assert len(table) == 72_020
    assert table.rows["deal_id"].nunique() == 71_832
    assert [step.n for step in table.flow] == [78_025, 6_005, 0, 72_020]
    assert table.features["Competitor Type"].cat.categories.tolist() == ["Known", "None", "Unknown"]
    assert not table.features.isna().any().any()
    assert list(table.features.columns) == [
        "Supplies Subgroup",
        "Supplies Group",
        "Region",
        "Opportunity Amount USD",
        "Client Size By Revenue",
        "Client Size By Employee Count",
        "Competitor Type",
    ]
    won = table.rows.groupby("stepped_in")["outcome"].mean()
    assert won.round(3).to_dict() == {False: 0.276, True: 0.186}


@pytest.mark.parametrize("source", [real("salvirt", "Salvirt_B2B_ML_dataset.csv")])
def test_salvirt_reads_with_the_partners_sale_as_stepping_back(source):
    table = read_flat(source, ROOT / "examples" / "salvirt.toml")
    assert len(table) == 448
    assert (~table.treatment).sum() == 53
    won = table.rows.groupby("stepped_in")["outcome"].mean()
    assert won.round(3).to_dict() == {False: 0.679, True: 0.484}
    assert table.features.shape == (448, 21)

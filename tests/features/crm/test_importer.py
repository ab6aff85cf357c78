"""The importer: whole or not at all, recognised or refused, by a mapping that is data."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from features import UserError, read_tables
from features.crm import bundled, import_export, read_mapping

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT.parent / "shared" / "data" / "salesforce_demo"
OPPORTUNITIES = """\
Opp No;Reseller;End Customer;Status;Value;Opened;Closed;Sector;Country;Win Chance;Colour
1;R1;C1;Order received;1.234,50;02/03/2025;04/04/2025 16:30;Energy;Austria;100;red
2;R1;C2;Quote;€ 12.000,00;05/03/2025;;n/a;Austria;50;red
3;;C2;Quote;1,00;05/03/2025;;Energy;Austria;50;red
4;R2;C2;Test;1,00;05/03/2025;;Energy;Austria;50;red
5;R2;C3;Cancelled;-7,00;06/03/2025;30/04/2025;Energy;Germany;50;red
"""
LOG = """\
Opp No;When;New Status;Vendor Colleague
1;02/03/2025 09:00;Quote;
1;09/03/2025 09:00;Quote;Eva
1;04/04/2025 16:30;Order received;Eva
2;05/03/2025 10:00;Quote;n/a
5;06/03/2025 10:00;Quote;
"""


@pytest.fixture
def own(write_export):
    return write_export({"a.csv": OPPORTUNITIES, "b.csv": LOG})


@pytest.mark.skipif(not SAMPLE.is_dir(), reason="the Salesforce-shaped sample is not on this machine")
def test_the_real_sample_imports_as_it_is(tmp_path):
    summary = import_export(SAMPLE, tmp_path / "crm")
    tables = read_tables(tmp_path / "crm")
    assert summary.crm == "salesforce"
    assert len(tables.deals) == 36
    assert set(tables.deals["partner_id"]) == {"(no partner on record)"}
    assert tables.deals["created_at"].min() == pd.Timestamp("2026-02-23", tz="UTC")
    assert summary.unknown_columns["Opportunity.csv"][1:] == [
        "Opp Creation Date_Simulated",
        "Opp Close Date_Simulated",
    ]
    assert summary.rows_in == summary.rows_kept + summary.rows_refused + summary.rows_passed_over == 102


def test_the_example_mapping_imports_a_crm_that_nobody_knows(own, run_import, tmp_path):
    summary = run_import(own, mapping=ROOT / "examples" / "crm" / "own_crm.toml")
    tables = read_tables(tmp_path / "crm")
    deals = tables.deals.set_index("deal_id")
    assert list(deals["outcome"]) == ["won", "open", "lost"]
    assert deals.at["1", "amount"] == 1234.5
    assert deals.at["1", "created_at"] == pd.Timestamp("2025-03-01 23:00", tz="UTC")  # Vienna
    assert deals.at["1", "closed_at"] == pd.Timestamp("2025-04-04 14:30", tz="UTC")
    assert list(deals["country_of_delivery"]) == ["Austria", "Austria", "Germany"]
    assert pd.isna(deals.at["5", "amount"])
    assert tables.stage_entries["deal_id"].tolist() == ["1", "2", "5"]
    assert tables.involvements["started_at"].dt.day.tolist() == [9, 4]
    assert tables.customers.set_index("customer_id")["industry"].to_dict() == {
        "C1": "Energy",
        "C2": "Energy",
        "C3": "Energy",
    }
    assert summary.unknown_columns == {"a.csv": ["Colour"]}
    assert summary.never_columns == {"a.csv": {"Win Chance": "it knows the outcome"}}


def test_lines_for_people_show_the_ledger_the_reasons_and_what_is_not_used(own, run_import):
    lines = run_import(own, mapping=ROOT / "examples" / "crm" / "own_crm.toml").lines()
    assert lines[:4] == [
        "Our CRM (own_crm.toml), recognised by the columns of a.csv.",
        "Rows of the export: in = kept + refused + passed over",
        "            5 = 3 + 0 + 2  a.csv (opportunities)",
        "            5 = 5 + 0 + 0  b.csv (log)",
    ]
    assert "            1  a number below 0: taken for a blank (a.csv line 6 'Value')" in lines
    assert "Not used, for the mapping does not name them, in a.csv: Colour" in lines
    assert "  - Support by phone is logged nowhere." in lines


def test_many_reasons_that_differ_by_a_value_are_told_as_one(write_export, run_import):
    odd = "".join(f"x{i};R1;C1;Quote;1,00;day {i};;Energy;Austria;1;red\n" for i in range(30))
    folder = write_export({"a.csv": OPPORTUNITIES + odd, "b.csv": LOG})
    lines = run_import(folder, mapping=ROOT / "examples" / "crm" / "own_crm.toml").lines()
    text = (folder.parent / "crm" / "refused.csv").read_text()
    assert "           30  created_at cannot be read" in lines
    assert "created_at cannot be read: 'day 29'" in text


def test_the_folder_holds_the_summary_as_json(own, run_import, tmp_path):
    summary = run_import(own, mapping=ROOT / "examples" / "crm" / "own_crm.toml")
    document = json.loads((tmp_path / "crm" / "import.json").read_text(encoding="utf-8"))
    assert document == json.loads(json.dumps(summary.to_dict()))
    assert document["rows"] == {"in": 10, "kept": 8, "refused": 0, "passed_over": 2}


def test_the_tables_can_be_learned_from(own, run_import, tmp_path):
    run_import(own, mapping=ROOT / "examples" / "crm" / "own_crm.toml")
    tables = read_tables(tmp_path / "crm")
    assert {path.name for path in (tmp_path / "crm").iterdir()} == {
        "refused.csv",
        "import.json",
        *(f"{name}.parquet" for name in tables.by_name()),
    }


def test_a_folder_that_holds_something_is_left_alone(exports, run_import, tmp_path):
    (tmp_path / "crm").mkdir()
    (tmp_path / "crm" / "mine.txt").write_text("mine")
    with pytest.raises(
        UserError, match=r"crm exists and is not empty; name a new folder, or empty it first\.$"
    ):
        run_import(exports / "salesforce", keep_currency="EUR")
    assert [path.name for path in (tmp_path / "crm").iterdir()] == ["mine.txt"]


def test_a_failure_while_writing_leaves_no_folder(exports, run_import, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("features.crm.importer.write_refused", fail)
    with pytest.raises(UserError, match="crm cannot be written: No space left on device"):
        run_import(exports / "salesforce", keep_currency="EUR")
    assert list(tmp_path.iterdir()) == []


def test_each_file_read_is_told_as_progress(exports, run_import):
    told: list[str] = []
    run_import(exports / "salesforce", keep_currency="EUR", notify=told.append)
    assert told[:2] == ["Reading Account.csv", "Reading Event.csv"]
    assert told[-3:] == ["Building the tables", "Checking the tables against each other", "Writing"]


def test_headers_that_fit_two_crms_are_refused_until_one_is_named(exports, run_import, tmp_path, monkeypatch):
    twin = tmp_path / "twin.toml"
    text = bundled()["salesforce"].read_text(encoding="utf-8")
    twin.write_text(
        text.replace('crm = "salesforce"', 'crm = "twin"').replace('title = "Salesforce"', 'title = "Twin"')
    )
    both = {"salesforce": bundled()["salesforce"], "twin": twin}
    monkeypatch.setattr("features.crm.importer.bundled", lambda: both)
    with pytest.raises(UserError) as error:
        run_import(exports / "salesforce", keep_currency="EUR")
    assert str(error.value) == (
        "The headers fit Salesforce and Twin; say which it is: --crm salesforce, --crm twin."
    )
    assert run_import(exports / "salesforce", keep_currency="EUR", crm="twin").crm == "twin"


def test_an_export_that_nobody_knows_is_refused_with_what_was_looked_for(write_export, run_import):
    with pytest.raises(UserError) as error:
        run_import(write_export({"a.csv": [{"colour": "red", "size": "9"}]}), crm="salesforce")
    assert str(error.value) == ("The headers fit none of Salesforce; write a mapping and give it with --map.")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crm": "sap"}, "--crm sap is unknown. Known: {known}, generic (with --map)."),
        ({"crm": "generic"}, "--crm generic needs a mapping file; write one and give it with --map."),
        (
            {"crm": "salesforce", "mapping": "m.toml"},
            "--crm and --map are both given; a mapping file says itself which CRM it is for.",
        ),
        (
            {"rates": "r.csv", "keep_currency": "EUR"},
            "--rates and --keep-currency are both given; convert, or keep one currency.",
        ),
        (
            {"currency": "EUR"},
            "--currency names what --rates lead to; give --rates, or use --keep-currency.",
        ),
        (
            {"crm": "salesforce", "timezone": "Mars/Base"},
            "'Mars/Base' is no time zone; give one such as Europe/Berlin or UTC.",
        ),
        (
            {"crm": "salesforce", "keep_currency": "CHF"},
            "--keep-currency CHF: no deal is in CHF; the deals' currencies are EUR, USD.",
        ),
    ],
)
def test_options_that_cannot_be_are_refused_in_a_sentence(exports, run_import, options, said, tmp_path):
    with pytest.raises(UserError) as error:
        run_import(exports / "salesforce", **options)
    assert str(error.value) == said.format(known=", ".join(bundled()))
    assert not (tmp_path / "crm").exists()


def test_a_folder_of_crm_tables_is_sent_on_to_the_features(write_export, run_import):
    deal = {"deal_id": "D1", "partner_id": "P1", "customer_id": "C1", "created_at": "2025-01-01"}
    folder = write_export({"deals.csv": [{**deal, "outcome": "open"}]})
    with pytest.raises(UserError) as error:
        run_import(folder)
    assert str(error.value) == (
        f"deals.csv is a CRM table already; go on with: stepin features {folder} decisions.parquet"
    )


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        (
            "date,currency\n2024-01-01,USD\n",
            "r.csv: column 'rate' is missing; came date, currency, needed are date, currency, rate.",
        ),
        (
            "date,currency,rate\n2024-01-01,USD,0\n",
            "r.csv: column 'rate' should be a number above 0; came something else (1 row: row 1).",
        ),
        (
            "date,currency,rate\nsoon,USD,1\n",
            "r.csv: column 'date' should be a date such as 2024-03-31; came something else (1 row: row 1).",
        ),
        (
            "date,currency,rate\n2024-01-01,USD,0.9\n",
            "r.csv does not say which currency its rates lead to; name it with --currency.",
        ),
        (
            "date,currency,rate\n2024-01-01,EUR,1\n2024-01-01,USD,0.9\n2024-01-01, usd,0.8\n",
            "r.csv: column 'rate' should be one for each currency and day; came another one (1 row: row 3).",
        ),
    ],
)
def test_rates_that_cannot_be_used_are_refused(exports, run_import, tmp_path, rates, said):
    (tmp_path / "r.csv").write_text(rates)
    with pytest.raises(UserError) as error:
        run_import(exports / "salesforce", rates=tmp_path / "r.csv")
    assert str(error.value) == said


@pytest.mark.parametrize(
    ("currency", "said"),
    [
        ("usd", "r.csv has rates of USD other than 1, so they do not lead to USD."),
        (
            "JPY",
            "The rates of r.csv lead to EUR, whose rate is 1, and not to JPY; leave --currency out, "
            "or add JPY with the rate 1.",
        ),
    ],
)
def test_rates_that_lead_elsewhere_than_asked_are_refused(exports, run_import, tmp_path, currency, said):
    (tmp_path / "r.csv").write_text("date,currency,rate\n2024-01-01,EUR,1\n2024-01-01,USD,0.9\n")
    with pytest.raises(UserError) as error:
        run_import(exports / "salesforce", rates=tmp_path / "r.csv", currency=currency)
    assert str(error.value) == said
    assert not (tmp_path / "crm").exists()


def test_a_deal_older_than_every_rate_is_refused_and_not_guessed(exports, run_import, tmp_path):
    (tmp_path / "r.csv").write_text("date,currency,rate\n2025-06-01,USD,0.9\n")
    run_import(exports / "salesforce", rates=tmp_path / "r.csv", currency="EUR")
    reasons = pd.read_csv(tmp_path / "crm" / "refused.csv")["reason"]
    assert "no rate for USD on or before 2025-03-03" in set(reasons)


ONE_FILE = '[files.a]\n[files.a.columns]\nnumber = "No"\n'
BROKEN_MAPPINGS = {
    "is not TOML": ("crm = ", "m.toml is not TOML: Invalid value (at end of document)."),
    "no files": ('crm = "x"', "m.toml names no file; write at least one [files.NAME] section."),
    "unknown key": (
        "[filez.a]\n",
        "m.toml has an unknown key 'filez'. Known keys: crm, title, cannot_know, reading, files, values, "
        "sets, never, deals, stage_entries, involvements, partners, customers, relationships, activities, "
        "deal_changes.",
    ),
    "unknown alias": (
        ONE_FILE + '[[stage_entries]]\nfrom = "a"\n[stage_entries.columns]\n'
        'deal_id = "numbr"\nstage = "number"\nentered_at = "number"\n',
        "m.toml: [[stage_entries]] deal_id: [files.a] has no alias 'numbr'. Nearest: number.",
    ),
    "unknown column": (
        ONE_FILE + '[[customers]]\nfrom = "a"\n[customers.columns]\nid = "number"\n',
        "m.toml: [[customers]] has an unknown column 'id'. Known: customer_id, industry, region, employees, "
        "annual_revenue.",
    ),
    "lacking column": (
        ONE_FILE + '[[stage_entries]]\nfrom = "a"\n[stage_entries.columns]\ndeal_id = "number"\n',
        "m.toml: [[stage_entries]] lacks stage, entered_at; they are needed.",
    ),
    "unknown file": (
        '[files.a]\n[files.a.columns]\nnumber = "No"\n[[customers]]\nfrom = "b"\n',
        "m.toml: [[customers]]: 'b' is no file of the mapping. Known files: a.",
    ),
    "condition without a name": (
        '[files.a]\nrows = [{ column = "number", in = ["1"] }]\n[files.a.columns]\nnumber = "No"\n',
        "m.toml: [files.a] rows: {'column': 'number', 'in': ['1']} should say because = \"...\" or refuse = "
        '"...".',
    ),
    "no deals": (
        '[files.a]\n[files.a.columns]\nnumber = "No"\n',
        "m.toml has no [[deals]] block; it is needed.",
    ),
    "odd reading": (
        '[reading]\ndates = "backwards"\n[files.a]\n[files.a.columns]\nnumber = "No"\n[[deals]]\nfrom = "a"\n'
        '[deals.columns]\ndeal_id = "number"\npartner_id = "number"\ncustomer_id = "number"\n'
        'created_at = "number"\noutcome = { text = "won" }\n',
        "m.toml: [reading] dates should be one of month first, day first; came 'backwards'.",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN_MAPPINGS))
def test_a_mapping_that_cannot_be_is_refused_in_a_sentence(tmp_path, name):
    text, said = BROKEN_MAPPINGS[name]
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(UserError) as error:
        read_mapping(tmp_path / "m.toml")
    assert str(error.value) == said


@pytest.mark.parametrize("crm", list(bundled()))
def test_every_mapping_that_comes_along_can_be_read_and_says_what_it_cannot_know(crm):
    mapping = read_mapping(bundled()[crm])
    assert mapping.crm == crm
    assert mapping.cannot_know
    assert {"deals", "stage_entries", "involvements"} <= {block.table for block in mapping.blocks}


def test_wide_columns_become_a_row_each(write_export, run_import, tmp_path):
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        """
        [files.a]
        needed = true
        recognised_by = ["id"]
        [files.a.columns]
        id = "Id"
        customer = "Customer"
        opened = "Opened"
        entered = { pattern = 'Date entered "(?P<name>.+)"' }
        [[deals]]
        from = "a"
        [deals.columns]
        deal_id = "id"
        partner_id = "customer"
        customer_id = "customer"
        created_at = "opened"
        outcome = { text = "open" }
        [[stage_entries]]
        from = "a"
        rows = [{ unpivot = "entered", name = "stage", value = "when", because = "entered no stage" }]
        [stage_entries.columns]
        deal_id = "id"
        stage = "stage"
        entered_at = "when"
        """
    )
    row = {"Id": "1", "Customer": "c", "Opened": "2025-01-01"}
    stages = {'Date entered "Offer"': "2025-02-01", 'Date entered "Quali, fied"': "2025-01-05T08:00:00Z"}
    folder = write_export({"a.csv": [row | stages, row | {"Id": "2"}]})
    summary = run_import(folder, mapping=mapping)
    entries = read_tables(tmp_path / "crm").stage_entries
    assert set(zip(entries["stage"], entries["entered_at"].dt.month, strict=True)) == {
        ("Offer", 2),
        ("Quali, fied", 1),
    }
    assert summary.unknown_columns == {}
    shutil.rmtree(tmp_path / "crm")


def test_change_rows_of_one_id_give_the_latest_deal_and_a_stage_for_each_change(
    write_export, run_import, tmp_path
):
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        """
        [files.a]
        needed = true
        recognised_by = ["id", "changed"]
        [files.a.columns]
        id = "Id"
        changed = "Changed"
        opened = "Opened"
        stage = "Stage"
        amount = "Amount"
        [[deals]]
        from = "a"
        rows = [{ latest = "id", at = "changed", because = "an older version" }]
        [deals.columns]
        deal_id = "id"
        partner_id = { text = "p" }
        customer_id = { text = "c" }
        created_at = "opened"
        outcome = { text = "open" }
        amount = "amount"
        [[stage_entries]]
        from = "a"
        rows = [{ changed = ["stage"], by = "id", at = "changed", because = "same stage" }]
        [stage_entries.columns]
        deal_id = "id"
        stage = "stage"
        entered_at = "changed"
        """
    )
    rows = [("1", "2025-03-01", "B", "3"), ("1", "2025-01-01", "A", "1"), ("1", "2025-02-01", "A", "2")]
    table = [
        {"Id": i, "Changed": at, "Opened": "2025-01-01", "Stage": s, "Amount": x} for i, at, s, x in rows
    ]
    summary = run_import(write_export({"a.csv": table}), mapping=mapping)
    tables = read_tables(tmp_path / "crm")
    assert tables.deals["amount"].tolist() == [3]
    assert tables.stage_entries[["stage", "entered_at"]].astype("str").to_numpy().tolist() == [
        ["A", "2025-01-01 00:00:00+00:00"],
        ["B", "2025-03-01 00:00:00+00:00"],
    ]
    assert summary.files[0].passed_over == {"an older version": 1}

"""What a mapping can take out of a text, look up only where it is sure, and make of ids and of times."""

import pyarrow as pa
import pytest

from features import UserError, read_tables
from features.crm import read_mapping
from features.crm.guids import bare

GUID = "0f3a9c1e-1111-4a4a-9b9b-00000000000a"
MAPPING = """
[files.a]
needed = true
recognised_by = ["id", "opened"]
guids = ["id"]
[files.a.columns]
id = "Id"
opened = "Opened"
path = "Path"
owner = "Owner"
[files.b]
recognised_by = ["name", "industry"]
[files.b.columns]
name = "Name"
industry = "Industry"
[[deals]]
from = "a"
[deals.columns]
deal_id = "id"
partner_id = { text = "p" }
customer_id = { text = "c" }
created_at = "opened"
outcome = { text = "open" }
amount = { of = "path", part = "for ([0-9]+)" }
product_line = { file = "b", by = "owner", match = "name", column = "industry", pick = "PICK" }
[[stage_entries]]
from = "a"
[stage_entries.columns]
deal_id = "id"
stage = { of = "path", part = '^([^,]*)' }
entered_at = "opened"
"""
DEALS = [
    {
        "Id": f"opportunity,{{{GUID.upper()}}}",
        "Opened": "2025-01-02 09:00",
        "Path": "New,Won for 12",
        "Owner": "A",
    },
    {"Id": "2", "Opened": "2025-01-03", "Path": ",Won", "Owner": "B"},
    {"Id": "3", "Opened": "2025-01-04", "Path": "Old", "Owner": "B"},
]
NAMES = [{"Name": n, "Industry": i} for n, i in (("A", "Energy"), ("B", "Retail"), ("B", "Telecom"))]


@pytest.fixture
def made(write_export, run_import, tmp_path):
    def run(pick: str = "only", **options):
        (tmp_path / "m.toml").write_text(MAPPING.replace("PICK", pick))
        folder = write_export({"a.csv": DEALS, "b.csv": NAMES})
        summary = run_import(folder, mapping=tmp_path / "m.toml", **options)
        return summary, read_tables(tmp_path / "crm")

    return run


def test_a_part_of_a_text_is_the_group_where_it_is_found_and_blank_elsewhere(made, tmp_path):
    summary, tables = made()
    assert tables.stage_entries["stage"].tolist() == ["New", "Old"]
    assert tables.deals["amount"].fillna(-1).tolist() == [12, -1, -1]
    assert (tmp_path / "crm" / "refused.csv").read_text().splitlines()[1:] == []  # the deal itself is kept
    used = next(repair for repair in summary.repairs if repair.rule.startswith("a row used in part"))
    assert (used.rule, used.places) == ("a row used in part: stage is blank", ["a.csv line 3"])


@pytest.mark.parametrize(("pick", "found"), [("only", None), ("first", "Retail"), ("last", "Telecom")])
def test_a_look_up_of_the_only_row_finds_none_of_several(made, pick, found):
    lines = made(pick)[1].deals["product_line"]
    assert lines.astype("object").where(lines.notna(), None).tolist() == ["Energy", found, found]


def test_a_guid_is_one_id_however_it_is_written(made):
    summary, tables = made()
    assert tables.deals["deal_id"].tolist() == [GUID, "2", "3"]
    assert "a.csv: 1 ids are written bare and in small letters, as elsewhere." in summary.notes


@pytest.mark.parametrize("text", [GUID, GUID.upper(), f"{{{GUID}}}", f"processstage,{GUID}"])
def test_the_usual_spellings_of_a_guid(text):
    ids, count = bare(pa.array([text, "no id", None, GUID + "0"], pa.large_string()))
    assert ids.to_pylist() == [GUID, "no id", None, GUID + "0"]
    assert count == int(text != GUID)


def test_the_zone_that_is_taken_for_granted_is_said_and_one_that_is_given_is_not(made, tmp_path):
    said = (
        "Times without an offset are taken for UTC (a.csv: column 'Opened'); --timezone says it if they are "
        "in another zone."
    )
    assert said in made()[0].notes
    (tmp_path / "crm").rename(tmp_path / "before")
    assert not any("offset" in note for note in made(timezone="UTC")[0].notes)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            '{ of = "path", part = "[^,]*" }',
            "m.toml: [[stage_entries]] stage: a part needs of, and a pattern with one group (...); came "
            "{'of': 'path', 'part': '[^,]*'}.",
        ),
        (
            '{ of = "path", part = "(" }',
            "m.toml: [[stage_entries]] stage: the pattern '(' is none: missing ), unterminated subpattern at "
            "position 0.",
        ),
        (
            '{ file = "b", by = "owner", match = "name", column = "industry", pick = "any" }',
            "m.toml: [[stage_entries]] stage: pick should be last, first or only; came 'any'.",
        ),
    ],
)
def test_a_part_or_pick_that_cannot_be_is_refused_in_a_sentence(tmp_path, wrong, said):
    text = MAPPING.replace("PICK", "only").replace("{ of = \"path\", part = '^([^,]*)' }", wrong)
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(UserError) as error:
        read_mapping(tmp_path / "m.toml")
    assert str(error.value) == said


MONEY = """
[files.a]
needed = true
recognised_by = ["id", "opened"]
[files.a.columns]
id = "Id"
opened = "Opened"
amount = "Amount"
[files.b]
recognised_by = ["name", "employees"]
[files.b.columns]
name = "Name"
employees = "Employees"
revenue = "Revenue"
[[deals]]
from = "a"
[deals.columns]
deal_id = "id"
partner_id = { text = "p" }
customer_id = { text = "c" }
created_at = "opened"
outcome = { text = "open" }
amount = "amount"
[[stage_entries]]
from = "a"
[stage_entries.columns]
deal_id = "id"
stage = { text = "New" }
entered_at = "opened"
[[customers]]
from = "b"
[customers.columns]
customer_id = "name"
employees = "employees"
annual_revenue = "revenue"
"""


@pytest.mark.parametrize(
    ("amount", "revenue", "employees"),
    [("€1,000.00", "€5,000.50", 1200), ("1.000,00 €", "5.000,50 €", 1.2), ("€1,000.00", "5.000,50 €", None)],
)
def test_a_column_of_numbers_that_cannot_decide_is_read_as_the_amounts_of_the_export_show(
    write_export, run_import, tmp_path, amount, revenue, employees
):
    (tmp_path / "m.toml").write_text(MONEY)
    deals = [{"Id": "1", "Opened": "2025-01-02", "Amount": amount}]
    customers = [{"Name": "c", "Employees": "1,200", "Revenue": revenue}]
    folder = write_export({"a.csv": deals, "b.csv": customers})
    if employees is None:
        with pytest.raises(
            UserError, match=r"column 'Employees' holds numbers such as '1,200', and nothing says"
        ):
            run_import(folder, mapping=tmp_path / "m.toml")
        return
    summary = run_import(folder, mapping=tmp_path / "m.toml")
    assert read_tables(tmp_path / "crm").customers["employees"].tolist() == [employees]
    sign = "." if employees == 1200 else ","
    assert (
        f"b.csv: column 'Employees' is read with '{sign}' before the decimals, as 'Amount' shows."
        in summary.notes
    )

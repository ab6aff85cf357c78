"""What a mapping makes of several columns: joined texts, aliases of its own, sets and never-columns."""

import pytest

from features import UserError, read_tables
from features.crm import read_mapping

MAPPING = """
[files.a]
needed = true
recognised_by = ["id", "opened"]
[files.a.columns]
id = "Id"
opened = "Opened"
stage = "Stage"
line = "Line"
closed = "Closed"
entered = { pattern = "in (?P<name>.+)" }
[files.b]
key = "name"
recognised_by = ["name", "chance"]
[files.b.columns]
name = "Name"
chance = "Chance"
[sets.closing]
found = [{ file = "a", column = { join = ["line", { text = "/" }, "stage"] }, rows = [
    { column = "closed", in = ["yes"] },
] }]
[[never]]
because = "it goes on"
columns = ["Age"]
patterns = ["out .+"]
[[deals]]
from = "a"
rows = [
    { make = "ended", as = { cases = [
        { where = [
            { column = { file = "b", by = "stage", column = "chance" }, at_least = 1 },
        ], then = { text = "won" } },
    ], otherwise = { text = "open" } } },
]
[deals.columns]
deal_id = "id"
partner_id = { text = "p" }
customer_id = { text = "c" }
created_at = "opened"
outcome = "ended"
closed_at = { cases = [{ where = [{ column = "ended", in = ["won"] }], then = [
    { file = "a", by = "id", match = "id", column = "when", at = "when", rows = [
        { unpivot = "entered", name = "which", value = "when", because = "none" },
    ] },
    "opened",
] }] }
product_line = { join = ["line", { text = " of " }, "stage"] }
amount = { join = [{ text = "1" }, { file = "b", by = "stage", column = "chance" }] }
[[stage_entries]]
from = "a"
rows = [
    { unpivot = "entered", name = "which", value = "when", because = "none" },
    { make = "place", as = { join = ["line", { text = "/" }, "which"] } },
    { column = "place", not_in_set = "closing", because = "it closes the deal" },
]
[stage_entries.columns]
deal_id = "id"
stage = "place"
entered_at = "when"
"""
ROWS = [
    {
        "Id": "1",
        "Opened": "2025-01-02",
        "Stage": "Done",
        "Line": "X",
        "Closed": "yes",
        "in New": "2025-01-03",
    },
    {"Id": "2", "Opened": "2025-01-02", "Stage": "Done", "Line": "Y", "Closed": "no", "in New": "2025-01-04"},
    {"Id": "3", "Opened": "2025-01-02", "Stage": "Done", "Line": "", "Closed": "no", "in New": "2025-01-04"},
    {"Id": "4", "Opened": "2025-01-02", "Stage": "Odd", "Line": "Y", "Closed": "no", "in New": "2025-01-04"},
]
LATER = {"in Done": "2025-02-05", "out New": "2025-02-05", "OUT Done": "", "Age": "3", "Colour": "red"}
CHANCES = [{"Name": "Done", "Chance": "1.0"}, {"Name": "New", "Chance": "0.2"}]


@pytest.fixture
def made(write_export, run_import, tmp_path):
    def run(chance: str = "1.0"):
        (tmp_path / "m.toml").write_text(MAPPING)
        chances = [CHANCES[0] | {"Chance": chance}, CHANCES[1]]
        folder = write_export({"a.csv": [row | LATER for row in ROWS], "b.csv": chances})
        summary = run_import(folder, mapping=tmp_path / "m.toml")
        return summary, read_tables(tmp_path / "crm")

    return run


def test_joined_texts_stand_one_after_the_other_and_are_blank_where_one_is(made):
    lines = made()[1].deals["product_line"]
    assert lines.fillna("").tolist() == ["X of Done", "Y of Done", "", "Y of Odd"]


def test_a_joined_text_can_be_a_number(made):
    amounts = made()[1].deals["amount"]
    assert amounts.fillna(0).tolist() == [11, 11, 11, 0]  # "1" and "1.0", and "1" and nothing


def test_an_alias_that_a_step_makes_is_there_for_columns_and_for_other_steps(made):
    assert made()[1].deals["outcome"].tolist() == ["won", "won", "won", "open"]


def test_a_number_looked_up_is_compared_as_a_number(made):
    assert made(chance="0.9")[1].deals["outcome"].tolist() == ["open"] * 4


def test_a_look_up_finds_a_column_that_its_steps_make(made):
    closed = made()[1].deals["closed_at"]
    assert closed.dt.strftime("%m-%d").tolist()[:3] == ["02-05"] * 3


def test_a_set_knows_a_text_by_two_columns(made):
    entries = made()[1].stage_entries
    assert set(entries["stage"]) == {"X/New", "Y/New", "Y/Done"}  # only X/Done closes a deal


def test_columns_known_by_a_pattern_are_told_with_the_reason_and_are_not_unknown(made):
    summary, _ = made()
    assert summary.never_columns["a.csv"] == dict.fromkeys(("out New", "OUT Done", "Age"), "it goes on")
    assert summary.unknown_columns == {"a.csv": ["Colour"]}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '{ make = "ended", as = {',
            '{ make = "ended", of = {',
            "m.toml: [[deals]] rows has an unknown key 'of'. Known keys: make, as.",
        ),
        (
            '{ make = "place", as = { join = ["line", { text = "/" }, "which"] } }',
            '{ make = "place" }',
            "m.toml: [[stage_entries]] rows: {'make': 'place'} should name an alias and say as = EXPRESSION.",
        ),
        (
            'product_line = { join = ["line", { text = " of " }, "stage"] }',
            'product_line = { join = "line" }',
            "m.toml: [[deals]] product_line: join should be a list of expressions; came {'join': 'line'}.",
        ),
        (
            'patterns = ["out .+"]',
            'patterns = ["out ("]',
            "m.toml: [[never]]: the pattern 'out (' is none: "
            "missing ), unterminated subpattern at position 4.",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_sentence(tmp_path, old, new, said):
    assert old in MAPPING
    (tmp_path / "m.toml").write_text(MAPPING.replace(old, new))
    with pytest.raises(UserError) as error:
        read_mapping(tmp_path / "m.toml")
    assert str(error.value) == said

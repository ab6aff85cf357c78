"""What the mapping language says of files that hold a row for each change, and of times and marks."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from features import UserError, read_tables
from features.crm import Imported

CHANGES = """
crm = "changes"
[files.a]
needed = true
about = "Changes"
recognised_by = ["id", "at"]
marks = ["Why They Came"]
[files.a.columns]
id = "Id"
at = "At"
opened = "Opened"
stage = "Stage"
help = "Help"
[[never]]
columns = ["Why They Came"]
because = "it is why the vendor came"
[[deals]]
from = "a"
rows = [
    { latest = "id", at = "at", because = "an earlier state" },
    { column = "stage", not_in = ["Deleted"], because = "deleted" },
]
[deals.columns]
deal_id = "id"
partner_id = { text = "p" }
customer_id = { text = "c" }
created_at = ["opened", { of = "at", counted = "not said when it was opened: at its last change" }]
outcome = { text = "open" }
[[stage_entries]]
from = "a"
rows = [
    { changed = ["stage"], by = "id", at = "at", because = "the same stage" },
    { column = "at", days_after = "opened", below = 2, because = "a first state that comes late" },
]
[stage_entries.columns]
deal_id = "id"
stage = "stage"
entered_at = "at"
[[involvements]]
from = "a"
rows = [
    { changed = ["help"], by = "id", at = "at", until = "next", because = "the same help" },
    { column = "help", in = ["yes"], because = "no help" },
]
[involvements.columns]
deal_id = "id"
started_at = "at"
ended_at = "next"
"""
ROWS = [
    ("1", "2025-01-01T08:00:00Z", "2025-01-01", "A", "no"),
    ("1", "2025-01-02T08:00:00Z", "2025-01-01", "A", "yes"),
    ("2", "2025-02-01T08:00:00Z", "", "A", "yes"),
    ("1", "2025-01-02T10:00:00Z", "2025-01-01", "B", "yes"),
    ("1", "2025-01-05T08:00:00Z", "2025-01-01", "B", "no"),
    ("1", "2025-01-06T08:00:00Z", "2025-01-01", "C", "yes"),
    ("3", "2025-01-01T08:00:00Z", "2025-01-01", "A", "no"),
    ("3", "2025-01-02T08:00:00Z", "2025-01-01", "Deleted", "no"),
]


@pytest.fixture
def run(write_export, run_import, tmp_path: Path) -> Callable[..., Imported]:
    def run(mapping: str = CHANGES, rows: list[tuple[str, ...]] = ROWS, without: str = "") -> Imported:
        (tmp_path / "m.toml").write_text(mapping)
        names = ["Id", "At", "Opened", "Stage", "Help"]
        table = [dict(zip(names, row, strict=True)) | {"Why They Came": "w"} for row in rows]
        for row in table:
            row.pop(without, None)
        return run_import(write_export({"a.csv": table}), mapping=tmp_path / "m.toml")

    return run


def test_a_change_lasts_until_the_next_change_of_the_same_deal(run, tmp_path):
    run()
    involved = read_tables(tmp_path / "crm").involvements
    spans = [(row.deal_id, row.started_at.day, row.ended_at.day) for row in involved.itertuples()]
    assert spans[:1] == [("1", 2, 5)]
    assert [span[:2] for span in spans[1:]] == [("1", 6), ("2", 1)]
    assert involved["ended_at"].isna().tolist() == [False, True, True]


def test_the_order_of_the_rows_does_not_matter_to_how_long_a_change_lasts(run, tmp_path):
    run(rows=ROWS[::-1])
    involved = read_tables(tmp_path / "crm").involvements
    assert involved["ended_at"].max() == pd.Timestamp("2025-01-05 08:00", tz="UTC")
    assert involved["ended_at"].isna().sum() == 2


def test_days_after_a_time_are_counted_and_an_unknown_time_is_not_within_them(run, tmp_path):
    summary = run()
    entries = read_tables(tmp_path / "crm").stage_entries
    assert entries[["deal_id", "stage"]].to_numpy().tolist() == [["1", "A"], ["1", "B"]]
    assert summary.tables["stage_entries"] == 2  # C came 5 days after; of deal 2 nobody knows


def test_rows_that_an_expression_gives_a_value_are_counted_by_its_name(run):
    repairs = {repair.rule: repair for repair in run().repairs}
    repair = repairs["not said when it was opened: at its last change"]
    assert (repair.count, repair.places) == (1, ["a.csv line 4"])


def test_a_deal_is_passed_over_for_what_its_latest_state_says(run):
    passed = run().files[0].passed_over
    assert passed == {"an earlier state": 2, "deleted": 1}


def test_what_belongs_to_a_deal_that_is_not_there_names_why_by_the_latest_state(run, write_export, tmp_path):
    other = '[files.b]\nrecognised_by = ["of"]\n[files.b.columns]\nof = "Of"\nwhen = "When"\n'
    block = '[[activities]]\nfrom = "b"\n[activities.columns]\ndeal_id = "of"\nby = { text = "vendor" }\n'
    write_export({"b.csv": "Of,When\n3,2025-01-01\n"})
    summary = run(CHANGES + other + block + 'happened_at = "when"\n')
    activity = next(file for file in summary.files if file.name == "b.csv")
    assert activity.passed_over == {"its deal is passed over: deleted": 1}


def test_a_mark_has_to_be_there_though_it_is_never_read(run):
    summary = run()
    assert summary.never_columns == {"a.csv": {"Why They Came": "it is why the vendor came"}}
    assert summary.unknown_columns == {}


def test_without_a_mark_an_export_is_not_recognised(run):
    with pytest.raises(UserError) as error:
        run(without="Why They Came")
    assert str(error.value) == (
        "No changes export: a.csv comes nearest to changes's Changes, but lacks 'Why They Came'; add it to "
        "the export, or its spelling to the mapping."
    )


def test_days_after_without_a_number_of_days_is_refused(run):
    with pytest.raises(UserError, match=r"counts days; say how many with at_least or below\."):
        run(CHANGES.replace("below = 2", "blank = false"))

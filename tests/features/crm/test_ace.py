"""AWS Partner Central's traps, one by one, on change rows made by hand (exports/ace) and small variations."""

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from imported_tables import utc

from features import UserError, read_tables
from features.crm import Imported, import_export
from features.schema import Tables

FILE = "opportunity_pipeline.csv"
NEED = "partner_primary_need_from_aws"


def deal(number: int) -> str:
    return f"O{number:07d}"


@pytest.fixture(scope="module")
def imported(exports, clock, tmp_path_factory) -> tuple[Imported, Tables, Path]:
    out = tmp_path_factory.mktemp("ace") / "crm"
    summary = import_export(exports / "ace", out, clock=clock)
    return summary, read_tables(out, clock), out


@pytest.fixture
def changed(exports: Path, write_export) -> Callable[..., Path]:
    """Write the made export anew, its rows and header edited."""

    def write(edit: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> Path:
        with (exports / "ace" / FILE).open(newline="") as file:
            return write_export({FILE: edit(list(csv.DictReader(file)))})

    return write


def of_deal(table: pd.DataFrame, number: int) -> pd.DataFrame:
    return table[table["deal_id"] == deal(number)].reset_index(drop=True)


def passed_over(imported) -> dict[str, int]:
    return imported[0].files[0].passed_over


def without(*columns: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [{k: v for k, v in row.items() if k not in columns} for row in rows]


def renamed(old: str, new: str) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    return lambda rows: [{new if k == old else k: v for k, v in row.items()} for row in rows]


def test_it_is_recognised_by_its_headers_alone_and_by_no_other_mapping(imported):
    said = f"AWS Partner Central (ace.toml), recognised by the columns of {FILE}."
    assert imported[0].lines()[0] == said


def test_a_line_of_the_export_is_named_once_for_each_rule(imported):
    lines = imported[0].lines()
    before = "a change before the deal was created: taken at its creation"
    assert f"            6  {before} ({FILE} line 12, ...)" in lines
    assert any(line.endswith(f"stands in ({FILE} lines 2, 3, 4, 5, 6, ...)") for line in lines)


def test_each_change_of_the_stage_is_an_entry_at_its_own_row(imported):
    entries = of_deal(imported[1].stage_entries, 1)
    assert list(zip(entries["stage"], entries["entered_at"], strict=True)) == [
        ("Qualified", utc("2025-02-03 09:15")),
        ("Technical Validation", utc("2025-03-10 08:00")),
        ("Business Validation", utc("2025-05-05 11:00")),
        ("Committed", utc("2025-06-16 12:00")),
        ("Committed", utc("2025-07-09 09:00")),
    ]


def test_aws_takes_part_from_the_row_that_turned_co_sell_and_not_from_the_start(imported):
    first = of_deal(imported[1].involvements, 1).iloc[0]
    assert first["started_at"] == utc("2025-03-12 10:30")  # the deal is of 3 February


def test_aws_takes_part_until_the_row_that_turned_back_to_visibility(imported):
    involved = of_deal(imported[1].involvements, 1)
    assert involved["ended_at"].iloc[0] == utc("2025-05-20 07:00")
    assert pd.isna(involved["ended_at"].iloc[1])  # Co-Sell once more as it was launched


def test_a_deal_that_was_only_ever_visible_has_no_involvement(imported):
    assert of_deal(imported[1].involvements, 2).empty
    assert any("no proof of absence" in sentence for sentence in imported[0].cannot_know)


def test_that_it_is_co_sell_today_does_not_reach_back(changed, run_import, tmp_path, clock):
    def last_row_only(rows):
        newest = max(row["row_modified_date"] for row in rows if row["opportunity_id"] == deal(2))
        for row in rows:
            if row["opportunity_id"] == deal(2) and row["row_modified_date"] == newest:
                row["engagement_type"] = "Co-Sell"
        return rows

    run_import(changed(last_row_only))
    involved = of_deal(read_tables(tmp_path / "crm", clock).involvements, 2)
    assert list(involved["started_at"]) == [utc("2025-09-01 15:00")]


def test_the_deal_of_today_is_its_last_row_wherever_that_stands(imported, deals):
    assert (deals.at[deal(1), "outcome"], deals.at[deal(1), "amount"]) == ("won", 180_000)


def test_amounts_are_those_of_the_moment_and_not_the_last_one(imported):
    amounts = of_deal(imported[1].deal_changes, 1).query("column == 'amount'")
    assert list(amounts["value"]) == ["120000", "150000", "180000"]
    assert list(amounts["changed_at"]) == [
        utc("2025-02-03"),
        utc("2025-04-02 10:00"),
        utc("2025-08-04 06:30"),
    ]


def test_what_stood_in_the_first_row_is_known_from_the_creation_on(imported):
    first = of_deal(imported[1].deal_changes, 1).drop_duplicates("column")
    assert set(first["changed_at"]) == {utc("2025-02-03")}
    assert first["recorded_at"].isna().all()  # else the first decision would not see them


def test_launched_is_won_closed_lost_is_lost_and_committed_is_still_open(deals):
    outcomes = {number: deals.at[deal(number), "outcome"] for number in (1, 2, 3)}
    assert outcomes == {1: "won", 2: "lost", 3: "open"}  # deal 3 is Committed


def test_a_deal_closes_at_the_row_that_closed_it_and_at_the_last_such_row(imported, deals):
    assert deals.at[deal(1), "closed_at"] == utc("2025-08-04 06:30")  # won_date says 16 June
    assert deals.at[deal(2), "closed_at"] == utc("2025-09-01 15:00")
    rules = {repair.rule: repair.count for repair in imported[0].repairs}
    assert rules["a deal that closed more than once: the last closing counts"] == 1


def test_the_stage_of_a_first_row_long_after_the_submission_is_no_entry(imported):
    assert list(of_deal(imported[1].stage_entries, 3)["stage"]) == ["Committed"]


def test_co_sell_in_a_first_row_long_after_the_submission_began_then_at_the_latest(imported):
    assert list(of_deal(imported[1].involvements, 3)["started_at"]) == [utc("2025-02-01 00:05")]


def test_a_deal_launched_in_its_first_row_closed_on_its_won_date(deals):
    assert deals.at[deal(4), "closed_at"] == utc("2024-11-20")


def test_a_deal_lost_in_its_first_row_is_refused_for_nothing_says_when(imported, deals):
    assert deal(5) not in deals.index
    reasons = pd.read_csv(imported[2] / "refused.csv")["reason"]
    assert list(reasons).count("is won or lost, but nothing says when it closed") == 1


def test_a_deal_from_aws_begins_when_the_partner_accepts_it(imported, deals):
    assert deals.at[deal(6), "created_at"] == utc("2025-06-04 16:20")
    assert deals.at[deal(6), "lead_source"] == "AWS Referral"
    assert list(of_deal(imported[1].stage_entries, 6)["stage"]) == ["Qualified"]


def test_a_deleted_deal_and_a_draft_are_passed_over(imported, deals):
    assert not {deal(7), deal(8)} & set(deals.index)
    passed = passed_over(imported)
    assert (passed["deleted in the CRM"], passed["never submitted to AWS"]) == (1, 1)


def test_a_deal_that_nobody_dates_begins_with_its_first_row_and_is_counted(imported, deals):
    assert deals.at[deal(9), "created_at"] == utc("2025-07-07 08:00")
    rules = {repair.rule: repair.count for repair in imported[0].repairs}
    assert rules["not said when a deal was submitted or accepted: it begins with its first row"] == 1


def test_a_row_delivered_twice_counts_once(imported):
    assert list(of_deal(imported[1].stage_entries, 2)["stage"]) == ["Prospect", "Qualified"]


def test_the_need_is_why_the_vendor_came_and_no_feature(imported, deals):
    why = imported[0].never_columns[FILE][NEED]
    assert why == "it is why the vendor came, not what the deal is (confounding by indication)"
    assert not [column for column in deals.columns if "need" in column]
    assert not imported[1].deal_changes["column"].str.contains("need").any()
    assert any("why AWS came" in sentence for sentence in imported[0].cannot_know)


def test_columns_that_know_the_outcome_are_named_and_not_used(imported, deals):
    never = imported[0].never_columns[FILE]
    for column in ("opportunity_pipeline_status", "aws_opportunity_stage_name"):
        assert never[column] == "it knows the outcome"
    assert never["customer_type"] == "it goes on changing until the deal closes, or after"
    assert not set(never) & set(deals.columns)


def test_columns_and_files_that_nobody_knows_are_listed(imported, deals):
    assert imported[0].unknown_columns[FILE] == ["renewal_score"]
    assert "renewal_score" not in deals.columns
    assert list(imported[0].unused_files) == ["leads.csv"]


def test_without_a_column_for_it_the_exporting_partner_stands_in_loudly(imported, deals):
    assert set(deals["partner_id"]) == {"(the exporting partner)"}
    rule = "no column of the export says partner_id of deals: '(the exporting partner)' stands in"
    assert rule in {repair.rule for repair in imported[0].repairs}
    assert any("at least ten partners" in sentence for sentence in imported[0].cannot_know)


def test_exports_of_several_partners_put_together_keep_their_partners(changed, run_import, tmp_path, clock):
    run_import(changed(lambda rows: [row | {"partner_id": row["opportunity_id"][-1]} for row in rows]))
    assert set(read_tables(tmp_path / "crm", clock).deals["partner_id"]) == {"1", "2", "3", "4", "6", "9"}


def test_customers_have_the_traits_of_their_latest_row(imported):
    customers = imported[1].customers.set_index("customer_id")
    assert customers.loc["Lumen SAS", ["industry", "region", "segment"]].tolist() == [
        "Telecommunications",
        "France",
        "Enterprise",
    ]
    assert len(customers) == 3


def test_rows_that_cannot_be_used_are_refused_with_the_reason(imported):
    reasons = set(pd.read_csv(imported[2] / "refused.csv")["reason"])
    assert reasons == {
        "row_modified_date is blank or cannot be read",
        "a stage that the mapping does not list: 'On Ice'",
        "customer_id is blank",
        "is won or lost, but nothing says when it closed",
    }


def test_every_row_of_every_file_is_accounted_for(imported, exports):
    for file in imported[0].files:
        lines = (exports / "ace" / file.name).read_bytes().count(b"\n")
        assert file.rows == lines - 1 == file.kept + file.refused.total() + file.passed_over.total()


def test_the_involvement_type_of_the_api_is_read_as_the_engagement_type(
    changed, run_import, tmp_path, clock, imported
):
    run_import(changed(renamed("engagement_type", "InvolvementType")))
    involved = read_tables(tmp_path / "crm", clock).involvements
    pd.testing.assert_frame_equal(involved, imported[1].involvements)


def test_an_export_without_the_need_is_not_taken_for_one_of_aws(changed, run_import):
    with pytest.raises(UserError) as error:
        run_import(changed(without(NEED)), crm="ace")
    assert str(error.value) == (
        f"No AWS Partner Central export: {FILE} comes nearest to AWS Partner Central's ACE Opportunity "
        f"Pipeline, but lacks '{NEED}'; add it to the export, or its spelling to the mapping."
    )


def test_the_order_of_the_rows_does_not_matter(changed, run_import, tmp_path, clock, imported):
    run_import(changed(lambda rows: rows[::-1]))
    after = read_tables(tmp_path / "crm", clock)
    for name, table in imported[1].by_name().items():
        columns = list(table.columns)
        first, second = (
            each.by_name()[name].sort_values(columns, ignore_index=True) for each in (imported[1], after)
        )
        pd.testing.assert_frame_equal(first, second)


def test_deliveries_in_several_files_are_parts_of_one_history(exports, run_import, tmp_path, clock, imported):
    folder = Path(shutil.copytree(exports / "ace", tmp_path / "export"))
    header, *rows = (folder / FILE).read_text().splitlines(keepends=True)
    (folder / FILE).write_text("".join([header, *rows[::2]]))
    (folder / "later.csv").write_text("".join([header, *rows[1::2]]))
    run_import(folder)
    assert len(read_tables(tmp_path / "crm", clock).stage_entries) == len(imported[1].stage_entries)


def test_a_column_that_the_export_lacks_has_no_history(changed, run_import, tmp_path, clock):
    run_import(changed(without("opportunity_type", "workload")))
    columns = set(read_tables(tmp_path / "crm", clock).deal_changes["column"])
    assert columns == {"amount", "product_line", "lead_source", "delivery_model"}

"""Salesforce's traps, one by one, on an export made by hand (exports/salesforce) and small variations."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from imported_tables import refused_lines, utc

from features import UserError, read_tables
from features.crm import Imported, import_export
from features.crm.salesforce_ids import with_eighteen
from features.schema import Tables


def deal(number: int) -> str:
    return f"006Dp00000{number:05d}IAA"


def account(number: int) -> str:
    return f"001Dp00000{number:05d}IAB"


@pytest.fixture(scope="module")
def imported(exports, clock, tmp_path_factory) -> tuple[Imported, Tables, Path]:
    out = tmp_path_factory.mktemp("salesforce") / "crm"
    summary = import_export(exports / "salesforce", out, rates=exports / "rates.csv", clock=clock)
    return summary, read_tables(out, clock), out


@pytest.fixture
def copied(exports: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports / "salesforce", tmp_path / "export"))


def edit(file: Path, edits: Callable[[str], str]) -> None:
    file.write_bytes(
        edits(file.read_bytes().decode("utf-8-sig", "surrogateescape")).encode(errors="surrogateescape")
    )


def of_deal(table: pd.DataFrame, number: int) -> pd.DataFrame:
    return table[table["deal_id"] == deal(number)]


def test_it_is_recognised_by_its_headers_and_said(imported):
    assert (
        imported[0].lines()[0]
        == "Salesforce (salesforce.toml), recognised by the columns of Opportunity.csv."
    )


def test_a_closed_deal_closes_when_its_stage_became_a_closed_one(deals):
    assert deals.at[deal(1), "outcome"] == "won"
    assert deals.at[deal(1), "closed_at"] == utc("2025-05-14 16:45")  # CloseDate says 30 June


def test_the_close_date_of_an_open_deal_is_an_expectation_and_no_closing(deals):
    assert deals.at[deal(3), "outcome"] == "open"
    assert pd.isna(deals.at[deal(3), "closed_at"])


def test_a_close_date_before_the_last_stage_entry_is_moved_to_it_and_counted(imported, deals):
    assert deals.at[deal(2), "closed_at"] == utc("2025-03-20 10:00")  # CloseDate says 1 March
    rules = {repair.rule: repair for repair in imported[0].repairs}
    repair = rules["closed before the last stage entry: taken at that entry"]
    assert (repair.count, repair.places) == (1, ["Opportunity.csv line 3"])


def test_a_close_date_on_the_day_of_the_last_entry_stands_after_it(deals):
    assert deals.at[deal(8), "closed_at"] == utc("2025-08-15 06:00")


def test_a_change_of_the_amount_or_close_date_is_no_stage_entry(imported):
    entries = of_deal(imported[1].stage_entries, 1)
    assert list(entries["stage"]) == ["Prospecting", "Proposal/Price Quote"]
    assert list(entries["entered_at"]) == [utc("2025-01-07 09:12"), utc("2025-02-03 10:00")]


def test_a_stage_entered_again_is_kept(imported):
    stages = of_deal(imported[1].stage_entries, 3)["stage"]
    assert list(stages) == ["Prospecting", "Proposal/Price Quote"] * 2


def test_a_deal_reopened_after_closing_closes_at_its_last_closing(imported, deals):
    assert deals.at[deal(6), "closed_at"] == utc("2025-10-09 15:00")
    assert list(of_deal(imported[1].stage_entries, 6)["stage"]) == ["Prospecting", "Proposal/Price Quote"]
    assert "a deal that closed more than once: the last closing counts" in {
        r.rule for r in imported[0].repairs
    }


def test_a_stage_entered_before_the_creation_is_taken_at_the_creation(imported):
    entries = of_deal(imported[1].stage_entries, 2)
    assert entries["entered_at"].iloc[0] == utc("2025-01-20 10:00")


def test_the_partner_stands_in_a_field_of_ones_own_while_the_standard_one_is_a_null_id(deals):
    assert deals.at[deal(1), "partner_id"] == account(11)


def test_the_partner_of_the_account_is_taken_where_ones_own_field_is_blank(deals):
    assert deals.at[deal(6), "partner_id"] == account(12)


def test_the_primary_partner_is_looked_up_and_the_customers_side_of_the_pair_is_not(deals):
    assert deals.at[deal(2), "partner_id"] == account(12)


def test_a_partner_that_no_file_describes_gets_a_row_of_its_id(imported):
    partners = imported[1].partners.set_index("partner_id")
    assert partners.loc[account(99)].isna().all()
    assert account(13) not in partners.index  # an account that no deal names


def test_a_deal_without_a_partner_is_passed_over_as_a_direct_deal(imported, deals):
    assert deal(4) not in deals.index
    passed = {file.name: file.passed_over for file in imported[0].files}
    assert passed["Opportunity.csv"]["no partner: a direct deal"] == 1
    assert passed["OpportunityHistory.csv"]["its deal is passed over: no partner: a direct deal"] == 1


def test_deleted_rows_are_passed_over(imported, deals):
    assert deal(5) not in deals.index
    assert imported[0].files[2].passed_over["deleted in the CRM"] == 1


def test_a_vendor_role_in_the_team_is_an_involvement_and_other_roles_are_not(imported):
    team = imported[1].involvements
    assert list(of_deal(team, 1)["kind"]) == ["technical", "other"]
    assert of_deal(team, 1)["started_at"].iloc[0] == utc("2025-02-05 07:00")  # +0100
    passed = next(file for file in imported[0].files if file.name == "OpportunityTeamMember.csv").passed_over
    assert passed["a team role that is no vendor involvement: 'Channel Manager'"] == 1
    assert passed["a partner's or customer's user in the team"] == 1


def test_a_finished_call_of_the_vendor_is_an_involvement_and_an_email_is_not(imported):
    call = of_deal(imported[1].involvements, 1).iloc[1]
    assert (call["started_at"], call["ended_at"]) == (utc("2025-02-10 14:00"), utc("2025-02-10 14:00"))
    assert call["recorded_at"] == utc("2025-02-11 08:15")  # MM/DD/YY hh:mm AM


def test_activities_of_vendor_and_partner_are_told_apart_by_the_users_type(imported):
    activities = of_deal(imported[1].activities, 1)
    assert list(zip(activities["by"], activities["kind"], strict=True)) == [
        ("vendor", "call"),
        ("vendor", "email"),
        ("partner", "call"),
    ]


def test_without_the_user_file_tasks_and_events_are_passed_over(copied, run_import, exports):
    (copied / "User.csv").unlink()
    summary = run_import(copied, rates=exports / "rates.csv")
    task = next(file for file in summary.files if file.name == "Task.csv")
    assert (task.kept, task.passed_over["the owner is not known to be the vendor's"]) == (0, 5)
    assert summary.tables["activities"] == 0


def test_a_meeting_lasts_from_its_start_to_its_end_and_a_planned_one_is_not_there(imported):
    meeting = of_deal(imported[1].involvements, 6).iloc[-1]
    assert (meeting["started_at"], meeting["ended_at"]) == (utc("2025-06-17 14:30"), utc("2025-06-17 16:00"))
    event = next(file for file in imported[0].files if file.name == "Event.csv")
    assert event.passed_over == {"planned, not done yet": 1}


def test_that_absence_is_no_proof_is_said(imported):
    assert any("absence is no proof" in sentence for sentence in imported[0].cannot_know)


def test_changes_tell_what_a_column_held_before_and_at_creation(imported):
    changes = of_deal(imported[1].deal_changes, 1)
    rows = list(changes[["column", "value", "changed_at"]].itertuples(index=False, name=None))
    assert rows == [
        ("amount", "100000", utc("2025-01-07 09:12")),
        ("amount", "120000", utc("2025-02-20 10:00")),
        ("lead_source", "Partner Referral", utc("2025-01-07 09:12")),
        ("lead_source", "Web", utc("2025-03-01 12:00")),
    ]


def test_a_blank_old_value_was_blank_from_the_creation_on(imported):
    source = of_deal(imported[1].deal_changes, 7).query("column == 'lead_source'")
    assert source["value"].isna().tolist() == [True, False]
    assert source["changed_at"].iloc[0] == utc("2025-09-01 08:00")


def test_the_words_of_a_picklist_change_in_changes_as_they_do_in_deals(imported):
    kinds = of_deal(imported[1].deal_changes, 3).query("column == 'deal_type'")["value"]
    assert list(kinds) == ["expansion", "new_business"]


def test_amounts_and_their_changes_are_converted_at_the_last_rate_before_the_creation(imported, deals):
    assert deals.at[deal(6), "amount"] == pytest.approx(200_000 * 0.95)  # the rate of 3 March, not of the 4th
    assert set(deals["currency"]) == {"EUR"}
    assert list(of_deal(imported[1].deal_changes, 6)["value"]) == ["142500", "190000"]
    said = "Amounts are in EUR, at the last rate on or before the day a deal was created."
    assert said in imported[0].notes


def test_several_currencies_are_refused_without_rates(exports, run_import, tmp_path):
    with pytest.raises(UserError) as error:
        run_import(exports / "salesforce")
    assert str(error.value) == (
        "The deals hold several currencies: EUR (6), USD (1). Give a file of rates with --rates, or keep one "
        "with --keep-currency EUR."
    ).replace("EUR (6)", "EUR (5)")
    assert not (tmp_path / "crm").exists()


def test_one_currency_to_keep_refuses_the_others(exports, run_import, tmp_path, clock):
    summary = run_import(exports / "salesforce", keep_currency="eur")
    tables = read_tables(tmp_path / "crm", clock)
    assert deal(6) not in set(tables.deals["deal_id"])
    refused = refused_lines(tmp_path / "crm")
    assert refused["Opportunity.csv", 7] == "its currency is USD; only EUR is kept"
    assert refused["OpportunityHistory.csv", 17] == "its deal is refused"
    assert "Only deals in EUR are kept." in summary.notes


def test_rows_that_cannot_be_used_are_refused_with_their_line_and_the_reason(imported):
    assert refused_lines(imported[2]) == {
        ("Opportunity.csv", 10): "outcome is blank",
        ("Opportunity.csv", 11): "customer_id is blank",
        ("Opportunity.csv", 12): "created_at cannot be read: '2025-02-31T06:00:00.000+0000'",
        ("Opportunity.csv", 13): "its deal_id came before",
        ("Opportunity.csv", 14): "has 4 fields where the header has 22",
        ("OpportunityHistory.csv", 25): "names a deal that the export does not hold",
        ("OpportunityHistory.csv", 26): "CreatedDate is blank or cannot be read",
        ("OpportunityHistory.csv", 27): "its deal is refused",
    }


def test_every_row_of_every_file_is_accounted_for(imported, exports):
    for file in imported[0].files:
        lines = (exports / "salesforce" / file.name).read_bytes().count(b"\n")
        assert file.rows == lines - 1 == file.kept + file.refused.total() + file.passed_over.total()


def test_a_line_in_another_encoding_is_repaired_and_counted(imported):
    rules = {repair.rule: repair.places for repair in imported[0].repairs}
    assert rules["a line that is not UTF-8 in a file that is: read as Windows-1252"] == ["Account.csv line 3"]


def test_columns_that_know_the_outcome_are_named_with_the_reason_and_not_used(imported, deals):
    never = imported[0].never_columns["Opportunity.csv"]
    assert never["Probability"] == never["ExpectedRevenue"] == never["ForecastCategoryName"]
    assert never["Probability"] == "it knows the outcome: it goes to 100 or 0 as the deal closes"
    assert never["Loss_Reason__c"] == "it is filled in as the deal is lost"
    assert imported[0].unknown_columns["Opportunity.csv"] == ["Deal_Score__c"]
    assert "Deal_Score__c" not in deals.columns


def test_an_export_in_german_is_read_by_its_flags_and_not_by_the_stages_names(
    exports, run_import, tmp_path, clock
):
    run_import(exports / "salesforce_german", timezone="Europe/Berlin")
    tables = read_tables(tmp_path / "crm", clock)
    deals = tables.deals
    assert list(deals["outcome"]) == ["won", "lost", "open"]
    assert list(deals["amount"]) == [1_234_567.5, 12_500, 45_000]
    assert list(deals["deal_type"]) == ["new_business", "expansion", "renewal"]
    assert deals["closed_at"].iloc[0] == utc("2025-05-14 14:45")
    assert "Gewonnen" not in set(tables.stage_entries["stage"])


def test_times_that_a_change_of_the_clocks_skips_or_repeats_follow_a_named_rule(
    exports, run_import, tmp_path
):
    summary = run_import(exports / "salesforce_german", timezone="Europe/Berlin")
    created = read_tables(tmp_path / "crm").deals["created_at"]
    assert list(created[1:]) == [utc("2025-03-30 01:00"), utc("2025-10-26 00:30")]
    assert {repair.rule: repair.count for repair in summary.repairs if "clocks" in repair.rule} == {
        "a time that a change of the clocks skips: moved to the first moment after it": 2,
        "a time that a change of the clocks repeats: the first of the two taken": 2,
    }


def test_an_export_without_the_flags_is_refused_with_what_is_missing(copied, run_import, tmp_path):
    edit(copied / "Opportunity.csv", lambda text: text.replace("IsWon", "Victory"))
    with pytest.raises(UserError) as error:
        run_import(copied, crm="salesforce")
    assert str(error.value) == (
        "No Salesforce export: Opportunity.csv comes nearest to Salesforce's Opportunity, but lacks 'IsWon'; "
        "add it to the export, or its spelling to the mapping."
    )
    assert not (tmp_path / "crm").exists()


def test_without_any_history_there_are_no_decisions_and_it_says_so(copied, run_import, exports):
    (copied / "OpportunityHistory.csv").unlink()
    (copied / "OpportunityFieldHistory.csv").unlink()
    with pytest.raises(UserError) as error:
        run_import(copied, rates=exports / "rates.csv")
    assert str(error.value) == (
        "No row for stage_entries is left. They come from OpportunityHistory or OpportunityFieldHistory, and "
        "the export has none."
    )


def test_the_field_history_gives_the_stages_where_the_history_was_not_exported(
    copied, run_import, exports, tmp_path, clock
):
    (copied / "OpportunityHistory.csv").unlink()
    run_import(copied, rates=exports / "rates.csv")
    entries = read_tables(tmp_path / "crm", clock).stage_entries
    assert entries[["deal_id", "stage"]].to_numpy().tolist() == [[deal(3), "Proposal/Price Quote"]]


def test_the_files_names_do_not_matter(copied, run_import, exports):
    before = run_import(exports / "salesforce", rates=exports / "rates.csv")
    shutil.rmtree(before.folder)
    for i, file in enumerate(sorted(copied.iterdir(), reverse=True)):
        file.rename(copied / f"{i}.csv")
    assert run_import(copied, rates=exports / "rates.csv").tables == before.tables


def test_ids_of_fifteen_signs_as_reports_hold_them_are_the_same_ids(
    copied, run_import, exports, tmp_path, clock
):
    before = run_import(exports / "salesforce", rates=exports / "rates.csv")
    shutil.rmtree(before.folder)
    edit(copied / "OpportunityHistory.csv", lambda text: text.replace("IAA,", ","))
    edit(copied / "Task.csv", lambda text: text.replace("IAA,", ","))
    after = run_import(copied, rates=exports / "rates.csv")
    assert after.tables == before.tables
    assert "OpportunityHistory.csv: 26 ids of 15 signs are written with 18, as elsewhere." in after.notes


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("006Dp0000000001", "006Dp0000000001IAA"),
        ("001bm00001ZL8U9", "001bm00001ZL8U9AAL"),
        ("a" * 15, "a" * 15 + "AAA"),
    ],
)
def test_the_three_further_signs_of_an_id_tell_its_capitals(short, long):
    ids, count = with_eighteen(pa.array([short, long, None], pa.large_string()))
    assert (ids.to_pylist(), count) == ([long, long, None], 1)


def test_the_order_of_the_rows_does_not_matter(copied, run_import, exports, tmp_path, clock):
    run_import(exports / "salesforce", rates=exports / "rates.csv")
    before = read_tables(tmp_path / "crm", clock)
    shutil.rmtree(tmp_path / "crm")
    for name in (
        "OpportunityHistory.csv",
        "OpportunityFieldHistory.csv",
        "Task.csv",
        "OpportunityTeamMember.csv",
    ):
        lines = (copied / name).read_text().splitlines()
        (copied / name).write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    run_import(copied, rates=exports / "rates.csv")
    after = read_tables(tmp_path / "crm", clock)
    for name, table in before.by_name().items():
        columns = list(table.columns)
        first, second = (t.by_name()[name].sort_values(columns, ignore_index=True) for t in (before, after))
        pd.testing.assert_frame_equal(first, second)


def test_an_export_that_knows_no_partner_at_all_gets_one_that_stands_in_loudly(
    copied, run_import, tmp_path, clock
):
    (copied / "OpportunityPartner.csv").unlink()
    edit(
        copied / "Opportunity.csv", lambda t: t.replace("Partner__c", "P1").replace("PartnerAccountId", "P2")
    )
    summary = run_import(copied, keep_currency="EUR")
    assert set(read_tables(tmp_path / "crm", clock).deals["partner_id"]) == {"(no partner on record)"}
    rule = "no column of the export says partner_id of deals: '(no partner on record)' stands in"
    assert rule in {repair.rule for repair in summary.repairs}


def test_the_same_stage_entry_twice_is_refused_the_second_time(copied, run_import, exports, tmp_path):
    again = [("Proposal/Price Quote", 90), ("Qualification", 91), ("Proposal/Price Quote", 92)]
    rows = [
        f"008Dp00000{i:05d}IAD,{deal(7)},,2025-12-01T08:00:00.000Z,{stage},30000.0,,2026-03-31,,,,false\n"
        for stage, i in again
    ]
    with (copied / "OpportunityHistory.csv").open("a") as file:
        file.writelines(rows)
    run_import(copied, rates=exports / "rates.csv")
    assert refused_lines(tmp_path / "crm")["OpportunityHistory.csv", 30] == "the same stage entry came before"


def test_one_closed_deal_in_an_open_stage_makes_it_no_closing_one(
    copied, run_import, exports, tmp_path, clock
):
    rows = [
        f"{deal(i)},false,{account(1)},,Negotiation/Review,1.5,,,2026-09-01,,,{closed},false,,EUR,,{account(11)},,,"
        "2025-08-15T06:00:00.000+0000,,\n"
        for i, closed in ((20, "true"), (21, "false"))
    ]
    text = (copied / "Opportunity.csv").read_bytes() + "".join(rows).encode()
    (copied / "Opportunity.csv").write_bytes(text)
    run_import(copied, rates=exports / "rates.csv")
    entries = read_tables(tmp_path / "crm", clock).stage_entries
    assert "Negotiation/Review" in set(of_deal(entries, 7)["stage"])


def test_a_history_that_starts_a_moment_late_tells_the_value_at_creation(
    copied, run_import, exports, tmp_path, clock
):
    edit(
        copied / "OpportunityHistory.csv",
        lambda text: text.replace(
            "2025-11-03T07:30:00.000Z,Prospecting", "2025-11-03T07:30:02.000Z,Prospecting"
        ),
    )
    summary = run_import(copied, rates=exports / "rates.csv")
    amounts = of_deal(read_tables(tmp_path / "crm", clock).deal_changes, 3).query("column == 'amount'")
    assert amounts["changed_at"].iloc[0] == utc("2025-11-03 07:30")
    rules = {repair.rule for repair in summary.repairs}
    said = "a history that starts within a day of the creation: its first value taken from the creation on"
    assert said in rules


PARTNERS = """Id,OpportunityId,AccountFromId,AccountToId,Role,IsPrimary,ReversePartnerId,CreatedDate,IsDeleted
00ID1,,001Dp0000000001IAB,001Dp0000000011IAB,Reseller,false,00ID2,2024-05-02T10:05:00.000+0000,false
00ID2,,001Dp0000000011IAB,001Dp0000000001IAB,Customer,false,00ID1,2024-05-02T10:05:00.000+0000,false
00ID3,,001Dp0000000003IAB,001Dp0000000011IAB,Reseller,false,00ID4,2024-06-03T10:05:00.000+0000,true
"""


def test_the_pairs_of_partner_are_relationships_whichever_side_they_are_told_from(
    copied, run_import, exports, tmp_path, clock
):
    (copied / "Partner.csv").write_text(PARTNERS)
    summary = run_import(copied, rates=exports / "rates.csv")
    relationships = read_tables(tmp_path / "crm", clock).relationships
    since = utc("2024-05-02 10:05")
    assert relationships[["partner_id", "customer_id", "since", "recorded_at"]].values.tolist() == [
        ["001Dp0000000011IAB", "001Dp0000000001IAB", since, since]
    ]
    file = next(file for file in summary.files if file.name == "Partner.csv")
    assert (file.rows, file.kept) == (3, 1)
    assert file.passed_over == {"names none of the partners here": 1, "deleted in the CRM": 1}


def test_a_row_in_which_the_partner_was_looked_up_is_kept(imported):
    partners = next(file for file in imported[0].files if file.name == "OpportunityPartner.csv")
    assert (partners.rows, partners.kept) == (3, 1)


def test_a_row_that_one_table_can_use_and_another_cannot_is_kept_and_counted(
    copied, run_import, exports, tmp_path
):
    edit(
        copied / "OpportunityHistory.csv",
        lambda text: text.replace("Qualification,30000.0", "Qualification,lots"),
    )
    summary = run_import(copied, rates=exports / "rates.csv")
    part = next(repair for repair in summary.repairs if repair.rule.startswith("a row used in part"))
    assert part.rule == "a row used in part: an amount that cannot be read, or is below 0"
    assert part.places == ["OpportunityHistory.csv line 21"]
    assert ("OpportunityHistory.csv", 21) not in refused_lines(tmp_path / "crm")

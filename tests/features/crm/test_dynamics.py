"""Dynamics 365's traps, one by one, on exports made by hand: the Web API's columns, and an Excel export."""

import csv
import json
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from imported_tables import refused_lines, utc

from features import UserError, read_tables
from features.crm import Imported, bundled, import_export, read_mapping
from features.crm.recognise import recognise, sheets_of
from features.schema import Tables

NEW_YORK = "America/New_York"


def guid(kind: str, number: int) -> str:
    return f"{kind}000000-5a1e-4c00-8000-{number:012d}"


def deal(number: int) -> str:
    return guid("0b", number)


def account(number: int) -> str:
    return guid("ac", number)


def of_deal(table: pd.DataFrame, number: int) -> pd.DataFrame:
    return table[table["deal_id"] == deal(number)]


def stages(table: pd.DataFrame, number: int) -> list[str]:
    return of_deal(table, number)["stage"].tolist()


def passed(summary: Imported, name: str) -> dict[str, int]:
    return next(file for file in summary.files if file.name == name).passed_over


def edit(file: Path, edits: Callable[[str], str]) -> None:
    text = file.read_text(encoding="utf-8")
    assert edits(text) != text
    file.write_text(edits(text), encoding="utf-8")


@pytest.fixture(scope="module")
def imported(exports, clock, tmp_path_factory) -> tuple[Imported, Tables, Path]:
    out = tmp_path_factory.mktemp("dynamics") / "crm"
    summary = import_export(
        exports / "dynamics", out, crm="dynamics", rates=exports / "rates.csv", clock=clock
    )
    return summary, read_tables(out, clock), out


@pytest.fixture(scope="module")
def excel(exports, clock, tmp_path_factory) -> tuple[Imported, Tables, Path]:
    out = tmp_path_factory.mktemp("dynamics_excel") / "crm"
    summary = import_export(exports / "dynamics_excel", out, crm="dynamics", timezone=NEW_YORK, clock=clock)
    return summary, read_tables(out, clock), out


@pytest.fixture
def copied(exports: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports / "dynamics", tmp_path / "export"))


@pytest.fixture
def again(run_import, exports, tmp_path, clock):
    """Import a copy of the export in which something was changed."""

    def run(folder: Path) -> tuple[Imported, Tables]:
        summary = run_import(folder, crm="dynamics", rates=exports / "rates.csv")
        return summary, read_tables(tmp_path / "crm", clock)

    return run


@pytest.mark.parametrize("export", ["dynamics", "dynamics_excel", "salesforce", "salesforce_german"])
def test_both_forms_are_recognised_by_their_headers_and_no_other_crm_is_taken_for_it(exports, export):
    mappings = [read_mapping(path) for path in bundled().values()]
    assert recognise(sheets_of(exports / export), mappings).mapping.crm == export.split("_")[0]


def test_it_is_said_by_what_it_was_recognised(exports, run_import):
    summary = run_import(exports / "dynamics", rates=exports / "rates.csv")
    assert (
        summary.recognised == "Dynamics 365 (dynamics.toml), recognised by the columns of opportunities.csv."
    )


def test_every_file_of_both_exports_is_known(imported, excel):
    assert imported[0].unused_files == excel[0].unused_files == {}
    assert {file.about for file in excel[0].files} < {file.about for file in imported[0].files}


def test_every_row_of_every_file_is_accounted_for(imported, excel, exports):
    for summary, folder in ((imported[0], "dynamics"), (excel[0], "dynamics_excel")):
        for file in summary.files:
            lines = (exports / folder / file.name).read_bytes().count(b"\n")
            assert file.rows == lines - 1 == file.kept + file.refused.total() + file.passed_over.total()


def test_a_deal_closes_when_the_close_activity_was_written_and_not_at_the_date_typed_in(deals):
    assert deals.at[deal(1), "outcome"] == "won"
    assert deals.at[deal(1), "closed_at"] == utc("2025-05-14 16:45")  # Actual Close Date says 30 May


def test_a_deal_without_a_close_activity_closes_at_its_date_or_its_last_stage_entry(imported, deals):
    assert deals.at[deal(8), "closed_at"] == utc("2025-08-15")
    assert deals.at[deal(2), "closed_at"] == utc("2025-03-20 10:00")  # the date is 1 March
    rules = {repair.rule: repair.places for repair in imported[0].repairs}
    assert rules["closed before the last stage entry: taken at that entry"] == ["opportunities.csv line 3"]


def test_a_deal_closed_again_after_reopening_closes_at_its_last_close_that_was_not_taken_back(
    imported, deals
):
    assert deals.at[deal(6), "closed_at"] == utc("2025-10-09 15:00")
    rules = {repair.rule: repair.count for repair in imported[0].repairs}
    assert rules["a deal that closed more than once: the last closing counts"] == 1


def test_a_reopened_deal_is_open_whatever_close_activity_it_has(deals):
    assert deals.at[deal(5), "outcome"] == "open"
    assert pd.isna(deals.at[deal(5), "closed_at"])


def test_a_state_is_read_by_number_and_by_label_and_one_that_nobody_knows_is_refused(imported, excel):
    assert imported[1].deals["outcome"].tolist()[:3] == ["won", "lost", "open"]
    assert excel[1].deals["outcome"].tolist()[:3] == ["won", "lost", "open"]
    reason = "deals.outcome should be one of won, lost, open; came '3'"
    assert refused_lines(imported[2])["opportunities.csv", 11] == reason


@pytest.mark.parametrize(
    ("column", "label", "because"),
    [
        ("opportunityratingcode", "Rating", "it knows the outcome"),
        ("closeprobability", "Probability", "it knows the outcome"),
        ("statuscode", "Status Reason", "it knows the outcome"),
        ("actualvalue", "Actual Revenue", "it is filled in as the deal closes"),
        ("filedebrief", None, "it is filled in as the deal closes"),
        ("stepname", "Pipeline Phase", "it is the stage of today"),
        ("estimatedclosedate", "Est. Close Date", "it is the expectation of today"),
        ("estimatedvalue_base", None, "it is converted at the rate of the last change"),
        ("exchangerate", None, "it is converted at the rate of the last change"),
        ("budgetstatus", None, "it is ticked or typed in as the deal goes on"),
        ("statecode@OData.Community.Display.V1.FormattedValue", None, "it says for people"),
    ],
)
def test_columns_that_know_the_outcome_or_today_are_named_and_not_used(
    imported, excel, column, label, because
):
    assert imported[0].never_columns["opportunities.csv"][column].startswith(because)
    if label is not None:
        sheet = next(columns for columns in excel[0].never_columns.values() if "Rating" in columns)
        assert sheet[label].startswith(because)
    own = set(imported[1].deals.columns) | set(excel[1].deals.columns)
    assert own == {
        *("deal_id", "partner_id", "customer_id", "created_at", "outcome", "closed_at", "amount", "currency"),
        *("product_line", "deal_type", "lead_source", "competitor"),
    }


def test_columns_that_nobody_knows_are_listed(imported, excel):
    assert imported[0].unknown_columns == {"opportunities.csv": ["new_dealscore"]}
    assert excel[0].unknown_columns == {}


def test_customers_are_not_told_by_a_type_that_winning_changes(imported):
    never = imported[0].never_columns["accounts.csv"]
    assert never["customertypecode"] == "it turns a prospect into a customer as a deal is won"


def test_a_choice_is_read_by_its_label_and_a_look_up_by_its_id(imported, deals):
    customers = imported[1].customers.set_index("customer_id")
    assert customers.at[account(1), "industry"] == "Energy"  # the number is 12
    assert customers.at[account(3), "annual_revenue"] == 2.1e9  # in the base currency
    assert list(deals["deal_type"][:3]) == ["new_business", "expansion", "renewal"]
    assert deals.at[deal(1), "lead_source"] == "Web"  # of the lead that it came from


def test_a_deal_of_a_person_has_that_person_as_its_customer(deals):
    assert deals.at[deal(13), "customer_id"] == guid("c1", 1)


def test_the_partner_is_ones_own_look_up_or_a_connection_in_a_partners_role_from_either_side(deals):
    assert deals.at[deal(1), "partner_id"] == account(11)
    assert deals.at[deal(2), "partner_id"] == account(12)  # the deal is connected to its partner
    assert deals.at[deal(7), "partner_id"] == account(12)  # the reseller is connected to the deal


def test_a_deal_without_a_partner_is_passed_over_as_a_direct_deal(imported, deals):
    assert deal(4) not in deals.index
    assert passed(imported[0], "opportunities.csv") == {"no partner: a direct deal": 1}


def test_amounts_stay_in_the_deals_currency_and_are_converted_at_a_rate_known_at_its_creation(deals):
    assert deals.at[deal(6), "amount"] == pytest.approx(200_000 * 0.95)  # and not by exchangerate
    assert set(deals["currency"]) == {"EUR"}


def test_without_the_currencies_they_are_told_by_their_names_or_at_least_apart(copied, run_import, exports):
    (copied / "transactioncurrencies.csv").unlink()
    run_import(copied, crm="dynamics", rates=exports / "rates.csv")
    names = "_transactioncurrencyid_value@OData.Community.Display.V1.FormattedValue"
    edit(copied / "opportunities.csv", lambda text: text.replace(names, "new_gone"))
    shutil.rmtree(copied.parent / "crm")
    with pytest.raises(UserError, match=r"several currencies: C5000000.*1 \(8\), C5000000.*2 \(1\)"):
        run_import(copied, crm="dynamics")


def test_a_guid_in_braces_and_capitals_is_the_same_deal(imported):
    assert refused_lines(imported[2])["opportunities.csv", 13] == "its deal_id came before"
    note = "opportunities.csv: 1 ids are written bare and in small letters, as elsewhere."
    assert note in imported[0].notes


def test_a_user_in_a_role_of_the_sales_team_is_an_involvement_from_its_start_on(imported):
    team = of_deal(imported[1].involvements, 1).iloc[0]
    assert team["kind"] == "technical"
    assert (team["started_at"], team["ended_at"]) == (utc("2025-02-04 23:00"), utc("2025-03-30 22:00"))
    assert team["recorded_at"] == utc("2025-02-11 08:15")  # and on record since it was typed in


def test_a_connection_without_a_start_starts_as_it_is_made(imported):
    row = of_deal(imported[1].involvements, 5).iloc[0]
    assert row["started_at"] == row["recorded_at"] == utc("2025-09-03 06:00")
    assert pd.isna(row["ended_at"])


def test_every_connection_stands_there_twice_and_counts_once(imported, copied, again):
    assert len(of_deal(imported[1].involvements, 1)) == 2  # the connection, and a call
    assert passed(imported[0], "connections.csv")["the other side of a connection that is there"] == 8
    lines = (copied / "connections.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith(guid("c0", 1))]  # the side of the deal
    (copied / "connections.csv").write_text("\n".join(kept) + "\n")
    pd.testing.assert_frame_equal(
        again(copied)[1].involvements.sort_values(["deal_id", "started_at"], ignore_index=True),
        imported[1].involvements.sort_values(["deal_id", "started_at"], ignore_index=True),
    )


def test_a_connection_that_is_there_from_the_users_side_only_counts(imported):
    team = of_deal(imported[1].involvements, 6).iloc[0]
    assert (team["kind"], team["started_at"]) == ("executive", utc("2025-06-10 06:00"))


@pytest.mark.parametrize(
    "because",
    [
        "a role that is not of the Sales Team",  # a colleague
        "a role that looks after the partner, whether or not anybody steps in",
        "no user: a contact, an account or a team",  # a stakeholder
        "no person: a user of an application or of support",
    ],
)
def test_other_connections_are_no_involvement(imported, because):
    assert passed(imported[0], "connections.csv")[because] == 1
    assert deal(3) not in set(imported[1].involvements["deal_id"])


def test_a_category_of_ones_own_keeps_its_roles_out_and_the_sales_teams_number_in(copied, again):
    edit(copied / "connectionroles.csv", lambda text: text.replace(",1001,Sales Team", ",4,Sales"))
    assert again(copied)[1].involvements["kind"].tolist() == ["other", "other"]  # a call, an appointment


def test_without_the_roles_those_that_come_with_dynamics_are_known_by_name(copied, again):
    (copied / "connectionroles.csv").unlink()
    assert "technical" in set(of_deal(again(copied)[1].involvements, 1)["kind"])


def test_two_accounts_connected_as_partner_and_customer_are_a_relationship_on_record_since_it_was_typed_in(
    imported,
):
    row = imported[1].relationships.iloc[0]
    assert len(imported[1].relationships) == 1
    assert (row["partner_id"], row["customer_id"]) == (account(11), account(1))
    assert (row["since"], row["recorded_at"]) == (utc("2024-05-31 22:00"), utc("2024-07-01 09:00"))


def test_a_completed_call_is_an_involvement_and_a_planned_one_an_email_and_a_task_are_not(imported):
    call = of_deal(imported[1].involvements, 1).iloc[1]
    assert (call["started_at"], call["ended_at"]) == (utc("2025-02-10 14:00"), utc("2025-02-10 14:00"))
    assert call["recorded_at"] == utc("2025-02-11 08:15")
    assert passed(imported[0], "activitypointers.csv")["not completed"] == 1


def test_an_appointment_lasts_as_planned_and_not_until_it_was_ticked_off(imported):
    meeting = of_deal(imported[1].involvements, 6).iloc[1]
    assert (meeting["started_at"], meeting["ended_at"]) == (utc("2025-06-17 14:30"), utc("2025-06-17 16:00"))


def test_the_close_among_the_activities_is_nothing_that_the_vendor_did(imported):
    assert imported[1].activities["kind"].tolist() == ["call", "email", "meeting", "other"]
    assert set(imported[1].activities["by"]) == {"vendor"}


def test_an_activity_whose_owner_is_not_known_to_be_the_vendors_is_passed_over(copied, imported, again):
    because = "the owner is not known to be the vendor's"
    assert passed(imported[0], "activitypointers.csv")[because] == 1
    (copied / "systemusers.csv").unlink()
    summary, tables = again(copied)
    assert len(tables.activities) == 0
    assert passed(summary, "activitypointers.csv")[because] == 3


def test_an_email_that_came_in_is_not_the_vendors_doing(copied, again):
    edit(
        copied / "activitypointers.csv",
        lambda text: text.replace(",subject\n", ",directioncode\n").replace(",Something\n", ",false\n"),
    )
    _, tables = again(copied)
    assert tables.activities["kind"].tolist() == ["call", "meeting", "other"]


def test_stages_come_from_the_audit_of_the_pipeline_phase(imported):
    entries = of_deal(imported[1].stage_entries, 1)
    assert list(entries["stage"]) == ["1-Qualify", "2-Develop", "3-Propose"]
    assert entries["entered_at"].iloc[1] == utc("2025-02-03 10:00")


def test_a_stage_entered_again_is_kept_and_one_written_again_is_not(imported):
    assert stages(imported[1].stage_entries, 3) == ["2-Develop", "1-Qualify", "2-Develop"]
    audit = passed(imported[0], "audits.csv")
    assert (audit["the stage did not change"], audit["the stage was cleared"]) == (1, 1)


def test_the_old_value_of_a_first_change_is_no_stage_entered_at_the_creation(imported):
    entries = of_deal(imported[1].stage_entries, 3)
    assert entries["entered_at"].min() == utc("2025-12-01 09:00")  # auditing began after the creation


def test_the_stage_of_today_is_nowhere_passed_off_as_one_entered_at_the_creation(copied, run_import, exports):
    for name in ("audits.csv", "opportunitysalesprocesses.csv"):
        (copied / name).unlink()
    with pytest.raises(UserError) as error:
        run_import(copied, crm="dynamics", rates=exports / "rates.csv")
    assert str(error.value).startswith("No row for stage_entries is left. They come from audit history")
    assert str(error.value).endswith("business process flows, and the export has none.")


def test_stages_come_from_the_audit_of_the_process_where_the_phase_is_not_audited(imported):
    assert stages(imported[1].stage_entries, 7) == ["Qualify", "Develop"]
    assert "Develop" not in stages(imported[1].stage_entries, 3)  # there the phase is audited
    lines = refused_lines(imported[2])
    said = "a stage whose name is not there: add the process stages to the export"
    assert lines["audits.csv", 25] == said


def test_without_an_audit_a_process_tells_the_first_stage_only(imported, copied, again):
    assert stages(imported[1].stage_entries, 8) == ["Qualify"]  # it went on to Propose: nothing says when
    (copied / "audits.csv").unlink()
    entries = again(copied)[1].stage_entries
    assert {number: stages(entries, number) for number in (3, 7, 8, 13)} == {
        number: ["Qualify"] for number in (3, 7, 8, 13)
    }
    assert of_deal(entries, 3)["entered_at"].tolist() == [utc("2025-11-03 07:30:05")]


def test_the_first_stage_of_a_process_that_started_with_the_lead_is_not_the_deals(imported):
    assert stages(imported[1].stage_entries, 9) == []
    because = "a process that started with the lead, before the deal"
    assert passed(imported[0], "opportunitysalesprocesses.csv")[because] == 1


def test_changes_tell_what_the_amount_was_at_creation_and_later(imported):
    rows = of_deal(imported[1].deal_changes, 1)[["value", "changed_at"]].itertuples(index=False, name=None)
    assert list(rows) == [("100000", utc("2025-01-07 09:12")), ("120000", utc("2025-02-20 10:00"))]
    assert of_deal(imported[1].deal_changes, 3)["value"].tolist() == ["60000", "80000"]  # the old value
    assert of_deal(imported[1].deal_changes, 6)["value"].tolist() == ["142500", "190000"]  # converted


def as_dataverse_keeps_them(rows: list[dict[str, str]]) -> str:
    """Write audits with every change of one moment in one text of JSON, as the audit table holds them."""
    moments = defaultdict(list)
    for row in rows:
        change = {
            "logicalName": row["logicalname"],
            "oldValue": row["oldvalue"] or None,
            "newValue": row["newvalue"] or None,
        }
        moments[row["objectid"], row["objecttypecode"], row["createdon"], row["action"]].append(change)
    lines = ["_objectid_value,objecttypecode,createdon,action,changedata"]
    for key, changes in moments.items():
        data = json.dumps({"changedAttributes": changes}, separators=(",", ":")).replace('"', '""')
        lines.append(",".join(key) + f',"{data}"')
    return "\n".join(lines) + "\n"


def test_audits_as_dataverse_keeps_them_give_the_same_stages_and_changes(copied, imported, again):
    file = copied / "audits.csv"
    with file.open(newline="") as lines:
        file.write_text(as_dataverse_keeps_them(list(csv.DictReader(lines))))
    tables = again(copied)[1].by_name()
    for name in ("stage_entries", "deal_changes"):
        before, after = (
            t[name].sort_values(list(t[name].columns), ignore_index=True)
            for t in (imported[1].by_name(), tables)
        )
        pd.testing.assert_frame_equal(after, before)


def test_a_change_in_json_that_cannot_be_read_is_refused_and_not_left_out(copied, again, tmp_path):
    data = [
        '{"changedAttributes":[{"logicalName":"stepname","oldValue":null,"newValue":"1-Pr\\u00fcfung"}]}',
        '{"changedAttributes":[{"logicalName":"stepname","newValue":"2-Develop","oldValue":null}]}',
        '{"changedAttributes":[{"logicalName":"estimatedvalue","oldValue":"1"}]}',
        '{"changedAttributes":[{"logicalName":"name","oldValue":"a {1}","newValue":"b"},'
        '{"logicalName":"stepname","oldValue":"{old}, \\"so\\"","newValue":"2-Develop"}]}',
    ]
    rows = [
        {
            "_objectid_value": deal(1),
            "createdon": f"2025-02-0{i}T10:00:00Z",
            "action": "2",
            "changedata": text,
        }
        for i, text in enumerate(data, start=1)
    ]
    with (copied / "audits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    tables = again(copied)[1]
    assert stages(tables.stage_entries, 1) == ["2-Develop"]
    assert refused_lines(tmp_path / "crm") == refused_lines(tmp_path / "crm") | {
        ("audits.csv", 2): "a change of the stage that cannot be read",
        ("audits.csv", 3): "a change of the stage that cannot be read",
        ("audits.csv", 4): "a change of the amount that cannot be read",
    }


def test_the_times_of_an_excel_export_are_in_the_zone_of_the_user_who_made_it(excel):
    deals = excel[1].deals.set_index("deal_id")
    assert deals.at[deal(1), "created_at"] == utc("2025-01-07 14:12")  # 9:12 AM in winter
    assert deals.at[deal(2), "created_at"] == utc("2025-07-20 14:00")  # 10:00 AM in summer
    assert deals.at[deal(3), "created_at"] == utc("2025-11-04 00:30")  # the evening before
    assert deals.at[deal(1), "closed_at"] == utc("2025-05-14 20:45")


def test_the_zone_of_an_excel_export_is_asked_for_where_nobody_said_it(exports, run_import):
    summary = run_import(exports / "dynamics_excel", crm="dynamics")
    said = next(note for note in summary.notes if "without an offset" in note)
    assert said.startswith("Times without an offset are taken for UTC (")
    assert said.endswith("--timezone says it if they are in another zone.")


def test_the_times_of_the_web_api_carry_their_offset_whatever_the_zone(exports, run_import, imported, clock):
    summary = run_import(
        exports / "dynamics", crm="dynamics", rates=exports / "rates.csv", timezone="Asia/Tokyo"
    )
    after = read_tables(summary.folder, clock)
    pd.testing.assert_frame_equal(after.stage_entries, imported[1].stage_entries)


def test_an_excel_export_names_accounts_and_a_topic_tells_the_deal(excel):
    deals = excel[1].deals.set_index("deal_id")
    assert deals.at[deal(1), "customer_id"] == "Nordwind AG"
    partners = excel[1].partners.set_index("partner_id")
    assert partners.at["Brückner Systems", "tier"] == "Gold"
    assert excel[1].customers["employees"].tolist() == [1200, 85, 5400]
    assert stages(excel[1].stage_entries, 1) == ["1-Qualify", "2-Develop", "3-Propose"]
    assert of_deal(excel[1].deal_changes, 1)["value"].tolist() == ["100000", "120000"]
    assert excel[1].involvements["deal_id"].tolist() == [deal(1)]


def test_a_topic_that_several_opportunities_bear_tells_none_of_them(excel):
    assert refused_lines(excel[2]) == {
        ("Audit history.csv", 8): "names a topic that several opportunities bear",
        ("Connections.csv", 4): "names a topic that several opportunities bear",
    }


def test_a_close_that_was_taken_back_does_not_date_a_closing_in_excel_either(excel):
    deals = excel[1].deals.set_index("deal_id")
    assert deals.at[deal(2), "closed_at"] == utc("2025-09-01 04:00")  # Actual Close Date, New York's midnight


def test_an_excel_export_without_ids_is_told_by_its_topics(exports, run_import, tmp_path, clock):
    folder = Path(shutil.copytree(exports / "dynamics_excel", tmp_path / "export"))
    for file in folder.iterdir():
        file.write_text(file.read_text(encoding="utf-8").replace("(Do Not Modify)", "My"), encoding="utf-8")
    summary = run_import(folder, timezone=NEW_YORK)
    tables = read_tables(tmp_path / "crm", clock)
    assert summary.crm == "dynamics"
    assert tables.deals["deal_id"].tolist() == ["Storage for Nordwind", "Backup", "Edge sites"]
    refused = refused_lines(tmp_path / "crm")
    said = "its topic is that of another opportunity too, and no id tells them apart"
    assert [line for (_, line), reason in refused.items() if reason == said] == [5, 6]
    assert tables.involvements["deal_id"].tolist() == ["Storage for Nordwind"]
    assert "Renewal" not in set(tables.stage_entries["deal_id"])


def test_the_order_of_the_rows_does_not_matter(copied, again, imported):
    for name in ("audits.csv", "connections.csv", "activitypointers.csv", "opportunitycloses.csv"):
        lines = (copied / name).read_text().splitlines()
        (copied / name).write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    after = again(copied)[1]
    for name, table in imported[1].by_name().items():
        columns = list(table.columns)
        first, second = (
            t.by_name()[name].sort_values(columns, ignore_index=True) for t in (imported[1], after)
        )
        pd.testing.assert_frame_equal(first, second)


def test_that_absence_is_no_proof_is_said(imported):
    assert any("absence is no proof" in sentence for sentence in imported[0].cannot_know)

"""HubSpot's traps, one by one, on made exports (exports/hubspot and its labelled twin) and variations."""

import csv
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from imported_tables import utc

from features import UserError, read_tables
from features.crm import Imported, bundled, import_export, read_mapping
from features.crm.recognise import recognise, sheets_of
from features.schema import Tables

HISTORY, DEALS, STAGES = "deal_property_history.csv", "deals.csv", "pipeline_stages.csv"
ASSOCIATIONS = "deal_company_associations.csv"
Row = dict[str, str]


@pytest.fixture(scope="module")
def imported(exports, clock, tmp_path_factory) -> tuple[Imported, Tables, Path]:
    out = tmp_path_factory.mktemp("hubspot") / "crm"
    return import_export(exports / "hubspot", out, clock=clock), read_tables(out, clock), out


@pytest.fixture
def copied(exports: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exports / "hubspot", tmp_path / "export"))


@pytest.fixture
def again(copied, run_import, tmp_path, clock) -> Callable[[], tuple[Imported, Tables]]:
    """Import the copy as it now is."""

    def run() -> tuple[Imported, Tables]:
        return run_import(copied), read_tables(tmp_path / "crm", clock)

    return run


def edit(path: Path, edits: Callable[[list[Row]], list[Row]]) -> None:
    with path.open(newline="", encoding="utf-8") as file:
        rows = edits(list(csv.DictReader(file)))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def of_one(deal: str, **cells: str) -> Callable[[list[Row]], list[Row]]:
    """Write other cells into the rows of one deal."""
    return lambda rows: [row | cells if row["hs_object_id"] == deal else row for row in rows]


def without(*columns: str) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [{k: v for k, v in row.items() if k not in columns} for row in rows]


def change(deal: str, name: str, value: str, at: str) -> Row:
    cells = {"dealId": deal, "property": name, "value": value, "timestamp": at}
    return cells | {"sourceType": "API", "sourceId": ""}


def of_deal(table: pd.DataFrame, deal: str) -> pd.DataFrame:
    return table[table["deal_id"] == deal].reset_index(drop=True)


def entries(tables: Tables, deal: str) -> dict[str, pd.Timestamp]:
    own = of_deal(tables.stage_entries, deal)
    return dict(zip(own["stage"], own["entered_at"], strict=True))


def refused(out: Path) -> dict[tuple[str, int], str]:
    return {(row.file, row.line): row.reason for row in pd.read_csv(out / "refused.csv").itertuples()}


def account(summary: Imported, name: str):
    return next(file for file in summary.files if file.name == name)


@pytest.mark.parametrize("form", ["hubspot", "hubspot_labelled"])
def test_either_form_is_recognised_by_its_headers_and_by_no_other_mapping(exports, form):
    mappings = [read_mapping(path) for path in bundled().values()]
    assert recognise(sheets_of(exports / form), mappings).mapping.crm == "hubspot"


def test_how_it_was_recognised_is_said(imported):
    assert imported[0].lines()[0] == "HubSpot (hubspot.toml), recognised by the columns of deals.csv."


def test_an_export_without_the_pipeline_is_refused_with_what_is_missing(copied, run_import):
    edit(copied / DEALS, without("pipeline"))
    with pytest.raises(UserError, match=r"deals\.csv comes nearest to HubSpot's deals, but lacks 'pipeline'"):
        run_import(copied)


# ------------------------------------------------------------ outcome and stages


def test_a_won_deal_is_won_by_its_flag_though_its_stage_is_called_appointmentscheduled(deals):
    assert deals.at["101", "outcome"] == "won"
    assert deals.at["102", "outcome"] == "lost"


def test_a_stage_whose_id_is_closedwon_is_an_open_one_where_the_flags_say_so(imported, deals):
    assert deals.at["103", "outcome"] == "open"
    assert entries(imported[1], "103")["Contract sent (Sales Pipeline)"] == utc("2025-12-01 09:00")


def test_no_outcome_hangs_on_the_name_of_a_stage(copied, again, deals):
    names = {"Closed Won": "Qualified", "Qualified": "Closed Lost", "Closed Lost": "Closed Won"}
    edit(
        copied / STAGES, lambda rows: [row | {"label": names.get(row["label"], row["label"])} for row in rows]
    )
    renamed = again()[1].deals.set_index("deal_id")
    pd.testing.assert_frame_equal(renamed[["outcome", "closed_at"]], deals[["outcome", "closed_at"]])


def test_a_deal_without_flags_is_won_by_the_probability_1_of_its_stage_in_the_pipelines(deals):
    assert deals.at["104", "outcome"] == "won"
    assert deals.at["104", "closed_at"] == utc("2025-05-02 11:00")


def test_without_the_pipelines_its_own_stage_probability_tells(copied, again):
    (copied / STAGES).unlink()
    blank = {"hs_is_closed": "", "hs_is_closed_won": ""}
    edit(copied / DEALS, lambda rows: [row | blank for row in rows])
    outcomes = again()[1].deals.set_index("deal_id")["outcome"]
    assert outcomes.to_dict() == {
        "101": "won", "102": "lost", "103": "open", "107": "open", "108": "open", "109": "lost", "110": "won",
        "113": "open",
    }  # fmt: skip


def test_a_probability_in_percent_is_no_probability_of_1(copied, again, tmp_path):
    (copied / STAGES).unlink()
    edit(copied / DEALS, of_one("110", hs_deal_stage_probability="20"))
    again()
    assert refused(tmp_path / "crm")[DEALS, 11] == "outcome is blank"


def test_a_stage_with_a_uuid_is_known_though_its_column_spells_it_another_way(imported, deals):
    assert deals.at["110", "closed_at"] == utc("2025-07-01 12:00")
    assert list(entries(imported[1], "110")) == ["Qualified (Partner Pipeline)"]


def test_times_in_milliseconds_and_in_iso_are_the_same_times(copied, again, imported):
    def other_way(rows: list[Row]) -> list[Row]:
        return [{key: _turned(value) for key, value in row.items()} for row in rows]

    for name in (DEALS, HISTORY):
        edit(copied / name, other_way)
    tables = again()[1]
    for name, table in imported[1].by_name().items():
        pd.testing.assert_frame_equal(tables.by_name()[name], table)
    assert set(imported[1].deals["created_at"].dt.microsecond) == {0, 345_000}


def _turned(value: str) -> str:
    """An ISO time in milliseconds, milliseconds as an ISO time, anything else as it is."""
    if value.isdigit() and len(value) == 13:
        return pd.Timestamp(int(value), unit="ms").isoformat(timespec="milliseconds") + "Z"
    if len(value) == 24 and value.endswith("Z") and "02-31" not in value:
        return str(round(datetime.fromisoformat(value).timestamp() * 1000))
    return value


def test_a_stage_that_a_deal_never_entered_is_no_entry_whatever_pipeline_it_is_of(imported):
    assert list(entries(imported[1], "104")) == ["Qualified (Sales Pipeline)"]


def test_entries_in_a_pipeline_that_the_deal_has_left_stay_its_history_under_that_pipelines_name(imported):
    assert entries(imported[1], "107") == {
        "Qualified (Partner Pipeline)": utc("2025-03-03 08:00"),
        "Qualified (Sales Pipeline)": utc("2025-06-02 08:00"),
    }


def test_without_the_pipelines_two_stages_of_one_name_stay_apart_by_their_ids(copied, again):
    (copied / STAGES).unlink()
    assert list(entries(again()[1], "107")) == ["qualifiedtobuy", "4711"]


def test_every_entry_into_a_stage_is_there_where_the_history_of_the_stage_is(imported):
    own = of_deal(imported[1].stage_entries, "108")
    assert list(own["stage"].str.split(" ").str[0]) == ["Qualified", "Contract"] * 2
    assert list(own["entered_at"].dt.month) == [9, 10, 11, 12]


def test_the_stage_that_closes_a_deal_is_no_entry_by_its_history_either(imported):
    assert list(entries(imported[1], "109")) == ["Qualified (Sales Pipeline)"]  # and then closedlost


def test_a_stage_entered_again_has_one_date_without_the_history_and_that_is_said(copied, again):
    edit(copied / HISTORY, lambda rows: [row for row in rows if row["property"] != "dealstage"])
    summary, tables = again()
    assert [at.month for at in entries(tables, "108").values()] == [11, 12]
    assert any("of a stage that a deal entered again" in sentence for sentence in summary.cannot_know)


def test_a_change_of_stage_without_a_time_is_refused_and_hides_no_date_of_entry(imported):
    assert refused(imported[2])[HISTORY, 22] == "timestamp is blank or cannot be read"  # of deal 107
    assert len(entries(imported[1], "107")) == 2


# ------------------------------------------------------------ closing


def test_the_close_date_of_an_open_deal_is_an_expectation_and_no_closing(deals):
    assert deals.loc[["103", "107", "108", "113"], "closed_at"].isna().all()


def test_a_closed_deal_closes_as_it_entered_its_closing_stage_whatever_the_close_date_says(deals):
    assert deals.at["101", "closed_at"] == utc("2025-05-14 16:45")  # closedate says 30 June
    assert deals.at["109", "closed_at"] == utc("2025-09-16 15:00")  # by the history of the stage


def test_a_closing_stage_without_a_date_is_dated_by_the_close_date(copied, again):
    edit(copied / DEALS, of_one("101", hs_v2_date_entered_appointmentscheduled=""))
    assert again()[1].deals.set_index("deal_id").at["101", "closed_at"] == utc("2025-06-30")


def test_a_deal_that_closed_more_than_once_closes_the_last_time_and_is_counted(copied, again):
    earlier = [change("109", "dealstage", "appointmentscheduled", "2025-08-20T10:00:00.000Z")]
    edit(copied / HISTORY, lambda rows: rows + earlier)
    summary, tables = again()
    assert tables.deals.set_index("deal_id").at["109", "closed_at"] == utc("2025-09-16 15:00")
    counted = {repair.rule: repair.count for repair in summary.repairs}
    assert counted["a deal that closed more than once: the last closing counts"] == 1


# ------------------------------------------------------------ involvements and changes


def test_collaborators_are_involved_from_one_change_of_the_list_to_the_next(imported):
    own = of_deal(imported[1].involvements, "101")
    assert list(zip(own["started_at"], own["ended_at"], strict=True)) == [
        (utc("2025-02-05 07:00"), utc("2025-02-20 10:00")),  # one person
        (utc("2025-02-20 10:00"), utc("2025-03-10 09:00")),  # two; then nobody
    ]
    assert list(own["recorded_at"]) == list(own["started_at"])


def test_collaborators_who_are_still_there_have_no_end(imported):
    own = of_deal(imported[1].involvements, "102")
    assert list(own["started_at"]) == [utc("2025-02-10 12:00")]
    assert own["ended_at"].isna().all()


def test_todays_list_of_collaborators_is_no_history_and_never_used(copied, again):
    (copied / HISTORY).unlink()
    summary, tables = again()
    assert list(tables.involvements["deal_id"]) == ["109"]  # by its registration
    reason = summary.never_columns[DEALS]["hs_all_collaborator_owner_ids"]
    assert reason == "it is the state of today: who was added when is known from the property's history alone"


def test_that_absence_is_no_proof_is_said(imported):
    assert any("absence is no proof" in sentence for sentence in imported[0].cannot_know)


def test_the_order_of_the_rows_of_the_history_does_not_matter(copied, again, imported):
    edit(copied / HISTORY, lambda rows: rows[::-1])
    tables = again()[1]
    for name in ("involvements", "deal_changes", "stage_entries"):
        before, after = (
            t.by_name()[name].sort_values(list(t.by_name()[name]), ignore_index=True)
            for t in (imported[1], tables)
        )
        pd.testing.assert_frame_equal(before, after)


def test_vendor_support_on_a_registration_is_an_involvement_and_money_or_a_wish_is_not(imported):
    own = of_deal(imported[1].involvements, "109")
    assert own.loc[0, ["started_at", "ended_at", "kind"]].to_list() == [
        utc("2025-08-20"), utc("2025-08-29"), "technical",
    ]  # fmt: skip
    passed = account(imported[0], "deal_registrations.csv").passed_over
    assert passed["a support that is no vendor involvement: 'Marketing funds'"] == 1
    assert passed["vendor support without a start: asked for, and maybe never given"] == 1


def test_changes_tell_what_the_amount_was_at_creation_and_since(imported):
    own = of_deal(imported[1].deal_changes, "101")
    assert list(zip(own["column"], own["value"], own["changed_at"], strict=True)) == [
        ("amount", "100000", utc("2025-01-07 09:12")),
        ("amount", "120000", utc("2025-02-20 10:00")),
    ]


def test_a_value_saved_again_is_no_change_though_another_property_changed_in_between(copied, again):
    saved = [
        change("101", "lead_source", "Web", "2025-02-21T10:00:00.000Z"),
        change("101", "amount", "120000", "2025-02-22T10:00:00.000Z"),
    ]
    edit(copied / HISTORY, lambda rows: rows + saved)
    summary, tables = again()
    assert list(of_deal(tables.deal_changes, "101")["column"]) == ["amount", "amount", "lead_source"]
    assert account(summary, HISTORY).passed_over["a change of a property that is not read"] == 1


def test_the_words_of_a_type_change_in_changes_as_they_do_in_deals(imported, deals):
    own = of_deal(imported[1].deal_changes, "103")
    assert list(own["value"][own["column"] == "deal_type"]) == ["expansion", "new_business"]
    assert list(own["value"][own["column"] == "lead_source"]) == ["Partner Referral", "Web"]
    assert deals.at["103", "deal_type"] == "new_business"


# ------------------------------------------------------------ partners and customers


def test_a_company_with_a_partners_label_is_the_partner_and_not_the_customer(deals):
    assert deals.at["108", "partner_id"] == "201"
    assert deals.at["108", "customer_id"] == "302"  # though the reseller is the primary company


def test_the_partner_is_that_of_the_registration_which_was_not_turned_down(deals):
    assert deals.at["109", "partner_id"] == "202"


def test_of_several_partners_the_first_counts_and_is_counted(imported, deals):
    assert deals.at["113", "partner_id"] == "201"
    counted = {repair.rule: repair.places for repair in imported[0].repairs}
    assert counted["a deal with several partners: the first counts"] == [f"{DEALS} line 15"]


def test_of_several_companies_none_is_guessed_to_be_the_customer(copied, again, tmp_path):
    edit(copied / DEALS, of_one("113", hs_primary_associated_company=""))
    one = {"deal_id": "113", "company_id": "302", "association_label": ""}
    edit(copied / ASSOCIATIONS, lambda rows: [*rows, one, one | {"company_id": "303"}])
    again()
    assert refused(tmp_path / "crm")[DEALS, 15] == "customer_id is blank"


def test_partners_and_customers_are_described_by_companies_that_deals_name(imported):
    partners = imported[1].partners.set_index("partner_id")
    assert list(partners.index) == ["201", "202"]
    assert partners.at["202", "partner_type"] == "var"  # of type RESELLER
    assert pd.isna(partners.at["201", "partner_type"])  # PARTNER says nothing more
    assert imported[1].customers.set_index("customer_id").at["302", "employees"] == 85


def test_deals_without_a_partner_and_archived_ones_are_passed_over_by_name(imported, deals):
    assert not {"105", "106"} & set(deals.index)
    passed = account(imported[0], DEALS).passed_over
    assert passed == {"no partner: a direct deal": 1, "archived in the CRM": 1}


# ------------------------------------------------------------ the account


def test_columns_that_know_the_outcome_are_named_with_the_reason_and_not_used(imported):
    never = imported[0].never_columns[DEALS]
    assert never["hs_closed_amount"] == "it knows the outcome: it is filled in as the deal closes"
    assert never["hs_forecast_probability"].startswith("it knows the outcome: it follows the stage")
    assert never["hs_v2_date_exited_closedwon"] == "it goes on changing until the deal closes, or after"
    assert never["hs_date_entered_closedwon"].startswith("HubSpot has replaced it")
    companies = imported[0].never_columns["companies.csv"]
    assert companies["total_revenue"] == companies["lifecyclestage"]
    assert companies["total_revenue"] == "it knows the outcomes of a company's deals"


def test_deals_carry_no_column_beside_their_own_and_the_stage_probability_is_none(imported):
    assert list(imported[1].deals.columns) == [
        "deal_id", "partner_id", "customer_id", "created_at", "outcome", "closed_at", "amount", "currency",
        "product_line", "deal_type", "lead_source", "competitor",
    ]  # fmt: skip


def test_columns_that_nobody_knows_are_listed(imported):
    assert imported[0].unknown_columns == {DEALS: ["deal_colour"]}


def test_rows_that_cannot_be_used_are_refused_with_their_line_and_the_reason(imported):
    assert refused(imported[2]) == {
        (DEALS, 12): "outcome is blank",
        (DEALS, 13): "created_at cannot be read: '2025-02-31T06:00:00.000Z'",
        (DEALS, 14): "its deal_id came before",
        (HISTORY, 20): "names a deal that the export does not hold",
        (HISTORY, 22): "timestamp is blank or cannot be read",
    }


def test_every_row_of_every_file_is_accounted_for(imported, exports):
    assert len(imported[0].files) == 6
    for file in imported[0].files:
        lines = (exports / "hubspot" / file.name).read_bytes().count(b"\n")
        assert file.rows == lines - 1 == file.kept + file.refused.total() + file.passed_over.total()


def test_the_labelled_export_of_the_same_deals_gives_the_same_tables(exports, run_import, tmp_path, imported):
    summary = run_import(exports / "hubspot_labelled", timezone="UTC")
    labelled = read_tables(tmp_path / "crm")
    shared = labelled.deals["deal_id"]
    assert list(shared) == ["101", "102", "103", "107", "110"]
    for name in ("deals", "stage_entries"):
        columns = [c for c in labelled.by_name()[name].columns if c != "recorded_at"]
        first, second = (
            _to_the_minute(table[table["deal_id"].isin(shared)][columns])
            for table in (imported[1].by_name()[name], labelled.by_name()[name])
        )
        pd.testing.assert_frame_equal(first, second)
    assert summary.unknown_columns == {summary.files[1].name: ["Deal colour"]}


def _to_the_minute(table: pd.DataFrame) -> pd.DataFrame:
    times = table.select_dtypes("datetimetz")
    table = table.assign(**{name: times[name].dt.floor("min") for name in times})
    return table.sort_values(list(table), ignore_index=True)


def test_the_labelled_export_is_read_in_the_time_zone_of_the_account(exports, run_import, tmp_path):
    run_import(exports / "hubspot_labelled", timezone="Europe/Berlin")
    closed = read_tables(tmp_path / "crm").deals.set_index("deal_id")["closed_at"]
    assert closed["101"] == utc("2025-05-14 14:45")

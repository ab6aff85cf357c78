"""Microsoft Partner Center's traps, one by one, on an export made by hand and small variations of it."""

import csv
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from imported_tables import utc

from features import UserError, read_tables
from features.crm import Imported, import_export
from features.schema import Tables

REFERRALS, DOWNLOAD = "referrals.csv", "cosell_download.csv"
Edit = Callable[[list[dict[str, str]]], list[dict[str, str]]]


def deal(number: int) -> str:
    return f"a{number:07d}-0b84-4ac4-b4ea-5b2587d42cee"


@pytest.fixture(scope="module")
def imported(exports, clock, tmp_path_factory) -> tuple[Imported, Tables, Path]:
    out = tmp_path_factory.mktemp("partner_center") / "crm"
    summary = import_export(exports / "partner_center", out, clock=clock)
    return summary, read_tables(out, clock), out


@pytest.fixture
def changed(exports: Path, write_export) -> Callable[..., Path]:
    """Write the made export anew: the rows of each file edited, or the file left out (None)."""

    def write(referrals: Edit = lambda rows: rows, download: Edit | None = lambda rows: rows) -> Path:
        files = {}
        for name, edit in ((REFERRALS, referrals), (DOWNLOAD, download)):
            if edit is not None:
                with (exports / "partner_center" / name).open(newline="") as file:
                    files[name] = edit(list(csv.DictReader(file)))
        return write_export(files)

    return write


def without(*columns: str) -> Edit:
    return lambda rows: [{k: v for k, v in row.items() if k not in columns} for row in rows]


def of_deal(table: pd.DataFrame, number: int) -> pd.DataFrame:
    return table[table["deal_id"] == deal(number)].reset_index(drop=True)


def refused(out: Path) -> dict[int, str]:
    """Return why lines of the referrals are refused."""
    table = pd.read_csv(out / "refused.csv")
    return {row.line: row.reason for row in table.itertuples() if row.file == REFERRALS}


def test_it_is_recognised_by_its_headers_alone_and_by_no_other_mapping(imported):
    said = f"Microsoft Partner Center (partner_center.toml), recognised by the columns of {REFERRALS}."
    assert imported[0].lines()[0] == said


def test_the_acceptance_of_an_outgoing_referral_equals_its_creation_and_is_no_event(imported):
    entries = of_deal(imported[1].stage_entries, 1)
    assert entries[["stage", "entered_at"]].to_numpy().tolist() == [["Created", utc("2025-02-03 09:15")]]


def test_an_outgoing_referral_that_was_accepted_does_not_show_that_microsoft_takes_part(imported):
    assert of_deal(imported[1].involvements, 2).empty  # private, and "accepted" as it was created
    assert of_deal(imported[1].involvements, 1)["started_at"].iloc[0] == utc("2025-03-12")


def test_an_incoming_referral_is_the_partners_once_it_is_accepted(imported, deals):
    entries = of_deal(imported[1].stage_entries, 4)
    assert entries[["stage", "entered_at"]].to_numpy().tolist() == [["Accepted", utc("2025-04-09 11:20")]]
    assert deals.at[deal(4), "created_at"] == utc("2025-04-01 08:00")


def test_an_incoming_referral_that_waits_for_its_acceptance_has_no_stage_yet(imported, deals):
    assert deals.at[deal(5), "outcome"] == "open"
    assert of_deal(imported[1].stage_entries, 5).empty


def test_without_a_direction_what_was_accepted_as_it_was_created_is_outgoing(
    changed, run_import, tmp_path, clock, imported
):
    run_import(changed(without("Direction")))
    after = read_tables(tmp_path / "crm", clock)
    pd.testing.assert_frame_equal(after.stage_entries, imported[1].stage_entries)
    pd.testing.assert_frame_equal(after.involvements, imported[1].involvements)
    pd.testing.assert_series_equal(after.deals["lead_source"], imported[1].deals["lead_source"])


def test_co_sell_is_an_involvement_and_partner_led_and_private_are_none(imported):
    assert set(imported[1].involvements["deal_id"]) == {deal(1), deal(4), deal(5), deal(11)}


def test_microsoft_takes_part_from_its_own_referral_on_and_not_from_the_deals_creation(imported, deals):
    started = of_deal(imported[1].involvements, 11)["started_at"].iloc[0]
    assert (started, deals.at[deal(11), "created_at"]) == (utc("2025-07-15"), utc("2025-07-01 08:00"))


def test_a_co_sell_deal_that_nothing_dates_is_refused_and_not_dated_by_its_creation(imported, deals):
    assert deal(7) not in deals.index
    assert refused(imported[2])[8] == (
        "co-sell, and nothing says since when Microsoft takes part; add Microsoft Referral Creation Date, "
        "from the Co-sell download"
    )


def test_microsoft_takes_part_in_what_it_sent_from_the_start(changed, run_import, tmp_path, clock):
    run_import(changed(download=None))
    involved = read_tables(tmp_path / "crm", clock).involvements
    assert of_deal(involved, 4)["started_at"].tolist() == [utc("2025-04-01 08:00")]
    assert set(involved["deal_id"]) == {deal(4), deal(5)}  # the partner's own have no date


def test_what_microsoft_declined_is_no_involvement(imported, deals):
    assert deal(6) in deals.index
    assert of_deal(imported[1].involvements, 6).empty


def test_that_absence_is_no_proof_and_that_the_need_is_why_is_said(imported):
    said = " ".join(imported[0].cannot_know)
    assert "no proof that nobody helped" in said
    assert "is why Microsoft came" in said


def test_the_help_asked_for_is_no_feature(imported, deals):
    never = imported[0].never_columns[REFERRALS]["What specific help from Microsoft?"]
    assert never == "it is why the vendor came, not what the deal is (confounding by indication)"
    assert deals["deal_type"].isna().all()  # co-sell is the treatment, no trait of the deal


def test_the_deal_type_may_stand_in_the_download_alone(changed, run_import, tmp_path, clock, imported):
    run_import(changed(without("Deal Type")))
    after = read_tables(tmp_path / "crm", clock)
    pd.testing.assert_frame_equal(after.involvements, imported[1].involvements)


def test_without_a_deal_type_a_deal_is_refused(imported):
    assert refused(imported[2])[13].startswith("its Deal Type is blank: nobody can tell whether Microsoft")


def test_without_any_deal_type_the_whole_import_is_refused(changed, run_import):
    with pytest.raises(UserError, match=r"No row for deals is left.*its Deal Type is blank"):
        run_import(changed(without("Deal Type"), None))


def test_a_deal_type_of_another_programme_is_refused(imported):
    assert refused(imported[2])[14] == "its Deal Type is neither co-sell, partner-led nor private"


def test_leads_errors_and_what_was_never_taken_up_are_passed_over(imported, deals):
    assert not {deal(8), deal(9), deal(10)} & set(deals.index)
    passed = next(file for file in imported[0].files if file.name == REFERRALS).passed_over
    assert passed == {
        "a lead of the marketplace, no deal": 1,
        "a duplicate, a test or an error": 1,
        "declined or expired: never taken up": 1,
    }


def test_a_deal_closes_at_its_last_update_and_not_on_the_estimated_date(imported, deals):
    assert deals.at[deal(1), "closed_at"] == utc("2025-08-04 06:30")
    assert pd.isna(deals.at[deal(6), "closed_at"])
    reason = imported[0].never_columns[REFERRALS]["Details.ClosingDateTime"]
    assert reason == "it goes on changing until the deal closes, or after"


def test_two_referrals_of_one_engagement_are_two_deals(deals):
    assert {deal(1), deal(14)} <= set(deals.index)


def test_what_is_filled_in_after_winning_is_named_and_not_used(imported, deals):
    never = imported[0].never_columns[DOWNLOAD]
    for column in ("Contract Value", "Contract Sign Date", "Deal Approved Date", "Status Reason"):
        assert never[column] == "it is there, or filled in, only once the deal is won or lost"
    assert not set(never) & set(deals.columns)


def test_columns_that_nobody_knows_are_listed(imported, deals):
    assert imported[0].unknown_columns == {
        DOWNLOAD: ["Partner Program", "Partner Role"],
        REFERRALS: ["Renewal Odds"],
    }
    assert "Renewal Odds" not in deals.columns


def test_rows_that_cannot_be_used_are_refused_with_their_line_and_the_reason(imported):
    reasons = refused(imported[2])
    assert sorted(reasons) == [8, 13, 14, 16, 17]
    assert (reasons[16], reasons[17]) == ("customer_id is blank", "outcome is blank")


def test_every_row_of_every_file_is_accounted_for(imported, exports):
    assert {file.name for file in imported[0].files} == {REFERRALS, DOWNLOAD}
    for file in imported[0].files:
        lines = (exports / "partner_center" / file.name).read_bytes().count(b"\n")
        assert file.rows == lines - 1 == file.kept + file.refused.total() + file.passed_over.total()


def test_the_download_tells_the_partner_and_what_is_sold(deals):
    assert set(deals["partner_id"]) == {"4455667"}
    assert set(deals["product_line"]) == {"Cold Storage"}


def test_without_the_download_the_exporting_partner_stands_in_loudly(changed, run_import):
    summary = run_import(changed(download=None))
    rule = "no column of the export says partner_id of deals: '(the exporting partner)' stands in"
    assert rule in {repair.rule for repair in summary.repairs}
    assert any("at least ten partners" in sentence for sentence in summary.cannot_know)


def test_several_currencies_are_refused_without_rates(changed, run_import):
    def euros(rows):
        return [row | {"Details.Currency": "EUR"} if row["ID"] == deal(2) else row for row in rows]

    with pytest.raises(UserError, match=r"The deals hold several currencies: USD .*, EUR"):
        run_import(changed(euros))


def test_an_export_without_the_acceptance_is_not_taken_for_one_of_partner_center(changed, run_import):
    with pytest.raises(UserError) as error:
        run_import(changed(without("AcceptedDateTime")), crm="partner_center")
    assert str(error.value) == (
        f"No Microsoft Partner Center export: {REFERRALS} comes nearest to Microsoft Partner Center's "
        "Referrals, but lacks 'AcceptedDateTime'; add it to the export, or its spelling to the mapping."
    )

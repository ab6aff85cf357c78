"""Tables are read as they are meant, and refused in one sentence where they cannot be."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from features.problems import UserError
from features.schema import check, read_tables
from features.tables import COLUMNS, Tables

CUSTOMER = {"customer_id": ["C1"]}
SMALL = {
    "deals": {
        "deal_id": ["D1", "D2", "D3"],
        "partner_id": ["P1", "P1", "P1"],
        "customer_id": ["C1", "C1", "C1"],
        "created_at": ["2024-01-01", "2024-02-01T10:00:00+02:00", "2024-03-01 12:00"],
        "outcome": ["won", "lost", "open"],
        "closed_at": ["2024-05-01", "2024-06-01", None],
        "amount": ["100", "2.5e3", None],
    },
    "stage_entries": {
        "deal_id": ["D1", "D2"],
        "stage": ["qualify", "1"],
        "entered_at": ["2024-01-02", "2024-02-02"],
    },
    "involvements": {"deal_id": ["D1"], "started_at": ["2024-01-03"]},
    "partners": {"partner_id": ["P1"]},
    "customers": CUSTOMER,
    "relationships": {"partner_id": ["P1"], "customer_id": ["C1"]},
}


def small(**changes):
    """Three deals as a CSV would bring them; ``deals={"amount": [...]}`` replaces or adds columns."""
    named = SMALL | {name: SMALL.get(name, {}) | columns for name, columns in changes.items()}
    return Tables(**{name: pd.DataFrame(columns) for name, columns in named.items()})


def test_every_column_of_the_surface_is_there_in_its_type(the_clock):
    tables = check(small(), the_clock)
    kinds = {"text": "str", "time": "datetime64[us, UTC]", "number": "float64", "boolean": "boolean"}
    for name, table in tables.by_name().items():
        expected = {column: kinds[rule.kind] for column, rule in COLUMNS[name].items()}
        assert table.dtypes.astype(str).to_dict() == expected, name


def test_times_without_an_offset_are_utc_and_offsets_are_honoured(the_clock):
    created = check(small(), the_clock).deals["created_at"]
    expected = ["2024-01-01T00:00:00+00:00", "2024-02-01T08:00:00+00:00", "2024-03-01T12:00:00+00:00"]
    assert [time.isoformat() for time in created] == expected


def test_the_export_was_taken_at_the_newest_time_or_when_it_says(the_clock):
    newest = pd.Timestamp("2024-06-01", tz="UTC")
    assert check(small(), the_clock).exported_at == newest
    later = pd.Timestamp("2024-07-01", tz="UTC")
    assert check(replace(small(), exported_at=later), the_clock).exported_at == later
    too_early = pd.Timestamp("2024-01-01", tz="UTC")
    assert check(replace(small(), exported_at=too_early), the_clock).exported_at == pd.Timestamp(
        "2024-06-01", tz="UTC"
    )


def test_further_columns_are_kept_in_the_type_that_fits_all_their_values(the_clock):
    own = {"score": ["1", "2.5", None], "hot": ["true", None, "False"], "note": ["1", "two", "3"]}
    deals = check(small(deals=own), the_clock).deals
    assert deals[list(own)].dtypes.astype(str).tolist() == ["float64", "boolean", "str"]
    assert deals["hot"].tolist() == [True, pd.NA, False]


def test_whole_number_ids_are_texts_without_a_decimal_point(the_clock):
    partners = {"partner_id": [7.0], "tier": [1]}
    tables = check(
        small(deals={"partner_id": [7, 7, 7]}, partners=partners, relationships={"partner_id": ["7"]}),
        the_clock,
    )
    assert tables.deals["partner_id"].tolist() == ["7", "7", "7"]
    assert tables.partners.loc[0, ["partner_id", "tier"]].tolist() == ["7", "1"]


def test_a_deal_may_close_and_enter_its_first_stage_when_it_is_created(the_clock):
    created = ["2024-05-01", "2024-02-01", "2024-03-01"]
    entered = {"entered_at": ["2024-05-01", "2024-02-02"]}
    deals = check(small(deals={"created_at": created}, stage_entries=entered), the_clock).deals
    assert deals.loc[0, "closed_at"] == deals.loc[0, "created_at"]


def test_an_hour_that_summer_time_skips_is_an_hour_of_utc_or_of_its_offset(the_clock):
    skipped = ["2024-03-31T02:30:00", "2024-03-31T02:30:00+01:00", "2024-03-31T02:30:00+02:00"]
    deals = check(
        small(deals={"created_at": skipped}, stage_entries={"entered_at": ["2024-04-02"] * 2}), the_clock
    )
    assert deals.deals["created_at"].dt.strftime("%H:%M").tolist() == ["02:30", "01:30", "00:30"]


def test_three_decimals_are_decimals_where_another_number_says_so(the_clock):
    for amounts in (["1.234", "12.5", None], ["1.234", "12000", None], ["1.234", "0.500", None]):
        numbers = check(small(deals={"amount": amounts}), the_clock).deals["amount"]
        assert numbers[:2].tolist() == [1.234, float(amounts[1])]


def test_partners_may_be_older_than_any_crm(the_clock):
    joined = check(small(partners={"joined_at": ["1954-06-01"]}), the_clock).partners["joined_at"]
    assert joined[0].year == 1954


def test_codes_with_leading_zeros_stay_texts(the_clock):
    deals = check(
        small(deals={"postcode": ["01234", "80331", None], "share": ["0", "0.5", "1"]}), the_clock
    ).deals
    assert deals["postcode"].tolist()[:2] == ["01234", "80331"]
    assert deals["share"].tolist() == [0, 0.5, 1]


def test_a_deal_may_pass_a_stage_twice_and_be_opened_again(the_clock):
    entries = {
        "deal_id": ["D1"] * 4,
        "stage": ["qualify", "propose", "qualify", "propose"],
        "entered_at": ["2024-01-02", "2024-02-02", "2024-03-02", "2024-06-02"],  # closed on 1 May
    }
    kept = check(small(stage_entries=entries), the_clock).stage_entries
    assert kept["stage"].tolist() == entries["stage"]


def test_missing_amounts_are_welcome(the_clock):
    amounts = check(small(deals={"amount": [np.nan, 1.0, np.nan]}), the_clock).deals["amount"]
    assert amounts.isna().tolist() == [True, False, True]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_tables_survive_writing_and_reading(make_tables, write_folder, the_clock, tmp_path, ending):
    tables = make_tables(1)
    again = read_tables(write_folder(tables, tmp_path / "crm", ending), the_clock)
    for name, table in tables.by_name().items():
        assert_frame_equal(again.by_name()[name], table)
    assert again.exported_at == tables.exported_at


def test_checking_twice_changes_nothing(make_tables, the_clock):
    tables = make_tables(1)
    again = check(tables, the_clock)
    for name, table in tables.by_name().items():
        assert_frame_equal(again.by_name()[name], table)


REFUSALS = {
    "text for a number": (
        {"deals": {"amount": ["100", "a lot", "1,000"]}},
        "deals: column 'amount' should be a number; came text such as 'a lot': mend it, or leave it empty "
        "(2 rows: D2, D3).",
    ),
    "nan as text": (
        {"deals": {"amount": ["100", "nan", "3"]}},
        "deals: column 'amount' should be a number; came text such as 'nan': mend it, or leave it empty "
        "(1 row: D2).",
    ),
    "true and false for a number": (
        {"deals": {"amount": [True, False, True]}},
        "deals: column 'amount' should be a number; came true and false: mend it, or leave it empty "
        "(3 rows: D1, D2, D3).",
    ),
    "infinite amount": (
        {"deals": {"amount": [1.0, np.inf, 2.0]}},
        "deals: column 'amount' should be finite; came infinity: mend it, or leave it empty (1 row: D2).",
    ),
    "negative amount": (
        {"deals": {"amount": [-1.0, 5.0, -np.inf]}},
        "deals: column 'amount' should be 0 or more; came less: mend it, or leave it empty (2 rows: D1, D3).",
    ),
    "number for a time": (
        {"deals": {"created_at": [1, 2, 3]}},
        "deals: column 'created_at' should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z; "
        "came numbers: mend it, or leave it empty (3 rows: D1, D2, D3).",
    ),
    "a date in another order": (
        {"deals": {"created_at": ["31/12/2023", "2024-01-01", "2024-01-01"]}},
        "deals: column 'created_at' should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z; "
        "came something else: mend it, or leave it empty (1 row: D1).",
    ),
    "text for a boolean": (
        {"relationships": {"executive_contact": ["maybe"]}},
        "relationships: column 'executive_contact' should be true or false; came something else: "
        "mend it, or leave it empty (1 row: P1/C1).",
    ),
    "unknown outcome": (
        {"deals": {"outcome": ["Won ", "lost", "open"]}},
        "deals: column 'outcome' should be one of won, lost, open; came 'Won ' (1 row: D1).",
    ),
    "missing outcome": (
        {"deals": {"outcome": ["won", None, "open"]}},
        "deals: column 'outcome' should not be empty; fill the value in, or leave the row out (1 row: D2).",
    ),
    "missing deal id": (
        {"deals": {"deal_id": ["D1", "D2", None]}},
        "deals: column 'deal_id' should not be empty; fill the value in, or leave the row out (1 "
        "row: row 3).",
    ),
    "duplicate deal": (
        {"deals": {"deal_id": ["D1", "D2", "D2"]}},
        "deals: column 'deal_id' should name each row once; came more than once (2 rows: D2, D2).",
    ),
    "duplicate stage entry": (
        {
            "stage_entries": {
                "deal_id": ["D1", "D1"],
                "stage": ["a", "a"],
                "entered_at": ["2024-01-02", "2024-01-02"],
            }
        },
        "stage_entries should hold each (deal_id, stage, entered_at) once; came more than once "
        "(2 rows: D1, D1).",
    ),
    "unknown partner": (
        {"deals": {"partner_id": ["P1", "P9", "P1"]}},
        "deals: column 'partner_id' should name a row of partners; came an id that is not there (1 row: D2).",
    ),
    "unknown customer": (
        {"relationships": {"customer_id": ["C9"]}},
        "relationships: column 'customer_id' should name a row of customers; came an id that is not there "
        "(1 row: P1/C9).",
    ),
    "unknown deal": (
        {"involvements": {"deal_id": ["D9"]}},
        "involvements: column 'deal_id' should name a row of deals; came an id that is not there "
        "(1 row: D9).",
    ),
    "a date in the future": (
        {"involvements": {"started_at": ["2025-01-02"]}},
        "involvements: column 'started_at' should not lie in the future; it is 2025-01-01 00:00 "
        "UTC (1 row: D1).",
    ),
    "closed without a date": (
        {"deals": {"closed_at": [None, "2024-06-01", None]}},
        "deals: column 'closed_at' should be given for deals won or lost (1 row: D1).",
    ),
    "open with a closing date": (
        {"deals": {"closed_at": ["2024-05-01", "2024-06-01", "2024-06-01"]}},
        "deals: column 'closed_at' should be empty for open deals (1 row: D3).",
    ),
    "closed before it was created": (
        {"deals": {"closed_at": ["2023-05-01", "2024-06-01", None]}},
        "deals: column 'closed_at' should not lie before created_at (1 row: D1).",
    ),
    "a stage before the deal": (
        {"stage_entries": {"entered_at": ["2023-12-31", "2024-02-02"]}},
        "stage_entries: column 'entered_at' should not lie before the deal's created_at (1 row: D1).",
    ),
    "left before joining": (
        {"involvements": {"ended_at": ["2024-01-02"]}},
        "involvements: column 'ended_at' should not lie before started_at (1 row: D1).",
    ),
    "two currencies": (
        {"deals": {"currency": ["EUR", "USD", "EUR"]}},
        "deals: column 'currency' should hold one currency; came EUR, USD: convert the amounts "
        "to one (1 row: D2).",
    ),
}

CHANGE = {"deal_id": ["D1"], "column": ["amount"], "value": ["100"], "changed_at": ["2024-02-01"]}
TOUCH = {"deal_id": ["D1"], "by": ["vendor"], "happened_at": ["2024-02-01"]}
REFUSALS |= {
    "decimals with a comma": (
        {"deals": {"amount": ["1.234,56", "99,5", "3"]}},
        "deals: column 'amount' should be a number; came text such as '1.234,56': write decimals with a "
        "point and thousands without a sign (2 rows: D1, D2).",
    ),
    "thousands with a point": (
        {"deals": {"amount": ["1.234", "12.500", "900"]}},
        "deals: column 'amount' should say thousands without a point; came '1.234' throughout: write 12500 "
        "for 12.500 if thousands are meant, else 12.5000 (2 rows: D1, D2).",
    ),
    "durations for a number": (
        {"deals": {"amount": pd.to_timedelta([1, 2, 3], unit="D")}},
        "deals: column 'amount' should be a number; came durations: mend it, or leave it empty "
        "(3 rows: D1, D2, D3).",
    ),
    "a year alone": (
        {"deals": {"created_at": ["2024", "2024-01", "now"]}},
        "deals: column 'created_at' should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z; "
        "came something else: mend it, or leave it empty (3 rows: D1, D2, D3).",
    ),
    "the year 1 for a blank": (
        {"deals": {"created_at": ["0001-01-01", "2024-01-01", "1970-01-01"]}},
        "deals: column 'created_at' should not lie before 1970-01-02, as dates that stand for a blank do: "
        "mend it, or leave the row out (2 rows: D1, D3).",
    ),
    "1900 for a blank": (
        {"partners": {"joined_at": ["1900-01-01"]}},
        "partners: column 'joined_at' should not lie before 1900-01-02, as dates that stand for a blank do: "
        "mend it, or leave it empty (1 row: P1).",
    ),
    "a wall clock's zone": (
        {"deals": {"created_at": ["2024-03-31 02:30 CET", "2024-01-01", "2024-01-01"]}},
        "deals: column 'created_at' should be a date or time such as 2024-03-31 or 2024-03-31T09:30:00Z; "
        "came something else: mend it, or leave it empty (1 row: D1).",
    ),
    "an activity by neither": (
        {"activities": TOUCH | {"by": ["us"]}},
        "activities: column 'by' should be one of vendor, partner; came 'us' (1 row: D1).",
    ),
    "an activity on no deal": (
        {"activities": TOUCH | {"deal_id": ["D9"]}},
        "activities: column 'deal_id' should name a row of deals; came an id that is not there (1 row: D9).",
    ),
    "a change of the outcome": (
        {"deal_changes": CHANGE | {"column": ["outcome"]}},
        "deal_changes: column 'column' should name a column of deals that can change, one of amount, "
        "currency, product_line, deal_type, lead_source, competitor (1 row: D1).",
    ),
    "a change to an amount that is none": (
        {"deal_changes": CHANGE | {"value": ["1.234,56"]}},
        "deal_changes: column 'value' should be a number of 0 or more where the column is amount "
        "(1 row: D1).",
    ),
    "a change to thousands with a point": (
        {"deal_changes": CHANGE | {"value": ["12.500"]}},
        "deal_changes: column 'value' should say thousands without a point where the column is amount "
        "(1 row: D1).",
    ),
    "two changes at once": (
        {"deal_changes": {name: values * 2 for name, values in CHANGE.items()}},
        "deal_changes should hold each (deal_id, column, changed_at) once; came more than once "
        "(2 rows: D1, D1).",
    ),
    "a change before the deal": (
        {"deal_changes": CHANGE | {"changed_at": ["2023-12-31"]}},
        "deal_changes: column 'changed_at' should not lie before the deal's created_at (1 row: D1).",
    ),
}


@pytest.mark.parametrize(("changes", "message"), REFUSALS.values(), ids=REFUSALS)
def test_a_bad_table_is_refused_in_one_sentence(the_clock, changes, message):
    with pytest.raises(UserError) as refusal:
        check(small(**changes), the_clock)
    assert str(refusal.value) == message


def test_five_rows_are_named_and_all_are_counted(the_clock):
    many = {"deal_id": [f"D{i}" for i in range(1, 8)], "outcome": "open", "closed_at": None, "amount": -1.0}
    columns = many | {"partner_id": "P1", "customer_id": "C1", "created_at": "2024-01-01"}
    with pytest.raises(UserError) as refusal:
        check(replace(small(), deals=pd.DataFrame(columns)), the_clock)
    assert str(refusal.value).endswith("(7 rows: D1, D2, D3, D4, D5, ...).")


def test_a_missing_column_is_named_with_those_that_came(the_clock):
    tables = small()
    with pytest.raises(UserError) as refusal:
        check(replace(tables, partners=tables.partners.rename(columns={"partner_id": "id"})), the_clock)
    assert str(refusal.value) == "partners: column 'partner_id' is missing; the table's columns are id."


def test_of_300_columns_the_first_twenty_are_named(the_clock):
    wide = pd.DataFrame({f"c{i}": ["1"] for i in range(300)})
    with pytest.raises(UserError) as refusal:
        check(replace(small(), partners=wide), the_clock)
    named = ", ".join(f"c{i}" for i in range(20))
    assert str(refusal.value) == (
        f"partners: column 'partner_id' is missing; the table's columns are {named} and 280 more."
    )
    assert check(replace(small(), partners=wide.assign(partner_id="P1")), the_clock).partners.shape == (
        1,
        307,
    )


def test_only_involvements_and_relationships_may_be_empty(the_clock):
    tables = small()
    nothing = replace(tables, involvements=tables.involvements[:0], relationships=tables.relationships[:0])
    assert len(check(nothing, the_clock).involvements) == 0
    with pytest.raises(UserError) as refusal:
        check(replace(tables, stage_entries=tables.stage_entries[:0]), the_clock)
    assert str(refusal.value) == "stage_entries holds no rows; at least one is needed."


def test_an_emptied_amount_and_one_that_changed_are_changes(the_clock):
    both = {name: values * 2 for name, values in CHANGE.items()}
    both |= {"value": ["", "5"], "changed_at": ["2024-02-01", "2024-02-02"]}
    changes = check(small(deal_changes=both), the_clock).deal_changes
    assert changes["value"].isna().tolist() == [True, False]


class TestFolder:
    @pytest.fixture
    def crm(self, make_tables, write_folder, tmp_path):
        return write_folder(make_tables(1), tmp_path / "crm", "csv")

    def refusal(self, folder, clock):
        with pytest.raises(UserError) as refusal:
            read_tables(folder, clock)
        return str(refusal.value)

    def test_a_file_is_no_folder(self, crm, the_clock):
        file = crm / "deals.csv"
        assert self.refusal(file, the_clock) == (
            f"{file} is not a folder; give a folder with "
            "deals, stage_entries, involvements, partners, customers, relationships."
        )

    def test_an_empty_folder_lacks_every_table(self, tmp_path, the_clock):
        names = "deals, stage_entries, involvements, partners, customers, relationships"
        assert self.refusal(tmp_path, the_clock) == (
            f"{tmp_path} lacks {names}: each of {names} is needed, as .parquet, .csv or .csv.gz; "
            "a table without rows still needs its header."
        )

    def test_a_crms_export_is_sent_to_the_import(self, tmp_path, the_clock):
        (tmp_path / "Opportunity.csv").write_text("Id\n1\n")
        assert self.refusal(tmp_path, the_clock).endswith(
            "header. If it is a CRM's export, turn it into these tables first, with 'stepin import'."
        )

    def test_a_missing_table_is_named(self, crm, the_clock):
        (crm / "partners.csv").unlink()
        said = self.refusal(crm, the_clock)
        assert said.startswith(f"{crm} lacks partners: each of deals, ")
        assert said.endswith("a table without rows still needs its header.")

    def test_a_table_twice_is_ambiguous(self, crm, make_tables, the_clock):
        make_tables(1).deals.to_parquet(crm / "deals.parquet")
        assert self.refusal(crm, the_clock) == f"{crm} holds deals.parquet and deals.csv; keep one of them."

    def test_a_file_without_a_header_is_empty(self, crm, the_clock):
        (crm / "deals.csv").write_text("")
        assert self.refusal(crm, the_clock) == "deals.csv is empty; a header is needed."

    def test_what_is_no_parquet_cannot_be_read(self, crm, the_clock):
        (crm / "deals.csv").rename(crm / "deals.parquet")
        assert self.refusal(crm, the_clock).startswith("deals.parquet cannot be read as parquet: ")

    def test_the_file_at_fault_is_named(self, crm, the_clock):
        deals = pd.read_csv(crm / "deals.csv", dtype=str)
        deals.loc[2, "amount"] = "much"
        deals.to_csv(crm / "deals.csv", index=False)
        deal_id = deals.loc[2, "deal_id"]
        assert self.refusal(crm, the_clock) == (
            f"deals.csv: column 'amount' should be a number; came text such as 'much': mend it, or leave it "
            f"empty (1 row: {deal_id})."
        )

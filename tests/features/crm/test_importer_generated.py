"""Whatever an export holds: every row is accounted for, and the result is whole or not there."""

import contextlib
import copy
import csv
import io
import shutil
import tomllib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from features import UserError, read_tables
from features.crm import Imported, bundled, import_export
from features.crm.mapping import mapping_from

CLOCK = lambda: datetime(2026, 1, 15, tzinfo=UTC)  # noqa: E731
HEADERS = {
    "Opportunity.csv": [
        *("Id", "AccountId", "StageName", "Amount", "CloseDate", "IsClosed", "IsWon", "CreatedDate"),
        *("Partner__c", "CurrencyIsoCode", "IsDeleted", "Type", "Probability"),
    ],
    "OpportunityHistory.csv": ["Id", "OpportunityId", "CreatedDate", "StageName", "CloseDate", "Amount"],
    "OpportunityFieldHistory.csv": ["OpportunityId", "CreatedDate", "Field", "OldValue", "NewValue"],
    "OpportunityTeamMember.csv": ["OpportunityId", "UserId", "TeamMemberRole", "CreatedDate"],
    "Task.csv": ["WhatId", "OwnerId", "Status", "ActivityDate", "CompletedDateTime", "Type", "CreatedDate"],
    "User.csv": ["Id", "UserType"],
    "Account.csv": ["Id", "Name", "Industry", "NumberOfEmployees", "AnnualRevenue", "Partner_Since__c"],
}
HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.sampled_from(
        ["", " ", "=1+1", "'; DROP TABLE deals; --", "a\nb", 'say "so"', "\0", "ÿ€ß", "NaN", "inf"]
    ),
)
TIMES = st.one_of(
    st.datetimes(datetime(2023, 1, 1), datetime(2026, 12, 31)).map(
        lambda t: t.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    ),
    st.datetimes(datetime(2023, 1, 1), datetime(2025, 12, 31)).map(lambda t: t.strftime("%Y-%m-%d")),
    st.sampled_from(
        [
            "0001-01-01",
            "1899-12-30",
            "2024-02-30",
            "1700000000000",
            "13/02/2024",
            "02/13/24 08:00 AM",
            "31.12.2024",
            "2025-03-30T02:30:00",
            "9999-12-31",
            "2024-01-01T25:00:00",
            "2024-06-01T08:00:00+0530",
        ]
    ),
)
NUMBERS = st.one_of(
    st.floats(0, 1e7, allow_nan=False).map(lambda x: f"{x:.2f}"),
    st.sampled_from(["1.234,56", "1,234.56", "€ 1 234", "-5", "1e9", "1e999", "(3)", "1.234", "12", "USD 5"]),
)
DEALS = st.sampled_from([f"006{i}" for i in range(6)] + ["000000000000000AAA"])
ACCOUNTS = st.sampled_from([f"001{i}" for i in range(4)] + ["", "000000000000000"])
POOLS = {
    "Id": st.sampled_from([f"00{kind}{i}" for kind in (1, 5, 6) for i in range(6)]),
    "OpportunityId": DEALS,
    "WhatId": DEALS,
    "AccountId": ACCOUNTS,
    "Partner__c": ACCOUNTS,
    "UserId": st.sampled_from(["0050", "0051"]),
    "OwnerId": st.sampled_from(["0050", "0051"]),
    "UserType": st.sampled_from(["Standard", "PowerPartner"]),
    "StageName": st.sampled_from(["New", "Closed Won", "Closed Lost"]),
    "IsClosed": st.sampled_from(["true", "false", "TRUE"]),
    "IsWon": st.sampled_from(["true", "false"]),
    "IsDeleted": st.sampled_from(["false", "false", "true"]),
    "CurrencyIsoCode": st.sampled_from(["EUR", "EUR", "EUR", "USD", ""]),
    "Field": st.sampled_from(["Amount", "LeadSource", "StageName", "created", "Type"]),
    "TeamMemberRole": st.sampled_from(["Sales Rep", "Channel Manager"]),
    "Status": st.sampled_from(["Completed", "Open"]),
    "Type": st.sampled_from(["Call", "Email", "New Business"]),
    "OldValue": NUMBERS,
    "NewValue": NUMBERS,
}


def cell(column: str) -> st.SearchStrategy[str]:
    usual = TIMES if "Date" in column or "Since" in column else POOLS.get(column, NUMBERS)
    return st.integers(0, 19).flatmap(lambda i: HOSTILE if i == 0 else usual)


def rows(name: str) -> st.SearchStrategy[list[list[str]]]:
    return st.lists(st.tuples(*(cell(column) for column in HEADERS[name])).map(list), max_size=8)


EXPORTS = st.fixed_dictionaries(
    {"Opportunity.csv": rows("Opportunity.csv"), "OpportunityHistory.csv": rows("OpportunityHistory.csv")},
    optional={
        name: rows(name) for name in HEADERS if not name.startswith("Opportunity.") and "yHistory" not in name
    },
)
STAGES = [("Closed Won", "true", "true"), ("Closed Lost", "true", "false"), ("New", "false", "false")]
OPENED, USED = "2024-02-01", "2024-03-01T10:00:00.000Z"
SOLID = {  # three deals that nothing is wrong with stand first, so that there is something to import
    "Opportunity.csv": [
        [
            f"006{i}",
            "0010",
            stage,
            "100.25",
            "2024-09-01",
            closed,
            won,
            OPENED,
            "0011",
            "EUR",
            "false",
            "",
            "9",
        ]
        for i, (stage, closed, won) in enumerate(STAGES)
    ],
    "OpportunityHistory.csv": [
        [f"008{i}", f"006{i}", USED, "Proposal", "2024-09-01", "100.25"] for i in range(3)
    ],
}
MAY_BE_REFUSED = (
    "holds numbers such as",
    "holds dates such as",
    "of amount holds numbers",
    "several currencies",
)
BROKEN = st.lists(
    st.sampled_from(["x", "a,b", 'one "quote', '"never closed', "\ufffd,\ufffd", '"a" b,c', ",,,"]),
    max_size=3,
)
COMMON = {
    "phases": (Phase.explicit, Phase.generate),
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": list(HealthCheck),
}


def as_bytes(
    name: str, table: Sequence[Sequence[str]], broken: Sequence[str], encoding: str, sign: str
) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=sign, lineterminator="\r\n")
    writer.writerow(HEADERS[name])
    for place, row in enumerate([*SOLID.get(name, []), *table]):
        writer.writerow(row)
        if place < len(broken):
            text.write(broken[place].replace(",", sign) + "\r\n")
    return text.getvalue().encode(encoding, errors="replace")


def import_all(folder: Path, keep: str | None, solid: bool = True) -> Imported | None:
    """Import, and check everything that must hold whatever the export is."""
    out = folder.parent / "crm"
    summary, error = import_or_refuse(folder, out, keep)
    if summary is None:
        assert not solid or any(why in error for why in MAY_BE_REFUSED), error
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
        return None
    refused = pd.read_csv(out / "refused.csv", keep_default_na=False)
    for file in summary.files:
        assert file.rows == file.kept + file.refused.total() + file.passed_over.total()
        mine = refused[refused["file"] == file.name]
        assert len(mine) == mine["line"].nunique() == file.refused.total()
        assert mine["reason"].str.len().gt(0).all()
    tables = read_tables(out, CLOCK)
    assert {name: len(table) for name, table in tables.by_name().items()} == summary.tables
    assert not solid or "0062" in set(tables.deals["deal_id"])
    return summary


def import_or_refuse(folder: Path, out: Path, keep: str | None) -> tuple[Imported | None, str]:
    try:
        return import_export(folder, out, crm="salesforce", keep_currency=keep, clock=CLOCK), ""
    except UserError as error:
        return None, str(error)


@settings(max_examples=30, **COMMON)
@given(
    EXPORTS,
    st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"]),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([None, "EUR"]),
)
def test_rows_in_are_rows_kept_refused_and_passed_over_by_name(
    tmp_path_factory, export, encoding, sign, keep
):
    base = tmp_path_factory.mktemp("generated", numbered=True)
    folder = base / "export"
    folder.mkdir()
    for name, table in export.items():
        (folder / name).write_bytes(as_bytes(name, table, [], encoding, sign))
    summary = import_all(folder, keep)
    if summary is not None:
        written = {name: len(SOLID.get(name, [])) + len(table) for name, table in export.items()}
        read = {file.name: file.rows for file in summary.files}
        assert read == {name: written[name] for name in read}
    shutil.rmtree(base)


@settings(max_examples=18, **COMMON)
@given(EXPORTS, BROKEN, st.integers(0, 60))
def test_broken_lines_and_cut_files_lose_no_account(tmp_path_factory, export, broken, cut):
    base = tmp_path_factory.mktemp("broken", numbered=True)
    folder = base / "export"
    folder.mkdir()
    for name, table in export.items():
        content = as_bytes(name, table, broken, "utf-8", ",")
        (folder / name).write_bytes(content[: len(content) - cut] if cut % 2 else content)
    import_all(folder, "EUR", solid=cut % 2 == 0)
    shutil.rmtree(base)


@settings(max_examples=40, **COMMON)
@given(st.dictionaries(st.sampled_from(list(HEADERS)), st.binary(max_size=300), min_size=1, max_size=3))
def test_bytes_that_are_no_export_are_refused_in_a_sentence(tmp_path_factory, files):
    base = tmp_path_factory.mktemp("bytes", numbered=True)
    folder = base / "export"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    import_all(folder, None, solid=False)
    shutil.rmtree(base)


def paths_of(node: object, path: tuple = ()) -> list[tuple]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(found for key, value in inner for found in paths_of(value, (*path, key)))]


MAPPING = tomllib.loads(bundled()["salesforce"].read_text(encoding="utf-8"))
ODD = [
    5,
    "x",
    "id",
    [],
    {},
    [1],
    [[]],
    {"x": 1},
    {"text": "x"},
    True,
    1.5,
    "",
    ["id"],
    [{}],
    "(",
    {"file": "user"},
]


@settings(max_examples=200, **COMMON)
@given(st.sampled_from(paths_of(MAPPING)[1:]), st.sampled_from(ODD))
def test_a_mapping_with_something_odd_in_it_is_read_or_refused_in_a_sentence(path, odd):
    content = copy.deepcopy(MAPPING)
    node = content
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = odd
    with contextlib.suppress(UserError):
        mapping_from(content, "m.toml")

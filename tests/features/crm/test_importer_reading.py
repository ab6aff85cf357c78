"""Files as they come: encodings, delimiters, archives, broken lines, odd columns."""

import gzip
import zipfile
from io import BytesIO

import numpy as np
import pytest

from features import UserError, read_tables
from features.crm.reading import look_at, read
from features.crm.recognise import sheets_of

TABLE = "id,name,note\n1,Käse,a\n2,Brot,b\n"


def read_all(path, **options):
    sheet = look_at(path)
    came = read(sheet, range(len(sheet.header)), **options)
    rows = list(zip(*(came.columns[place].to_pylist() for place in range(len(sheet.header))), strict=True))
    return sheet, came, rows


@pytest.mark.parametrize(
    "content",
    [
        TABLE.encode("utf-8"),
        TABLE.encode("utf-8-sig"),
        TABLE.encode("utf-16"),
        TABLE.encode("utf-16-le"),
        b"\xfe\xff" + TABLE.encode("utf-16-be"),
        TABLE.encode("latin-1"),
        TABLE.replace("\n", "\r\n").encode("cp1252"),
        TABLE.replace("\n", "\r").encode("cp1252"),
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode(),
        b"sep=;\n" + TABLE.replace(",", ";").encode(),
        b"\n\n" + TABLE.encode() + b"\n\n",
        gzip.compress(TABLE.encode(), mtime=0),
    ],
    ids=[
        "utf-8",
        "bom",
        "utf-16",
        "utf-16 no bom",
        "utf-16-be",
        "latin-1",
        "crlf",
        "cr",
        ";",
        "tab",
        "sep=",
        "blank",
        "gz",
    ],
)
def test_a_table_is_the_same_however_it_is_written(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    sheet, came, rows = read_all(path)
    assert sheet.header == ("id", "name", "note")
    assert rows == [("1", "Käse", "a"), ("2", "Brot", "b")]
    assert came.refused == []


def test_a_file_in_another_encoding_throughout_is_said_and_is_no_repair(tmp_path):
    (tmp_path / "a.csv").write_bytes(TABLE.encode("cp1252"))
    _, came, _ = read_all(tmp_path / "a.csv")
    assert (came.notes, came.repaired_lines) == (["is not UTF-8: read as Windows-1252"], [])


def test_a_line_in_another_encoding_is_repaired_and_one_in_none_is_refused(tmp_path):
    lines = [b"id,name", "1,Käse".encode(), "2,Käse".encode("cp1252"), b"3,K\x81se", b"4,K\0se", b"5,ok"]
    (tmp_path / "a.csv").write_bytes(b"\n".join(lines) + b"\n")
    _, came, rows = read_all(tmp_path / "a.csv")
    assert rows == [("1", "Käse"), ("2", "Käse"), ("5", "ok")]
    assert came.repaired_lines == [3]
    assert came.refused == [(4, "has bytes that are no text"), (5, "has bytes that are no text")]


@pytest.mark.parametrize(
    ("lines", "kept", "refused"),
    [
        (["1,2,3", "4,5", "6,7,8"], "16", [(3, "has 2 fields where the header has 3")]),
        (["1,2,3,4", "5,6,7"], "5", [(2, "has 4 fields where the header has 3")]),
        (['1,"2,3', "4,5,6"], "4", [(2, "opens a quote that is never closed")]),
        (['1,"2,3', '4,"5",6', "7,8,9"], "47", [(2, "has a quote in the middle of a quoted field")]),
        (['1,"2" x,3', "4,5,6"], "4", [(2, "has a quote in the middle of a quoted field")]),
        (['1,"a\nb",3', "4,5,6"], "14", []),
        (
            ['1,"a\nb"', "4,5,6"],
            "4",
            [(2, "has 2 fields where the header has 3"), (3, "has 1 field where the header has 3")],
        ),
        (["", " , , ", "1,2,3", ",,"], " 1", []),
    ],
)
def test_a_broken_line_is_refused_alone_and_swallows_no_other(tmp_path, lines, kept, refused):
    (tmp_path / "a.csv").write_text("a,b,c\n" + "\n".join(lines) + "\n")
    _, came, rows = read_all(tmp_path / "a.csv")
    assert [row[0] for row in rows if any(cell.strip() for cell in row)] == [
        sign for sign in kept if sign != " "
    ]
    assert came.refused == refused


def test_a_line_that_is_no_text_is_refused_alone_though_a_lost_quote_reached_it(tmp_path):
    (tmp_path / "a.csv").write_bytes(b'a,b\n"lost\n1,2\n3,\x81\n4,"5"\n')
    _, came, rows = read_all(tmp_path / "a.csv")
    assert rows == [("1", "2"), ("4", "5")]
    assert sorted(line for line, _ in came.refused) == [2, 4]


def test_a_file_cut_in_the_middle_says_so(tmp_path):
    (tmp_path / "a.csv").write_text("a,b,c\n1,2,3\n4,5")
    _, came, rows = read_all(tmp_path / "a.csv")
    assert rows == [("1", "2", "3")]
    assert came.refused == [
        (3, "has 2 fields where the header has 3: the file ends in the middle of the line")
    ]
    assert came.notes == ["ends without a line break: if it was cut short there, export it again"]


def test_line_numbers_count_the_lines_inside_a_cell(tmp_path):
    (tmp_path / "a.csv").write_text('a,b\n1,"x\ny\nz"\n2,w\n')
    _, came, _ = read_all(tmp_path / "a.csv")
    assert came.lines.tolist() == [2, 5]


def test_chunks_give_what_one_piece_gives(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n" + "".join(f"{i},{i * i}\n" for i in range(100)))
    assert read_all(tmp_path / "a.csv", chunk_size=7)[2] == read_all(tmp_path / "a.csv")[2]


def test_three_hundred_columns_are_no_matter(tmp_path):
    (tmp_path / "a.csv").write_text(",".join(f"c{i}" for i in range(300)) + "\n" + ",".join("x" * 300) + "\n")
    sheet = look_at(tmp_path / "a.csv")
    assert read(sheet, [299]).columns[299].to_pylist() == ["x"]


def workbook() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("xl/workbook.xml", "<x/>")
    return file.getvalue()


def archive() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("Opportunity.csv", TABLE)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (archive(), "a.csv is a zip archive; unpack it and give the folder with its CSV files."),
        (workbook(), "a.csv is an Excel workbook; save each of its sheets as CSV (UTF-8)."),
        (
            b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
            "a.csv is an Excel workbook; save each of its sheets as CSV (UTF-8).",
        ),
        (b"PAR1rest", "a.csv is a Parquet file; an export is read from CSV files."),
        (bytes(range(256)) + bytes(50), "a.csv is no text; export it as CSV."),
        (b"", "a.csv is empty; export it again, with its header."),
        (b"\n \r\n", "a.csv is empty; export it again, with its header."),
        (b'"never closed', "a.csv has no header that can be read; export it again."),
        (
            gzip.compress(b"a,b\n" * 2000, mtime=0)[:-12],
            "a.csv cannot be read: Compressed file ended before the end-of-stream marker was reached; "
            "export it again.",
        ),
    ],
)
def test_what_is_no_csv_is_refused_in_one_sentence(tmp_path, content, said):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(UserError) as error:
        read_all(tmp_path / "a.csv")
    assert str(error.value) == said


def test_a_zip_in_place_of_the_folder_is_told_what_to_do(tmp_path):
    (tmp_path / "export.zip").write_bytes(archive())
    with pytest.raises(UserError) as error:
        sheets_of(tmp_path / "export.zip")
    assert (
        str(error.value) == "export.zip is a zip archive; unpack it and give the folder with its CSV files."
    )


def test_a_folder_without_a_csv_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no \.csv file; export the CRM's tables as CSV into it\.$"):
        sheets_of(tmp_path)


OPPORTUNITY = {
    "Id": "006A", "AccountId": "001A", "StageName": "Offer", "Amount": "5.50", "CloseDate": "2026-09-01",
    "IsClosed": "false", "IsWon": "false", "CreatedDate": "2025-02-01", "Partner__c": "001P",
}  # fmt: skip
HISTORY = {
    "Id": "008A", "OpportunityId": "006A", "CreatedDate": "2025-02-01", "StageName": "Offer",
    "CloseDate": "2026-09-01", "Amount": "5.50",
}  # fmt: skip


def twice(second: str) -> dict[str, str]:
    header = ",".join([*OPPORTUNITY, "amount"])
    rows = [
        ",".join([*OPPORTUNITY.values(), "5.50"]),
        ",".join([*(OPPORTUNITY | {"Id": "006B"}).values(), second]),
    ]
    return {"o.csv": "\n".join([header, *rows]) + "\n", "h.csv": [HISTORY]}


def test_a_column_twice_with_the_same_values_is_one_column_and_said(write_export, run_import):
    summary = run_import(write_export(twice("5.50")), crm="salesforce")
    assert "o.csv has column 'Amount' twice, with the same values: one is used." in summary.notes


def test_a_column_twice_with_other_values_is_refused(write_export, run_import, tmp_path):
    with pytest.raises(UserError) as error:
        run_import(write_export(twice("6.50")), crm="salesforce")
    assert str(error.value) == (
        "o.csv: column 'Amount' stands there twice with different values (first in line 3); keep one."
    )
    assert not (tmp_path / "crm").exists()


def test_a_file_in_parts_is_one_file(write_export, run_import, tmp_path, clock):
    parts = {
        "Opportunity_1.csv": [OPPORTUNITY],
        "Opportunity_2.csv": [dict(reversed((OPPORTUNITY | {"Id": "006B"}).items()))],
        "History.csv": [HISTORY, HISTORY | {"Id": "008B", "OpportunityId": "006B"}],
    }
    summary = run_import(write_export(parts), crm="salesforce")
    assert {file.name: (file.rows, file.kept) for file in summary.files} == {
        "History.csv": (2, 2),
        "Opportunity_1.csv": (1, 1),
        "Opportunity_2.csv": (1, 1),
    }
    assert read_tables(tmp_path / "crm", clock).deals["deal_id"].tolist() == ["006A", "006B"]


def test_progress_is_told_on_a_large_file(tmp_path, monkeypatch):
    monkeypatch.setattr("features.crm.reading.PROGRESS", 20)
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 50)
    told: list[str] = []
    sheet = look_at(tmp_path / "a.csv")
    came = read(sheet, [0], told.append, chunk_size=10)
    assert told == ["Reading a.csv: 20 rows", "Reading a.csv: 40 rows"]
    assert np.array_equal(came.lines, np.arange(2, 52))

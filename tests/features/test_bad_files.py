"""Files as they really come: mutilated, cut off, misnamed, in other encodings. Refused, never changed."""

import codecs
import csv
import gzip
import io
import re
import zipfile
from contextlib import suppress

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import table_file
from features.column_types import as_text
from features.flat import read_flat
from features.problems import UserError
from features.schema import read_frame, read_tables

WHOLE = 'id,note,amount\nD1,"a, ""b""",10\nD2,,2.5\n"D3","two\nlines",3\n'
CUT = "t.csv{} is cut off before its end; copy or export it again."


def refusal(folder, content, name="t.csv", **reading):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as refused:
        read_frame(file, **reading)
    return str(refused.value)


def read(folder, content, name="t.csv", **reading):
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_frame(file, **reading)


def as_lists(frame):
    return [[None if pd.isna(value) else value for value in row] for row in frame.astype(object).to_numpy()]


def zipped(name):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "a,b\n1,2\n")
    return buffer.getvalue()


def parquet(frame, **options):
    buffer = io.BytesIO()
    frame.to_parquet(buffer, **options)
    return buffer.getvalue()


def widths(cells, have, lines):
    return (
        f"t.csv should have {cells} cells in each row, as in its header; {have} more or fewer ({lines}): "
        "mend them, or export it again."
    )


def open_quote(start, noticed):
    return (
        f"t.csv has an open quotation mark in the row that starts in line {start} (noticed in line {noticed})"
        ": close it, double it where it is part of a text, or export it again if the file is cut off there."
    )


def nul(line):
    damaged = "it is damaged, or in another encoding; export it again as CSV."
    return f"t.csv holds a NUL byte in line {line}: {damaged}"


PARQUET = parquet(pd.DataFrame({"a": np.arange(5_000)}))
MUTILATED = {
    "too few cells": ("a,b\n1,2\n3\n", widths(2, "1 row has", "line 3 has 1")),
    "too many cells": ("a,b\n1,2\n3,4,5\n", widths(2, "1 row has", "line 3 has 3")),
    "a cell more in each row, which pandas takes for an index": (
        "a,b\n1,2,3\n4,5,6\n",
        widths(2, "2 rows have", "line 2 has 3, line 3 has 3"),
    ),
    "many rows": (
        "a,b\n" + "1\n" * 7,
        widths(2, "7 rows have", ", ".join(f"line {i} has 1" for i in range(2, 7)) + ", ..."),
    ),
    "after an empty line and a cell of two lines": (
        'a,b\n\n1,"x\ny"\n3\n',
        widths(2, "1 row has", "line 5 has 1"),
    ),
    "cut off within a row": ("a,b,c\n1,2,3\n4,5", widths(3, "1 row has", "line 3 has 2")),
    "cut off within quotes": ('a,b\n1,2\n3,"4', open_quote(3, 3)),
    "a quote that swallows rows up to the next": ('a,b\n1,"2\n3,4\n5,"6"\n7,8\n', open_quote(2, 4)),
    "quotes that are not doubled": ('a,b\n1,"the "best" one"\n', open_quote(2, 2)),
    "quotes with a backslash": ('a,b\n1,"the \\"best\\" one"\n', open_quote(2, 2)),
    "an open quote in the header": ('a,"b\n1,2\n', open_quote(1, 2)),
    "a column twice": ("a,amount,amount\n1,2,3\n", "t.csv: column 'amount' stands there twice; keep one."),
    "values without a name": (
        ",a\n0,x\n1,y\n",
        "t.csv has values in column 1, which has no name: name it in the header, or delete it.",
    ),
    "another delimiter": (
        "a;b\n1;2\n",
        "t.csv has one column, 'a;b'; is it separated by ';' instead of ','? "
        "Export it with the other delimiter.",
    ),
    "nothing": ("", "t.csv is empty; a header is needed."),
    "empty lines": ("\n\n", "t.csv is empty; a header is needed."),
    "a NUL byte": ("a,b\n1,2\n3,\0\n", nul(3)),
    "latin-1": (
        "a,b\n1,2\n3,Köln\n".encode("latin-1"),
        "t.csv is no text in utf-8 (line 3); export it as CSV in that encoding.",
    ),
    "mixed encodings": (
        "a,b\n1,Köln\n".encode() + "3,Köln\n".encode("cp1252"),
        "t.csv is no text in utf-8 (line 3); export it as CSV in that encoding.",
    ),
    "cut within a letter": (
        "a,b\n1,ö".encode()[:-1],
        "t.csv is no text in utf-8 (line 2); export it as CSV in that encoding.",
    ),
    "UTF-16 with its mark": (
        "a,b\n1,2\n".encode("utf-16"),
        "t.csv is text in UTF-16; export it as CSV in UTF-8.",
    ),
    "UTF-16 without one": ("a,b\n1,2\n".encode("utf-16-le"), nul(1)),
    "a zip archive": (
        zipped("deals.csv"),
        "t.csv is a zip archive or an Excel workbook; unpack it, or save it as CSV.",
    ),
    "an old Excel workbook": (b"\xd0\xcf\x11\xe0\xa1\xb1", "t.csv is an Excel workbook; save it as CSV."),
    "a web page": (
        "  <!DOCTYPE html><html>Please log in</html>",
        "t.csv is a web page, perhaps of a login; export the table as CSV.",
    ),
    "Parquet": (PARQUET, "t.csv is a Parquet file; name it .parquet."),
    "gzip": (gzip.compress(b"a,b\n1,2\n"), "t.csv is compressed with gzip; name it .csv.gz."),
}


@pytest.mark.parametrize(("content", "message"), MUTILATED.values(), ids=MUTILATED)
def test_a_file_that_is_no_whole_csv_is_refused_in_one_sentence(tmp_path, content, message):
    assert refusal(tmp_path, content) == message


OTHERS = {
    "gzip cut off": ("t.csv.gz", gzip.compress(WHOLE.encode() * 100)[:90], CUT.format(".gz")),
    "no gzip": ("t.csv.gz", b"a,b\n1,2\n", "t.csv.gz is not compressed, as its name says; name it .csv."),
    "a zip in gzip": (
        "t.csv.gz",
        gzip.compress(zipped("a.csv")),
        "t.csv.gz is a zip archive or an Excel workbook; unpack it, or save it as CSV.",
    ),
    "Parquet cut off": (
        "t.parquet",
        PARQUET[:-9],
        "t.parquet is cut off before its end; copy or export it again.",
    ),
    "an Excel workbook": (
        "t.parquet",
        zipped("xl/workbook.xml"),
        "t.parquet is a zip archive or an Excel workbook; unpack it, or save it as CSV.",
    ),
}


@pytest.mark.parametrize(("name", "content", "message"), OTHERS.values(), ids=OTHERS)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, content, message):
    assert refusal(tmp_path, content, name) == message


def test_a_damaged_byte_in_gzip_or_parquet_is_refused(tmp_path):
    packed = bytearray(gzip.compress(WHOLE.encode() * 100))
    packed[-6] ^= 1
    assert refusal(tmp_path, bytes(packed), "t.csv.gz").startswith("t.csv.gz cannot be read as gz: CRC check")
    damaged = PARQUET[:4] + bytes(len(PARQUET) - 200) + PARQUET[-196:]
    assert refusal(tmp_path, damaged, "t.parquet").startswith("t.parquet cannot be read as parquet: ")


@pytest.mark.parametrize("delimiter", ["", ",,", "\n", '"', "¦"])
def test_what_is_no_delimiter_is_refused(tmp_path, delimiter):
    message = f"t.csv cannot be read: {delimiter!r} is no delimiter; it should be one sign, such as a comma."
    assert refusal(tmp_path, WHOLE, delimiter=delimiter) == message


@pytest.mark.parametrize("encoding", ["klingon", "hex"])
def test_an_encoding_that_nobody_knows_is_refused(tmp_path, encoding):
    assert refusal(tmp_path, WHOLE, encoding=encoding) == (
        f"t.csv cannot be read: nobody knows the encoding '{encoding}'."
    )


READ = [["D1", 'a, "b"', "10"], ["D2", None, "2.5"], ["D3", "two\nlines", "3"]]


@pytest.mark.parametrize(
    "content",
    [
        WHOLE,
        codecs.BOM_UTF8 + WHOLE.encode(),
        WHOLE.replace("\nD", "\n\nD"),  # empty lines
        WHOLE.removesuffix("\n"),
        re.sub(r"$(?<!two)(?<!\n)", ",", WHOLE, flags=re.MULTILINE),  # a comma too many at each line's end
    ],
    ids=["as it should be", "with a byte-order mark", "empty lines", "no last line end", "commas at the end"],
)
def test_what_says_nothing_changes_nothing(tmp_path, content):
    frame = read(tmp_path, content)
    assert (list(frame.columns), as_lists(frame)) == (["id", "note", "amount"], READ)
    assert set(frame.dtypes.astype(str)) == {"str"}


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252", "utf-8", "utf-32"])
def test_other_encodings_are_read_where_they_are_named(tmp_path, encoding):
    frame = read(tmp_path, "ort;größe\nKöln;1\n".encode(encoding), delimiter=";", encoding=encoding)
    assert (list(frame.columns), as_lists(frame)) == (["ort", "größe"], [["Köln", "1"]])


def test_only_named_texts_are_missing(tmp_path):
    content = 'a,b\nNA,-1\nnull,""\n'
    assert as_lists(read(tmp_path, content)) == [["NA", "-1"], ["null", None]]
    assert as_lists(read(tmp_path, content, missing=("NA", "-1"))) == [[None, None], ["null", ""]]
    assert as_lists(read(tmp_path, content, missing=())) == [["NA", "-1"], ["null", ""]]


def test_a_header_may_come_late_and_take_several_lines(tmp_path):
    frame = read(tmp_path, '\n\r\nid,"no\nte","a ""b"""\nD1,x,1\n')
    assert (list(frame.columns), as_lists(frame)) == (["id", "no\nte", 'a "b"'], [["D1", "x", "1"]])


def test_300_columns_are_300_columns(tmp_path):
    header = ",".join(f"c{i}" for i in range(300))
    frame = read(tmp_path, f"{header}\n" + ",".join(["1"] * 300) + "\n")
    assert frame.shape == (1, 300)


def test_a_header_without_rows_is_an_empty_table(tmp_path):
    for content in ("a,b", "a,b\n", 'a,"b"\n\n'):
        frame = read(tmp_path, content)
        assert (list(frame.columns), len(frame)) == (["a", "b"], 0)


def test_an_index_with_a_name_is_a_column_of_a_parquet_file(tmp_path):
    frame = pd.DataFrame({"deal_id": ["D1", ""], "n": [1, 2]})
    named = read(tmp_path, parquet(frame.set_index("deal_id")), "t.parquet")
    assert as_lists(named) == [["D1", 1], [None, 2]]
    plain = read(tmp_path, parquet(frame[::-1]), "t.parquet")
    assert (as_lists(plain), list(plain.index)) == ([[None, 2], ["D1", 1]], [0, 1])


def test_long_ids_survive_a_missing_one_in_a_parquet_file(tmp_path):
    table = pa.table({"deal_id": [2**53 + 1, None, 2**63 - 1], "n": [1.0, None, 2.0]})
    pq.write_table(table, tmp_path / "t.parquet")  # without what pandas would note about its types
    frame = read_frame(tmp_path / "t.parquet")
    assert as_text(frame["deal_id"])[[0, 2]].tolist() == ["9007199254740993", "9223372036854775807"]
    assert as_text(pd.Series([2.0**60, 1.0])).notna().all()


def test_the_line_of_a_block_that_is_read_later_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(table_file, "_BLOCK", 2_000)
    lines = [f"{i},x" for i in range(2_000)]
    lines[1_499] = "only one"
    assert "(line 1501 has 1)" in refusal(tmp_path, "a,b\n" + "\n".join(lines))


COLUMNS = """
[decision]
id = "id"
[stepped_in]
column = "joined"
yes = ["yes"]
no = ["no"]
[outcome]
column = "result"
yes = ["won"]
no = ["lost"]
[value]
amount = "amount"
"""
FLAT = {
    "decimals with a comma": (
        ["1", "2", "3"],
        ["1.234,5", "99,5", "7"],
        "t.csv: column 'size' should hold numbers with a point; came '1.234,5': write 1.5 for 1,5, or "
        "exclude the column (2 rows: D0, D1).",
    ),
    "amounts with a comma": (
        ["1.234,56", "99,5", "7"],
        ["1", "2", "3"],
        "t.csv: column 'amount' should hold numbers with a point; came '1.234,56': write 1.5 for 1,5, or "
        "exclude the column (2 rows: D0, D1).",
    ),
    "thousands with a point": (
        ["1.234", "12.500", "7"],
        ["1", "2", "3"],
        "t.csv: column 'amount' should say thousands without a point, or have another decimal than three "
        "somewhere (2 rows: D0, D1).",
    ),
}


@pytest.mark.parametrize(("amounts", "sizes", "message"), FLAT.values(), ids=FLAT)
def test_numbers_of_a_flat_file_are_not_guessed(tmp_path, amounts, sizes, message):
    joined, result = ["yes", "no", "yes"], ["won", "lost", "lost"]
    columns = {"id": ["D0", "D1", "D2"], "joined": joined, "result": result}
    pd.DataFrame(columns | {"amount": amounts, "size": sizes}).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "columns.toml").write_text(COLUMNS)
    with pytest.raises(UserError) as refused:
        read_flat(tmp_path / "t.csv", tmp_path / "columns.toml")
    assert str(refused.value) == message


# Mutilated at random

mutilations = st.lists(
    st.tuples(st.integers(0, len(WHOLE)), st.integers(0, 3), st.sampled_from(["", *',"\n\r;\0xé '])),
    max_size=4,
)


def mutilated(text, cuts):
    for place, length, sign in cuts:
        text = text[:place] + sign + text[place + length :]
    return text


@given(mutilations, st.booleans(), st.integers(0, len(WHOLE)))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_mutilated_csv_is_refused_or_read_as_it_stands(tmp_path, cuts, is_quoted, end):
    text = mutilated((WHOLE if is_quoted else WHOLE.replace('"', ""))[: end or None], cuts)
    try:
        frame = read(tmp_path, text)
    except UserError:
        return
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    named = [place for place, name in enumerate(rows[0]) if name]
    assert list(frame.columns) == [rows[0][place] for place in named]
    assert as_lists(frame) == [[row[place] or None for place in named] for row in rows[1:]]


@given(st.sampled_from(["deals", "stage_entries", "relationships"]), st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_folder_with_a_mutilated_table_is_read_or_refused(
    make_tables, write_folder, the_clock, tmp_path, name, data
):
    if not (tmp_path / "deals.csv").exists():
        write_folder(make_tables(1, n_deals=20), tmp_path, "csv")
    file = tmp_path / f"{name}.csv"
    whole = file.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    byte = data.draw(st.sampled_from([b"", b",", b'"', b"\n", b"\xff", b"\0", b"-", b"0", b".", b"T"]))
    file.write_bytes(whole[:place] + byte + whole[place + data.draw(st.integers(0, 5)) :])
    try:
        with suppress(UserError):
            read_tables(tmp_path, the_clock)
    finally:
        file.write_bytes(whole)

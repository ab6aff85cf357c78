"""Files that are not what their names say: other formats, other encodings, cut off, mutilated rows."""

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn, cast

from features.problems import TableError

_CHUNK = 1 << 20
_MOST_NAMED = 5
_MOST_SHOWN = 40
_FORMATS = (  # how a file begins, what it is then, what to do
    (b"PK\x03\x04", "a zip archive or an Excel workbook", "unpack it, or save it as CSV"),
    (b"PK\x05\x06", "a zip archive", "unpack it"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save it as CSV"),
    (b"%PDF", "a PDF", "export it as CSV"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (b"BZh", "compressed with bzip2", "unpack it"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it"),
)
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_WEB_PAGE = (b"<!doctype", b"<html")


@dataclass(frozen=True)
class Layout:
    """What a look through all bytes of a CSV tells: header, whether rows follow, whether cells are quoted."""

    columns: tuple[str, ...]
    header_lines: int
    has_rows: bool
    has_quotes: bool


def refuse_another_format(file: Path) -> None:
    """Refuse a file whose first bytes are those of another format than its name says.

    Raises
    ------
    TableError
        What it is instead, and what to do; also where a Parquet file ends before its footer.
    """
    with file.open("rb") as opened:
        start = opened.read(512)
        opened.seek(max(opened.seek(0, 2) - len(_PARQUET), 0))
        end = opened.read()
    if file.suffix == ".gz" and start.startswith(_GZIP):
        start = _first_unpacked(file)
    elif file.suffix == ".gz" and start:
        raise TableError(file.name, None, "is not compressed, as its name says; name it .csv")
    elif start.startswith(_GZIP):
        raise TableError(file.name, None, "is compressed with gzip; name it .csv.gz")
    for begins, what, remedy in _FORMATS:
        if start.startswith(begins):
            raise TableError(file.name, None, f"is {what}; {remedy}")
    if file.suffix == ".parquet":
        if start.startswith(_PARQUET) and end != _PARQUET:
            raise TableError(file.name, None, "is cut off before its end; copy or export it again")
    elif start.startswith(_PARQUET):
        raise TableError(file.name, None, "is a Parquet file; name it .parquet")
    elif start.lstrip().lower().startswith(_WEB_PAGE):
        raise TableError(file.name, None, "is a web page, perhaps of a login; export the table as CSV")


def read_layout(file: Path, delimiter: str, encoding: str) -> Layout:
    """Look through all of a CSV once: can it be decompressed and decoded, and has it a header?

    Raises
    ------
    TableError
        Empty, cut off, damaged, in another encoding (the first line is named), or with NUL bytes.
    """
    has_quotes = False
    for text in _decoded(file, encoding):
        has_quotes = has_quotes or '"' in text
    with _opened(file, encoding) as lines:
        rows = csv.reader(lines, delimiter=delimiter)
        try:
            header, header_lines = next((row for row in rows if row), []), rows.line_num
            has_rows = any(rows)
        except csv.Error:
            refuse_mutilated_rows(file, delimiter, encoding)  # names the line
            raise
    if not header:
        raise TableError(file.name, None, "is empty; a header is needed")
    _refuse_another_delimiter(file, header, delimiter)
    return Layout(tuple(header), header_lines, has_rows, has_quotes)


def _refuse_another_delimiter(file: Path, header: list[str], delimiter: str) -> None:
    others = [sign for sign in (",", ";", "\t", "|") if sign in header[0]]
    if len(header) == 1 and others:
        expected = (
            f"has one column, {header[0]!r}; is it separated by {others[0]!r} instead of {delimiter!r}?"
        )
        raise TableError(file.name, None, f"{expected} Export it with the other delimiter")


def refuse_mutilated_rows(file: Path, delimiter: str, encoding: str) -> None:
    """Refuse rows with more or fewer cells than the header, and quotation marks that are left open.

    Raises
    ------
    TableError
        Says how many rows, and the lines where the first five start. The first line of a file is line 1.

    Notes
    -----
    A row that lost a cell at one place and gained one at another cannot be told from a whole one; nor can a
    file that was cut within the last cell of its last row.
    """
    wrong: list[str] = []
    count, width, start = 0, 0, 1
    with _opened(file, encoding) as lines:
        rows = csv.reader(lines, delimiter=delimiter, strict=True)
        try:
            for row in rows:
                width = width or len(row)
                if row and len(row) != width:
                    count += 1
                    wrong += [f"line {start} has {len(row)}"] * (len(wrong) < _MOST_NAMED)
                start = rows.line_num + 1
        except csv.Error:
            _refuse_quotes(file, start, rows.line_num)
    if count:
        _refuse_widths(file, width, count, wrong)


def _refuse_widths(file: Path, width: int, count: int, wrong: list[str]) -> NoReturn:
    more = ", ..." if count > len(wrong) else ""
    have = "1 row has" if count == 1 else f"{count:,} rows have"
    raise TableError(
        file.name,
        None,
        f"should have {width} cell{'s' * (width > 1)} in each row, as in its header; {have} more or fewer "
        f"({', '.join(wrong)}{more}): mend them, or export it again",
    )


def _refuse_quotes(file: Path, start: int, noticed: int) -> NoReturn:
    raise TableError(
        file.name,
        None,
        f"has an open quotation mark in the row that starts in line {start} (noticed in line {noticed}): "
        "close it, double it where it is part of a text, or export it again if the file is cut off there",
    )


def _decoded(file: Path, encoding: str) -> Iterator[str]:
    """The file's text, chunk by chunk."""
    lines = 1
    try:
        "".encode(encoding)
        decoder = codecs.getincrementaldecoder(encoding)()
        with _unpacked(file) as opened:
            if opened.read(2) in _UTF_16 and encoding == "utf-8-sig":
                raise TableError(file.name, None, "is text in UTF-16; export it as CSV in UTF-8")
            opened.seek(0)
            while chunk := opened.read(_CHUNK):
                text = decoder.decode(chunk)
                if "\0" in text:
                    line = lines + text[: text.index("\0")].count("\n")
                    damaged = f"holds a NUL byte in line {line}: it is damaged, or in another encoding"
                    raise TableError(file.name, None, f"{damaged}; export it again as CSV")
                lines += text.count("\n")
                yield text
            yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        before = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
        line = lines + before.count(b"\n")
        named = encoding.removesuffix("-sig")
        expected = f"is no text in {named} (line {line}); export it as CSV in that encoding"
        raise TableError(file.name, None, expected) from None
    except LookupError:
        raise TableError(file.name, None, f"cannot be read: nobody knows the encoding '{encoding}'") from None
    except EOFError:
        raise TableError(file.name, None, "is cut off before its end; copy or export it again") from None
    except (OSError, zlib.error) as error:
        reason = str(error).strip().rstrip(".")
        raise TableError(file.name, None, f"cannot be read as {file.suffix.lstrip('.')}: {reason}") from None


def _unpacked(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file)) if file.suffix == ".gz" else file.open("rb")


def _opened(file: Path, encoding: str) -> IO[str]:
    opener = gzip.open if file.suffix == ".gz" else open
    return cast(IO[str], opener(file, "rt", encoding=encoding, newline=""))


def _first_unpacked(file: Path) -> bytes:
    try:
        with gzip.open(file) as opened:
            return opened.read(512)
    except (OSError, EOFError, zlib.error):
        return b""  # reading all of it says what is wrong

"""Read the files of an export as they are: encodings, delimiters, broken lines, cut ends.

Every record is kept, or refused with its line number: records in = records kept + records refused. Lines
that hold nothing at all are no records.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.crm.lines import Feed, open_file, records, unreadable
from features.problems import UserError

Notify = Callable[[str], None]

ENDINGS = (".csv", ".tsv", ".txt", ".gz", ".xlsx", ".xls", ".zip")
DELIMITERS = (",", ";", "\t", "|")
CHUNK = 50_000  # records held as Python objects at a time
PROGRESS = 1_000_000  # records between two words on progress
UNDECODABLE = "has bytes that are no text"
MOST_ZEROS = 0.1  # a file with more zero bytes at its start is no text


@dataclass(frozen=True)
class Sheet:
    """One file of an export, looked at but not yet read.

    Attributes
    ----------
    path : where it stands; ``name`` is what people call it
    utf16 : the text is UTF-16; otherwise UTF-8 or Windows-1252, line by line
    delimiter : one sign
    header : the names of the columns, trimmed; one that has none is called "column 3" by its place
    skip : lines before the first record
    """

    path: Path
    utf16: str | None
    delimiter: str
    header: tuple[str, ...]
    skip: int

    @property
    def name(self) -> str:
        """The file's name, as people know it."""
        return self.path.name


@dataclass
class Read:
    """What came of reading one file.

    Attributes
    ----------
    columns : the wanted columns as Arrow texts, by their place in the header, all of one length
    lines : for each kept record the number of its first line in the file, counted from 1
    refused : (line, reason) for each record that is none
    repaired_lines : lines that were not UTF-8 in a file that otherwise is: read as Windows-1252
    notes : sentences on the file as a whole
    """

    columns: dict[int, pa.ChunkedArray]
    lines: NDArray[np.int64]
    refused: list[tuple[int, str]] = field(default_factory=list)
    repaired_lines: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look_at(path: Path) -> Sheet:
    """Look at one file: how its text is written, what its columns are called.

    Raises
    ------
    UserError
        It is an archive or a workbook and no CSV, cannot be opened, or is empty.
    """
    start = _first_bytes(path)
    _refuse_archives(path, start)
    utf16 = _utf16(start)
    if utf16 is None and start.count(0) > MOST_ZEROS * len(start):
        raise UserError(f"{path.name} is no text; export it as CSV.")
    feed = Feed(path, utf16)
    with feed:
        try:
            return _sheet(path, utf16, feed)
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            raise unreadable(path, error) from None


def _sheet(path: Path, utf16: str | None, feed: Feed) -> Sheet:
    first = next((line for line in feed if line.strip("\ufeff \t\r\n")), None)
    if first is None:
        raise UserError(f"{path.name} is empty; export it again, with its header.")
    told = re.fullmatch(r'\ufeff?"?sep=([,;\t|:^~])"?\s*', first)
    if told:
        feed.mark()
        delimiter = told.group(1)
    else:
        feed.give_back()
        delimiter = _guess_delimiter(first)
    header = next((record for _, record in records(feed, delimiter) if any(record)), None)
    if header is None:
        raise UserError(f"{path.name} has no header that can be read; export it again.")
    return Sheet(path, utf16, delimiter, tuple(_column_names(header)), feed.number)


def read(
    sheet: Sheet, wanted: Sequence[int], notify: Notify = lambda _: None, chunk_size: int = CHUNK
) -> Read:
    """Read the wanted columns of a file.

    Parameters
    ----------
    sheet : from ``look_at``
    wanted : places in the header, at least one
    notify : told of progress, every million records
    chunk_size : records held as Python objects at a time
    """
    feed = Feed(sheet.path, sheet.utf16)
    with feed:
        try:
            for _ in range(sheet.skip):
                next(feed, None)
            feed.mark()
            result = _collect(sheet, feed, wanted, notify, chunk_size)
        except (OSError, EOFError, zlib.error, UnicodeError) as error:
            raise unreadable(sheet.path, error) from None
    _say_encoding(result, feed)
    return result


def _collect(sheet: Sheet, feed: Feed, wanted: Sequence[int], notify: Notify, size: int) -> Read:
    pick = itemgetter(*wanted) if len(wanted) > 1 else lambda record: (record[wanted[0]],)
    chunks: list[list[pa.Array]] = []
    rows: list[tuple[str, ...]] = []
    lines: list[int] = []
    refused: list[tuple[int, str]] = feed.refused
    undecodable = feed.undecodable
    for line, record in records(feed, sheet.delimiter, len(sheet.header)):
        if undecodable and not undecodable.isdisjoint(range(line, feed.number + 1)):
            refused.append((line, UNDECODABLE))
            continue
        rows.append(pick(record))
        lines.append(line)
        if len(rows) == size:
            chunks.append(_as_arrow(rows))
            rows = []
            if len(lines) % PROGRESS == 0:
                notify(f"Reading {sheet.name}: {len(lines):,} rows")
    if rows:
        chunks.append(_as_arrow(rows))
    columns = {
        place: pa.chunked_array([chunk[i] for chunk in chunks], type=pa.large_string())
        for i, place in enumerate(wanted)
    }
    return Read(columns, np.array(lines, dtype=np.int64), refused)


def _as_arrow(rows: list[tuple[str, ...]]) -> list[pa.Array]:
    return [pa.array(column, type=pa.large_string()) for column in zip(*rows, strict=True)]


def _say_encoding(result: Read, feed: Feed) -> None:
    if feed.other_lines and not feed.has_utf8:
        result.notes.append("is not UTF-8: read as Windows-1252")
    elif feed.other_lines:
        result.repaired_lines = feed.other_lines
    if feed.ended_abruptly:
        result.notes.append("ends without a line break: if it was cut short there, export it again")


def _utf16(start: bytes) -> str | None:
    if start[:2] == b"\xff\xfe":
        return "utf-16-le"
    if start[:2] == b"\xfe\xff":
        return "utf-16-be"
    head = start[:200]
    if len(head) >= 4 and head[1::2].count(0) > 0.8 * len(head[1::2]):
        return "utf-16-le"
    if len(head) >= 4 and head[::2].count(0) > 0.8 * len(head[::2]):
        return "utf-16-be"
    return None


def _first_bytes(path: Path) -> bytes:
    try:
        with open_file(path) as file:
            return file.read(8192)
    except (OSError, EOFError, zlib.error) as error:
        raise unreadable(path, error) from None


def _refuse_archives(path: Path, start: bytes) -> None:
    if start[:4] == b"PK\x03\x04" or start[:4] == b"PK\x05\x06":
        if _is_workbook(path):
            raise UserError(f"{path.name} is an Excel workbook; save each of its sheets as CSV (UTF-8).")
        raise UserError(f"{path.name} is a zip archive; unpack it and give the folder with its CSV files.")
    if start[:8] == b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1":
        raise UserError(f"{path.name} is an Excel workbook; save each of its sheets as CSV (UTF-8).")
    if start[:4] == b"PAR1":
        raise UserError(f"{path.name} is a Parquet file; an export is read from CSV files.")


def _is_workbook(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.startswith("xl/") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return path.suffix.lower().startswith(".xls")


def _guess_delimiter(line: str) -> str:
    outside = re.sub(r'"[^"]*("|$)', "", line)
    counts = {sign: outside.count(sign) for sign in DELIMITERS}
    return max(DELIMITERS, key=lambda sign: counts[sign])


def _column_names(header: Sequence[str]) -> Iterator[str]:
    for place, name in enumerate(header, start=1):
        clean = " ".join(name.replace("\ufeff", "").split())
        yield clean or f"column {place}"

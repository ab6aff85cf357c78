"""The lines and records of a text file: each decoded by itself, a broken one refused alone."""

import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from features.problems import UserError


def records(feed: "Feed", delimiter: str, fields: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """Yield each record with the number of its first line; refuse a line that is none.

    Parameters
    ----------
    feed : the lines
    delimiter : one sign
    fields : how many a record has; None takes any

    Notes
    -----
    Where quotes do not add up, or a record of several lines has the wrong number of fields, its first line
    is refused and reading goes on with the next one: one lost quote does not swallow what follows.
    """
    while True:
        reader = csv.reader(feed, delimiter=delimiter, strict=True)
        try:
            for record in reader:
                line = feed.first
                if fields is None or len(record) == fields:
                    yield line, record
                elif any(cell.strip() for cell in record):
                    several = feed.number > line
                    feed.refuse_first(_ragged(len(record), fields, feed.is_cut_here and not several))
                    if several:
                        break
                feed.mark()
            else:
                return
        except csv.Error as error:
            feed.refuse_first(_quotes(str(error)))


class Feed:
    """The lines of a file as text, for csv.reader, with what is needed to go back to the line after."""

    def __init__(self, path: Path, utf16: str | None) -> None:
        self.number = 0  # of the line handed out last
        self.has_utf8 = False  # a line beyond ASCII that is UTF-8
        self.other_lines: list[int] = []  # not UTF-8, read as Windows-1252
        self.undecodable: set[int] = set()
        self.refused: list[tuple[int, str]] = []
        self.ended_abruptly = False
        self._taken: list[str] = []  # lines of the record at hand
        self._again: list[str] = []  # lines to hand out once more, the next one last
        self._utf16 = utf16
        self._path = path
        self._file: IO[bytes] = open_file(path)
        self._raw: Iterator[str | bytes] = (
            _utf16_lines(self._file, utf16) if utf16 else _raw_lines(self._file)
        )

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> str:
        if self._again:
            line = self._again.pop()
            self.number += 1
        else:
            raw = next(self._raw)
            self.number += 1
            line = raw if isinstance(raw, str) else self._decode(raw)
            if "\0" in line or (self._utf16 and "\ufffd" in line):
                self.undecodable.add(self.number)
            self.ended_abruptly = not line.endswith(("\n", "\r"))
        self._taken.append(line)
        return line

    @property
    def first(self) -> int:
        """The number of the first line of the record at hand."""
        return self.number - len(self._taken) + 1

    @property
    def is_cut_here(self) -> bool:
        """Whether the record at hand is the last one, without the end of its line."""
        return self.ended_abruptly and not self._again

    def mark(self) -> None:
        """Say that the record at hand is done with."""
        self._taken.clear()

    def give_back(self) -> None:
        """Hand out the lines of the record at hand once more."""
        self._again.extend(reversed(self._taken))
        self.number -= len(self._taken)
        self._taken.clear()

    def refuse_first(self, reason: str) -> None:
        """Refuse the first line of the record at hand; the next one is handed out again."""
        line = self.first
        kept = self._taken[0] if self._taken else ""
        self.give_back()
        if self._again:
            self._again.pop()
            self.number += 1
        if kept.strip():
            self.refused.append((line, reason))

    def _decode(self, raw: bytes) -> str:
        if raw.isascii():
            return raw.decode("ascii")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError:
            return self._decode_other(raw)
        self.has_utf8 = True
        return line

    def _decode_other(self, raw: bytes) -> str:
        try:
            line = raw.decode("cp1252")
        except UnicodeDecodeError:
            self.undecodable.add(self.number)
            return raw.decode("cp1252", errors="replace")
        self.other_lines.append(self.number)
        return line


def _ragged(came: int, expected: int, at_the_end: bool) -> str:
    what = f"has {came} {'field' if came == 1 else 'fields'} where the header has {expected}"
    return f"{what}: the file ends in the middle of the line" if at_the_end else what


def _quotes(error: str) -> str:
    if "end of data" in error:
        return "opens a quote that is never closed"
    if "field limit" in error:
        return "opens a quote that is not closed within 131,072 signs"
    if "expected after" in error:
        return "has a quote in the middle of a quoted field"
    return f"is no line of a CSV: {error.split(' - ')[0]}"


def open_file(path: Path) -> IO[bytes]:
    """Open a file as bytes, unpacked where it is gzip."""
    try:
        with path.open("rb") as file:
            is_packed = file.read(2) == b"\x1f\x8b"
        return cast(IO[bytes], gzip.open(path, "rb")) if is_packed else path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def _raw_lines(file: IO[bytes]) -> Iterator[bytes]:
    first = file.readline()
    if b"\r" in first.rstrip(b"\r\n") and b"\n" not in first:  # lines end as on an old Macintosh
        yield from (first + file.read()).splitlines(keepends=True)
        return
    yield first.removeprefix(b"\xef\xbb\xbf")
    yield from file


def _utf16_lines(file: IO[bytes], encoding: str) -> Iterator[str]:
    text = file.read().decode(encoding, errors="replace").removeprefix("\ufeff")
    yield from text.splitlines(keepends=True) if "\n" not in text else _by_line_feed(text)


def _by_line_feed(text: str) -> Iterator[str]:
    start = 0
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the sentence for a file that cannot be read."""
    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return UserError(f"{path.name} cannot be read: {why.rstrip('.')}; export it again.")

"""What an import says of itself: to people, line by line, and as one JSON document."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from features.crm.ledger import Repair

MOST_REASONS = 20  # told to people; all of them stand in refused.csv and import.json


@dataclass(frozen=True)
class FileAccount:
    """One file of the export: rows = kept + refused + passed over.

    Attributes
    ----------
    name : the file's
    about : what the mapping takes it for
    refused, passed_over : rows by reason, and by name
    """

    name: str
    about: str
    rows: int
    kept: int
    refused: Counter[str]
    passed_over: Counter[str]


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes
    ----------
    folder : where the tables stand
    crm, title : the CRM, for machines and for people
    recognised : how it was known: a sentence
    tables : rows of each table written
    files : the account of each file used
    unused_files : files that the mapping does not know, with the headers' first few
    unknown_columns : by file the columns that the mapping does not name; they are not used
    never_columns : by file the columns that are known and not used, with the reason
    repairs : the named rules that changed something
    notes : sentences on files and columns as a whole
    cannot_know : what an export of this CRM does not hold
    """

    folder: Path
    crm: str
    title: str
    recognised: str
    tables: dict[str, int]
    files: tuple[FileAccount, ...]
    unused_files: dict[str, str] = field(default_factory=dict)
    unknown_columns: dict[str, list[str]] = field(default_factory=dict)
    never_columns: dict[str, dict[str, str]] = field(default_factory=dict)
    repairs: tuple[Repair, ...] = ()
    notes: tuple[str, ...] = ()
    cannot_know: tuple[str, ...] = ()

    @property
    def rows_in(self) -> int:
        """Rows of all files used."""
        return sum(file.rows for file in self.files)

    @property
    def rows_kept(self) -> int:
        """Rows that feed a table, or that others are looked up in."""
        return sum(file.kept for file in self.files)

    @property
    def rows_refused(self) -> int:
        """Rows that stand in refused.csv."""
        return sum(file.refused.total() for file in self.files)

    @property
    def rows_passed_over(self) -> int:
        """Rows that the mapping leaves out by name."""
        return sum(file.passed_over.total() for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, for JSON."""
        content = asdict(self)
        content["folder"] = str(self.folder)
        content["rows"] = {
            "in": self.rows_in,
            "kept": self.rows_kept,
            "refused": self.rows_refused,
            "passed_over": self.rows_passed_over,
        }
        content["files"] = [{**asdict(file), **_reasons(file)} for file in self.files]
        content["repairs"] = [asdict(repair) for repair in self.repairs]
        content["notes"], content["cannot_know"] = list(self.notes), list(self.cannot_know)
        return content

    def lines(self) -> list[str]:
        """Return the summary for people."""
        return list(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.recognised
        yield "Rows of the export: in = kept + refused + passed over"
        for file in self.files:
            refused, passed_over = file.refused.total(), file.passed_over.total()
            about = f" ({file.about})" if file.about else ""
            yield f"  {file.rows:>11,} = {file.kept:,} + {refused:,} + {passed_over:,}  {file.name}{about}"
        yield from self._by_reason("Refused, each row in refused.csv:", [file.refused for file in self.files])
        yield from self._by_reason("Passed over:", [file.passed_over for file in self.files])
        if self.repairs:
            yield "Repaired or noticed:"
            for repair in self.repairs:
                yield f"  {repair.count:>11,}  {repair.rule} ({_some(repair.places, repair.count)})"
        yield from self._columns()
        yield from self.notes
        if self.cannot_know:
            yield f"What an export of {self.title} cannot know:"
            yield from (f"  - {sentence}" for sentence in self.cannot_know)
        tables = ", ".join(f"{name} {rows:,}" for name, rows in self.tables.items())
        yield f"{self.folder}: {tables}"

    def _by_reason(self, title: str, counts: Sequence[Counter[str]]) -> Iterator[str]:
        total = sum(counts, Counter[str]())
        if len(total) > MOST_REASONS:  # the value that came is in refused.csv
            total = _without_values(total)
        shown = total.most_common(MOST_REASONS)
        if shown:
            yield title
            yield from (f"  {n:>11,}  {reason}" for reason, n in shown)
        others = total.total() - sum(n for _, n in shown)
        if others:
            yield f"  {others:>11,}  other reasons"

    def _columns(self) -> Iterator[str]:
        for name, headers in self.unused_files.items():
            yield f"Not used, for the mapping does not know it: {name} ({headers})"
        for name, columns in self.unknown_columns.items():
            yield f"Not used, for the mapping does not name them, in {name}: {', '.join(columns)}"
        if self.unknown_columns:
            yield "  To use one, copy the mapping, name it in its file and under keep, and give --map."
        for name, reasons in self.never_columns.items():
            by_reason: dict[str, list[str]] = {}
            for column, reason in reasons.items():
                by_reason.setdefault(reason, []).append(column)
            for reason, columns in by_reason.items():
                yield f"Not used in {name}, for {reason}: {', '.join(columns)}"


def _reasons(file: FileAccount) -> dict[str, Any]:
    return {"refused": dict(file.refused), "passed_over": dict(file.passed_over)}


def _without_values(counts: Counter[str]) -> Counter[str]:
    total = Counter[str]()
    for reason, n in counts.items():
        total[reason.split(": '")[0]] += n
    return total


def _some(places: Sequence[str], count: int) -> str:
    """Name the first places, each file once: ``a.csv lines 2, 5; b.csv line 3 'amount', ...``."""
    by_file: dict[str, list[str]] = {}
    for place in places:
        file, _, line = place.partition(" line ")
        by_file.setdefault(file, []).extend([line] if line else [])
    named = [
        f"{file} line{'s' if len(lines) > 1 else ''} {', '.join(lines)}" if lines else file
        for file, lines in by_file.items()
    ]
    return "; ".join(named) + (", ..." if count > len(places) else "")

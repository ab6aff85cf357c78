"""What became of every row of an export: kept, refused with a reason, or passed over by a named rule."""

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]
UNSAID = "nothing in it feeds a table"
PLACES = 5  # rows that a repair names


@dataclass
class Repair:
    """A named rule that changed something: how often, and the first places."""

    rule: str
    count: int = 0
    places: list[str] = field(default_factory=list)


class Repairs:
    """Every repair of an import, by its rule, in the order of their first use."""

    def __init__(self) -> None:
        self._by_rule: dict[str, Repair] = {}

    def add(self, rule: str, count: int, places: Sequence[str]) -> None:
        """Count a rule's work; the first places are remembered, each once."""
        if count:
            repair = self._by_rule.setdefault(rule, Repair(rule))
            repair.count += count
            repair.places = list(dict.fromkeys([*repair.places, *places]))[:PLACES]

    def __iter__(self) -> Iterator[Repair]:
        return iter(self._by_rule.values())


class Ledger:
    """The rows of one kind of file: where each stands and what became of it.

    Parameters
    ----------
    names : the files that hold the rows
    file : for each row the place of its file in ``names``
    line : for each row its first line in that file
    """

    def __init__(self, names: Sequence[str], file: NDArray[np.int64], line: NDArray[np.int64]) -> None:
        self.names, self.file, self.line = list(names), file, line
        self.kept = np.zeros(len(line), dtype=bool)
        self._reasons: list[str] = [""]
        self._codes: dict[str, int] = {"": 0}
        self._refused = np.zeros(len(line), dtype=np.int32)
        self._passed = np.zeros(len(line), dtype=np.int32)

    def refuse(self, rows: Positions, reasons: str | Sequence[str]) -> None:
        """Refuse rows; the first reason given to a row stands."""
        self._mark(self._refused, rows, reasons)

    def pass_over(self, rows: Positions, reasons: str | Sequence[str]) -> None:
        """Pass rows over by name; the first name given to a row stands."""
        self._mark(self._passed, rows, reasons)

    def _mark(self, codes: NDArray[np.int32], rows: Positions, reasons: str | Sequence[str]) -> None:
        new = (
            [self._code(reasons)] * len(rows)
            if isinstance(reasons, str)
            else [self._code(r) for r in reasons]
        )
        fresh = codes[rows] == 0
        codes[rows[fresh]] = np.array(new, dtype=np.int32)[fresh]

    def _code(self, reason: str) -> int:
        if reason not in self._codes:
            self._codes[reason] = len(self._reasons)
            self._reasons.append(reason)
        return self._codes[reason]

    def keep_unmarked(self, usable: NDArray[np.bool_]) -> None:
        """Keep the usable rows that were neither refused nor passed over: others are looked up in them."""
        self.kept |= usable & (self._refused == 0) & (self._passed == 0)

    def place(self, row: int) -> str:
        """Return where a row stands, for people."""
        return f"{self.names[self.file[row]]} line {self.line[row]}"

    def fate(self, row: int) -> tuple[bool, str]:
        """Return whether a row that was not kept is refused (else passed over), and why."""
        if self._refused[row]:
            return True, self._reasons[self._refused[row]]
        return False, self._reasons[self._passed[row]] or UNSAID

    def fates(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which rows are refused, and which are passed over."""
        refused = ~self.kept & (self._refused > 0)
        return refused, ~self.kept & ~refused

    def counts(self, place: int) -> tuple[int, Counter[str], Counter[str]]:
        """Return rows kept, rows refused by reason, and rows passed over by name, of one file."""
        own = self.file == place
        refused, passed = self.fates()
        return (
            int((self.kept & own).sum()),
            self._count(self._refused[refused & own]),
            self._count(self._passed[passed & own]),
        )

    def _count(self, codes: NDArray[np.int32]) -> Counter[str]:
        values, counts = np.unique(codes, return_counts=True)
        named = Counter[str]()
        for value, count in zip(values, counts, strict=True):
            named[self._reasons[value] or UNSAID] += int(count)
        return named

    def refused_rows(self) -> Iterator[tuple[str, int, str]]:
        """Yield (file, line, reason) of each refused row, in the order of the file."""
        refused, _ = self.fates()
        for row in np.flatnonzero(refused):
            yield self.names[self.file[row]], int(self.line[row]), self._reasons[self._refused[row]]

    def used_in_part(self) -> Iterator[tuple[str, Positions]]:
        """Yield the reasons for which a row that was kept did not feed another table, with the rows."""
        codes = np.where(self.kept, self._refused, 0)
        for code in np.unique(codes[codes > 0]):
            yield self._reasons[code], np.flatnonzero(codes == code)


def write_refused(path: Path, rows: Iterator[tuple[str, int, str]]) -> None:
    """Write file, line and reason of each refused row as CSV (UTF-8)."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "line", "reason"])
        writer.writerows(rows)

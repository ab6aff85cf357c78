"""An export in memory: of each file the columns that the mapping names, as texts, parsed when asked for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.crm.amounts import Decimal, Numbers, decimal_sign, read_numbers
from features.crm.language import FileRule, ReadingRule, SetRule
from features.crm.ledger import Ledger, Positions, Repairs
from features.crm.times import Clockwork, DayOrder, Times, day_order, read_times
from features.tables import Kind

_YES = ("true", "yes", "1", "y", "ja", "oui", "si", "sí", "wahr", "vrai")
_NO = ("false", "no", "0", "n", "nein", "non", "falsch", "faux")
_ODD_FLAG = "a text that is neither true nor false: taken for a blank"


@dataclass
class FileRows:
    """The rows of one kind of file.

    Attributes
    ----------
    rule : what the mapping says of it
    ledger : where each row stands and what becomes of it
    texts : alias -> Arrow texts, null where blank; aliases that the export lacks are not there
    wide : alias of a pattern -> (name, Arrow texts) of each column found
    headers : alias -> the header as it stands in the file, for messages
    """

    rule: FileRule
    ledger: Ledger
    texts: Mapping[str, pa.Array]
    wide: Mapping[str, list[tuple[str, pa.Array]]]
    headers: Mapping[str, str]
    parsed: dict[tuple[str, str], Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ledger.line)

    def where(self, alias: str) -> str:
        """Return an alias as people find it, for an error."""
        return f"{' and '.join(self.ledger.names)}: column '{self.headers.get(alias, alias)}'"


@dataclass(frozen=True)
class Rows:
    """Some rows of a file, in an order: what a block or a look-up works on.

    Attributes
    ----------
    file : theirs
    at : their positions in it
    made : aliases that a step made, as Arrow texts along ``at``
    """

    file: FileRows
    at: Positions
    made: Mapping[str, pa.Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.at)

    def take(self, which: NDArray[Any]) -> "Rows":
        """Return the rows of a mask, or at places, of these."""
        which = np.flatnonzero(which) if which.dtype == bool else which
        made = {name: texts.take(pa.array(which)) for name, texts in self.made.items()}
        return replace(self, at=self.at[which], made=made)

    def texts(self, alias: str) -> pa.Array:
        """Return the texts of an alias along these rows."""
        if alias in self.made:
            return self.made[alias]
        if alias not in self.file.texts:
            return pa.nulls(len(self.at), pa.large_string())
        texts = self.file.texts[alias]
        return texts if len(self.at) == len(self.file) and self._whole() else texts.take(pa.array(self.at))

    def _whole(self) -> bool:
        return bool((self.at == np.arange(len(self.at))).all())


@dataclass(frozen=True)
class Index:
    """What a look-up finds: each key once, its value, the row it stands in, and whether others had it too."""

    keys: pd.Index
    values: pd.Series
    at: Positions
    several: NDArray[np.bool_]


class Export:
    """Every file of an export that a mapping knows.

    Parameters
    ----------
    files : by the mapping's names; those that the export lacks are not there
    sets : the mapping's sets
    reading : how cells are read
    zone : of times without an offset
    repairs : where rules that touch cells are counted
    """

    def __init__(
        self,
        files: Mapping[str, FileRows],
        sets: Mapping[str, SetRule],
        reading: ReadingRule,
        zone: ZoneInfo,
        repairs: Repairs,
    ) -> None:
        self.files, self.sets, self.reading, self.zone, self.repairs = files, sets, reading, zone, repairs
        self.notes: list[str] = []
        self.zoneless: list[str] = []  # columns whose times have no offset
        self.looked_up: dict[tuple[int, Kind], Index] = {}
        self.used: list[
            tuple[FileRows, Positions, FileRows, Positions]
        ] = []  # rows, and those they looked up
        self.set_texts: dict[str, frozenset[str]] = {}
        self._base: dict[str, Rows] = {}

    def rows(self, file: str, choose: Callable[[Rows], Rows] | None = None) -> Rows:
        """Return the rows of a file that its own conditions leave; ``choose`` is asked once."""
        if file not in self._base:
            every = Rows(self.files[file], np.arange(len(self.files[file])))
            self._base[file] = every if choose is None else choose(every)
        return self._base[file]

    def keep_looked_up(self) -> None:
        """Tell the ledgers that a row is kept in which one that is kept was looked up."""
        for asking, rows, asked, found in self.used:
            asked.ledger.kept[found[asking.ledger.kept[rows]]] = True

    def text(self, rows: Rows, alias: str) -> pd.Series:
        """Return an alias as texts, missing where blank."""
        return pd.Series(rows.texts(alias), dtype="str")

    def times(self, rows: Rows, alias: str) -> pd.Series:
        """Return an alias as times (UTC), missing where blank or odd; what is odd is counted."""
        parsed: Times = self._parsed(rows, alias, "time", self._read_times)
        return parsed.utc if alias in rows.made else parsed.utc.take(rows.at).reset_index(drop=True)

    def numbers(self, rows: Rows, alias: str) -> pd.Series:
        """Return an alias as numbers, missing where blank or odd; what is odd is counted."""
        parsed: Numbers = self._parsed(rows, alias, "number", self._read_numbers)
        return pd.Series(parsed.values if alias in rows.made else parsed.values[rows.at])

    def flags(self, rows: Rows, alias: str) -> pd.Series:
        """Return an alias as true and false."""
        text = self.text(rows, alias).str.casefold()
        odd = (text.notna() & ~text.isin(_YES + _NO)).to_numpy()
        self._count_odd(rows, {_ODD_FLAG: np.flatnonzero(odd)} if odd.any() else {}, alias)
        return text.isin(_YES).astype("boolean").mask(text.isna().to_numpy() | odd)

    def _parsed(self, rows: Rows, alias: str, kind: str, read: Callable[[pa.Array, str], Any]) -> Any:
        file = rows.file
        if alias in rows.made:
            parsed = read(rows.made[alias], f"{' and '.join(file.ledger.names)}: '{alias}'")
            self._count_odd(rows, parsed.odd, alias)
            return parsed
        if (alias, kind) not in file.parsed:
            every = Rows(file, np.arange(len(file)))
            parsed = read(every.texts(alias), file.where(alias))
            self._count_odd(every, parsed.odd, alias)
            file.parsed[alias, kind] = parsed
        return file.parsed[alias, kind]

    def _count_odd(self, rows: Rows, odd: Mapping[str, Positions], alias: str) -> None:
        header = rows.file.headers.get(alias, alias)
        for rule, at in odd.items():
            places = [f"{rows.file.ledger.place(int(row))} '{header}'" for row in rows.at[at[:5]]]
            self.repairs.add(rule, len(at), places)

    def _read_times(self, texts: pa.Array, where: str) -> Times:
        order = self.reading.dates
        if order is None and _undecided(texts):
            order = self._order_elsewhere(where)
        times = read_times(texts, Clockwork(self.zone, order, self.reading.earliest_year), where)
        if times.zoneless and where not in self.zoneless:
            self.zoneless.append(where)
        return times

    def say_zone(self) -> None:
        """Note which zone times without an offset were taken to be in, where nobody said it."""
        if self.zoneless:
            more = len(self.zoneless) - 1
            others = f" and {more} other column{'s' if more > 1 else ''}" if more else ""
            self.notes.append(
                f"Times without an offset are taken for {self.zone.key} ({self.zoneless[0]}{others}); "
                "--timezone says it if they are in another zone."
            )

    def _order_elsewhere(self, where: str) -> DayOrder | None:
        """What the other columns of the export show, where they all show the same."""
        for file in self.files.values():
            for alias, texts in file.texts.items():
                order = day_order(texts)
                if order in ("month first", "day first"):
                    self.notes.append(f"{where} is read {order}, as '{file.headers[alias]}' shows.")
                    return order
        return None

    def _read_numbers(self, texts: pa.Array, where: str) -> Numbers:
        decimal = self.reading.decimal
        if decimal is None and decimal_sign(texts) == "open":
            decimal = self._decimal_elsewhere(where)
        return read_numbers(texts, decimal, where)

    def _decimal_elsewhere(self, where: str) -> Decimal | None:
        """What the amounts of the export show, where all of them show the same."""
        shown = [
            (sign, file.headers[alias])
            for file in self.files.values()
            for alias, texts in file.texts.items()
            if (sign := decimal_sign(_money(texts))) in (".", ",")
        ]
        if len({sign for sign, _ in shown}) != 1:
            return None
        sign, header = shown[0]
        self.notes.append(f"{where} is read with '{sign}' before the decimals, as '{header}' shows.")
        return "." if sign == "." else ","


def _money(texts: pa.Array) -> pa.Array:
    """Leave the texts that bear a currency's sign: a date or a version may look like a number."""
    return pc.if_else(pc.match_substring_regex(texts, r"\p{Sc}"), texts, None)


def _undecided(texts: pa.Array) -> bool:
    some = pc.any(pc.match_substring_regex(texts, r"^\d{1,2}[/-]\d{1,2}[/-]\d{2}")).as_py()
    return bool(some) and day_order(texts) is None

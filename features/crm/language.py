"""What a mapping says, once read: files, columns, conditions, steps and blocks. `mapping` explains them."""

import re
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass, field
from typing import Literal

from features.crm.amounts import Decimal
from features.crm.times import DayOrder


@dataclass(frozen=True)
class Alias:
    """A column of the block's file."""

    name: str


@dataclass(frozen=True)
class Fixed:
    """The same text, number or boolean in every row."""

    value: str | float | bool


@dataclass(frozen=True)
class FirstOf:
    """The first of them that is not blank."""

    options: tuple["Expression", ...]


@dataclass(frozen=True)
class Translated:
    """A text by way of a list of texts; ``other`` says what becomes of one that is not listed."""

    of: "Expression"
    values: Dictionary[str, str]
    other: Literal["keep", "blank", "refuse", "pass_over"] = "keep"
    because: str = ""
    counted: str = ""  # the name under which rows that it gives a value are counted


@dataclass(frozen=True)
class Part:
    """A part of a text: the group of the pattern, where it is found first; blank where it is not."""

    of: "Expression"
    pattern: str


@dataclass(frozen=True)
class Joined:
    """Texts one after the other; blank where one of them is."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True)
class LookUp:
    """A column of another file, found by a key; of several rows the last one, the first one, or none."""

    file: str
    by: "Expression"
    match: str
    column: str
    rows: tuple["Step", ...] = ()
    pick: Literal["last", "first", "only"] = "last"
    at: str | None = None
    several: str = ""  # the name under which rows with several are counted


@dataclass(frozen=True)
class Cases:
    """The first case whose conditions all hold."""

    cases: tuple[tuple[tuple["Condition", ...], "Expression"], ...]
    otherwise: "Expression | None" = None


Expression = Alias | Fixed | FirstOf | Translated | Part | Joined | LookUp | Cases


@dataclass(frozen=True)
class Condition:
    """Something that holds of a row or does not; a step where ``because`` or ``refuse`` says what then."""

    of: Expression
    texts: tuple[str, ...] | None = None  # is one of these, whatever the capitals
    sets: tuple[str, ...] = ()  # or of these named sets
    negated: bool = False
    blank: bool | None = None
    matches: str | None = None
    at_least: float | None = None
    below: float | None = None
    differs_from: "Expression | None" = None
    days_after: "Expression | None" = None  # at_least and below are then about the days since this time
    because: str = ""
    refuse: str = ""


@dataclass(frozen=True)
class Changed:
    """Keep a row where one of the columns differs from the row before of the same ``by``; the first too.

    ``until`` is an alias to make: the time of the next row kept of the same ``by``.
    """

    columns: tuple[str, ...]
    by: str
    at: str
    because: str
    until: str | None = None


@dataclass(frozen=True)
class Latest:
    """Keep the latest row of each ``by``."""

    by: str
    at: str
    because: str


@dataclass(frozen=True)
class Unpivot:
    """One row for each of several columns that is not blank: its name in one column, its value in another.

    ``columns`` are (name, alias); ``wide`` is the alias of columns found by a pattern instead.
    """

    name: str
    value: str
    columns: tuple[tuple[str, str], ...] = ()
    wide: str | None = None
    because: str = ""


@dataclass(frozen=True)
class Make:
    """Make an alias of an expression."""

    name: str
    of: Expression


Step = Condition | Changed | Latest | Unpivot | Make


@dataclass(frozen=True)
class FileRule:
    """A file of the export, known by its columns."""

    name: str
    columns: Dictionary[str, tuple[str, ...]]  # alias -> spellings of the header
    patterns: Dictionary[str, str]  # alias -> a pattern that names wide columns
    recognised_by: tuple[str, ...]
    needed: bool = False
    key: str | None = None
    about: str = ""
    rows: tuple[Condition, ...] = ()
    marks: tuple[str, ...] = ()  # headers that must be there too, though nothing is read from them
    salesforce_ids: tuple[str, ...] = ()  # aliases whose ids of 15 signs are written with 18
    guids: tuple[str, ...] = ()  # aliases whose GUIDs are written bare and in small letters


@dataclass(frozen=True)
class Block:
    """Rows of one file that become rows of one table."""

    table: str
    file: str
    columns: Dictionary[str, Expression]
    keep: Dictionary[str, str] = field(default_factory=dict)  # own column -> alias
    rows: tuple[Step, ...] = ()
    when_blank: Dictionary[str, str] = field(default_factory=dict)  # column -> reason to pass over
    when_unknown: Dictionary[str, str] = field(default_factory=dict)  # column -> text that stands in
    named_only: str = ""  # reason to pass over a partner or customer that no deal names
    before: Expression | None = None  # deal_changes: the value until then
    unless: str | None = None  # not where the export has this file


@dataclass(frozen=True)
class SetRule:
    """A named set of texts: given, and found in columns of the export."""

    texts: tuple[str, ...]
    found: tuple[tuple[str, Expression, tuple[Condition, ...]], ...]  # file, column, conditions


@dataclass(frozen=True)
class ReadingRule:
    """How the cells are read.

    Attributes
    ----------
    blank : texts that mean nothing, whatever the capitals
    timezone : of times without an offset
    dates, decimal : what a column cannot decide by itself, or None
    earliest_year : times before it stand for blanks
    """

    blank: frozenset[str] = frozenset({""})
    timezone: str = "UTC"
    dates: DayOrder | None = None
    decimal: Decimal | None = None
    earliest_year: int = 1990


@dataclass(frozen=True)
class Never:
    """Columns that are known and not used, and why."""

    headers: tuple[str, ...]
    because: str
    patterns: tuple[str, ...] = ()  # of whole headers, for columns that come in great numbers

    def names(self, header: str) -> bool:
        """Tell whether a header is one of these, whatever its capitals."""
        return header.casefold() in {name.casefold() for name in self.headers} or any(
            re.fullmatch(pattern, header, re.IGNORECASE) for pattern in self.patterns
        )


@dataclass(frozen=True)
class Mapping:
    """What a CRM's export means: a mapping file, read and checked."""

    name: str
    crm: str
    title: str
    reading: ReadingRule
    files: Dictionary[str, FileRule]
    sets: Dictionary[str, SetRule]
    never: tuple[Never, ...]
    blocks: tuple[Block, ...]
    cannot_know: tuple[str, ...]

    def why_never(self, header: str) -> str | None:
        """Return why a column is known and not used; None where the mapping does not say so."""
        return next((each.because for each in self.never if each.names(header)), None)

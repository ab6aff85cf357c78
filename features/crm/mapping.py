"""Read a mapping: a TOML file that says what the columns of a CRM's export mean.

Copy one that comes with stepin (``features/crm/salesforce.toml``), change it, give it with ``--map``. All
texts are compared after trimming and whatever their capitals. The whole language:

    crm = "salesforce"                     # a word for the CRM
    title = "Salesforce"                   # how people call it
    cannot_know = ["..."]                  # sentences on what an export of it does not hold

    [reading]                              # everything is optional
    blank = ["", "null"]                   # texts that mean nothing
    timezone = "Europe/Berlin"             # of times without an offset; default UTC
    dates = "month first"                  # or "day first": 02/03/2026 where a column cannot decide
    decimal = ","                          # or ".": 1.234 where a column cannot decide
    earliest_year = 1990                   # times before it stand for blanks

    [files.history]                        # a file of the export, found by its columns, not its name
    about = "OpportunityHistory"           # how people call it, for messages
    recognised_by = ["deal", "at"]         # aliases that must be there; several files may fit: parts
    needed = true                          # the CRM is recognised by these; default false
    key = "id"                             # the alias that look-ups match; default none
    salesforce_ids = ["deal"]              # ids of 15 signs (reports) are written with 18 (API)
    marks = ["Need"]                       # headers that must be there too, though nothing is read from them
    guids = ["deal"]                       # "table,{GUID}" in capitals is written bare, in small letters
    rows = [{ column = "deleted", not_in = ["true"], because = "deleted in the CRM" }]
    [files.history.columns]                # alias = spellings of the header, first found
    deal = "OpportunityId"
    at = ["CreatedDate", "Created Date"]
    entered = { pattern = "hs_v2_date_entered_(?P<name>.+)" }      # many columns; see unpivot

    [values.kinds]                         # a named list for `values` below
    "Pre-Sales Consultant" = "technical"

    [sets.closed]                          # a named set for `in_set` below
    texts = ["Closed Won"]                 # given, and found in a column: where all of rows hold of
                                           # most rows that have the text
    found = [{ file = "deals", column = EXPRESSION, rows = [{ column = "is_closed", in = ["true"] }] }]

    [[never]]                              # columns that are known and not used
    columns = ["Probability"]
    patterns = ["hs_v2_date_exited_.+"]    # or many at once: patterns of the whole header
    because = "it knows the outcome"

    [[stage_entries]]                      # a block: rows of one file become rows of this table
    from = "history"                       # skipped where the export lacks the file
    rows = [STEP, ...]                     # in this order
    [stage_entries.columns]                # one expression for each column of the table
    deal_id = "deal"

Tables: deals, stage_entries, involvements, partners, customers, relationships, activities, deal_changes.
A table may have several blocks. A partner or customer may be described in several rows: the first that is
not blank counts. A deal that comes twice is refused the second time.

An EXPRESSION is
    "alias"                                a column of the file; absent ones are blank
    ["a", "b", EXPRESSION]                 the first that is not blank
    { text = "won" }, { number = 3 }, { flag = true }
    { of = EXPRESSION, values = { "Neukunde" = "new_business" }, other = "keep" }
                                           or values = "kinds", a named list; other: keep (default), blank,
                                           refuse or pass_over (with because = "...")
    { of = EXPRESSION, part = "^([^,]+)" } the group of the pattern, where it is found first; else blank
    { of = EXPRESSION, counted = "..." }   the same; rows to which it gives a value are counted, by that name
    { join = [EXPRESSION, { text = "-" }] } one after the other; blank where one of them is
    { file = "users", by = EXPRESSION, column = "type" }
                                           a look-up: the row of that file whose key (or match = "alias") is
                                           ``by``; of several the last, or the pick = "first", or with
                                           pick = "only" none; in the order of at = "alias" (default: of
                                           the file), after rows = [STEP, ...];
                                           several = "..." counts, by that name, where there were several
    { cases = [{ where = [CONDITION, ...], then = EXPRESSION }, ...], otherwise = EXPRESSION }

A CONDITION is { column = EXPRESSION } and one or more tests
    in = ["true"], not_in = ["true"], in_set = "closed", not_in_set = "closed", blank = true,
    matches = "pattern" (the whole text), at_least = 1, below = 1 (numbers), differs_from = EXPRESSION,
    days_after = EXPRESSION (at_least and below are then about the days since that time)

A STEP is
    a CONDITION with because = "..."       rows of which it does not hold are passed over, by that name
    a CONDITION with refuse = "..."        ... are refused, with that reason
    { changed = ["stage"], by = "deal", at = "at", because = "..." }
                                           rows of which no such column differs from the row before of the
                                           same deal are passed over; with until = "next" the alias ``next``
                                           is there: the time of the next row kept of the same deal
    { latest = "deal", at = "at", because = "..." }
                                           all but the latest row of each deal are passed over
    { unpivot = { "New" = "created", "Accepted" = "accepted" }, name = "stage", value = "entered",
      because = "..." }                    a row for each of the columns that is not blank; then the aliases
                                           ``stage`` and ``entered`` are there. unpivot = "entered" takes
                                           the columns of a pattern; their name is its group ``name``
    { make = "stage_id", as = EXPRESSION } from then on the alias ``stage_id`` is there

A block may also have
    keep = ["region"]                      own columns of deals, partners, customers: aliases;
    keep = { sales_region = "region" }     or with other names
    when_blank = { partner_id = "no partner: a direct deal" }    pass a row over, by that name
    when_unknown = { partner_id = "..." }  a text that stands in where no column of the export could say it
    named_only = "no deal names it"        partners, customers: pass over those that no deal names
    unless = "history"                     skip the block where the export has that file
    before = EXPRESSION                    deal_changes: the value until then; the first gives the value at
                                           creation
"""

import re
import tomllib
from collections.abc import Iterator
from collections.abc import Mapping as Dictionary
from pathlib import Path
from typing import Any

from features.crm.expression_text import Parser, check_pattern
from features.crm.language import Block, Condition, Expression, FileRule, Mapping, Never, ReadingRule, SetRule
from features.crm.toml_values import flag, known_keys, section, tables, text, texts, words
from features.problems import UserError
from features.tables import COLUMNS

_TOP = ("crm", "title", "cannot_know", "reading", "files", "values", "sets", "never", *COLUMNS)
_FILE = ("about", "recognised_by", "needed", "key", "rows", "columns", "marks", "salesforce_ids", "guids")
_BLOCK = ("from", "rows", "columns", "keep", "when_blank", "when_unknown", "named_only", "before", "unless")
_READING = ("blank", "timezone", "dates", "decimal", "earliest_year")
_OWN_COLUMNS = ("deals", "partners", "customers")


def read_mapping(path: Path) -> Mapping:
    """Read and check a mapping file.

    Raises
    ------
    UserError
        It cannot be read, has a key, file, alias or table column that nobody knows, or lacks one.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path.name} is not TOML: {error}.") from None
    return mapping_from(content, path.name)


def bundled() -> dict[str, Path]:
    """Return the mapping files that come with stepin, by the CRM's word."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.toml"))}


def mapping_from(content: dict[str, Any], name: str) -> Mapping:
    """Check the content of a mapping file; ``name`` is for errors. Raises as ``read_mapping``."""
    known_keys(content, _TOP, name)
    files = {key: _file(key, rule, name) for key, rule in section(content, "files", name).items()}
    if not files:
        raise UserError(f"{name} names no file; write at least one [files.NAME] section.")
    parser = Parser(name, files, _values(content, name), tuple(section(content, "sets", name)))
    sets = {key: _set(key, rule, parser) for key, rule in section(content, "sets", name).items()}
    with_rows = {key: _with_rows(rule, content["files"][key], parser) for key, rule in files.items()}
    blocks = tuple(_blocks(content, parser))
    if not any(block.table == "deals" for block in blocks):
        raise UserError(f"{name} has no [[deals]] block; it is needed.")
    crm = text(content, "crm", name, Path(name).stem)
    return Mapping(
        name=name,
        crm=crm,
        title=text(content, "title", name, crm),
        reading=_reading(section(content, "reading", name), name),
        files=with_rows,
        sets=sets,
        never=tuple(_never(rule, name) for rule in tables(content, "never", name)),
        blocks=blocks,
        cannot_know=texts(content, "cannot_know", name),
    )


def _reading(reading: dict[str, Any], name: str) -> ReadingRule:
    where = f"{name}: [reading]"
    known_keys(reading, _READING, where)
    choices = {"dates": ("month first", "day first"), "decimal": (".", ",")}
    for key, allowed in choices.items():
        if reading.get(key, allowed[0]) not in allowed:
            raise UserError(f"{where} {key} should be one of {', '.join(allowed)}; came {reading[key]!r}.")
    earliest = reading.get("earliest_year", 1990)
    if not isinstance(earliest, int) or isinstance(earliest, bool) or not 1 <= earliest <= 9999:
        raise UserError(f"{where} earliest_year should be a year such as 1990; came {earliest!r}.")
    blank = {each.strip().lower() for each in texts(reading, "blank", where)} | {""}
    return ReadingRule(
        blank=frozenset(blank),
        timezone=text(reading, "timezone", where, "UTC"),
        dates=reading.get("dates"),
        decimal=reading.get("decimal"),
        earliest_year=earliest,
    )


def _file(key: str, rule: object, name: str) -> FileRule:
    where = f"{name}: [files.{key}]"
    if not isinstance(rule, dict):
        raise UserError(f"{where} should be a section; came {rule!r}.")
    known_keys(rule, _FILE, where)
    columns: dict[str, tuple[str, ...]] = {}
    patterns: dict[str, str] = {}
    spellings = section(rule, "columns", where)
    for alias, spelling in spellings.items():
        if isinstance(spelling, dict):
            patterns[alias] = _pattern(spelling, f"{where} {alias}")
        else:
            columns[alias] = texts(spellings, alias, where)
            if not columns[alias]:
                raise UserError(f"{where} {alias} names no header; write at least one spelling.")
    recognised_by = texts(rule, "recognised_by", where) or tuple(columns)[:1]
    key_alias = text(rule, "key", where) or None
    if not recognised_by:
        raise UserError(f"{where} has no columns; write [files.{key}.columns].")
    ids, guids = texts(rule, "salesforce_ids", where), texts(rule, "guids", where)
    for alias in (*recognised_by, *ids, *guids, *([key_alias] if key_alias is not None else [])):
        if alias not in columns and alias not in patterns:
            raise UserError(f"{where} has no column '{alias}'; its columns are {', '.join(columns)}.")
    return FileRule(
        name=key,
        columns=columns,
        patterns=patterns,
        recognised_by=recognised_by,
        needed=flag(rule, "needed", where),
        key=key_alias,
        about=text(rule, "about", where, key),
        marks=texts(rule, "marks", where),
        salesforce_ids=ids,
        guids=guids,
    )


def _pattern(spelling: dict[str, Any], where: str) -> str:
    known_keys(spelling, ("pattern",), where)
    try:
        pattern = re.compile(text(spelling, "pattern", where))
    except re.error as error:
        raise UserError(f"{where}: the pattern is none: {error}.") from None
    if "name" not in pattern.groupindex:
        raise UserError(f"{where}: the pattern should have a group (?P<name>...); came '{pattern.pattern}'.")
    return pattern.pattern


def _with_rows(rule: FileRule, content: dict[str, Any], parser: Parser) -> FileRule:
    conditions = tuple(
        parser.condition(item, rule.name, f"{parser.name}: [files.{rule.name}] rows", step=True)
        for item in tables(content, "rows", f"{parser.name}: [files.{rule.name}]")
    )
    return FileRule(**{**vars(rule), "rows": conditions})


def _values(content: dict[str, Any], name: str) -> dict[str, dict[str, str]]:
    named = section(content, "values", name)
    return {key: words(named, key, f"{name}: [values]") for key in named}


def _set(key: str, rule: object, parser: Parser) -> SetRule:
    where = f"{parser.name}: [sets.{key}]"
    if not isinstance(rule, dict):
        raise UserError(f"{where} should be a section; came {rule!r}.")
    known_keys(rule, ("texts", "found"), where)
    found = list[tuple[str, Expression, tuple[Condition, ...]]]()
    for item in tables(rule, "found", where):
        known_keys(item, ("file", "column", "rows"), where)
        file = parser.file(item.get("file"), where)
        conditions = tuple(parser.condition(each, file, where) for each in tables(item, "rows", where))
        found.append((file, parser.expression(item.get("column"), file, where), conditions))
    return SetRule(texts(rule, "texts", where), tuple(found))


def _never(rule: dict[str, Any], name: str) -> Never:
    where = f"{name}: [[never]]"
    known_keys(rule, ("columns", "patterns", "because"), where)
    patterns = texts(rule, "patterns", where)
    for pattern in patterns:
        check_pattern(pattern, where)
    return Never(texts(rule, "columns", where), text(rule, "because", where), patterns)


def _blocks(content: dict[str, Any], parser: Parser) -> Iterator[Block]:
    for table in COLUMNS:
        for block in tables(content, table, parser.name):
            yield _block(table, block, parser)


def _block(table: str, block: dict[str, Any], parser: Parser) -> Block:
    where = f"{parser.name}: [[{table}]]"
    known_keys(block, _BLOCK, where)
    file = parser.file(block.get("from"), where)
    steps, added = parser.steps(tables(block, "rows", where), file, where)
    scoped = parser.with_aliases(file, added)
    columns = {
        column: scoped.expression(value, file, f"{where} {column}")
        for column, value in section(block, "columns", where).items()
    }
    _check_columns(table, columns, where)
    before = block.get("before")
    return Block(
        table=table,
        file=file,
        columns=columns,
        keep=_keep(block, table, file, scoped, where),
        rows=steps,
        when_blank=words(block, "when_blank", where),
        when_unknown=words(block, "when_unknown", where),
        named_only=text(block, "named_only", where),
        unless=None if block.get("unless") is None else parser.file(block["unless"], where),
        before=None if before is None else scoped.expression(before, file, f"{where} before"),
    )


def _check_columns(table: str, columns: Dictionary[str, object], where: str) -> None:
    known = COLUMNS[table]
    for column in columns:
        if column not in known:
            raise UserError(f"{where} has an unknown column '{column}'. Known: {', '.join(known)}.")
    lacking = [column for column, rule in known.items() if rule.required and column not in columns]
    if lacking:
        raise UserError(
            f"{where} lacks {', '.join(lacking)}; {'it is' if len(lacking) == 1 else 'they are'} needed."
        )


def _keep(block: dict[str, Any], table: str, file: str, parser: Parser, where: str) -> dict[str, str]:
    if isinstance(block.get("keep"), dict):
        named = words(block, "keep", where)
    else:
        named = {alias: alias for alias in texts(block, "keep", where)}
    if named and table not in _OWN_COLUMNS:
        raise UserError(f"{where} cannot keep own columns; {', '.join(_OWN_COLUMNS)} can.")
    for own, alias in named.items():
        parser.alias(alias, file, f"{where} keep")
        if own in COLUMNS[table]:
            raise UserError(f"{where} keep: '{own}' is a column of {table} itself; give it another name.")
    return named

"""Which file of an export is which, and which CRM it came from: by the headers alone."""

import re
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from features.crm.language import FileRule, Mapping
from features.crm.reading import ENDINGS, Sheet, look_at
from features.problems import UserError
from features.tables import COLUMNS

_NEEDED_OF_DEALS = {name for name, column in COLUMNS["deals"].items() if column.required}


@dataclass(frozen=True)
class Match:
    """A file of the export and what the mapping knows of it: alias -> place in its header."""

    sheet: Sheet
    rule: FileRule
    places: Dictionary[str, int]
    wide: Dictionary[str, tuple[tuple[str, int], ...]]  # alias of a pattern -> (name, place)

    def known(self) -> set[int]:
        """Return the places of the header that an alias names."""
        return set(self.places.values()) | {place for found in self.wide.values() for _, place in found}


@dataclass(frozen=True)
class Recognised:
    """The mapping that fits an export, the files it knows, and those it doesn't."""

    mapping: Mapping
    matches: tuple[Match, ...]
    unknown: tuple[Sheet, ...]


def sheets_of(folder: Path) -> list[Sheet]:
    """Look at every file of an export's folder.

    Raises
    ------
    UserError
        The folder is none, holds no CSV, or one of its files is an archive, a workbook or empty.
    """
    folder = Path(folder)
    if folder.is_file():
        if folder.suffix.lower() in (".zip", ".xlsx", ".xls"):
            look_at(folder)  # says what it is
        raise UserError(f"{folder} is a file; give the folder that holds the export's CSV files.")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give the folder that holds the export's CSV files.")
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file())
    except OSError as error:
        raise UserError(f"{folder} cannot be read: {error.strerror or error}.") from None
    files = [path for path in found if not path.name.startswith((".", "~$"))]
    if not files:
        raise UserError(f"{folder} holds no .csv file; export the CRM's tables as CSV into it.")
    return [look_at(path) for path in files]


def recognise(sheets: Sequence[Sheet], mappings: Sequence[Mapping]) -> Recognised:
    """Find the one mapping whose needed files are all there.

    Raises
    ------
    UserError
        None fits (what came nearest is named), or several do.
    """
    fitting = [mapping for mapping in mappings if _has_needed(sheets, mapping)]
    if len(fitting) > 1:
        named = " and ".join(mapping.title for mapping in fitting)
        words = ", ".join(f"--crm {mapping.crm}" for mapping in fitting)
        raise UserError(f"The headers fit {named}; say which it is: {words}.")
    if not fitting:
        raise UserError(_nothing_fits(sheets, mappings))
    matches = tuple(match for sheet in sheets if (match := best_match(sheet, fitting[0])) is not None)
    known = {match.sheet.path for match in matches}
    return Recognised(fitting[0], matches, tuple(sheet for sheet in sheets if sheet.path not in known))


def best_match(sheet: Sheet, mapping: Mapping) -> Match | None:
    """Return what a file is to a mapping: of the rules that recognise it the one with most columns found."""
    matches = [match_of(sheet, rule) for rule in mapping.files.values()]
    fitting = [match for match in matches if not lacking(match)]
    return max(fitting, key=lambda match: len(match.known()), default=None)


def match_of(sheet: Sheet, rule: FileRule) -> Match:
    """Find the aliases of a rule in a header; of several spellings the first one listed."""
    folded: dict[str, int] = {}
    for place, header in enumerate(sheet.header):
        folded.setdefault(header.casefold(), place)
    places = {
        alias: next(folded[name.casefold()] for name in names if name.casefold() in folded)
        for alias, names in rule.columns.items()
        if any(name.casefold() in folded for name in names)
    }
    wide = {}
    for alias, pattern in rule.patterns.items():
        hits = ((re.fullmatch(pattern, header, re.IGNORECASE), i) for i, header in enumerate(sheet.header))
        wide[alias] = tuple((hit.group("name"), place) for hit, place in hits if hit)
    return Match(sheet, rule, places, {alias: found for alias, found in wide.items() if found})


def lacking(match: Match) -> list[str]:
    """Return the first spelling of each column that should be there for the file to be recognised."""
    rule = match.rule
    missing = [alias for alias in rule.recognised_by if alias not in match.places and alias not in match.wide]
    headers = {header.casefold() for header in match.sheet.header}
    unseen = [mark for mark in rule.marks if mark.casefold() not in headers]
    named = [rule.columns[alias][0] if alias in rule.columns else rule.patterns[alias] for alias in missing]
    return named + unseen


def _has_needed(sheets: Sequence[Sheet], mapping: Mapping) -> bool:
    needed = [rule for rule in mapping.files.values() if rule.needed] or list(mapping.files.values())[:1]
    return all(
        any(
            (match := best_match(sheet, mapping)) is not None and match.rule.name == rule.name
            for sheet in sheets
        )
        for rule in needed
    )


def _nothing_fits(sheets: Sequence[Sheet], mappings: Sequence[Mapping]) -> str:
    tables = [sheet for sheet in sheets if {head.casefold() for head in sheet.header} >= _NEEDED_OF_DEALS]
    if tables and len(mappings) > 1:
        next_step = f"stepin features {tables[0].path.parent} decisions.parquet"
        return f"{tables[0].name} is a CRM table already; go on with: {next_step}"
    nearest = _nearest(sheets, mappings)
    if nearest is None:
        looked_for = ", ".join(mapping.title for mapping in mappings)
        return f"The headers fit none of {looked_for}; write a mapping and give it with --map."
    mapping, match = nearest
    missing = ", ".join(f"'{name}'" for name in lacking(match))
    near = f"{match.sheet.name} comes nearest to {mapping.title}'s {match.rule.about}, but lacks {missing}"
    if len(mappings) == 1:
        return f"No {mapping.title} export: {near}; add it to the export, or its spelling to the mapping."
    looked_for = ", ".join(each.title for each in mappings)
    return (
        f"No known export: looked for {looked_for}; {near}. Add it to the export, or copy the mapping, add "
        "its spelling, and give it with --map."
    )


def _nearest(sheets: Sequence[Sheet], mappings: Sequence[Mapping]) -> tuple[Mapping, Match] | None:
    """The needed file that is nearest to being there, by the share of its columns found."""
    best: tuple[float, int, Mapping, Match] | None = None
    for mapping in mappings:
        for rule in mapping.files.values():
            if not rule.needed:
                continue
            for sheet in sheets:
                match = match_of(sheet, rule)
                share = 1 - len(lacking(match)) / max(len(rule.recognised_by) + len(rule.marks), 1)
                if 0 < share < 1 and (best is None or (share, len(match.known())) > best[:2]):
                    best = (share, len(match.known()), mapping, match)
    return None if best is None else (best[2], best[3])

"""From the matched files to an export in memory, with everything that reading refused or repaired."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.crm.export import FileRows
from features.crm.guids import bare
from features.crm.language import FileRule, ReadingRule
from features.crm.ledger import Ledger, Repairs
from features.crm.reading import Notify, Read, read
from features.crm.recognise import Match
from features.crm.salesforce_ids import with_eighteen
from features.problems import UserError

_OTHER_ENCODING = "a line that is not UTF-8 in a file that is: read as Windows-1252"


@dataclass
class Unread:
    """Records that reading refused: (file, line, reason)."""

    refused: list[tuple[str, int, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(
    matches: Sequence[Match], reading: ReadingRule, repairs: Repairs, unread: Unread, notify: Notify
) -> dict[str, FileRows]:
    """Read every matched file; files of the same rule are parts of one.

    Raises
    ------
    UserError
        A file cannot be read, or a column that the mapping needs stands there twice and differs.
    """
    parts: dict[str, list[tuple[Match, Read]]] = defaultdict(list)
    for match in matches:
        notify(f"Reading {match.sheet.name}")
        came = _read(match, notify)
        _say(match, came, repairs, unread)
        parts[match.rule.name].append((match, came))
    files = {name: _together(each, reading) for name, each in parts.items()}
    return {name: _with_one_spelling(file, unread) for name, file in files.items()}


def _read(match: Match, notify: Notify) -> Read:
    twins = _twins(match)
    wanted = sorted(match.known() | {twin for _, twin in twins})
    came = read(match.sheet, wanted, notify)
    for place, twin in twins:
        _refuse_other_twin(match, came, place, twin)
    return came


def _twins(match: Match) -> list[tuple[int, int]]:
    """Columns that the mapping uses and that stand in the header more than once: (first, again)."""
    names = [name.casefold() for name in match.sheet.header]
    return [
        (place, again)
        for place in match.known()
        for again in range(place + 1, len(names))
        if names[again] == names[place]
    ]


def _refuse_other_twin(match: Match, came: Read, place: int, twin: int) -> None:
    header = match.sheet.header[place]
    differs = pc.not_equal(came.columns[place], came.columns[twin]).to_numpy()
    if differs.any():
        line = came.lines[int(np.flatnonzero(differs)[0])]
        raise UserError(
            f"{match.sheet.name}: column '{header}' stands there twice with different values (first in line "
            f"{line}); keep one."
        )
    came.notes.append(f"has column '{header}' twice, with the same values: one is used")


def _say(match: Match, came: Read, repairs: Repairs, unread: Unread) -> None:
    name = match.sheet.name
    unread.refused += [(name, line, reason) for line, reason in came.refused]
    unread.notes += [f"{name} {note}." for note in came.notes]
    places = [f"{name} line {line}" for line in came.repaired_lines]
    repairs.add(_OTHER_ENCODING, len(places), places)


def _together(parts: Sequence[tuple[Match, Read]], reading: ReadingRule) -> FileRows:
    rule = parts[0][0].rule
    sizes = [len(came.lines) for _, came in parts]
    ledger = Ledger(
        names=[match.sheet.name for match, _ in parts],
        file=np.repeat(np.arange(len(parts)), sizes),
        line=np.concatenate([came.lines for _, came in parts]),
    )
    texts = {
        alias: pa.concat_arrays(
            [
                _cells(came.columns[match.places[alias]], reading)
                if alias in match.places
                else pa.nulls(size, pa.large_string())
                for (match, came), size in zip(parts, sizes, strict=True)
            ]
        )
        for alias in rule.columns
        if any(alias in match.places for match, _ in parts)
    }
    return FileRows(rule, ledger, texts, _wide(parts, rule, sizes, reading), _headers(parts))


def _with_one_spelling(file: FileRows, unread: Unread) -> FileRows:
    texts = dict(file.texts)
    for aliases, write, said in (
        (file.rule.salesforce_ids, with_eighteen, "ids of 15 signs are written with 18"),
        (file.rule.guids, bare, "ids are written bare and in small letters"),
    ):
        counts = {}
        for alias in aliases:
            if alias in texts:
                texts[alias], counts[file.headers[alias]] = write(texts[alias])
        count = sum(counts.values())
        if count:
            unread.notes.append(f"{' and '.join(file.ledger.names)}: {count:,} {said}, as elsewhere.")
    return replace(file, texts=texts)


def _wide(
    parts: Sequence[tuple[Match, Read]], rule: FileRule, sizes: Sequence[int], reading: ReadingRule
) -> dict[str, list[tuple[str, pa.Array]]]:
    wide: dict[str, list[tuple[str, pa.Array]]] = {}
    for alias in rule.patterns:
        places = [dict(match.wide.get(alias, ())) for match, _ in parts]
        names = dict.fromkeys(name for found in places for name in found)
        wide[alias] = [
            (
                name,
                pa.concat_arrays(
                    [
                        _cells(came.columns[found[name]], reading)
                        if name in found
                        else pa.nulls(size, pa.large_string())
                        for (_, came), found, size in zip(parts, places, sizes, strict=True)
                    ]
                ),
            )
            for name in names
        ]
    return wide


def _headers(parts: Sequence[tuple[Match, Read]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for match, _ in parts:
        for alias, place in match.places.items():
            headers.setdefault(alias, match.sheet.header[place])
    return headers


def _cells(column: pa.ChunkedArray, reading: ReadingRule) -> pa.Array:
    """Trimmed texts, null where they mean nothing."""
    trimmed = pc.utf8_trim_whitespace(column)
    blank = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(sorted(reading.blank), pa.large_string()))
    zeros = pc.match_substring_regex(trimmed, r"^(0{15,}[A-Za-z]{0,3}|0{8}-0{4}-0{4}-0{4}-0{12})$")
    cells = pc.if_else(pc.or_(blank, zeros), pa.scalar(None, pa.large_string()), trimmed)
    return cells.combine_chunks() if isinstance(cells, pa.ChunkedArray) else cells

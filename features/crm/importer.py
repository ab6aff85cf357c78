"""An export of a CRM -> a folder of CRM tables, with an account of every row."""

import json
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd

from features.crm.blocks import build_table
from features.crm.draft import Draft
from features.crm.export import Export
from features.crm.imported import FileAccount, Imported
from features.crm.language import Mapping
from features.crm.ledger import Repairs, write_refused
from features.crm.loading import Unread, load
from features.crm.mapping import bundled, read_mapping
from features.crm.rates import Rates
from features.crm.reading import Notify, Sheet
from features.crm.recognise import Match, Recognised, recognise, sheets_of
from features.crm.repairs import final_tables, put_right
from features.problems import UserError
from features.schema import Clock, check, utc_now
from features.simulator import refuse_occupied
from features.tables import COLUMNS, Tables


def import_export(
    folder: Path,
    out: Path,
    crm: str | None = None,
    mapping: Path | None = None,
    rates: Path | None = None,
    currency: str | None = None,
    keep_currency: str | None = None,
    timezone: str | None = None,
    notify: Notify = lambda _: None,
    clock: Clock = utc_now,
) -> Imported:
    """Read an export of a CRM and write it as CRM tables.

    Parameters
    ----------
    folder : holds the export's CSV files, whatever they are called
    out : the folder to write: Parquet tables, ``refused.csv``, ``import.json``; whole or not at all
    crm : the CRM's word, where the headers leave it open; default: what the headers fit
    mapping : a mapping file of one's own, in place of those that come with stepin
    rates : a CSV of date, currency, rate to the reporting currency
    currency : the reporting currency; default: the one whose rate is always 1
    keep_currency : keep the deals in this currency, refuse the others
    timezone : of times without an offset, such as Europe/Berlin; default: the mapping's
    notify : told of progress
    clock : gives the time that nothing may lie after

    Raises
    ------
    UserError
        The export, mapping or rates cannot be used, or ``out`` holds something; nothing is written then.
    """
    out = Path(out)
    refuse_occupied(out)
    _refuse_contradictions(crm, mapping, rates, currency, keep_currency)
    sheets = sheets_of(folder)
    recognised = recognise(sheets, _mappings(crm, mapping))
    rule = recognised.mapping
    repairs, unread = Repairs(), Unread()
    zone = _zone(timezone or rule.reading.timezone)
    known_rates = None if rates is None else Rates.read(rates, currency)
    files = load(recognised.matches, rule.reading, repairs, unread, notify)
    export = Export(files, rule.sets, rule.reading, zone, repairs)
    notify("Building the tables")
    frames = {name: build_table(name, rule.blocks, export) for name in COLUMNS}
    draft = Draft(frames, export)
    _refuse_empty(draft, rule, "deals")
    notify("Checking the tables against each other")
    said = put_right(draft, rule, pd.Timestamp(clock()), known_rates, keep_currency)
    _refuse_empty(draft, rule, "deals")
    _refuse_empty(draft, rule, "stage_entries")
    _account_for(draft, rule)
    if timezone is None:
        export.say_zone()
    frames = final_tables(draft)
    tables = check(Tables(**frames), clock)  # type: ignore[arg-type]
    summary = _summary(out, recognised, tables, draft, unread, crm, said)
    notify("Writing")
    _write(out, tables, summary, export, unread)
    return summary


def _refuse_contradictions(
    crm: str | None, mapping: Path | None, rates: Path | None, currency: str | None, keep: str | None
) -> None:
    if crm is not None and mapping is not None:
        raise UserError("--crm and --map are both given; a mapping file says itself which CRM it is for.")
    if rates is not None and keep is not None:
        raise UserError("--rates and --keep-currency are both given; convert, or keep one currency.")
    if currency is not None and rates is None:
        raise UserError("--currency names what --rates lead to; give --rates, or use --keep-currency.")


def _mappings(crm: str | None, mapping: Path | None) -> list[Mapping]:
    if mapping is not None:
        return [read_mapping(Path(mapping))]
    known = bundled()
    if crm is None:
        return [_own_mapping(path) for path in known.values()]
    if crm == "generic":
        raise UserError("--crm generic needs a mapping file; write one and give it with --map.")
    if crm not in known:
        raise UserError(f"--crm {crm} is unknown. Known: {', '.join(known)}, generic (with --map).")
    return [_own_mapping(known[crm])]


_own_mapping = cache(read_mapping)  # what comes with stepin does not change; parsing it takes 0.1 s


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UserError(f"'{name}' is no time zone; give one such as Europe/Berlin or UTC.") from None


def _refuse_empty(draft: Draft, rule: Mapping, table: str) -> None:
    if len(draft.frames[table]):
        return
    reasons = Counter[str]()
    abouts = []
    for block in rule.blocks:
        if block.table == table:
            abouts.append(rule.files[block.file].about)
            if block.file in draft.export.files:
                ledger = draft.export.files[block.file].ledger
                for place in range(len(ledger.names)):
                    _, refused, passed = ledger.counts(place)
                    reasons += refused + passed
    named = "; ".join(f"{reason} ({n:,})" for reason, n in reasons.most_common(3))
    came = f"no row of them can be used: {named}" if named else "the export has none"
    raise UserError(
        f"No row for {table} is left. They come from {' or '.join(dict.fromkeys(abouts))}, and {came}."
    )


def _account_for(draft: Draft, rule: Mapping) -> None:
    """Tell the ledger what is kept, and count what a kept row could not give to another table."""
    draft.keep()
    draft.export.keep_looked_up()
    fed = {block.file for block in rule.blocks}
    for name, file in draft.export.files.items():
        if name not in fed:
            key = file.rule.key
            usable = np.ones(len(file), dtype=bool)
            if key is not None and key in file.texts:
                usable = ~file.texts[key].is_null().to_numpy(zero_copy_only=False)
            file.ledger.keep_unmarked(usable)
        for reason, rows in file.ledger.used_in_part():
            places = [file.ledger.place(int(row)) for row in rows[:5]]
            draft.export.repairs.add(f"a row used in part: {reason}", len(rows), places)


def _summary(
    out: Path,
    recognised: Recognised,
    tables: Tables,
    draft: Draft,
    unread: Unread,
    asked: str | None,
    said: str | None,
) -> Imported:
    rule = recognised.mapping
    main = next((m for m in recognised.matches if m.rule.needed), recognised.matches[0])
    how = "as asked" if asked else f"recognised by the columns of {main.sheet.name}"
    notes = [*unread.notes, *draft.export.notes, *([said] if said else [])]
    return Imported(
        folder=out,
        crm=rule.crm,
        title=rule.title,
        recognised=f"{rule.title} ({rule.name}), {how}.",
        tables={name: len(table) for name, table in tables.by_name().items()},
        files=tuple(_accounts(draft, unread)),
        unused_files={sheet.name: _first_headers(sheet) for sheet in recognised.unknown},
        unknown_columns=_unknown_columns(recognised.matches, rule),
        never_columns=_never_columns(recognised.matches, rule),
        repairs=tuple(draft.export.repairs),
        notes=tuple(dict.fromkeys(notes)),
        cannot_know=rule.cannot_know,
    )


def _accounts(draft: Draft, unread: Unread) -> list[FileAccount]:
    accounts = []
    for file in draft.export.files.values():
        for place, name in enumerate(file.ledger.names):
            kept, refused, passed = file.ledger.counts(place)
            refused += Counter(reason for other, _, reason in unread.refused if other == name)
            rows = int((file.ledger.file == place).sum()) + sum(
                other == name for other, _, _ in unread.refused
            )
            accounts.append(FileAccount(name, file.rule.about, rows, kept, refused, passed))
    return accounts


def _first_headers(sheet: Sheet) -> str:
    return ", ".join(sheet.header[:5]) + (", ..." if len(sheet.header) > 5 else "")


def _unknown_columns(matches: Sequence[Match], rule: Mapping) -> dict[str, list[str]]:
    found = {}
    for match in matches:
        known, seen = match.known(), {match.sheet.header[place].casefold() for place in match.known()}
        unknown = [
            header
            for place, header in enumerate(match.sheet.header)
            if place not in known and rule.why_never(header) is None and header.casefold() not in seen
        ]
        if unknown:
            found[match.sheet.name] = unknown
    return found


def _never_columns(matches: Sequence[Match], rule: Mapping) -> dict[str, dict[str, str]]:
    found = {}
    for match in matches:
        known = match.known()
        named = {
            header: why
            for place, header in enumerate(match.sheet.header)
            if place not in known and (why := rule.why_never(header)) is not None
        }
        if named:
            found[match.sheet.name] = named
    return found


def _write(out: Path, tables: Tables, summary: Imported, export: Export, unread: Unread) -> None:
    """Write into a folder beside it and rename: the folder is there whole, or not at all."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            fresh = Path(scratch) / out.name
            fresh.mkdir()
            for name, table in tables.by_name().items():
                table.to_parquet(fresh / f"{name}.parquet", index=False)
            rows = [*unread.refused]
            for file in export.files.values():
                rows += file.ledger.refused_rows()
            write_refused(fresh / "refused.csv", iter(sorted(rows)))
            document = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
            (fresh / "import.json").write_text(document + "\n", encoding="utf-8")
            fresh.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}.") from None

"""Put right what contradicts itself between the tables, by named rules, or refuse it."""

import numpy as np
import pandas as pd
import pyarrow as pa

from features.crm.amounts import as_text, read_numbers
from features.crm.blocks import BEFORE, FILE, HAS_BEFORE, ROW, ids_of_rows
from features.crm.draft import MADE, Draft
from features.crm.language import Mapping
from features.crm.rates import Rates, one_currency
from features.tables import COLUMNS, DTYPES, OPTIONAL

_FUTURE = "{column} lies in the future"


def put_right(
    draft: Draft, mapping: Mapping, now: pd.Timestamp, rates: Rates | None, keep_currency: str | None
) -> str | None:
    """Make the tables agree with each other and with the clock, so that ``features.schema.check`` passes.

    Returns a sentence on the currency, if anything was done about it; raises as ``rates.one_currency``.
    """
    _ids_once(draft)
    _future(draft, now)
    _closings_there(draft)
    _amounts_of_changes(draft)
    said = one_currency(draft, rates, keep_currency)
    _known_deals(draft, mapping)
    _stages(draft)
    _involvements(draft)
    _changes(draft)
    _parties(draft, mapping)
    return said


def _ids_once(draft: Draft) -> None:
    for table, key in (("deals", "deal_id"), ("partners", "partner_id"), ("customers", "customer_id")):
        frame = draft.frames[table]
        if not len(frame):
            continue
        first = ~frame.duplicated(key)
        home = frame[first].set_index(key)[FILE]
        again = frame.duplicated(key).to_numpy()
        other_file = (frame[FILE] != frame[key].map(home)).to_numpy() & again
        draft.pass_over(table, other_file, f"another file gave its {key} before")
        again = draft.frames[table].duplicated(key).to_numpy()
        draft.refuse(table, again, f"its {key} came before")


def _future(draft: Draft, now: pd.Timestamp) -> None:
    """Refuse rows that rest on a time to come; leave blank a time to come that a row can do without."""
    for table in draft.frames:
        for column, rule in COLUMNS[table].items():
            if rule.kind != "time":
                continue
            late = (draft.frames[table][column] > now).to_numpy()
            if rule.required or (table == "deals" and column == "closed_at"):
                draft.refuse(table, late, _FUTURE.format(column=column))
            elif late.any():
                draft.repair(table, late, f"{column} in the future: taken for a blank")
                draft.frames[table][column] = draft.frames[table][column].mask(late)


def _closings_there(draft: Draft) -> None:
    deals = draft.frames["deals"]
    is_open = deals["outcome"] == "open"
    still = (is_open & deals["closed_at"].notna()).to_numpy()
    draft.repair("deals", still, "an open deal with a closing time: taken for a blank")
    deals["closed_at"] = deals["closed_at"].mask(still)
    draft.refuse(
        "deals", ~is_open & deals["closed_at"].isna(), "is won or lost, but says nowhere when it closed"
    )


def _known_deals(draft: Draft, mapping: Mapping) -> None:
    """What concerns a deal that is not there goes the deal's way."""
    known = pd.Index(draft.frames["deals"]["deal_id"])
    fates = _fates_of_deals(draft, mapping, known)
    for table in ("stage_entries", "involvements", "activities", "deal_changes"):
        for is_refused in (True, False):
            ids = draft.frames[table]["deal_id"]
            strange = ~ids.isin(known)
            refused = ids.map(fates["refused"]).astype("boolean").fillna(True).to_numpy(dtype=bool)
            which = strange.to_numpy() & (refused == is_refused)
            reasons = (
                ids[which].map(fates["reason"]).fillna("names a deal that the export does not hold").tolist()
            )
            (draft.refuse if is_refused else draft.pass_over)(table, which, reasons)


def _fates_of_deals(draft: Draft, mapping: Mapping, known: pd.Index) -> pd.DataFrame:
    """Why deals of the export are not in the tables, by their id."""
    ids, refused, reasons = [], [], []
    for block in mapping.blocks:
        if block.table != "deals" or block.file not in draft.export.files:
            continue
        ledger = draft.export.files[block.file].ledger
        every = ids_of_rows(block, "deal_id", draft.export)
        gone = every[every.notna() & ~every.isin(known)]
        for row, deal in gone.items():
            is_refused, why = ledger.fate(int(row))  # type: ignore[call-overload]
            ids.append(deal)
            refused.append(is_refused)
            reasons.append("its deal is refused" if is_refused else f"its deal is passed over: {why}")
    frame = pd.DataFrame({"refused": refused, "reason": reasons}, index=pd.Index(ids, dtype="str"))
    return frame[~frame.index.duplicated()]


def _stages(draft: Draft) -> None:
    """Stages from the creation on, each entry once; a closing never before the last of them."""
    entries = draft.frames["stage_entries"]
    created = entries["deal_id"].map(draft.frames["deals"].set_index("deal_id")["created_at"])
    early = (entries["entered_at"] < created).to_numpy()
    order = entries[early].sort_values(["deal_id", "entered_at"], kind="stable")
    in_force = order[~order.duplicated("deal_id", keep="last")].index
    moved = np.zeros(len(entries), dtype=bool)
    moved[in_force] = True
    at_creation = entries["deal_id"].isin(entries["deal_id"][(entries["entered_at"] == created).to_numpy()])
    moved &= ~at_creation.to_numpy()
    draft.repair("stage_entries", moved, "a stage entered before the deal was created: taken at its creation")
    entries["entered_at"] = entries["entered_at"].mask(moved, created)
    draft.refuse("stage_entries", early & ~moved, "lies before the deal's creation, as a later stage does")
    twice = draft.frames["stage_entries"].duplicated(["deal_id", "stage", "entered_at"]).to_numpy()
    draft.refuse("stage_entries", twice, "the same stage entry came before")
    _closings_last(draft)


def _closings_last(draft: Draft) -> None:
    deals, entries = draft.frames["deals"], draft.frames["stage_entries"]
    last = deals["deal_id"].map(entries.groupby("deal_id")["entered_at"].max()).astype(DTYPES["time"])
    zone = draft.export.zone
    closed = deals["closed_at"]
    before_entry = (closed < last).to_numpy()
    same_day = (closed.dt.tz_convert(zone).dt.date == last.dt.tz_convert(zone).dt.date).to_numpy()
    draft.repair(
        "deals", before_entry & same_day, "closed on the day of the last stage entry: taken after it"
    )
    draft.repair("deals", before_entry & ~same_day, "closed before the last stage entry: taken at that entry")
    deals["closed_at"] = closed.mask(before_entry, last)
    before_creation = (deals["closed_at"] < deals["created_at"]).to_numpy()
    draft.repair("deals", before_creation, "closed before it was created: taken at its creation")
    deals["closed_at"] = deals["closed_at"].mask(before_creation, deals["created_at"])


def _involvements(draft: Draft) -> None:
    rows = draft.frames["involvements"]
    reversed_ = (rows["ended_at"] < rows["started_at"]).to_numpy()
    draft.repair(
        "involvements", reversed_, "an involvement that ends before it starts: its end is left blank"
    )
    rows["ended_at"] = rows["ended_at"].mask(reversed_)


def _amounts_of_changes(draft: Draft) -> None:
    """Write what an amount changed to as a plain number; refuse what is none."""
    for column in (BEFORE, "value"):
        changes = draft.frames["deal_changes"]
        if column not in changes.columns:
            continue
        is_amount = (changes["column"] == "amount").to_numpy()
        texts = pa.array(
            changes[column][is_amount].astype("object").where(lambda s: s.notna(), None), pa.large_string()
        )
        numbers = read_numbers(texts, draft.export.reading.decimal, f"deal_changes: {column} of amount")
        written = changes[column].copy()
        written[is_amount] = pd.array(as_text(numbers.values), dtype="str")
        draft.frames["deal_changes"] = changes.assign(**{column: written})
        odd = np.zeros(len(changes), dtype=bool)
        if numbers.odd:
            odd[np.flatnonzero(is_amount)[np.concatenate(list(numbers.odd.values()))]] = True
        draft.refuse("deal_changes", odd, "an amount that cannot be read, or is below 0")


def _changes(draft: Draft) -> None:
    """One value a moment, the first one at creation, of columns that deals have."""
    fixed = ("deal_id", "partner_id", "customer_id", "created_at", "outcome", "closed_at")
    deals = draft.frames["deals"]
    may_change = [c for c in deals.columns if c not in (*fixed, FILE, ROW)]
    strange = ~draft.frames["deal_changes"]["column"].isin(may_change)
    draft.pass_over("deal_changes", strange, "a change of something that the deals here do not carry")
    changes = draft.frames["deal_changes"]
    created = changes["deal_id"].map(deals.set_index("deal_id")["created_at"])
    early = (changes["changed_at"] < created).to_numpy()
    draft.repair("deal_changes", early, "a change before the deal was created: taken at its creation")
    changes = changes.assign(
        _was=changes["changed_at"], changed_at=changes["changed_at"].mask(early, created)
    )
    changes = changes.sort_values(["deal_id", "column", "_was", ROW], kind="stable").drop(columns="_was")
    draft.frames["deal_changes"] = changes.reset_index(drop=True)
    again = (
        draft.frames["deal_changes"].duplicated(["deal_id", "column", "changed_at"], keep="last").to_numpy()
    )
    draft.pass_over("deal_changes", again, "another change of the same moment came after it")
    _values_at_creation(draft)


def _values_at_creation(draft: Draft) -> None:
    changes = draft.frames["deal_changes"]
    if BEFORE not in changes.columns:
        return
    first = changes[~changes.duplicated(["deal_id", "column"])]
    created = first["deal_id"].map(draft.frames["deals"].set_index("deal_id")["created_at"])
    known = (first["changed_at"] > created).to_numpy() & first[FILE].ne(MADE).to_numpy()
    known &= first[HAS_BEFORE].fillna(False).to_numpy(dtype=bool)
    at_creation = first[known].copy()
    at_creation["value"] = at_creation[BEFORE]
    at_creation["changed_at"] = created[known]
    at_creation["recorded_at"] = pd.NaT
    at_creation["recorded_at"] = at_creation["recorded_at"].astype(DTYPES["time"])
    both = pd.concat([at_creation, changes], ignore_index=True)
    draft.frames["deal_changes"] = both.sort_values(
        ["deal_id", "column", "changed_at"], kind="stable", ignore_index=True
    )


def _parties(draft: Draft, mapping: Mapping) -> None:
    """Partners and customers that deals name are there; those that nobody asks for are passed over."""
    for table, key in (("partners", "partner_id"), ("customers", "customer_id")):
        named = pd.Index(draft.frames["deals"][key].unique())
        frame = draft.frames[table]
        missing = named.difference(pd.Index(frame[key]), sort=False)
        if len(missing):
            made = pd.DataFrame({key: pd.Series(missing, dtype="str"), FILE: MADE, ROW: -1})
            places = draft.frames["deals"][key].isin(missing) & ~draft.frames["deals"].duplicated(key)
            draft.repair(
                "deals", places, f"a {key} that no file describes: a row of {table} made from the id alone"
            )
            frame = pd.concat([frame, made], ignore_index=True)
            draft.frames[table] = frame.astype({c: DTYPES[r.kind] for c, r in COLUMNS[table].items()})
        for block in mapping.blocks:
            if block.table == table and block.named_only:
                frame = draft.frames[table]
                mine = (frame[FILE] == block.file) & ~frame[key].isin(named)
                draft.pass_over(table, mine, block.named_only)
    for key, table in (("partner_id", "partners"), ("customer_id", "customers")):
        strange = ~draft.frames["relationships"][key].isin(draft.frames[table][key])
        draft.pass_over("relationships", strange, f"names none of the {table} here")


def final_tables(draft: Draft) -> dict[str, pd.DataFrame]:
    """Return the tables without the columns of origin; an optional one without rows is left out."""
    extra = [FILE, ROW, BEFORE, HAS_BEFORE]
    return {
        name: frame.drop(columns=extra, errors="ignore")
        for name, frame in draft.frames.items()
        if len(frame) or name not in OPTIONAL
    }

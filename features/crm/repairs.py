"""Put right what contradicts itself between the tables, by named rules, or refuse it."""

import numpy as np
import pandas as pd

from features.crm.blocks import BEFORE, FILE, HAS_BEFORE, ROW, ids_of_rows
from features.crm.changes import put_changes_right, read_amounts
from features.crm.draft import MADE, Draft, is_in, value_of
from features.crm.language import Latest, Mapping
from features.crm.rates import Rates, one_currency
from features.tables import COLUMNS, DTYPES, OPTIONAL

_OF_DEALS = ("stage_entries", "involvements", "activities", "deal_changes")
_UNKNOWN = "names a deal that the export does not hold"
_EARLY = "a stage entered before the deal was created: taken at its creation"
_EARLIER = "lies before the deal's creation, as a later stage does"
_SAME_DAY = "closed on the day of the last stage entry: taken after it"
_CLOSED_EARLY = "closed before the last stage entry: taken at that entry"
_CLOSED_FIRST = "closed before it was created: taken at its creation"


def put_right(
    draft: Draft, mapping: Mapping, now: pd.Timestamp, rates: Rates | None, keep_currency: str | None
) -> str | None:
    """Make the tables agree with each other and with the clock, so that ``features.schema.check`` passes.

    Returns a sentence on the currency, if anything was done about it; raises as ``rates.one_currency``.
    """
    _ids_once(draft)
    _future(draft, now)
    _closings_there(draft)
    read_amounts(draft)
    said = one_currency(draft, rates, keep_currency)
    _known_deals(draft, mapping)
    _stages(draft)
    _closings_last(draft)
    _involvements(draft)
    put_changes_right(draft)
    _parties(draft, mapping)
    return said


def final_tables(draft: Draft) -> dict[str, pd.DataFrame]:
    """Return the tables without the columns of origin; an optional one without rows is left out."""
    extra = [FILE, ROW, BEFORE, HAS_BEFORE]
    return {
        name: frame.drop(columns=extra, errors="ignore")
        for name, frame in draft.frames.items()
        if len(frame) or name not in OPTIONAL
    }


def _ids_once(draft: Draft) -> None:
    """Keep the first row of each deal, partner and customer; what it leaves blank the next rows may fill.

    A partner or customer may well be described more than once, with each of its deals; a deal may not.
    """
    draft.refuse("deals", draft.frames["deals"].duplicated("deal_id"), "its deal_id came before")
    for table, key in (("partners", "partner_id"), ("customers", "customer_id")):
        frame = draft.frames[table]
        again = frame.duplicated(key).to_numpy()
        if again.any():
            filled = frame.groupby(key, sort=False)[
                [c for c in frame.columns if c not in (key, FILE, ROW)]
            ].first()
            first = frame[~again].drop(columns=filled.columns).join(filled, on=key)
            draft.pass_over(table, again, f"its {key} was described before")
            draft.frames[table] = first[frame.columns].reset_index(drop=True)


def _future(draft: Draft, now: pd.Timestamp) -> None:
    """Refuse rows that rest on a time to come; leave blank a time to come that a row can do without."""
    for table in draft.frames:
        for column, rule in COLUMNS[table].items():
            if rule.kind != "time":
                continue
            late = (draft.frames[table][column] > now).to_numpy()
            if rule.required and table in ("involvements", "activities"):
                draft.pass_over(table, late, "planned, not done yet")
            elif rule.required or (table == "deals" and column == "closed_at"):
                draft.refuse(table, late, f"{column} lies in the future")
            elif late.any():
                draft.repair(table, late, f"{column} in the future: taken for a blank")
                draft.frames[table][column] = draft.frames[table][column].mask(late)


def _closings_there(draft: Draft) -> None:
    deals = draft.frames["deals"]
    is_open = (deals["outcome"] == "open").to_numpy()
    still = is_open & deals["closed_at"].notna().to_numpy()
    draft.repair("deals", still, "an open deal with a closing time: taken for a blank")
    deals["closed_at"] = deals["closed_at"].mask(still)
    lacks = ~is_open & deals["closed_at"].isna().to_numpy()
    draft.refuse("deals", lacks, "is won or lost, but nothing says when it closed")


def _known_deals(draft: Draft, mapping: Mapping) -> None:
    """What concerns a deal that is not there goes the deal's way."""
    known = pd.Index(draft.frames["deals"]["deal_id"])
    fates = _fates_of_deals(draft, mapping, known)
    for table in _OF_DEALS:
        for is_refused in (True, False):
            ids = draft.frames[table]["deal_id"]
            strange = ~is_in(ids, known)
            refused = value_of(ids, fates, "deal_id", "refused").fillna(True).to_numpy(dtype=bool)
            which = strange & (refused == is_refused)
            reasons = value_of(ids[which], fates, "deal_id", "reason").fillna(_UNKNOWN).tolist()
            (draft.refuse if is_refused else draft.pass_over)(table, which, reasons)


def _fates_of_deals(draft: Draft, mapping: Mapping, known: pd.Index) -> pd.DataFrame:
    """Why deals of the export are not in the tables, by their id.

    Where a deal has a row for each of its states, the latest one decides: an older one says nothing.
    """
    found: dict[str, tuple[bool, str]] = {}
    for block in mapping.blocks:
        if block.table != "deals" or block.file not in draft.export.files:
            continue
        ledger = draft.export.files[block.file].ledger
        every = ids_of_rows(block, "deal_id", draft.export)
        older = {step.because for step in block.rows if isinstance(step, Latest)}
        gone = (every.notna() & ~is_in(every, known)).to_numpy()
        for row, deal in zip(np.flatnonzero(gone), every[gone], strict=True):
            is_refused, why = ledger.fate(int(row))
            if why in older:
                continue
            reason = "its deal is refused" if is_refused else f"its deal is passed over: {why}"
            found.setdefault(deal, (is_refused, reason))
    return pd.DataFrame(
        {
            "deal_id": pd.Series(list(found), dtype="str"),
            "refused": pd.Series([is_refused for is_refused, _ in found.values()], dtype="boolean"),
            "reason": pd.Series([reason for _, reason in found.values()], dtype="str"),
        }
    )


def _stages(draft: Draft) -> None:
    """Stages from the creation on, each entry once.

    Of the entries before the creation the last one says in which stage the deal was created.
    """
    entries = draft.frames["stage_entries"]
    created = value_of(entries["deal_id"], draft.frames["deals"], "deal_id", "created_at")
    early = (entries["entered_at"] < created).to_numpy()
    order = entries[early].sort_values(["deal_id", "entered_at"], kind="stable")
    moved = np.zeros(len(entries), dtype=bool)
    moved[order[~order.duplicated("deal_id", keep="last")].index] = True
    at_creation = entries["deal_id"][(entries["entered_at"] == created).to_numpy()]
    moved &= ~is_in(entries["deal_id"], pd.Index(at_creation.unique()))
    draft.repair("stage_entries", moved, _EARLY)
    entries["entered_at"] = entries["entered_at"].mask(moved, created)
    draft.refuse("stage_entries", early & ~moved, _EARLIER)
    twice = draft.frames["stage_entries"].duplicated(["deal_id", "stage", "entered_at"]).to_numpy()
    draft.refuse("stage_entries", twice, "the same stage entry came before")


def _closings_last(draft: Draft) -> None:
    """Close no deal before its last stage entry: that is the system's own time, a closing is often typed."""
    deals, entries = draft.frames["deals"], draft.frames["stage_entries"]
    newest = entries.groupby("deal_id")["entered_at"].max().reset_index()
    last = value_of(deals["deal_id"], newest, "deal_id", "entered_at")
    zone, closed = draft.export.zone, deals["closed_at"]
    before = (closed < last).to_numpy()
    day, last_day = (times.dt.tz_convert(zone).dt.normalize() for times in (closed, last))
    same_day = (day == last_day).to_numpy()
    draft.repair("deals", before & same_day, _SAME_DAY)
    draft.repair("deals", before & ~same_day, _CLOSED_EARLY)
    deals["closed_at"] = closed.mask(before, last)
    first = (deals["closed_at"] < deals["created_at"]).to_numpy()
    draft.repair("deals", first, _CLOSED_FIRST)
    deals["closed_at"] = deals["closed_at"].mask(first, deals["created_at"])


def _involvements(draft: Draft) -> None:
    rows = draft.frames["involvements"]
    reversed_ = (rows["ended_at"] < rows["started_at"]).to_numpy()
    draft.repair(
        "involvements", reversed_, "an involvement that ends before it starts: its end is left blank"
    )
    rows["ended_at"] = rows["ended_at"].mask(reversed_)


def _parties(draft: Draft, mapping: Mapping) -> None:
    """Partners and customers that deals name are there; those that nobody asks for are passed over."""
    for table, key in (("partners", "partner_id"), ("customers", "customer_id")):
        named = pd.Index(draft.frames["deals"][key].unique())
        _make_rows(draft, table, key, named.difference(pd.Index(draft.frames[table][key]), sort=False))
        for block in mapping.blocks:
            if block.table == table and block.named_only:
                frame = draft.frames[table]
                mine = (frame[FILE] == block.file).to_numpy() & ~is_in(frame[key], named)
                draft.pass_over(table, mine, block.named_only)
    for key, table in (("partner_id", "partners"), ("customer_id", "customers")):
        strange = ~is_in(draft.frames["relationships"][key], pd.Index(draft.frames[table][key]))
        draft.pass_over("relationships", strange, f"names none of the {table} here")


def _make_rows(draft: Draft, table: str, key: str, missing: pd.Index) -> None:
    """Make rows for ids that deals name and no file describes."""
    if not len(missing):
        return
    deals = draft.frames["deals"]
    asks = is_in(deals[key], missing) & ~deals.duplicated(key).to_numpy()
    draft.repair("deals", asks, f"a {key} that no file describes: a row of {table} made from the id alone")
    made = pd.DataFrame({key: pd.Series(missing, dtype="str"), FILE: MADE, ROW: -1})
    frame = pd.concat([draft.frames[table], made], ignore_index=True)
    draft.frames[table] = frame.astype({c: DTYPES[rule.kind] for c, rule in COLUMNS[table].items()})

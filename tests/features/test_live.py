"""What a CRM tells as it happens gives the rows that training builds, in whatever order it comes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from features import simulate
from features.build import build_features
from features.decisions import build_decisions
from features.events import Event
from features.everybody import Everybody
from features.live import Ledger
from features.schema import check

few_examples = settings(
    max_examples=8, deadline=None, derandomize=True, database=None, phases=[Phase.explicit, Phase.generate]
)


def plain(features):
    """Without the levels of categories, which may differ between tables."""
    return features.astype(dict.fromkeys(features.select_dtypes("category"), "str"))


def known(table, happened):
    record = table["recorded_at"].where(table["recorded_at"].notna(), table[happened])
    return record.where(record > table[happened], table[happened])


def as_the_crm_stood(tables, then):
    """What an export just before `then` would have held."""
    deals = tables.deals[tables.deals["created_at"] < then]
    is_open = ~(deals["closed_at"] < then)
    changes = tables.deal_changes
    changed = changes[known(changes, "changed_at") < then]
    held = changed.sort_values("changed_at").drop_duplicates(["deal_id", "column"], keep="last")
    deals = deals.assign(
        outcome=deals["outcome"].mask(is_open, "open"), closed_at=deals["closed_at"].mask(is_open)
    )
    amounts = held[held["column"] == "amount"].set_index("deal_id")["value"].astype(float)
    deals["amount"] = deals["deal_id"].map(amounts).fillna(deals["amount"])
    involvements = tables.involvements[known(tables.involvements, "started_at") < then]
    ended = involvements["ended_at"]
    pairs = tables.relationships
    record = pairs["recorded_at"].fillna(pairs["since"])
    frames = {
        "deals": deals,
        "stage_entries": tables.stage_entries[known(tables.stage_entries, "entered_at") < then],
        "involvements": involvements.assign(ended_at=ended.mask(~(ended < then))),
        "relationships": pairs[~(record >= then)],
        "activities": tables.activities[known(tables.activities, "happened_at") < then],
        "deal_changes": changed,
    }
    for name in ("stage_entries", "involvements", "activities", "deal_changes"):
        frames[name] = frames[name][frames[name]["deal_id"].isin(deals["deal_id"])]
    return replace(tables, **frames, exported_at=None)


def filled(row, *names):
    return {name: row[name] for name in names if not pd.isna(row[name])}


def events_of(tables, then, until):
    """What a CRM would have told between two moments, an event each."""
    found = []
    not_there = set(tables.deals["deal_id"][tables.deals["created_at"] >= then])

    def tell(kind, deal_id, happened, recorded, /, **content):
        recorded = max(happened, recorded)
        if recorded <= until and (recorded >= then or deal_id in not_there):
            found.append(Event(f"E{len(found)}", kind, deal_id, happened, recorded, recorded, content))

    own = [name for name in tables.deals.columns if name not in ("deal_id", "outcome", "closed_at")]
    changes = tables.deal_changes.sort_values("changed_at")
    first = changes.drop_duplicates(["deal_id", "column"]).set_index("deal_id")["value"].astype(float)
    for row in tables.deals.to_dict("records"):
        content = filled(row, *own)
        if row["deal_id"] in first.index:
            content["amount"] = first[row["deal_id"]]
        tell("deal", row["deal_id"], row["created_at"], row["created_at"], deal=content)
        if not pd.isna(row["closed_at"]):
            tell("outcome", row["deal_id"], row["closed_at"], row["closed_at"], outcome=row["outcome"])
    for row in changes.assign(known=known(changes, "changed_at")).to_dict("records"):
        content = {row["column"]: float(row["value"])}
        tell("deal", row["deal_id"], row["changed_at"], row["known"], deal=content)
    entries = tables.stage_entries
    for row in entries.assign(known=known(entries, "entered_at")).to_dict("records"):
        tell("stage", row["deal_id"], row["entered_at"], row["known"], stage=row["stage"])
    table = tables.involvements
    for number, row in enumerate(table.assign(known=known(table, "started_at")).to_dict("records")):
        content = {"involvement_id": f"I{number}", "started_at": row["started_at"]}
        content |= filled(row, "kind", "hours")
        tell("involvement", row["deal_id"], row["started_at"], row["known"], **content)
        if not pd.isna(row["ended_at"]):
            end = max(row["ended_at"], row["known"])
            tell("involvement", row["deal_id"], end, end, **content, ended_at=row["ended_at"])
    table = tables.activities
    for row in table.assign(known=known(table, "happened_at")).to_dict("records"):
        tell("activity", row["deal_id"], row["happened_at"], row["known"], **filled(row, "by", "kind"))
    some_deal = tables.deals["deal_id"][tables.deals["created_at"].idxmin()]
    pairs = tables.relationships
    for row in pairs.assign(known=pairs["recorded_at"].fillna(pairs["since"])).to_dict("records"):
        if not pd.isna(row["known"]):
            content = filled(row, "partner_id", "customer_id", "since", "executive_contact")
            tell("deal", some_deal, row["known"], row["known"], relationship=content)
    return found


def replayed(tables, deal_id, stage, moment, days, rng):
    """A ledger that began `days` before the moment, and was told the rest in a random order, some twice."""
    then = moment - timedelta(days=days)
    base = as_the_crm_stood(tables, then)
    ledger = Ledger(check(base, lambda: datetime(2040, 1, 1, tzinfo=UTC)))
    events = events_of(tables, then, moment)
    events.append(Event("this", "stage", deal_id, moment, moment, moment, {"stage": stage}))
    events += [events[i] for i in rng.integers(0, len(events), 5)]
    for part in np.array_split(rng.permutation(len(events)), 4):
        ledger.apply([events[i] for i in part])
    return ledger


def without_times_to_come(tables):
    """No partner joins later than it is known, and no pair: an export would not tell of such a time."""
    start = tables.deals["created_at"].min() - timedelta(days=1)
    pairs = tables.relationships
    return replace(
        tables,
        partners=tables.partners.assign(joined_at=tables.partners["joined_at"].clip(upper=start)),
        relationships=pairs[~(pairs["since"] > pairs["recorded_at"])],
    )


@cache
def simulated():
    tables = simulate(400, seed=5).tables
    return tables, build_decisions(tables)


@few_examples
@given(row=st.integers(0, 10_000), days=st.sampled_from([3, 60, 400]), seed=st.integers(0, 99))
def test_live_rows_are_those_that_training_builds(row, days, seed):
    tables, decisions = simulated()
    late = decisions.rows["decided_at"] > decisions.rows["decided_at"].quantile(0.5)
    decision = decisions.rows[late].iloc[row % late.sum()]
    rng = np.random.default_rng(seed)
    ledger = replayed(tables, decision["deal_id"], decision["stage"], decision["decided_at"], days, rng)
    live = ledger.rows([decision["deal_id"]], decision["decided_at"])
    trained = decisions.X.loc[[decision.name]]
    assert live.about["stage"].tolist() == [decision["stage"]]
    assert_frame_equal(
        plain(live.features)[trained.columns].reset_index(drop=True),
        plain(trained).reset_index(drop=True),
        check_exact=True,
    )


@few_examples
@given(seed=st.integers(0, 10_000), row=st.integers(0, 10_000), days=st.sampled_from([5, 90]))
def test_so_they_are_for_an_awkward_crm(make_tables, moments_of, seed, row, days):
    tables = without_times_to_come(make_tables(seed))
    moments = moments_of(tables)
    known_by = moments["moment"] > tables.deals["created_at"].quantile(0.3)
    closed = moments["deal_id"].map(tables.deals.set_index("deal_id")["closed_at"])
    alone = ~moments.duplicated(["deal_id", "moment"], keep=False)
    asked = moments[known_by & ~(closed <= moments["moment"]) & alone]
    asked = asked.iloc[[row % len(asked)]]
    one = asked.iloc[0]
    ledger = replayed(tables, one["deal_id"], one["stage"], one["moment"], days, np.random.default_rng(seed))
    live = ledger.rows([one["deal_id"]], one["moment"])
    trained = build_features(tables, asked)
    assert_frame_equal(
        plain(live.features).reset_index(drop=True), plain(trained).reset_index(drop=True), check_exact=True
    )


# Whatever order, whatever they say

DAYS = st.integers(0, 12).map(lambda day: datetime(2024, 6, 1, tzinfo=UTC) + timedelta(days=day))
DEALS = ("D0", "D1", "N0", "N1")
PARTNERS, CUSTOMERS = st.sampled_from(["P0", "P1", "PX"]), st.sampled_from(["C0", "CX"])
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "partner_id": PARTNERS,
        "customer_id": CUSTOMERS,
        "created_at": DAYS,
        "amount": st.sampled_from([None, 100.0, 250.5]),
        "currency": st.sampled_from(["EUR", "USD"]),
        "product_line": st.sampled_from(["A", "B", None]),
        "outcome": st.sampled_from(["won", "open"]),
        "complexity": st.sampled_from([3.0, "three"]),
        "grade": st.sampled_from(["x", 1.0, True]),
    },
)
PAIR = st.fixed_dictionaries(
    {"partner_id": PARTNERS, "customer_id": CUSTOMERS},
    optional={"since": DAYS, "executive_contact": st.booleans()},
)
PARTNER = st.fixed_dictionaries({"partner_id": PARTNERS}, optional={"tier": st.sampled_from(["gold", None])})
CONTENTS = {
    "deal": st.fixed_dictionaries({"deal": FIELDS}, optional={"relationship": PAIR, "partner": PARTNER}),
    "stage": st.fixed_dictionaries({"stage": st.sampled_from(["qualify", "proposal"])}),
    "involvement": st.fixed_dictionaries(
        {},
        optional={"involvement_id": st.sampled_from(["I0", "I1"]), "started_at": DAYS, "ended_at": DAYS},
    ),
    "outcome": st.fixed_dictionaries(
        {"outcome": st.sampled_from(["won", "lost", "open"])}, optional={"closed_at": DAYS}
    ),
    "activity": st.fixed_dictionaries({"by": st.sampled_from(["vendor", "partner"])}),
}


@st.composite
def told(draw):
    """Up to a dozen events of four deals, two of which the export knows."""
    found = []
    for number in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(sorted(CONTENTS)))
        happened, received = sorted([draw(DAYS), draw(DAYS)])
        content = draw(CONTENTS[kind])
        found.append(
            Event(f"E{number}", kind, draw(st.sampled_from(DEALS)), happened, received, received, content)
        )
    return found


def cut(tables):
    """An export that ends in the midst of the days that the events tell of, on a few days with open deals."""
    then = pd.Timestamp("2024-06-04", tz="UTC")
    deals = tables.deals[tables.deals["amount"].notna()]
    created = deals.rename(columns={"created_at": "changed_at"})[["deal_id", "changed_at"]]
    changes = created.assign(column="amount", value=(deals["amount"] / 2).astype("str"), recorded_at=pd.NaT)
    later = changes.assign(
        changed_at=deals["created_at"] + timedelta(days=9), value=deals["amount"].astype("str")
    )
    tables = replace(tables, deal_changes=pd.concat([changes, later], ignore_index=True))
    return check(as_the_crm_stood(without_times_to_come(tables), then), lambda: then.to_pydatetime())


def frames_of(ledger):
    return {
        name: table.sort_values(list(table.columns), ignore_index=True)
        for name, table in ledger.tables().by_name().items()
    }


more_examples = settings(few_examples, max_examples=30)


@more_examples
@given(events=told(), data=st.data(), with_base=st.booleans())
def test_the_order_of_events_and_their_repetition_change_nothing(make_tables, events, data, with_base):
    base = cut(make_tables(1, 40)) if with_base else None
    other = data.draw(st.permutations(events + events[:3]))
    size = data.draw(st.integers(1, len(other)))
    first, second = Ledger(base), Ledger(base)
    first.apply(events)
    for start in range(0, len(other), size):
        second.apply(other[start : start + size])
    ours, theirs = frames_of(first), frames_of(second)
    for name, table in ours.items():
        assert_frame_equal(table, theirs[name], check_exact=True)
    assert [first.standing(deal) for deal in DEALS] == [second.standing(deal) for deal in DEALS]


@more_examples
@given(events=told(), with_base=st.booleans())
def test_whatever_is_told_the_tables_hold_together_and_rows_are_those_of_whole_tables(
    make_tables, events, with_base
):
    ledger = Ledger(cut(make_tables(1, 40)) if with_base else None)
    moment = datetime(2024, 7, 1, tzinfo=UTC)
    ledger.apply(events[::2])
    ledger.rows(None, moment)  # what was read then must not stay
    ledger.apply(events)
    tables = ledger.tables()
    if len(tables.deals):
        full = dict(tables.by_name())
        for name in ("stage_entries", "deals", "partners", "customers"):
            if not len(full[name]):
                return  # no export would be without any
        checked = check(tables, lambda: moment)
        for name, table in checked.by_name().items():
            assert_frame_equal(table, full[name])
    whole = ledger.rows(None, moment)
    for deal_id in DEALS:
        alone = ledger.rows([deal_id], moment)
        is_there = deal_id in whole.features.index
        assert (ledger.standing(deal_id) == "open") == is_there == (len(alone.features) == 1)
        if is_there:
            expected = whole.features.loc[[deal_id]]
            assert_frame_equal(plain(alone.features), plain(expected), check_exact=True)
            assert_frame_equal(alone.about, whole.about.loc[[deal_id]], check_exact=True)


@more_examples
@given(events=told())
def test_in_a_large_crm_closings_are_up_to_date_too(make_tables, events):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.live.FEW_DEALS", 0)
        ledger = Ledger(cut(make_tables(1, 40)))
        ledger.everybody()
        ledger.apply(events)
        expected = Everybody.of(ledger.tables())
        assert ledger.everybody().closed.tolist() == expected.closed.tolist()
        assert ledger.everybody().won.tolist() == expected.won.tolist()


def test_deals_of_whoever_it_was_before_are_related_too(make_tables):
    tables = make_tables(1, 200)
    still_open = tables.deals[tables.deals["outcome"] == "open"]
    counts = still_open["partner_id"].value_counts()
    former, latter, named = counts.index[:3]
    moved = still_open["deal_id"][still_open["partner_id"] == former].iloc[0]
    ledger = Ledger(tables)
    now = datetime(2025, 1, 1, tzinfo=UTC)
    content = {"deal": {"partner_id": latter}, "partner": {"partner_id": named, "tier": "gold"}}
    ledger.apply([Event("E", "deal", moved, now, now, now, content)])
    theirs = still_open["deal_id"][still_open["partner_id"].isin([former, latter, named])]
    assert set(theirs) <= ledger.related([moved])

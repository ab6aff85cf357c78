"""A deal that a caller describes, joined with what is known of it, its partner and its customer."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from features.events import Event
from features.live import Fact, Ledger
from features.problems import UserError

_TICK = timedelta(microseconds=1)
_NOBODY = "(not told)"
_OF_PARTNER = ("partner_deals_before", "partner_win_rate", "partner_wins_with_product")
_OF_CUSTOMER = ("customer_deals_before", "customer_wins_before")
_OF_PAIR = (
    "pair_first_sale",
    "pair_deals_before",
    "pair_wins_before",
    "pair_days_since_last_deal",
    "pair_vendor_involved_before",
)
_OF_VENDOR = ("already_involved", "vendor_active_now", "vendor_involvements_before")
_OF_TOUCHES = ("uncoordinated_days", "uncoordinated")
_OF_ENTRY = ("days_open", "days_in_stage", "days_in_previous_stage")
_OF_MOVES = ("stage_moves", "days_in_previous_stage")


@dataclass(frozen=True)
class DealByValue:
    """A deal as its caller brings it; what is None was not brought, and the service's own word holds.

    Attributes
    ----------
    deal : columns of deals, those of the user's own too; values as in `features.events.Event`
    stage, stage_entered_at : where it stands, and since when
    partner, customer, relationship : columns of these tables
    stage_entries : earlier ones too: ``stage``, ``entered_at``, ``recorded_at``
    involvements : ``started_at``, ``ended_at``, ``kind``, ``hours``, ``recorded_at``; an empty list says that
        there were none
    as_of : when all this was so; None for now
    """

    deal_id: str
    deal: Mapping[str, Any] = field(default_factory=dict)
    stage: str | None = None
    stage_entered_at: datetime | None = None
    partner: Mapping[str, Any] = field(default_factory=dict)
    customer: Mapping[str, Any] = field(default_factory=dict)
    relationship: Mapping[str, Any] = field(default_factory=dict)
    stage_entries: Sequence[Mapping[str, Any]] | None = None
    involvements: Sequence[Mapping[str, Any]] | None = None
    as_of: datetime | None = None


Built = tuple[dict[str, Fact], datetime] | UserError
"""A deal's features and as of when they are; or what it contradicts."""


def rows_by_value(ledger: Ledger, asked: Sequence[DealByValue], now: datetime) -> list[Built]:
    """Build the features of deals by value, each as if it were asked about alone.

    What a caller brings counts as on record just before the moment. Nothing is kept. Where neither side knows
    a partner, a customer or a deal's past, the features that would count it are missing, not 0.

    Deals of different partners and customers do not read of each other: they are built together.
    """
    joined = [_joined(ledger, deal, place, deal.as_of or now) for place, deal in enumerate(asked)]
    built: dict[int, Built] = {}
    for group in _apart(joined):
        built.update(_built(ledger, group, now))
    return [built[place] for place in range(len(asked))]


def row_by_value(ledger: Ledger, asked: DealByValue, now: datetime) -> tuple[dict[str, Fact], datetime]:
    """Build the features of one deal by value: see `rows_by_value`.

    Raises
    ------
    UserError
        What the caller brings contradicts itself, or what is known.
    """
    [built] = rows_by_value(ledger, [asked], now)
    if isinstance(built, UserError):
        raise built
    return built


def _apart(joined: Sequence["_Joined"]) -> list[list["_Joined"]]:
    """Part deals into groups that can be built together: one moment, nothing in common."""
    groups: list[tuple[tuple[Any, ...], set[str], list[_Joined]]] = []
    for deal in joined:
        same, touches = (deal.moment, deal.asked.deal.get("currency")), deal.touches()
        for of_group, taken, members in groups:
            if of_group == same and taken.isdisjoint(touches):
                taken |= touches
                members.append(deal)
                break
        else:
            groups.append((same, touches, [deal]))
    return [members for _, _, members in groups]


def _built(ledger: Ledger, group: Sequence["_Joined"], now: datetime) -> Iterator[tuple[int, Built]]:
    moment = group[0].moment
    events = {deal.place: list(deal.events(now)) for deal in group}
    rows, contradictions = ledger.rows_with((each for told in events.values() for each in told), moment)
    facts = dict(zip(rows.about.index, rows.facts(), strict=True))
    for deal in group:
        wrong = [why for event in events[deal.place] if (why := contradictions.get(event.event_id))]
        if wrong:
            yield deal.place, UserError(wrong[0])
            continue
        row = facts[deal.asked.deal_id]
        for name in deal.unknown(ledger):
            if name in row:
                row[name] = None
        yield deal.place, (row, moment)


@dataclass(frozen=True)
class _Joined:
    """The caller's word, completed by the service's where a row cannot do without."""

    place: int
    """Among those that were asked about."""
    moment: datetime
    asked: DealByValue
    known: Mapping[str, Any] | None
    """The deal's own row; None where the service does not know it."""
    partner_id: str | None
    customer_id: str | None
    stage: str | None
    entered: datetime | None
    created: datetime | None

    def touches(self) -> set[str]:
        """Name the deal, and the partners and customers whose deals it reads or was of."""
        known = self.known or {}
        ids: dict[str, set[str | None]] = {"deal_id": {self.asked.deal_id}}
        ids["partner_id"] = {self.partner_id, known.get("partner_id")}
        ids["customer_id"] = {self.customer_id, known.get("customer_id")}
        return {f"{key} {each}" for key, some in ids.items() for each in some if each is not None}

    def events(self, now: datetime) -> Iterator[Event]:
        """Say it in events, each on record just before the moment."""
        just_before = self.moment - _TICK
        entered = self.entered or just_before
        created = self.created or min(entered, just_before)
        nobody = f"{_NOBODY} {self.place}"
        ids = {"partner_id": self.partner_id or nobody, "customer_id": self.customer_id or nobody}
        fields = {**self.asked.deal, **ids, "created_at": created, "outcome": "open", "closed_at": None}
        content: dict[str, Any] = {"deal": fields}
        for name, keys in (
            ("partner", ("partner_id",)),
            ("customer", ("customer_id",)),
            ("relationship", ids),
        ):
            if told := getattr(self.asked, name):
                content[name] = {**told, **{key: ids[key] for key in keys}}

        def event(what_of: str, kind: Any, at: datetime, recorded: datetime, what: dict[str, Any]) -> Event:
            return Event(
                f"by value {self.place} {what_of}", kind, self.asked.deal_id, at, recorded, now, what
            )

        yield event("deal", "deal", just_before, just_before, content)
        for number, each in enumerate(self.asked.stage_entries or ()):
            recorded = each.get("recorded_at") or each["entered_at"]
            yield event(f"entry {number}", "stage", each["entered_at"], recorded, {"stage": each["stage"]})
        yield event("stage", "stage", entered, entered, {"stage": self.stage or _NOBODY})
        for number, each in enumerate(self.asked.involvements or ()):
            recorded = each.get("recorded_at") or each["started_at"]
            what = {**each, "involvement_id": f"by value {self.place} {number}"}
            yield event(f"involvement {number}", "involvement", each["started_at"], recorded, what)

    def unknown(self, ledger: Ledger) -> Iterator[str]:
        """Name the features that would count what neither side knows."""
        knows_partner = self.partner_id is not None and ledger.knows("partners", self.partner_id)
        knows_customer = self.customer_id is not None and ledger.knows("customers", self.customer_id)
        for is_known, names in (
            (self.partner_id is not None, ("partner_id",)),
            (knows_partner, _OF_PARTNER),
            (knows_customer, _OF_CUSTOMER),
            (knows_partner and knows_customer, _OF_PAIR),
            (self.known is not None or self.asked.involvements is not None, _OF_VENDOR),
            (self.known is not None, _OF_TOUCHES),
            (self.known is not None or self.asked.stage_entries is not None, _OF_MOVES),
            (self.stage is not None, ("stage",)),
            (self.entered is not None, _OF_ENTRY),
            (self.created is not None, ("days_open",)),
        ):
            if not is_known:
                yield from names


def _joined(ledger: Ledger, asked: DealByValue, place: int, moment: datetime) -> _Joined:
    known = ledger.deal(asked.deal_id)
    stands = ledger.stage(asked.deal_id, moment) if known else None
    stage, entered = asked.stage, asked.stage_entered_at
    if stage is None and stands is not None:
        stage, entered = stands[0], entered or stands[1]
    elif entered is None and stands is not None and stage == stands[0]:
        entered = stands[1]
    known_row = known or {}
    return _Joined(
        place=place,
        moment=moment,
        asked=asked,
        known=known,
        partner_id=asked.deal.get("partner_id") or known_row.get("partner_id"),
        customer_id=asked.deal.get("customer_id") or known_row.get("customer_id"),
        stage=stage,
        entered=entered,
        created=known_row.get("created_at") or asked.deal.get("created_at"),
    )

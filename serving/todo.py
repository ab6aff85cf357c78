"""The vendor's to-do list: open deals by what stepping in should gain, cut where the hours run out."""

from __future__ import annotations

import asyncio
import base64
import binascii
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

import orjson
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from features.problems import UserError
from serving import ready_rows
from serving.journal import Journal
from serving.knowledge import Known
from serving.problems import BuilderAway, FieldError, InvalidRequest
from serving.ready_rows import Found
from serving.recommend import Answered
from serving.slot import Held
from training.policy import ADVICE, STEP_IN, Policy

SORTS = ("expected_value", "score", "uplift")
MOST_DEALS, USUAL_DEALS = 200, 50
LOOK_SECONDS = 5.0
_PARAMETERS = ("sort", "advice", "limit", "cursor")

Key = tuple[float, str]
"""What a list is sorted by: the value, largest first and missing last; then the deal's id."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What page of the list is asked for."""

    sort: str = SORTS[0]
    advice: str | None = None
    limit: int = USUAL_DEALS
    after: Key | None = None
    """The key of the last deal on the page before; None for the first page."""

    @classmethod
    def read(cls, query: bytes) -> Wanted:
        """Read the query of a request; raises InvalidRequest."""
        given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
        errors = [
            FieldError("query", f"no other parameters than {', '.join(_PARAMETERS)}")
            for name in given
            if name not in _PARAMETERS
        ][:1]
        sort, advice, limit = given.get("sort", SORTS[0]), given.get("advice"), given.get("limit", "")
        if sort not in SORTS:
            errors.append(FieldError("sort", f"one of {', '.join(SORTS)}"))
        if advice not in (None, *ADVICE):
            errors.append(FieldError("advice", f"one of {', '.join(ADVICE)}, or nothing"))
        if limit and not (
            limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= MOST_DEALS
        ):
            errors.append(FieldError("limit", f"a whole number from 1 to {MOST_DEALS}"))
        after = None
        if not errors and given.get("cursor"):
            after = _read_cursor(given["cursor"], sort, advice)
            if after is None:
                errors.append(FieldError("cursor", "next of the page before, with the same sort and advice"))
        if errors:
            raise InvalidRequest(errors)
        return cls(sort, advice, int(limit or USUAL_DEALS), after)

    def cursor(self, after: Key) -> str:
        """Return what leads to the page after a deal."""
        value = None if after[0] == math.inf else after[0]
        text = orjson.dumps([self.sort, self.advice, value, after[1]])
        return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _read_cursor(text: str, sort: str, advice: str | None) -> Key | None:
    try:
        content = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        of_sort, of_advice, value, deal_id = content
    except (binascii.Error, ValueError, TypeError):
        return None
    is_number = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if (of_sort, of_advice) != (sort, advice) or not is_number or not isinstance(deal_id, str):
        return None
    return (math.inf if value is None else float(value)), deal_id


@dataclass(frozen=True, slots=True)
class Judged:
    """What the model says of one open deal."""

    deal_id: str
    advice: str
    score: float | None
    uplift: float | None
    value: float | None
    """Expected gain of stepping in, in money; None where the amount is not known."""

    def key(self, sort: str) -> Key:
        """Return where it stands in a list."""
        value = {"expected_value": self.value, "score": self.score, "uplift": self.uplift}[sort]
        return (math.inf if value is None else -value), self.deal_id


@dataclass(frozen=True, slots=True)
class Capacity:
    """How far the vendor's hours go.

    Where every deal takes the same hours, as the policy says it does, taking the deals with the highest value
    an hour first is the best that can be done with the hours.
    """

    hours: float
    hours_per_deal: float
    deals: frozenset[str]
    """Ids of those that the hours are enough for."""
    left_out: int
    shadow_price: float
    """What one more hour would earn: the value an hour of the first deal left out; 0 where none is."""

    @classmethod
    def of(cls, judged: Sequence[Judged], hours: float, hours_per_deal: float) -> Capacity:
        """Take the deals that are worth stepping in on, most valuable first, until the hours are used."""
        worth = [each for each in judged if each.advice == STEP_IN and (each.value or 0) > 0]
        worth.sort(key=partial(Judged.key, sort="expected_value"))
        room = len(worth) if hours_per_deal == 0 else min(len(worth), math.floor(hours / hours_per_deal))
        first_cut = worth[room] if room < len(worth) else None
        price = (first_cut.value or 0.0) / hours_per_deal if first_cut else 0.0
        taken = frozenset(each.deal_id for each in worth[:room])
        return cls(hours, hours_per_deal, taken, len(worth) - room, price)


@dataclass
class _List:
    """All open deals as one model judges them, as of one revision of their facts."""

    digest: str
    policy: Policy
    revision: int = 0
    judged: dict[str, Judged] = field(default_factory=dict)
    capacity: Capacity | None = None
    views: dict[tuple[str, str | None], list[Key]] = field(default_factory=dict)

    def view(self, sort: str, advice: str | None) -> list[Key]:
        """Return the keys of the deals with an advice, sorted; what the hours are not enough for is cut."""
        keys = self.views.get((sort, advice))
        if keys is None:
            keys = sorted(
                each.key(sort)
                for each in self.judged.values()
                if advice in (None, each.advice) and self._is_within(each)
            )
            self.views[sort, advice] = keys
        return keys

    def _is_within(self, each: Judged) -> bool:
        return self.capacity is None or each.advice != STEP_IN or each.deal_id in self.capacity.deals


@dataclass(frozen=True)
class Page:
    """One page, and the answers on it, which are to be journaled before it leaves."""

    body: bytes
    total: int
    """Deals on all pages."""
    served: list[Answered]
    shadows: list[Answered]


class TodoList:
    """Judges every open deal once for each model and change of its facts, and gives pages of them.

    What a list is worth is told by the held-out gain in the model's report, not by adding up what is expected
    of its deals: the highest expectations are partly luck. So no such sum is given.

    Parameters
    ----------
    journal : its database holds the ready rows
    capacity_hours : the vendor's hours; None for no cut
    """

    def __init__(self, journal: Journal, capacity_hours: float | None, clock: Callable[[], datetime]) -> None:
        self._journal, self._capacity_hours, self._clock = journal, capacity_hours, clock
        self._list: _List | None = None
        self._changing = asyncio.Lock()

    async def page(self, held: Held, wanted: Wanted) -> Page:
        """Return a page of open deals, each with its whole recommendation.

        Raises
        ------
        BuilderAway
            The facts cannot be read.
        """
        current = await self.bring_up(held)
        keys = current.view(wanted.sort, wanted.advice)
        start = 0 if wanted.after is None else bisect_right(keys, wanted.after)
        chosen = keys[start : start + wanted.limit]
        answered = await self._read(self._answered, held, [deal_id for _, deal_id in chosen])
        follows = wanted.cursor(chosen[-1]) if start + len(chosen) < len(keys) else None
        served = [each for each, _ in answered]
        return Page(
            body=_body(served, follows, len(keys), self._told_capacity(current, held)),
            total=len(keys),
            served=served,
            shadows=[shadow for _, shadow in answered if shadow is not None],
        )

    def shadow_price(self, held: Held) -> dict[str, Any] | None:
        """Return what an hour must earn now, for each answer; None without a capacity, or not known yet."""
        current = self._list
        if current is None or current.capacity is None or current.digest != held.model.digest:
            return None
        return {"amount_per_hour": current.capacity.shadow_price, "currency": held.model.wording.currency}

    async def bring_up(self, held: Held) -> _List:
        """Judge what has changed since the last time; all of it where the model has."""
        async with self._changing:
            current = self._list
            if current is None or (current.digest, current.policy) != (held.model.digest, held.model.policy):
                current = _List(held.model.digest, held.model.policy)
            self._list = await self._read(self._judge, held, current)
            return self._list

    async def keep(self, held: Callable[[], Held]) -> None:
        """Keep the shadow price fresh until cancelled; returns at once without a capacity."""
        while self._capacity_hours is not None:
            with suppress(BuilderAway):  # the database is lost: readiness tells
                await self.bring_up(held())
            await asyncio.sleep(LOOK_SECONDS)

    async def _read(self, work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return await asyncio.to_thread(work, *arguments)
        except (DBAPIError, NoConnectionFree):
            raise BuilderAway from None

    def _judge(self, held: Held, current: _List) -> _List:
        with self._journal.engine.connect() as connection:
            if ready_rows.newest_revision(connection) == current.revision:
                return current
            judged, revision = dict(current.judged), current.revision
            for part in ready_rows.find_since(connection, current.revision):
                for each in part:
                    judged.pop(each.deal_id, None)
                judged.update(self._judged(held, part))
                revision = part[-1].revision
        capacity, hours = None, current.policy.hours
        if self._capacity_hours is not None and hours is not None:
            capacity = Capacity.of(list(judged.values()), self._capacity_hours, hours)
        return _List(current.digest, current.policy, revision, judged, capacity)

    def _judged(self, held: Held, part: Sequence[Found]) -> dict[str, Judged]:
        features = held.model.scorecard.features
        known = [Known(each.deal_id, each.facts, each.as_of) for each in part if each.facts is not None]
        answers = held.recommender.answer_many([each.asked(features) for each in known], self._clock())
        return {each.deal_id: _of(each.deal_id, answer) for each, answer in zip(known, answers, strict=True)}

    def _answered(self, held: Held, deal_ids: Sequence[str]) -> list[tuple[Answered, Answered | None]]:
        """Answer deals that are still open, from their facts of this moment."""
        with self._journal.engine.connect() as connection:
            found = [ready_rows.find(connection, deal_id) for deal_id in deal_ids]
        known = [Known(row.deal_id, row.facts, row.as_of) for row in found if row and row.facts is not None]
        more = {"shadow_price": self.shadow_price(held)}
        features, now = held.model.scorecard.features, self._clock()
        return [held.answer(deal.asked(features), now, extra=more) for deal in known]

    def _told_capacity(self, current: _List, held: Held) -> dict[str, Any] | None:
        capacity = current.capacity
        if capacity is None:
            return None
        return {
            "hours": capacity.hours,
            "hours_per_deal": capacity.hours_per_deal,
            "deals": len(capacity.deals),
            "left_out": capacity.left_out,
            "shadow_price": self.shadow_price(held),
        }


def refuse_capacity_without_hours(capacity_hours: float | None, policy: Policy) -> None:
    """Refuse to cut a list by hours where nobody said how many a deal takes.

    Raises
    ------
    UserError
        As said.
    """
    if capacity_hours is not None and policy.hours is None:
        raise UserError(
            "STEPIN_CAPACITY_HOURS needs the hours that stepping in takes: set STEPIN_HOURS, "
            "STEPIN_COST_PER_HOUR and STEPIN_MARGIN, or train with them."
        )


def _of(deal_id: str, answered: Answered) -> Judged:
    record: Mapping[str, Any] = answered.record
    value = orjson.loads(answered.body)["expected_value"]
    return Judged(
        deal_id,
        record["advice"],
        record["score"],
        record["uplift"],
        None if value is None else value["amount"],
    )


def _body(
    served: Sequence[Answered], follows: str | None, total: int, capacity: dict[str, Any] | None
) -> bytes:
    about = {"next": follows, "total": total, "capacity": capacity}
    listed = b",".join(each.body for each in served)
    return b'{"recommendations":[' + listed + b"]," + orjson.dumps(about)[1:]

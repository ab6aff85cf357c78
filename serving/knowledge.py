"""What a server process knows of deals: ready rows, and what the builder tells. No pandas here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as NoConnectionFree

from serving import frames, ready_rows
from serving.deal_form import Form
from serving.events import EventTold
from serving.journal import Journal
from serving.journal.tables import events
from serving.problems import BuilderAway, Contradiction, NothingToDecide, UnknownDeal
from serving.reading import DealAsked, Value
from serving.ready_rows import Facts, Found
from training.basis import BOOLEAN, CATEGORY, NUMBER, Feature

APPLY_SECONDS = 5.0
"""How long POST /v1/events waits until the next answer knows."""
BUILD_SECONDS = 30.0
FORMS_AT_ONCE = 50
LOOK_SECONDS = 2.0
_TRUE, _FALSE = frozenset({"true", "yes", "1"}), frozenset({"false", "no", "0"})


def utc_now() -> datetime:
    """Return the machine's time."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Known:
    """A deal's facts, and as of when they are."""

    deal_id: str
    facts: Facts
    as_of: datetime

    def asked(self, features: Sequence[Feature]) -> DealAsked:
        """Return what to ask a model that has these features."""
        facts = self.facts
        values = {each.name: as_kind(facts.get(each.name), each.kind) for each in features}
        return DealAsked(self.deal_id, values, self.as_of)


def as_kind(value: Any, kind: str) -> Value:
    """Return a fact as a model's feature takes it, as training reads such a column; None where it is none."""
    if value is None:
        return None
    if kind == CATEGORY:
        if isinstance(value, bool | str):
            return str(value)
        return str(int(value)) if value == int(value) else str(value)
    if kind == BOOLEAN:
        folded = str(value).lower().removesuffix(".0")
        return True if folded in _TRUE else False if folded in _FALSE else None
    assert kind == NUMBER
    try:
        return float(value)
    except ValueError:
        return None


class Knowledge:
    """Events in, facts out.

    Parameters
    ----------
    journal : its database holds events and ready rows
    socket : where the builder listens; None where there is none
    """

    def __init__(
        self, journal: Journal, socket: Path | None, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._journal, self._clock = journal, clock
        self._builder = None if socket is None else _Builder(socket)
        self.has_builder = self._builder is not None
        """Whether there is somebody to whom a deal can be known."""
        self._behind: set[str] = set()
        """Deals whose events were recorded here, and of which the builder has not said that it knows."""

    async def deal(self, deal_id: str) -> Known:
        """Return the facts of an open deal.

        Raises
        ------
        UnknownDeal, NothingToDecide
            Nobody told of it; it is closed, in no stage, or nobody said whose it is.
        BuilderAway
            Nothing can be said of it without the builder, which does not answer.
        """
        if deal_id in self._behind:
            await self._hurry([deal_id])
        found = await self._find(deal_id)
        if found is None or found.facts is None:
            standing = await self._standing(deal_id)
            if standing == "unknown":
                raise UnknownDeal
            if standing != "open":
                raise NothingToDecide(standing)
            found = await self._find(deal_id)
            if found is None or found.facts is None:
                raise BuilderAway
        return Known(deal_id, found.facts, found.as_of)

    async def build(self, forms: Sequence[Form]) -> list[Known]:
        """Return the facts of deals by value, joined with what is known.

        Raises
        ------
        Contradiction
            One contradicts itself, or what is known.
        BuilderAway
            The builder does not answer.
        """
        built: list[dict[str, Any]] = []
        for start in range(0, len(forms), FORMS_AT_ONCE):  # the builder answers others in between
            some = list(forms[start : start + FORMS_AT_ONCE])
            built += await self._ask({"do": "build", "deals": some}, BUILD_SECONDS)
        for each in built:
            if "contradiction" in each:
                raise Contradiction(each["contradiction"])
        return [
            Known(form["deal_id"], each["facts"], datetime.fromisoformat(each["as_of"]))
            for form, each in zip(forms, built, strict=True)
        ]

    async def add_events(self, told: Sequence[EventTold], sent_by: str) -> dict[str, Any]:
        """Record events, each once, and wait until the next answer knows; not for ever.

        Returns
        -------
        dict
            ``applied``: whether the builder has taken them in. ``events``: for each, in order, its
            ``event_id``, ``status`` and ``detail``. The status is ``applied``; ``waits`` (for an event that
            tells of its deal, say); ``set_aside`` (it contradicts the rest: the detail says how); ``already``
            (its id came before, with the same content); ``differs`` (with other content, which was not
            taken); ``recorded`` (the builder has not said yet).

        Raises
        ------
        JournalLost
            The database cannot be written.
        """
        before = await asyncio.to_thread(self._insert, told, sent_by)
        deals = {each.event.deal_id for each in told}
        self._behind |= deals
        fates = await self._hurry(deals, [each.event.event_id for each in told])
        return {
            "applied": fates is not None,
            "events": [_status(each, before.get(each.event.event_id), fates) for each in told],
        }

    async def refuse_while_unread(self) -> None:
        """Tell no deals from deals not read yet: raises BuilderAway while the CRM is, or cannot be, read."""
        if self.has_builder:
            await self._ask({"do": "greet"}, LOOK_SECONDS)

    async def close(self) -> None:
        """Let go of the builder."""
        if self._builder is not None:
            await self._builder.close()

    def _insert(self, told: Sequence[EventTold], sent_by: str) -> dict[str, tuple[str, str, str]]:
        """Record what is new; return what came before under the same ids."""
        ids = [each.event.event_id for each in told]
        rows = {
            each.event.event_id: event_row(each, sent_by) for each in reversed(told)
        }  # the first of an id
        there = select(events.c.event_id, events.c.kind, events.c.deal_id, events.c.payload)

        def insert_new(connection: Connection) -> dict[str, tuple[str, str, str]]:
            dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
            found = connection.execute(there.where(events.c.event_id.in_(ids)))
            before = {row.event_id: (row.kind, row.deal_id, row.payload) for row in found}
            new = [rows[event_id] for event_id in dict.fromkeys(ids) if event_id not in before]
            if new:
                insert = dialect.insert(events).on_conflict_do_nothing(index_elements=[events.c.event_id])
                connection.execute(insert, new)
            return before

        return self._journal.write(insert_new, events.name)

    async def _hurry(self, deals: Sequence[str] | set[str], event_ids: Sequence[str] = ()) -> Any:
        """Let the builder catch up; None where it does not in time."""
        try:
            fates = await self._ask({"do": "apply", "event_ids": list(event_ids)}, APPLY_SECONDS)
        except BuilderAway:
            return None
        self._behind.difference_update(deals)
        return fates

    async def _find(self, deal_id: str) -> Found | None:
        if self._journal.database.is_sqlite:
            return self._find_here(deal_id)  # a look into a file: quicker than a thread is found
        return await asyncio.to_thread(self._find_here, deal_id)

    def _find_here(self, deal_id: str) -> Found | None:
        try:
            with self._journal.engine.connect() as connection:
                return ready_rows.find(connection, deal_id)
        except (DBAPIError, NoConnectionFree):
            raise BuilderAway from None

    async def _standing(self, deal_id: str) -> str:
        standing: str = await self._ask({"do": "standing", "deal_id": deal_id}, LOOK_SECONDS)
        return standing

    async def _ask(self, question: dict[str, Any], seconds: float) -> Any:
        if self._builder is None:
            raise BuilderAway
        return await self._builder.ask(question, seconds)


def event_row(told: EventTold, sent_by: str) -> dict[str, Any]:
    """Return an event as the table ``events`` takes it."""
    event = told.event
    return {
        "event_id": event.event_id,
        "kind": event.kind,
        "deal_id": event.deal_id,
        "payload": told.payload,
        "happened_at": event.happened_at,
        "received_at": event.received_at,
        "sent_by": sent_by,
    }


def _status(
    told: EventTold, before: tuple[str, str, str] | None, fates: Mapping[str, Sequence[str | None]] | None
) -> dict[str, Any]:
    event = told.event
    fate: str | None = "recorded"
    why = None
    if before is not None and before != (event.kind, event.deal_id, told.payload):
        fate, why = "differs", "This id was recorded with other content: send a correction with its own id."
    elif before is not None:
        fate = "already"
    elif fates is not None:
        fate, why = fates[event.event_id]
    return {"event_id": event.event_id, "status": fate, "detail": why}


class _Builder:
    """One connection to the builder; several questions may be under way."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._writer: asyncio.StreamWriter | None = None
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = count()
        self._listens: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, question: dict[str, Any], seconds: float) -> Any:
        """Ask, and wait for the answer; raises BuilderAway where none comes in time."""
        number = next(self._numbers)
        try:
            async with asyncio.timeout(seconds):
                writer = await self._connected()
                answer = self._answers[number] = asyncio.get_running_loop().create_future()
                frames.send(writer, {**question, "id": number})
                await writer.drain()
                return await answer
        except (TimeoutError, OSError):
            raise BuilderAway from None
        finally:
            self._answers.pop(number, None)

    async def close(self) -> None:
        """End the connection."""
        if self._listens is not None:
            self._listens.cancel()
            with suppress(asyncio.CancelledError):
                await self._listens
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    async def _connected(self) -> asyncio.StreamWriter:
        async with self._connecting:
            if self._writer is None:
                reader, self._writer = await asyncio.open_unix_connection(self._socket)
                self._listens = asyncio.create_task(self._listen(reader, self._writer))
            return self._writer

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(frames.BadFrame):
            while (message := await frames.receive(reader)) is not None:
                waiting = self._answers.get(message.get("id", -1))
                if waiting is not None and not waiting.done():
                    if "answer" in message:
                        waiting.set_result(message["answer"])
                    else:
                        waiting.set_exception(BuilderAway())
        writer.close()
        self._writer = None
        for waiting in self._answers.values():
            if not waiting.done():
                waiting.set_exception(BuilderAway())

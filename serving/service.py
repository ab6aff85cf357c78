"""What each route does: a request that came through the door, answered, journaled, told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from urllib.parse import parse_qs

import orjson

from serving.deal_form import Form
from serving.events import outcome_event, read_events
from serving.form_bodies import read_form, read_forms
from serving.journal import Journal, Stored
from serving.knowledge import Knowledge
from serving.metrics import Metrics
from serving.model import REPORT
from serving.problems import FieldError, InvalidRequest, NotFound, NotFromCrm, NotReady
from serving.reading import DealAsked
from serving.recommend import Answered
from serving.records import read_outcome, read_override
from serving.routes import BATCH, SCORED, Handler, HotReply, HotRequest, Told
from serving.settings import Settings
from serving.slot import Held, ModelSlot
from serving.todo import TodoList, Wanted

Clock = Callable[[], datetime]
PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_ALL_REASONS = b"reasons=all"
_OF_THE_REPORT = (
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    ),
)


class Service:
    """The parts of one server, and its handlers.

    Parameters
    ----------
    settings : what the server was told
    slot : holds the model that answers
    journal : records every answer
    metrics : counts, for GET /metrics
    clock : tells the time in UTC

    Attributes
    ----------
    knowledge : what is known of deals; asks the builder
    todo : the open deals, by what stepping in is expected to gain
    """

    def __init__(
        self, settings: Settings, slot: ModelSlot, journal: Journal, metrics: Metrics, clock: Clock
    ) -> None:
        self.settings, self.slot, self.journal = settings, slot, journal
        self.metrics, self.clock = metrics, clock
        self.knowledge = Knowledge(journal, settings.builder_socket, clock)
        self.todo = TodoList(journal, settings.capacity_hours, clock)

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return the plain handlers by method and path template."""
        return {
            ("POST", SCORED): self.recommend,
            ("POST", BATCH): self.recommend_batch,
            ("GET", SCORED): self.list_deals,
            ("GET", "/v1/deals/{deal_id}/recommendation"): self.recommend_known,
            ("POST", "/v1/events"): self.add_events,
            ("POST", "/v1/outcomes"): self.add_outcome,
            ("POST", "/v1/overrides"): self.add_override,
            ("GET", "/v1/model"): self.model,
            ("GET", "/v1/model/report"): self.report,
            ("GET", "/healthz"): self.alive,
            ("GET", "/readyz"): self.ready,
            ("GET", "/metrics"): self.tell_metrics,
        }

    async def recommend(self, asked: HotRequest) -> HotReply:
        """Advise on one deal: on the model's own features, or on CRM fields (`deal_form`)."""
        held, now = self.slot.current, self.clock()
        all_reasons = _wants_all_reasons(asked.query)
        form = read_form(asked.body, now)
        deal = held.reader.one(asked.body) if form is None else (await self._built(held, [form]))[0]
        return await self._advise(asked, held, deal, now, all_reasons)

    async def recommend_known(self, asked: HotRequest) -> HotReply:
        """Advise on a deal that the service knows."""
        held, now = self.slot.current, self.clock()
        if not held.model.is_from_crm:
            raise NotFromCrm
        all_reasons = _wants_all_reasons(asked.query)
        deal = (await self.knowledge.deal(asked.params[0])).asked(held.model.scorecard.features)
        return await self._advise(asked, held, deal, now, all_reasons)

    async def _advise(
        self, asked: HotRequest, held: Held, deal: DealAsked, now: datetime, all_reasons: bool
    ) -> HotReply:
        served, shadow = held.answer(deal, now, all_reasons)
        await self._record(asked, [served], [] if shadow is None else [shadow])
        return HotReply(self._priced(held, served.body), told=_told(held, [served]))

    async def recommend_batch(self, asked: HotRequest) -> HotReply:
        """Advise on up to 1,000 deals, in a thread: other requests are answered meanwhile."""
        held, now = self.slot.current, self.clock()
        all_reasons = _wants_all_reasons(asked.query)
        forms = read_forms(asked.body, now)
        built = None if forms is None else await self._built(held, forms)

        def answer() -> tuple[list[Answered], list[Answered], bytes]:
            deals = held.reader.many(asked.body) if built is None else built
            served, shadows = held.answer_many(deals, now, all_reasons)
            parts = [self._priced(held, each.body) for each in served]
            parts[0] = b'{"recommendations":[' + parts[0]
            parts[-1] += b"]}"
            return served, shadows, b",".join(parts)  # copied once: it is megabytes

        served, shadows, body = await asyncio.to_thread(answer)
        await self._record(asked, served, shadows)
        return HotReply(body, told=_told(held, served))

    async def list_deals(self, asked: HotRequest) -> HotReply:
        """List open deals: the vendor's to-do list."""
        held, wanted = self.slot.current, Wanted.read(asked.query)
        if not held.model.is_from_crm:
            raise NotFromCrm
        page = await self.todo.page(held, wanted)
        if page.total == 0:
            await self.knowledge.refuse_while_unread()
        await self._record(asked, page.served, page.shadows)
        return HotReply(page.body, told=_told(held, page.served))

    async def add_events(self, asked: HotRequest) -> HotReply:
        """Take in what happens in the CRM, each event once."""
        told = read_events(asked.body, self.clock())
        taken = await self.knowledge.add_events(told, asked.key_id)
        return HotReply(orjson.dumps(taken), 200 if taken["applied"] else 202)

    async def _built(self, held: Held, forms: Sequence[Form]) -> list[DealAsked]:
        if not held.model.is_from_crm:
            raise NotFromCrm
        features = held.model.scorecard.features
        return [known.asked(features) for known in await self.knowledge.build(forms)]

    def _priced(self, held: Held, body: bytes) -> bytes:
        """The answer with what an hour must earn now, where the vendor's hours are limited."""
        price = self.todo.shadow_price(held)
        return body if price is None else body[:-1] + b',"shadow_price":' + orjson.dumps(price) + b"}"

    async def add_outcome(self, asked: HotRequest) -> HotReply:
        """Record what happened to a deal; where deals are known, it is known from now on.

        Also where it was told before: who sends it again may have heard that it could not be recorded.
        """
        outcome = read_outcome(asked.body, self.clock())
        stored = await self.journal.add_outcome({**outcome, "sent_by": asked.key_id})
        if self.knowledge.has_builder:
            await self.knowledge.add_events(outcome_event(stored.row, self.clock()), asked.key_id)
        return _recorded(stored, "outcome_id")

    async def add_override(self, asked: HotRequest) -> HotReply:
        """Record that a person decided otherwise, and why."""
        override = read_override(asked.body)
        return _recorded(
            await self.journal.add_override({**override, "sent_by": asked.key_id}), "override_id"
        )

    async def model(self, _asked: HotRequest) -> HotReply:
        """Tell what answers, and what it learned from."""
        return HotReply(orjson.dumps(self.slot.current.model.card()))

    async def report(self, _asked: HotRequest) -> HotReply:
        """Give the page on the model; NotFound where it has none."""
        page = self.slot.current.model.folder / REPORT
        try:
            body = await asyncio.to_thread(page.read_bytes)
        except OSError:
            raise NotFound from None
        return HotReply(body, media_type=b"text/html; charset=utf-8", headers=_OF_THE_REPORT)

    async def alive(self, _asked: HotRequest) -> HotReply:
        """Tell that the server runs."""
        return HotReply(b'{"status":"alive"}')

    async def ready(self, _asked: HotRequest) -> HotReply:
        """Tell whether it has a model and a journal, and what is the matter with either."""
        if not self.journal.is_well():
            raise NotReady
        waiting, seconds = self.journal.lag()
        journal = {"mode": self.journal.mode, "waiting": waiting, "oldest_seconds": seconds}
        return HotReply(orjson.dumps({"status": "ready", **self.slot.state(), "journal": journal}))

    async def tell_metrics(self, _asked: HotRequest) -> HotReply:
        """Tell everybody's counts."""
        body = await asyncio.to_thread(self.metrics.render)
        return HotReply(body, media_type=PROMETHEUS_TEXT.encode())

    async def _record(
        self, asked: HotRequest, served: Sequence[Answered], shadows: Sequence[Answered]
    ) -> None:
        """Record what is answered; to HEAD it is not, for nobody gets it."""
        if asked.method == "HEAD":
            return
        rows = [each.record for each in (*served, *shadows)]
        for row in rows:
            row["asked_by"] = asked.key_id
            if row["stage"] is not None and "\x00" in row["stage"]:  # PostgreSQL keeps no text with it
                row["stage"] = row["stage"].replace("\x00", "\ufffd")
        await self.journal.record(rows)


def _wants_all_reasons(query: bytes) -> bool:
    """Whether ``?reasons=all`` was asked for; other parameters are not looked at."""
    if not query:
        return False
    if query == _ALL_REASONS:
        return True
    wanted = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("reasons")
    if wanted not in (None, ["all"]):
        raise InvalidRequest([FieldError("reasons", "'all', or nothing")])
    return wanted is not None


def _told(held: Held, answers: Sequence[Answered]) -> Told:
    """What log and metrics learn of some answers: our own words only."""
    records = [each.record for each in answers]
    return Told(
        [str(record["advice"]) for record in records],
        held.model.digest,
        sum(record["score"] is None for record in records),
        [name for each in answers for name in each.missing],
    )


def _recorded(stored: Stored, id_name: str) -> HotReply:
    """Say under which id it is kept, and since when: 201 when it is new, 200 when it was there."""
    status, word = (201, "recorded") if stored.is_new else (200, "already")
    body = {"status": word, id_name: stored.row[id_name], "received_at": stored.row["received_at"]}
    return HotReply(orjson.dumps(body, option=orjson.OPT_UTC_Z), status)

"""What each route does: a request that came through the door, answered, journaled, told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import orjson

from serving.journal import Journal
from serving.metrics import Metrics
from serving.model import REPORT
from serving.problems import FieldError, InvalidRequest, NotFound, NotReady
from serving.reading import DealAsked
from serving.recommend import Answered
from serving.records import read_outcome, read_override
from serving.routes import BATCH, SCORED, Handler, HotReply, HotRequest, Told
from serving.settings import Settings
from serving.slot import Held, ModelSlot

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
    """

    def __init__(
        self, settings: Settings, slot: ModelSlot, journal: Journal, metrics: Metrics, clock: Clock
    ) -> None:
        self.settings, self.slot, self.journal = settings, slot, journal
        self.metrics, self.clock = metrics, clock

    def handlers(self) -> dict[tuple[str, str], Handler]:
        """Return the plain handlers by method and path template."""
        return {
            ("POST", SCORED): self.recommend,
            ("POST", BATCH): self.recommend_batch,
            ("POST", "/v1/outcomes"): self.add_outcome,
            ("POST", "/v1/overrides"): self.add_override,
            ("GET", "/v1/model"): self.model,
            ("GET", "/v1/model/report"): self.report,
            ("GET", "/healthz"): self.alive,
            ("GET", "/readyz"): self.ready,
            ("GET", "/metrics"): self.tell_metrics,
        }

    async def recommend(self, asked: HotRequest) -> HotReply:
        """Advise on one deal whose facts the caller brings."""
        held, now = self.slot.current, self.clock()
        deal = held.reader.one(asked.body)
        served, shadow = held.answer(deal, now, _wants_all_reasons(asked.query))
        await self._record(asked, [served], [] if shadow is None else [shadow])
        return HotReply(served.body, told=_told(held, [deal], [served]))

    async def recommend_batch(self, asked: HotRequest) -> HotReply:
        """Advise on up to 1,000 deals, in a thread: other requests are answered meanwhile."""
        held, now = self.slot.current, self.clock()
        all_reasons = _wants_all_reasons(asked.query)

        def answer() -> tuple[list[DealAsked], list[Answered], list[Answered], bytes]:
            deals = held.reader.many(asked.body)
            served, shadows = held.answer_many(deals, now, all_reasons)
            body = b'{"recommendations":[' + b",".join(each.body for each in served) + b"]}"
            return deals, served, shadows, body

        deals, served, shadows, body = await asyncio.to_thread(answer)
        await self._record(asked, served, shadows)
        return HotReply(body, told=_told(held, deals, served))

    async def add_outcome(self, asked: HotRequest) -> HotReply:
        """Record what happened to a deal."""
        outcome = read_outcome(asked.body, self.clock())
        return _recorded(await self.journal.add_outcome({**outcome, "sent_by": asked.key_id}), "outcome_id")

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
        rows = [each.record for each in (*served, *shadows)]
        for row in rows:
            row["asked_by"] = asked.key_id
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


def _told(held: Held, deals: Sequence[DealAsked], answers: Sequence[Answered]) -> Told:
    """What log and metrics learn of some answers: our own words only."""
    records = [each.record for each in answers]
    return Told(
        [str(record["advice"]) for record in records],
        held.model.digest,
        sum(record["score"] is None for record in records),
        [name for deal in deals for name in held.names if deal.features.get(name) is None],
    )


def _recorded(stored: dict[str, Any] | str, id_name: str) -> HotReply:
    """Say under which id it is kept: 201 when it is new, 200 when it was there."""
    if isinstance(stored, str):
        return HotReply(b'{"status":"already"}')
    body = {"status": "recorded", id_name: stored[id_name], "received_at": stored["received_at"]}
    return HotReply(orjson.dumps(body, option=orjson.OPT_UTC_Z), 201)

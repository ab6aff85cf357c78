"""The door: everything that comes in passes here first, and everything that leaves passes here last.

It gives a request its id, finds its route, checks key, rate and size, reads the body in time, hands it to a
plain handler or to the FastAPI app, and writes headers, log line and counts. It is a plain ASGI application,
not a middleware of a framework: a request pays for a few look-ups.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from typing import Any

import orjson

from serving import problems
from serving.keys import ANONYMOUS, Keys
from serving.limits import LARGE, Gone, Intake, Rates, caller_of, declared_bytes, drain
from serving.logs import Logs
from serving.metrics import Metrics
from serving.origins import Hosts, Origins
from serving.problems import MEDIA_TYPE, Busy, Failure, Problem, TooSlow, WrongMediaType
from serving.routes import (
    BATCH,
    METHODS,
    NO_ROUTE,
    PROBES,
    Handler,
    HotReply,
    HotRequest,
    Route,
    Routes,
    Told,
)
from serving.settings import Settings

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Any]
Send = Callable[[Message], Awaitable[None]]

TOLD = "stepin.told"
LONGEST_REQUEST_ID = 100
CLOSED_BY_CALLER = 499
"""Status in log and metrics where the caller hung up first; nobody gets it."""
_JSON = b"application/json"
_ALWAYS: tuple[tuple[bytes, bytes], ...] = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_GUARDS = (*_ALWAYS, (b"cache-control", b"no-store"), (b"content-security-policy", b"frame-ancestors 'none'"))
_ID_CHARACTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."


class Door:
    """An ASGI application around the whole service.

    Parameters
    ----------
    app : the FastAPI app; the routes that it has now are the ones that can be reached
    hot_routes : plain handlers by (method, path template); they go before the app's routes
    settings : how much may come in, from where
    keys : who may ask; None lets everybody
    metrics : where requests are counted
    logs : where they are told; none by default
    """

    def __init__(
        self,
        app: Any,
        hot_routes: Mapping[tuple[str, str], Handler],
        settings: Settings,
        keys: Keys | None = None,
        metrics: Metrics | None = None,
        logs: Logs | None = None,
    ) -> None:
        self.app = app
        self.routes = Routes.of(app.routes, hot_routes)
        self.keys, self.metrics, self.logs = keys, metrics or Metrics(), logs or Logs(None)
        self.intake = Intake(settings.body_seconds)
        self.rates = Rates(settings.rate_per_minute) if settings.rate_per_minute else None
        self.most_in_flight = int(settings.most_in_flight)
        self.most_batch_bytes = int(settings.most_body_kib * 1024)
        self.most_bytes = self.most_batch_bytes // 8
        self.origins = Origins(settings.cors_origins)
        self.hosts = None if keys is not None and keys.required else Hosts(settings.hosts)
        self._in_flight = 0
        self._prefix, self._numbers = os.urandom(6).hex(), count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; lifespan events pass through, web sockets are refused."""
        if scope["type"] == "lifespan":
            try:
                await self.app(scope, receive, send)
            finally:
                self.logs.close()
        elif scope["type"] == "http":
            await self._visit(_Visit(scope, receive, send, self._request_id))
        else:
            await send({"type": "websocket.close", "code": 1008})

    def refused_early(self, problem: Problem) -> bytes:
        """Count bytes that never became a request, and return what they are answered with."""
        self._account(_Visit({"headers": (), "method": "none"}, None, None, self._request_id), problem.status)
        return orjson.dumps(problems.content(problem))

    def _request_id(self, sent: bytes | None) -> str:
        """Take the id that came if it is one (letters, digits, ``-_.``), else make one."""
        if sent and len(sent) <= LONGEST_REQUEST_ID and not sent.translate(None, _ID_CHARACTERS):
            return sent.decode()
        return f"{self._prefix}-{next(self._numbers)}"

    async def _visit(self, visit: _Visit) -> None:
        self._in_flight += 1
        self.metrics.in_flight = self._in_flight
        try:
            reply = await self._reply(visit)
            if reply is None:
                self._account(visit, visit.status)
            else:
                self._account(visit, reply.status, None if visit.method == "HEAD" else reply.told)
                await self._send(visit, reply)
        finally:
            self._in_flight -= 1
            self.metrics.in_flight = self._in_flight

    async def _reply(self, visit: _Visit) -> HotReply | None:
        """Return what is to be sent; None where the app has sent it, or nobody is left to read it."""
        try:
            return await self._answer(visit)
        except Problem as problem:
            return _reply_to(problem)
        except Gone:
            visit.status = CLOSED_BY_CALLER
        except Exception as error:
            self.logs.failure(error, visit.request_id, visit.template)
            visit.status = Failure.status
            if not visit.has_started:
                return _reply_to(Failure())
        return None

    async def _answer(self, visit: _Visit) -> HotReply | None:
        """Return the reply, or None if the app has sent its own; raises Problem for every refusal."""
        if self.hosts is not None:
            self.hosts.check(visit.headers)
        if self.origins.is_preflight(visit.method, visit.headers):
            return self.origins.preflight(self.routes.allowed(visit.scope))
        declared = declared_bytes(visit.headers)
        # What is little is left to the protocol, which skips it: the connection stays good.
        visit.must_close = declared is None or declared > LARGE or b"expect" in visit.headers
        route, params = self.routes.find(visit.method, visit.scope)
        visit.template = route.template
        if self._in_flight > self.most_in_flight and route.template not in PROBES:
            raise Busy
        await self._let_in(visit, route)
        body = b""
        if declared != 0:
            most = self.most_batch_bytes if route.template == BATCH else self.most_bytes
            visit.must_close = True
            body = await self.intake.read(visit.receive, declared, most)
        visit.must_close = False
        if route.handler is None:
            await self._ask_app(visit, body)
            return None
        media_type = visit.headers.get(b"content-type", b"")
        if visit.method == "POST" and media_type != _JSON and not _is_json(media_type):
            raise WrongMediaType("Send the body with the header Content-Type: application/json.")
        scope = visit.scope
        query = scope.get("query_string", b"")
        asked = HotRequest(
            visit.method, scope["path"], params, query, body, media_type, visit.key_id, visit.request_id
        )
        return await route.handler(asked)

    async def _let_in(self, visit: _Visit, route: Route) -> None:
        """Check key, scope and rate."""
        needed = route.scope
        sent = visit.headers.get(b"authorization")
        if needed is not None and self.keys is not None and (sent or self.keys.required):
            await self.keys.keep_fresh()
            key = self.keys.check(sent)
            if key is not None:
                visit.key_id = key.key_id
                if not key.may(needed):
                    raise problems.ScopeLacking(needed)
        if self.rates is not None and route.template not in PROBES:
            has_key = visit.key_id is not ANONYMOUS
            caller = visit.key_id if has_key else caller_of(visit.scope.get("client"))
            self.rates.take(caller, visit.started)

    async def _ask_app(self, visit: _Visit, body: bytes) -> None:
        """Hand the request with its whole body to the FastAPI app, and send what it sends."""
        given = False

        async def receive() -> Message:
            nonlocal given
            if given:
                return await visit.receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.body" and visit.method == "HEAD":
                message = {**message, "body": b""}
            if message["type"] == "http.response.start":
                visit.has_started, visit.status = True, message["status"]
                headers = list(message.get("headers", ()))
                own = {name for name, _ in headers}
                headers += [header for header in _GUARDS if header[0] not in own]
                message = {**message, "headers": [*headers, *self._headers_of(visit)]}
            await visit.send(message)

        visit.scope["stepin.key_id"], visit.scope["stepin.request_id"] = visit.key_id, visit.request_id
        # HEAD is answered as GET is, without the body.
        scope = {**visit.scope, "method": "GET"} if visit.method == "HEAD" else visit.scope
        await self.app(scope, receive, send)

    def _headers_of(self, visit: _Visit) -> list[tuple[bytes, bytes]]:
        """Headers that depend on the request: its id, and leave for a web page that may read the reply."""
        return [(b"x-request-id", visit.request_id.encode()), *self.origins.headers(visit.headers)]

    async def _send(self, visit: _Visit, reply: HotReply) -> None:
        own = [name for name, _ in reply.headers]
        guards = [each for each in _GUARDS if each[0] not in own] if own else _GUARDS
        headers = [*guards, *reply.headers, *self._headers_of(visit)]
        if reply.status != 204:
            headers.append((b"content-type", reply.media_type))
            headers.append((b"content-length", str(len(reply.body)).encode()))
        body = b"" if visit.method == "HEAD" else reply.body
        if not visit.must_close:
            await visit.send({"type": "http.response.start", "status": reply.status, "headers": headers})
            await visit.send({"type": "http.response.body", "body": body})
            return
        # To close while bytes come in would tear the reply away: the caller reads it first, then we close.
        headers.append((b"connection", b"close"))
        await visit.send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await visit.send({"type": "http.response.body", "body": body, "more_body": True})
        if reply.status != TooSlow.status and b"expect" not in visit.headers:
            await drain(visit.receive)
        await visit.send({"type": "http.response.body", "body": b""})

    def _account(self, visit: _Visit, status: int, told: Told | None = None) -> None:
        seconds = time.perf_counter() - visit.started
        told = told or visit.scope.get(TOLD)
        self.metrics.dropped_lines = self.logs.dropped
        self.metrics.request(visit.template, visit.method, status, seconds)
        if told is not None:
            self.metrics.told(told)
        if self.logs.is_on:
            self.logs.line(
                {
                    "time": datetime.now(UTC),
                    "request_id": visit.request_id,
                    "key_id": visit.key_id,
                    "method": visit.method if visit.method in METHODS else "other",
                    "route": visit.template,
                    "status": status,
                    "ms": round(1000 * seconds, 3),
                    "model": told.digest if told else None,
                    "answers": len(told.advice) if told else 0,
                }
            )


class _Visit:
    """One request on its way through the door."""

    __slots__ = (
        "has_started",
        "headers",
        "key_id",
        "method",
        "must_close",
        "receive",
        "request_id",
        "scope",
        "send",
        "started",
        "status",
        "template",
    )

    def __init__(
        self, scope: Scope, receive: Any, send: Any, request_id: Callable[[bytes | None], str]
    ) -> None:
        self.started = time.perf_counter()
        self.scope, self.receive, self.send = scope, receive, send
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = request_id(self.headers.get(b"x-request-id"))
        self.key_id, self.template = ANONYMOUS, NO_ROUTE
        self.has_started = self.must_close = False
        self.status = Failure.status  # until the app has said another


def _is_json(media_type: bytes) -> bool:
    return media_type.partition(b";")[0].strip().lower() == _JSON


def _reply_to(problem: Problem) -> HotReply:
    headers = tuple((name.lower().encode(), value.encode()) for name, value in problem.headers.items())
    return HotReply(
        orjson.dumps(problems.content(problem)), problem.status, MEDIA_TYPE.encode(), None, headers
    )

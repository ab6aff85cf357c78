"""HTTP as uvicorn speaks it (httptools), with bounds on what comes before the body.

The parser takes headers of any size, and waits for their end for ever: a few hundred silent connections, or
one endless header, would be enough to harm the other callers. Bytes that are no request, too large a head and
one that does not end are answered with problem+json, as everything else is, and the connection is closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving import problems
from serving.problems import HeadTooLarge, NotHttp, Problem, TooSlow

MOST_HEAD_BYTES = 32 * 1024
"""Request line and headers together."""
HEAD_SECONDS = 0.8
"""From the first byte of a head to its last."""
SILENT_SECONDS = 5.0
"""A new connection on which nothing comes is closed."""
LINGER_SECONDS = 1.0
"""What still comes after a refusal is thrown away for so long: to close at once would tear the reply away."""
UNREAD_SECONDS = 60.0
"""A reply that its caller has not read by then is dropped with its connection: it takes our memory."""


class GuardedProtocol(HttpToolsProtocol):
    """One connection. Give it to uvicorn as `http`, and `ws="none"`: there are no web sockets here."""

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._awaits_head = True
        self._head_bytes = 0
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None
        self._refusal: Problem | None = None
        self._was_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the patience with a silent caller."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(SILENT_SECONDS, self._out_of_patience)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timers."""
        self._stop_timer()
        if self._unread_timer is not None:
            self._unread_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; refuse what is no request."""
        if self._was_refused:
            return
        self._unset_keepalive_if_required()
        self._received = len(data)
        had_waited = self._head_bytes > 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # to a protocol that is not spoken here: the request is answered as it is
        except httptools.HttpParserError:
            self._refuse(self._refusal or NotHttp())
            return
        if not self._awaits_head:
            self._stop_timer()
            return
        self._head_bytes += len(data)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._refuse(HeadTooLarge(MOST_HEAD_BYTES))
        elif not had_waited:
            self._stop_timer()
            self._timer = self.loop.call_later(HEAD_SECONDS, self._out_of_patience)

    def on_message_begin(self) -> None:
        """Start a request."""
        super().on_message_begin()
        self._awaits_head = True

    def on_headers_complete(self) -> None:
        """Start the request's task, if its head is not too large."""
        self._awaits_head = False
        came, self._head_bytes = self._head_bytes + self._received, 0
        if came > MOST_HEAD_BYTES:  # what came last may be body for the most part
            size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            if size > MOST_HEAD_BYTES:
                self._refusal = HeadTooLarge(MOST_HEAD_BYTES)
                raise ValueError
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Start the patience with a caller who does not read."""
        super().on_response_complete()
        if self._unread_timer is None and self.transport.get_write_buffer_size():
            self._unread_timer = self.loop.call_later(UNREAD_SECONDS, self._drop_unread)

    def _drop_unread(self) -> None:
        self._unread_timer = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _out_of_patience(self) -> None:
        self._timer = None
        if self._head_bytes:
            self._refuse(TooSlow())
        elif not self.transport.is_closing():
            self.transport.close()

    def _has_reply_under_way(self) -> bool:
        """Was a whole request taken whose reply is not yet sent, or is one being sent?"""
        if self.cycle is None or self.cycle.response_complete:
            return False
        return self.cycle.response_started or not self.cycle.more_body or bool(self.pipeline)

    def _refuse(self, problem: Problem) -> None:
        """Answer bytes that are no request, and close; a reply that is under way is finished first."""
        self._stop_timer()
        self._awaits_head, self._head_bytes = False, 0
        if self.transport.is_closing():
            return
        if self._has_reply_under_way():
            self.cycle.keep_alive = False
            self.flow.pause_reading()
            return
        app: Any = self.app
        while app is not None and not hasattr(app, "refused_early"):  # uvicorn may have wrapped the door
            app = getattr(app, "app", None)
        body = app.refused_early(problem) if app else orjson.dumps(problems.content(problem))
        self.transport.write(
            b"%bcontent-type: %b\r\ncontent-length: %d\r\nx-content-type-options: nosniff\r\n"
            b"cache-control: no-store\r\nconnection: close\r\n\r\n%b"
            % (STATUS_LINE[problem.status], problems.MEDIA_TYPE.encode(), len(body), body)
        )
        self._was_refused = True
        if self.cycle is not None and not self.cycle.response_complete:  # its body was no body: nobody waits
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

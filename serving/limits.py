"""How much may come in, how fast, and how often: what one caller can take from the others is bounded."""

from __future__ import annotations

import asyncio
import math
import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from serving.problems import Busy, NotHttp, TooLarge, TooManyRequests, TooSlow

Receive = Callable[[], Coroutine[Any, Any, Any]]
BYTES_PER_SECOND = 100_000
"""A body may take `body_seconds`, and a second more for each so many bytes of it that have come."""
MOST_BUFFERED = 64 * 1024 * 1024
"""Bytes of large bodies that one worker holds at the same time."""
LARGE = 64 * 1024
MOST_BUCKETS = 10_000
_ROUNDING = 1e-6
DRAIN_SECONDS, DRAIN_BYTES = 1.0, 256 * 1024 * 1024


class Gone(Exception):  # noqa: N818 - no error: nobody is left to tell
    """The caller hung up before the request was whole."""


def declared_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    """Return the length that a request declares for its body: 0 without one, None if it is not told."""
    if b"transfer-encoding" in headers:
        return None
    text = headers.get(b"content-length", b"0")
    if not text.isdigit():
        raise NotHttp
    return int(text) if len(text) < 19 else 1 << 63


class Intake:
    """Reads bodies within their size and their time, and knows how much of them is held.

    Parameters
    ----------
    body_seconds : patience with a body, to which each 100 kB of it that have come add a second
    """

    def __init__(self, body_seconds: float) -> None:
        self.body_seconds = body_seconds
        self.held_bytes = 0

    async def read(self, receive: Receive, declared: int | None, most_bytes: int) -> bytes:
        """Return the whole body.

        Raises
        ------
        TooLarge, TooSlow, Busy
            What is left of the body has not been read then.
        Gone
            The caller hung up.
        """
        if declared is not None and declared > most_bytes:
            raise TooLarge(most_bytes)
        coming = receive()
        try:
            waits_for = coming.send(None)
        except StopIteration as at_once:  # it came with the headers, as most do: no timer is needed
            message = at_once.value
            if message["type"] == "http.request" and not message.get("more_body", False):
                body: bytes = message.get("body", b"")
                if len(body) > most_bytes:
                    raise TooLarge(most_bytes) from None
                return body
            waits_for = None
        else:
            message = None
        deadline = _Deadline(self.body_seconds)
        try:
            if message is None:
                message = await _go_on(coming, waits_for)
            return await self._read_on(receive, message, most_bytes, deadline)
        except asyncio.CancelledError:
            if not deadline.has_passed:
                raise
            deadline.task.uncancel()
            raise TooSlow from None
        finally:
            deadline.handle.cancel()

    async def _read_on(self, receive: Receive, message: Any, most_bytes: int, deadline: _Deadline) -> bytes:
        """Read a body that comes in pieces."""
        pieces, size = [], 0
        try:
            while message["type"] == "http.request":
                piece = message.get("body", b"")
                size += len(piece)
                self.held_bytes += len(piece)
                deadline.bytes_come = size
                if size > most_bytes:
                    raise TooLarge(most_bytes)
                if size > LARGE and self.held_bytes > MOST_BUFFERED:
                    raise Busy
                pieces.append(piece)
                if not message.get("more_body", False):
                    return b"".join(pieces)
                message = await receive()
            raise Gone
        finally:
            self.held_bytes -= size


@types.coroutine
def _go_on(coroutine: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Await the rest of a coroutine whose first step was taken by hand, and yielded `waits_for`."""
    while True:
        try:
            came = yield waits_for
        except BaseException as thrown:
            step = partial(coroutine.throw, thrown)
        else:
            step = partial(coroutine.send, came)
        try:
            waits_for = step()
        except StopIteration as ended:
            return ended.value


async def drain(receive: Receive) -> None:
    """Throw away what still comes of a body that was refused, for a second and up to 256 MiB."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            left = DRAIN_BYTES
            while left > 0:
                message = await receive()
                left -= len(message.get("body", b""))
                if not message.get("more_body", False):
                    return


class _Deadline:
    """Cancels the task that reads once its time is over; what has come in the meantime buys more."""

    __slots__ = ("bytes_come", "handle", "has_passed", "loop", "seconds", "start", "task")

    def __init__(self, seconds: float) -> None:
        self.loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.seconds, self.start = seconds, self.loop.time()
        self.bytes_come, self.has_passed = 0, False
        self.handle = self.loop.call_later(seconds, self._check)

    def _check(self) -> None:
        left = self.start + self.seconds + self.bytes_come / BYTES_PER_SECOND - self.loop.time()
        if left > 0.001:
            self.handle = self.loop.call_later(left, self._check)
            return
        self.has_passed = True
        self.task.cancel()


class Rates:
    """A token bucket for each caller, of one worker process: with several, each grants the rate.

    A caller may send a minute's requests at once, then one whenever a token has come back. Memory is
    bounded: beyond 10,000 callers the one that has been quiet longest is forgotten, and starts afresh.
    """

    def __init__(self, per_minute: float, most_buckets: int = MOST_BUCKETS) -> None:
        self.capacity = max(1.0, per_minute)
        self.per_second = per_minute / 60.0
        self.most_buckets = most_buckets
        self._buckets: dict[str, tuple[float, float]] = {}

    def take(self, caller: str, now: float) -> None:
        """Take a token of `caller` at `now` (seconds of any clock that only goes forward).

        Raises
        ------
        TooManyRequests
            None is left; it tells after how many whole seconds there will be one.
        """
        kept = self._buckets.pop(caller, (self.capacity, now))
        tokens = min(self.capacity, kept[0] + (now - kept[1]) * self.per_second)
        if len(self._buckets) >= self.most_buckets:
            del self._buckets[next(iter(self._buckets))]
        if tokens < 1.0 - _ROUNDING:
            self._buckets[caller] = kept
            raise TooManyRequests(max(1, math.ceil((1.0 - tokens) / self.per_second - _ROUNDING)))
        self._buckets[caller] = (tokens - 1.0, now)


def caller_of(client: tuple[str, int] | None) -> str:
    """Return what stands for an address: itself, or the /64 that one holder of IPv6 addresses commands."""
    host = client[0] if client else ""
    if ":" not in host:
        return host
    import ipaddress

    try:
        return str(ipaddress.ip_network(f"{host.partition('%')[0]}/64", strict=False))
    except ValueError:
        return host

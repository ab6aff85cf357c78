"""What the server says while it runs: one JSON line for each request and event, on stderr.

A line holds what the service itself made or knows: route templates, ids of keys, statuses. What a request
sent (its path, its query, its body, its headers) is never part of it, but for a request id that is checked.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

FLUSH_SECONDS = 0.05
MOST_AT_ONCE = 4096
"""Bytes that several processes can write to one pipe without mixing their lines (PIPE_BUF on Linux)."""
MOST_WAITING = 1024
_HERE = Path(__file__).parents[1]


class Logs:
    """Writes lines in a thread of its own, so that a reader who has stopped reading stops nobody else.

    Lines are gathered for 50 ms; these are lost if the process is killed. Where more than 4 MB wait for the
    reader the next ones are dropped, and counted in `dropped`.

    Parameters
    ----------
    write : takes the bytes of whole lines, at most 4096; None writes nothing
    """

    def __init__(self, write: Callable[[bytes], object] | None) -> None:
        self._write = write
        self.is_on = write is not None
        self.dropped = 0
        self._lines: list[bytes] = []
        self._size = 0
        self._lock = threading.Lock()
        self._will_flush = False
        self._chunks: queue.Queue[bytes | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None

    @classmethod
    def of(cls, setting: str) -> Logs:
        """Return what STEPIN_LOG asks for: ``json`` lines on stderr, or ``off``."""
        return cls((lambda chunk: os.write(2, chunk)) if setting == "json" else None)

    def event(self, kind: str, **facts: Any) -> None:
        """Tell of something that is no request: start, swap, journal_lost. Facts are our own words."""
        self.line({"time": datetime.now(UTC), "event": kind, **facts})

    def failure(self, error: BaseException, request_id: str, route: str) -> None:
        """Tell where our code failed. The error's own message may hold what was sent: it is left out."""
        frames = traceback.extract_tb(error.__traceback__)
        where = [
            f"{Path(frame.filename).relative_to(_HERE)}:{frame.lineno}"
            for frame in frames
            if Path(frame.filename).is_relative_to(_HERE) and "site-packages" not in frame.filename
        ]
        name = type(error).__name__
        self.event("failure", request_id=request_id, route=route, error=name, where=where[-8:])

    def line(self, facts: dict[str, Any]) -> None:
        """Write `facts` as one line soon."""
        if not self.is_on:
            return
        line = orjson.dumps(facts, option=orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE, default=str)
        with self._lock:  # the journal's thread tells of what befalls it
            if self._size + len(line) > MOST_AT_ONCE:
                self._hand_over()
            self._lines.append(line)
            self._size += len(line)
        if not self._will_flush:
            self._flush_later()

    def _flush_later(self) -> None:
        try:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        except RuntimeError:  # another thread, or no loop runs
            self.flush()
        else:
            self._will_flush = True

    def flush(self) -> None:
        """Hand the gathered lines to the thread that writes."""
        self._will_flush = False
        with self._lock:
            self._hand_over()

    def _hand_over(self) -> None:
        if not self._lines:
            return
        chunk, n_lines = b"".join(self._lines), len(self._lines)
        self._lines, self._size = [], 0
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="stepin-log", daemon=True)
            self._thread.start()
        try:
            self._chunks.put_nowait(chunk)
        except queue.Full:
            self.dropped += n_lines

    def close(self, seconds: float = 1.0) -> None:
        """Write what is left, within `seconds`; later lines start anew."""
        self.flush()
        thread, self._thread = self._thread, None
        if thread is not None:
            try:
                self._chunks.put(None, timeout=seconds)
            except queue.Full:
                return
            thread.join(seconds)

    def _run(self) -> None:
        assert self._write is not None
        while (chunk := self._chunks.get()) is not None:
            try:
                self._write(chunk)
            except (OSError, ValueError):
                self.dropped += chunk.count(b"\n")

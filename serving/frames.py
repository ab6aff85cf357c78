"""Messages between the server and its builder: JSON with its length before it, over a Unix socket."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import orjson

MOST_BYTES = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class BadFrame(Exception):  # noqa: N818 - what came, rather than whose error
    """What came over the socket is no message of ours."""


async def receive(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """Wait for the next message; None when the other side has ended.

    Raises
    ------
    BadFrame
        It is too long, or no JSON object.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MOST_BYTES:
            raise BadFrame
        message = orjson.loads(await reader.readexactly(length))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    except orjson.JSONDecodeError:
        raise BadFrame from None
    if not isinstance(message, dict):
        raise BadFrame
    return message


def send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    """Put a message on its way."""
    body = orjson.dumps(message)
    writer.write(_LENGTH.pack(len(body)) + body)

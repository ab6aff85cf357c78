"""What happens before a request is one: on real connections to a server within this process."""

import asyncio
import json
import time

import pytest
import uvicorn

from serving import protocol
from serving.protocol import GuardedProtocol

OK = b"HTTP/1.1 200 OK"


async def app(scope, receive, send):
    """Say the path and the number of bytes that came; some paths take time, one does not read."""
    size, more = 0, scope["path"] != "/hasty"
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    if scope["path"] in ("/slow", "/hasty"):
        await asyncio.sleep(0.3)
    body = b"z" * 50_000_000 if scope["path"] == "/large" else f"{scope['path']} {size};".encode()
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


def talk(*pieces, pause=0.0, app=app, reads_late=False, stays=0.0):
    """Send the pieces on one connection; return all that came back until it closed, and the seconds."""

    async def go():
        config = uvicorn.Config(
            app, port=0, http=GuardedProtocol, ws="none", log_config=None, lifespan="off", server_header=False
        )
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            return await exchange(reader, writer)
        finally:
            writer.close()
            server.should_exit = True
            await serving

    async def exchange(reader, writer):
        start = time.monotonic()
        if reads_late:
            writer.transport.pause_reading()
        reading = asyncio.create_task(reader.read())
        for piece in pieces:
            if reading.done():  # refused: the rest is of no interest to anybody
                break
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        if reads_late:
            await asyncio.sleep(0.1)
            writer.transport.resume_reading()
        done, _ = await asyncio.wait((reading,), timeout=3)
        await asyncio.sleep(stays)
        reading.cancel()
        try:
            return reading.result() if done else b"left open", time.monotonic() - start
        except ConnectionError:
            return bytes(reader._buffer) or b"torn", time.monotonic() - start

    return asyncio.run(go())


def get(path, *headers, closes=True):
    lines = [f"GET {path} HTTP/1.1", "host: x", *headers, *(["connection: close"] if closes else [])]
    return "\r\n".join([*lines, "", ""]).encode()


def problem_of(answer):
    top, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in top
    assert b"connection: close" in top
    told = json.loads(body)
    assert answer.startswith(b"HTTP/1.1 %d " % told["status"])
    return told["status"], told["type"].removeprefix("urn:stepin:problem:")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "SILENT_SECONDS", 0.6)


@pytest.mark.parametrize("size", [100, 20_000, 32_000])
def test_an_honest_head_passes_whole_or_in_pieces(size):
    whole = get("/a", f"x-long: {'y' * size}")
    for pieces in (
        [whole],
        [whole[:15], whole[15:]],
        [whole[i : i + 5000] for i in range(0, len(whole), 5000)],
    ):
        answer, _ = talk(*pieces, pause=0.01)
        assert answer.startswith(OK)
        assert answer.endswith(b"/a 0;")


@pytest.mark.parametrize("size", [33_000, 200_000, 1_000_000])
@pytest.mark.parametrize("where", ["header", "name", "path"])
def test_a_head_that_is_too_large_is_refused(size, where):
    long = "y" * size
    heads = {"header": get("/a", f"x: {long}"), "name": get("/a", f"{long}: 1"), "path": get(f"/{long}")}
    whole = heads[where]
    for pieces in ([whole], [whole[i : i + 10_000] for i in range(0, min(len(whole), 60_000), 10_000)]):
        answer, _ = talk(*pieces, pause=0.001)
        assert problem_of(answer) == (431, "head-too-large")


def test_who_reads_only_after_sending_all_still_gets_the_refusal():
    answer, _ = talk(*[b"x" * 100_000] * 100, reads_late=True)
    assert problem_of(answer) == (400, "not-http")


def test_a_large_body_in_one_piece_with_its_head_passes():
    body = b"z" * 150_000
    answer, _ = talk(get("/a", f"content-length: {len(body)}") + body)
    assert answer.startswith(OK)
    assert answer.endswith(b"/a 150000;")


def test_a_head_that_does_not_end_is_refused_in_time():
    answer, seconds = talk(*[b"GET /a HTTP/1.1\r\n", *[b"x: y\r\n"] * 100], pause=0.05, app=app)
    assert problem_of(answer) == (408, "too-slow")
    answer, seconds = talk(b"G")
    assert problem_of(answer) == (408, "too-slow")
    assert 0.2 < seconds < 1.5


def test_a_silent_connection_is_closed():
    answer, seconds = talk()
    assert answer == b""
    assert 0.5 < seconds < 2


def test_a_second_request_on_a_connection_has_patience_of_its_own():
    first, second = get("/a", closes=False), get("/b")
    answer, _ = talk(first, second[:10], second[10:], pause=0.2)
    assert answer.count(OK) == 2
    assert answer.endswith(b"/b 0;")
    answer, _ = talk(first, second[:10], pause=0.05)
    assert answer.count(OK) == 1
    assert problem_of(answer[answer.rindex(b"HTTP/1.1 4") :]) == (408, "too-slow")


def test_many_small_requests_at_once_are_all_answered():
    answer, _ = talk(b"".join(get(f"/{n}", closes=n == 199) for n in range(200)))
    assert answer.count(OK) == 200
    assert answer.endswith(b"/199 0;")


def test_a_body_may_take_longer_than_a_head():
    start = get("/a", "content-length: 5")
    answer, _ = talk(start, *[b"z"] * 5, pause=0.15)
    assert answer.endswith(b"/a 5;")


@pytest.mark.parametrize(
    "bytes_sent", [b"\x16\x03\x01\x02\x00", b"HELLO\r\n\r\n", b"GET / HTTP/1.1\r\nx y\r\n\r\n"]
)
def test_bytes_that_are_no_request_are_told_so(bytes_sent):
    assert problem_of(talk(bytes_sent)[0]) == (400, "not-http")


def test_a_reply_that_is_under_way_is_not_torn_by_what_follows():
    answer, _ = talk(get("/slow", closes=False), b"GARBAGE\r\n\r\n", pause=0.05)
    assert answer.count(b"HTTP/1.1") == 1


def test_a_body_that_breaks_off_into_nonsense_is_refused_once(caplog):
    start = get("/hasty", "transfer-encoding: chunked", closes=False)
    answer, _ = talk(start, b"3\r\nabc\r\n", b"zz\r\n", pause=0.05, stays=0.5)
    assert problem_of(answer) == (400, "not-http")
    assert OK not in answer
    assert caplog.records == []


@pytest.mark.parametrize("closes", [True, False])
def test_a_reply_that_nobody_reads_is_dropped_after_a_while(monkeypatch, closes):
    monkeypatch.setattr(protocol, "UNREAD_SECONDS", 0.3)
    whole, _ = talk(get("/large", closes=True))
    assert len(whole) > 50_000_000
    torn, _ = talk(get("/large", closes=closes), reads_late=True, pause=0.6)
    assert 0 < len(torn) < 50_000_000


def test_an_upgrade_is_answered_as_the_request_that_it_is():
    answer, _ = talk(
        get("/a", "upgrade: websocket", "sec-websocket-key: x", "connection: Upgrade", closes=False)
    )
    assert answer == b"left open" or answer.startswith(OK)


def test_the_door_counts_what_never_became_a_request():
    counted = []

    class Door:
        def refused_early(self, problem):
            counted.append(problem.status)
            return b'{"status":400,"type":"urn:stepin:problem:x"}'

        async def __call__(self, scope, receive, send):
            raise AssertionError("not reached")

    assert problem_of(talk(b"nonsense\r\n\r\n", app=Door())[0]) == (400, "x")
    assert counted == [400]

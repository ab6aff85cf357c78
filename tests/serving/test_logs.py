"""Lines that are whole, soon, cheap, and stop nobody."""

import asyncio
import json
import os
import threading
import time
from datetime import UTC, datetime

import pytest

from serving.logs import MOST_AT_ONCE, Logs


def test_a_line_is_written_as_one_json_document():
    written = bytearray()
    logs = Logs(written.extend)
    logs.event("start", workers=2, sentence="a\nb")
    logs.close()
    (line,) = bytes(written).splitlines()
    told = json.loads(line)
    assert {**told, "time": ""} == {"time": "", "event": "start", "workers": 2, "sentence": "a\nb"}
    assert abs((datetime.now(UTC) - datetime.fromisoformat(told["time"])).total_seconds()) < 60


def test_off_writes_nothing_and_starts_no_thread():
    before = threading.active_count()
    logs = Logs.of("off")
    logs.event("start")
    logs.close()
    assert not logs.is_on
    assert threading.active_count() == before


def test_lines_are_gathered_and_never_cut():
    chunks = []

    async def go():
        logs = Logs(chunks.append)
        for n in range(200):
            logs.line({"n": n, "text": "x" * 90})
        at_once = len(chunks)
        await asyncio.sleep(0.2)
        logs.close()
        return at_once

    asyncio.run(go())
    assert [json.loads(line)["n"] for line in b"".join(chunks).splitlines()] == list(range(200))
    assert all(chunk.endswith(b"\n") and len(chunk) <= MOST_AT_ONCE for chunk in chunks)
    assert len(chunks) < 20


def test_a_line_is_there_soon_without_another():
    written = bytearray()

    async def go():
        Logs(written.extend).line({"n": 1})
        await asyncio.sleep(0.3)
        return bytes(written)

    assert asyncio.run(go()) == b'{"n":1}\n'


def test_a_reader_who_has_stopped_reading_stops_nobody_and_what_is_lost_is_counted():
    reading, writing = os.pipe()
    logs = Logs(lambda chunk: os.write(writing, chunk))
    start = time.monotonic()
    for _ in range(3000):
        logs.line({"text": "x" * 4000})
    assert time.monotonic() - start < 5
    assert logs.dropped > 1000
    os.close(reading)  # the thread's write ends with EPIPE, and what waits with it
    logs.close(5)
    os.close(writing)
    assert logs.dropped > 2900


def test_two_processes_on_one_pipe_do_not_mix_their_lines():
    reading, writing = os.pipe()
    logs = [Logs(lambda chunk: os.write(writing, chunk)) for _ in range(2)]
    came = bytearray()

    def read():
        while piece := os.read(reading, 65536):
            came.extend(piece)

    reader = threading.Thread(target=read)
    reader.start()
    for n in range(500):
        for who, log in enumerate(logs):
            log.line({"who": who, "n": n, "text": "x" * 50})
    for log in logs:
        log.close(5)
    os.close(writing)
    reader.join(10)
    os.close(reading)
    told = [json.loads(line) for line in bytes(came).splitlines()]
    for who in range(2):
        assert [line["n"] for line in told if line["who"] == who] == list(range(500))


def test_lines_of_several_threads_are_all_there():
    written = bytearray()
    logs = Logs(written.extend)

    def tell(who):
        for n in range(300):
            logs.line({"who": who, "n": n})

    async def go():
        others = [asyncio.to_thread(tell, who) for who in (1, 2, 3)]
        tell(0)
        await asyncio.gather(*others)

    asyncio.run(go())
    logs.close(5)
    told = [json.loads(line) for line in bytes(written).splitlines()]
    assert [[line["n"] for line in told if line["who"] == who] for who in range(4)] == [list(range(300))] * 4
    assert logs.dropped == 0


def secret_failure():
    raise ValueError("secret")


def test_a_failure_tells_where_and_not_what():
    written = bytearray()
    logs = Logs(written.extend)
    try:
        secret_failure()
    except ValueError as error:
        logs.failure(error, "r-1", "/v1/x")
    logs.close()
    told = json.loads(bytes(written))
    assert (told["error"], told["request_id"], told["route"]) == ("ValueError", "r-1", "/v1/x")
    assert [place.split(":")[0] for place in told["where"]] == ["tests/serving/test_logs.py"] * 2
    assert b'secret"' not in written


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_stream_that_is_closed_is_no_failure(error):
    def write(_chunk):
        raise error

    logs = Logs(write)
    logs.line({"n": 1})
    logs.close()
    assert logs.dropped == 1

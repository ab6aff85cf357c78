"""500 requests that no honest caller sends, to a real server: each is refused in time, in form, in silence.

Every one bears a mark of its own in what it sends (values, headers, paths; not names of fields, which an
error may repeat). Neither a reply nor the log may hold it.
"""

import asyncio
import gzip
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RUN = """
import sys
from pathlib import Path
from serving.server import serve
from serving.settings import Settings
serve(Settings(Path(sys.argv[1]), database=sys.argv[2]), port=0)
"""
COUNT = 500
SECONDS = 1.0
AT_ONCE = 8
ONE, MANY = "/v1/recommendations", "/v1/recommendations/batch"
HONEST = {"deal_id": "D-1", "features": {"stage": "propose", "amount": 120000.0, "competitor": "acme"}}
JSON = "application/json"


@dataclass(frozen=True)
class Hostile:
    """What is sent: `start` at once, then `more` as it comes, while the reply is awaited."""

    family: str
    start: bytes
    mark: str
    more: Callable[[], AsyncIterator[bytes]] | None = field(default=None, compare=False)


def head(method: str, path: str, *headers: str) -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: localhost", *headers)
    return "\r\n".join((*lines, "", "")).encode("utf-8", "surrogateescape")


def post(body: object, path: str = ONE, media_type: str = JSON, *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    declared = (f"content-type: {media_type}", f"content-length: {len(content)}", *headers)
    return head("POST", path, *declared) + content


def deal(mark: str, **features: object) -> dict:
    return {"deal_id": mark, "features": features}


# Families: each makes one request of `rng` and a mark


def deep_json(rng, mark):
    depth = rng.choice([200, 1_000, 5_000, 100_000])
    opening, closing = rng.choice([(b"[", b"]"), (b'{"features":', b"}")])
    inner = json.dumps(mark).encode()
    closed = opening * depth + inner + closing * depth
    return post(rng.choice([closed, opening * depth + inner]), rng.choice([ONE, MANY]))


def huge_numbers(rng, mark):
    number = rng.choice(["1e999", "-1e400", "9" * 400, "-" + "9" * 5000, "1" + "0" * 310])
    return post(f'{{"deal_id": "{mark}", "features": {{"amount": {number}}}}}'.encode())


def no_numbers(rng, mark):
    number = rng.choice(["NaN", "Infinity", "-Infinity", "nan", "1e", "01", "0x1F", "+1", ".5", "1_000"])
    return post(f'{{"deal_id": "{mark}", "features": {{"amount": {number}}}}}'.encode())


def unicode_tricks(rng, mark):
    trick = rng.choice(["\\ud800", "\\udfff", "\\u0000", "\\u0007", "\\u001b[31m", "\\ud800\\u0041"])
    where = rng.choice([f'{{"deal_id": "{mark}{trick}", "features": {{}}}}', ""])
    lone = rng.choice(["\\ud800", "\\udc00"])
    return post((where or f'{{"deal_id": "D", "features": {{"stage": "{mark}{lone}"}}}}').encode())


def wrong_types(rng, mark):
    wrong = rng.choice([mark, [mark], {mark: 1}, True, -1 if rng.random() < 0.1 else [mark, None]])
    name = rng.choice(["amount", "days_open", "pair_wins_before", "stage_moves"])
    if wrong == -1:
        wrong = f"'; DROP TABLE answers; -- {mark}"
    bodies = [
        deal(mark, **{name: wrong}),
        deal(mark, stage=rng.choice([1, 1.5, [mark], {"a": mark}, True])),
        deal(mark, pair_first_sale=rng.choice([0, 1, mark, [mark]])),
        {"deal_id": rng.choice([7, None, [mark], {"id": mark}, True]), "features": {}},
        {"deal_id": mark, "features": rng.choice([mark, [mark], None, 7])},
        rng.choice([[deal(mark)], mark, 7, None, True]),
    ]
    return post(rng.choice(bodies))


def missing_fields(rng, mark):
    bodies = [{}, {"deal_id": mark}, {"features": {"stage": mark}}, {"deal_id": "", "features": {}}]
    if rng.random() < 0.5:
        return post(rng.choice([{}, {"deals": []}, {"deals": [{"deal_id": mark}]}]), MANY)
    return post(rng.choice(bodies))


def unknown_fields(rng, mark):
    name = rng.choice(["__proto__", "constructor", "Amount", "amount ", "", "\u202e", "a/b~c", "x" * 300])
    return post(rng.choice([{**deal(mark), name: mark}, deal(mark, **{name: mark})]))


def long_texts(rng, mark):
    text = mark * rng.choice([50, 5_000, 40_000])
    return post(rng.choice([deal(text), deal("D", stage=text)]))


def strange_times(rng, mark):
    moment = rng.choice(
        [mark, 5, [mark], "2025-13-01T00:00:00Z", "99999-01-01", "0001-01-01T00:00:00+14:00", "now", ""]
    )
    return post({**deal(mark), "as_of": moment})


def strange_batches(rng, mark):
    good = deal(mark)
    deals = rng.choice([[good] * 1001, mark, {"0": good}, None, [good] * 50 + [deal(mark, amount=mark)]])
    return post({"deals": deals}, MANY)


def duplicate_fields(rng, mark):
    bodies = [
        f'{{"deal_id": "{mark}", "features": {{}}, "deal_id": 5}}',
        f'{{"deal_id": "{mark}", "features": {{}}, "features": ["{mark}"]}}',
        f'{{"deal_id": "D", "features": {{"amount": 1, "amount": "{mark}"}}}}',
    ]
    return post(rng.choice(bodies).encode())


def no_json(rng, mark):
    text = mark.encode()
    bodies = [
        b"",
        b"{",
        b'{"deal_id"',
        b"deal_id=" + text,
        b"<deal>" + text,
        b'{"deal_id": "a",}',
        b"'" + text,
    ]
    bodies += [b'{"deal_id": "a"} ' + text, b"\x00" * 50, b"{} {}", b"// " + text + b"\n{}", b"--" + text]
    return post(rng.choice(bodies), rng.choice([ONE, MANY]))


def bad_utf8(rng, mark):
    text = mark.encode()
    bad = rng.choice([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf5\x80\x80\x80", b"\xe2\x82", b"\x80"])
    body = b'{"deal_id": "' + text + bad + b'", "features": {}}'
    whole = json.dumps(deal(mark))
    return post(rng.choice([body, body, whole.encode("utf-16")]))


def wrong_media_types(rng, mark):
    kind = rng.choice(
        [
            "text/plain",
            "application/xml",
            "multipart/form-data; boundary=" + mark,
            mark,
            "application/jsonp",
            "",
        ]
    )
    return post(deal(mark), rng.choice([ONE, MANY]), kind)


def compressed(rng, mark):
    return post(gzip.compress(json.dumps(deal(mark)).encode()), ONE, JSON, "content-encoding: gzip")


def bad_headers(rng, mark):
    body = json.dumps(deal(mark)).encode()
    declared = rng.choice(
        [
            f"content-length: -{len(body)}",
            f"content-length: {mark}",
            f"content-length: {len(body)}\r\ncontent-length: {len(body) + 1}",
            f"content-length: {len(body)}\r\ntransfer-encoding: chunked",
            f"content-length: {'9' * 30}",
            f"transfer-encoding: {mark}",
            f"{mark} without a colon",
            f"x-{mark} : 1",
            f"x-mark: {mark}\x00",
            f"x-mark: {mark}\r\n folded\x01",
            f": {mark}",
        ]
    )
    return head("POST", ONE, f"content-type: {JSON}", declared) + body


def bad_chunks(rng, mark):
    start = head("POST", ONE, f"content-type: {JSON}", "transfer-encoding: chunked")
    return (
        start
        + rng.choice([b"zz\r\n", b"-5\r\n", b"fffffffffffffffff\r\n", b"5\r\nabcdefgh\r\n"])
        + mark.encode()
    )


def bad_methods(rng, mark):
    method = rng.choice(
        ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "GET", "HEAD2", "get", mark, "PROPFIND"]
    )
    return head(method, f"{ONE}?{mark}=1")


def bad_paths(rng, mark):
    path = rng.choice(
        [
            f"/{mark}",
            f"/v1/{mark}/../model",
            f"/../../etc/passwd?{mark}",
            f"/%00{mark}",
            f"//{mark}",
            f"/v1//model{mark}",
            f"/v1/recommendations/{mark}",
            f"/docs/{mark}",
            f"/%2e%2e/%2e%2e/{mark}",
            f"/{mark * 200}",
            f"/v1/model/report/..%2f..%2f{mark}",
            f"/ü{mark}",
            f"{mark}",
            f"/v1/deals/{mark}",
            f"/healthz;{mark}",
        ]
    )
    return head(rng.choice(["GET", "POST", "HEAD1"]), path)


def no_http(rng, mark):
    return rng.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + mark.encode(),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + mark.encode(),
            f"GET /{mark}\r\n\r\n".encode(),
            f"GET / HTTP/9.9\r\nx: {mark}\r\n\r\n".encode(),
            f"GET  /{mark}  HTTP/1.1\r\n\r\n".encode(),
            f"POST {ONE} HTTP/1.1 {mark}\r\n\r\n".encode(),
            b"\x00\x01\x02\x03" + mark.encode() + b"\r\n\r\n",
        ]
    )


def huge_heads(rng, mark):
    size = rng.choice([40_000, 100_000, 1_000_000])
    many = [f"x-{i}: {mark}" for i in range(size // 20)]
    heads = [
        head("GET", "/healthz", f"x-mark: {mark * (size // 16)}"),
        head("GET", "/healthz", *many),
        head("GET", f"/{mark * (size // 16)}"),
        head("GET", "/healthz", f"x-{mark * (size // 16)}: 1"),
    ]
    return rng.choice(heads)


def bad_queries(rng, mark):
    query = rng.choice(
        [f"reasons={mark}", f"reasons=all&reasons={mark}", "reasons=<script>" + mark, "reasons="]
    )
    return post(deal("D"), f"{ONE}?{query}")


def false_keys(rng, mark):
    key = rng.choice(
        [f"stepin_{mark}_x", f"stepin_{mark}", "stepin_", f"stepin__{mark}", "stepin_\xff" + mark]
    )
    return post(deal(mark), ONE, JSON, f"authorization: Bearer {key}")


def bad_records(rng, mark):
    path = rng.choice(["/v1/outcomes", "/v1/overrides"])
    return post(
        rng.choice([{}, [mark], {"deal_id": 5, "outcome": mark}, {"deal_id": mark, "decided": mark}]), path
    )


def bad_events(rng, mark):
    event = {"event_id": mark, "kind": mark, "deal_id": mark, "at": mark}
    bodies = [{}, [event], {"events": []}, {"events": [event]}, {"events": {mark: event}}, event]
    bodies += [{"events": [{**event, "kind": "stage", "at": rng.choice([5, [], "never"])}]}]
    bodies += [{"events": [event] * rng.choice([5_000, 20_000])}]
    return post(rng.choice(bodies), "/v1/events")


def bad_deal_forms(rng, mark):
    wrong = rng.choice([mark, [mark], 7, {"amount": mark}, {"amount": [mark]}, {"created_at": mark}])
    bodies = [{"deal_id": mark, "deal": wrong}, {"deal_id": mark, "deal": {}, "features": {}}]
    if rng.random() < 0.3:
        return post({"deals": [bodies[0], deal(mark)]}, MANY)
    return post(rng.choice(bodies))


def unknown_deals(rng, mark):
    odd = rng.choice(
        ["", "%00", "%0d%0aset-cookie:%20a", "%ff", "'--", "%2e%2e%2f", "?reasons=" + mark, "%F0%9F"]
    )
    return head("GET", f"/v1/deals/{mark}{odd}/recommendation".replace("?", "%3f"))


def bad_lists(rng, mark):
    query = rng.choice(
        [
            f"sort={mark}",
            f"advice={mark}",
            f"limit={mark}",
            "limit=-1",
            "limit=1e9",
            f"page={mark}",
            f"after={mark}",
        ]
    )
    return head("GET", f"{ONE}?{query}&x={mark}")


def other_protocols(rng, mark):
    kind = rng.choice(["websocket", "h2c", mark])
    return head("GET", f"/v1/{mark}", "connection: Upgrade", f"upgrade: {kind}", "sec-websocket-key: AAAA")


AT_A_TIME = (
    *(deep_json, huge_numbers, no_numbers, unicode_tricks, wrong_types, missing_fields, unknown_fields),
    *(long_texts, strange_times, strange_batches, duplicate_fields, no_json, bad_utf8, wrong_media_types),
    *(compressed, bad_headers, bad_chunks, bad_methods, bad_paths, no_http, huge_heads, bad_queries),
    *(false_keys, bad_records, other_protocols, bad_events, bad_deal_forms, unknown_deals, bad_lists),
)


# Families that take their time, or much room


def large_body(rng, mark):
    """100 MB, sent as fast as it is taken; declared, or in chunks."""
    piece = (mark * 5000).encode()
    is_declared = rng.random() < 0.5
    length = "content-length: 100000000" if is_declared else "transfer-encoding: chunked"
    path = rng.choice([ONE, MANY, "/v1/outcomes", "/v1/model"])

    async def more():
        for _ in range(100_000_000 // len(piece)):
            yield piece if is_declared else b"%x\r\n%b\r\n" % (len(piece), piece)

    method = "GET" if path == "/v1/model" else "POST"
    return head(method, path, f"content-type: {JSON}", length), more


def slow_body(rng, mark):
    length = rng.choice(["content-length: 5000", "transfer-encoding: chunked"])

    async def more():
        while True:
            await asyncio.sleep(0.05)
            yield b"1\r\n{\r\n" if "chunked" in length else b" "

    return head("POST", rng.choice([ONE, MANY]), f"content-type: {JSON}", length, f"x-mark: {mark}"), more


def slow_head(rng, mark):
    async def more():
        for letter in "x-mark: " + mark * 100:
            await asyncio.sleep(0.05)
            yield letter.encode()

    return f"GET /{mark} HTTP/1.1\r\n".encode(), more


def silent_body(rng, mark):
    async def more():
        await asyncio.sleep(60)
        yield b"{}"

    return head("POST", ONE, f"content-type: {JSON}", "content-length: 10", f"x-mark: {mark}"), more


def hostile_requests(rng, count=COUNT):
    """A list with every family, the slow and the large ones among the others."""
    special = {large_body: 16, slow_body: 24, slow_head: 8, silent_body: 8}
    makers = [maker for maker, n in special.items() for _ in range(n)]
    makers += [AT_A_TIME[i % len(AT_A_TIME)] for i in range(count - len(makers))]
    rng.shuffle(makers)
    for maker in makers:
        mark = f"zqx{rng.getrandbits(52):013x}"
        made = maker(rng, mark)
        start, more = made if isinstance(made, tuple) else (made, None)
        yield Hostile(maker.__name__, start, mark, more)


# Sending


@dataclass
class Reply:
    status: int
    head: bytes
    body: bytes
    seconds: float


async def send(port: int, request: Hostile) -> Reply:
    start = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    sending = asyncio.create_task(_write(writer, request))
    try:
        async with asyncio.timeout(20):
            top = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", top)
            body = await reader.readexactly(int(length[1])) if length else b""
        return Reply(int(top.split(b" ", 2)[1]), top, body, time.monotonic() - start)
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await sending
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _write(writer, request: Hostile) -> None:
    with suppress(OSError):
        writer.write(request.start)
        await writer.drain()
        if request.more is not None:
            async for piece in request.more():
                writer.write(piece)
                await writer.drain()


async def honest(port: int) -> bytes:
    reply = await send(port, Hostile("honest", post(HONEST), ""))
    assert reply.status == 200, reply
    changing = rb'"(recommendation_id|as_of)": ?"[^"]*"'
    assert len(re.findall(changing, reply.body)) == 2
    return re.sub(changing, b"", reply.body)


def faults(request: Hostile, reply: Reply) -> list[str]:
    found = [] if 400 <= reply.status < 500 else [f"status {reply.status}"]
    if b"content-type: application/problem+json\r\n" not in reply.head:
        found.append("no problem+json")
    elif not is_problem(reply):
        found.append("not in the form of a problem")
    if request.mark.encode() in reply.head + reply.body:
        found.append("repeats what was sent")
    if reply.seconds > SECONDS:
        found.append(f"took {reply.seconds:.2f} s")
    return found


def is_problem(reply: Reply) -> bool:
    told = json.loads(reply.body)
    fields = ["type", "title", "status", "detail", "errors"]
    return list(told) == fields and told["status"] == reply.status and bool(told["detail"])


async def visit(port: int, requests: list[Hostile]) -> dict[Hostile, list[str]]:
    """Send all, a few at once; what was late is tried once more, for the machine may have stood still."""
    turn = asyncio.Semaphore(AT_ONCE)
    found: dict[Hostile, list[str]] = {}

    async def one(request: Hostile) -> None:
        async with turn:
            for _ in range(2):
                try:
                    wrong = faults(request, await send(port, request))
                except (OSError, EOFError, TimeoutError) as error:
                    wrong = [f"no reply: {error!r}"]
                if not any(word.startswith("took") for word in wrong):
                    break
            if wrong:
                found[request] = wrong

    await asyncio.gather(*(one(request) for request in requests))
    return found


@pytest.fixture(scope="module")
def server(model, tmp_path_factory):
    """A server with default settings: its port, its process, and the file of its log."""
    folder = tmp_path_factory.mktemp("hostile")
    log = folder / "stderr"
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(model), f"sqlite:///{folder / 'stepin.db'}"], stderr=stderr
        )
    try:
        for _ in range(300):
            line = re.search(rb"127\.0\.0\.1:(\d+)", log.read_bytes())
            if line or process.poll() is not None:
                break
            time.sleep(0.1)
        assert line, log.read_text()
        asyncio.run(all_is_there(int(line[1])))
        yield int(line[1]), process, log
    finally:
        process.terminate()
        process.wait(20)


async def all_is_there(port):
    """Wait for the process that builds facts: until it answers, what asks for it is told to come back."""
    for _ in range(300):
        reply = await send(port, Hostile("honest", head("GET", "/v1/deals/unknown/recommendation"), ""))
        if reply.status != 503:
            return
        await asyncio.sleep(0.2)
    raise AssertionError(reply)


def resident_mib(process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def test_500_hostile_requests_are_refused_in_time_and_change_nothing(server):
    port, process, _ = server
    requests = list(hostile_requests(random.Random(20250601)))
    assert len(requests) == COUNT

    async def go():
        before = await honest(port)
        memory = resident_mib(process)
        found = await visit(port, requests)
        return before, await honest(port), found, resident_mib(process) - memory

    before, after, found, grown_mib = asyncio.run(go())
    shown = [f"{each.family}: {wrong} {each.start[:300]!r}" for each, wrong in found.items()]
    assert not shown, "\n".join([f"{len(shown)} of {COUNT}", *shown[:10]])
    assert after == before
    assert process.poll() is None
    assert grown_mib < 64


def test_the_log_has_a_line_for_each_and_none_of_what_they_sent(server):
    _, _, log = server
    time.sleep(0.3)
    first, *lines = log.read_bytes().splitlines()
    assert first.startswith(b"stepin serves")
    assert b"zqx" not in log.read_bytes()
    told = [json.loads(line) for line in lines]
    refused = [line for line in told if 400 <= line.get("status", 0) < 500]
    assert len(refused) >= COUNT
    assert {line["status"] for line in refused} >= {400, 401, 404, 405, 408, 413, 415, 422, 431}


def test_a_caller_that_sends_100_megabytes_before_it_reads_still_gets_its_answer(server):
    """Closing at once would tear the reply away: its bytes are thrown away first."""
    port, _, _ = server
    code = """
import socket, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=20) as connection:
    connection.sendall(b"POST /v1/recommendations HTTP/1.1\\r\\nhost: localhost\\r\\n"
                       b"content-type: application/json\\r\\ncontent-length: 100000000\\r\\n\\r\\n")
    for _ in range(100):
        connection.sendall(b" " * 1_000_000)
    print(connection.recv(100).split(b"\\r\\n")[0].decode())
"""
    ran = subprocess.run([sys.executable, "-c", code, str(port)], capture_output=True, text=True, timeout=60)
    assert ran.stdout.startswith("HTTP/1.1 413 "), ran.stderr

"""What passes the door, what it refuses, and what it leaves behind: asked without a network."""

import asyncio
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import sqlalchemy
from fastapi import FastAPI, Request

from features.problems import UserError
from serving import docs_page, problems
from serving import keys as api_keys
from serving.door import TOLD, Door
from serving.journal.tables import metadata
from serving.keys import Keys
from serving.limits import Intake
from serving.logs import Logs
from serving.metrics import Metrics
from serving.problems import FieldError, InvalidRequest
from serving.routes import HotReply, Told
from serving.settings import Settings

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DEAL = {"deal_id": "D-1", "features": {"stage": "propose"}}
JSON = {"content-type": "application/json"}
PROBLEM = "application/problem+json"


def small_app():
    """Routes of the service's names that say who asked and what came."""
    app = FastAPI(docs_url=None, redoc_url=None)
    problems.install(app)
    docs_page.install(app)

    @app.get("/healthz")
    async def healthz():
        return {"status": "alive"}

    @app.get("/v1/model")
    async def model():
        return {"name": "winter"}

    @app.post("/v1/recommendations")
    @app.post("/v1/recommendations/batch")
    async def recommend(request: Request):
        request.scope[TOLD] = Told(["step_back"] * 2, "sha256:2")
        return {"asked_by": request.scope["stepin.key_id"], "came": len(await request.body())}

    @app.post("/v1/breaks")
    async def breaks(request: Request):
        raise RuntimeError((await request.body()).decode())

    return app


class Seen:
    """A door around a small app and some plain handlers, with all that it wrote."""

    def __init__(self, keys=None, metrics=None, **settings):
        self.written = bytearray()
        self.asked = []
        told = Settings(Path("model"), **settings)
        hot = {
            ("POST", "/v1/hot"): self._hot,
            ("GET", "/v1/deals/{deal_id}/recommendation"): self._hot,
            ("POST", "/v1/fails"): self._fails,
            ("POST", "/v1/refuses"): self._refuses,
        }
        self.app = small_app()
        self.door = Door(self.app, hot, told, keys, metrics, Logs(self.written.extend))

    async def _hot(self, request):
        self.asked.append(request)
        return HotReply(request.body or b"{}", told=Told(["step_in"], "sha256:1", 0, ["amount"]))

    async def _fails(self, request):
        raise RuntimeError(request.body.decode())

    async def _refuses(self, request):
        raise InvalidRequest([FieldError("deal_id", "a text")])

    def ask(self, method, path, headers=None, content=None, **more):
        async def go():
            transport = httpx.ASGITransport(self.door, raise_app_exceptions=True, **more)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, headers=headers or {}, content=content)

        return asyncio.run(go())

    def post(self, path, body=DEAL, headers=None, **more):
        content = body if isinstance(body, bytes) or hasattr(body, "__aiter__") else json.dumps(body).encode()
        return self.ask("POST", path, {**JSON, **(headers or {})}, content, **more)

    def lines(self):
        self.door.logs.close()
        return [json.loads(line) for line in bytes(self.written).splitlines()]


@pytest.fixture
def engine(tmp_path):
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'keys.db'}")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def seen():
    return Seen()


def kind_of(response):
    assert response.headers["content-type"] == PROBLEM
    told = response.json()
    assert list(told) == ["type", "title", "status", "detail", "errors"]
    assert told["status"] == response.status_code
    return response.status_code, told["type"].removeprefix("urn:stepin:problem:")


# Passing


def test_a_plain_handler_gets_the_whole_request(seen):
    response = seen.ask("GET", "/v1/deals/A%2F1%20b/recommendation?reasons=all", {"x-request-id": "r-1"})
    assert response.status_code == 200
    (asked,) = seen.asked
    assert (asked.params, asked.query, asked.body) == (("A/1 b",), b"reasons=all", b"")
    assert (asked.key_id, asked.request_id) == ("anonymous", "r-1")


def test_the_app_gets_the_request_and_its_answer_leaves(seen):
    response = seen.post("/v1/recommendations", b"12345")
    assert (response.status_code, response.json()) == (200, {"asked_by": "anonymous", "came": 5})
    (line,) = seen.lines()
    assert (line["route"], line["model"], line["answers"]) == ("/v1/recommendations", "sha256:2", 2)


def test_a_body_in_pieces_arrives_whole(seen):
    async def pieces():
        yield b'{"deal_id": "D-1",'
        yield b' "features": {}}'

    assert seen.post("/v1/hot", pieces()).json() == {"deal_id": "D-1", "features": {}}
    assert seen.post("/v1/recommendations", pieces()).json()["came"] == 34


@pytest.mark.parametrize("path", ["/healthz", "/v1/model", "/docs", "/v1/deals/D/recommendation", "/nothing"])
def test_every_reply_has_its_guards_and_its_id(seen, path):
    response = seen.ask("GET", path)
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert response.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["x-request-id"]
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize("sent", ["", "a b", "x" * 101, "a\tb", "<b>"])
def test_an_odd_request_id_is_replaced(seen, sent):
    first, second = (seen.ask("GET", "/healthz", {"x-request-id": sent}) for _ in range(2))
    ids = {sent, first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 3


# Refusing


@pytest.mark.parametrize(
    ("method", "path", "expected", "allow"),
    [
        ("GET", "/v1/nothing", (404, "not-found"), None),
        ("GET", "/docs/", (404, "not-found"), None),
        ("GET", "/v1/hot", (405, "method-not-allowed"), "POST"),
        ("DELETE", "/v1/recommendations", (405, "method-not-allowed"), "POST"),
        ("OPTIONS", "/v1/recommendations", (405, "method-not-allowed"), "POST"),
        ("GET", "/v1/deals//recommendation", (404, "not-found"), None),
    ],
)
def test_what_is_not_here_is_told_without_asking_the_app(seen, method, path, expected, allow):
    response = seen.ask(method, path)
    assert (kind_of(response), response.headers.get("allow")) == (expected, allow)


def test_a_body_of_another_kind_is_refused_before_the_handler(seen):
    response = seen.ask("POST", "/v1/hot", {"content-type": "text/plain"}, b"{}")
    assert kind_of(response) == (415, "wrong-media-type")
    assert (
        seen.post("/v1/hot", headers={"content-type": "Application/JSON; charset=utf-8"}).status_code == 200
    )
    assert len(seen.asked) == 1


@pytest.mark.parametrize("path", ["/v1/hot", "/v1/recommendations"])
def test_a_body_that_is_too_large_is_refused_declared_or_not(path):
    seen = Seen(most_body_kib=8.0)

    async def pieces():
        for _ in range(3):
            yield b"x" * 500

    for body in (b"x" * 1025, pieces()):
        response = seen.post(path, body)
        assert kind_of(response) == (413, "too-large")
        assert response.json()["detail"] == "Send at most 1,024 bytes in one request; split larger ones."
    assert seen.asked == []
    assert seen.post("/v1/recommendations/batch", b"x" * 8192).json()["came"] == 8192
    assert kind_of(seen.post("/v1/recommendations/batch", b"x" * 8193)) == (413, "too-large")


def test_a_body_that_drips_is_refused_in_time_and_a_steady_one_is_not():
    seen = Seen(body_seconds=0.15)

    def body(n, size, seconds):
        async def pieces():
            for _ in range(n):
                await asyncio.sleep(seconds)
                yield b" " * size

        return pieces()

    async def never():
        await asyncio.sleep(60)
        yield b"{}"

    start = time.monotonic()
    assert kind_of(seen.post("/v1/hot", body(1000, 1, 0.02))) == (408, "too-slow")
    assert kind_of(seen.post("/v1/hot", never())) == (408, "too-slow")
    assert time.monotonic() - start < 1
    assert seen.post("/v1/hot", body(12, 5000, 0.02)).status_code == 200


@pytest.mark.parametrize("path", ["/v1/fails", "/v1/breaks"])
def test_a_failure_of_ours_is_told_without_what_was_sent(seen, path):
    response = seen.post(path, b'"secret words"')
    assert kind_of(response) == (500, "failure")
    told, line = seen.lines()
    assert (told["event"], told["error"], told["route"]) == ("failure", "RuntimeError", path)
    assert told["where"][-1].startswith("tests/serving/test_door.py:")
    assert line["status"] == 500
    assert b"secret" not in seen.written + response.content


def test_a_handlers_own_refusal_keeps_its_form(seen):
    response = seen.post("/v1/refuses")
    assert kind_of(response) == (422, "invalid-request")
    assert response.json()["errors"] == [{"field": "deal_id", "expected": "a text"}]


def test_only_so_many_requests_are_under_way_but_probes_always_are():
    seen = Seen(most_in_flight=2)
    go = asyncio.Event()

    async def wait(request):
        await go.wait()
        return HotReply(b"{}")

    seen.door = Door(seen.app, {("GET", "/wait"): wait}, Settings(Path("model"), most_in_flight=2))

    async def ask():
        transport = httpx.ASGITransport(seen.door)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            waiting = [asyncio.create_task(client.get("/wait")) for _ in range(2)]
            await asyncio.sleep(0.05)
            refused, probe = await client.get("/wait"), await client.get("/healthz")
            go.set()
            return refused, probe, await asyncio.gather(*waiting), await client.get("/wait")

    refused, probe, answered, later = asyncio.run(ask())
    assert (kind_of(refused), refused.headers["retry-after"]) == ((503, "busy"), "1")
    assert [each.status_code for each in (probe, *answered, later)] == [200] * 4


# Keys


def test_each_route_wants_a_key_with_its_scope(engine):
    keys = Keys(engine, required=True)
    made = {scope: api_keys.create(engine, scope, [scope], NOW) for scope in api_keys.SCOPES}
    keys.load()
    seen = Seen(keys)
    wanted = {
        ("GET", "/healthz"): None,
        ("GET", "/v1/model"): "read",
        ("GET", "/openapi.json"): "read",
        ("GET", "/v1/deals/D/recommendation"): "read",
        ("POST", "/v1/recommendations"): "score",
        ("POST", "/v1/recommendations/batch"): "score",
    }
    for (method, path), scope in wanted.items():
        content = json.dumps(DEAL if "batch" not in path else {"deals": [DEAL]})
        statuses = {
            name: seen.ask(method, path, {**JSON, "authorization": f"Bearer {key}"}, content).status_code
            for name, key in {**made, "none": "no key"}.items()
        }
        expected = {name: 200 if scope in (None, name) or name == "admin" else 403 for name in made}
        assert statuses == {**expected, "none": 200 if scope is None else 401}, path


def test_the_one_who_asks_is_known_to_the_handler_and_the_log(engine):
    key = api_keys.create(engine, "CRM", ["score"], NOW)
    keys = Keys(engine, required=False)
    seen = Seen(keys)
    assert kind_of(seen.post("/v1/recommendations", headers={"authorization": f"bearer {key}x"})) == (
        401,
        "key-needed",
    )
    assert seen.post("/v1/recommendations", headers={"authorization": f"bearer {key}"}).status_code == 200
    assert seen.post("/v1/recommendations", headers={"authorization": "Basic abc"}).status_code == 200
    key_id = key.split("_")[1]
    assert [line["key_id"] for line in seen.lines()] == ["anonymous", key_id, "anonymous"]
    assert key.split("_", 2)[2].encode() not in seen.written


# Rates


def test_a_caller_that_asks_too_often_is_told_when_to_come_back():
    seen = Seen(rate_per_minute=3)
    statuses = [seen.post("/v1/hot").status_code for _ in range(3)]
    refused = seen.post("/v1/hot")
    assert statuses == [200] * 3
    assert kind_of(refused) == (429, "too-many-requests")
    assert 1 <= int(refused.headers["retry-after"]) <= 20
    assert seen.ask("GET", "/healthz").status_code == 200
    assert seen.post("/v1/hot", client=("10.0.0.9", 1)).status_code == 200


# Pages of other origins


def test_pages_of_other_origins_are_let_in_only_where_they_are_named():
    ours, theirs = {"origin": "https://crm.example"}, {"origin": "https://evil.example"}
    asking = {"access-control-request-method": "POST"}
    seen = Seen(cors_origins=("https://crm.example",))
    for headers in (ours, theirs):
        response = seen.post("/v1/hot", headers=headers)
        assert response.headers.get("access-control-allow-origin") == (
            "https://crm.example" if headers is ours else None
        )
        assert response.headers["vary"] == "origin"
        preflight = seen.ask("OPTIONS", "/v1/recommendations", {**headers, **asking})
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-methods"] == "POST"
        assert "authorization" in preflight.headers["access-control-allow-headers"]
        assert ("access-control-allow-origin" in preflight.headers) == (headers is ours)
    assert kind_of(seen.ask("OPTIONS", "/v1/nothing", {**ours, **asking})) == (404, "not-found")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "127.0.0.1:1",
        "10.1.2.3",
        "[::1]:8080",
        "[::1]",
        "a.localhost",
        "crm-box:80",
    ],
)
def test_without_keys_addresses_localhost_and_named_hosts_are_asked(host):
    assert Seen(hosts=("CRM-Box",)).post("/v1/hot", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "[evil]"],
)
def test_a_page_that_lets_its_own_name_lead_here_is_refused(engine, host):
    """DNS rebinding: to the browser nothing of it is foreign; where keys are needed it has none to send."""
    seen = Seen()
    for method, path in (("POST", "/v1/hot"), ("GET", "/v1/model"), ("GET", "/healthz")):
        response = seen.ask(method, path, {**JSON, "host": host})
        assert kind_of(response) == (421, "misdirected")
        assert host not in response.text
    locked = Seen(keys=Keys(engine, required=True))
    assert locked.ask("GET", "/healthz", {"host": host}).status_code == 200


def test_a_host_that_was_let_in_lets_in_no_other():
    seen = Seen()
    assert [
        seen.ask("GET", "/healthz", {"host": host}).status_code for host in ("localhost", "evil", "localhost")
    ] == [200, 421, 200]


@pytest.mark.parametrize(
    "origin", ["*", "crm.example", "https://crm.example/", "https://a/b", "null", "ftp://a"]
)
def test_an_origin_that_is_none_is_refused(origin):
    with pytest.raises(UserError) as refused:
        Seen(cors_origins=("https://crm.example", origin))
    assert str(refused.value) == (
        "STEPIN_CORS_ORIGINS should name origins as https://crm.example.com, without a path and without *, "
        f"separated by commas; came {origin!r}."
    )


# What is left behind


def test_a_line_for_each_request_holds_nothing_that_was_sent(seen):
    seen.post("/v1/hot?secret=1", {"deal_id": "secret"}, {"x-request-id": "r-7", "x-secret": "secret"})
    seen.ask("GET", "/secret/path")
    seen.ask("GET", "/v1/deals/secret/recommendation")
    hot, nowhere, deal = seen.lines()
    assert {**hot, "time": None, "ms": None} == {
        "time": None,
        "request_id": "r-7",
        "key_id": "anonymous",
        "method": "POST",
        "route": "/v1/hot",
        "status": 200,
        "ms": None,
        "model": "sha256:1",
        "answers": 1,
    }
    assert datetime.fromisoformat(hot["time"]).tzinfo is UTC
    assert hot["ms"] > 0
    assert (nowhere["route"], nowhere["status"]) == ("none", 404)
    assert deal["route"] == "/v1/deals/{deal_id}/recommendation"
    assert b"secret" not in seen.written


def test_every_request_is_counted():
    metrics = Metrics()
    seen = Seen(metrics=metrics)
    for _ in range(3):
        seen.post("/v1/hot")
    seen.ask("GET", "/v1/nothing")
    text = metrics.render().decode()
    assert 'stepin_requests_total{method="POST",route="/v1/hot",status="200"} 3.0' in text
    assert 'stepin_requests_total{method="GET",route="none",status="404"} 1.0' in text
    assert 'stepin_request_seconds_count{route="/v1/hot"} 3.0' in text
    assert 'stepin_advice_total{advice="step_in"} 3.0' in text
    assert 'stepin_missing_features_total{feature="amount"} 3.0' in text
    assert "stepin_requests_in_flight 0.0" in text


def test_a_caller_that_hangs_up_is_no_failure():
    seen = Seen()
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/hot",
        "raw_path": b"/v1/hot",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", b"10")],
        "client": ("test", 1),
    }
    asyncio.run(seen.door(scope, receive, send))
    assert sent == []
    assert [line["status"] for line in seen.lines()] == [499]


def test_cancelling_from_outside_is_not_taken_for_a_slow_body():
    async def receive():
        await asyncio.sleep(60)

    async def go():
        task = asyncio.create_task(Intake(60.0).read(receive, None, 100))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(go())

import re
import sqlite3
from contextlib import closing
from datetime import UTC, datetime

import pytest
from jsonschema import Draft202012Validator

from serving import messages
from serving.api import OPERATIONS, operations_of
from serving.messages import ProblemDetails
from serving.openapi import of_the_door
from serving.ready_rows import ReadyRow, put
from serving.recommend import Recommender
from serving.routes import OPEN, RECORDED

DEAL: dict = {
    "deal_id": "D-1",
    "features": {
        "amount": 120000.0,
        "days_open": 12,
        "stage": "propose",
        "product_line": "edge",
        "pair_first_sale": True,
        "competitor": None,
    },
}
PROBLEM = "application/problem+json"
NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def page(client):
    return client.get("/openapi.json").json()


def validator(page, schema):
    return Draft202012Validator({**schema, "components": page["components"]})


def documented(page, method, path, response):
    """The schema that the documentation gives for this answer; fails where it gives none."""
    status = page["paths"][path][method]["responses"][str(response.status_code)]
    return status["content"][response.headers["content-type"].partition(";")[0]]["schema"]


OVERRIDE = {"deal_id": "D", "decided": "step_back", "reason": "The partner asked us to wait."}
STAGE_EVENT = {
    "event_id": "e-1",
    "kind": "stage",
    "deal_id": "D",
    "happened_at": "2025-05-01T10:00:00Z",
    "stage": "propose",
}
ASKED = [
    ("get", "/healthz", "", None, 200),
    ("get", "/readyz", "", None, 200),
    ("get", "/v1/model", "", None, 200),
    ("post", "/v1/recommendations", "", DEAL, 200),
    ("post", "/v1/recommendations", "?reasons=all", DEAL, 200),
    ("post", "/v1/recommendations", "", {"deal_id": "D", "features": {}}, 200),
    ("post", "/v1/recommendations", "?reasons=few", DEAL, 422),
    ("post", "/v1/recommendations", "", {**DEAL, "features": {"amount": "1"}}, 422),
    ("post", "/v1/recommendations", "", b"{", 400),
    ("post", "/v1/recommendations/batch", "", {"deals": [DEAL, DEAL]}, 200),
    ("post", "/v1/recommendations/batch", "", {"deals": []}, 422),
    ("post", "/v1/recommendations/batch", "?reasons=all", {"deals": [DEAL]}, 200),
    ("post", "/v1/recommendations", "", {"deal_id": "D", "deal": {"amount": "1"}}, 422),
    ("post", "/v1/recommendations/batch", "", {"deals": [DEAL, {"deal_id": "D", "deal": {}}]}, 422),
    ("post", "/v1/recommendations", "", {"deal_id": "D", "deal": {}}, 503),
    ("get", "/v1/recommendations", "", None, 200),
    ("get", "/v1/recommendations", "?limit=0", None, 422),
    ("get", "/v1/recommendations", "?sort=expected_value&advice=step_in&limit=5", None, 200),
    ("post", "/v1/events", "", {"events": []}, 422),
    ("post", "/v1/events", "", {"events": [STAGE_EVENT]}, 202),
    ("post", "/v1/outcomes", "", {"deal_id": "D", "outcome": "won", "outcome_id": "o-1"}, 201),
    ("post", "/v1/outcomes", "", {"deal_id": "D", "outcome": "won", "outcome_id": "o-1"}, 200),
    ("post", "/v1/outcomes", "", {"deal_id": "E", "outcome": "won", "outcome_id": "o-1"}, 409),
    ("post", "/v1/outcomes", "", {"deal_id": "D", "outcome": "maybe"}, 422),
    ("post", "/v1/overrides", "", {**OVERRIDE, "override_id": "v-1"}, 201),
    ("post", "/v1/overrides", "", {**OVERRIDE, "override_id": "v-1"}, 200),
    ("post", "/v1/overrides", "", {**OVERRIDE, "override_id": "v-1", "decided": "step_in"}, 409),
    ("post", "/v1/overrides", "", {"deal_id": "D"}, 422),
    ("get", "/v1/model/report", "", None, 200),
    ("get", "/metrics", "", None, 200),
]


@pytest.mark.parametrize(("method", "path", "query", "body", "status"), ASKED)
def test_every_answer_is_as_the_documentation_says(client, page, method, path, query, body, status):
    response = client.get(path + query) if method == "get" else client.post(path + query, body)
    assert response.status_code == status
    schema = documented(page, method, path, response)
    content = response.json() if "json" in response.headers["content-type"] else response.text
    assert list(validator(page, schema).iter_errors(content)) == []


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/recommendations", DEAL, messages.Recommendation),
        ("/v1/recommendations", [], messages.ProblemDetails),
        ("/v1/model", None, messages.ModelCard),
    ],
)
def test_an_answer_has_the_documented_fields_and_no_others(client, path, body, message):
    answer = (client.get(path) if body is None else client.post(path, body)).json()
    needed = [name for name, field in message.model_fields.items() if field.is_required()]
    assert list(answer) == needed


def test_every_route_and_status_of_the_documentation_is_tried_or_is_the_doors(page):
    """The door's refusals are tried in test_door.py, one by one."""

    def is_of_the_door(method, path, status):
        return int(status) in of_the_door(method.upper(), path in OPEN)

    told = {
        (method, path, status)
        for path, methods in page["paths"].items()
        for method, operation in methods.items()
        for status in operation["responses"]
    }
    tried = {(method, path, str(status)) for method, path, _, _, status in ASKED}
    tried.add(("get", "/v1/model/report", "404"))  # below: a model without facts
    known = ("get", "/v1/deals/{deal_id}/recommendation")
    tried |= {(*known, status) for status in ("200", "404", "409", "422")}  # test_knowing_server.py
    tried.add(("post", "/v1/events", "200"))  # there too
    assert {each for each in told if not is_of_the_door(*each)} == {
        each for each in tried if not is_of_the_door(*each)
    }


def test_the_application_without_its_door_answers_the_same(client):
    bare = type(client)(client.app.app)
    varies = {"recommendation_id", "as_of"}
    for method, path, query, body, status in ASKED:
        if path in RECORDED:  # the same again is another answer
            continue
        answers = [
            each.get(path + query) if method == "get" else each.post(path + query, body)
            for each in (client, bare)
        ]
        assert [each.status_code for each in answers] == [status, status], path
        types = [each.headers["content-type"].partition(";")[0] for each in answers]
        assert types[0] == types[1], path
        if types[0] == "application/json":
            first, second = ({k: v for k, v in each.json().items() if k not in varies} for each in answers)
            assert first.keys() == second.keys()
    assert set(operations_of(client.app.app)) == {
        (operation.method, operation.template) for operation in OPERATIONS
    }


@pytest.mark.parametrize(
    "body",
    [
        DEAL,
        {"deal_id": "D", "features": {}},
        {"deal_id": "D", "features": {"amount": 1, "pair_first_sale": False, "stage": "new"}},
        {"deal_id": "D", "features": {"amount": None}, "as_of": None},
        {"deal_id": "D" * 200, "features": {}, "as_of": "2025-03-31T12:00:00Z"},
        {"deal_id": "D" * 201, "features": {}},
        {"deal_id": "", "features": {}},
        {"deal_id": "a\tb", "features": {}},
        {"deal_id": "D"},
        {"features": {}},
        {"deal_id": "D", "features": {"amount": "1"}},
        {"deal_id": "D", "features": {"amount": True}},
        {"deal_id": "D", "features": {"stage": 1}},
        {"deal_id": "D", "features": {"stage": "x" * 501}},
        {"deal_id": "D", "features": {"pair_first_sale": 0}},
        {"deal_id": "D", "features": {"unknown": 0}},
        {"deal_id": "D", "features": {}, "more": 0},
        {"deal_id": "D", "features": {}, "as_of": 5},
        [],
    ],
)
def test_the_documentation_and_the_server_accept_the_same_requests(client, page, body):
    schema = page["paths"]["/v1/recommendations"]["post"]["requestBody"]["content"]["application/json"]
    is_documented = not list(validator(page, schema["schema"]).iter_errors(body))
    assert (client.post("/v1/recommendations", body).status_code == 200) == is_documented
    many = page["paths"]["/v1/recommendations/batch"]["post"]["requestBody"]["content"]["application/json"]
    is_documented = not list(validator(page, many["schema"]).iter_errors({"deals": [body]}))
    assert (client.post("/v1/recommendations/batch", {"deals": [body]}).status_code == 200) == is_documented


def test_the_examples_of_the_documentation_are_answered(client, page):
    schemas = page["components"]["schemas"]
    for example in schemas["DealAsked"]["examples"]:
        assert set(example["features"]) == set(schemas["Features"]["properties"])
        assert client.post("/v1/recommendations", example).status_code == 200
    for example in schemas["DealsAsked"]["examples"]:
        assert client.post("/v1/recommendations/batch", example).status_code == 200


def test_people_find_the_documentation_at_docs(client):
    response = client.get("/docs")
    assert response.status_code == 200
    assert "/openapi.json" in response.text


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "kind", "detail"),
    [
        ("GET", "/v1/nothing", {}, 404, "not-found", "Nothing is here. The routes are listed at /docs."),
        (
            "GET",
            "/v1/recommendations/batch",
            {},
            405,
            "method-not-allowed",
            "This route answers other methods: see the Allow header, and /docs.",
        ),
        (
            "POST",
            "/v1/recommendations",
            {"content-type": "text/plain"},
            415,
            "wrong-media-type",
            "Send the body with the header Content-Type: application/json.",
        ),
        (
            "POST",
            "/v1/recommendations/batch",
            {},
            415,
            "wrong-media-type",
            "Send the body with the header Content-Type: application/json.",
        ),
    ],
)
def test_the_frameworks_own_errors_take_the_same_form(client, method, path, headers, status, kind, detail):
    response = client.ask(method, path, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (status, PROBLEM)
    told = ProblemDetails.model_validate(response.json(), strict=True, extra="forbid")
    assert (told.type, told.status, told.detail) == (f"urn:stepin:problem:{kind}", status, detail)
    assert told.errors == []
    assert response.headers.get("allow") == ("POST" if status == 405 else None)


def test_no_deals_are_told_from_deals_that_are_not_read_yet(model, make_client, tmp_path):
    """At the start the list would be empty, and say that there is nothing to do."""
    nobody = make_client(model).get("/v1/recommendations")
    assert (nobody.status_code, nobody.json()["total"]) == (200, 0)
    unread = make_client(model, builder_socket=tmp_path / "starting").get("/v1/recommendations")
    assert (unread.status_code, unread.json()["type"]) == (503, "urn:stepin:problem:builder-away")


def test_a_head_is_answered_as_a_get_without_its_body_and_recorded_nowhere(model, make_client, tmp_path):
    client = make_client(model, journal="strict")
    for path in (
        "/healthz",
        "/readyz",
        "/metrics",
        "/docs",
        "/openapi.json",
        "/v1/model",
        "/v1/model/report",
    ):
        got, head = client.get(path), client.ask("HEAD", path)
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-type"] == got.headers["content-type"]
    known = ReadyRow("D-1", NOW, "propose", "P", "C", 9.0, {"stage": "propose", "amount": 9.0})
    put(client.app.service.journal.engine, [known], (), NOW)
    asked = ("/v1/deals/D-1/recommendation", "/v1/recommendations")
    for method, recorded in (("HEAD", 0), ("GET", 2)):
        for path in asked:
            assert client.ask(method, path).status_code == 200
        with closing(sqlite3.connect(tmp_path / "stepin.db")) as journal:
            assert journal.execute("SELECT count(*) FROM answers").fetchone() == (recorded,)
        advised = re.findall(r"^stepin_advice_total\{.*\} (\d+)", client.get("/metrics").text, re.M)
        assert sum(map(int, advised)) == recorded
    assert client.ask("HEAD", "/v1/recommendations/batch").headers["allow"] == "POST"
    assert client.ask("DELETE", "/v1/model").headers["allow"] == "GET, HEAD"


def test_a_failure_of_ours_is_told_without_its_innards(client, monkeypatch):
    def fail(*_args):
        raise RuntimeError("innards")

    monkeypatch.setattr(Recommender, "answer", fail)
    response = client.post("/v1/recommendations", DEAL)
    assert (response.status_code, response.headers["content-type"]) == (500, PROBLEM)
    assert response.json() == {
        "type": "urn:stepin:problem:failure",
        "title": "The server failed",
        "status": 500,
        "detail": "No answer was made. It is not the request's fault: "
        "ask again, and tell whoever runs the server.",
        "errors": [],
    }


def test_the_model_card_says_what_was_learned_and_what_is_wanted(client, made):
    card = client.get("/v1/model").json()
    assert {name: card[name] for name in ("name", "version", "trained_at", "currency")} == {
        name: made.facts[name] for name in ("name", "version", "trained_at", "currency")
    }
    assert card["digest"].startswith("sha256:")
    assert card["estimand"] == made.facts["question"]
    assert card["learned_from"] == made.facts["learned_from"]
    assert card["policy"]["break_even_points"] == 3.0
    assert card["average_uplift_points"] == pytest.approx(2.5)
    features = {each["name"]: each for each in card["features"]}
    assert list(features) == [feature.name for feature in made.features()]
    assert features["amount"]["range"] == [0.0, 500000.0]
    assert features["product_line"]["levels"] == ["core", "edge"]
    assert client.recommend({})["model"] == {
        name: card[name] for name in ("name", "version", "digest", "trained_at")
    }


def test_the_report_is_served_where_the_card_says(client):
    response = client.get(client.get("/v1/model").json()["report"])
    assert response.text == "<h1>winter</h1>"
    assert response.headers["content-type"].startswith("text/html")


def test_a_model_without_facts_is_served_under_its_folders_name(tmp_path, make_client, made):
    client = make_client(made.folder(tmp_path / "bare", made.scorecard(), None))
    card = client.get("/v1/model").json()
    assert (card["name"], card["version"], card["report"], card["stages"]) == ("bare", None, None, [])
    assert messages.ModelCard.model_validate(card)
    answer = client.recommend(DEAL["features"])
    assert (answer["stage"], answer["playbook"]) == ("propose", [])
    assert client.get("/v1/model/report").status_code == 404


def test_a_registered_model_is_called_what_the_registry_calls_it(model, make_client):
    client = make_client(model, model_name="stepin", model_version="12")
    told = client.recommend({})["model"]
    assert (told["name"], told["version"], told["trained_at"]) == ("stepin", "12", "2025-05-31T08:00:00Z")

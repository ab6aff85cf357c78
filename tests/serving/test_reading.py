import json

import pytest

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
FINITE = "a finite number, or null where it is not known"
TEXT_ID = "a text of 1 to 200 characters without control characters"
AS_OF = "a time as 2025-03-31T12:00:00Z (UTC where no offset is given), or nothing"


def deal(**changes):
    return {**DEAL, **changes}


def features(**changes):
    return deal(features={**DEAL["features"], **changes})


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        (features(amount="120000"), "features/amount", FINITE),
        (features(amount=True), "features/amount", FINITE),
        (features(amount=float("nan")), "features/amount", FINITE),
        (features(amount=float("inf")), "features/amount", FINITE),
        (features(amount=10**400), "features/amount", FINITE),
        (features(amount=[1]), "features/amount", FINITE),
        (features(amount={"eur": 1}), "features/amount", FINITE),
        (features(stage=3), "features/stage", "a text, or null where it is not known"),
        (features(stage="x" * 501), "features/stage", "a text of at most 500 characters"),
        (features(amount=float("-inf")), "features/amount", FINITE),
        (features(stage="\ud800"), "features/stage", "a text of at most 500 characters"),
        (
            features(pair_first_sale="true"),
            "features/pair_first_sale",
            "true, false, or null where it is not known",
        ),
        (
            features(pair_first_sale=1),
            "features/pair_first_sale",
            "true, false, or null where it is not known",
        ),
        (features(amuont=1), "features/amuont", "a feature of the model (did you mean amount?)"),
        (features(zzzzzz=1), "features/zzzzzz", "a feature of the model (GET /v1/model lists them)"),
        (deal(features=None), "features", "an object: the model's features and their values"),
        (deal(features=[1]), "features", "an object: the model's features and their values"),
        ({"deal_id": "D-1"}, "features", "an object: the model's features and their values"),
        ({"features": {}}, "deal_id", TEXT_ID),
        (deal(deal_id=7), "deal_id", TEXT_ID),
        (deal(deal_id=""), "deal_id", TEXT_ID),
        (deal(deal_id="D" * 201), "deal_id", TEXT_ID),
        (deal(deal_id="D\n1"), "deal_id", TEXT_ID),
        (deal(deal_id="\udfff"), "deal_id", TEXT_ID),
        (deal(as_of=3), "as_of", AS_OF),
        (deal(as_of="yesterday"), "as_of", AS_OF),
        (deal(as_of="0001-01-01T00:00:00+23:59"), "as_of", AS_OF),
        (deal(deal={}), "deal", "no such field: the fields are deal_id, features, as_of"),
        ([DEAL], "", "an object with deal_id and features"),
        (7, "", "an object with deal_id and features"),
    ],
)
def test_a_field_to_mend_is_named_and_alone(client, body, field, expected):
    response = client.post("/v1/recommendations", body)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": field, "expected": expected}]
    assert response.json()["detail"] == f"{field or 'body'}: expected {expected}."


def test_all_that_is_wrong_is_told_at_once(client):
    body = deal(deal_id=None, features={"amount": "a", "stage": 1})
    response = client.post("/v1/recommendations", body)
    assert [each["field"] for each in response.json()["errors"]] == [
        "deal_id",
        "features/amount",
        "features/stage",
    ]
    assert response.json()["detail"] == f"deal_id: expected {TEXT_ID} (2 more to mend: see errors)."


def test_of_a_thousand_errors_twenty_are_told(client):
    body = deal(features={f"unknown {i}": 1 for i in range(1000)})
    assert len(client.post("/v1/recommendations", body).json()["errors"]) == 20


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a/b~c", "features/a~1b~0c"),
        ("line\nbreak\x1b[31m\u202e", "features/line?break?[31m?"),
        ("n" * 5000, "features/" + "n" * 70 + "…"),
    ],
)
def test_a_name_made_up_by_the_caller_is_made_harmless(client, name, shown):
    response = client.post("/v1/recommendations", deal(features={name: 1}))
    assert response.json()["errors"][0]["field"] == shown
    assert len(shown) <= 80


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{",
        b'{"a":' * 100_000,
        b"1" * 5000,
        b"deal_id=D-1",
        b'{"a": 1} x',
        json.dumps(DEAL).encode("utf-16"),
        b'{"deal_id": "D-1", "features": {"amount": NaN, "amount": 1}}',
        b'{"deal_id": "\\ud800", "deal_id": "D-1", "features": {}}',
    ],
)
def test_what_is_no_json_is_refused_as_such(client, body):
    response = client.post("/v1/recommendations", body)
    assert response.status_code == 400
    assert response.json() == {
        "type": "urn:stepin:problem:not-json",
        "title": "The body is not JSON",
        "status": 400,
        "detail": "Send one JSON object in UTF-8; /docs shows one.",
        "errors": [],
    }


def test_of_a_name_that_comes_twice_the_last_holds(client):
    body = b'{"deal_id": "first", "deal_id": "last", "features": {"stage": "qualify", "stage": "propose"}}'
    answer = client.post("/v1/recommendations", body).json()
    assert (answer["deal_id"], answer["stage"]) == ("last", "propose")


def test_a_mark_of_utf_8_before_the_body_is_passed_over(client):
    body = b"\xef\xbb\xbf" + json.dumps(DEAL).encode()
    assert client.post("/v1/recommendations", body).status_code == 200


def test_a_whole_number_beyond_64_bits_is_a_number(client):
    answer = client.recommend({"amount": 2**70}, "?reasons=all")
    assert next(each for each in answer["reasons"] if each["feature"] == "amount")["value"] == 2.0**70


@pytest.mark.parametrize(
    ("as_of", "answered"),
    [
        ("2025-03-31T12:00:00Z", "2025-03-31T12:00:00Z"),
        ("2025-03-31T12:00:00", "2025-03-31T12:00:00Z"),
        ("2025-03-31T12:00:00+02:00", "2025-03-31T10:00:00Z"),
        (None, "2025-06-01T12:00:00Z"),
    ],
)
def test_the_moment_is_answered_in_utc_and_is_now_by_default(client, as_of, answered):
    response = client.post("/v1/recommendations", deal(as_of=as_of))
    assert response.json()["as_of"] == answered


@pytest.mark.parametrize(
    ("body", "field", "expected"),
    [
        ([], "deals", "a list of 1 to 1,000 deals"),
        ({}, "deals", "a list of 1 to 1,000 deals"),
        ({"deals": {}}, "deals", "a list of 1 to 1,000 deals"),
        ({"deals": []}, "deals", "1 to 1,000 deals in one request"),
        ({"deals": [DEAL] * 1001}, "deals", "1 to 1,000 deals in one request"),
        ({"deals": [DEAL], "all": 1}, "all", "no such field: the fields are deals"),
        ({"deals": [DEAL] * 3 + [features(amount="1")]}, "deals/3/features/amount", FINITE),
        ({"deals": [DEAL, None]}, "deals/1", "an object with deal_id and features"),
    ],
)
def test_one_bad_deal_refuses_the_batch_by_its_place(client, body, field, expected):
    response = client.post("/v1/recommendations/batch", body)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"field": field, "expected": expected}]


@pytest.mark.parametrize(
    "wrong",
    [
        features(amount="1"),
        features(pair_first_sale=1),
        features(stage="x" * 501),
        features(unknown=None),
        deal(deal_id=""),
        deal(as_of="yesterday"),
        deal(extra=None),
        deal(features={"amount": "1"}),
        deal(features={"stage": True}),
        deal(features={"unknown": None}),
        {"deal_id": "D-1"},
    ],
)
@pytest.mark.parametrize("others", [[DEAL] * 2, [deal(features={}), features(stage="\u00e9")]])
def test_what_is_wrong_with_a_deal_is_told_alike_alone_and_at_any_place(client, wrong, others):
    alone = client.post("/v1/recommendations", wrong).json()["errors"]
    for place in range(3):
        deals = [*others[:place], wrong, *others[place:]]
        response = client.post("/v1/recommendations/batch", {"deals": deals})
        assert response.status_code == 422
        told = [{**error, "field": f"deals/{place}/{error['field']}"} for error in alone]
        assert response.json()["errors"] == told


SECRET = "s3cret-value"


@pytest.mark.parametrize(
    "body",
    [
        features(amount=SECRET),
        features(pair_first_sale=SECRET),
        features(stage=[SECRET]),
        features(unknown=SECRET),
        deal(deal_id=[SECRET]),
        deal(deal_id=SECRET + "\n"),
        deal(features=SECRET),
        deal(as_of=SECRET),
        deal(extra=SECRET),
        SECRET,
        json.dumps(features(amount=SECRET))[:-1].encode(),
    ],
)
def test_an_error_never_repeats_a_value(client, body):
    for path in ("/v1/recommendations", "/v1/recommendations/batch"):
        for sent in (body, {"deals": [body]}) if not isinstance(body, bytes) else (body,):
            response = client.post(path, sent)
            assert response.status_code in (400, 422)
            assert SECRET not in response.text
    response = client.post(f"/v1/recommendations?reasons={SECRET}", DEAL)
    assert response.status_code == 422
    assert SECRET not in response.text + client.get(f"/{SECRET}").text

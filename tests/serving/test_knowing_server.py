"""A real server that knows a simulated CRM: deals by id, by value, as a list, and after events."""

import time
from datetime import UTC, datetime

import pytest
from servers import running

from features import open_decisions, read_tables, simulate
from features.live import plain
from features.problems import UserError
from serving.server import serve
from serving.settings import Settings

COSTS = {"hours": "20", "cost_per_hour": "0.01", "margin": "0.3"}


@pytest.fixture(scope="module")
def crm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crm") / "tables"
    simulate(300, seed=3).write(folder)
    return folder


@pytest.fixture(scope="module")
def waiting(crm):
    """The open deals of the export, with the features that training would build."""
    return open_decisions(read_tables(crm))


@pytest.fixture(scope="module")
def learned(made, waiting, tmp_path_factory):
    """A model that saw the stages of this CRM both ways."""
    stages = sorted({*waiting.rows["stage"].astype(str), *made.stages})
    features = [made.category("stage", *stages) if each.name == "stage" else each for each in made.features()]
    facts = {**made.facts, "stage_order": stages}
    return made.folder(tmp_path_factory.mktemp("learned") / "model", made.scorecard(features), facts)


@pytest.fixture(scope="module")
def knowing(crm, learned, tmp_path_factory):
    """One server for the tests that change nothing."""
    told = {"database": f"sqlite:///{tmp_path_factory.mktemp('journal') / 'stepin.db'}", "data": str(crm)}
    with running(learned, seconds=240, **told, capacity_hours="60", **COSTS) as server:
        until_it_knows(server)
        yield server


def until_it_knows(server):
    """The builder starts beside the server."""
    for _ in range(300):
        status, page = server.ask("GET", "/v1/recommendations?limit=1")
        if status == 200 and page["total"]:
            return
        time.sleep(0.1)
    raise AssertionError("the builder has not made its rows ready")


def features_of(waiting, deal_id, names):
    row = waiting.features.loc[(waiting.rows["deal_id"] == deal_id).to_numpy(), names]
    return {name: plain(row[name])[0] for name in names}


def test_a_known_deal_is_answered_on_the_features_that_training_would_build(knowing, waiting, made):
    names = [feature.name for feature in made.features()]
    timed = {"pair_tenure_days", "partner_tenure_days"}  # they grow with every moment
    for deal_id in waiting.rows["deal_id"].iloc[:5]:
        status, answer = knowing.ask("GET", f"/v1/deals/{deal_id}/recommendation?reasons=all")
        assert status == 200
        asked = features_of(waiting, deal_id, names)
        seen = {each["feature"]: each["value"] for each in answer["reasons"] if "×" not in each["feature"]}
        for name, value in seen.items():
            if name in timed:
                assert value >= asked[name]
            else:
                assert value == asked[name], name
        assert answer["missing"] == [name for name in names if asked[name] is None]
        as_of = datetime.fromisoformat(answer["as_of"])
        assert as_of <= datetime.now(UTC)


def test_a_deal_by_value_is_joined_with_what_is_known(knowing, crm):
    deals = read_tables(crm).deals
    deal = {
        "partner_id": str(deals["partner_id"].iloc[0]),
        "customer_id": str(deals["customer_id"].iloc[0]),
        "created_at": "2024-01-05T08:00:00Z",
        "amount": 52000,
    }
    status, answer = knowing.ask(
        "POST", "/v1/recommendations", {"deal_id": "mine", "deal": deal, "stage": "qualify"}
    )
    assert (status, answer["stage"]) == (200, "qualify"), answer
    assert "amount" not in answer["missing"]
    assert "partner_deals_before" not in answer["missing"]  # what the service knows of the partner
    assert "competitor" in answer["missing"]  # neither knows
    several = [{"deal_id": f"mine-{i}", "deal": deal, "stage": "qualify"} for i in range(3)]
    status, batch = knowing.ask("POST", "/v1/recommendations/batch", {"deals": several})
    assert status == 200
    uplifts = {each["uplift_points"] for each in batch["recommendations"]}
    assert max(uplifts) == pytest.approx(answer["uplift_points"], abs=0.1)  # a moment later


def test_an_unknown_deal_and_a_closed_one_are_told_apart(knowing, crm):
    status, problem = knowing.ask("GET", "/v1/deals/nobody/recommendation")
    assert (status, problem["type"]) == (404, "urn:stepin:problem:unknown-deal")
    deals = read_tables(crm).deals
    closed = deals.loc[deals["outcome"] == "won", "deal_id"].iloc[0]
    status, problem = knowing.ask("GET", f"/v1/deals/{closed}/recommendation")
    assert (status, problem["type"]) == (409, "urn:stepin:problem:nothing-to-decide")


def test_the_list_holds_every_open_deal_once_sorted_and_paged(knowing, waiting):
    seen, cursor = [], ""
    while True:
        status, page = knowing.ask("GET", f"/v1/recommendations?sort=uplift&limit=7{cursor}")
        assert status == 200
        seen += page["recommendations"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    uplifts = [each["uplift_points"] for each in seen]
    assert uplifts == sorted(uplifts, reverse=True)
    ids = [each["deal_id"] for each in seen]
    assert len(set(ids)) == len(ids)
    cut = page["capacity"]["left_out"]
    assert len(ids) == len(waiting.rows) - cut


def test_the_list_is_cut_where_the_hours_run_out_and_an_hour_has_its_price(knowing):
    _, page = knowing.ask("GET", "/v1/recommendations?sort=expected_value&advice=step_in&limit=200")
    capacity = page["capacity"]
    assert (capacity["hours"], capacity["hours_per_deal"], capacity["deals"]) == (60.0, 20.0, 3)
    assert len(page["recommendations"]) == page["total"] == 3
    assert capacity["left_out"] > 0
    price = capacity["shadow_price"]["amount_per_hour"]
    least = min(each["expected_value"]["amount"] for each in page["recommendations"])
    assert 0 < price <= least / 20
    _, answer = knowing.ask("GET", f"/v1/deals/{page['recommendations'][0]['deal_id']}/recommendation")
    assert answer["shadow_price"] == capacity["shadow_price"]


@pytest.mark.parametrize("workers", [1, 2])
def test_the_next_answer_knows_what_was_told(model, crm, here, workers, waiting):
    told_at = datetime.now(UTC).isoformat()
    deal_id = str(waiting.rows["deal_id"].iloc[0])
    events = [
        {
            "event_id": "s-1",
            "kind": "stage",
            "deal_id": deal_id,
            "happened_at": told_at,
            "stage": "negotiate",
        },
        {"event_id": "s-2", "kind": "stage", "deal_id": "later", "happened_at": told_at, "stage": "propose"},
    ]
    new = {
        "event_id": "d-1",
        "kind": "deal",
        "deal_id": "later",
        "happened_at": told_at,
        "deal": {"partner_id": "P-new", "customer_id": "C-new", "amount": 9000, "created_at": told_at},
        "partner": {"partner_type": "si"},
        "customer": {"employees": 50},
    }
    with running(model, workers, seconds=120, data=str(crm), database="sqlite:///stepin.db") as server:
        until_it_knows(server)
        status, taken = server.ask("POST", "/v1/events", {"events": events})
        assert (status, taken["applied"]) == (200, True), taken
        assert [each["status"] for each in taken["events"]] == ["applied", "waits"]
        _, answer = server.ask("GET", f"/v1/deals/{deal_id}/recommendation")
        assert answer["stage"] == "negotiate"
        assert server.ask("GET", "/v1/deals/later/recommendation")[0] == 409
        assert server.ask("POST", "/v1/events", {"events": [new]})[1]["applied"]
        _, answer = server.ask("GET", "/v1/deals/later/recommendation?reasons=all")
        assert answer["stage"] == "propose"
        assert "amount" not in answer["missing"]
        _, again = server.ask("POST", "/v1/events", {"events": events})
        assert [each["status"] for each in again["events"]] == ["already", "already"]
        closed = {"deal_id": deal_id, "outcome": "lost", "closed_at": told_at}
        assert server.ask("POST", "/v1/outcomes", closed)[0] == 201
        assert server.ask("GET", f"/v1/deals/{deal_id}/recommendation")[0] == 409
    assert [line for line in server.errors if "Traceback" in line] == []


def test_tables_that_mean_nothing_to_the_model_are_refused_at_the_start(made, crm, tmp_path):
    flat = made.folder(tmp_path / "flat", made.scorecard(), {**made.facts, "source_kind": "flat"})
    with pytest.raises(UserError, match="STEPIN_DATA is set, but the model learned from a table of its own"):
        serve(Settings(flat, data=str(crm)), port=0)

"""A scorecard made by hand, a model folder around it, and a client that asks the app without a network."""

import asyncio
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from postgres import NoPostgres, Postgres, start_postgres

from serving.app import create_app
from serving.settings import Settings
from training import model_folder
from training.basis import Feature
from training.scorecard import Cells, Pair, Scorecard, Support

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
STAGES = ("qualify", "propose", "negotiate")
N_DRAWS = 200
FACTS = {
    "name": "winter",
    "version": "3",
    "trained_at": "2025-05-31T08:00:00Z",
    "source_kind": "crm",
    "question": "Now against wait: by how much does stepping in raise the chance of winning?",
    "learned_from": {"decisions": 60000, "partners": 240},
    "evaluation": {"average_points": 2.5},
    "stage_order": list(STAGES),
    "currency": "EUR",
    "amount_feature": "amount",
}


def number(name: str, top: float) -> Feature:
    knots = np.linspace(0.0, top, 5)
    return Feature(name, "number", knots, np.linspace(-1, 1, 5), (), True)


def category(name: str, *levels: str) -> Feature:
    return Feature(name, "category", np.empty(0), np.empty(0), levels, True)


def boolean(name: str) -> Feature:
    return Feature(name, "boolean", np.empty(0), np.empty(0), ("false", "true"), True)


def make_scorecard(features: list[Feature] | None = None, binary: bool = True) -> Scorecard:
    """Random small effects for `features`; the first two also act together, and stages decide support.

    Rows of a table: knots or levels, then missing, then never seen. In "negotiate" the vendor always came.
    """
    rng = np.random.default_rng(0)
    features = crm_features() if features is None else features
    tables = tuple(rng.normal(scale=0.02, size=(f.n_rows, 1 + N_DRAWS)) for f in features)
    low = tuple(rng.normal(size=(f.n_rows, 1 if i < 2 else 0)) for i, f in enumerate(features))
    zeros = tuple(np.zeros(f.n_rows) for f in features)
    doubt = tuple(np.r_[np.zeros(f.n_rows - 1), 0.01] for f in features)
    stages = [i for i, f in enumerate(features) if f.name == "stage"]
    counts = np.full((*(features[i].n_rows for i in stages), 2), 100)
    if stages:
        counts[features[stages[0]].levels.index("negotiate")] = (0, 100)
    return Scorecard(
        features=tuple(features),
        binary=binary,
        heterogeneous=True,
        baseline=np.r_[0.025, rng.normal(scale=0.01, size=N_DRAWS)],
        effect=tables,
        low=low,
        pairs=(Pair(0, 1, rng.normal(scale=0.02, size=(1, 1, 1 + N_DRAWS))),),
        doubt=doubt,
        misfit_variance=0.0004,
        outcome_intercept=-0.8,
        outcome=zeros,
        propensity_intercept=-0.4,
        propensity=zeros,
        cells=Cells(tuple(stages), counts),
        support_rule=Support(),
        importance=(0.02,) * (len(features) + 1),
    )


def crm_features() -> list[Feature]:
    return [
        number("amount", 500000.0),
        number("days_open", 200.0),
        category("stage", *STAGES),
        category("product_line", "core", "edge"),
        boolean("pair_first_sale"),
        category("competitor", "acme", "none"),
        *(number(name, 10.0) for name in ("pair_wins_before", "partner_deals_before", "stage_moves")),
        *(number(name, 900.0) for name in ("partner_tenure_days", "pair_tenure_days", "customer_employees")),
        boolean("already_involved"),
        category("partner_type", "si", "var"),
    ]


def write_model(folder: Path, scorecard: Scorecard, facts: dict[str, Any] | None = FACTS) -> Path:
    with model_folder.writing(folder) as fresh:
        scorecard.write(fresh)
        if facts is not None:
            model_folder.write_facts(fresh, facts)
            (fresh / "report.html").write_text("<h1>winter</h1>", encoding="utf-8")
    return folder


class Client:
    """Asks an app; every answer is kept out of the network."""

    def __init__(self, app: Any) -> None:
        self.app = app

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        async def go() -> httpx.Response:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.request(method, path, **more)

        return asyncio.run(go())

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, path: str, content: Any, **more: Any) -> httpx.Response:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"content-type": "application/json", **more.pop("headers", {})}
        return self.ask("POST", path, content=body, headers=headers, **more)

    def recommend(self, features: dict[str, Any], query: str = "") -> dict[str, Any]:
        response = self.post(f"/v1/recommendations{query}", {"deal_id": "D-1", "features": features})
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of one's own: the journal lies in it unless another database is named."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def made() -> SimpleNamespace:
    """What tests build their own models of; test files cannot import from here."""
    return SimpleNamespace(
        facts=FACTS,
        stages=STAGES,
        features=crm_features,
        number=number,
        category=category,
        boolean=boolean,
        scorecard=make_scorecard,
        folder=write_model,
    )


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "crm", make_scorecard())


@pytest.fixture
def make_client(tmp_path: Path) -> Callable[..., Client]:
    def make(folder: Path, **settings: Any) -> Client:
        told = {"database": f"sqlite:///{tmp_path / 'stepin.db'}", "log": "off", **settings}
        return Client(create_app(Settings(folder, **told), clock=lambda: NOW))

    return make


@pytest.fixture(scope="session")
def client(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Client:
    database = f"sqlite:///{tmp_path_factory.mktemp('journal') / 'stepin.db'}"
    return Client(create_app(Settings(model, database=database, log="off"), clock=lambda: NOW))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A real PostgreSQL, empty; `new_database()` gives a test one of its own."""
    try:
        server = start_postgres()
    except NoPostgres as why:
        pytest.skip(f"no PostgreSQL can run here: {why}")
    yield server
    server.remove()

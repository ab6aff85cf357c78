"""The application: a model folder, and the routes that answer from it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.concurrency import run_in_threadpool

from serving import messages, openapi, problems
from serving.model import REPORT, ServedModel, load
from serving.reading import Reader
from serving.recommend import Recommender
from serving.settings import Settings

Clock = Callable[[], datetime]
_ABOUT = (
    "Step in, or step back? For one open deal of a partner: does vendor involvement now raise the "
    "probability of winning, by how much, how sure is that, and why. Errors are application/problem+json "
    "and never repeat a value that was sent."
)


def now() -> datetime:
    """Return this moment, in UTC."""
    return datetime.now(UTC)


def create_app(settings: Settings, *, clock: Clock = now) -> FastAPI:
    """Load the model folder once, and answer from it.

    Parameters
    ----------
    settings : where the model is, and what overrides its policy
    clock : tells the time in UTC

    Raises
    ------
    UserError
        The model cannot be served: see `serving.model.load`.
    """
    model = load(settings)
    app = FastAPI(title="stepin", version="1", description=_ABOUT, redoc_url=None)
    app.state.model = model
    problems.install(app)
    openapi.install(app, model)
    _add_recommendations(app, model.reader, Recommender.of(model), clock)
    _add_model(app, model)
    _add_health(app)
    return app


def app_from_environ() -> FastAPI:
    """Make the application from STEPIN_* variables: the factory that worker processes call."""
    return create_app(Settings.from_environ(os.environ))


def _add_recommendations(app: FastAPI, reader: Reader, recommender: Recommender, clock: Clock) -> None:
    errors = openapi.problem_responses(400, 415, 422, 500)

    @app.post(
        "/v1/recommendations",
        summary="Advise on one deal",
        response_model=messages.Recommendation,
        responses=errors,
        openapi_extra=openapi.request_body("DealAsked"),
    )
    async def recommend(request: Request, reasons: Literal["all"] | None = None) -> Response:
        asked = reader.one(await _json_body(request))
        answered = recommender.answer(asked, clock(), reasons == "all")
        return Response(answered.body, media_type="application/json")

    @app.post(
        "/v1/recommendations/batch",
        summary="Advise on up to 1,000 deals",
        response_model=messages.Recommendations,
        responses=errors,
        openapi_extra=openapi.request_body("DealsAsked"),
    )
    async def recommend_batch(request: Request, reasons: Literal["all"] | None = None) -> Response:
        body = await _json_body(request)

        def answer() -> Response:
            answers = recommender.answer_many(reader.many(body), clock(), reasons == "all")
            together = b",".join(answered.body for answered in answers)
            return Response(b'{"recommendations":[' + together + b"]}", media_type="application/json")

        # A second of work: other requests are answered meanwhile.
        return await run_in_threadpool(answer)


def _add_model(app: FastAPI, model: ServedModel) -> None:
    card = model.card()
    errors = openapi.problem_responses(500)

    @app.get(
        "/v1/model",
        summary="What answers, and what it learned from",
        response_model=messages.ModelCard,
        responses=errors,
    )
    async def model_card() -> JSONResponse:
        return JSONResponse(card)

    if card["report"]:

        @app.get(
            card["report"],
            summary="The report on the model, for people",
            response_class=FileResponse,
            responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}, **errors},
        )
        async def report() -> FileResponse:
            return FileResponse(model.folder / REPORT, media_type="text/html")


def _add_health(app: FastAPI) -> None:
    errors = openapi.problem_responses(500)

    @app.get("/healthz", summary="Is the server up?", response_model=messages.Alive, responses=errors)
    async def healthz() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @app.get("/readyz", summary="Does it have a model?", response_model=messages.Ready, responses=errors)
    async def readyz() -> JSONResponse:
        return JSONResponse({"status": "ready"})


async def _json_body(request: Request) -> bytes:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise problems.WrongMediaType("Send the body with the header Content-Type: application/json.")
    return await request.body()

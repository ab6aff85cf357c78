"""The FastAPI application: every route of the service with its documentation.

Each route hands the request to the same plain handler that the door calls, so that the documentation and
what is documented are one thing. Behind the door the handlers are called at once, and FastAPI is asked for
the documentation only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response
from pydantic import BaseModel

from serving import docs_page, messages, openapi, problems
from serving.openapi_deals import LIST_PARAMETERS
from serving.routes import BATCH, OPEN, SCORED, Handler, HotRequest, Route
from serving.service import PROMETHEUS_TEXT, Service

ABOUT = (
    "Step in, or step back? For one open deal of a partner: does vendor involvement now raise the "
    "probability of winning, by how much, how sure is that, and why. Errors are application/problem+json "
    "and never repeat a value that was sent."
)
_HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class Operation:
    """What the documentation says of one route."""

    method: str
    template: str
    summary: str
    answers: type[BaseModel] | str
    """A message, or the media type of something else."""
    refuses: tuple[int, ...] = ()
    """Statuses of its own problems; those of the door are added."""
    takes: str | None = None
    """Schema of its body."""
    parameters: tuple[Mapping[str, Any], ...] = ()
    status: int = 200
    also: tuple[int, ...] = ()
    """Further statuses of success, with the same answer."""


_REASONS = openapi.parameter("reasons", "query", "all: every reason, not the five largest each way.", ["all"])
OPERATIONS: tuple[Operation, ...] = (
    Operation("POST", SCORED, "Advise on one deal", messages.Recommendation, (422,), "Asked", (_REASONS,)),
    Operation(
        "POST",
        BATCH,
        "Advise on up to 1,000 deals",
        messages.Recommendations,
        (422,),
        "DealsAsked",
        (_REASONS,),
    ),
    Operation(
        "GET",
        "/v1/deals/{deal_id}/recommendation",
        "Advise on a deal that the service knows",
        messages.Recommendation,
        (404, 409, 422),
        parameters=(openapi.parameter("deal_id", "path", "The deal."), _REASONS),
    ),
    Operation(
        "GET",
        SCORED,
        "List open deals, by what stepping in is expected to gain",
        messages.DealList,
        (422,),
        parameters=LIST_PARAMETERS,
    ),
    Operation(
        "POST",
        "/v1/events",
        "Tell what happened in the CRM",
        messages.EventsTaken,
        (422,),
        "EventsTold",
        also=(202,),
    ),
    Operation(
        "POST",
        "/v1/outcomes",
        "Tell what happened to a deal",
        messages.Recorded,
        (409, 422),
        "Outcome",
        status=201,
        also=(200,),
    ),
    Operation(
        "POST",
        "/v1/overrides",
        "Tell that a person decided otherwise, and why",
        messages.Recorded,
        (409, 422),
        "Override",
        status=201,
        also=(200,),
    ),
    Operation("GET", "/v1/model", "What answers, and what it learned from", messages.ModelCard),
    Operation("GET", "/v1/model/report", "The report on the model, for people", _HTML, (404,)),
    Operation("GET", "/healthz", "Is the server up?", messages.Alive),
    Operation("GET", "/readyz", "Does it have a model and a journal?", messages.Ready),
    Operation("GET", "/metrics", "Everybody's counts, for Prometheus", PROMETHEUS_TEXT),
)


def create_api(
    service: Service, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None
) -> FastAPI:
    """Make the application around a service; it answers by itself, without the door's checks."""
    app = FastAPI(
        title="stepin", version="1", description=ABOUT, docs_url=None, redoc_url=None, lifespan=lifespan
    )
    problems.install(app)
    docs_page.install(app)
    handlers = service.handlers()
    for operation in OPERATIONS:
        _add(app, operation, handlers[operation.method, operation.template])
    openapi.install(app, lambda: service.slot.current.model)
    return app


def _add(app: FastAPI, operation: Operation, handler: Handler) -> None:
    is_message = isinstance(operation.answers, type)
    app.add_api_route(
        operation.template,
        _endpoint(handler),
        methods=[operation.method],
        summary=operation.summary,
        description=_scope_sentence(operation),
        status_code=operation.status,
        response_model=operation.answers if is_message else None,
        responses=_responses(operation),
        response_class=Response,
        openapi_extra=openapi.extra(operation.takes, operation.parameters, is_open(operation)),
    )


def is_open(operation: Operation) -> bool:
    """Whether the route answers without a key."""
    return operation.template in OPEN


def _scope_sentence(operation: Operation) -> str:
    scope = Route(operation.method, operation.template).scope
    return f"Needs a key with the scope {scope}, where keys are needed." if scope else "Needs no key."


def _responses(operation: Operation) -> dict[int | str, dict[str, Any]]:
    statuses = {*operation.refuses, *openapi.of_the_door(operation.method, is_open(operation))}
    described = openapi.problem_responses(*sorted(statuses))
    for status in (operation.status, *operation.also):
        described[status] = {"description": HTTPStatus(status).phrase}
        if isinstance(operation.answers, str):
            described[status]["content"] = {
                operation.answers.partition(";")[0]: {"schema": {"type": "string"}}
            }
        else:
            described[status]["content"] = openapi.message(operation.answers)
    return described


def _endpoint(handler: Handler) -> Any:
    async def endpoint(request: Request) -> Response:
        media_type = request.headers.get("content-type", "")
        if request.method == "POST" and media_type.partition(";")[0].strip().lower() != "application/json":
            raise problems.WrongMediaType("Send the body with the header Content-Type: application/json.")
        asked = HotRequest(
            request.method,
            request.url.path,
            tuple(str(value) for value in request.path_params.values()),
            request.url.query.encode(),
            await request.body(),
            media_type.encode(),
            request.scope.get("stepin.key_id", "anonymous"),
            request.scope.get("stepin.request_id", ""),
        )
        reply = await handler(asked)
        headers = {name.decode(): value.decode() for name, value in reply.headers}
        return Response(reply.body, reply.status, headers, reply.media_type.decode())

    return endpoint


def operations_of(app: FastAPI) -> Sequence[tuple[str, str]]:
    """Return method and template of every documented route."""
    return [
        (method.upper(), template)
        for template, methods in app.openapi()["paths"].items()
        for method in methods
    ]

"""The documentation of the routes, made for the model that is served: its own features, by name and kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from serving.fields import LONGEST_ID, LONGEST_TEXT
from serving.form_bodies import MOST_FORMS
from serving.messages import ProblemDetails
from serving.model import ServedModel
from serving.openapi_deals import DEAL_SCHEMAS
from serving.openapi_records import RECORD_SCHEMAS
from serving.problems import MEDIA_TYPE
from serving.reading import MOST_DEALS
from training.basis import Feature

_REF = "#/components/schemas/"
_TYPES = {"number": "number", "boolean": "boolean", "category": "string"}
_STATUSES = {
    400: "The body is not JSON, or the bytes are no HTTP request.",
    401: "A key is needed, or the one that was sent is none.",
    403: "The key may not do this.",
    404: "Nothing is here.",
    408: "The request did not arrive in time.",
    409: "It contradicts what is on record.",
    413: "The body is too large.",
    415: "The body is not sent as application/json.",
    421: "It was meant for another host.",
    422: "A field to mend: its name, and what belongs there.",
    429: "Too many requests of this caller; see Retry-After.",
    431: "The head of the request is too large.",
    500: "The server failed.",
    503: "Not now; see Retry-After.",
}
_TAKING = (400, 408, 413, 415)
_KEY = "key"


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}{ProblemDetails.__name__}"}}}
    return {status: {"description": _STATUSES[status], "content": content} for status in statuses}


def of_the_door(method: str, is_open: bool) -> tuple[int, ...]:
    """Return the statuses of refusals that any route of the kind may get."""
    keyed = () if is_open else (401, 403, 429)
    taking = _TAKING if method == "POST" else (400, 408, 413)
    return (*taking, *keyed, 421, 431, 500, 503)


def message(model: type[BaseModel]) -> dict[str, Any]:
    """Describe a JSON answer by the message that FastAPI documents for the route."""
    return {"application/json": {"schema": {"$ref": _REF + model.__name__}}}


def parameter(name: str, where: str, description: str, words: Sequence[str] = ()) -> dict[str, Any]:
    """Describe a query or path parameter that is read by hand."""
    schema: dict[str, Any] = {"type": "string"}
    if words:
        schema["enum"] = list(words)
    if where == "path":
        schema |= {"minLength": 1, "maxLength": LONGEST_ID}
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": schema,
    }


def extra(body: str | None, parameters: Sequence[Mapping[str, Any]], is_open: bool) -> dict[str, Any]:
    """Describe what FastAPI cannot see: a body and parameters read by hand, and the key."""
    described: dict[str, Any] = {"security": [] if is_open else [{_KEY: []}, {}]}
    if body:
        content = {"application/json": {"schema": {"$ref": _REF + body}}}
        described["requestBody"] = {"required": True, "content": content}
    if parameters:
        described["parameters"] = [dict(each) for each in parameters]
    return described


def install(app: FastAPI, served: Callable[[], ServedModel]) -> None:
    """Let `app` document itself for the model that is served now."""
    made: dict[str, dict[str, Any]] = {}

    def openapi() -> dict[str, Any]:
        model = served()
        if model.digest not in made:
            made.clear()
            made[model.digest] = _page(app, model)
        return made[model.digest]

    app.openapi = openapi  # type: ignore[method-assign]


def _page(app: FastAPI, model: ServedModel) -> dict[str, Any]:
    page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    components = page.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas.update(_request_schemas(model))
    schemas.update(RECORD_SCHEMAS)
    schemas.update(DEAL_SCHEMAS)
    if model.is_from_crm:
        _let_in_forms(schemas, model)
    problem = ProblemDetails.model_json_schema(ref_template=_REF + "{model}")
    schemas.update(problem.pop("$defs"))
    schemas[ProblemDetails.__name__] = problem
    components["securitySchemes"] = {
        _KEY: {
            "type": "http",
            "scheme": "bearer",
            "description": "A key made by `stepin key create`; none is needed on the loopback by default.",
        }
    }
    return page


def _let_in_forms(schemas: dict[str, Any], model: ServedModel) -> None:
    """A model that learned from CRM tables also takes deals by their CRM fields."""
    form = {"$ref": f"{_REF}DealForm"}
    schemas["Asked"] = {"oneOf": [{"$ref": f"{_REF}DealAsked"}, form], "examples": [example(model)]}
    several = schemas["DealsAsked"]
    several["properties"]["deals"] = {
        "oneOf": [
            several["properties"]["deals"],
            {"type": "array", "minItems": 1, "maxItems": MOST_FORMS, "items": form},
        ]
    }


def example(model: ServedModel) -> dict[str, Any]:
    """Make a request that the model answers: the usual number, the first text by name."""
    return {
        "deal_id": "D-1001",
        "features": {spec.name: _example_value(spec) for spec in model.scorecard.features},
    }


def _request_schemas(model: ServedModel) -> dict[str, Any]:
    words = model.wording.words
    deal: dict[str, Any] = {
        "type": "object",
        "title": "DealAsked",
        "description": "One deal. A feature that is left out, or null, counts as not recorded.",
        "additionalProperties": False,
        "required": ["deal_id", "features"],
        "properties": {
            "deal_id": {
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST_ID,
                "pattern": r"^[^\u0000-\u001f\u007f]*$",
            },
            "features": {"$ref": _REF + "Features"},
            "as_of": {
                "type": ["string", "null"],
                "format": "date-time",
                "description": "When the facts were so; now, if left out. UTC, if without an offset.",
            },
        },
        "examples": [example(model)],
    }
    features = {
        "type": "object",
        "title": "Features",
        "description": "The model's own features.",
        "additionalProperties": False,
        "properties": {
            spec.name: _feature_schema(spec.kind, words[spec.name]) for spec in model.scorecard.features
        },
    }
    deals = {
        "type": "object",
        "title": "DealsAsked",
        "additionalProperties": False,
        "required": ["deals"],
        "properties": {
            "deals": {
                "type": "array",
                "minItems": 1,
                "maxItems": MOST_DEALS,
                "items": {"$ref": _REF + "DealAsked"},
            }
        },
        "examples": [{"deals": [example(model)]}],
    }
    return {
        "Asked": deal,
        "DealAsked": deal,
        "DealsAsked": deals,
        "Features": features,
    }


def _feature_schema(kind: str, word: Any) -> dict[str, Any]:
    unit = f" In {word.unit}." if word.unit in ("days", "currency", "people") else ""
    schema: dict[str, Any] = {"type": [_TYPES[kind], "null"], "description": word.meaning + unit}
    return {**schema, "maxLength": LONGEST_TEXT} if kind == "category" else schema


def _example_value(spec: Feature) -> float | bool | str | None:
    if spec.kind == "boolean":
        return True
    if spec.kind == "category":
        return spec.levels[0] if len(spec.levels) else None
    return round(float(spec.knots[len(spec.knots) // 2]), 3)

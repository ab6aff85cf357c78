"""The documentation of the routes, made for the model that is served: its own features, by name and kind."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from serving.fields import LONGEST_ID, LONGEST_TEXT
from serving.messages import ProblemDetails
from serving.model import ServedModel
from serving.problems import MEDIA_TYPE
from serving.reading import MOST_DEALS
from training.basis import Feature

_REF = "#/components/schemas/"
_TYPES = {"number": "number", "boolean": "boolean", "category": "string"}
_STATUSES = {
    400: "The body is not JSON.",
    415: "The body is not sent as application/json.",
    422: "A field to mend: its name, and what belongs there.",
    500: "The server failed.",
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the errors that a route may answer with."""
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}{ProblemDetails.__name__}"}}}
    return {status: {"description": _STATUSES[status], "content": content} for status in statuses}


def request_body(schema: str) -> dict[str, Any]:
    """Describe the body of a route that reads it by hand: one of the schemas that `install` adds."""
    content = {"application/json": {"schema": {"$ref": _REF + schema}}}
    return {"requestBody": {"required": True, "content": content}}


def install(app: FastAPI, model: ServedModel) -> None:
    """Let `app` document itself for `model`."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            page = get_openapi(
                title=app.title, version=app.version, description=app.description, routes=app.routes
            )
            schemas = page.setdefault("components", {}).setdefault("schemas", {})
            schemas.update(_request_schemas(model))
            problem = ProblemDetails.model_json_schema(ref_template=_REF + "{model}")
            schemas.update(problem.pop("$defs"))
            schemas[ProblemDetails.__name__] = problem
            app.openapi_schema = page
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


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
    return {"DealAsked": deal, "DealsAsked": deals, "Features": features}


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

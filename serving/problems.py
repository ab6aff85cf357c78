"""Each error owns its status and its sentence; one form for all of them (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, ClassVar

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"
LONGEST_FIELD = 80
MOST_ERRORS = 20


@dataclass(frozen=True)
class FieldError:
    """One field to mend. The value that was sent is never part of it."""

    field: str
    """Where: a path as `field_path` makes it, for example ``deals/3/features/amount``."""
    expected: str
    """What belongs there, and what to do."""


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer that is no answer: told to the caller as problem+json, never logged."""

    status: ClassVar[int] = 400
    kind: ClassVar[str] = "bad-request"
    title: ClassVar[str] = "The request cannot be read"

    def __init__(self, detail: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(detail)
        self.detail, self.errors = detail, tuple(errors)


class NotJson(Problem):
    """The body is not JSON."""

    kind = "not-json"
    title = "The body is not JSON"


class WrongMediaType(Problem):
    """The body says that it is something else than JSON."""

    status = 415
    kind = "wrong-media-type"
    title = "The body should be JSON"


class InvalidRequest(Problem):
    """The body is JSON, but not what is asked for."""

    status = 422
    kind = "invalid-request"
    title = "The request has fields to mend"

    def __init__(self, errors: Sequence[FieldError]) -> None:
        assert errors, "says nothing to mend"
        first, rest = errors[0], len(errors) - 1
        more = f" ({rest} more to mend: see errors)" if rest else ""
        super().__init__(f"{first.field or 'body'}: expected {first.expected}{more}.", errors[:MOST_ERRORS])


def field_path(*parts: str | int) -> str:
    """The parts as a JSON pointer without its first slash, safe to print and to log.

    A name that the caller made up is escaped (``~0`` and ``~1``), characters that do not print become
    ``?``, and the whole is at most 80 characters long.
    """
    names = (str(part).replace("~", "~0").replace("/", "~1") for part in parts)
    path = "".join(char if char.isprintable() else "?" for char in "/".join(names))
    return path if len(path) <= LONGEST_FIELD else path[: LONGEST_FIELD - 1] + "…"


def install(app: FastAPI) -> None:
    """Let every error of `app`, its framework's own included, leave in the one form."""
    app.add_exception_handler(Problem, _tell_problem)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(Exception, _tell_failure)


def _answer(
    status: int,
    kind: str,
    title: str,
    detail: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    content: dict[str, Any] = {
        "type": f"urn:stepin:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        "errors": [{"field": error.field, "expected": error.expected} for error in errors],
    }
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _tell_problem(_request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Problem)
    return _answer(problem.status, problem.kind, problem.title, problem.detail, problem.errors)


def _tell_invalid(_request: Request, error: Exception) -> JSONResponse:
    """Path and query parameters; bodies are read by `messages`."""
    assert isinstance(error, RequestValidationError)
    found = [FieldError(field_path(*each["loc"][1:]), _expected(each)) for each in error.errors()]
    return _tell_problem(_request, InvalidRequest(found))


def _expected(error: Mapping[str, Any]) -> str:
    allowed = error.get("ctx", {}).get("expected")
    return f"{allowed}, or nothing" if allowed else "another kind of value: see /docs"


def _tell_http(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    details = {
        404: ("not-found", "Nothing is here. The routes are listed at /docs."),
        405: ("method-not-allowed", "This route answers other methods: see the Allow header, and /docs."),
    }
    kind, detail = details.get(error.status_code, ("http", "The request was refused. See /docs."))
    title = HTTPStatus(error.status_code).phrase
    return _answer(error.status_code, kind, title, detail, headers=error.headers)


def _tell_failure(_request: Request, _error: Exception) -> JSONResponse:
    detail = "No answer was made. It is not the request's fault: ask again, and tell whoever runs the server."
    return _answer(500, "failure", "The server failed", detail)

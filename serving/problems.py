"""Each error owns its status and its sentence; one form for all of them (RFC 9457)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    def __init__(
        self, detail: str, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail, self.errors, self.headers = detail, tuple(errors), dict(headers or {})


class NotJson(Problem):
    """The body is not JSON."""

    kind = "not-json"
    title = "The body is not JSON"


class WrongMediaType(Problem):
    """The body says that it is something else than JSON."""

    status = 415
    kind = "wrong-media-type"
    title = "The body should be JSON"


class NotFound(Problem):
    """No route has this path."""

    status = 404
    kind = "not-found"
    title = "Not Found"

    def __init__(self) -> None:
        super().__init__("Nothing is here. The routes are listed at /docs.")


class MethodNotAllowed(Problem):
    """The path has routes, but none for this method."""

    status = 405
    kind = "method-not-allowed"
    title = "Method Not Allowed"

    def __init__(self, allowed: Iterable[str]) -> None:
        headers = {"Allow": ", ".join(sorted(allowed))}
        super().__init__("This route answers other methods: see the Allow header, and /docs.", (), headers)


class KeyNeeded(Problem):
    """No key, or none that is live: which of the two is not told."""

    status = 401
    kind = "key-needed"
    title = "A key is needed"

    def __init__(self) -> None:
        super().__init__(
            "Send a live key as Authorization: Bearer stepin_... ; stepin key create makes one.",
            (),
            {"WWW-Authenticate": 'Bearer realm="stepin"'},
        )


class ScopeLacking(Problem):
    """The key is live, but was not made for this."""

    status = 403
    kind = "scope-lacking"
    title = "The key may not do this"

    def __init__(self, scope: str) -> None:
        super().__init__(f"This route needs a key with the scope {scope}; this key has others.")


class Misdirected(Problem):
    """It came for another host: from a page, maybe, that let its own name lead here."""

    status = 421
    kind = "misdirected"
    title = "The request was meant for another host"

    def __init__(self) -> None:
        super().__init__(
            "Without keys this server answers as localhost or by its address only. Name other hosts in "
            "STEPIN_HOSTS, or let it need keys."
        )


class TooLarge(Problem):
    """More bytes than the route reads."""

    status = 413
    kind = "too-large"
    title = "The body is too large"

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"Send at most {most_bytes:,} bytes in one request; split larger ones.")


class TooSlow(Problem):
    """The body did not arrive in time."""

    status = 408
    kind = "too-slow"
    title = "The request came too slowly"

    def __init__(self) -> None:
        super().__init__("The request did not arrive in time. Send it in one go.")


class HeadTooLarge(Problem):
    """The request line and the headers are longer than any honest ones."""

    status = 431
    kind = "head-too-large"
    title = "The headers are too large"

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"Send at most {most_bytes:,} bytes of address and headers.")


class NotHttp(Problem):
    """The bytes are no HTTP request."""

    kind = "not-http"
    title = "The request is not HTTP"

    def __init__(self) -> None:
        super().__init__("Send a well-formed HTTP/1.1 request.")


class TooManyRequests(Problem):
    """The key, or the address, asks more often than it may."""

    status = 429
    kind = "too-many-requests"
    title = "Too many requests"

    def __init__(self, seconds: int) -> None:
        super().__init__(
            "Ask again after the seconds in Retry-After; a batch asks about many deals in one request.",
            (),
            {"Retry-After": str(seconds)},
        )


class Busy(Problem):
    """As many requests are under way as this process takes."""

    status = 503
    kind = "busy"
    title = "The server is busy"

    def __init__(self) -> None:
        super().__init__("Too much is under way. Ask again in a second.", (), {"Retry-After": "1"})


class JournalLost(Problem):
    """What was asked cannot be recorded now, and by setting is refused rather than done unrecorded."""

    status = 503
    kind = "journal-lost"
    title = "The journal cannot be written"

    def __init__(self) -> None:
        super().__init__(
            "Nothing was recorded: the database is lost or full. Ask again after the seconds in Retry-After.",
            (),
            {"Retry-After": "5"},
        )


class NotReady(Problem):
    """The server runs, but should not be asked now."""

    status = 503
    kind = "not-ready"
    title = "The server is not ready"

    def __init__(self) -> None:
        super().__init__(
            "The journal cannot be written: the database is lost or full. The server tries again by itself.",
            (),
            {"Retry-After": "5"},
        )


class UnknownDeal(Problem):
    """Nobody told of this deal."""

    status = 404
    kind = "unknown-deal"
    title = "This deal is not known"

    def __init__(self) -> None:
        super().__init__(
            "Neither the CRM tables nor an event tell of this deal. Send its fields to "
            "POST /v1/recommendations, or tell of it by POST /v1/events."
        )


class NothingToDecide(Problem):
    """The deal is known, but there is no decision to advise on."""

    status = 409
    kind = "nothing-to-decide"
    title = "There is nothing to decide on this deal"

    def __init__(self, standing: str) -> None:
        super().__init__(_NOTHING_TO_DECIDE[standing])


_NOTHING_TO_DECIDE = {
    "closed": "The deal is closed. If it was opened again, send an outcome event that says so.",
    "no_stage": "The deal is in no stage yet. Send a stage event once it enters one.",
    "waiting": "Events tell of this deal, but none says yet who its partner and its customer are.",
}


class BuilderAway(Problem):
    """Building features from CRM fields is not possible for the moment."""

    status = 503
    kind = "builder-away"
    title = "Facts cannot be built now"

    def __init__(self) -> None:
        super().__init__(
            "The process that builds facts from CRM fields is starting, or busy. Ask again after the seconds "
            "in Retry-After; deals sent with the model's own features are answered meanwhile.",
            (),
            {"Retry-After": "2"},
        )


class NotFromCrm(Problem):
    """The model did not learn from CRM tables."""

    status = 422
    kind = "not-from-crm"
    title = "This model takes its own features only"

    def __init__(self) -> None:
        super().__init__(
            "The model learned from a table of its own, so CRM fields mean nothing to it. Send features: "
            "GET /v1/model lists them."
        )


class Contradiction(Problem):
    """What was told cannot be, given the rest."""

    status = 422
    kind = "contradiction"
    title = "The deal contradicts itself, or what is known"


class RecordDiffers(Problem):
    """The id of an outcome or override came before, with other content."""

    status = 409
    kind = "record-differs"
    title = "This id was recorded with other content"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} names another record already. Send a correction with an id of its own.")


class Failure(Problem):
    """Our own fault; what failed is told to the log only."""

    status = 500
    kind = "failure"
    title = "The server failed"

    def __init__(self) -> None:
        super().__init__(
            "No answer was made. It is not the request's fault: ask again, and tell whoever runs the server."
        )


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


def content(problem: Problem) -> dict[str, Any]:
    """The problem as it is told (RFC 9457, section 3)."""
    return {
        "type": f"urn:stepin:problem:{problem.kind}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "errors": [{"field": error.field, "expected": error.expected} for error in problem.errors],
    }


def install(app: FastAPI) -> None:
    """Let every error of `app`, its framework's own included, leave in the one form."""
    app.add_exception_handler(Problem, _tell_problem)
    app.add_exception_handler(RequestValidationError, _tell_invalid)
    app.add_exception_handler(HTTPException, _tell_http)
    app.add_exception_handler(Exception, _tell_failure)


def _tell_problem(_request: Request, problem: Exception) -> JSONResponse:
    assert isinstance(problem, Problem)
    return JSONResponse(content(problem), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def _tell_invalid(request: Request, error: Exception) -> JSONResponse:
    """Path and query parameters; bodies are read by `messages`."""
    assert isinstance(error, RequestValidationError)
    found = [FieldError(field_path(*each["loc"][1:]), _expected(each)) for each in error.errors()]
    return _tell_problem(request, InvalidRequest(found))


def _expected(error: Mapping[str, Any]) -> str:
    allowed = error.get("ctx", {}).get("expected")
    return f"{allowed}, or nothing" if allowed else "another kind of value: see /docs"


def _tell_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _tell_problem(request, NotFound())
    if error.status_code == 405:
        return _tell_problem(request, MethodNotAllowed((error.headers or {}).get("Allow", "").split(", ")))
    other = Problem("The request was refused. See /docs.", (), error.headers)
    answer = {**content(other), "type": "urn:stepin:problem:http", "status": error.status_code}
    answer["title"] = HTTPStatus(error.status_code).phrase
    return JSONResponse(answer, error.status_code, headers=other.headers, media_type=MEDIA_TYPE)


def _tell_failure(request: Request, _error: Exception) -> JSONResponse:
    return _tell_problem(request, Failure())

"""Which routes there are, and what each asks of its caller; found by look-up, not by a regex per request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from serving.problems import MethodNotAllowed, NotFound

OPEN = frozenset({"/", "/docs", "/healthz", "/readyz"})
"""Answer without a key: probes, and pages that hold no data of their own."""
PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Answer however busy the server is, and count towards no rate."""
RECORDED = ("/v1/outcomes", "/v1/overrides", "/v1/events")
SCORED = "/v1/recommendations"
BATCH = "/v1/recommendations/batch"
NO_ROUTE = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(slots=True)
class HotRequest:
    """A request that came through the door: its body is whole, its key may ask this."""

    method: str
    path: str
    params: tuple[str, ...]
    """What stands for each ``{...}`` of the route's template, in order, decoded."""
    query: bytes
    body: bytes
    media_type: bytes
    """The Content-Type header as it came; empty if there was none."""
    key_id: str
    """Who asks: the key's id, or ``anonymous``."""
    request_id: str


@dataclass(slots=True)
class Told:
    """What an answer told, for the log and the metrics; none of it is a value that was sent.

    A route of the FastAPI app leaves it in its scope: ``request.scope["stepin.told"] = Told(...)``.
    """

    advice: Sequence[str] = ()
    digest: str = ""
    without_support: int = 0
    missing: Iterable[str] = ()
    """Features (the model's own names) that were not given, once for each deal that lacked them."""


@dataclass(slots=True)
class HotReply:
    """What a plain handler answers with."""

    body: bytes
    status: int = 200
    media_type: bytes = b"application/json"
    told: Told | None = None
    headers: Sequence[tuple[bytes, bytes]] = ()


Handler = Callable[[HotRequest], Awaitable[HotReply]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    template: str
    handler: Handler | None = field(default=None, compare=False)
    """Answers by itself; None for a route of the FastAPI app."""

    @property
    def scope(self) -> str | None:
        """The scope that a key needs here; None for an open route.

        ``score`` asks for advice on facts that the caller brings, ``read`` for what the service holds
        (the model, its documentation, known deals, the to-do list, metrics), ``record`` adds outcomes,
        overrides and events. What is none of these is for ``admin``, which may do all.
        """
        if self.template in OPEN and self.method in ("GET", "HEAD"):
            return None
        if self.method in ("GET", "HEAD"):
            return "read"
        if self.method == "POST" and self.template.startswith(SCORED):
            return "score"
        if self.method == "POST" and self.template.startswith(RECORDED):
            return "record"
        return "admin"


Methods = dict[str, Route]


class Routes:
    """All routes of the service.

    Parameters
    ----------
    routes : several methods of one template may follow each other; a later route replaces an earlier one.
        What answers GET answers HEAD too
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[str, Methods] = {}
        self._by_length: dict[int, list[tuple[tuple[str, ...], Methods]]] = {}
        templates: dict[str, Methods] = {}
        for route in routes:
            templates.setdefault(route.template, {})[route.method] = route
        for template, methods in templates.items():
            if "GET" in methods:
                methods["HEAD"] = replace(methods["GET"], method="HEAD")
            if "{" not in template:
                self._exact[template] = methods
                continue
            parts = tuple("" if part.startswith("{") else part for part in template.split("/")[1:])
            self._by_length.setdefault(len(parts), []).append((parts, methods))

    @classmethod
    def of(cls, app_routes: Iterable[Any], hot: Mapping[tuple[str, str], Handler]) -> Routes:
        """Take the routes of a Starlette or FastAPI app, and the plain handlers by (method, template).

        Whatever the app has beside plain routes (mounts, web sockets) is not reached through the door.
        """
        cold = (
            Route(method, route.path, None)
            for route in app_routes
            for method in sorted(getattr(route, "methods", None) or ())
        )
        return cls((*cold, *(Route(method, template, each) for (method, template), each in hot.items())))

    def __iter__(self) -> Iterator[Route]:
        for methods in self._exact.values():
            yield from methods.values()
        for known in self._by_length.values():
            for _, methods in known:
                yield from methods.values()

    def find(self, method: str, scope: Mapping[str, Any]) -> tuple[Route, tuple[str, ...]]:
        """Return the route and the values in its path; raises NotFound or MethodNotAllowed."""
        methods = self._exact.get(scope["path"])
        params: tuple[str, ...] = ()
        if methods is None:
            methods, params = self._by_parts(scope)
        route = methods.get(method)
        if route is None:
            raise MethodNotAllowed(methods)
        return route, params

    def allowed(self, scope: Mapping[str, Any]) -> list[str]:
        """Return the methods of a path, sorted; raises NotFound."""
        methods = self._exact.get(scope["path"]) or self._by_parts(scope)[0]
        return sorted(methods)

    def _by_parts(self, scope: Mapping[str, Any]) -> tuple[Methods, tuple[str, ...]]:
        """Split the path as it was sent, so that an escaped slash stays within its part."""
        sent = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").split("/")[1:]
        for parts, methods in self._by_length.get(len(sent), ()):
            if all(part in ("", came) for part, came in zip(parts, sent, strict=True)):
                params = tuple(unquote(came) for part, came in zip(parts, sent, strict=True) if not part)
                if all(params):
                    return methods, params
        raise NotFound

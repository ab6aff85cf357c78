"""Pages of other origins: none may ask, but for those that STEPIN_CORS_ORIGINS names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from features.problems import UserError
from serving.routes import HotReply

Header = tuple[bytes, bytes]
_EXPOSED = (b"access-control-expose-headers", b"x-request-id, retry-after")
_VARY = (b"vary", b"origin")
_PREFLIGHT = (
    (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
    (b"access-control-max-age", b"600"),
)


class Origins:
    """The origins whose pages may ask, compared letter by letter with what a browser sends.

    Parameters
    ----------
    named : as ``https://crm.example.com``; none lets no page ask

    Raises
    ------
    UserError
        One that is no origin. ``*`` is none: a server on the loopback wants no key, and every page that its
        user visits would read what it knows.
    """

    def __init__(self, named: Iterable[str]) -> None:
        self._named = {_checked(origin): _checked(origin) for origin in named}
        self.are_any = bool(self._named)

    def headers(self, sent: Mapping[bytes, bytes]) -> list[Header]:
        """Return what tells a browser whether the page that asked may read the reply."""
        if not self.are_any:
            return []
        origin = self._named.get(sent.get(b"origin", b""))
        return [_VARY] if origin is None else [_VARY, (b"access-control-allow-origin", origin), _EXPOSED]

    def is_preflight(self, method: str, sent: Mapping[bytes, bytes]) -> bool:
        """Does a browser ask beforehand whether a page may ask?"""
        asks = b"access-control-request-method" in sent and b"origin" in sent
        return self.are_any and method == "OPTIONS" and asks

    def preflight(self, methods: Iterable[str]) -> HotReply:
        """Answer such a browser for a path that has these methods."""
        allowed = (b"access-control-allow-methods", ", ".join(methods).encode())
        return HotReply(b"", 204, headers=(*_PREFLIGHT, allowed))


def _checked(origin: str) -> bytes:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin.lower():
        raise UserError(
            "STEPIN_CORS_ORIGINS should name origins as https://crm.example.com, without a path and "
            f"without *, separated by commas; came {origin!r}."
        )
    return origin.lower().encode()

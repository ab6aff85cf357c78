"""Pages of other origins: none may ask, unless STEPIN_CORS_ORIGINS names it; nor under a borrowed name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from features.problems import UserError
from serving.problems import Misdirected
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


class Hosts:
    """The names by which a server that wants no key may be asked.

    A page can let the name of its own site lead to 127.0.0.1 once a browser has loaded it (DNS rebinding):
    to that browser the server here is then the page's own, and no other origin is involved. But the browser
    sends the name as Host. Nobody can borrow an address, nor localhost.

    Parameters
    ----------
    named : further names, without a port
    """

    _MOST_KNOWN = 100

    def __init__(self, named: Iterable[str] = ()) -> None:
        self._named = {name.lower() for name in named}
        self._known: set[bytes] = set()

    def check(self, sent: Mapping[bytes, bytes]) -> None:
        """Refuse a request for another name: raises Misdirected. Browsers always send one."""
        host = sent.get(b"host")
        if not host or host in self._known:
            return
        if not self._is_ours(host.decode("latin-1")):
            raise Misdirected
        if len(self._known) < self._MOST_KNOWN:
            self._known.add(host)

    def _is_ours(self, host: str) -> bool:
        bracketed, _, _ = host.removeprefix("[").partition("]")
        name = bracketed if host.startswith("[") else host.partition(":")[0].lower().removesuffix(".")
        if name in self._named or name == "localhost" or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


def _checked(origin: str) -> bytes:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or f"{parts.scheme}://{parts.netloc}" != origin.lower():
        raise UserError(
            "STEPIN_CORS_ORIGINS should name origins as https://crm.example.com, without a path and "
            f"without *, separated by commas; came {origin!r}."
        )
    return origin.lower().encode()

"""The page at /docs: reads /openapi.json in the browser, and fetches nothing from anywhere else."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

PAGE = Path(__file__).with_name("docs_page.html")


def install(app: FastAPI) -> None:
    """Add /docs to an app that was made with ``docs_url=None, redoc_url=None``.

    The page needs no key: it holds no more than its script, and asks for one where the server wants it.
    """
    page = PAGE.read_text(encoding="utf-8")
    policy = page_policy(page)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(page, headers={"content-security-policy": policy})


def page_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page of our own: its very script and style, and this server.

    Whatever got into the page by mistake would not run: a script is named by the hash of its text.
    """

    def hashes(tag: str) -> str:
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
        digests = (hashlib.sha256(text.encode()).digest() for text in texts)
        return " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests) or "'none'"

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src data:; "
        "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
    )

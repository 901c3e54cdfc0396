"""Protection from requests that a page of another site makes a browser send."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
COOKIE = "jobmanager_form"
FIELD = "token"


def is_same_origin(headers: Mapping[str, list[str]], scheme: str, trusted: Collection[str]) -> bool:
    """Return whether a browser sent the request from a page of this host, or no page sent it.

    `Sec-Fetch-Site` decides where the browser sends it; else `Origin` must be the host that was asked, or one of `trusted`. A request
    with neither comes from no page of today's browsers, and not from a form of another site: those send `Origin` with every POST.
    """
    origin = headers.get("origin", [])
    if len(origin) > 1:
        return False
    if origin and origin[0].lower() in trusted:
        return True
    site = headers.get("sec-fetch-site", [])
    if site:
        return site in (["same-origin"], ["none"])
    if not origin:
        return True
    host = headers.get("host", [])
    given = urlsplit(origin[0])
    return len(host) == 1 and given.netloc.lower() == host[0].lower() and given.scheme in (scheme, "https")


def new_token() -> str:
    """Return a new token for the forms of one browser."""
    return secrets.token_urlsafe(24)


def is_token(sent: object, kept: str | None) -> bool:
    """Return whether a form brought back the token that its browser keeps as a cookie."""
    return isinstance(sent, str) and bool(kept) and hmac.compare_digest(sent.encode(), (kept or "").encode())

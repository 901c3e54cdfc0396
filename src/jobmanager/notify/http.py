"""One bounded POST to an http or https URL: no redirect is followed and no proxy of the environment is used."""

from __future__ import annotations

import urllib.request
from typing import Any


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none: the redirect is the error that it begins as."""


_OPENER = urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({}))


def post(url: str, body: bytes, *, within: float) -> None:
    """Send the body and wait for the beginning of the reply, at most `within` seconds at a time. OSError for any other end."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("only http and https are called")
    request = urllib.request.Request(url, data=body, method="POST")  # noqa: S310 - as just seen
    with _OPENER.open(request, timeout=within) as reply:
        reply.read(1)

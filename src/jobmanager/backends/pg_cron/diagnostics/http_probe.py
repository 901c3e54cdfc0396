"""One unsigned POST to the URL that the database calls: the status of the response identifies the endpoint."""

from __future__ import annotations

import http.client
from dataclasses import dataclass
from urllib.parse import urlsplit

WITHIN = 2.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """`status` is None if nothing answered, and `error` says why; redirects are not followed."""

    status: int | None = None
    location: str = ""
    is_ours: bool = False
    error: str = ""


def probe_url(url: str) -> ProbeResult:
    """Send an unsigned POST to the URL and return the result, within two seconds for each step."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return ProbeResult(error="it is no http:// or https:// URL")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=WITHIN)
    try:
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request("POST", path, body=b"{}", headers={"Content-Type": "application/json"})
        answer = connection.getresponse()
        scheme = (answer.getheader("WWW-Authenticate") or "").lower()
        return ProbeResult(
            status=answer.status,
            location=answer.getheader("Location") or "somewhere it does not say",
            is_ours=scheme in ("signature", "bearer"),
        )
    except (OSError, http.client.HTTPException) as error:
        return ProbeResult(error=f"{type(error).__name__}: {error}")
    finally:
        connection.close()

"""The response of the endpoint, whatever carries it: a status, headers and a small JSON body."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Response:
    """`body` is JSON; `headers` are complete, with lower-case names."""

    status: int
    body: bytes
    headers: Headers


def json_response(status: int, facts: Mapping[str, object], headers: Headers = ()) -> Response:
    """Return the response with these facts. No cache may keep it: a GET on the tick path starts a run."""
    body = json.dumps(facts, separators=(",", ":")).encode()
    described = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    )
    return Response(status, body, (*described, *headers))


def _come_again(seconds: float) -> Headers:
    return ((b"retry-after", b"%d" % max(1, math.ceil(seconds))),)


def wrong(text: str) -> Response:
    """Return the response to an authenticated call that cannot be understood; the text says why."""
    return json_response(400, {"error": text})


def unauthorized(scheme: bytes) -> Response:
    """Return the one response to every failed authentication: it shows nothing about what failed."""
    return json_response(401, {"error": "unauthorized"}, ((b"www-authenticate", scheme),))


def not_allowed(methods: Iterable[str]) -> Response:
    """Return the response to a method that the path does not have."""
    return json_response(405, {"error": "method not allowed"}, ((b"allow", ", ".join(methods).encode()),))


def too_many(seconds: float) -> Response:
    """Return the response to a caller that is to come back in so many seconds."""
    return json_response(429, {"error": "too many requests"}, _come_again(seconds))


def early(facts: Mapping[str, object], seconds: float) -> Response:
    """Return the response to a ticker that came before its instant, and is to come again in so many seconds."""
    return json_response(425, {**facts, "due_in": round(seconds, 3)}, _come_again(seconds))


def held_by_too_many(seconds: float) -> Response:
    """Return the response to a ticker that would have to wait, where too many do already."""
    return json_response(503, {"error": "too many calls wait for their instant"}, _come_again(seconds))


def switched_off(finding: str, text: str) -> Response:
    """Return the response where nothing is to run, whatever is called for; only authenticated callers get it."""
    return json_response(503, {"finding": finding, "error": text})


def no_such_job(job_id: str) -> Response:
    """Return the response for an unknown job; only authenticated callers get it."""
    return json_response(404, {"error": "no such job", "job": job_id})


NOT_FOUND = json_response(404, {"error": "not found"})
TOO_LARGE = json_response(413, {"error": "the body is larger than 64 KiB"})
TOO_SLOW = json_response(408, {"error": "the body did not come in time"})
NO_JSON = json_response(415, {"error": "send application/json in UTF-8, not compressed"})
FAILED = json_response(500, {"error": "internal error"})
UNAVAILABLE = json_response(503, {"error": "unavailable, try again"}, ((b"retry-after", b"5"),))

"""What the endpoint answers, whatever carries it: a status, headers and a small JSON body."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is JSON; `headers` are complete, with lower-case names."""

    status: int
    body: bytes
    headers: Headers


def answer(status: int, facts: Mapping[str, object], headers: Headers = ()) -> Answer:
    """The answer that says these facts. No cache may keep it: a GET on the tick path starts a run."""
    body = json.dumps(facts, separators=(",", ":")).encode()
    described = (
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    )
    return Answer(status, body, (*described, *headers))


def wrong(text: str) -> Answer:
    """A call that is ours by its authentication, but cannot be understood; the text says why."""
    return answer(400, {"error": text})


def unauthorized(scheme: bytes) -> Answer:
    """The one answer to every failed authentication: it tells nothing about what failed."""
    return answer(401, {"error": "unauthorized"}, ((b"www-authenticate", scheme),))


def not_allowed(methods: Iterable[str]) -> Answer:
    """Another method is meant here."""
    return answer(405, {"error": "method not allowed"}, ((b"allow", ", ".join(methods).encode()),))


def too_many(seconds: float) -> Answer:
    """Come back in so many seconds."""
    return answer(429, {"error": "too many requests"}, ((b"retry-after", b"%d" % math.ceil(seconds)),))


def no_such_job(job_id: str) -> Answer:
    """Said only to those who may know."""
    return answer(404, {"error": "no such job", "job": job_id})


NOT_FOUND = answer(404, {"error": "not found"})
TOO_LARGE = answer(413, {"error": "the body is larger than 64 KiB"})
NO_JSON = answer(415, {"error": "send application/json in UTF-8, not compressed"})
FAILED = answer(500, {"error": "internal error"})
UNAVAILABLE = answer(503, {"error": "unavailable, try again"}, ((b"retry-after", b"5"),))

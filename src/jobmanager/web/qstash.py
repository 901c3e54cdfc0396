"""The signature of QStash: a JWT of the standard library alone, with HS256, over the URL, a span of time and the body's digest."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

from jobmanager.settings import Settings
from jobmanager.web.auth import RefusedError, RequestHeaders
from jobmanager.web.body import BodyError, strict_json

HEADER = b"upstash-signature"
TOLERANCE = 10
"""Seconds by which its clock and ours may differ."""

LONGEST = 4096


@dataclass(frozen=True, slots=True)
class QStashKeys:
    """The signing keys that are valid now, the one of the next rotation among them, and the URL that the schedules call."""

    keys: tuple[bytes, ...]
    tick_url: str

    @classmethod
    def of(cls, settings: Settings) -> QStashKeys:
        """Return the keys of the settings; none, which verify nothing, where there is no public URL."""
        given = (settings.qstash_current_signing_key, settings.qstash_next_signing_key)
        keys = tuple(key.get_secret_value().encode() for key in given if key is not None)
        return cls(keys if settings.tick_url else (), settings.tick_url or "")

    def __bool__(self) -> bool:
        return bool(self.keys)

    def body_digest(self, headers: RequestHeaders, job: str | None, now: float) -> str:
        """Return the digest that the call's body must have; RefusedError unless QStash signed this call of this URL, for now."""
        given = headers.get(HEADER, ())
        if len(given) != 1 or len(given[0]) > LONGEST or given[0].count(b".") != 2:
            raise RefusedError("no JWT of QStash")
        signed, _, signature = given[0].rpartition(b".")
        ours = [hmac.digest(key, signed, "sha256") for key in self.keys]
        if not any([hmac.compare_digest(_decoded(signature), one) for one in ours]):  # noqa: C419
            raise RefusedError("no signature of QStash by a valid key")
        head, claims = (_object(part) for part in signed.split(b"."))
        if head.get("alg") != "HS256" or claims.get("iss") != "Upstash":
            raise RefusedError("a JWT of another issuer")
        wanted = self.tick_url if job is None else f"{self.tick_url}/{job}"
        if claims.get("sub") != wanted:
            raise RefusedError("QStash signed a call of another URL")
        begin, end, digest = claims.get("nbf"), claims.get("exp"), claims.get("body")
        if not isinstance(begin, int) or not isinstance(end, int) or not isinstance(digest, str):
            raise RefusedError("a JWT without its times or its body")
        if not begin - TOLERANCE <= now <= end + TOLERANCE:
            raise RefusedError("a signature of QStash that has expired, or is not valid yet")
        return digest.rstrip("=")


def check_body(digest: str, body: bytes) -> None:
    """Raise RefusedError unless the body has this digest."""
    found = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")
    if not hmac.compare_digest(found.encode(), digest.encode()):
        raise RefusedError("QStash signed another body")


def _decoded(text: bytes) -> bytes:
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError("no JWT of QStash") from None


def _object(text: bytes) -> dict[str, Any]:
    try:
        value = strict_json(_decoded(text))
    except BodyError:
        raise RefusedError("no JWT of QStash") from None
    if type(value) is not dict:
        raise RefusedError("no JWT of QStash")
    return value


def is_signed(headers: RequestHeaders) -> bool:
    """Return whether the call says that QStash signed it."""
    return HEADER in headers

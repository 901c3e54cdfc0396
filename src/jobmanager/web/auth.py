"""Authentication of a call: a signature for each call by Standard Webhooks, or a bearer token. Looks at bytes and parses no body.

Whatever is wrong, the caller gets the same response; only the log says what it was.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobmanager.errors import JobManagerError
from jobmanager.settings import key_of

TOLERANCE = 300
"""Seconds that a signed call may be old, or ahead of our clock."""

MOST_SIGNATURES = 10

# A dot would leave open where the id ends and the timestamp begins.
_ID = re.compile(rb"[A-Za-z0-9_-]{1,128}")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}")

RequestHeaders = Mapping[bytes, Sequence[bytes]]


class RefusedError(JobManagerError):
    """The call is not known to be ours; the text is for the log alone."""


@dataclass(frozen=True, slots=True)
class Signed:
    """The headers of a signed call, before its body is read."""

    id: bytes
    timestamp: bytes
    signatures: Sequence[bytes]


class Keys:
    """The secrets that are valid now: one, two while one is replaced, or none, which authenticates nobody."""

    def __init__(self, secrets: Sequence[str]) -> None:
        self._keys = tuple(key_of(secret) for secret in secrets)
        self._digests = tuple(_digest(secret.encode()) for secret in secrets)

    def __bool__(self) -> bool:
        return bool(self._keys)

    def check_bearer(self, headers: RequestHeaders) -> None:
        """Raise RefusedError unless there is one `Authorization: Bearer` with a valid secret."""
        scheme, _, token = _only(headers, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            raise RefusedError("the authorization is no Bearer")
        # Digests have one length, and each is compared, so that the time taken shows nothing of the secrets.
        given = _digest(token.strip(b" "))
        if not any([hmac.compare_digest(given, digest) for digest in self._digests]):  # noqa: C419
            raise RefusedError("the bearer token is none of the secrets")

    def signed(self, headers: RequestHeaders, now: float) -> Signed:
        """Return the signatures of the call; RefusedError if headers are missing, or if its time is too far from ours."""
        call_id = _only(headers, b"webhook-id")
        timestamp = _only(headers, b"webhook-timestamp")
        given = _only(headers, b"webhook-signature").split(b" ")
        if not _ID.fullmatch(call_id) or not _TIMESTAMP.fullmatch(timestamp):
            raise RefusedError("webhook-id or webhook-timestamp is none")
        late = now - int(timestamp)
        if abs(late) > TOLERANCE:
            raise RefusedError(
                f"signed {late:.0f} s ago by its own clock; {TOLERANCE} s either way are tolerated"
            )
        if len(given) > MOST_SIGNATURES:
            raise RefusedError(f"{len(given)} signatures")
        return Signed(call_id, timestamp, [one[3:] for one in given if one.startswith(b"v1,")])

    def check_signature(self, signed: Signed, body: bytes) -> None:
        """Raise RefusedError unless a valid secret made one of the signatures, over exactly these bytes."""
        content = b"%b.%b.%b" % (signed.id, signed.timestamp, body)
        expected = [base64.b64encode(hmac.digest(key, content, "sha256")) for key in self._keys]
        if not any([hmac.compare_digest(one, ours) for one in signed.signatures for ours in expected]):  # noqa: C419
            raise RefusedError("no signature by a valid secret")


def _only(headers: RequestHeaders, name: bytes) -> bytes:
    given = headers.get(name, ())
    if len(given) != 1:
        raise RefusedError(f"{len(given)} headers {name.decode()}")
    return given[0]


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()

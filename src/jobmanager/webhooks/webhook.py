"""Webhook: one receiver and how it is called, checked when it is declared or made. Its secrets show in no repr."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from jobmanager.errors import ConfigurationError
from jobmanager.job import check_id
from jobmanager.settings import Secret, shown_url
from jobmanager.validation.kinds import Number, OneOf, Refused
from jobmanager.validation.texts import shown
from jobmanager.webhooks.auth import Auth, check_header
from jobmanager.webhooks.url import Target, target_of

Expect = str | Collection[int]

METHODS = ("POST", "PUT", "PATCH", "DELETE", "GET")
WITHOUT_BODY = frozenset({"GET", "DELETE"})
MOST_HEADERS = 30
LONGEST_TIMEOUT = 300
ANY_SUCCESS = range(200, 300)
SECRET_HEADER = re.compile(
    r"(?i)authorization|cookie|passw|secret|token|credential|api[-_]?key|access[-_]?key|signature"
)
SECRET_BYTES = range(24, 65)
"""The length of a secret in the specification of Standard Webhooks."""

_TIMEOUT = Number(0.1, LONGEST_TIMEOUT)
_METHOD = OneOf(METHODS)
_STATUSES = re.compile(r"([0-9]{3})(?:-([0-9]{3}))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """A receiver: a URL, how the request is made and proved, and which statuses mean that the work is done.

    `secret` signs the request: one text, or two with a blank between while one is replaced. Raises ConfigurationError for what
    cannot be meant.
    """

    key: str
    url: str
    method: str = "POST"
    auth: Auth | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout: float = 10.0
    expect: Expect = ANY_SUCCESS
    secret: Secret | None = None

    def __post_init__(self) -> None:
        check_id(self.key)
        target_of(self.url)
        for name, kind in (("timeout", _TIMEOUT), ("method", _METHOD)):
            try:
                kind.read(getattr(self, name))
            except Refused as refused:
                raise ConfigurationError(f"{name}={shown(getattr(self, name))} {refused}.") from None
        if self.auth is not None and not isinstance(self.auth, Auth):
            raise ConfigurationError(
                "auth is none of Bearer, Basic, ApiKey and Header of jobmanager.webhooks."
            )
        object.__setattr__(self, "headers", _headers(self.headers))
        object.__setattr__(self, "expect", statuses_of(self.expect))
        for text in self.signing_secrets:
            signing_key(text)

    @property
    def target(self) -> Target:
        """Where the request goes."""
        return target_of(self.url)

    @property
    def signing_secrets(self) -> tuple[str, ...]:
        """The secrets that sign: none, one, or two."""
        return tuple(self.secret.get_secret_value().split()) if self.secret else ()

    def expects(self, status: int) -> bool:
        """Return whether the status means that the work is done."""
        return any(first <= status <= last for first, last in _ranges(str(self.expect)))

    def words(self) -> dict[str, Any]:
        """Return the webhook as JSON, without its key and its secrets: `signed` says whether there is one to sign with."""
        return {
            "url": self.url,
            "method": self.method,
            "headers": dict(self.headers),
            "timeout": self.timeout,
            "expect": self.expect,
            "auth": None if self.auth is None else self.auth.words(),
            "signed": self.secret is not None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookInfo:
    """A webhook as operators see it, without secrets. `source` is code or stored; `auth` tells the kind and where the secret is.

    `secret` is the signing secret if the call that returned this made it; no other call shows it. `off` says why nothing is sent any more,
    until the webhook is edited: its receiver said 410 Gone.
    """

    key: str
    source: Literal["code", "stored"]
    url: str
    method: str
    auth: Mapping[str, Any] | None
    headers: Mapping[str, str]
    timeout: float
    expect: str
    signed: bool
    rev: int | None = None
    changed_at: datetime | None = None
    changed_by: str | None = None
    secret: Secret | None = None
    off: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookTest:
    """The result of a ping: `ok` if a run would have succeeded. `error` says what went wrong; `body` is bounded, without secrets."""

    key: str
    ok: bool
    status: int | None = None
    seconds: float | None = None
    body: Any = None
    error: str | None = None


def info_of(webhook: Webhook, source: Literal["code", "stored"], **more: Any) -> WebhookInfo:
    """Return what may be shown of the webhook; parameters of the URL that look like secrets are hidden."""
    words = {**webhook.words(), "url": shown_url(webhook.url), **more}
    return WebhookInfo(key=webhook.key, source=source, **words)


def new_signing_secret() -> Secret:
    """Return a fresh secret in the form of Standard Webhooks."""
    return Secret("whsec_" + base64.b64encode(os.urandom(32)).decode())


def signing_key(text: str) -> str:
    """Return the secret without its prefix; ConfigurationError, which shows none of it, if it is none of Standard Webhooks."""
    encoded = text.removeprefix("whsec_")
    try:
        length = len(base64.b64decode(encoded, validate=True))
    except ValueError:
        length = 0
    if length not in SECRET_BYTES:
        raise ConfigurationError(
            "secret is no signing secret; use whsec_ and the base64 of 24 to 64 random bytes, as secret=True makes one, "
            "or two of them with a blank between while one is replaced."
        )
    return encoded


def statuses_of(expect: object) -> str:
    """Return the statuses as one text, such as `200-299,409`; ConfigurationError for what is none, and for redirects."""
    text = expect if isinstance(expect, str) else _joined(expect)
    if text is None or not text or not all(map(_STATUSES.fullmatch, text.split(","))):
        raise ConfigurationError(
            f"expect={shown(expect)} cannot be used; use range(200, 300), [200, 409] or '200-299,409'."
        )
    for first, last in _ranges(text):
        if not 200 <= first <= last < 600 or (first < 400 and last > 299):
            raise ConfigurationError(
                f"expect={shown(expect)} cannot be used; a status is 200 to 299 or 400 to 599: redirects are failures."
            )
    return text


def _joined(expect: object) -> str | None:
    if isinstance(expect, range) and expect.step == 1 and len(expect):
        return f"{expect.start}-{expect.stop - 1}"
    if isinstance(expect, Collection) and all(type(status) is int for status in expect):
        return ",".join(str(status) for status in sorted(expect))
    return None


def _ranges(text: str) -> list[tuple[int, int]]:
    found = [part.partition("-") for part in text.split(",")]
    return [(int(first), int(last or first)) for first, _, last in found]


def _headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping) or len(headers) > MOST_HEADERS:
        raise ConfigurationError(f"headers is no mapping of at most {MOST_HEADERS} names to texts.")
    for name, value in headers.items():
        check_header(name, value, subject="headers")
        if SECRET_HEADER.search(name):
            raise ConfigurationError(
                f"headers: {name} holds a secret by its name, and headers are shown. Give it as auth=Header({name!r}, ...)."
            )
    return dict(headers)

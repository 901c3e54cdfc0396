"""The authentication of a webhook: one secret, and the header that carries it. No secret shows in a repr."""

from __future__ import annotations

import base64
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jobmanager.errors import ConfigurationError, WebhookRefusedError
from jobmanager.settings import Secret
from jobmanager.validation.texts import shown

TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
"""The name of a header, as RFC 9110 has it."""
VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]{0,8000}[\x21-\x7e])?")
"""The value of a header: ASCII without line breaks, and no blank at its ends."""
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,200}")
OURS = frozenset(
    {
        "host", "content-length", "content-type", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect",
        "accept-encoding", "proxy-authorization", "proxy-connection", "webhook-id", "webhook-timestamp", "webhook-signature",
        "idempotency-key", "traceparent", "jobmanager-attempt", "user-agent",
    }
)  # fmt: skip
"""Headers that the request itself decides."""


def check_header(name: object, value: object, *, subject: str) -> None:
    """Raise ConfigurationError for what is no header, and for one that the request decides. The value is not shown."""
    if not isinstance(name, str) or not TOKEN.fullmatch(name):
        raise ConfigurationError(f"{subject}={shown(name)} is no header name; use letters, digits and -.")
    if name.lower() in OURS:
        raise ConfigurationError(
            f"{subject}: the request itself decides {name}; leave it out of the headers and of auth."
        )
    if not isinstance(value, str) or not VALUE.fullmatch(value):
        raise ConfigurationError(
            f"{subject}: the value of {name} cannot be sent; use ASCII text without line breaks or blanks at its ends."
        )


@dataclass(frozen=True, kw_only=True)
class Auth(ABC):
    """The secret of a webhook: the text itself as `secret`, or the environment variable `env` that holds it when the request is made."""

    kind: ClassVar[str]
    secret: Secret | None = field(default=None, repr=False)
    env: str | None = None

    @property
    @abstractmethod
    def header(self) -> str:
        """The name of the header that carries the secret."""

    @abstractmethod
    def value_of(self, secret: str) -> str:
        """Return the header's value for the secret."""

    def __post_init__(self) -> None:
        if (self.secret is None) == (self.env is None):
            raise ConfigurationError(
                f"{type(self).__name__} needs its secret, or env= with the name of the variable that holds it."
            )
        if self.env is not None and not VARIABLE.fullmatch(self.env):
            raise ConfigurationError(f"env={shown(self.env)} is no name of an environment variable.")
        checked: Any = "-" if self.secret is None else self.secret.get_secret_value()
        if not isinstance(checked, str) or not checked:
            raise ConfigurationError(f"{type(self).__name__}: the secret is no text, or empty.")
        check_header(self.header, self.value_of(checked), subject="auth")

    def read(self, environ: Mapping[str, str] = os.environ) -> str:
        """Return the secret; WebhookRefusedError if the variable is not set here, or holds what no header can."""
        if self.secret is not None:
            return self.secret.get_secret_value()
        secret = environ.get(self.env or "", "").strip()
        if not secret or not VALUE.fullmatch(self.value_of(secret)):
            raise WebhookRefusedError(
                f"The environment variable {self.env} is not set in this process, or holds what no header can carry. "
                "Set it wherever the job is executed."
            )
        return secret

    def words(self) -> dict[str, Any]:
        """Return what tells the way from others, without the secret."""
        return {"kind": self.kind, **({"env": self.env} if self.env else {})}


@dataclass(frozen=True, init=False)
class Bearer(Auth):
    """`Authorization: Bearer TOKEN`."""

    kind: ClassVar[str] = "bearer"

    def __init__(self, token: str | None = None, *, env: str | None = None) -> None:
        _fill(self, secret=token, env=env)

    @property
    def header(self) -> str:
        return "Authorization"

    def value_of(self, secret: str) -> str:
        return f"Bearer {secret}"


@dataclass(frozen=True, init=False)
class Basic(Auth):
    """`Authorization: Basic`, with the user in clear and the password as the secret."""

    kind: ClassVar[str] = "basic"
    username: str = ""

    def __init__(self, username: str, password: str | None = None, *, env: str | None = None) -> None:
        given: Any = username
        if not isinstance(given, str) or ":" in given or not given.isprintable():
            raise ConfigurationError(f"username={shown(username)} cannot be sent; use text without a colon.")
        _fill(self, secret=password, env=env, username=username)

    @property
    def header(self) -> str:
        return "Authorization"

    def value_of(self, secret: str) -> str:
        return "Basic " + base64.b64encode(f"{self.username}:{secret}".encode()).decode()

    def words(self) -> dict[str, Any]:
        return {**super().words(), "username": self.username}


class _InHeader(Auth):
    """A secret that is the whole value of a header called `name`."""

    name: str

    @property
    def header(self) -> str:
        return self.name

    def value_of(self, secret: str) -> str:
        return secret

    def words(self) -> dict[str, Any]:
        return {**super().words(), "header": self.name}


@dataclass(frozen=True, init=False)
class ApiKey(_InHeader):
    """A key in a header of its own, `X-Api-Key` by default."""

    kind: ClassVar[str] = "api_key"
    name: str = "X-Api-Key"

    def __init__(self, key: str | None = None, *, header: str = "X-Api-Key", env: str | None = None) -> None:
        _fill(self, secret=key, env=env, name=header)


@dataclass(frozen=True, init=False)
class Header(_InHeader):
    """A header whose whole value is the secret, such as `Header("Authorization", "Token abc")`."""

    kind: ClassVar[str] = "header"
    name: str = ""

    def __init__(self, name: str, value: str | None = None, *, env: str | None = None) -> None:
        _fill(self, secret=value, env=env, name=name)


def _fill(auth: Auth, *, secret: str | None, **values: Any) -> None:
    """Set the fields of a value that its own __init__ makes, and check them."""
    for name, value in {**values, "secret": None if secret is None else Secret(secret)}.items():
        object.__setattr__(auth, name, value)
    auth.__post_init__()


def auth_of(words: Mapping[str, Any], secret: str) -> Auth:
    """Return the way that `words` tell, with its secret; ConfigurationError for words of another version."""
    match words:
        case {"kind": "bearer"}:
            return Bearer(secret)
        case {"kind": "basic", "username": str(username)}:
            return Basic(username, secret)
        case {"kind": "api_key", "header": str(header)}:
            return ApiKey(secret, header=header)
        case {"kind": "header", "header": str(header)}:
            return Header(header, secret)
    raise ConfigurationError(f"auth={shown(words)} is of no kind that this version knows.")

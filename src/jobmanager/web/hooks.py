"""Hooks that say who asks: by the users of the settings, by API keys, or everybody on this machine while you develop.

Each is called with an ASGI scope, or with a request that has one as `scope`, and returns the principal, or None. They stand on no
framework. The first two may take a moment, so an event loop calls them on a thread.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from jobmanager.access.keys import PREFIX
from jobmanager.access.passwords import User, hashed, matches, users_of
from jobmanager.access.principal import Principal
from jobmanager.clock import Clock, SystemClock
from jobmanager.manager.manager import JobManager
from jobmanager.settings import Settings

Authorize = Callable[[Any], Principal | None]
LONGEST_HEADER = 4096
REMEMBERED_FOR, MOST_REMEMBERED = 300.0, 1000  # seconds; logins whose password was right


class KeyHolder(Protocol):
    """The owner of the keys: a JobManager."""

    def principal_of_key(self, secret: str) -> Principal | None: ...


def api_keys(jobs: KeyHolder) -> Authorize:
    """Return a hook that knows the holder of an API key by its `Authorization: Bearer jm_...`."""

    def authorize(request: Any) -> Principal | None:
        secret = authorization(request, "bearer")
        return jobs.principal_of_key(secret) if secret is not None and secret.startswith(PREFIX) else None

    return authorize


def api_keys_from_settings(settings: Settings | None = None) -> Authorize:
    """Return `api_keys` for the store and the namespace of the settings, which are those of the environment by default."""
    return api_keys(JobManager(settings))


def basic_auth_from_settings(settings: Settings | None = None, *, clock: Clock | None = None) -> Authorize:
    """Return a hook that knows the users of JOBMANAGER_DASHBOARD_USERS by `Authorization: Basic`.

    A principal of it has no `authenticated_at`: a browser sends the password with each request, so it proves no recent login. A
    right password is remembered for five minutes, as a digest, since hashing takes a fifth of a second by design.
    """
    given = (Settings.from_env() if settings is None else settings).dashboard_users
    return _Basic(users_of(given.get_secret_value() if given else ""), clock or SystemClock())


class _Basic:
    """The users of the settings. Any thread may ask."""

    challenge = 'Basic realm="jobmanager", charset="UTF-8"'

    def __init__(self, users: Mapping[str, User], clock: Clock) -> None:
        self._users = users
        self._clock = clock
        self._pepper = secrets.token_bytes(32)
        self._stranger = User("", "", hashed(secrets.token_urlsafe()))
        self._lock = threading.Lock()
        self._remembered: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    def __call__(self, request: Any) -> Principal | None:
        given = authorization(request, "basic")
        if given is None or not self._users:
            return None
        try:
            name, colon, password = base64.b64decode(given, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            return None
        if not colon:
            return None
        seal = hashlib.blake2b(given.encode(), key=self._pepper, digest_size=32).digest()
        return self._known(seal) or self._checked(seal, name, password)

    def _known(self, seal: bytes) -> Principal | None:
        with self._lock:
            until, principal = self._remembered.get(seal, (0.0, None))
        return principal if self._clock.monotonic() < until else None

    def _checked(self, seal: bytes, name: str, password: str) -> Principal | None:
        user = self._users.get(
            name, self._stranger
        )  # a name that does not exist takes as long as a wrong password
        if not matches(password, user.hash) or user is self._stranger:
            return None
        principal = Principal(user.name, [user.role])
        with self._lock:
            self._remembered[seal] = self._clock.monotonic() + REMEMBERED_FOR, principal
            while len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        return principal


def authorization(request: Any, scheme: str) -> str | None:
    """Return what follows the scheme in the one `Authorization` header; None if there is none, or several."""
    values = headers_of(request).get("authorization", [])
    if len(values) != 1 or len(values[0]) > LONGEST_HEADER:
        return None
    found, _, rest = values[0].partition(" ")
    return rest.strip(" ") if found.lower() == scheme and rest else None


def headers_of(request: Any) -> dict[str, list[str]]:
    """Return the values of each header by its name in lower case."""
    found: dict[str, list[str]] = {}
    for name, value in scope_of(request).get("headers", ()):
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return found


def scope_of(request: Any) -> Mapping[str, Any]:
    """Return the ASGI scope: the request itself, or what it has as `scope`."""
    of_framework: Any = request
    scope: Mapping[str, Any] = (
        request if isinstance(request, Mapping) and "headers" in request else of_framework.scope
    )
    return scope

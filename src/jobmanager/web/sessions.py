"""Sign-in with a password: a signed cookie that says who signed in, and when."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import inspect
import secrets
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from http.cookies import CookieError, SimpleCookie
from typing import Any, cast

from itsdangerous import BadData, URLSafeSerializer

from jobmanager.access.passwords import User, hashed, matches, users_of
from jobmanager.access.principal import Principal
from jobmanager.clock import Clock, SystemClock
from jobmanager.settings import Settings
from jobmanager.web.guard import Hook
from jobmanager.web.hooks import headers_of
from jobmanager.web.limit import Limit

COOKIE = "jobmanager_session"
LASTS = timedelta(hours=12)
TRIES, TRIES_PER_SECOND = 5, 5 / 60
ALL_TRIES, ALL_TRIES_PER_SECOND = 100, 2.0
LONGEST_PASSWORD = 1000
_PURPOSE = b"jobmanager dashboard sessions"


class Sessions:
    """The users of JOBMANAGER_DASHBOARD_USERS, signed in on the dashboard's own page. A hook that knows them by a cookie. Any thread.

    The cookie is signed with a key that follows from JOBMANAGER_ENCRYPTION_KEY, so that every process of an installation knows it; without
    that setting with a random key of this process, and its end signs everybody out. A session lasts twelve hours, and ends earlier
    when the user's password is changed or the user is taken out of the setting. Signing out takes the cookie from the browser.
    """

    def __init__(self, settings: Settings, clock: Clock) -> None:
        given = settings.dashboard_users
        self._users = users_of(given.get_secret_value() if given else "")
        self._clock = clock
        keys = [hmac.digest(key.encode(), _PURPOSE, "sha256") for key in reversed(settings.encryption_keys)]
        self._signer = URLSafeSerializer(keys or [secrets.token_bytes(32)], salt=_PURPOSE)
        self._stranger = User("", "", hashed(secrets.token_urlsafe()))
        self._tries = Limit(TRIES_PER_SECOND, TRIES, clock.monotonic)
        self._all_tries = Limit(ALL_TRIES_PER_SECOND, ALL_TRIES, clock.monotonic)

    def __call__(self, request: Any) -> Principal | None:
        """Return the principal of the session whose cookie the request brings, with the time of its sign-in; None without one."""
        told = self._read(_cookie_of(request))
        user = self._users.get(str(told.get("name")))
        if user is None or told.get("password") != _mark(user):
            return None
        at = datetime.fromtimestamp(float(told["at"]), UTC)
        if not timedelta(minutes=-1) <= self._clock.now() - at <= LASTS:
            return None
        return Principal(user.name, [user.role], authenticated_at=at)

    def wait_of(self, address: str) -> float:
        """Return the seconds until this address may try again, 0.0 if it may now; a try is counted by that."""
        return self._tries.take(address) or self._all_tries.take("")

    def sign_in(self, name: str, password: str) -> str | None:
        """Return the cookie of a new session; None for a password that is wrong, or a name that is no user's, after the same time."""
        user = self._users.get(name, self._stranger)
        if not matches(password[:LONGEST_PASSWORD], user.hash) or user is self._stranger:
            return None
        return self._signer.dumps(
            {"name": user.name, "password": _mark(user), "at": self._clock.now().timestamp()}
        )

    def _read(self, cookie: str | None) -> Mapping[str, Any]:
        try:
            told = self._signer.loads(cookie) if cookie else {}
        except BadData:
            return {}
        return cast("Mapping[str, Any]", told)


def either(*hooks: Hook) -> Callable[[Any], Awaitable[Principal | None]]:
    """Return a hook that asks the hooks one after the other, each on a thread, until one knows the principal."""

    async def authorize(request: Any) -> Principal | None:
        for hook in hooks:
            found = (
                hook(request) if inspect.iscoroutinefunction(hook) else await asyncio.to_thread(hook, request)
            )
            principal = await found if inspect.isawaitable(found) else found
            if principal is not None:
                return principal
        return None

    return authorize


def _mark(user: User) -> str:
    """Return a text that changes with the password."""
    return hashlib.sha256(user.hash.encode()).hexdigest()[:16]


def _cookie_of(request: Any) -> str | None:
    jar: SimpleCookie = SimpleCookie()
    for value in headers_of(request).get("cookie", []):
        try:
            jar.load(value)
        except CookieError:
            return None
    found = jar.get(COOKIE)
    return found.value if found else None


def password_login(settings: Settings | None = None, *, clock: Clock | None = None) -> Sessions:
    """Return the sign-in for the users of JOBMANAGER_DASHBOARD_USERS; see `jobmanager.web.dashboard`."""
    return Sessions(Settings.from_env() if settings is None else settings, clock or SystemClock())

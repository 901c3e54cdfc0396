"""The endpoint in your web application: `asgi(jobs)` for FastAPI, Starlette or Litestar, `wsgi(jobs)` for Flask or Django.

It serves `POST /jobs/run` (the setting RUN_PATH), which the database calls, `GET` or `POST /jobs/tick/{job}`, for tickers of other
kinds that send a bearer token, and `GET /jobs/healthz` and `/jobs/readyz` without login, for the probes of a host. It needs no package of a framework.

`dashboard(jobs, authorize=...)` is the operators' surface: pages, and a JSON API at `/api/v1`. It needs the extra `web`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobmanager.access.principal import Principal
from jobmanager.clock import SystemClock
from jobmanager.errors import MissingExtraError
from jobmanager.validation.parts import check_parts
from jobmanager.web.asgi import Application as AsgiApplication
from jobmanager.web.asgi import Asgi
from jobmanager.web.hooks import Authorize, api_keys, api_keys_from_settings, basic_auth_from_settings
from jobmanager.web.limit import Limits
from jobmanager.web.loopback import loopback_only
from jobmanager.web.parts import PARTS
from jobmanager.web.work import Manager
from jobmanager.web.wsgi import Application as WsgiApplication
from jobmanager.web.wsgi import Wsgi

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.settings import Settings
    from jobmanager.web.guard import Hook
    from jobmanager.web.sessions import Sessions

__all__ = [
    "Authorize",
    "Limits",
    "Principal",
    "api_keys",
    "api_keys_from_settings",
    "asgi",
    "basic_auth_from_settings",
    "dashboard",
    "loopback_only",
    "password_login",
    "wsgi",
]


def asgi(jobs: Manager, *, otherwise: AsgiApplication | None = None, limits: Limits | None = None) -> Asgi:
    """Return an ASGI application with the endpoint: mount it at `/jobs`, or at any prefix.

    With `otherwise` it stands before that application and serves its own four paths alone. `limits` bounds the calls of one
    address. ConfigurationError for what cannot be used; SettingsError if the secret cannot be read; without a secret every call is refused.
    """
    check_parts("asgi", PARTS, needed=["jobs"], jobs=jobs, otherwise=otherwise, limits=limits)
    return Asgi(jobs, otherwise, limits, SystemClock())


def wsgi(jobs: Manager, *, otherwise: WsgiApplication | None = None, limits: Limits | None = None) -> Wsgi:
    """Return a WSGI application with the endpoint, as `asgi` otherwise. A call takes one of the server's threads."""
    check_parts("wsgi", PARTS, needed=["jobs"], jobs=jobs, otherwise=otherwise, limits=limits)
    return Wsgi(jobs, otherwise, limits, SystemClock())


def dashboard(
    jobs: JobManager,
    *,
    authorize: Hook,
    title: str | None = None,
    timezone: str = "UTC",
    login_url: str | None = None,
    sign_in: Sessions | None = None,
    read_only: bool = False,
    limits: Limits | None = None,
) -> AsgiApplication:
    """Return an ASGI application with the dashboard's pages and its JSON API at `/api/v1`: mount it at any prefix.

    It is closed: `authorize` is called with each request, a `starlette.requests.Request`, and returns the `Principal` that makes it, or
    None, for which the response is 401. It may be a coroutine function; others are called on a thread. `title` names the installation,
    by default its namespace; `timezone` is the zone in which pages tell times. `login_url` is where people sign in, also again.
    With `sign_in=password_login()` the dashboard has a page for that itself, and asks `authorize` about requests without its cookie. With `read_only` nothing can be changed. It starts nothing: the manager's own `start()` keeps time. `limits` bounds failed
    sign-ins of one address. ConfigurationError for what cannot be used, MissingExtraError without the extra `web`, CronError for a zone that does not exist.
    """
    check_parts(
        "dashboard",
        PARTS,
        needed=["jobs", "authorize"],
        jobs=jobs,
        authorize=authorize,
        title=title,
        login_url=login_url,
        sign_in=sign_in,
        read_only=read_only,
        limits=limits,
    )
    try:
        from jobmanager.web.application import make
    except ImportError as error:
        raise _missing(error) from error
    return make(
        jobs,
        authorize,
        title=title,
        timezone=timezone,
        login_url=login_url,
        sign_in=sign_in,
        read_only=read_only,
        limits=limits,
    )


def password_login(settings: Settings | None = None) -> Sessions:
    """Return the sign-in with a password for the users of JOBMANAGER_DASHBOARD_USERS: give it to `dashboard` as `sign_in`.

    A signed cookie keeps a session for twelve hours, across processes and restarts if JOBMANAGER_ENCRYPTION_KEY is set, and proves a recent
    sign-in, which dangerous actions need. Five tries a minute for each address. `settings` are those of the environment by
    default. MissingExtraError without the extra `web`.
    """
    check_parts("password_login", PARTS, settings=settings)
    try:
        from jobmanager.web.sessions import password_login as made
    except ImportError as error:
        raise _missing(error) from error
    return made(settings)


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        f"The dashboard needs a package that is not installed: {error}. Install jobmanager-backends[web].",
        extra="web",
    )

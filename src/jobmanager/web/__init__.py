"""The endpoint in your web application: `asgi(jobs)` for FastAPI, Starlette or Litestar, `wsgi(jobs)` for Flask or Django.

It serves `POST /jobs/run` (the setting RUN_PATH), which the database calls, `GET` or `POST /jobs/tick/{job}`, for tickers of other
kinds that send a bearer token, and `GET /jobs/healthz` and `/jobs/readyz` without login, for the probes of a host. It needs no package of a framework.
"""

from __future__ import annotations

from jobmanager.access.principal import Principal
from jobmanager.clock import SystemClock
from jobmanager.web.asgi import Application as AsgiApplication
from jobmanager.web.asgi import Asgi
from jobmanager.web.hooks import Authorize, api_keys, api_keys_from_settings, basic_auth_from_settings
from jobmanager.web.limit import Limits
from jobmanager.web.loopback import loopback_only
from jobmanager.web.work import Manager
from jobmanager.web.wsgi import Application as WsgiApplication
from jobmanager.web.wsgi import Wsgi

__all__ = [
    "Authorize",
    "Limits",
    "Principal",
    "api_keys",
    "api_keys_from_settings",
    "asgi",
    "basic_auth_from_settings",
    "loopback_only",
    "wsgi",
]


def asgi(jobs: Manager, *, otherwise: AsgiApplication | None = None, limits: Limits | None = None) -> Asgi:
    """Return an ASGI application with the endpoint: mount it at `/jobs`, or at any prefix.

    With `otherwise` it stands before that application and serves its own four paths alone. `limits` bounds the calls of one
    address. SettingsError if the secret cannot be read; without a secret every call is refused.
    """
    return Asgi(jobs, otherwise, limits, SystemClock())


def wsgi(jobs: Manager, *, otherwise: WsgiApplication | None = None, limits: Limits | None = None) -> Wsgi:
    """Return a WSGI application with the endpoint, as `asgi` otherwise. A call takes one of the server's threads."""
    return Wsgi(jobs, otherwise, limits, SystemClock())

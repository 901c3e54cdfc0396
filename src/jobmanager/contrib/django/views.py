"""The endpoint and the dashboard as views: inside Django's middleware, and so with its sessions and users."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt

from jobmanager.access.principal import Principal
from jobmanager.contrib.django.current import current
from jobmanager.contrib.django.permissions import note_in_admin, principal_of
from jobmanager.manager.manager import JobManager
from jobmanager.web import dashboard as make_dashboard
from jobmanager.web import wsgi

PRINCIPAL = "jobmanager.principal"
_endpoint_of = lru_cache(maxsize=4)(wsgi)  # a process has one manager, and tests a few, one after another


@csrf_exempt
def endpoint(request: Any, inner: str) -> HttpResponse:
    """Serve a call of the endpoint. Under ASGI Django calls it on a thread of the request's own."""
    manager = current()
    application = _endpoint_of(manager)
    folder = manager.settings.run_path.rpartition("/")[0]
    environ = _environ(request, path=f"{folder}/{inner}", mount="")
    return _called(application, environ)


@csrf_exempt
def dashboard(request: Any, inner: str) -> Any:
    """Serve the dashboard to whom Django's permissions let see it; others are sent to the admin's login.

    It has its own protection against requests of other sites.
    """
    principal = principal_of(request.user)
    if principal is None and not request.user.is_authenticated:
        return redirect_to_login(request.get_full_path(), _login_url())
    manager = current()
    application = _dashboard_of(manager)
    mount = request.path[: len(request.path) - len(inner)].rstrip("/")
    environ = _environ(request, path=f"/{inner}", mount=mount) | {PRINCIPAL: principal}
    response = _called(application, environ)
    if principal is not None and request.method != "GET" and response.status_code < 400:
        note_in_admin(request.user, request.method, inner)
    return response


@lru_cache(maxsize=4)
def _dashboard_of(manager: JobManager) -> Any:
    from a2wsgi import ASGIMiddleware

    made: Any = make_dashboard(
        manager, authorize=_found_by_django, timezone=settings.TIME_ZONE or "UTC", login_url=_login_url()
    )
    return ASGIMiddleware(made)


def _found_by_django(request: Any) -> Principal | None:
    found: Principal | None = request.scope["wsgi_environ"][PRINCIPAL]
    return found


def _login_url() -> str:
    try:
        return str(reverse("admin:login"))
    except Exception:  # noqa: BLE001 - no admin, or URLs that cannot be imported
        return str(settings.LOGIN_URL)


def _environ(request: Any, *, path: str, mount: str) -> dict[str, Any]:
    """Return the request as WSGI has it, at this path below this mount; one that came by ASGI with its body read."""
    environ = dict(getattr(request, "environ", request.META))
    if not hasattr(request, "environ"):
        environ |= {
            "wsgi.input": io.BytesIO(request.body),
            "CONTENT_LENGTH": str(len(request.body)),
            "wsgi.url_scheme": request.scheme,
            "wsgi.errors": io.StringIO(),
            "SERVER_PROTOCOL": "HTTP/1.1",
        }
    return environ | {"PATH_INFO": _bytes_as_text(path), "SCRIPT_NAME": _bytes_as_text(mount)}


def _bytes_as_text(path: str) -> str:
    return path.encode().decode("latin-1")


def _called(application: Callable[..., Iterable[bytes]], environ: dict[str, Any]) -> HttpResponse:
    """Call a WSGI application and return its whole response; what it sends is short, and not one that goes on."""
    begun: list[Any] = []
    parts = application(environ, lambda *status_and_headers: begun.extend(status_and_headers))
    try:
        body = b"".join(parts)
    finally:
        getattr(parts, "close", bool)()
    status, headers = begun[:2]
    return _response(int(status.partition(" ")[0]), headers, body)


def _response(status: int, headers: Iterable[tuple[str, str]], body: bytes) -> HttpResponse:
    response = HttpResponse(body, status=status)
    del response["Content-Type"]
    for name, value in headers:
        if name.lower() == "set-cookie":
            response.cookies.load(value)
        else:
            response[name] = value
    return response

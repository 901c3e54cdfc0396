"""The page of API keys: made here, shown once, and revoked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import ADMIN, PERMISSIONS, READ, WRITE
from jobmanager.errors import ConfigurationError, PermissionDeniedError
from jobmanager.web.pages.rendering import back_to, check_page, confirmation, form_of, page
from jobmanager.web.recent import check_recent
from jobmanager.web.site import site_of

ENDS = {"30": "in 30 days", "90": "in 90 days", "365": "in a year", "": "never"}
SAID = {
    "jobs:read": "see jobs and runs",
    "jobs:write": "start, cancel, redrive, pause and edit",
    "jobs:admin": "make and delete jobs, webhooks, entries and keys",
    "jobs:dangerous": "do what cannot be undone, without a recent sign-in",
}


def keys(request: Request) -> Response:
    """Show the keys, and the form that makes one."""
    return _shown(request)


async def create(request: Request) -> Response:
    """Make a key, and show its secret this once."""
    form = await form_of(request)
    check_recent(request, ADMIN)
    return await run_in_threadpool(_create, request, form)


def _create(request: Request, form: Any) -> Response:
    site = site_of(request)
    name, days = str(form.get("name", "")).strip(), str(form.get("ends", ""))
    granted = [permission for permission in PERMISSIONS if permission in form.getlist("permission")]
    scopes = str(form.get("scopes", "")).split() or None
    ends = site.now() + timedelta(days=int(days)) if days in ENDS and days else None
    try:
        secret = site.jobs.create_key(name, permissions=granted, scopes=scopes, expires=ends)
    except (ConfigurationError, PermissionDeniedError) as error:
        return _shown(request, 422, error=str(error), form=form, granted=granted)
    return _shown(request, 201, made=name, secret=secret)


async def ask_revoke(request: Request) -> Response:
    """Ask whether a key is to be revoked."""
    await form_of(request)
    return await run_in_threadpool(_ask_revoke, request)


def _ask_revoke(request: Request) -> Response:
    check_page(request, ADMIN)
    check_recent(request)
    given = request.path_params["key"]
    known = site_of(request).jobs.keys()
    found = [key for key in known if given in (key.id, key.name)]
    return confirmation(
        request,
        question=f"Revoke key {found[0].name if found else given}?",
        told="Every request with it is refused from now on. A revoked key cannot be brought back; make a new one.",
        apply=f"/keys/{quote(given, safe='')}/revoke/apply",
        verb="Revoke 1 key",
        keep="Keep it",
        back="/keys",
    )


async def revoke(request: Request) -> Response:
    """Revoke a key."""
    await form_of(request)
    check_recent(request, ADMIN)
    await run_in_threadpool(site_of(request).jobs.revoke_key, request.path_params["key"])
    return back_to(request, "/keys")


def _shown(request: Request, status: int = 200, **more: Any) -> Response:
    check_page(request, ADMIN)
    site = site_of(request)
    given = {"made": "", "secret": "", "error": "", "form": {}, "granted": (READ, WRITE)}
    return page(
        request,
        "api_keys.html",
        status,
        keys=site.jobs.keys(),
        now=site.now(),
        permissions=[(name, SAID[name]) for name in PERMISSIONS],
        ends=ENDS,
        **{**given, **more},
    )


ROUTES = [
    Route("/keys", keys),
    Route("/keys", create, methods=["POST"]),
    Route("/keys/{key}/revoke", ask_revoke, methods=["POST"]),
    Route("/keys/{key}/revoke/apply", revoke, methods=["POST"]),
]

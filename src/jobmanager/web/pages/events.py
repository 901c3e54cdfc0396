"""The page of events: which were sent and what they started, which runs wait for one, and the form that sends one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import WRITE
from jobmanager.errors import PayloadError
from jobmanager.web.pages.queries import with_query
from jobmanager.web.pages.rendering import back_to, check_page, form_of, page
from jobmanager.web.site import site_of

PAGE = 50
NOTHING: Mapping[str, str] = {"name": "", "key": "", "data": "", "id": ""}
"""The fields of the form that sends an event, empty."""


def events(request: Request) -> Response:
    """Show the runs that wait for an event, and a page of the events that were sent, of one name if the address says so."""
    query = request.query_params
    chosen = {name: query[f"send-{name}"] for name in ("name", "key") if f"send-{name}" in query}
    return _events(request, form={**NOTHING, **chosen}, is_open=bool(chosen))


def _events(
    request: Request, status: int = 200, *, form: Mapping[str, str], is_open: bool, error: str = ""
) -> Response:
    jobs, query = site_of(request).jobs, request.query_params
    name, before = query.get("name", "").strip()[:200] or None, query.get("before") or None
    found = jobs.sent_events(name=name, before=before, limit=PAGE + 1)
    shown, waits = found[:PAGE], jobs.event_waits(name=name, limit=PAGE + 1)
    return page(
        request,
        "events.html",
        status,
        events=shown,
        waits=waits[:PAGE],
        more_wait=len(waits) > PAGE,
        name=name,
        sees_all=request.state.principal.scopes is None,
        older=with_query(query, before=shown[-1].id) if len(found) > PAGE else None,
        newest=with_query(query, before=None) if before else None,
        form=form,
        is_open=is_open,
        error=error,
        link_to=lambda **fields: "?" + urlencode(fields),
    )


async def send(request: Request) -> Response:
    """Send an event."""
    form = await form_of(request)
    return await run_in_threadpool(_send, request, form)


def _send(request: Request, form: Mapping[str, Any]) -> Response:
    check_page(request, WRITE)
    given = {name: str(form.get(name, "")).strip() for name in NOTHING}
    try:
        data = json.loads(given["data"]) if given["data"] else None
    except (ValueError, RecursionError) as error:
        told = f"The data is not JSON: {error}."
        return _events(request, 422, form=given, is_open=True, error=told)
    try:
        site_of(request).jobs.send_event(given["name"], key=given["key"], data=data, id=given["id"] or None)
    except PayloadError as error:
        return _events(request, 422, form=given, is_open=True, error=str(error))
    return back_to(request, "/events" + with_query({}, name=given["name"]))


ROUTES = [Route("/events", events), Route("/events", send, methods=["POST"])]

"""The page of notifications: what waits, what was sent, and what could not be sent."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.web.pages.queries import with_query
from jobmanager.web.pages.rendering import back_to, form_of, page
from jobmanager.web.site import site_of

PAGE = 50
MARKS = {"waiting": "pending", "sent": "succeeded", "dead": "failed", "dropped": "skipped"}
STATES = tuple(MARKS)


def notifications(request: Request) -> Response:
    """Show a page of notifications, newest first, of one state and one job if the address says so."""
    jobs, query = site_of(request).jobs, request.query_params
    state, before = query.get("state"), query.get("before")
    chosen = state if state in STATES else None
    found = jobs.notifications(
        chosen or (), job=query.get("job") or None, before=before or None, limit=PAGE + 1
    )
    shown = found[:PAGE]
    return page(
        request,
        "notifications.html",
        notifications=shown,
        states=STATES,
        chosen=chosen,
        marks=MARKS,
        links={word: with_query(query, state=word, before=None) for word in ("", *STATES)},
        older=with_query(query, before=shown[-1].id) if len(found) > PAGE else None,
        newest=with_query(query, before=None) if before else None,
        is_told=jobs.settings.alerts_email is not None or jobs.settings.alerts_urls is not None,
    )


async def resend(request: Request) -> Response:
    """Have a notification sent again."""
    await form_of(request)
    await run_in_threadpool(site_of(request).jobs.resend_notification, request.path_params["id"])
    return back_to(request, "/notifications")


async def drop(request: Request) -> Response:
    """Have a notification not sent any more."""
    await form_of(request)
    await run_in_threadpool(site_of(request).jobs.drop_notification, request.path_params["id"])
    return back_to(request, "/notifications")


ROUTES = [
    Route("/notifications", notifications),
    Route("/notifications/{id}/resend", resend, methods=["POST"]),
    Route("/notifications/{id}/drop", drop, methods=["POST"]),
]

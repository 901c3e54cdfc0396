"""The page of the audit: who changed what, from what to what, and what was refused."""

from __future__ import annotations

from datetime import datetime, time, timedelta, tzinfo
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import ADMIN
from jobmanager.web.pages.queries import with_query
from jobmanager.web.pages.rendering import page
from jobmanager.web.site import site_of

PAGE = 50
TARGETS = ("job", "run", "webhook", "entry", "key", "notification", "secret", "namespace", "runs")
OUTCOMES = ("done", "refused")


def audit(request: Request) -> Response:
    """Show a page of the audit, newest first, with the filters of the address."""
    site, query = site_of(request), request.query_params
    given: dict[str, Any] = {
        name: query.get(name, "").strip() or None for name in ("job", "target", "actor", "action", "before")
    }
    outcome = cast("Any", query.get("outcome"))
    entries = site.jobs.audit(
        **given,
        outcome=outcome if outcome in OUTCOMES else None,
        since=day_of(query.get("since"), site.zone),
        until=day_of(query.get("until"), site.zone, after=True),
        limit=PAGE + 1,
    )
    shown = entries[:PAGE]
    return page(
        request,
        "audit.html",
        entries=shown,
        targets=TARGETS,
        outcomes=OUTCOMES,
        filtered=any(
            query.get(name) for name in ("job", "target", "actor", "action", "outcome", "since", "until")
        ),
        older=with_query(query, before=shown[-1].id) if len(entries) > PAGE else None,
        newest=with_query(query, before=None) if given["before"] else None,
        sees_all=request.state.principal.may(ADMIN) and request.state.principal.scopes is None,
    )


def day_of(text: str | None, zone: tzinfo, *, after: bool = False) -> datetime | None:
    """Return the beginning of a day that a date field names, or that of the day after it; None for what is no date."""
    try:
        day = datetime.strptime((text or "").strip(), "%Y-%m-%d").date()  # noqa: DTZ007 - a date without a zone
    except ValueError:
        return None
    return datetime.combine(day + timedelta(days=1 if after else 0), time(), zone)


ROUTES = [Route("/audit", audit)]

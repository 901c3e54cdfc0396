"""The audit over the API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Request

from jobmanager.access.principal import READ
from jobmanager.present.account import audit_record
from jobmanager.web.api.models import MOST_ON_A_PAGE, Instant, JsonObject, Moment, Page, Shown, page_of
from jobmanager.web.api.routing import Routes
from jobmanager.web.site import site_of

router = Routes(tags=["audit"])
Word = Annotated[str | None, Query(max_length=500)]


class AuditModel(Shown):
    """One change by hand, or one that was refused: by whom, from where, of what, from what to what."""

    id: str
    at: Instant
    by: str | None
    action: str
    job: str | None
    target: str
    target_id: str
    outcome: Literal["done", "refused"]
    reason: str | None
    address: str | None
    user_agent: str | None
    request_id: str | None
    batch_id: str | None
    rev: int | None
    before: JsonObject | None
    after: JsonObject | None


def list_audit(
    request: Request,
    job: Word = None,
    target: Word = None,
    target_id: Word = None,
    actor: Word = None,
    action: Word = None,
    outcome: Annotated[Literal["done", "refused"] | None, Query()] = None,
    since: Annotated[Moment | None, Query()] = None,
    until: Annotated[Moment | None, Query()] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
) -> dict[str, Any]:
    """List what was changed by hand, and what was refused, newest first, in [since, until)."""
    found = site_of(request).jobs.audit(
        job=job,
        target=target,
        target_id=target_id,
        actor=actor,
        action=action,
        outcome=outcome,
        since=since,
        until=until,
        before=cursor,
        limit=limit + 1,
    )
    page = page_of(found, limit, lambda entry: entry.id)
    return page | {"items": [audit_record(entry) for entry in page["items"]]}


router.add("GET", "/audit", READ, list_audit, response_model=Page[AuditModel])

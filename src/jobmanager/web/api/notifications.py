"""Notifications over the API: what waits and was sent; send it again, or drop it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Request

from jobmanager.access.principal import READ, WRITE
from jobmanager.present.account import notification_record
from jobmanager.web.api.models import MOST_ON_A_PAGE, Instant, JsonObject, Page, Shown, page_of
from jobmanager.web.api.routing import Routes
from jobmanager.web.site import site_of

router = Routes(tags=["notifications"])
State = Literal["waiting", "sent", "dead", "dropped"]


class NotificationModel(Shown):
    """An event for one address of one channel. `due_at` is null unless it waits."""

    id: str
    event: str
    job: str | None
    subject: str
    channel: str
    address: str | None
    state: State
    count: int
    attempts: int
    unsure: int
    created_at: Instant
    due_at: Instant | None
    sent_at: Instant | None
    message: str | None
    error: str | None
    details: JsonObject


def list_notifications(
    request: Request,
    state: Annotated[list[State] | None, Query(description="One state, or several.")] = None,
    job: Annotated[str | None, Query(max_length=128)] = None,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=MOST_ON_A_PAGE)] = 50,
) -> dict[str, Any]:
    """List notifications, newest first."""
    found = site_of(request).jobs.notifications(state or (), job=job, before=cursor, limit=limit + 1)
    page = page_of(found, limit, lambda item: item.id)
    return page | {"items": [notification_record(item) for item in page["items"]]}


def get_notification(request: Request, notification_id: str) -> dict[str, Any]:
    """Get one notification."""
    return notification_record(site_of(request).jobs.notification(notification_id))


def resend_notification(request: Request, notification_id: str) -> dict[str, Any]:
    """Have a notification sent again as if it were new, whatever became of it."""
    return notification_record(site_of(request).jobs.resend_notification(notification_id))


def drop_notification(request: Request, notification_id: str) -> dict[str, Any]:
    """Have a notification not sent any more. Twice is safe."""
    return notification_record(site_of(request).jobs.drop_notification(notification_id))


router.add("GET", "/notifications", READ, list_notifications, response_model=Page[NotificationModel])
router.add(
    "GET", "/notifications/{notification_id}", READ, get_notification, response_model=NotificationModel
)
for _path, _do in (("resend", resend_notification), ("drop", drop_notification)):
    router.add(
        "POST",
        f"/notifications/{{notification_id}}/{_path}",
        WRITE,
        _do,
        responses=[409],
        response_model=NotificationModel,
    )

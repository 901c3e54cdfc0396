"""API keys over the API: list them, make one, revoke one. The secret is in the response that makes it, and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import Request, Response
from pydantic import Field

from jobmanager.access.principal import ADMIN, PERMISSIONS, READ, WRITE
from jobmanager.present.account import key_record
from jobmanager.web.api.jobs import location
from jobmanager.web.api.models import Given, Instant, Moment, Page, Shown, text
from jobmanager.web.api.repeated import show_once
from jobmanager.web.api.routing import Routes
from jobmanager.web.recent import check_recent
from jobmanager.web.site import site_of

router = Routes(tags=["keys"])
if TYPE_CHECKING:
    Permission = str
else:
    Permission = Literal[PERMISSIONS]
MOST_SCOPES = 1_000


class NewKey(Given):
    """A key to make. Nobody gives a key a permission or a scope that he lacks."""

    name: Annotated[str, text(196, examples=["ci"])]
    permissions: Annotated[list[Permission], Field(max_length=10)] = Field(
        default_factory=lambda: [READ, WRITE]
    )
    scopes: Annotated[list[Annotated[str, text(500)]], Field(max_length=MOST_SCOPES)] | None = Field(
        None, description="Of project jobs the runs of these scopes; null shows all."
    )
    expires: Moment | None = None


class KeyModel(Shown):
    """A key without its secret; `hint` is how that begins."""

    id: str
    namespace: str
    name: str
    permissions: list[str]
    scopes: list[str] | None
    hint: str
    created_at: Instant
    created_by: str | None
    expires_at: Instant | None
    revoked_at: Instant | None
    revoked_by: str | None
    last_used_at: Instant | None


class MadeKey(Shown):
    """A key that was just made, and its secret, which nothing shows again."""

    key: KeyModel
    secret: str = Field(examples=["jm_..."])


def list_keys(request: Request) -> dict[str, Any]:
    """List the keys, newest first, revoked ones included."""
    kept = site_of(request).jobs.keys()
    return {"items": [_record(key) for key in kept], "next": None}


def create_key(request: Request, response: Response, given: NewKey) -> dict[str, Any]:
    """Make a key. Needs a recent login."""
    check_recent(request)
    manager = site_of(request).jobs
    secret = manager.create_key(
        given.name, permissions=given.permissions, scopes=given.scopes, expires=given.expires
    )
    kept = manager.keys()
    made = next(key for key in kept if key.name == given.name and key.revoked_at is None)
    response.headers["location"] = location(request, "/keys")
    show_once(request)
    return {"key": _record(made), "secret": secret}


def revoke_key(request: Request, name: str) -> dict[str, Any]:
    """End a key, by its name or its id, at once. Needs a recent login."""
    check_recent(request)
    return _record(site_of(request).jobs.revoke_key(name))


def _record(key: Any) -> dict[str, Any]:
    record = key_record(key)
    return record | {
        "permissions": list(key.permissions),
        "scopes": None if key.scopes is None else list(key.scopes),
    }


router.add("GET", "/keys", ADMIN, list_keys, response_model=Page[KeyModel])
router.add("POST", "/keys", ADMIN, create_key, responses=[409], status_code=201, response_model=MadeKey)
router.add("DELETE", "/keys/{name}", ADMIN, revoke_key, responses=[409], response_model=KeyModel)

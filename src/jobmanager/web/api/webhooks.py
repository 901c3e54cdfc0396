"""Webhooks over the API. Secrets go in and never come out, but for one that is made here, once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeAlias

from fastapi import Request, Response
from pydantic import Field

from jobmanager.access.principal import ADMIN, READ, WRITE
from jobmanager.errors import HandlerNotFoundError
from jobmanager.present.phrases import iso
from jobmanager.web.api.jobs import location
from jobmanager.web.api.models import PRINTABLE, Given, Instant, JobId, JsonObject, Page, Shown, text
from jobmanager.web.api.repeated import show_once
from jobmanager.web.api.routing import Routes
from jobmanager.web.recent import check_recent
from jobmanager.web.site import site_of
from jobmanager.webhooks.auth import Auth, auth_of
from jobmanager.webhooks.webhook import WebhookInfo

router = Routes(tags=["webhooks"])
Secret: TypeAlias = Annotated[str, Field(min_length=1, max_length=8_000, pattern=PRINTABLE)]
DEFAULTS = {"api_key": {"header": "X-Api-Key"}}


Url = Annotated[str, text(2_000, examples=["https://crm.example/hook"])]


class AuthOptions(Given):
    """How the request proves who sends it. `username` belongs to basic, `header` to api_key and header."""

    kind: Literal["bearer", "basic", "api_key", "header"]
    secret: Secret = Field(json_schema_extra={"writeOnly": True})
    username: Annotated[str, text(500)] | None = None
    header: Annotated[str, text(100)] | None = None


class WebhookOptions(Given):
    """The options of a webhook beside its URL."""

    method: Annotated[str, text(20)] | None = None
    headers: dict[str, str] | None = None
    timeout: Annotated[float, Field(gt=0, le=3_600)] | None = None
    expect: Annotated[str, text(200, examples=["200-299,409"])] | None = None
    auth: AuthOptions | None = None
    secret: bool | Secret | None = Field(
        default=None,
        description="true makes a signing secret, which this response alone shows; false is none; a text is one of yours.",
        json_schema_extra={"writeOnly": True},
    )


class WebhookEdit(WebhookOptions):
    """An edit of a webhook; an option that is left out stays."""

    url: Url | None = None


class NewWebhook(WebhookOptions):
    """A webhook to make."""

    key: JobId = Field(examples=["crm-sync"])
    url: Url


class WebhookModel(Shown):
    """A webhook, without secrets. `secret` is there in the response that made it alone."""

    key: str
    source: Literal["code", "stored"]
    url: str
    method: str
    auth: JsonObject | None
    headers: dict[str, str]
    timeout: float
    expect: str
    signed: bool
    rev: int | None
    changed_at: Instant | None
    changed_by: str | None
    secret: str | None = None


class WebhookTestModel(Shown):
    """The result of a ping."""

    key: str
    ok: bool
    status: int | None
    seconds: float | None
    body: Any
    error: str | None


class RotatedModel(Shown):
    """How many webhooks have secrets that were encrypted anew."""

    rotated: int


def list_webhooks(request: Request) -> dict[str, Any]:
    """List the webhooks of the code and the stored ones, by key."""
    return {"items": [_record(info) for info in site_of(request).jobs.webhooks()], "next": None}


def get_webhook(request: Request, key: str) -> dict[str, Any]:
    """Get one webhook."""
    for info in site_of(request).jobs.webhooks():
        if info.key == key:
            return _record(info)
    raise HandlerNotFoundError("No webhook has that key.")


def create_webhook(request: Request, response: Response, given: NewWebhook) -> dict[str, Any]:
    """Make a webhook. Its key is a handler, which jobs may name from now on."""
    words = _words(given)
    made = site_of(request).jobs.create_webhook(words.pop("key"), **words)
    response.headers["location"] = location(request, f"/webhooks/{made.key}")
    if made.secret is not None:
        show_once(request)
    return _record(made)


def update_webhook(request: Request, key: str, given: WebhookEdit) -> dict[str, Any]:
    """Edit a stored webhook. With a URL of another receiver give `auth` again: a secret is sent to no other."""
    return _record(site_of(request).jobs.update_webhook(key, **_words(given)))


def delete_webhook(request: Request, key: str) -> Response:
    """Delete a stored webhook and its secrets. Needs a recent login."""
    check_recent(request)
    site_of(request).jobs.delete_webhook(key)
    return Response(status_code=204)


def test_webhook(request: Request, key: str) -> dict[str, Any]:
    """Send a signed ping to the receiver, and show what came back."""
    return asdict(site_of(request).jobs.test_webhook(key))


def rotate_webhooks(request: Request) -> dict[str, Any]:
    """Encrypt the stored secrets anew with the newest key. Needs a recent login. Twice is safe."""
    check_recent(request)
    return {"rotated": site_of(request).jobs.rotate_webhooks()}


def _record(info: WebhookInfo) -> dict[str, Any]:
    secret = info.secret
    plain = {name: getattr(info, name) for name in WebhookModel.model_fields if name != "secret"}
    return {
        **plain,
        "auth": None if info.auth is None else dict(info.auth),
        "headers": dict(info.headers),
        "changed_at": iso(info.changed_at),
        "secret": None if secret is None else secret.get_secret_value(),
    }


def _words(given: WebhookOptions) -> dict[str, Any]:
    words = {name: value for name, value in given.model_dump(exclude_unset=True).items() if value is not None}
    if given.auth is not None:
        words["auth"] = _auth(given.auth)
    elif "auth" in given.model_fields_set:
        words["auth"] = None
    return words


def _auth(given: AuthOptions) -> Auth:
    words = {**DEFAULTS.get(given.kind, {}), **given.model_dump(exclude={"secret"}, exclude_none=True)}
    return auth_of(words, given.secret)


router.add("GET", "/webhooks", READ, list_webhooks, response_model=Page[WebhookModel])
router.add(
    "POST", "/webhooks", ADMIN, create_webhook, responses=[409], status_code=201, response_model=WebhookModel
)
router.add(
    "POST", "/webhooks/rotate", ADMIN, rotate_webhooks, responses=[409, 502], response_model=RotatedModel
)
router.add("GET", "/webhooks/{key}", READ, get_webhook, response_model=WebhookModel)
router.add(
    "PATCH", "/webhooks/{key}", ADMIN, update_webhook, responses=[409, 412, 502], response_model=WebhookModel
)
router.add("DELETE", "/webhooks/{key}", ADMIN, delete_webhook, responses=[409, 412], status_code=204)
router.add(
    "POST", "/webhooks/{key}/test", WRITE, test_webhook, responses=[409, 502], response_model=WebhookTestModel
)

"""The pages of what jobs may be made of: the handlers of the code, and the webhooks of code and operators."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from jobmanager.access.principal import ADMIN
from jobmanager.errors import (
    ConfigurationError,
    DuplicateJobError,
    EditConflictError,
    HandlerNotFoundError,
    MissingExtraError,
)
from jobmanager.web.pages.board import board_of
from jobmanager.web.pages.rendering import back_to, check_page, confirmation, form_of, may, page
from jobmanager.web.pages.webhook_form import AUTHS, fields_of, filled, shown_fields
from jobmanager.web.recent import check_recent
from jobmanager.web.site import site_of
from jobmanager.webhooks.webhook import WebhookInfo

WRONG = (ConfigurationError, DuplicateJobError, EditConflictError, MissingExtraError)


def handlers(request: Request) -> Response:
    """Show the handlers of this process, and every webhook."""
    jobs = site_of(request).jobs
    known = jobs.handlers()
    named: dict[str, list[str]] = {}
    for entry in board_of(site_of(request)).entries:
        named.setdefault(entry.standing.handler, []).append(entry.id)
    return page(
        request,
        "handlers.html",
        handlers=[handler for handler in known if handler.kind != "webhook"],
        webhooks=jobs.webhooks(),
        named=named,
    )


def webhook(request: Request) -> Response:
    """Show one webhook, and the form that edits it."""
    return _webhook(request, found_webhook(request))


def new(request: Request) -> Response:
    """Show the form that makes a webhook."""
    check_page(request, ADMIN)
    return _form(request)


async def create(request: Request) -> Response:
    """Make a webhook, and show the secret that was made for it."""
    form = await form_of(request)
    return await run_in_threadpool(_create, request, form)


def _create(request: Request, form: Any) -> Response:
    jobs = site_of(request).jobs
    try:
        made = jobs.create_webhook(str(form.get("key", "")).strip(), **fields_of(form))
    except WRONG as error:
        return _form(request, 422, error=str(error), form=filled(form))
    return _webhook(request, made, 201, secret=made.secret.get_secret_value() if made.secret else "")


async def edit(request: Request) -> Response:
    """Edit a webhook."""
    form = await form_of(request)
    return await run_in_threadpool(_edit, request, form)


def _edit(request: Request, form: Any) -> Response:
    info = found_webhook(request)
    try:
        fields = fields_of(form)
        if fields["url"] == info.url:
            del fields["url"]  # as it was shown: a secret in it was hidden
        changed = site_of(request).jobs.update_webhook(info.key, **fields)
    except WRONG as error:
        check_page(request, ADMIN)
        return _webhook(request, info, 422, error=str(error), form=filled(form))
    if changed.secret:
        return _webhook(request, changed, secret=changed.secret.get_secret_value())
    return back_to(request, f"/handlers/webhooks/{quote(info.key, safe='')}")


async def test(request: Request) -> Response:
    """Send a ping to the receiver, and show what came back."""
    await form_of(request)
    return await run_in_threadpool(_test, request)


def _test(request: Request) -> Response:
    sent = site_of(request).jobs.test_webhook(request.path_params["key"])
    return _webhook(request, found_webhook(request), sent=sent)


async def ask_delete(request: Request) -> Response:
    """Ask whether a webhook is to be deleted."""
    await form_of(request)
    return await run_in_threadpool(_ask_delete, request)


def _ask_delete(request: Request) -> Response:
    check_page(request, ADMIN)
    check_recent(request)
    key = found_webhook(request).key
    return confirmation(
        request,
        question=f"Delete webhook {key}?",
        told="It is gone with its secrets, and no job can name it any more. It is not deleted while a job names it. Runs stay on record.",
        apply=f"/handlers/webhooks/{quote(key, safe='')}/delete/apply",
        verb="Delete 1 webhook",
        keep="Keep it",
        back=f"/handlers/webhooks/{quote(key, safe='')}",
    )


async def delete(request: Request) -> Response:
    """Delete a webhook."""
    await form_of(request)
    check_recent(request, ADMIN)
    await run_in_threadpool(site_of(request).jobs.delete_webhook, request.path_params["key"])
    return back_to(request, "/handlers")


def found_webhook(request: Request) -> WebhookInfo:
    """Return the webhook that the path names; HandlerNotFoundError."""
    key = request.path_params["key"]
    for info in site_of(request).jobs.webhooks():
        if info.key == key:
            return info
    raise HandlerNotFoundError("No webhook has that key.")


def _webhook(request: Request, info: WebhookInfo, status: int = 200, **more: Any) -> Response:
    given = {"secret": "", "error": "", "sent": None, "form": shown_fields(info)}
    jobs = site_of(request).jobs
    return page(
        request,
        "webhook.html",
        status,
        info=info,
        auths=AUTHS,
        users=sorted(
            one.id for one in board_of(site_of(request)).entries if one.standing.handler == info.key
        ),
        may_edit=may(request, ADMIN) and info.source == "stored",
        has_key=jobs.settings.encryption_key is not None,
        **{**given, **more},
    )


def _form(request: Request, status: int = 200, **more: Any) -> Response:
    check_page(request, ADMIN)
    given = {"error": "", "form": filled({})}
    has_key = site_of(request).jobs.settings.encryption_key is not None
    return page(
        request, "new_webhook.html", status, info=None, auths=AUTHS, has_key=has_key, **{**given, **more}
    )


ROUTES = [
    Route("/handlers", handlers),
    Route("/handlers/new-webhook", new),
    Route("/handlers/new-webhook", create, methods=["POST"]),
    Route("/handlers/webhooks/{key}", webhook),
    Route("/handlers/webhooks/{key}", edit, methods=["POST"]),
    Route("/handlers/webhooks/{key}/test", test, methods=["POST"]),
    Route("/handlers/webhooks/{key}/delete", ask_delete, methods=["POST"]),
    Route("/handlers/webhooks/{key}/delete/apply", delete, methods=["POST"]),
]

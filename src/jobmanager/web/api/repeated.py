"""Repeated requests: the same `Idempotency-Key` gets the same response, whichever process of the store it comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from jobmanager.manager.requests import KeyedRequest
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import site_of

NAME = "Idempotency-Key"
REPLAYED = "idempotent-replayed"
LONGEST = 500
DESCRIPTION = (
    "A repeated request with the same key and body gets the response of the first for 24 hours, with `Idempotent-Replayed: true`, "
    "whichever process serves it. With another body it is refused with 422. A key belongs to a principal and a route."
)
PARAMETER: Mapping[str, Any] = {
    "name": NAME,
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": LONGEST},
    "description": DESCRIPTION,
}
REUSED = Problem(
    status=422,
    kind="key-reused",
    title="The key belongs to another request",
    detail=f"An earlier request has this {NAME} and asked for something else.",
    hint="Give each request a key of its own, and repeat it as it was.",
)
UNDER_WAY = Problem(
    status=409,
    kind="under-way",
    title="The request is under way",
    detail=f"An earlier request with this {NAME} has no response yet.",
    hint="Repeat it in a moment.",
    headers={"retry-after": "2"},
)
WAS_SHOWN = Problem(
    status=409,
    kind="shown-once",
    title="The secret was shown",
    detail=f"An earlier request with this {NAME} made it; its response alone had the secret.",
    hint="If that response was lost, take back what it made, and make another with a new key.",
)
_KEPT_HEADERS = ("content-type", "location", "etag")


def show_once(request: Request) -> None:
    """Let the response to this request be kept without its body: that has a secret."""
    request.state.shown_once = True


async def once(
    request: Request, body: bytes, key: str, handle: Callable[[], Awaitable[Response]]
) -> Response:
    """Return what `handle` returns, and keep that; what was kept for this key, if the request was made before.

    A failure is not kept: the request may be tried again.
    """
    jobs = site_of(request).jobs
    if jobs.settings.disabled:  # nothing is made, and nothing is written
        return await handle()
    asked = f"{request.url.query}\n{body.decode('utf-8', 'surrogateescape')}"
    keyed = KeyedRequest(jobs.store, jobs.settings.namespace, request.url.path, key, asked)
    earlier = await run_in_threadpool(keyed.begin)
    if earlier is not None:
        if not keyed.asks_the_same(earlier):
            raise ProblemError(REUSED)
        return _again(earlier.response)
    try:
        response = await handle()
    except BaseException:
        await run_in_threadpool(keyed.end, None)
        raise
    await run_in_threadpool(keyed.end, _kept(request, response))
    return response


def _again(kept: Mapping[str, Any] | None) -> Response:
    if kept is None:
        raise ProblemError(UNDER_WAY)
    if kept["body"] is None:
        raise ProblemError(WAS_SHOWN)
    return Response(kept["body"], kept["status"], headers={**kept["headers"], REPLAYED: "true"})


def _kept(request: Request, response: Response) -> Mapping[str, Any] | None:
    if response.status_code >= 300:
        return None
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    body = None if getattr(request.state, "shown_once", False) else bytes(response.body).decode()
    return {"status": response.status_code, "headers": headers, "body": body}

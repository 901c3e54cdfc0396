"""Routes that declare the permission they need: it is checked before the body is read, and stands in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute

from jobmanager.access.acting import current
from jobmanager.access.principal import READ
from jobmanager.manager.guarding import check_permission
from jobmanager.web.api import repeated
from jobmanager.web.api.models import ProblemModel
from jobmanager.web.body import BodyError, strict_json
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import site_of

PERMISSION = "x-permission"
LARGEST = 1024 * 1024
SAFE = ("GET", "HEAD")
# What every route may say, beside what it names itself: the guard before all routes, and the store behind them.
ALWAYS = (401, 403, 404, 422, 429, 500, 503)
CHANGES = (413,)
KEYED = (409,)
WORDS = {
    401: "It is not known who asks",
    403: "The principal may not do that",
    404: "There is no such thing, or the principal does not see it",
    409: "The state of what is asked for does not allow it",
    412: "Another edit came first",
    413: "The body is too large",
    422: "A value does not fit; the problem names the field",
    429: "Too many requests; `Retry-After` says when to try again",
    500: "It failed",
    502: "The receiver failed",
    503: "The database, or what stands behind it, cannot be used now",
}
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class GuardedRoute(APIRoute):
    """A route that checks its permission before it reads a byte of the body, and reads no more of that than it may have."""

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        permission = (self.openapi_extra or {})[PERMISSION]
        known = {parameter.alias for parameter in self.dependant.query_params}

        async def guarded(request: Request) -> Response:
            _check(request, permission)
            unknown = sorted(request.query_params.keys() - known)
            if unknown:  # a filter that is misspelt must not show everything
                raise ProblemError(invalid(f"query.{unknown[0]}", "is no parameter here"))
            if request.method in SAFE:
                return await handle(request)
            body = await _body(request)
            request = Request(request.scope, _replaying(body))
            key = request.headers.get(repeated.NAME)
            if key is None or not _takes_key(request.method, permission):
                return await handle(request)
            _check_key(key)
            return await repeated.once(request, body, key, lambda: handle(request))

        return guarded


class Routes(APIRouter):
    """A router on which each route names its permission."""

    def __init__(self, **options: Any) -> None:
        super().__init__(route_class=GuardedRoute, **options)

    def add(
        self,
        method: str,
        path: str,
        permission: str,
        endpoint: Callable[..., Any],
        *,
        responses: Sequence[int] = (),
        also: dict[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        """Serve `method path` by the endpoint for principals with the permission; `responses` are further problems it may tell.

        `also` are further responses, as OpenAPI describes them.
        """
        takes_key = _takes_key(method, permission)
        problems = {
            *ALWAYS,
            *(() if method in SAFE else CHANGES),
            *(KEYED if takes_key else ()),
            *responses,
        }
        self.add_api_route(
            path,
            endpoint,
            methods=[method],
            openapi_extra={
                PERMISSION: permission,
                **({"parameters": [dict(repeated.PARAMETER)]} if takes_key else {}),
            },
            operation_id=endpoint.__name__,
            responses={
                **{
                    code: {
                        "description": WORDS[code],
                        "content": {
                            "application/problem+json": {
                                "schema": {"$ref": f"#/components/schemas/{ProblemModel.__name__}"}
                            }
                        },
                    }
                    for code in sorted(problems)
                },
                **(also or {}),
            },
            **options,
        )


def _takes_key(method: str, permission: str) -> bool:
    """Return whether a route makes or changes something that its repetition would make or change again."""
    return method == "POST" and permission != READ


def _check_key(key: str) -> None:
    if not 1 <= len(key) <= repeated.LONGEST:
        raise ProblemError(
            invalid(f"header.{repeated.NAME}", f"has to have 1 to {repeated.LONGEST} characters")
        )


def _check(request: Request, permission: str) -> None:
    principal = current().principal
    if principal is None:  # the guard lets no request through without one
        raise ProblemError(Problem(status=401, kind="unauthenticated", title="Sign in first"))
    check_permission(principal, request.url.path, permission)
    if permission != READ and request.method not in SAFE and site_of(request).read_only:
        raise ProblemError(
            Problem(status=403, kind="read-only", title="Read only", detail="This dashboard changes nothing.")
        )


async def _body(request: Request) -> bytes:
    """Return the body; ProblemError for one that is too large, or that is no strict JSON where it says that it is JSON."""
    chunks, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > LARGEST:
            raise ProblemError(
                Problem(
                    status=413,
                    kind="too-large",
                    title="The body is too large",
                    detail=f"At most {LARGEST:,} bytes are read.",
                )
            )
        chunks.append(chunk)
    body = b"".join(chunks)
    if body and "json" in request.headers.get("content-type", ""):
        try:
            strict_json(body, largest=LARGEST)
        except BodyError as error:
            raise ProblemError(invalid("body", str(error))) from None
    return body


def _replaying(body: bytes) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


def invalid(field: str, message: str) -> Problem:
    """Return the problem of one field that does not fit."""
    return invalid_fields([{"field": field, "message": message}])


def invalid_fields(fields: list[dict[str, str]]) -> Problem:
    """Return the problem of fields that do not fit."""
    return Problem(
        status=422,
        kind="invalid-request",
        title="The request does not fit",
        detail="; ".join(f"{item['field']}: {item['message']}" for item in fields),
        facts={"fields": fields},
    )

"""The guard before pages and API: who asks, whether the request may come from where it comes, and the headers of every response."""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from starlette.requests import Request

from jobmanager.access.acting import acting
from jobmanager.access.principal import READ, Principal
from jobmanager.clock import Clock
from jobmanager.settings import Settings
from jobmanager.validation.printable import get_logger
from jobmanager.web.cached import refreshing_afterwards
from jobmanager.web.hooks import headers_of
from jobmanager.web.limit import Limit, Limits
from jobmanager.web.mount import path_and_mount
from jobmanager.web.origin import SAFE, is_same_origin
from jobmanager.web.problems import Problem

logger = get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Hook = Callable[[Any], "Principal | Awaitable[Principal | None] | None"]
Refuse = Callable[[Scope, Receive, Send, Problem], Awaitable[None]]

POLICY = "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
STATIC = "/static/"
LONGEST_AGENT = 300


class Guard:
    """An ASGI application before another one. It lets in requests for which the hook names a principal, and no other.

    A principal is found once for each request, and everything behind acts for it. Unsafe requests that a page of another site sent get
    403, but those with a bearer key, which no browser adds by itself.
    """

    def __init__(
        self,
        inner: Application,
        hook: Hook,
        settings: Settings,
        clock: Clock,
        *,
        refuse: Refuse,
        limits: Limits | None = None,
        open_paths: Collection[str] = (),
    ) -> None:
        limits = limits or Limits()
        self._open_paths = frozenset(open_paths)
        self._inner = inner
        self._hook = hook
        self._is_async = inspect.iscoroutinefunction(hook) or inspect.iscoroutinefunction(
            getattr(hook, "__call__", None)  # noqa: B004 - an object may have a coroutine as its call
        )
        self._settings = settings
        self._refuse = refuse
        self._failures = Limit(limits.failures_per_second, limits.failures_at_once, clock.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        path, mount = path_and_mount(scope)
        scope = {**scope, "path": path, "root_path": mount}
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})
        scope["state"]["request_id"] = request_id
        scope["state"]["mount"] = scope.get("root_path", "")
        send = _with_headers(send, request_id)
        headers = headers_of(scope)
        if _inner_path(scope).startswith(STATIC) and scope["method"] in SAFE:
            await self._inner(scope, receive, send)
            return
        foreign = self._foreign(scope, headers)
        if foreign is None and _inner_path(scope) in self._open_paths:
            await self._inner(scope, receive, send)  # a page of these calls no method of the manager
            return
        found = foreign or await self._principal(scope)
        if isinstance(found, Problem):
            await self._refuse(scope, receive, send, found)
            return
        principal = found
        scope["state"]["principal"] = principal
        agent = " ".join(headers.get("user-agent", []))[:LONGEST_AGENT]
        with (
            acting(
                principal, address=_address(scope) or None, user_agent=agent or None, request_id=request_id
            ),
            refreshing_afterwards(),
        ):
            await self._inner(scope, receive, send)

    async def _principal(self, scope: Scope) -> Principal | Problem:
        address = _address(scope)
        found: Any = None
        try:
            found = await self._hook(scope_request(scope)) if self._is_async else await self._on_thread(scope)  # type: ignore[misc]
        except Exception:
            logger.exception("the authorize hook of the dashboard failed; the request is refused")
            return Problem(status=500, kind="hook-failed", title="Sign-in failed")
        if found is None:
            wait = self._failures.take(address)
            if wait:
                return Problem(
                    status=429,
                    kind="too-many-failures",
                    title="Too many attempts to sign in",
                    hint="Wait a moment, then try again.",
                    headers={"retry-after": str(int(wait) + 1)},
                )
            return Problem(
                status=401,
                kind="unauthenticated",
                title="Sign in first",
                hint="Send a password or a key that this dashboard knows.",
                headers={"www-authenticate": getattr(self._hook, "challenge", "Bearer")},
            )
        if not isinstance(found, Principal):
            logger.error("the authorize hook returned %s, which is no Principal", type(found).__name__)
            return Problem(status=500, kind="hook-failed", title="Sign-in failed")
        if not found.may(READ):
            return Problem(
                status=403,
                kind="permission-denied",
                title="No permission",
                detail=f"{found.name} may see nothing here: it needs {READ}.",
                hint="Ask an administrator for a role with that permission.",
            )
        return found

    async def _on_thread(self, scope: Scope) -> Any:
        found = await asyncio.to_thread(self._hook, scope_request(scope))
        return await found if inspect.isawaitable(found) else found

    def _foreign(self, scope: Scope, headers: Mapping[str, list[str]]) -> Problem | None:
        if scope["method"] in SAFE or _has_bearer(headers):
            return None
        if is_same_origin(headers, scope.get("scheme", "http"), self._settings.origins):
            return None
        return Problem(
            status=403,
            kind="cross-site",
            title="The request came from another site",
            detail="A page of another origin sent it.",
            hint="Send it from the dashboard, with a bearer key, or add the origin to JOBMANAGER_TRUSTED_ORIGINS.",
        )


def scope_request(scope: Scope) -> Any:
    """Return the request that the hook is given: Starlette's, which frameworks' hooks know."""
    return Request(scope)


def _has_bearer(headers: Mapping[str, list[str]]) -> bool:
    return any(value.lower().startswith("bearer ") for value in headers.get("authorization", []))


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _inner_path(scope: Scope) -> str:
    path, root = scope["path"], scope.get("root_path", "")
    return str(path[len(root) :] if root and path.startswith(root) else path)


def _with_headers(send: Send, request_id: str) -> Send:
    added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
    added.append((b"x-request-id", request_id.encode()))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            given = list(message.get("headers", ()))
            names = {name.lower() for name, _ in given}
            more = [pair for pair in added if pair[0] not in names]
            if b"cache-control" not in names:
                more.append((b"cache-control", b"no-store"))
            message = {**message, "headers": [*given, *more]}
        await send(message)

    return sending


async def send_problem(scope: Scope, send: Send, problem: Problem) -> None:
    """Send the problem as `application/problem+json`."""
    body = json.dumps(problem.document(scope["state"]["request_id"])).encode()
    headers = {"content-type": "application/problem+json", **problem.headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})

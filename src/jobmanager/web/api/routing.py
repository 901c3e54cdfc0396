"""Routes that declare the permission they need: it is checked before the route is called, and stands in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request

from jobmanager.access.acting import current
from jobmanager.manager.guarding import check_permission
from jobmanager.web.problems import Problem, ProblemError
from jobmanager.web.site import site_of

PERMISSION = "x-permission"


def needs(permission: str) -> Callable[[Request], None]:
    """Return the dependency of a route that needs this permission."""

    def check(request: Request) -> None:
        principal = current().principal
        if principal is None:  # the guard lets no request through without one
            raise ProblemError(Problem(status=401, kind="unauthenticated", title="Sign in first"))
        check_permission(principal, request.url.path, permission)
        if request.method not in ("GET", "HEAD") and site_of(request).read_only:
            raise ProblemError(
                Problem(
                    status=403,
                    kind="read-only",
                    title="Read only",
                    detail="This dashboard changes nothing.",
                )
            )

    return check


class Routes(APIRouter):
    """A router on which each route names its permission."""

    def add(
        self,
        method: str,
        path: str,
        permission: str,
        endpoint: Callable[..., Any],
        *,
        responses: Sequence[int] = (),
        **options: Any,
    ) -> None:
        """Serve `method path` by the endpoint for principals with the permission; `responses` are the problems it may tell."""
        problems = sorted({401, 403, 429, 503, *responses})
        self.add_api_route(
            path,
            endpoint,
            methods=[method],
            dependencies=[Depends(needs(permission))],
            openapi_extra={PERMISSION: permission},
            responses={
                code: {"description": "Problem", "content": {"application/problem+json": {}}}
                for code in problems
            },
            **options,
        )

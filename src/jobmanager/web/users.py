"""Hooks that say who asks by the login of the host application: Starlette's and FastAPI's `request.user`, and Django's session."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from typing import Any

from starlette.requests import Request

from jobmanager.access.principal import Principal

RolesOf = Callable[[Any], Collection[str]]


def starlette_user(roles_of: RolesOf) -> Callable[[Any], Principal | None]:
    """Return a hook that knows the user that Starlette's AuthenticationMiddleware found.

    The middleware stands around the application in which the dashboard is mounted. `roles_of` is called with an authenticated user and
    returns its roles, none for a user who may see nothing.
    """

    def authorize(request: Any) -> Principal | None:
        user = request.scope.get("user")
        if user is None or not user.is_authenticated:
            return None
        return Principal(user.display_name, roles_of(user))

    return authorize


def staff_roles(user: Any) -> Collection[str]:
    """Return `admin` for a superuser of Django, `viewer` for other staff, and no role for anybody else."""
    if not user.is_staff:
        return ()
    return ["admin"] if user.is_superuser else ["viewer"]


def django_user(roles_of: RolesOf = staff_roles) -> Callable[[Any], Principal | None]:
    """Return a hook that knows the user of Django's session cookie, also where the dashboard is mounted beside Django.

    `roles_of` is called with an active user; by default superusers are admins and other staff are viewers. The principal's
    `authenticated_at` is the user's last login. Called on a thread, as it reads Django's database.
    """

    def authorize(request: Any) -> Principal | None:
        from django.conf import settings
        from django.contrib.auth import get_user
        from django.db import close_old_connections
        from django.http import HttpRequest

        key = Request(request.scope).cookies.get(settings.SESSION_COOKIE_NAME)
        if not key:
            return None
        asked: Any = HttpRequest()
        close_old_connections()
        try:
            asked.session = import_module(settings.SESSION_ENGINE).SessionStore(key)
            user: Any = get_user(asked)
            if not user.is_authenticated or not user.is_active:
                return None
            return Principal(
                user.get_username(),
                roles_of(user),
                email=getattr(user, "email", None) or None,
                authenticated_at=user.last_login,
            )
        finally:
            close_old_connections()

    return authorize

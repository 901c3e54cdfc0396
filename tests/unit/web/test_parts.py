"""What cannot serve a request is refused when the application is put together, not with each request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from jobmanager import JobManager, Settings
from jobmanager.access.principal import Principal
from jobmanager.errors import ConfigurationError
from jobmanager.web import (
    Limits,
    api_keys,
    api_keys_from_settings,
    asgi,
    basic_auth_from_settings,
    dashboard,
    loopback_only,
    password_login,
    wsgi,
)

JOBS = JobManager(Settings(database_url="memory://", backend="noop"))


def nobody() -> Principal | None:
    """A hook that takes no request."""


@pytest.mark.parametrize("make", [asgi, wsgi])
@pytest.mark.parametrize(
    ("name", "part"),
    [("jobs", None), ("jobs", "shop:jobs"), ("jobs", JobManager), ("otherwise", "app"), ("limits", 100)],
)
def test_the_endpoint_refuses_what_is_no_such_part(make: Callable[..., Any], name: str, part: Any) -> None:
    given = {"jobs": JOBS, name: part}
    with pytest.raises(ConfigurationError, match=f"^{make.__name__}: {name}=.* cannot be used; use "):
        make(given.pop("jobs"), **given)


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("jobs", None),
        ("jobs", "shop:jobs"),
        ("authorize", None),
        ("authorize", "admin"),
        ("authorize", nobody),
        ("authorize", loopback_only),
        ("authorize", api_keys),
        ("authorize", api_keys_from_settings),
        ("authorize", basic_auth_from_settings),
        ("title", 5),
        ("login_url", b"/login"),
        ("sign_in", password_login),
        ("sign_in", "password"),
        ("read_only", "yes"),
        ("limits", {"starts_per_minute": 5}),
    ],
)
def test_the_dashboard_refuses_what_is_no_such_part(name: str, part: Any) -> None:
    """Fails for a hook that was not made but named, as in `authorize=loopback_only`: each request was a 500."""
    given = {"jobs": JOBS, "authorize": loopback_only(), name: part}
    with pytest.raises(ConfigurationError, match=f"^dashboard: {name}=.* cannot be used; use "):
        dashboard(given.pop("jobs"), **given)


def test_hooks_of_every_form_are_taken() -> None:
    class Callable_:
        def __call__(self, request: Any) -> Principal | None: ...

    async def coroutine(request: Any) -> Principal | None: ...

    def with_more(request: Any, *, realm: str = "shop") -> Principal | None: ...

    for hook in (Callable_(), coroutine, with_more, loopback_only(), api_keys(JOBS), lambda _: None):
        assert callable(dashboard(JOBS, authorize=hook))


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), "many", True, None])
@pytest.mark.parametrize(
    "name",
    ["calls_per_second", "calls_at_once", "failures_per_second", "failures_at_once", "starts_per_minute"],
)
def test_a_limit_that_is_none_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^Limits: {name}=.* cannot be used; use a number "):
        Limits(**{name: value})

"""A dashboard's API without a network: each request by a principal that the test chooses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from jobmanager import JobManager
from jobmanager.access.principal import Principal
from jobmanager.web import Limits, api_keys, dashboard

NOW = datetime.now(UTC)
PRINCIPALS: dict[str, Callable[[], Principal]] = {
    "viewer": lambda: Principal("viewer", "viewer"),
    "operator": lambda: Principal("operator", "operator"),
    "admin": lambda: Principal("admin", "admin", authenticated_at=datetime.now(UTC)),
    "stale": lambda: Principal("stale", "admin", authenticated_at=datetime(2026, 1, 1, tzinfo=UTC)),
    "acme": lambda: Principal("acme", "operator", scopes=["acme"]),
    "stranger": lambda: Principal("stranger", "operator", scopes=["beta"]),
    "beta": lambda: Principal("beta", "admin", scopes=["beta"], authenticated_at=datetime.now(UTC)),
}
# A matrix of all routes fails to sign in more often than a stranger may, and on a quick machine within seconds.
MANY = Limits(starts_per_minute=100_000, failures_per_second=100_000, failures_at_once=100_000)


class Api:
    """Requests to the API of a manager: `api("GET", "/jobs", by="viewer")`. `prefix` is where the dashboard is mounted."""

    def __init__(
        self, jobs: JobManager, *, limits: Limits = MANY, by: str = "admin", prefix: str = "", **options: Any
    ) -> None:
        keys = api_keys(jobs)

        def authorize(request: Any) -> Principal | None:
            name = request.headers.get("x-test-principal", "")
            return PRINCIPALS[name]() if name in PRINCIPALS else keys(request)

        self.app = dashboard(jobs, authorize=authorize, limits=limits, **options)
        self._by = by
        self._prefix = prefix

    def __call__(
        self,
        method: str,
        path: str,
        *,
        by: str | None = None,
        headers: dict[str, str] | None = None,
        **request: Any,
    ) -> httpx.Response:
        return asyncio.run(self.ask(method, path, by=by, headers=headers, **request))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        by: str | None = None,
        headers: dict[str, str] | None = None,
        **request: Any,
    ) -> httpx.Response:
        """Make one request; nobody makes it if `by` is ''."""
        principal = self._by if by is None else by
        named = {"x-test-principal": principal} if principal else {}
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, root_path=self._prefix)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await client.request(
                method, f"{self._prefix}/api/v1{path}", headers={**named, **(headers or {})}, **request
            )


def problem(response: httpx.Response) -> tuple[int, str]:
    """The status and the kind of a problem."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    told = response.json()
    assert told["status"] == response.status_code
    assert told["request_id"] == response.headers["x-request-id"]
    return response.status_code, told["type"].removeprefix("urn:jobmanager:problem:")


def fail() -> None:
    raise OSError("no disk")


def declare(jobs: JobManager) -> None:
    """Declare a few jobs of different fates, and bring them into the store."""
    jobs.add_job(
        "greet",
        lambda name="world": f"hello {name}",
        cron="30 2 * * *",
        timezone="Europe/Berlin",
        name="Say hello",
    )
    jobs.add_job("bad", fail)
    jobs.add_job("shared", lambda: 1, visibility="project")
    jobs.add_job("hidden", lambda: 1, visibility="system")
    jobs.sync()

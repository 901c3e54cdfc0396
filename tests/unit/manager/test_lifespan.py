"""The lifespan of an application with one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from jobmanager import JobManager, Settings


def test_what_the_application_opens_is_there_as_long_as_the_jobs_are() -> None:
    """Fails if a handler may run before the pool that it needs is open, or after it is closed."""
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    seen: list[tuple[str, bool]] = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        seen.append((app.title, jobs.started))
        yield {"pool": "open"}
        seen.append(("closed", jobs.started))

    app = FastAPI(title="shop", lifespan=jobs.lifespan_with(own))

    @app.get("/")
    def state(request: Request) -> str:
        return f"{request.state.pool}, {jobs.started}"

    with TestClient(app) as client:
        assert client.get("/").json() == "open, True"
    assert seen == [("shop", False), ("closed", False)]

"""The lifespan of an application with one of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
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


async def test_the_loop_of_the_application_waits_for_no_store(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Fails if a coroutine's end is written on the loop, which a store that is slow or silent would hold up with all its requests."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="local"))

    opened = asyncio.Event()

    @jobs.job("hello")
    async def hello() -> str:
        await opened.wait()
        return threading.current_thread().name

    async with jobs.lifespan():
        writers, write = [], jobs.store.runs.write

        def writing(*batch: Any) -> Any:
            writers.append(threading.current_thread().name)
            return write(*batch)

        monkeypatch.setattr(jobs.store.runs, "write", writing)
        run = await jobs.aio.trigger_job("hello")
        opened.set()
        ended = await jobs.aio.wait(run.id)
    assert ended.output == threading.current_thread().name
    assert writers
    assert threading.current_thread().name not in writers
    jobs.store.close()

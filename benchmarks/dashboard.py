"""Server time of every page and of the API's lists at 1,000,000 runs of 1,000 jobs, beside a bare page that asks the store one thing.

All in one process without a network, page after page in shuffled order. The slowest statement of each page is shown, too. Bars: 60 ms
at the median, 150 ms at the 95th percentile, no statement over 50 ms.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from measure import Report, interleaved, options, scratch
from postgres import fresh_databases, installed
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from jobmanager import JobManager, Principal, Settings
from jobmanager.web import dashboard

sys.path.insert(
    0, str(Path(__file__).parents[1])
)  # the million runs are those that the tests of plans look at

PAGES = {
    "overview": "/",
    "jobs": "/jobs",
    "jobs, failing": "/jobs?health=failed",
    "job": "/jobs/job-7",
    "runs": "/runs",
    "runs, failed": "/runs?status=failed",
    "runs of a job": "/runs?job=job-7",
    "runs, text": "/runs?text=nothing-like-it",
    "run": "/runs/{run}",
    "engine": "/engine",
    "handlers": "/handlers",
    "system": "/system",
    "audit": "/audit",
    "notifications": "/notifications",
    "keys": "/keys",
    "API, jobs": "/api/v1/jobs",
    "API, runs": "/api/v1/runs",
    "API, stats": "/api/v1/stats",
}


class Site:
    """A dashboard over a store, asked without a network, and the longest statement since it was last asked for."""

    def __init__(self, url: str, *, full: bool) -> None:
        self._jobs = JobManager(Settings(database_url=url, backend="noop"))
        self._jobs.add_job("job-7", lambda: 1, every=60)
        if full:
            from tests.integration.test_plans import WatchedPostgres, WatchedSqlite

            (WatchedPostgres if url.startswith("postgresql") else WatchedSqlite)(url).store.close()
        else:
            self._jobs.trigger_job("job-7")
        [run] = self._jobs.runs("job-7", limit=1)
        self._run = run.id
        boss = Principal("boss", ["admin"])
        bare = Route("/bare", self._bare)
        app = dashboard(self._jobs, authorize=lambda _request: boss)
        self._app = Starlette(routes=[bare, Mount("/", app)])
        self._loop = asyncio.new_event_loop()
        self.slowest = 0.0
        engine = self._jobs.store.database._engine
        sa.event.listen(engine, "before_cursor_execute", self._before)
        sa.event.listen(engine, "after_cursor_execute", self._after)

    def _bare(self, _request: Any) -> PlainTextResponse:
        return PlainTextResponse(str(self._jobs.store.processes.keeper("default")))

    def _before(self, connection: Any, *_: Any) -> None:
        connection.info["began"] = time.perf_counter()

    def _after(self, connection: Any, *_: Any) -> None:
        self.slowest = max(self.slowest, time.perf_counter() - connection.info["began"])

    def ask(self, path: str) -> float:
        """Return the milliseconds until the response to one request was whole."""
        path, _, query = path.format(run=self._run).partition("?")
        scope = {
            "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode(),
            "headers": [(b"host", b"localhost")], "client": ("127.0.0.1", 1), "scheme": "http", "root_path": "",
            "server": ("localhost", 80), "http_version": "1.1", "asgi": {"version": "3.0"},
        }  # fmt: skip
        statuses: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        began = time.perf_counter()
        self._loop.run_until_complete(self._app(scope, receive, send))  # type: ignore[arg-type]
        took = (time.perf_counter() - began) * 1000
        assert statuses == [200], (path, statuses)
        return took

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self._jobs.store.close()


def main() -> None:
    chosen = options(__doc__, store="sqlite", rounds=40)
    rounds = 1 if chosen.quick else chosen.rounds
    report = Report("dashboard", "ms", quick=chosen.quick)
    with ExitStack() as stack:
        url = f"sqlite:///{stack.enter_context(scratch())}/jobs.db"
        if chosen.store == "postgres" and installed():
            url = stack.enter_context(fresh_databases())()
        site = Site(url, full=not chosen.quick)
        stack.callback(site.close)
        paths = {"bare": "/bare", **PAGES}
        slowest = dict.fromkeys(paths, 0.0)

        def case(name: str) -> float:
            site.slowest = 0.0
            took = site.ask(paths[name])
            for thread in threading.enumerate():  # what is read beside a page belongs to it
                if thread.name == "jobmanager-pages":
                    thread.join()
            slowest[name] = max(slowest[name], site.slowest * 1000)
            return took

        for name in paths:  # templates are compiled, and caches are filled
            case(name)
        slowest = dict.fromkeys(paths, 0.0)
        samples = interleaved({name: partial(case, name) for name in paths}, rounds)
    for name, times in samples.items():
        report.figure(name, times)
        p95 = sorted(times)[min(len(times) - 1, int(len(times) * 0.95))]
        report.bar(f"{name}: median", statistics.median(times), unit="ms", most=60, spread=times)
        report.bar(f"{name}: 95th percentile", p95, unit="ms", most=150)
        report.bar(f"{name}: slowest statement", slowest[name], unit="ms", most=50)
    report.finish()


if __name__ == "__main__":
    main()

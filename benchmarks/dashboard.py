"""Server time of every page and of the API's lists at 1,000,000 runs of 1,000 jobs, beside a bare page that asks the store one thing.

All in one process without a network, page after page in shuffled order. The slowest statement of each page is shown, too. Bars: 60 ms
at the median, 150 ms at the 95th percentile, no statement over 50 ms. Beside each stands the CPU time of this process and of
PostgreSQL's, which other work on the machine falsifies less, and `--statements 1` prints the slowest of each page. With `--url` the database is filled where it is empty, and
kept for the next time.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
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
from jobmanager.run import new_id
from jobmanager.stores.values import Instance
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


@dataclass
class Spent:
    """The duration of the longest statement of a page, in milliseconds, and the CPU time of all of them on the server."""

    longest: float = 0.0
    longest_cpu: float = 0.0
    text: str = ""
    on_server: float = 0.0

    def add(self, took: float, here: float, there: float, statement: str) -> None:
        self.on_server += there
        self.longest_cpu = max(self.longest_cpu, here + there)
        if took > self.longest:
            self.longest, self.text = took, statement


def _server_cpu(connection: Any) -> float:
    """Return the CPU milliseconds of the server's process for this connection; 0 where there is none, or none that is seen."""
    info = getattr(connection.connection.driver_connection, "info", None)
    if info is None:
        return 0.0
    try:
        return int(Path(f"/proc/{info.backend_pid}/schedstat").read_text().split()[0]) / 1e6
    except OSError:
        return 0.0


class Site:
    """A dashboard over a store, asked without a network, and what its statements took since that was last set anew."""

    def __init__(self, url: str, *, full: bool) -> None:
        self._jobs = JobManager(Settings(database_url=url, backend="noop"))
        self._jobs.add_job("job-7", lambda: 1, every=60)
        self._jobs.store.install()
        if not full:
            self._jobs.trigger_job("job-7")
        elif self._jobs.store.jobs.get("job-8") is None:
            from tests.integration.test_plans import WatchedPostgres, WatchedSqlite

            (WatchedPostgres if url.startswith("postgresql") else WatchedSqlite)(url).store.close()
        self._living = self._register()
        [run] = self._jobs.runs("job-7", limit=1)
        self._run = run.id
        boss = Principal("boss", ["admin"])
        bare = Route("/bare", self._bare)
        app = dashboard(self._jobs, authorize=lambda _request: boss)
        self._app = Starlette(routes=[bare, Mount("/", app)])
        self._loop = asyncio.new_event_loop()
        self.spent = Spent()
        engine = self._jobs.store.database._engine
        sa.event.listen(engine, "before_cursor_execute", self._before)
        sa.event.listen(engine, "after_cursor_execute", self._after)

    def _register(self) -> str:
        """Register a process that executes all jobs, as there is one beside every dashboard; `beat` keeps it alive."""
        store = self._jobs.store
        ids = [row.id for row in store.jobs.rows()]
        one = Instance(
            id=new_id(store.now()), namespace="default", host="elsewhere", pid=1, executes=True,
            started_at=store.now(), seen_at=store.now(),
        )  # fmt: skip
        store.processes.register(one, ids, ids)
        return one.id

    def beat(self) -> None:
        self._jobs.store.processes.beat(self._living)

    def _bare(self, _request: Any) -> PlainTextResponse:
        return PlainTextResponse(str(self._jobs.store.processes.keeper("default")))

    def _before(self, connection: Any, *_: Any) -> None:
        connection.info["began"] = _server_cpu(connection), time.thread_time(), time.perf_counter()

    def _after(self, connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        took = time.perf_counter()
        there, here, began = connection.info["began"]
        here = time.thread_time() - here
        self.spent.add((took - began) * 1000, here * 1000, _server_cpu(connection) - there, statement)

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
    chosen = options(__doc__, store="sqlite", url="", rounds=40, statements=0)
    rounds = 1 if chosen.quick else chosen.rounds
    report = Report("dashboard", "ms", quick=chosen.quick)
    with ExitStack() as stack:
        url = chosen.url or f"sqlite:///{stack.enter_context(scratch())}/jobs.db"
        if chosen.store == "postgres" and not chosen.url and installed():
            url = stack.enter_context(fresh_databases())()
        site = Site(url, full=not chosen.quick)
        stack.callback(site.close)
        paths = {"bare": "/bare", **PAGES}
        measured = _measured(site, paths, rounds)
    for name, one in measured.items():
        _report(report, name, one)
        if chosen.statements:
            print(f"{name}: {one.longest:.0f} ms, CPU {one.longest_cpu:.0f} ms\n{one.text}\n")
    report.finish()


@dataclass
class Measured(Spent):
    """The durations of the responses of a page, in milliseconds, and its longest statement in all rounds."""

    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def _measured(site: Site, paths: Mapping[str, str], rounds: int) -> dict[str, Measured]:
    found = {name: Measured() for name in paths}

    def case(name: str) -> float:
        site.beat()
        site.spent = Spent()
        began = time.process_time()
        took = site.ask(paths[name])
        cpu = (time.process_time() - began) * 1000 + site.spent.on_server
        for thread in threading.enumerate():  # what is read beside a page belongs to it
            if thread.name == "jobmanager-pages":
                thread.join()
        one, spent = found[name], site.spent
        one.cpu.append(cpu)
        one.add(spent.longest, spent.longest_cpu, 0.0, spent.text)
        return took

    for name in paths:  # templates are compiled, and caches are filled
        case(name)
    found.update({name: Measured() for name in paths})
    for name, times in interleaved({name: partial(case, name) for name in paths}, rounds).items():
        found[name].times = times
    return found


def _report(report: Report, name: str, one: Measured) -> None:
    p95 = sorted(one.times)[min(len(one.times) - 1, int(len(one.times) * 0.95))]
    report.figure(name, one.times)
    report.figure(f"{name}: CPU", one.cpu)
    report.figure(f"{name}: CPU of the slowest statement", [one.longest_cpu])
    report.bar(f"{name}: median", statistics.median(one.times), unit="ms", most=60, spread=one.times)
    report.bar(f"{name}: 95th percentile", p95, unit="ms", most=150)
    report.bar(f"{name}: slowest statement", one.longest, unit="ms", most=50)


if __name__ == "__main__":
    main()

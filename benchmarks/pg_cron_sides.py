"""The web processes that pg_cron_backend.py measures: our endpoint, a bare Starlette route that inserts a row, one that only answers.

Each is told what to be as JSON, says on standard output that it serves, answers each line of its standard input, and ends with it.
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from typing import Any

import uvicorn

starts: list[float] = []

# As one would begin it: ten columns, one index.
TABLE = """CREATE TABLE IF NOT EXISTS run (id uuid PRIMARY KEY, job text NOT NULL, status text NOT NULL, attempt int NOT NULL,
 scheduled_at timestamptz, started_at timestamptz, finished_at timestamptz, duration_ms float8, result jsonb, error text);
CREATE INDEX IF NOT EXISTS run_of_job ON run (job, started_at)"""
ROW = "INSERT INTO run (id, job, status, attempt, scheduled_at) VALUES (%s, %s, 'pending', 0, clock_timestamp())"


def note_start() -> None:
    """The handler."""
    starts.append(time.time())


def ours(port: int, store: str, jobs: int, cron: str, secret: str, **settings: Any) -> Any:
    """An application that is nothing but our endpoint."""
    from jobmanager import JobManager, Settings
    from jobmanager.web import asgi

    manager = JobManager(
        Settings(
            backend="pg_cron",
            database_url=store,
            public_url=f"http://127.0.0.1:{port}",
            secret=secret,
            grace_seconds=600,
            **settings,
        )
    )
    for number in range(jobs):
        manager.add_job(f"job-{number}", note_start, cron=cron)
    return asgi(manager)


def bare(store: str, **_: Any) -> Any:
    """One row per request, by the driver and the pool that we have, in which every client finds a connection that is kept."""
    import sqlalchemy as sa
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request  # noqa: TC002 - its annotation is read
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    from jobmanager.stores.sql.postgres_link import Link, driver_of

    link = Link.of(store)
    engine = sa.create_engine(
        link.url, isolation_level="AUTOCOMMIT", pool_size=20, pool_use_lifo=True, pool_reset_on_return=None
    )
    with engine.connect() as connection:
        driver_of(connection).execute(TABLE)

    def insert(run_id: str) -> None:
        with engine.connect() as connection:
            driver_of(connection).execute(ROW, (run_id, "job"))

    async def run(request: Request) -> JSONResponse:
        call = await request.json()
        await run_in_threadpool(insert, call["runs"][0])
        return JSONResponse({"call": call["call"], "accepted": 1}, 202)

    return Starlette(routes=[Route("/jobs/run", run, methods=["POST"])])


def silent(**_: Any) -> Any:
    """What the server itself can do: the body is read, and nothing done."""
    answer = b'{"call":1,"accepted":1}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            while (await receive()).get("more_body"):
                pass
            await send({"type": "http.response.start", "status": 202, "headers": headers})
            await send({"type": "http.response.body", "body": answer})

    return app


ROLES = {"ours": ours, "bare": bare, "silent": silent}


def serve(app: Any, listening: socket.socket) -> uvicorn.Server:
    lifespan = "on" if type(app).__name__ == "Asgi" else "off"
    server = uvicorn.Server(uvicorn.Config(app, lifespan=lifespan, log_level="warning", access_log=False))
    threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True).start()
    while not server.started:
        time.sleep(0.01)
    return server


def main() -> None:
    about = json.loads(sys.argv[1])
    # Said to be TCP, or asyncio does not switch Nagle's delay off, and each answer takes 40 ms more.
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = serve(ROLES[about.pop("role")](port=port, **about), listening)
    print(json.dumps(port), flush=True)
    for line in sys.stdin:
        if line.strip() == "forget":
            starts.clear()
        print(json.dumps(starts if line.strip() == "starts" else len(starts)), flush=True)
    server.should_exit = True
    time.sleep(0.2)


if __name__ == "__main__":
    main()

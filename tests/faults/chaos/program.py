"""One process of the chaos, of any backend: jobs of every policy whose handlers leave a trace that the ledger cannot touch.

A line of the effects log is one `write` to a file opened with O_APPEND: it is whole, it survives kill -9, and its place in the
file is its place in time.
"""

from __future__ import annotations

import asyncio
import base64
import faulthandler
import hashlib
import json
import logging
import os
import random
import socket
import socketserver
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from wsgiref import simple_server

# Named one by one, so that the process all others are forked from has loaded them.
import jobmanager.backends.local
import jobmanager.stores.sql.sqlite  # noqa: F401
from jobmanager import JobManager, JobManagerError, Retry, RunContext, Settings

LEASE, GRACE, SWEEP = 1.5, 2.0, 0.5
CELERY = ("beat", "worker", "prefork")
SECRET = "whsec_" + base64.b64encode(hashlib.sha256(b"chaos").digest()).decode()

jobs: JobManager
"""The manager of this process, where the command line finds it."""


class Effects:
    """What handlers did, for whoever checks the ledger afterwards."""

    def __init__(self, path: Path, role: str) -> None:
        self._role = role
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, event: str, context: RunContext, nonce: str, **more: Any) -> None:
        tick = None if context.scheduled_for is None else int(context.scheduled_for.timestamp())
        self._write(
            event=event,
            job=context.job.id,
            run=context.run_id,
            attempt=context.attempt,
            tick=tick,
            nonce=nonce,
            **more,
        )

    def intention(self, event: str, **more: Any) -> None:
        self._write(event=event, **more)

    def _write(self, **fields: Any) -> None:
        line = (
            json.dumps({**fields, "role": self._role, "pid": os.getpid(), "mono": time.monotonic_ns()}) + "\n"
        )
        os.write(self._file, line.encode())


def on_record(url: str, run_id: str) -> bool | None:
    """Whether another connection sees the run's row: it must, before the handler's first instruction. None: nobody answered."""
    if url.startswith("sqlite:///"):
        try:
            with sqlite3.connect(url.removeprefix("sqlite:///"), timeout=0.2) as database:
                return (
                    database.execute("SELECT 1 FROM jobmanager_runs WHERE id = ?", (run_id,)).fetchone()
                    is not None
                )
        except sqlite3.Error:
            return None
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=1) as connection:
            found = connection.execute("SELECT 1 FROM jobmanager.runs WHERE id = %s", (run_id,)).fetchone()
            return found is not None
    except psycopg.Error:
        return None


def declare(jobs: JobManager, url: str, effects: Effects, chance: random.Random) -> None:
    def handler(longest: float, failing: float = 0.0) -> Callable[[RunContext], dict[str, Any]]:
        def work(context: RunContext) -> dict[str, Any]:
            nonce = f"{os.getpid()}-{chance.getrandbits(40):x}"
            effects.note("start", context, nonce)
            if chance.random() < 0.2:
                effects.note("seen", context, nonce, seen=on_record(url, context.run_id))
            until = time.monotonic() + chance.random() * longest
            while time.monotonic() < until:
                time.sleep(0.02)
                if context.cancelled:
                    effects.note("end", context, nonce, how="cancelled")
                    context.raise_if_cancelled()
            if chance.random() < failing:
                effects.note("end", context, nonce, how="raised")
                raise RuntimeError(f"nonce {nonce}")
            effects.note("end", context, nonce, how="returned")
            return {"nonce": nonce}

        return work

    async def coroutine(context: RunContext) -> dict[str, Any]:
        nonce = f"{os.getpid()}-{chance.getrandbits(40):x}"
        effects.note("start", context, nonce)
        await asyncio.sleep(chance.random() * 0.2)
        effects.note("end", context, nonce, how="returned")
        return {"nonce": nonce}

    again = Retry(max_attempts=3, delays=[0.3])
    for job_id, every, function, policies in (
        ("skip", 1, handler(0.4), {"catch_up": "latest"}),
        ("queue", 1, handler(1.5), {"overlap": "queue", "retry": Retry(max_attempts=2)}),
        ("queue-all", 2, handler(0.3), {"overlap": "queue_all", "queue_cap": 3, "catch_up": "none"}),
        ("cancel", 2, handler(3.0), {"overlap": "cancel_running"}),
        ("allow", 1, handler(0.8), {"overlap": "allow", "catch_up": "all", "retry": again}),
        ("flaky", 1, handler(0.2, failing=0.4), {"retry": again, "catch_up": "none"}),
        ("all", 1, coroutine, {"catch_up": "all"}),
        ("paused", 1, handler(0.1), {"catch_up": "latest"}),
        ("timed", 2, handler(1.6), {"timeout": 0.8, "catch_up": "none"}),
    ):
        jobs.add_job(job_id, function, every=every, **policies)
    jobs.add_job("by-hand", handler(0.3), overlap="allow", retry=again)


def disturb(effects: Effects, chance: random.Random) -> None:
    """Do what operators and applications do meanwhile; intentions are written down first, since nobody may learn how they ended."""
    while True:
        time.sleep(chance.uniform(0.3, 1.5))
        if not jobs.started:
            continue
        try:
            if chance.random() < 0.3:
                jobs.stop_job("paused") if chance.random() < 0.5 else jobs.resume_job("paused")
            else:
                key = f"key-{chance.randrange(40)}"
                effects.intention("trigger", key=key)
                run = jobs.trigger_job("by-hand", key=key)
                effects.intention("triggered", key=key, run=run.id)
        except JobManagerError:
            pass


def note_stalls(effects: Effects) -> None:
    """Note each time that the machine gave this process no time for half a lease: the others may take it for dead then."""

    def look() -> None:
        before = time.monotonic()
        while True:
            time.sleep(LEASE / 20)
            now = time.monotonic()
            if now - before > LEASE / 2:
                effects.intention("stalled", seconds=now - before)
            before = now

    threading.Thread(target=look, daemon=True).start()


def preload() -> None:
    """Load what processes of every backend need, before any is forked."""
    for name in (
        "celery.bin.celery",
        "celery.concurrency.prefork",
        "celery.concurrency.thread",
        "kombu.transport.redis",
        "jobmanager.backends.celery",
        "jobmanager.backends.pg_cron.diagnostics.examine",
        "jobmanager.cli.commands.celery",
        "jobmanager.web",
    ):
        import_module(name)


def prepare(url: str, with_pg_cron: bool, calls: bool) -> None:
    """Make the tables, and what the database needs to keep the time and to call."""
    from jobmanager.clock import SystemClock
    from jobmanager.stores import store_for

    store_for(Settings(database_url=url), SystemClock()).install()
    if not with_pg_cron:
        return
    import psycopg

    from jobmanager.backends.pg_cron import schema

    if calls:
        from tests.pg_net.stand_in import StandIn

        StandIn(url).install()
    with psycopg.connect(url, autocommit=True) as connection:
        schema.install(connection)
        connection.execute("SELECT jobmanager.put_key('default', %s)", (SECRET,))


def main(role: str, urls: Mapping[str, str], folder: Path, seed: int) -> None:
    """Be one process of this role until a signal ends it; `urls` are those of the ground."""
    global jobs  # noqa: PLW0603 - one manager per process, as in an application
    begin_log(folder / "log")
    chance = random.Random(seed)
    effects = Effects(folder / "effects", role)
    note_stalls(effects)
    os.register_at_fork(after_in_child=partial(note_stalls, effects))
    backend = "celery" if role in CELERY else role
    os.environ.update(environment(backend, urls))
    if backend == "pg_cron":
        keep_seconds()
    jobs = JobManager()
    declare(jobs, urls["store"], effects, chance)
    threading.Thread(target=disturb, args=(effects, chance), daemon=True).start()
    if backend == "celery":
        celery_command(role)
    if "calls" in urls and backend == "pg_cron":
        serve(int(urls["calls"].rpartition(":")[2]))
    jobs.start()
    while True:
        time.sleep(1)


def begin_log(path: Path) -> None:
    """Send what this process prints and logs to the file; the names of loggers tell our tracebacks from those of others."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    logging.basicConfig(
        format=f"%(asctime)s {os.getpid()} %(levelname)s %(name)s: %(message)s",
        level=logging.INFO,
        force=True,
    )
    logging.getLogger("apscheduler").setLevel(logging.WARNING)


def environment(backend: str, urls: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a process: those of all backends are the same but for one."""
    values = {
        "BACKEND": backend,
        "DATABASE_URL": urls["store"],
        "LEASE_SECONDS": LEASE,
        "GRACE_SECONDS": GRACE,
        "SWEEP_SECONDS": SWEEP,
        "DRAIN_SECONDS": 1,
        "WORKERS": 6,
        "SECRET": SECRET,
    }
    if "broker" in urls:
        values["CELERY_BROKER_URL"] = urls["broker"]
    if "calls" in urls:
        values["PUBLIC_URL"] = urls["calls"]
    else:
        values["PG_CRON_TRANSPORT"] = "notify"
    return {f"JOBMANAGER_{name}": str(value) for name, value in values.items()}


def keep_seconds() -> None:
    """Let pg_cron's backend take jobs of seconds: `clock` wakes the database each second, as pg_cron does each minute."""
    from jobmanager.backends.base import Capabilities
    from jobmanager.backends.pg_cron.backend import PgCronBackend
    from jobmanager.backends.pg_cron.plans import plan

    PgCronBackend.capabilities = Capabilities()
    plan.finer_than_minutes = lambda *_: None


def celery_command(role: str) -> None:
    """Be a beat or a worker, by the command that operators use."""
    from jobmanager.cli import app
    from jobmanager.stores.sql import runs

    runs.LOST_AFTER = timedelta(seconds=3)
    words = ["--app", f"{__name__}:jobs", "beat" if role == "beat" else "worker", "--loglevel", "info"]
    if role != "beat":
        pool = (
            ("--pool", "prefork", "--concurrency", "3")
            if role == "prefork"
            else ("--pool", "threads", "--concurrency", "6")
        )
        words += [*pool, "--name", f"{os.getpid()}@chaos"]
    try:
        code = app.run(words)
    except SystemExit as end:
        code = end.code
    logging.shutdown()
    os._exit(code if isinstance(code, int) else 3)


def serve(port: int) -> None:
    """Take the database's calls on a port that all processes share."""
    from jobmanager.web import wsgi

    class Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
        daemon_threads = True
        request_queue_size = 64

        def server_bind(self) -> None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            super().server_bind()

    class Quiet(simple_server.WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    server = simple_server.make_server("127.0.0.1", port, wsgi(jobs), Server, Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def clock(url: str, calls: bool) -> None:
    """Be the database's own side: fire each second and sweep each third, whichever backend is chosen; `calls`: send pg_net's calls."""
    import psycopg

    if calls:
        from tests.pg_net.stand_in import StandIn

        StandIn(url).start()
    while True:
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
                while True:
                    time.sleep(1 - time.time() % 1)
                    connection.execute("SELECT jobmanager.fire(NULL)")
                    if int(time.time()) % 3 == 0:
                        connection.execute("SELECT jobmanager.sweep()")
        except psycopg.Error as error:
            print("the clock:", error, flush=True)
            time.sleep(0.2)

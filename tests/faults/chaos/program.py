"""One process of the chaos: jobs of every policy whose handlers leave a trace that the ledger cannot touch.

A line of the effects log is one `write` to a file opened with O_APPEND: it is whole, it survives kill -9, and its place in the
file is its place in time.
"""

from __future__ import annotations

import asyncio
import faulthandler
import json
import logging
import os
import random
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Named one by one, so that the process all others are forked from has loaded them.
import jobmanager.backends.local
import jobmanager.stores.sql.sqlite  # noqa: F401
from jobmanager import JobManager, JobManagerError, Retry, RunContext, Settings

LEASE, GRACE, SWEEP = 1.5, 2.0, 0.5


class Effects:
    """What handlers did, for whoever checks the ledger afterwards."""

    def __init__(self, path: Path) -> None:
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
        line = json.dumps({**fields, "pid": os.getpid(), "mono": time.monotonic_ns()}) + "\n"
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
    ):
        jobs.add_job(job_id, function, every=every, **policies)
    jobs.add_job("by-hand", handler(0.3), overlap="allow", retry=again)


def disturb(jobs: JobManager, effects: Effects, chance: random.Random) -> None:
    """What operators and applications do meanwhile; intentions are written down first, since nobody may learn how they ended."""
    while jobs.started:
        time.sleep(chance.uniform(0.3, 1.5))
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
    before = time.monotonic()
    while True:
        time.sleep(LEASE / 20)
        now = time.monotonic()
        if now - before > LEASE / 2:
            effects.intention("stalled", seconds=now - before)
        before = now


def main(url: str, effects_path: Path, log_path: Path, seed: int) -> None:
    log = os.open(log_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    faulthandler.enable()
    logging.basicConfig(
        format=f"%(asctime)s {os.getpid()} %(levelname)s %(message)s", level=logging.INFO, force=True
    )
    logging.getLogger("apscheduler").setLevel(logging.WARNING)
    chance = random.Random(seed)
    effects = Effects(effects_path)
    threading.Thread(target=note_stalls, args=(effects,), daemon=True).start()
    jobs = JobManager(
        Settings(
            database_url=url,
            lease_seconds=LEASE,
            grace_seconds=GRACE,
            sweep_seconds=SWEEP,
            drain_seconds=1,
            workers=6,
        )
    )
    declare(jobs, url, effects, chance)
    jobs.start()
    disturb(jobs, effects, chance)
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

"""pgqueuer as a peer, in a process of its own: `python peer_pgqueuer.py URL JOBS [PER_SECOND]`.

Without PER_SECOND all jobs are queued first and then drained at batch 100: answers starts a second, from the first to the last.
With it they are queued one by one: answers the milliseconds from each to its start. Nobody pays for its last flush of history.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import logging
import sys
import time
from datetime import timedelta

from measure import answer, child


def installed() -> bool:
    """True if it can be measured: `pip install pgqueuer asyncpg`."""
    return all(importlib.util.find_spec(name) for name in ("pgqueuer", "asyncpg"))


def drained(url: str, jobs: int) -> float:
    """Jobs a second."""
    rate: float = answer(child(__file__, url, jobs))
    return rate


def latencies(url: str, jobs: int, per_second: int) -> list[float]:
    """Milliseconds from the call that queues a job to its handler's first instruction."""
    found: list[float] = answer(child(__file__, url, jobs, per_second))
    return found


async def work(url: str, jobs: int, per_second: int) -> object:
    import asyncpg
    from pgqueuer import AsyncpgDriver, PgQueuer, Queries

    queries = Queries(AsyncpgDriver(await asyncpg.connect(url)))
    await queries.install()
    queue = PgQueuer(AsyncpgDriver(await asyncpg.connect(url)))
    queued: dict[int, float] = {}
    starts: dict[int, float] = {}
    done = asyncio.Event()

    @queue.entrypoint("noop")
    async def noop(job) -> None:
        starts[int(job.payload)] = time.perf_counter()
        if len(starts) == jobs:
            done.set()

    if not per_second:
        for first in range(0, jobs, 500):
            batch = range(first, min(first + 500, jobs))
            await queries.enqueue(
                ["noop"] * len(batch), [b"%d" % number for number in batch], [0] * len(batch)
            )
    running = asyncio.create_task(queue.run(batch_size=100, dequeue_timeout=timedelta(seconds=5)))
    if per_second:
        await asyncio.sleep(0.5)  # it listens by then
        for number in range(jobs):
            queued[number] = time.perf_counter()
            await queries.enqueue("noop", b"%d" % number)
            await asyncio.sleep(1 / per_second)
    await asyncio.wait_for(done.wait(), 120)
    answered = (
        [(starts[number] - queued[number]) * 1000 for number in range(jobs)]
        if per_second
        else (jobs - 1) / (max(starts.values()) - min(starts.values()))
    )
    print(json.dumps(answered), flush=True)
    queue.shutdown.set()
    await running
    return None


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))

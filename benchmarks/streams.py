"""What 200 clients that listen to the dashboard cost the process that executes runs: the same loop of runs with and without them, in turns.

Runs are executed in this process. The dashboard is a process of its own, and the clients are another: what they need of the machine's
cores is theirs, so the clients are throttled readers that only count bytes. A stalled client reads nothing at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from measure import Case, Report, interleaved, options, scratch
from postgres import fresh_databases, installed
from runs import Loop

from jobmanager.clock import SystemClock
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.sql.sqlite import SqliteStore

CLIENTS, IN_FLIGHT = 200, 100
BAR = 0.99


def listen(port: int, clients: int, *, stalled: bool, connected: Any) -> None:
    """Hold so many streams of events open until this process is ended."""
    os.nice(10)

    async def one() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /api/v1/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            await reader.readuntil(b"event: hello")
            connected.release()
            if stalled:
                await asyncio.Event().wait()
            while await reader.read(1 << 16):  # noqa: ASYNC110 - as a browser on a busy machine does
                await asyncio.sleep(0.05)

    async def everyone() -> None:
        await asyncio.gather(*(one() for _ in range(clients)))

    asyncio.run(everyone())


@contextmanager
def listening(port: int, clients: int, *, stalled: bool = False) -> Iterator[None]:
    """Have so many clients listen while this lasts."""
    context = multiprocessing.get_context("spawn")
    connected = context.Semaphore(0)
    process = context.Process(
        target=listen, args=(port, clients), kwargs={"stalled": stalled, "connected": connected}
    )
    process.start()
    for _ in range(clients):
        assert connected.acquire(timeout=60), "a client did not get its stream"
    try:
        yield
    finally:
        process.kill()
        process.join()


@contextmanager
def dashboard(url: str) -> Iterator[int]:
    """Serve the dashboard of a store in a process of its own, and yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "jobmanager", "dashboard", "--port", str(port)],
        env={**os.environ, "JOBMANAGER_DATABASE_URL": url, "JOBMANAGER_BACKEND": "noop"},
        stdout=subprocess.DEVNULL,
    )
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield port
    finally:
        process.kill()
        process.wait()


def main() -> None:
    chosen = options(__doc__, seconds=0.0)
    seconds = chosen.seconds or (0.05 if chosen.quick else 6.0)
    clients = 3 if chosen.quick else CLIENTS
    report = Report("streams", "runs/s", quick=chosen.quick)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch())
        stores: dict[str, tuple[str, Any]] = {
            "SQLite": (f"sqlite:///{folder}/jobs.db", SqliteStore(folder / "jobs.db", clock=SystemClock()))
        }
        if installed() and not chosen.quick:
            url = stack.enter_context(fresh_databases())()
            stores["PostgreSQL"] = (url, PostgresStore(url))
        cases: dict[str, Case] = {}
        loops = {name: Loop(store, IN_FLIGHT, lambda: None) for name, (_, store) in stores.items()}
        for name, loop in loops.items():
            port = stack.enter_context(dashboard(stores[name][0]))
            cases[f"{name}, none listens"] = partial(loop.measure, seconds)
            cases[f"{name}, one listens"] = partial(heard, loop, port, 1, seconds)
            cases[f"{name}, {clients} listen"] = partial(heard, loop, port, clients, seconds)
            cases[f"{name}, one stalled"] = partial(heard, loop, port, 1, seconds, stalled=True)
        samples = interleaved(cases, chosen.repeats)
        for loop in loops.values():
            loop.stop()
    report.samples(samples)
    for name in stores:
        none, one = samples[f"{name}, none listens"], samples[f"{name}, one listens"]
        report.ratio(f"{name}, one beside none", one, none)
        report.ratio(f"{name}, {clients} beside one", samples[f"{name}, {clients} listen"], one, least=BAR)
        report.ratio(f"{name}, {clients} beside none", samples[f"{name}, {clients} listen"], none)
        report.ratio(f"{name}, one stalled beside one", samples[f"{name}, one stalled"], one, least=BAR)
    report.finish()


def heard(loop: Loop, port: int, clients: int, seconds: float, *, stalled: bool = False) -> float:
    with listening(port, clients, stalled=stalled):
        return loop.measure(seconds)


if __name__ == "__main__":
    main()

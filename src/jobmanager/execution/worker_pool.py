"""Where handlers run: a few threads, and one event loop for coroutines. It knows nothing of runs but how many there are."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import queue
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

logger = logging.getLogger(__name__)

AHEAD_SECONDS = 1.0
MOST_AHEAD = 1000
Work = Callable[[], None]


class WorkerPool:
    """At most `workers` handlers at once. Any thread may call any method.

    A process may take on more runs than it has free workers, but only what it expects to start within a second,
    judged by how long the last runs took; the rest stays pending for whoever is free first.
    """

    def __init__(self, workers: int, *, threaded: bool) -> None:
        self.workers = workers
        self._threaded = threaded
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._in_flight = 0
        self._idle = 0
        self._threads = 0
        self._let_go = 0
        self._mean_seconds: float | None = None
        self._empty = threading.Condition(self._lock)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_loop_thread: threading.Thread | None = None
        self._asked_loop: tuple[asyncio.AbstractEventLoop, float] | None = None

    # ---------------------------------------------------------------- room

    def reserve(self, wanted: int, *, share: int = 1) -> int:
        """Take up to `wanted` places, and of the free ones only one in `share`; answers how many were given."""
        with self._lock:
            free = self._capacity() - self._in_flight
            given = max(0, min(wanted, -(-free // share)))
            self._in_flight += given
            return given

    def reserve_unbounded(self, places: int = 1) -> None:
        """Take places even if there are none: for runs that somebody waits for."""
        with self._lock:
            self._in_flight += places

    def release(self, places: int = 1, *, seconds: float | None = None) -> None:
        """Give places back; `seconds` is how long the run took, if one ended."""
        with self._lock:
            self._in_flight -= places
            if seconds is not None:
                mean = self._mean_seconds
                self._mean_seconds = seconds if mean is None else mean + (seconds - mean) * 0.2
            if self._in_flight == 0:
                self._empty.notify_all()

    def _capacity(self) -> int:
        if self._mean_seconds is None:
            return self.workers
        ahead = min(MOST_AHEAD, self.workers * AHEAD_SECONDS / max(self._mean_seconds, 1e-4))
        return self.workers + int(ahead)

    @property
    def has_room(self) -> bool:
        """True if a tenth of the places is free: less is not worth a question, for nine tenths are still to be worked off."""
        with self._lock:
            capacity = self._capacity()
            return 10 * (capacity - self._in_flight) >= capacity

    @property
    def in_flight(self) -> int:
        """Places taken: runs that are executing or about to."""
        return self._in_flight

    def wait_empty(self, timeout: float) -> bool:
        """Wait until no place is taken, at most `timeout` seconds; True if so."""
        with self._lock:
            return self._empty.wait_for(lambda: self._in_flight == 0, timeout)

    # ---------------------------------------------------------------- threads

    def submit(self, works: Sequence[Work]) -> None:
        """Call each on a worker thread; at once, one by one, on this thread, in a pool without threads."""
        if not self._threaded:
            self.run_here(works, ())
            return
        with self._lock:
            wanted = len(works) + self._queue.qsize() - self._idle
            more = max(0, min(wanted, self.workers - (self._threads - self._let_go)))
            self._threads += more
        for work in works:
            self._queue.put(work)
        for _ in range(more):
            threading.Thread(target=self._serve, name="jobmanager-worker", daemon=True).start()

    def run_here(self, works: Sequence[Work], coroutines: Sequence[Coroutine[Any, Any, None]]) -> None:
        """Call each on this thread, one by one, to its end."""
        for work in works:
            work()
        for coroutine in coroutines:
            _finish(coroutine)

    def abandon_worker(self) -> None:
        """A handler ignores its time-out: its thread no longer counts, so that another may take its place."""
        with self._lock:
            self._let_go += 1

    def abandoned_worker_returned(self) -> None:
        """The thread that was let go ended its handler after all."""
        with self._lock:
            self._let_go -= 1

    def _serve(self) -> None:
        while True:
            work = self._next_work()
            if work is None:
                with self._lock:
                    self._threads -= 1
                return
            try:
                work()
            except Exception:
                logger.exception("a worker met an error outside a handler")

    def _next_work(self) -> Work | None:
        """What waits, or what comes next; only who has to wait for it is idle."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            with self._lock:
                self._idle += 1
        work = self._queue.get()
        with self._lock:
            self._idle -= 1
        return work

    # ---------------------------------------------------------------- coroutines

    def use_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Run coroutines on this loop from now on (the application's own); None: on ours again."""
        self._loop = loop

    def spawn(self, coroutines: list[Coroutine[Any, Any, None]]) -> None:
        """Start coroutines on the event loop, all in one call; to their end, one by one, in a pool without threads."""
        if not self._threaded:
            self.run_here((), coroutines)
            return
        self._running_loop().call_soon_threadsafe(_start_tasks, coroutines)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                loop = asyncio.new_event_loop()
                self._own_loop_thread = threading.Thread(
                    target=_run_loop, args=(loop,), name="jobmanager-loop", daemon=True
                )
                self._own_loop_thread.start()
                self._loop = loop
            return self._loop

    def loop_lag(self, now: float) -> float:
        """For how many seconds, on the monotonic clock, the event loop has not turned since it was asked to; asks it again."""
        loop, asked = self._loop, self._asked_loop
        if loop is None or loop.is_closed():
            return 0.0
        if asked is not None and asked[0] is loop:
            return now - asked[1]
        self._asked_loop = (loop, now)
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(self._loop_turned)
        return 0.0

    def _loop_turned(self) -> None:
        self._asked_loop = None

    def stop(self) -> None:
        """Let idle threads end and stop our own loop; what still runs keeps its daemon thread. Twice is safe."""
        with self._lock:
            threads, loop, own = self._threads, self._loop, self._own_loop_thread
            self._loop = self._own_loop_thread = None
        for _ in range(threads):
            self._queue.put(None)
        if own is not None and loop is not None:
            loop.call_soon_threadsafe(loop.stop)


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


_tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references


def _start_tasks(coroutines: list[Coroutine[Any, Any, None]]) -> None:
    for coroutine in coroutines:
        task = asyncio.get_running_loop().create_task(coroutine, context=contextvars.copy_context())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


def _finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run to the end on this thread; on another one if this thread is inside a loop already (an async test)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    thread = threading.Thread(target=asyncio.run, args=(coroutine,))
    thread.start()
    thread.join()

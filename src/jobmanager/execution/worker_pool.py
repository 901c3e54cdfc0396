"""Where handlers run: a few threads, and one event loop for coroutines. The pool knows nothing of runs but their slots."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from jobmanager.execution.slots import Lane
from jobmanager.process.throttled_log import ThrottledLogger
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

MOST_ABANDONED = 10  # times the number of workers

Act = Callable[[Any, "Worker | None"], None]
"""Does an item of work; the second argument is the worker thread, None where the caller's own thread does it."""
Start = Callable[[Any], Coroutine[Any, Any, None]]
"""The coroutine that does an item of work."""


class Worker:
    """One thread of the pool. An abandoned one ends as soon as its handler lets it."""

    __slots__ = ("abandoned",)

    def __init__(self) -> None:
        self.abandoned = False


class WorkerPool:
    """At most `workers` calls at once on threads, and `coroutines` on the event loop. Any thread may call any method.

    Capacity is what counts, not a thread: one that a handler does not give back is replaced at once.
    """

    def __init__(self, workers: int, *, threaded: bool, coroutines: int = 1000) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self.threads = Lane(workers, ahead=True, lock=self._lock, emptied=self._changed)
        """The slots of plain functions and of handlers in child processes."""
        self.coroutines = Lane(coroutines, ahead=False, lock=self._lock, emptied=self._changed)
        """The slots of coroutines, which take no thread."""
        self.threaded = threaded
        """False on a clock moved by hand: then calls are made on the thread that submits them."""
        self._work = threading.Condition(self._lock)
        self._calls: deque[tuple[Act, Any] | None] = deque()
        self._idle = 0
        self._waking = False
        """True from waking an idle thread until it looks for a call: only then is the next one woken."""
        self._working = 0
        self._abandoned = 0
        self._throttled = ThrottledLogger(logger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._own_loop: OwnLoop | None = None
        self._asked_loop: tuple[asyncio.AbstractEventLoop, float] | None = None

    # ---------------------------------------------------------------- slots

    @property
    def in_flight(self) -> int:
        """Slots taken: runs that are executing or about to."""
        return self.threads.in_flight + self.coroutines.in_flight

    @property
    def abandoned(self) -> int:
        """How many threads were given up because their handler ignored its timeout, and are still inside it."""
        return self._abandoned

    @property
    def exhausted(self) -> bool:
        """True once so many threads are abandoned that no further one is replaced."""
        return self._abandoned >= MOST_ABANDONED * self.threads.size

    def wait_empty(self, timeout: float) -> bool:
        """Wait until no slot is taken, at most `timeout` seconds; True if so."""
        with self._changed:
            return self._changed.wait_for(lambda: not self.in_flight, timeout)

    # ---------------------------------------------------------------- threads

    def submit(self, act: Act, items: Sequence[Any], *, first: bool = False) -> None:
        """Call `act` with each item on a worker thread, with `first` before what waits; at once, on this thread, in a pool without threads."""
        if not self.threaded:
            for item in items:
                act(item, None)
            return
        with self._lock:
            calls = [(act, item) for item in items]
            if first:
                self._calls.extendleft(calls)
            else:
                self._calls.extend(calls)
            self._wake_one()
        self.grow()

    def grow(self) -> None:
        """Start a thread for each call that waits while no thread is idle, up to the size of the pool. Harmless at any time.

        A thread whose handler waits for another run, and has lent it its slot, does not count.
        """
        with self._changed:
            missing = min(len(self._calls) - self._idle, -self._surplus)
            if missing <= 0 or self.exhausted:
                return
            self._working += missing
        for started in range(missing):
            try:
                threading.Thread(target=self._serve, name="jobmanager-worker", daemon=True).start()
            except RuntimeError as error:  # the machine gives no more threads; those there are go on
                with self._changed:
                    self._working -= missing - started
                self._throttled.warning("a worker thread cannot be started: %s", error)
                return

    def abandon_worker(self, worker: Worker | None) -> None:
        """Give up the thread of a handler that does not end, and put another in its place. Twice is once; None changes nothing."""
        if worker is None:
            return
        with self._changed:
            if worker.abandoned:
                return
            worker.abandoned = True
            self._abandoned += 1
            self._working -= 1
        self.grow()

    def _serve(self) -> None:
        worker = Worker()
        while not worker.abandoned:
            call = self._next_call(worker)
            if call is None:
                return
            try:
                call[0](call[1], worker)
            except BaseException:  # noqa: BLE001 - nothing that a handler or our own code raises may end a worker
                _log_safely("a worker met an error outside a handler")
        with self._lock:
            self._leave(worker)

    def _next_call(self, worker: Worker) -> tuple[Act, Any] | None:
        """Return what waits, or what comes next; only a thread that has to wait for it is idle. None: the thread ends, and has left."""
        with self._lock:
            if (
                self._working > self.threads.size and self._surplus > 0
            ):  # a handler that had lent its slot goes on
                self._leave(worker)
                return None
            while not self._calls:
                self._idle += 1
                self._work.wait()
                self._idle -= 1
                self._waking = False
            call = self._calls.popleft()
            self._wake_one()
            if call is None:
                self._leave(worker)
            return call

    @property
    def _surplus(self) -> int:
        """How many threads there are beyond those that may work; below 0, how many are missing."""
        return self._working - self.threads.size - self.threads.lent

    def _leave(self, worker: Worker) -> None:
        """Count a thread that ends no longer; under the lock."""
        if worker.abandoned:
            self._abandoned -= 1
        else:
            self._working -= 1

    def _wake_one(self) -> None:
        """Wake an idle thread if there is a call for it; under the lock.

        Each wakes the next, instead of all at once: where handlers are short, the first has done them all before the last is awake.
        """
        if self._calls and self._idle and not self._waking:
            self._waking = True
            self._work.notify()

    # ---------------------------------------------------------------- coroutines

    def use_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Run coroutines on this loop from now on (the application's own); None: on a loop of the pool again."""
        with self._changed:
            self._loop = loop

    def spawn(self, start: Start, items: Sequence[Any]) -> None:
        """Start the coroutine of each item on the event loop, all in one call; to its end, one by one, in a pool without threads."""
        if not self.threaded:
            for item in items:
                finish(start(item))
            return
        with contextlib.suppress(
            RuntimeError
        ):  # the loop was closed just now: what cannot begin goes back to pending
            self._running_loop().call_soon_threadsafe(_start_tasks, start, items)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._changed:
            if self._loop is None or self._loop.is_closed():
                self._own_loop = OwnLoop()
                self._loop = self._own_loop.loop
            return self._loop

    def loop_lag(self, now: float) -> float:
        """Return for how many seconds (monotonic) the event loop has not turned since it was asked to, and ask it again."""
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

    def abandon_loop(self) -> bool:
        """Give up a loop of the pool that a handler blocks, so that the next coroutine gets another; False for an application's."""
        with self._changed:
            if self._own_loop is None or self._loop is not self._own_loop.loop:
                return False
            self._own_loop.stop_when_idle()
            self._loop = self._own_loop = self._asked_loop = None
            return True

    def stop(self) -> None:
        """Let idle threads end and stop the pool's own loop; what still runs keeps its daemon thread. Twice is safe."""
        with self._changed:
            threads, own = self._working, self._own_loop
            self._loop = self._own_loop = None
            self._calls.extend([None] * threads)
            self._wake_one()
        if own is not None:
            own.stop()


class OwnLoop:
    """An event loop on a daemon thread, which nothing but `stop` ends: a handler that stops the loop stops only a turn of it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._ends = False
        threading.Thread(target=self._run, name="jobmanager-loop", daemon=True).start()

    def stop(self) -> None:
        """End the loop after what it does now."""
        self._ends = True
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)

    def stop_when_idle(self) -> None:
        """End the loop once the handlers it has begun have ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._look_whether_idle)

    def _look_whether_idle(self) -> None:
        if asyncio.all_tasks(self.loop):
            self.loop.call_later(1.0, self._look_whether_idle)
        else:
            self.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._ends and not self.loop.is_closed():
            try:
                self.loop.run_forever()
            except BaseException:  # noqa: BLE001 - SystemExit in a callback ends a turn, and not the loop
                _log_safely("the event loop met an error outside a handler")
        if not self.loop.is_closed():
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()


def _log_safely(text: str) -> None:
    """Log the error at hand; if even its traceback cannot be made, that it was."""
    try:
        logger.exception(text)  # noqa: LOG004 - it is called where an error is handled
    except BaseException:  # noqa: BLE001 - the error's own text raises
        logger.error("%s, and its text cannot be made", text)


_tasks: set[asyncio.Task[None]] = set()  # the loop itself keeps only weak references


def _start_tasks(start: Start, items: Sequence[Any]) -> None:
    for item in items:
        task = asyncio.get_running_loop().create_task(start(item), context=contextvars.copy_context())
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


def finish(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine to its end on this thread; on another one if this thread is inside a loop already (an async test)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        asyncio.run(coroutine)
        return
    thread = threading.Thread(target=asyncio.run, args=(coroutine,))
    thread.start()
    thread.join()

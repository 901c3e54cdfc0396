"""What recurs inside a process beside its runs, on one thread: claim what is due, publish progress, sweep."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreError, StoreUnavailableError
from jobmanager.process.throttled_log import ThrottledLogger, ThrottledLogs
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

Act = Callable[[], object]
DEEPEST = 10


@dataclass(slots=True)
class _Task:
    name: str
    act: Act
    every: float
    next_at: float = 0.0
    throttled: ThrottledLogger = field(default_factory=lambda: ThrottledLogger(logger))

    def plan(self, now: float) -> None:
        self.next_at = now + self.every * random.uniform(0.9, 1.1)  # noqa: S311 - processes must not march in step


class BackgroundTasks:
    """One thread for the small work. On a clock that is moved by hand there is no thread: the clock calls.

    Any thread may ask for work; nothing that the work raises ends the thread.
    """

    def __init__(
        self, clock: Clock, *, name: str = "jobmanager-background", outage: ThrottledLogger | None = None
    ) -> None:
        self._clock = clock
        self._name = name
        self._outage = outage or ThrottledLogger(logger)
        self._troubles = ThrottledLogs(logger)
        self._tasks: dict[str, _Task] = {}
        self._once: list[tuple[datetime, int, Act]] = []
        self._soon: list[Act] = []
        self._depth = 0
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._driven = False
        self.turned_at = clock.monotonic()
        """When the thread last went round, or within a long task from one piece to the next (monotonic)."""

    def add(self, name: str, act: Act, *, every: timedelta) -> None:
        """Do the task every so often, jittered by a tenth. Before `start` only."""
        self._tasks[name] = _Task(name, act, every.total_seconds())

    def run_task_soon(self, name: str) -> None:
        """Do the recurring task of this name as soon as the thread is free; asked for twice before that it is done once."""
        task = self._tasks[name]
        if self._driven:
            self._do_here(task.act)
            return
        with self._wake:
            task.next_at = float("-inf")
            self._wake.notify()

    def run_task_at(self, name: str, moment: datetime) -> None:
        """Do the recurring task of this name at that moment of the clock, too."""
        if moment > self._clock.now():
            self.run_at(moment, self._tasks[name].act)
        else:
            self.run_task_soon(name)

    def run_at(self, moment: datetime, act: Act) -> None:
        """Do it once, at that moment of the clock or soon after."""
        with self._wake:
            heapq.heappush(self._once, (moment, next(self._order), act))
            self._wake.notify()

    def run_soon(self, act: Act) -> None:
        """Do it once, as soon as the thread is free; at once, on the caller's thread, on a clock moved by hand."""
        if self._driven:
            self._do_here(act)
            return
        with self._wake:
            self._soon.append(act)
            self._wake.notify()

    def _do_here(self, act: Act) -> None:
        """Do it on this thread; work that asks for more, a hundred times over, leaves that to the outermost call."""
        self._soon.append(act)
        if self._depth >= DEEPEST:
            return
        self._depth += 1
        try:
            while self._soon:
                self._do("soon", self._soon.pop(0))
        finally:
            self._depth -= 1

    def note_progress(self) -> None:
        """Say that the thread goes on, from within a task that takes long. From any other thread it says nothing."""
        if threading.current_thread() is self._thread:
            self.turned_at = self._clock.monotonic()

    def start(self) -> None:
        """Begin; twice is once."""
        if self._thread is not None or self._driven:
            return
        self._stopping = False
        self._driven = self._clock.drive(self._next_once, self._do_once)
        if self._driven:
            self._clock.drive(None, self._do_all)
            return
        now = self.turned_at = self._clock.monotonic()
        for task in self._tasks.values():
            if task.next_at != float("-inf"):
                task.next_at = now + task.every * random.random()  # noqa: S311 - spreads load
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End the thread after what it does now, and wait at most `timeout` seconds for that; twice is safe."""
        with self._wake:
            self._stopping = True
            self._once.clear()
            self._soon.clear()
            self._wake.notify()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
            if thread.is_alive():
                logger.warning("%s is still busy after %.1f s; it ends with the process", self._name, timeout)
        if self._driven:
            self._clock.release(self._do_once)
            self._clock.release(self._do_all)
            self._driven = False

    def _work(self) -> None:
        me = threading.current_thread()
        while True:
            with self._wake:
                if not self._soon and not self._stopping:
                    self._wake.wait(self._pause())
                # A thread that `stop` did not wait for must not work beside the one of the next `start`.
                if self._stopping or self._thread is not me:
                    return
                soon, self._soon = self._soon, []
            self.turned_at = self._clock.monotonic()
            for act in soon:
                self._do("soon", act)
            self._do_once()
            now = self._clock.monotonic()
            for task in self._tasks.values():
                if task.next_at <= now and not self._stopping:
                    task.plan(now)
                    self._do(task.name, task.act, task.throttled)

    def _pause(self) -> float:
        pause = min((task.next_at for task in self._tasks.values()), default=60.0) - self._clock.monotonic()
        if self._once:
            pause = min(pause, (self._once[0][0] - self._clock.now()).total_seconds())
        return max(0.0, min(pause, 60.0))

    def _next_once(self) -> datetime | None:
        with self._wake:
            return self._once[0][0] if self._once else None

    def _do_once(self) -> None:
        while True:
            with self._wake:
                if not self._once or self._once[0][0] > self._clock.now():
                    return
                _, _, act = heapq.heappop(self._once)
            self._do("once", act)

    def _do_all(self) -> None:
        for task in self._tasks.values():
            self._do(task.name, task.act, task.throttled)

    def _do(self, name: str, act: Act, throttled: ThrottledLogger | None = None) -> None:
        try:
            act()
        except StoreUnavailableError as error:
            self._outage.warning("%s put off: %s", name, error)
        except StoreError as error:
            (throttled or self._troubles.of(f"{name} {error}")).warning("%s put off: %s", name, error)
        except Exception as error:  # noqa: BLE001 - it is logged, at most every five seconds
            trouble = self._troubles.of(f"{name} {type(error).__name__}")
            trouble.error("background task %s failed", name, exc_info=True)
        except BaseException as error:  # raised by an application's code: not meant for this thread
            if self._driven:
                raise
            logger.error("background task %s was ended by %s; the thread goes on", name, type(error).__name__)
        else:
            if throttled is not None:
                throttled.over(f"{name} works again")

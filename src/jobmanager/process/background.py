"""What recurs inside a process beside its runs, on one thread: claim what is due, watch what runs, sweep."""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from jobmanager.clock import Clock
from jobmanager.errors import StoreError, StoreUnavailableError
from jobmanager.process.throttled_log import ThrottledLogger

logger = logging.getLogger(__name__)

Act = Callable[[], None]
DEEPEST = 10


@dataclass(slots=True)
class _Task:
    name: str
    act: Act
    every: float
    next_at: float = 0.0
    quiet: ThrottledLogger = field(default_factory=lambda: ThrottledLogger(logger))


class BackgroundTasks:
    """One thread for the small work. On a clock that is moved by hand there is no thread: the clock calls."""

    def __init__(self, clock: Clock, *, quiet: ThrottledLogger | None = None) -> None:
        self._clock = clock
        self._outage = quiet or ThrottledLogger(logger)
        self._chores: list[_Task] = []
        self._once: list[tuple[datetime, int, Act]] = []
        self._soon: list[Act] = []
        self._depth = 0
        self._order = itertools.count()
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._driven = False

    def add(self, name: str, act: Act, *, every: timedelta) -> None:
        """Do it every so often, jittered by a tenth so that processes do not march in step. Before `start` only."""
        self._chores.append(_Task(name, act, every.total_seconds()))

    def run_at(self, moment: datetime, act: Act) -> None:
        """Do it once, at that moment of the clock or soon after."""
        with self._wake:
            heapq.heappush(self._once, (moment, next(self._order), act))
            self._wake.notify()

    def run_soon(self, act: Act) -> None:
        """Do it once, as soon as the thread is free; at once, here, on a clock moved by hand."""
        if self._driven:
            self._do_here(act)
            return
        with self._wake:
            self._soon.append(act)
            self._wake.notify()

    def _do_here(self, act: Act) -> None:
        """What is done may ask for more, a hundred times over: beyond some depth that waits for whoever is outermost."""
        self._soon.append(act)
        if self._depth >= DEEPEST:
            return
        self._depth += 1
        try:
            while self._soon:
                self._do("soon", self._soon.pop(0))
        finally:
            self._depth -= 1

    def start(self) -> None:
        """Begin; twice is once."""
        if self._thread is not None or self._driven:
            return
        self._stopping = False
        self._driven = self._clock.drive(self._next_once, self._do_once)
        if self._driven:
            self._clock.drive(None, self._do_all)
            return
        now = self._clock.monotonic()
        for chore in self._chores:
            chore.next_at = now + chore.every * random.random()  # noqa: S311 - spreads load
        self._thread = threading.Thread(target=self._work, name="jobmanager-chores", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it does now; twice is safe."""
        with self._wake:
            self._stopping = True
            self._once.clear()
            self._soon.clear()
            self._wake.notify()
        thread, self._thread = self._thread, None
        if thread is not None and thread is not threading.current_thread():
            thread.join(10)
        if self._driven:
            self._clock.release(self._do_once)
            self._clock.release(self._do_all)
            self._driven = False

    def _work(self) -> None:
        while True:
            with self._wake:
                if not self._soon and not self._stopping:
                    self._wake.wait(self._pause())
                if self._stopping:
                    return
                soon, self._soon = self._soon, []
            for act in soon:
                self._do("soon", act)
            self._do_once()
            now = self._clock.monotonic()
            for chore in self._chores:
                if chore.next_at <= now and not self._stopping:
                    chore.next_at = now + chore.every * random.uniform(0.9, 1.1)  # noqa: S311
                    self._do(chore.name, chore.act, chore.quiet)

    def _pause(self) -> float:
        pause = min((chore.next_at for chore in self._chores), default=60.0) - self._clock.monotonic()
        if self._once:
            pause = min(pause, (self._once[0][0] - self._clock.now()).total_seconds())
        return max(0.0, pause)

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
        for chore in self._chores:
            self._do(chore.name, chore.act, chore.quiet)

    def _do(self, name: str, act: Act, quiet: ThrottledLogger | None = None) -> None:
        try:
            act()
        except StoreUnavailableError as error:
            self._outage.warning("%s put off: %s", name, error)
        except StoreError as error:
            (quiet or ThrottledLogger(logger)).warning("%s put off: %s", name, error)
        except Exception:
            logger.exception("chore %s failed", name)
        else:
            if quiet is not None:
                quiet.over(f"{name} works again")

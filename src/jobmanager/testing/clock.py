"""FakeClock: time that a test moves by hand, and that moves everything that keeps time by it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from jobmanager.clock import Due
from jobmanager.errors import JobManagerError

START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday
PATIENCE = 100

Act = Callable[[], object]


class FakeClockError(JobManagerError, RuntimeError):
    """The clock was moved from inside a move, or something driven by it never gets done."""


@dataclass(frozen=True, slots=True)
class _Duty:
    """What the clock calls: `act` whenever `next_due()` has come, or once at the end of each move if there is no `next_due`."""

    next_due: Due | None
    act: Act

    def __str__(self) -> str:
        return f"{self.act.__module__}.{getattr(self.act, '__qualname__', self.act)}"


class FakeClock:
    """A clock that stands still until a test moves it: `JobManager(clock=FakeClock())`.

    On it no thread waits and none is started: ticks fire, handlers run and retries follow inside `advance`, one after the
    other, in the order of their instants, on the caller's thread. Any number of managers may share one clock. `now` and
    `monotonic` may be asked by any thread; only one thread may move the clock at a time.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = _utc(start)
        self._elapsed = timedelta(0)
        self._duties: dict[Act, _Duty] = {}
        self._lock = threading.Lock()
        self._moving = threading.Lock()

    # ---------------------------------------------------------------- for the test

    def advance(
        self,
        delta: timedelta = timedelta(0),
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> datetime:
        """Let so much time pass: go from due instant to due instant, act at each, and answer where the clock stands.

        Heartbeat, sweep and the other small work follow once at the end. `advance()` lets no time pass, but does what is due.
        Raises ValueError for a negative stretch, FakeClockError inside another move (in a handler, use `sleep`).
        """
        return self.advance_to(
            self.now() + delta + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        )

    def advance_to(self, moment: datetime) -> datetime:
        """As `advance`, up to this aware moment; ValueError if it has passed or has no zone."""
        until = _utc(moment)
        if until < self.now():
            raise ValueError(
                f"{until} is before {self.now()}; time only goes on. To set the wall clock back use step()."
            )
        with self._alone():
            self._act_until(until)
            self._pass(until - self.now())
            for duty in tuple(self._duties.values()):
                if duty.next_due is None and duty.act in self._duties:
                    duty.act()
            self._act_until(until)  # what those have planned for this very moment
        return self.now()

    def step(self, seconds: float | timedelta) -> datetime:
        """Set the wall clock forward or, negative, back, without time passing: a clock jump. What it made due follows with `advance`."""
        with self._lock:
            self._now += seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
            return self._now

    # ---------------------------------------------------------------- Clock

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed.total_seconds()

    def sleep(self, seconds: float) -> None:
        """Let time pass: as `advance`, but inside a handler nothing fires before the handler is done."""
        if seconds <= 0:
            return
        if self._moving.locked():
            self._pass(timedelta(seconds=seconds))
        else:
            self.advance(seconds=seconds)

    def drive(self, next_due: Due | None, act: Act) -> bool:
        """Let `advance` call `act` from now on; return True. The same `act` again replaces its earlier duty."""
        with self._lock:
            self._duties[act] = _Duty(next_due, act)
        return True

    def release(self, act: Act) -> None:
        with self._lock:
            self._duties.pop(act, None)

    # ---------------------------------------------------------------- moving

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._moving.acquire(blocking=False):
            raise FakeClockError(
                "The clock is being moved already. A handler lets time pass with clock.sleep(); only the test advances."
            )
        try:
            yield
        finally:
            self._moving.release()

    def _pass(self, delta: timedelta) -> None:
        """Both clocks go on, never back."""
        if delta > timedelta(0):
            with self._lock:
                self._now += delta
                self._elapsed += delta

    def _act_until(self, until: datetime) -> None:
        """Do what is due up to `until`, earliest first; of one instant, in the order in which it was taken over."""
        tries = 0
        last: tuple[datetime, _Duty] | None = None
        while (found := self._first_due(until)) is not None:
            tries = tries + 1 if found == last else 0
            due, duty = last = found
            if tries > PATIENCE:
                raise FakeClockError(
                    f"{duty} was called {PATIENCE} times at {self.now()} and is still due at {due}. "
                    "What a clock drives must move its next_due() on when it acts."
                )
            self._pass(due - self.now())
            duty.act()

    def _first_due(self, until: datetime) -> tuple[datetime, _Duty] | None:
        first: tuple[datetime, _Duty] | None = None
        for duty in tuple(self._duties.values()):
            due = None if duty.next_due is None else duty.next_due()
            if due is not None and due <= until and (first is None or due < first[0]):
                first = due, duty
        return first


def _utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"{moment} has no zone. Pass an aware datetime, for example with tzinfo=UTC.")
    return moment.astimezone(UTC)

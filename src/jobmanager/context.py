"""RunContext: the object that a handler receives, with the facts of its run."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar

from jobmanager.clock import Clock
from jobmanager.errors import RunCancelledError
from jobmanager.job import Job
from jobmanager.run import LogLine, Progress, Run

T = TypeVar("T")
CancelCause = Literal["requested", "timeout", "shutdown", "lease"]

MAX_LINES = 1000
MAX_LINE_BYTES = 256 * 1024

current_run: ContextVar[RunContext | None] = ContextVar("jobmanager_run", default=None)
"""The context of the handler that this thread or task is inside of."""

_logger = logging.getLogger("jobmanager.handler")


class RunContext:
    """One attempt as its handler sees it. Its methods may be called by any thread the handler uses.

    `job`, `run_id`, `scheduled_for` (None for a start by hand), `attempt` (from 1), `config`, `payload` and `locale` are facts.
    """

    __slots__ = (
        "_bytes",
        "_cancel",
        "_clock",
        "_ended",
        "_interrupt",
        "_keep_lines",
        "_lease_ok",
        "_lines",
        "_lock",
        "_log",
        "_progress",
        "_progress_flushed",
        "_seen",
        "_taken",
        "attempt",
        "backend",
        "config",
        "interrupted",
        "job",
        "payload",
        "run",
        "run_id",
        "scheduled_for",
        "started_at",
        "started_mono",
    )

    def __init__(
        self,
        job: Job,
        run: Run,
        *,
        clock: Clock,
        lease_ok: Callable[[], bool],
        keep_lines: bool = True,
        backend: str = "",
    ) -> None:
        self.job = job
        self.run = run
        self.run_id = run.id
        self.scheduled_for = run.scheduled_for
        self.attempt = run.attempt
        self.backend = backend
        self.config: Mapping[str, Any] = job.config
        self.payload: Mapping[str, Any] = run.payload or {}
        self.started_at = clock.now()
        self.started_mono = clock.monotonic()
        self._clock = clock
        self._lease_ok = lease_ok
        self._keep_lines = keep_lines
        self._log: ContextLogger | None = None
        self._cancel: CancelCause | None = None
        self._seen = False
        self._ended = False
        self._progress: Progress | None = None
        self._progress_flushed: Progress | None = None
        self._lock = threading.Lock()
        self._lines: list[tuple[datetime, int, str]] = []
        self._taken = 0
        self._bytes = 0
        self._interrupt: Callable[[], object] | None = None
        self.interrupted = False

    @property
    def log(self) -> ContextLogger:
        """A standard logger whose lines become part of the run's record, even where logging is not configured."""
        if self._log is None:
            self._log = ContextLogger(self)
        return self._log

    @property
    def locale(self) -> str:
        """The language for the texts of this run: the payload's `locale`, else the job's, else `en`."""
        return self.payload.get("locale") or self.job.locale or "en"

    @property
    def idempotency_key(self) -> str:
        """A text that is the same for every attempt of this run: the given key, else `job:instant`, else the run's id."""
        if self.run.idempotency_key is not None:
            return self.run.idempotency_key
        return (
            self.run_id if self.scheduled_for is None else f"{self.job.id}:{self.scheduled_for.isoformat()}"
        )

    @property
    def previous_tick(self) -> datetime | None:
        """The schedule's instant before this run's (aware, UTC); None without a schedule."""
        schedule = self.job.schedule
        return None if schedule is None else schedule.previous_before(self.scheduled_for or self.started_at)

    def upcoming_ticks(self, count: int = 3) -> list[datetime]:
        """Return the next `count` instants of the schedule after this run's (aware, UTC); empty without a schedule."""
        schedule = self.job.schedule
        return [] if schedule is None else schedule.upcoming(self.scheduled_for or self.started_at, count)

    def progress(self, processed: int, total: int | None = None, message: str = "") -> None:
        """Record how far the work is: `processed` items of `total`. It is visible to other processes within a second.

        Any thread may call it, as often as for every row: only the latest values are kept and written.
        """
        self._progress = Progress(processed=processed, total=total, message=message)

    def track(self, items: Iterable[T], total: int | None = None, message: str = "") -> Iterator[T]:
        """Yield the items, recording progress after each and raising RunCancelledError before one if the run should end.

        `total` defaults to the length of `items`, if it has one.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        for done, item in enumerate(items):
            self.raise_if_cancelled()
            yield item
            self.progress(done + 1, total, message)

    @property
    def cancelled(self) -> bool:
        """Whether the run should end early: a cancel request, its time-out, or the shutdown of the process.

        A handler that reads True and then ends has agreed: the run ends as cancelled, not as succeeded or failed.
        """
        if self._cancel is None:
            return False
        self._seen = True
        return True

    def raise_if_cancelled(self) -> None:
        """Raise RunCancelledError if the run should end early, as `cancelled` says. Handlers should not catch it."""
        if self.cancelled:
            raise RunCancelledError(f"run {self.run_id}: {self._cancel}")

    def lease_ok(self) -> bool:
        """Return whether this process still holds its lease. False: stop before the next effect on other systems.

        Another process may by then have started the work again.
        """
        return self._lease_ok()

    # ---------------------------------------------------------------- for the runner

    def ask_to_end(self, cause: CancelCause) -> None:
        """Make `cancelled` true; the first cause stays."""
        if self._cancel is None:
            self._cancel = cause

    @property
    def cancel_cause(self) -> CancelCause | None:
        return self._cancel

    @property
    def cancel_seen(self) -> bool:
        return self._seen

    @property
    def last_progress(self) -> Progress | None:
        return self._progress

    def claim_completion(self) -> bool:
        """Return True to the first caller only, which then records how this attempt ended."""
        with self._lock:
            taken, self._ended = self._ended, True
            return not taken

    def runs_in(self, task: asyncio.Task[Any] | None) -> None:
        """Let `interrupt` cancel this task."""
        if task is not None:
            self.interrupted_by(partial(task.get_loop().call_soon_threadsafe, task.cancel))

    def interrupted_by(self, act: Callable[[], object]) -> None:
        """Let `interrupt` call `act`, which ends the attempt from any thread."""
        self._interrupt = act

    def interrupt(self) -> bool:
        """Cancel the coroutine or kill the process of this attempt, once; False if it is neither (a thread cannot be interrupted)."""
        act, self._interrupt = self._interrupt, None
        if act is None:
            return False
        self.interrupted = True
        act()
        return True

    def take_progress(self) -> Progress | None:
        """Return the progress if it changed since it was last taken."""
        progress = self._progress
        if progress is self._progress_flushed:
            return None
        self._progress_flushed = progress
        return progress

    def add_line(self, level: int, text: str) -> None:
        """Keep a captured log line, up to the limits; the first one beyond them says that the rest is cut."""
        if not self._keep_lines:
            return
        with self._lock:
            if self._taken + len(self._lines) > MAX_LINES or self._bytes > MAX_LINE_BYTES:
                return
            self._bytes += len(text)
            if self._taken + len(self._lines) == MAX_LINES or self._bytes > MAX_LINE_BYTES:
                level, text = logging.WARNING, "[log cut here: more than 1,000 lines or 256 KiB in one run]"
            self._lines.append((self._clock.now(), level, text))

    def take_lines(self) -> tuple[LogLine, ...]:
        """Return the lines captured since they were last taken."""
        if not self._lines:
            return ()
        with self._lock:
            taken, self._lines = self._lines, []
            self._taken += len(taken)
        return tuple(LogLine(at, logging.getLevelName(level), text) for at, level, text in taken)


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """`context.log`: a standard logger that knows its run, and is captured even where logging is not configured."""

    def __init__(self, context: RunContext) -> None:
        super().__init__(_logger, context.run.log_fields(context.backend))
        self._context = context

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level >= logging.INFO or super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        self._context.add_line(level, _formatted(msg, args))
        # The line is kept already: what the logger makes of it must not be captured once more.
        token = current_run.set(None)
        try:
            kwargs.setdefault("stacklevel", 2)
            super().log(level, f"[{self._context.job.id}] {msg}", *args, **kwargs)
        finally:
            current_run.reset(token)


def _formatted(msg: object, args: tuple[object, ...]) -> str:
    try:
        return str(msg) % args if args else str(msg)
    except (TypeError, ValueError):  # logging forgives a wrong format string, and so do we
        return f"{msg} {args}"

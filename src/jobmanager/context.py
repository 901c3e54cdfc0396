"""RunContext: the object that a handler receives, with the facts of its run."""

from __future__ import annotations

import logging
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence, Sized
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal, Protocol, TypeVar, overload
from uuid import UUID, uuid4

from jobmanager.beside_loop import beside_loop
from jobmanager.clock import Clock, later
from jobmanager.errors import RunCancelledError, UnsupportedError
from jobmanager.job import Job, Retry
from jobmanager.run import LogLine, Progress, Run
from jobmanager.step import Event, StepKind, StepOptions, Suspension
from jobmanager.validation.printable import get_logger
from jobmanager.validation.step_arguments import (
    duration_of,
    function_of,
    limit_of,
    moment_of,
    payloads_of,
    refusal,
    rest_of,
    timeout_of,
)

T = TypeVar("T")
Seconds = timedelta | float | str
CancelCause = Literal["requested", "timeout", "shutdown", "lease"]

MAX_LINES = 1000
MAX_LINE_BYTES = 256 * 1024
MAX_MESSAGE = 1000
MOST_COUNTED = 2**53 - 1  # what JSON of every reader keeps exactly

_logger = get_logger("jobmanager.handler")


class OnceCaller(Protocol):
    """The part of the engine that keeps what was done once."""

    def call(self, run: Run, key: str, function: Callable[[], Any]) -> Any: ...


class StepCalls(Protocol):
    """The part of the engine that does the steps of one attempt."""

    suspension: Suspension | None

    def step(self, name: str, call: Callable[[], Any], options: StepOptions) -> Any: ...

    async def step_async(self, name: str, call: Callable[[], Any], options: StepOptions) -> Any: ...

    def sleep(self, name: str, duration: timedelta) -> None: ...

    def sleep_until(self, name: str, moment: datetime) -> None: ...

    def wait_for(self, name: str, event_key: str, timeout: timedelta | None) -> Event | None: ...

    def start(self, name: str, job_id: str, payload: Mapping[str, Any] | None) -> str: ...

    def gather(
        self,
        name: str,
        job_id: str,
        payloads: Sequence[Mapping[str, Any] | None],
        *,
        limit: int | None,
        return_failures: bool,
    ) -> list[Any]: ...

    def value(self, kind: StepKind, make: Callable[[], Any]) -> Any: ...


class AttemptState:
    """The state of one attempt that the context of its handler shares with the engine. Any thread may call any method.

    `stop` is the first reason for which the attempt is to end early, and `stop_seen` tells whether the handler looked.
    `timed_out` is True from the moment the job's timeout has passed, whatever was asked before.
    """

    __slots__ = (
        "_bytes",
        "_clock",
        "_keep_lines",
        "_lease_ok",
        "_lines",
        "_lock",
        "_once",
        "_published",
        "_steps_of",
        "_taken",
        "backend",
        "flow",
        "job",
        "limit",
        "progress",
        "run",
        "run_ends_at",
        "started_at",
        "started_mono",
        "stop",
        "stop_seen",
        "timed_out",
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
        once: OnceCaller | None = None,
        steps_of: Callable[[AttemptState], StepCalls] | None = None,
    ) -> None:
        self._once = once
        self._steps_of = steps_of
        self.flow: StepCalls | None = None
        self.job: Job = job
        self.limit: timedelta | None = job.timeout
        """How long this call of the handler may take: the timeout of the job, or what is left of its `run_timeout`."""
        self.run_ends_at: datetime | None = None
        """When the `run_timeout` of the job is over for this run."""
        self.run: Run = run
        self.backend: str = backend
        self.started_at: datetime = run.opened_at
        self.started_mono: float = math.inf
        self.stop: CancelCause | None = None
        self.stop_seen: bool = False
        self.timed_out: bool = False
        self.progress: Progress | None = None
        self._published: Progress | None = None
        self._clock = clock
        self._lease_ok = lease_ok
        self._keep_lines = keep_lines
        self._lock = threading.Lock()
        self._lines: list[tuple[datetime, int, str]] | None = None
        self._taken = 0
        self._bytes = 0

    def ask_to_end(self, cause: CancelCause) -> None:
        """Make `cancelled` true for the handler; the first cause stays, and a timeout is remembered beside it."""
        if cause == "timeout":
            self.timed_out = True
        if self.stop is None:
            self.stop = cause

    def seconds_over(self) -> float:
        """Return for how many seconds the limit of this call has been over; below 0 before, without one, or before the start."""
        limit = self.limit
        if limit is None:
            return -1.0
        return self._clock.monotonic() - self.started_mono - limit.total_seconds()

    def limit_run(self, begun_at: datetime) -> None:
        """Note that the run began then, for the `run_timeout` of its job."""
        whole = self.job.run_timeout
        if whole is not None:
            self.run_ends_at = later(begun_at, whole)
            left = max(self.run_ends_at - self._clock.now(), timedelta(0))
            self.limit = left if self.limit is None else min(left, self.limit)

    @property
    def run_is_over(self) -> bool:
        """Whether the `run_timeout` of the job is over."""
        return self.run_ends_at is not None and self._clock.now() >= self.run_ends_at

    def note_timeout(self) -> None:
        """Ask to end if the timeout is over: where a supervisor looks after attempts, it has done so already."""
        if self.limit is not None and not self.timed_out and self.seconds_over() >= 0:
            self.ask_to_end("timeout")

    def once(self, key: str, function: Callable[[], Any]) -> Any:
        """Call the function unless it was done for the key; UnsupportedError where no store is at hand."""
        if self._once is None:
            raise UnsupportedError(
                f"context.once({key!r}) needs the store, which a child process does not have. Use isolation='thread', or ask the other "
                "system by context.idempotency_key."
            )
        return self._once.call(self.run, key, function)

    def steps(self) -> StepCalls:
        """Return what does the steps of this attempt; UnsupportedError where no store is at hand."""
        if self._steps_of is None:
            raise UnsupportedError(
                "Steps need the store, which a child process does not have. Use isolation='thread' for a job of steps."
            )
        with self._lock:
            if self.flow is None:
                self.flow = self._steps_of(self)
            return self.flow

    @property
    def suspension(self) -> Suspension | None:
        """Why the run goes back to pending when this call of its handler ends; None if it does not."""
        return None if self.flow is None else self.flow.suspension

    def now(self) -> datetime:
        """Return the time by this process's clock."""
        return self._clock.now()

    def lease_ok(self) -> bool:
        """Return False when this process may have been declared dead."""
        return self._lease_ok()

    def take_progress(self) -> Progress | None:
        """Return the progress if it changed since it was last taken, else None."""
        progress = self.progress
        if progress is self._published:
            return None
        self._published = progress
        return progress

    def add_line(self, level: int, text: str) -> None:
        """Keep a captured log line, up to the limits; the first line beyond them says that the rest is cut."""
        if not self._keep_lines:
            return
        with self._lock:
            lines = self._lines = self._lines or []
            if self._taken + len(lines) > MAX_LINES or self._bytes > MAX_LINE_BYTES:
                return
            self._bytes += len(text)
            if self._taken + len(lines) == MAX_LINES or self._bytes > MAX_LINE_BYTES:
                level, text = logging.WARNING, "[log cut here: more than 1,000 lines or 256 KiB in one run]"
            lines.append((self._clock.now(), level, text))

    def take_lines(self) -> tuple[LogLine, ...]:
        """Return the lines captured since they were last taken, oldest first."""
        if not self._lines:
            return ()
        return tuple(LogLine(at, logging.getLevelName(level), text) for at, level, text in self.cut_lines())

    def cut_lines(self) -> list[tuple[datetime, int, str]]:
        """Return the lines captured since they were last taken, as moment, level and text."""
        with self._lock:
            taken, self._lines = self._lines or [], None
            self._taken += len(taken)
        return taken


class RunContext:
    """One attempt as its handler sees it. Its methods may be called by any thread the handler uses."""

    __slots__ = ("_log", "_state")

    def __init__(self, state: AttemptState) -> None:
        self._state = state
        self._log: ContextLogger | None = None

    @property
    def job(self) -> Job:
        """The job in force: as declared, with what operators have overridden."""
        return self._state.job

    @property
    def run(self) -> Run:
        """The run as it was when this attempt began."""
        return self._state.run

    @property
    def run_id(self) -> str:
        """The id of the run, the same for every attempt of it."""
        return self._state.run.id

    @property
    def scheduled_for(self) -> datetime | None:
        """The instant this run stands for (aware UTC); None for a start by hand."""
        return self._state.run.scheduled_for

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self._state.run.attempt

    @property
    def started_at(self) -> datetime:
        """When this attempt began (aware UTC)."""
        return self._state.started_at

    @property
    def backend(self) -> str:
        """The name of the backend of this process."""
        return self._state.backend

    @property
    def config(self) -> Mapping[str, Any]:
        """The config of the job in force."""
        return self._state.job.config

    @property
    def payload(self) -> Mapping[str, Any]:
        """The payload of a start by hand; empty for a tick."""
        return self._state.run.payload or {}

    @property
    def log(self) -> ContextLogger:
        """A standard logger whose lines become part of the run's record, even where logging is not configured."""
        if self._log is None:
            self._log = ContextLogger(self._state)
        return self._log

    @property
    def locale(self) -> str:
        """The language for the texts of this run: the payload's `locale`, else the job's, else `en`."""
        asked = self.payload.get("locale")
        return (asked if isinstance(asked, str) else "") or self.job.locale or "en"

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
        return (
            None
            if schedule is None
            else schedule.previous_before(self.scheduled_for or self._state.started_at)
        )

    def upcoming_ticks(self, count: int = 3) -> list[datetime]:
        """Return the next `count` instants of the schedule after this run's that are not excluded (aware, UTC); empty without a schedule."""
        schedule = self.job.schedule
        return (
            []
            if schedule is None
            else schedule.runs_after(self.scheduled_for or self._state.started_at, count)
        )

    def progress(self, processed: int, total: int | None = None, message: str = "") -> None:
        """Record how far the work is: `processed` items of `total`. It is visible to other processes within a second.

        Any thread may call it, as often as for every row: only the latest values are kept and written. Numbers are kept as whole ones,
        of the message its first 1,000 characters. What is no number counts as 0, and no value makes the call fail.
        """
        self._state.progress = Progress(
            processed=_counted(processed),
            total=None if total is None else _counted(total),
            message=_presentable(message),
        )

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

    @overload
    def once(self, key: str, function: Callable[[], Coroutine[Any, Any, T]]) -> Coroutine[Any, Any, T]: ...

    @overload
    def once(self, key: str, function: Callable[[], T]) -> T: ...

    def once(self, key: str, function: Callable[[], Any]) -> Any:
        """Call the function unless it has returned for this key of the job before, and return its result, then and now.

        The result is kept as JSON of at most 64 KiB, for all attempts and runs of the job, as long as runs are kept. Of a coroutine function
        await the call. If the function raises, or its process dies, a later call does it again. Raises OnceConflictError while another
        attempt is at it, PayloadError for a result that cannot be kept (it is done all the same, and later calls get None), and
        StoreUnavailableError.
        """
        return self._state.once(key, function)

    # ---------------------------------------------------------------- steps

    def step(
        self,
        name: str,
        function: Callable[..., T],
        /,
        *args: Any,
        retry: Retry | int | None = None,
        timeout: Seconds | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> T:
        """Call `function(*args, **kwargs)` once for the run and return its result: what was kept of it before, on a later attempt.

        The result is durable before this returns, as JSON of at most 64 KiB; PayloadError beyond that. `retry` (a Retry, or a number of
        tries) is the step's own: a try that fails is followed by others, here or, after a longer pause, in another start of the run,
        and after the last one StepFailedError is raised, then and on each later attempt. Without it the exception is raised as it
        is, and the next attempt of the run calls the function again. A name may be used again, one call after the other; `key`
        tells calls apart that are open at once. If the process dies before the result is kept, the function is called again.
        Raises StepError, StepsChangedError, RunCancelledError if the run is to end, and StoreUnavailableError.
        """
        call = partial(function_of(name, function), *args, **kwargs)
        result: T = self._state.steps().step(name, call, _options(name, retry, timeout, key))
        return result

    def sleep(
        self,
        name: str,
        duration: Seconds = 0,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Let the run rest for so long, counted by the store's clock from the first time that it came here.

        The call of the handler ends here (its `finally` blocks run), the run is pending, and nothing is used meanwhile. When it is
        due, any process calls the handler again, and this returns. No attempt is used.
        """
        rest = rest_of(name, duration, {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds})
        self._state.steps().sleep(name, rest)

    def sleep_until(self, name: str, moment: datetime) -> None:
        """Let the run rest until the moment (aware); see `sleep`. A moment that is over lets it go on at once."""
        self._state.steps().sleep_until(name, moment_of(name, moment))

    def wait_for(self, name: str, *, key: str = "", timeout: Seconds | None = None) -> Event | None:
        """Let the run rest until an event of this name and key is sent, and return it; None if none came within `timeout`.

        Events count that were sent since the run was opened, also before it came here, each for one wait of this run. `timeout` is seconds,
        a timedelta or a text such as "7d", counted from the first time that the run came here; without it there is no limit.
        """
        limit = None if timeout is None else duration_of("wait_for", name, "timeout", timeout)
        return self._state.steps().wait_for(name, key, limit)

    def start(self, name: str, job: str, payload: Mapping[str, Any] | None = None) -> str:
        """Start a run of the job with this id, once for this run, and return its id without waiting for its end.

        Its `parent_id` is this run. It starts beside other runs of the job, whatever the job's overlap says. Raises JobNotFoundError,
        JobDisabledError and PayloadError.
        """
        return self._state.steps().start(name, job, payload)

    def gather(
        self,
        name: str,
        job: str,
        payloads: Sequence[Mapping[str, Any] | None],
        *,
        limit: int | None = None,
        return_failures: bool = False,
    ) -> list[Any]:
        """Start a run of the job for each payload, let this run rest until all have ended, and return their outputs in order.

        Each is started once for this run, whatever becomes of processes; at most 10,000. With `limit` at most so many are open at a time, and
        the next ones start as earlier ones end, up to a quarter of them together. If one has not succeeded after its own attempts, StepFailedError of the first such is raised; with
        `return_failures` the errors stand in the list. Raises what `start` raises.
        """
        steps = self._state.steps()
        wanted, most = payloads_of(name, payloads), limit_of(name, limit)
        return steps.gather(name, job, wanted, limit=most, return_failures=return_failures)

    def now(self) -> datetime:
        """Return the time (aware UTC) of the first attempt that came here, on each later one too."""
        return datetime.fromisoformat(self._state.steps().value("now", _now_text(self._state)))

    def random(self) -> float:
        """Return a random number from 0 up to 1 that stays the same for all attempts of the run."""
        number: float = self._state.steps().value("random", random.random)
        return number

    def uuid(self) -> UUID:
        """Return a random UUID that stays the same for all attempts of the run."""
        return UUID(self._state.steps().value("uuid", _uuid_text))

    # ---------------------------------------------------------------- the end of the run

    @property
    def cancelled(self) -> bool:
        """Whether the run should end early: a cancel request, its time-out, or the shutdown of the process.

        A handler that reads True and then ends has agreed: the run ends as cancelled, not as succeeded or failed.
        """
        self._state.note_timeout()
        if self._state.stop is None:
            return False
        self._state.stop_seen = True
        return True

    def raise_if_cancelled(self) -> None:
        """Raise RunCancelledError if the run should end early, as `cancelled` says. Handlers should not catch it."""
        if self.cancelled:
            raise RunCancelledError(f"run {self.run_id}: {self._state.stop}")

    def lease_ok(self) -> bool:
        """Return whether this process still holds its lease. False: stop before the next effect on other systems.

        Another process may by then have started the work again.
        """
        return self._state.lease_ok()


class AsyncRunContext(RunContext):
    """The context of a coroutine handler: the same, with steps to be awaited."""

    __slots__ = ()

    @overload  # type: ignore[override]
    async def step(
        self,
        name: str,
        function: Callable[..., Coroutine[Any, Any, T]],
        /,
        *args: Any,
        retry: Retry | int | None = None,
        timeout: Seconds | None = None,  # noqa: ASYNC109 - of a try, which is cancelled then
        key: str | None = None,
        **kwargs: Any,
    ) -> T: ...

    @overload
    async def step(
        self,
        name: str,
        function: Callable[..., T],
        /,
        *args: Any,
        retry: Retry | int | None = None,
        timeout: Seconds | None = None,  # noqa: ASYNC109 - of a try, which is cancelled then
        key: str | None = None,
        **kwargs: Any,
    ) -> T: ...

    async def step(
        self,
        name: str,
        function: Callable[..., Any],
        /,
        *args: Any,
        retry: Retry | int | None = None,
        timeout: Seconds | None = None,  # noqa: ASYNC109 - of a try, which is cancelled then
        key: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Await a coroutine function, or call a plain one in a thread, once for the run; see `RunContext.step`.

        After `timeout` (seconds, a timedelta or a text) a try is cancelled and counts as failed by TimeoutError.
        """
        call = partial(function_of(name, function), *args, **kwargs)
        return await self._state.steps().step_async(name, call, _options(name, retry, timeout, key))

    async def sleep(  # type: ignore[override]
        self,
        name: str,
        duration: Seconds = 0,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
    ) -> None:
        """Let the run rest; see `RunContext.sleep`."""
        rest = rest_of(name, duration, {"days": days, "hours": hours, "minutes": minutes, "seconds": seconds})
        await beside_loop(self._state.steps().sleep, name, rest)

    async def sleep_until(self, name: str, moment: datetime) -> None:  # type: ignore[override]
        """Let the run rest until the moment; see `RunContext.sleep_until`."""
        await beside_loop(self._state.steps().sleep_until, name, moment_of(name, moment))

    async def wait_for(  # type: ignore[override]
        self,
        name: str,
        *,
        key: str = "",
        timeout: Seconds | None = None,  # noqa: ASYNC109 - days, for which no task waits
    ) -> Event | None:
        """Let the run rest until an event is sent; see `RunContext.wait_for`."""
        limit = None if timeout is None else duration_of("wait_for", name, "timeout", timeout)
        return await beside_loop(self._state.steps().wait_for, name, key, limit)

    async def start(  # type: ignore[override]
        self, name: str, job: str, payload: Mapping[str, Any] | None = None
    ) -> str:
        """Start a run of another job; see `RunContext.start`."""
        return await beside_loop(self._state.steps().start, name, job, payload)

    async def gather(  # type: ignore[override]
        self,
        name: str,
        job: str,
        payloads: Sequence[Mapping[str, Any] | None],
        *,
        limit: int | None = None,
        return_failures: bool = False,
    ) -> list[Any]:
        """Start a run for each payload and let this run rest until all have ended; see `RunContext.gather`."""
        gather = self._state.steps().gather
        return await beside_loop(
            gather,
            name,
            job,
            payloads_of(name, payloads),
            limit=limit_of(name, limit),
            return_failures=return_failures,
        )

    async def now(self) -> datetime:  # type: ignore[override]
        """Return the time of the first attempt that came here; see `RunContext.now`."""
        return await beside_loop(super().now)

    async def random(self) -> float:  # type: ignore[override]
        """Return a random number that stays the same; see `RunContext.random`."""
        return await beside_loop(super().random)

    async def uuid(self) -> UUID:  # type: ignore[override]
        """Return a random UUID that stays the same; see `RunContext.uuid`."""
        return await beside_loop(super().uuid)


_NO_OPTIONS = StepOptions()


def _options(step: str, retry: Retry | int | None, timeout: Seconds | None, key: str | None) -> StepOptions:
    if retry is None and timeout is None and key is None:
        return _NO_OPTIONS
    policy = retry
    if isinstance(retry, int) and not isinstance(retry, bool):
        policy = Retry(max_attempts=retry)
    if policy is not None and not isinstance(policy, Retry):
        raise refusal("step", step, "retry", retry, "a Retry, or a number of tries")
    return StepOptions(policy, None if timeout is None else timeout_of(step, timeout), key)


def _now_text(state: AttemptState) -> Callable[[], str]:
    return lambda: state.now().isoformat()


def _uuid_text() -> str:
    return str(uuid4())


current_run: ContextVar[RunContext | None] = ContextVar("jobmanager_run", default=None)
"""The context of the handler that this thread or task is inside of."""


def capture_line(level: int, text: str) -> None:
    """Keep a log line with the run whose handler this thread or task is inside of, if any."""
    context = current_run.get()
    if context is not None:
        context._state.add_line(level, text)  # noqa: SLF001 - the state is the context's other half


class ContextLogger(logging.LoggerAdapter[logging.Logger]):
    """`context.log`: a standard logger that knows its run, and is captured even where logging is not configured."""

    def __init__(self, state: AttemptState) -> None:
        super().__init__(_logger, state.run.log_fields(state.backend))
        self._state = state

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's name
        return level >= logging.INFO or super().isEnabledFor(level)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        self._state.add_line(level, _formatted(msg, args))
        # The line is kept already: what the logger makes of it must not be captured once more.
        token = current_run.set(None)
        try:
            kwargs.setdefault("stacklevel", 2)
            super().log(level, f"[{self._state.job.id}] {msg}", *args, **kwargs)
        finally:
            current_run.reset(token)


def _counted(value: Any) -> int:
    """Return the whole number that the value is, as far as JSON of every reader goes; 0 for what is none."""
    if isinstance(value, (str, bytes, bytearray)):
        return 0
    try:
        return max(-MOST_COUNTED, min(_whole(value), MOST_COUNTED))
    except Exception:  # noqa: BLE001 - a number's own code; a run must not fail over what is shown of it
        return 0


def _whole(number: Any) -> int:
    try:
        return int(number)
    except OverflowError:  # infinity
        return MOST_COUNTED if number > 0 else -MOST_COUNTED


def _presentable(message: Any) -> str:
    """Return the beginning of a text that every store and terminal can take."""
    if not isinstance(message, str):
        message = _text_of(message)
    text = str.__getitem__(message, slice(MAX_MESSAGE))
    if not text.isascii():
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _text_of(message: object) -> str:
    """Return a text for what is none, without a call of the size of a large container."""
    try:
        if isinstance(message, _CONTAINERS):
            return f"<{type(message).__name__} of {len(message):,} items>"
        return str(message)
    except Exception:  # noqa: BLE001 - the object's own code; a run must not fail over what is shown of it
        return f"<{type(message).__name__}>"


_CONTAINERS = (list, tuple, dict, set, frozenset, deque, bytes, bytearray)


def _formatted(msg: object, args: tuple[object, ...]) -> str:
    try:
        return str(msg) % args if args else str(msg)
    except (TypeError, ValueError):  # logging forgives a wrong format string, and so do we
        return f"{msg} {args}"

"""Flow: the steps of one attempt. Those that are kept return what they returned; the others are done and kept.

    step ─> enter: which step is it? ─┬> kept already: return or raise what is kept
                                      └> call ─> keep, durable ─> return
    sleep ─> enter ─┬> over already: go on
                    └> suspend: the call of the handler ends, and its run goes back to pending

A step is known by its name, and by how often the handler came to that name before.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

from jobmanager.beside_loop import beside_loop
from jobmanager.cheap import cheap
from jobmanager.clock import LONGEST, Clock, later
from jobmanager.context import AttemptState
from jobmanager.errors import PayloadError, RunCancelledError, StepError, StepFailedError, StepsChangedError
from jobmanager.execution.failures import failure
from jobmanager.job import Retry
from jobmanager.ledger.bounding import bounded_failure, exact_json
from jobmanager.ledger.redaction import Redactor
from jobmanager.ledger.steps import EarlierSteps, StepLedger
from jobmanager.observe import Observer, StepObserver, tell_resumed, tell_step_ended, traceparent
from jobmanager.run import MICROSECOND, SUCCEEDED, Failure, Run
from jobmanager.step import (
    DONE,
    GATHERED,
    STARTED,
    Awaited,
    Event,
    Step,
    StepKind,
    StepOptions,
    StepStatus,
    Suspended,
    SuspendRun,
    Suspension,
)
from jobmanager.stores.steps import StepWrite
from jobmanager.validation.texts import shown

LONGEST_NAME = 200
WAITED_HERE = timedelta(seconds=5)
"""A wait between two tries of a step that is no longer keeps the worker; a longer one suspends the run."""

PLAIN = frozenset({type(None), bool, int, float, str, list, dict})
"""Types that are known at once not to be awaited."""

MOST_CHILDREN = 10_000
OPENED_AT_ONCE = 1000

_inside: ContextVar[tuple[Flow, str] | None] = ContextVar("jobmanager_step", default=None)


class StartsChildren(Protocol):
    """The part of the engine that starts runs of other jobs."""

    def __call__(
        self, parent: Run, job_id: str, wanted: Sequence[tuple[str, Mapping[str, Any] | None]]
    ) -> Sequence[Run]:
        """Open a run for each idempotency key with its payload, unless there is one; return them. JobNotFoundError, PayloadError."""
        ...


@cheap
@dataclass(frozen=True, slots=True)
class _Place:
    """A step of this attempt: the record it has already, or the one it begins with."""

    step: Step
    known: bool


class Flow:
    """The steps of one attempt. Any thread of its handler may call any method; only one step of a name is open at a time."""

    def __init__(
        self,
        state: AttemptState,
        earlier: EarlierSteps,
        ledger: StepLedger,
        clock: Clock,
        redactor: Redactor,
        starts: StartsChildren,
        observers: Sequence[StepObserver] = (),
    ) -> None:
        self._state = state
        self._run = state.run
        self._read_ahead = earlier
        self._ledger = ledger
        self._clock = clock
        self._redactor = redactor
        self._starts = starts
        self._observers = observers
        self._taken: dict[tuple[str, str], datetime] = {}
        self._lock = threading.Lock()
        self._earlier: dict[tuple[str, int], Step] | None = None
        self._counts: Counter[str] = Counter()
        self._begun_steps = 0
        self._open: set[str] = set()
        self.suspension: Suspension | None = None

    # ---------------------------------------------------------------- steps that call a function

    def step(
        self,
        name: str,
        call: Callable[[], Any],
        options: StepOptions,
    ) -> Any:
        """Return the result that is kept for the step, or call the function until it returns, and keep that."""
        place = self._enter(name, "step", options.key)
        try:  # not `_entered`: what its generator costs is felt here
            while not place.step.is_done:
                place = self._tried(place, options, call)
        finally:
            self._leave(place)
        return _result(place.step)

    async def step_async(
        self,
        name: str,
        call: Callable[[], Any],
        options: StepOptions,
    ) -> Any:
        """Do what `step` does for a coroutine: a coroutine function is awaited here, a plain one is called in a thread."""
        place = await beside_loop(self._enter, name, "step", options.key)
        try:
            while not place.step.is_done:
                place = await self._tried_async(place, options, call)
        finally:
            self._leave(place)
        return _result(place.step)

    def _tried(self, place: _Place, options: StepOptions, call: Callable[[], Any]) -> _Place:
        place = self._begun(place)
        token = _inside.set((self, place.step.name))
        try:
            returned = _called(call, place.step.name, options)
        except Exception as error:  # noqa: BLE001 - the step's own
            return self._failed(place, options.retry, error)
        finally:
            _inside.reset(token)
        return self._returned(place, returned)

    async def _tried_async(self, place: _Place, options: StepOptions, call: Callable[[], Any]) -> _Place:
        place = await beside_loop(self._begun, place)
        token = _inside.set((self, place.step.name))
        try:
            returned = await _awaited(call, options.limit)
        except Exception as error:  # noqa: BLE001 - the step's own
            return await beside_loop(self._failed, place, options.retry, error)
        finally:
            _inside.reset(token)
        return await beside_loop(self._returned, place, returned)

    def _begun(self, place: _Place) -> _Place:
        """Return the step as its next try begins; suspend the run if that is not yet."""
        if not place.known:
            return place
        step = place.step
        if step.wakes_at is not None and not self._is_over(step.wakes_at):
            raise self._suspended("sleeping", step.wakes_at)
        tried = replace(
            step, attempt=step.attempt + 1, started_at=self._clock.now(), wakes_at=None, error=None
        )
        return _Place(tried, known=True)

    def _returned(self, place: _Place, returned: Any) -> _Place:
        try:
            output = exact_json(returned)
        except (TypeError, ValueError, RecursionError) as error:
            text = (
                f"step {place.step.name!r} was done, but its result cannot be kept: {error}. "
                "Return ids and plain values of at most 64 KiB."
            )
            refused = PayloadError(text)
            self._keep(place, status="failed", error=self._failure(refused))
            raise refused from None
        return self._kept(place.step.returned(output, self._clock.now()))

    def _failed(self, place: _Place, retry: Retry | None, error: Exception) -> _Place:
        """Keep that a try failed, and say how the step goes on: here, later, with the run's next attempt, or not at all."""
        said, tries = self._failure(error), place.step.attempt
        if retry is None:
            self._keep(place, status="retrying", error=said)
            raise error
        if not retry.allows(error, tries):
            return self._keep(place, status="failed", error=said)
        pause = retry.delay_after(tries)
        if pause <= WAITED_HERE:
            place = self._keep(place, status="retrying", error=said)
            self._clock.sleep(pause.total_seconds())
            self._look(place.step.name)
            return place
        wakes_at = later(self._ledger.now(), pause)
        self._keep(place, status="retrying", error=said, wakes_at=wakes_at)
        raise self._suspended("sleeping", wakes_at)

    def _failure(self, error: Exception) -> Failure | None:
        return bounded_failure(failure("exception", error), hide=self._redactor.text)

    # ---------------------------------------------------------------- waits and values

    def sleep(self, name: str, duration: timedelta) -> None:
        """Go on so long after the first time that the run came here; until then the run is pending."""
        with self._entered(name, "sleep") as place:
            now = None if place.known else self._ledger.now()
            self._sleep(place, None if now is None else later(now, duration), now)

    def sleep_until(self, name: str, moment: datetime) -> None:
        """Go on at the moment that was given when the run came here first."""
        with self._entered(name, "sleep") as place:
            self._sleep(place, None if place.known else moment)

    def _sleep(self, place: _Place, until: datetime | None, now: datetime | None = None) -> None:
        if until is not None:
            place = self._keep(place, status="waiting", wakes_at=until)
        wakes_at = place.step.wakes_at
        if wakes_at is not None and not self._is_over(wakes_at, now):
            raise self._suspended("sleeping", wakes_at)
        if self._observers and wakes_at is not None and self._is_newest(place.step):
            # Nothing is written where a sleep ends, so no write tells it.
            tell_step_ended(self._observers, self._run, place.step.at(wakes_at))

    def _is_over(self, moment: datetime, now: datetime | None = None) -> bool:
        """Whether the moment has come by the store's clock, which said when this start of the run was claimed, and may just have said `now`."""
        claimed_at = self._run.started_at if self._run.starts > 1 else None
        return (claimed_at is not None and moment <= claimed_at) or moment <= (now or self._ledger.now())

    def value(self, kind: StepKind, make: Callable[[], Any]) -> Any:
        """Return the value that is kept, or make it and keep it; the same for all attempts of the run."""
        with self._entered(kind, kind) as place:
            if place.step.is_done:
                return place.step.output
            return self._keep(place, status="succeeded", output=make()).step.output

    def wait_for(self, name: str, event_key: str, timeout: timedelta | None) -> Event | None:
        """Return the first event of this name and key that was sent since the run was opened, each to one wait; None once `timeout` is over."""
        if event_key != "":
            _checked(event_key)
        with self._entered(name, "wait_for") as entered:
            place = entered
            if not place.known:
                after = self._taken.get((name, event_key), self._run.opened_at - MICROSECOND)
                until = later(self._ledger.now(), LONGEST if timeout is None else timeout)
                awaited = Awaited(name, event_key, after)
                place = self._keep(place, status="waiting", wakes_at=until, awaits=awaited)
            if not place.step.is_done:
                place = self._arrived(place)
        event = None if place.step.output is None else _event(place.step.output)
        if event is not None:
            self._taken[name, event_key] = event.sent_at
        return event

    def _arrived(self, place: _Place) -> _Place:
        """Keep the event that the step waits for, or that none came in time; suspend the run until then."""
        step = place.step
        until = step.wakes_at or step.started_at
        event = None if step.awaits is None else self._ledger.event(step.awaits)
        if event is None and self._ledger.now() < until:
            raise self._suspended("waiting", until)
        return self._keep(place, status="succeeded", output=None if event is None else _words(event))

    # ---------------------------------------------------------------- runs of other jobs

    def start(self, name: str, job_id: str, payload: Mapping[str, Any] | None) -> str:
        """Start a run of another job, once for this run, and return its id."""
        with self._entered(name, "start") as place:
            if place.step.is_done:
                return str(place.step.output)
            [child] = self._starts(self._run, job_id, [(self._key(STARTED, place.step), payload)])
            self._keep(place, status="succeeded", output=child.id)
            return child.id

    def gather(
        self,
        name: str,
        job_id: str,
        payloads: Sequence[Mapping[str, Any] | None],
        *,
        limit: int | None,
        return_failures: bool,
    ) -> list[Any]:
        """Start a run of another job for each payload, once for this run, wait until all have ended, and return their outputs in order."""
        if len(payloads) > MOST_CHILDREN:
            raise StepError(
                f"gather {name!r} has {len(payloads):,} payloads, more than {MOST_CHILDREN:,}. Start several jobs that gather some each."
            )
        with self._entered(name, "gather") as entered:
            place = entered
            if not place.known:
                until = later(self._ledger.now(), LONGEST)
                more = None if limit is None or limit >= len(payloads) else {"limit": limit}
                place = self._keep(place, status="waiting", wakes_at=until, output=more)
            children = self._gathered(place, job_id, payloads, limit)
            if not place.step.is_done:
                self._keep(place, status="succeeded", output={"runs": len(children)})
        outputs = [_output(name, child) for child in children]
        failed = next((output for output in outputs if isinstance(output, StepFailedError)), None)
        if failed is not None and not return_failures:
            raise failed
        return outputs

    def _gathered(
        self,
        place: _Place,
        job_id: str,
        payloads: Sequence[Mapping[str, Any] | None],
        limit: int | None,
    ) -> list[Run]:
        """Return the children in order once all have ended; start as many as `limit` leaves room for, and suspend the run meanwhile."""
        prefix = self._key(GATHERED, place.step)
        wanted = {f"{prefix}{number}": payload for number, payload in enumerate(payloads)}
        while True:
            found = self._ledger.child_keys(self._run, prefix)
            still_open = sum(found.values())
            missing = [(key, payload) for key, payload in wanted.items() if key not in found]
            some = missing if limit is None else missing[: max(0, limit - still_open)]
            if not missing and not still_open:
                children = {
                    child.idempotency_key: child for child in self._ledger.children(self._run, prefix)
                }
                return [children[key] for key in wanted]
            if not some:
                raise self._rests_for_children(place, {"limit": limit} if missing else None)
            for first in range(0, len(some), OPENED_AT_ONCE):
                self._starts(self._run, job_id, some[first : first + OPENED_AT_ONCE])

    def _rests_for_children(self, place: _Place, more: Mapping[str, Any] | None) -> SuspendRun:
        """Suspend the run until all its children have ended; with `more`, until there is room for more of them, by what the step says."""
        if not place.step.is_done and place.step.output != more:
            place = self._keep(place, status="waiting", output=more)
        return self._suspended("children", place.step.wakes_at or place.step.started_at)

    def _key(self, how: str, step: Step) -> str:
        return f"{how}{self._run.id}/{step.name}#{step.occurrence}/"

    # ---------------------------------------------------------------- which step this is

    @contextmanager
    def _entered(self, name: str, kind: StepKind, key: str | None = None) -> Iterator[_Place]:
        place = self._enter(name, kind, key)
        try:
            yield place
        finally:
            self._leave(place)

    def _enter(self, name: str, kind: StepKind, key: str | None) -> _Place:
        name = _checked(name) if key is None else f"{_checked(name)}:{_checked(key)}"
        outer = _inside.get()
        if outer is not None and outer[0] is self:
            raise StepError(
                f"step {name!r} is called inside of step {outer[1]!r}. A step is done again as a whole: call one after the other."
            )
        self._look(name)
        with self._lock:
            if name in self._open:
                raise StepError(
                    f"two steps {name!r} are open at once. Give each a key=, so that they can be told apart."
                )
            self._open.add(name)
            occurrence = self._counts[name]
            self._counts[name] += 1
        try:
            return self._place(name, occurrence, kind)
        except BaseException:
            self._open.discard(name)
            raise

    def _look(self, name: str) -> None:
        """Raise what ends the handler here: the run is suspended, or is to end."""
        if self.suspension is not None:
            raise SuspendRun
        self._state.note_timeout()
        if self._state.stop is not None:
            self._state.stop_seen = True
            raise RunCancelledError(f"run {self._run.id} before step {name!r}: {self._state.stop}")

    def _place(self, name: str, occurrence: int, kind: StepKind) -> _Place:
        known = self._known().get((name, occurrence))
        if known is None:
            now = self._clock.now()
            fresh = Step(
                run_id=self._run.id,
                name=name,
                occurrence=occurrence,
                kind=kind,
                status="retrying",
                started_at=now,
                position=self._next_position(),
            )
            return _Place(fresh, known=False)
        if known.kind != kind:
            raise StepsChangedError(
                f"step {name!r} of this run was {_spoken(known.kind)} and is {_spoken(kind)} now: the code has changed meanwhile. "
                "Give a changed step a new name, or start a new run."
            )
        return _Place(known, known=True)

    def _next_position(self) -> int:
        with self._lock:
            self._begun_steps += 1
            return len(self._earlier or ()) + self._begun_steps - 1

    def _is_newest(self, step: Step) -> bool:
        """Whether no step of the run began after this one: the run comes past it for the first time."""
        with self._lock:
            return step.position == len(self._earlier or ()) + self._begun_steps - 1

    def _known(self) -> dict[tuple[str, int], Step]:
        with self._lock:
            if self._earlier is None:
                # Without the lease another process may have kept steps of this run by now.
                earlier = self._read_ahead if self._state.lease_ok() else self._ledger.of([self._run])
                steps = earlier.of(self._run)
                self._earlier = {(step.name, step.occurrence): step for step in steps}
                if self._observers and steps and (span := steps[-1].traceparent) is not None:
                    tell_resumed(self._observers, self._run, span)
            return self._earlier

    def _leave(self, place: _Place) -> None:
        self._open.discard(place.step.name)

    # ---------------------------------------------------------------- what is kept

    def _keep(self, place: _Place, *, status: StepStatus, **others: Any) -> _Place:
        """Keep the step as it has become; raises RunCancelledError where the run is no longer this process's."""
        ended_at = self._clock.now() if status in DONE else place.step.ended_at
        rests = self._observers and (status == "waiting" or others.get("wakes_at") is not None)
        span = traceparent() if rests else None
        return self._kept(replace(place.step, status=status, ended_at=ended_at, traceparent=span, **others))

    def _kept(self, step: Step) -> _Place:
        if not self._ledger.keep(StepWrite(self._run, step)):
            self._state.ask_to_end("lease")
            raise RunCancelledError(
                f"run {self._run.id}: another process has it, so step {step.name!r} was not kept"
            )
        if self._observers and step.is_done:
            tell_step_ended(self._observers, self._run, step)
        return _Place(step, known=True)

    def _suspended(self, reason: Suspended, until: datetime) -> SuspendRun:
        """Set the flag that says so, and return what ends the handler; of several waits the first to be over counts."""
        with self._lock:
            earlier = self.suspension
            if earlier is None or until < earlier.until:
                self.suspension = Suspension(reason, until)
        return SuspendRun()


def flows(
    ledger: StepLedger,
    clock: Clock,
    redactor: Redactor,
    starts: StartsChildren,
    observers: Sequence[Observer],
) -> Callable[[Sequence[Run]], Callable[[AttemptState], Flow]]:
    """Return what makes, for runs taken on at once, what makes the flow of an attempt when its handler comes to its first step."""
    listening = [observer for observer in observers if isinstance(observer, StepObserver)]

    def of(runs: Sequence[Run]) -> Callable[[AttemptState], Flow]:
        earlier = ledger.of(runs)
        return lambda state: Flow(state, earlier, ledger, clock, redactor, starts, listening)

    return of


def _result(step: Step) -> Any:
    """Return what the step returned, or raise what it failed by."""
    if step.status == "succeeded":
        return step.output
    error = step.error
    message = f"step {step.name!r} failed after {step.attempt} {'try' if step.attempt == 1 else 'tries'}"
    if error is None:
        raise StepFailedError(message, step=step.name, kind="")
    raise StepFailedError(
        f"{message}: {error.type}: {error.message}",
        step=step.name,
        kind=error.type,
        traceback=error.traceback,
    )


def _called(call: Callable[[], Any], name: str, options: StepOptions) -> Any:
    if options.limit is not None:
        raise StepError(
            f"step {name!r}: timeout= needs a coroutine handler, as a thread cannot be ended. "
            "Give the called function a time-out of its own."
        )
    returned = call()
    if type(returned) not in PLAIN and inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise StepError(
            f"step {name!r} called {shown(call)}, which returned an awaitable; use it in a coroutine handler."
        )
    return returned


async def _awaited(call: Callable[[], Any], limit: timedelta | None) -> Any:
    async with asyncio.timeout(None if limit is None else limit.total_seconds()):
        function = getattr(call, "func", call)
        returned = call() if inspect.iscoroutinefunction(function) else await asyncio.to_thread(call)
        return await returned if isinstance(returned, Awaitable) else returned


def _event(words: Mapping[str, Any]) -> Event:
    return Event(**{**words, "sent_at": datetime.fromisoformat(words["sent_at"])})


def _words(event: Event) -> dict[str, Any]:
    return {**asdict(event), "sent_at": event.sent_at.isoformat()}


def _output(step: str, child: Run) -> Any:
    """Return the output of a child, or the error that stands for its failure."""
    if child.status is SUCCEEDED:
        return child.output
    why = child.error.message if child.error else child.reason or "no reason"
    return StepFailedError(
        f"step {step!r}: run {child.id} of job {child.job_id!r} is {child.status}: {why}",
        step=step,
        kind=child.error.type if child.error else str(child.status),
        traceback=child.error.traceback if child.error else "",
    )


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise StepError(
            f"{name!r:.80} is no name or key of a step: use 1 to {LONGEST_NAME} printable characters."
        )
    return name


def _spoken(kind: StepKind) -> str:
    return {
        "step": "a function",
        "sleep": "a sleep",
        "wait_for": "a wait for an event",
        "gather": "a gather",
    }.get(kind, f"a {kind}")

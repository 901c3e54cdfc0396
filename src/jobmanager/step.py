"""Step: a part of a run whose result is kept, so that it is not done again when the run goes on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from jobmanager.cheap import cheap
from jobmanager.job import Retry
from jobmanager.run import Failure, Run

Suspended = Literal["sleeping", "waiting", "children"]
GATHERED = "gather:"
"""The beginning of the idempotency keys of runs that another run waits for."""
STARTED = "start:"
"""The beginning of those of runs that another run has started and does not wait for."""
StepKind = Literal["step", "sleep", "wait_for", "start", "gather", "now", "random", "uuid"]
StepStatus = Literal["succeeded", "failed", "retrying", "waiting"]
DONE: tuple[StepStatus, ...] = ("succeeded", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that an application said has happened; `key` names the one it happened to, and is empty where there is none."""

    id: str
    name: str
    key: str = ""
    data: Any = None
    sent_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEvent:
    """An event as it is listed: without its data, and with the runs that it started, of those that the caller may see."""

    id: str
    name: str
    key: str
    sent_at: datetime
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EventWait:
    """A run that rests in a step until an event of this name and key comes, and goes on without it at `until`."""

    run_id: str
    job_id: str
    step: str
    name: str
    key: str
    since: datetime
    until: datetime | None


@dataclass(frozen=True, slots=True)
class Awaited:
    """The event that a step waits for: the first of this name and key that was sent after the moment."""

    name: str
    key: str
    after: datetime


@cheap
@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The record of one step of a run. Instants are aware, in UTC.

    A run may use one `name` several times: `occurrence` counts them from 0. `attempt` counts the tries of the step. A step that is
    `retrying` is tried again, at `wakes_at` if it is set; one that is `waiting` goes on at `wakes_at`, or before that by what it
    waits for: the event `awaits`, or other runs. `error` is that of the last try, `traceparent` the span in which the run came to rest here.
    """

    run_id: str
    name: str
    occurrence: int
    kind: StepKind
    status: StepStatus
    started_at: datetime
    attempt: int = 1
    output: Any = None
    error: Failure | None = None
    ended_at: datetime | None = None
    wakes_at: datetime | None = None
    awaits: Awaited | None = None
    position: int = 0
    """The place of the step among those of its run, from 0."""
    traceparent: str | None = None

    @property
    def is_done(self) -> bool:
        """Whether the run goes past this step without doing it again."""
        return self.status in DONE

    def returned(self, output: Any, ended_at: datetime) -> Step:
        """Return the step as it is once its function has returned. No `replace`: every step comes here, and that takes twice as long."""
        return Step(
            run_id=self.run_id,
            name=self.name,
            occurrence=self.occurrence,
            kind=self.kind,
            status="succeeded",
            started_at=self.started_at,
            attempt=self.attempt,
            output=output,
            ended_at=ended_at,
            position=self.position,
        )

    def at(self, now: datetime) -> Step:
        """Return the step as it stands at the moment: a sleep whose time is over is done, though nothing was written then."""
        if self.kind != "sleep" or self.is_done or self.wakes_at is None or self.wakes_at > now:
            return self
        return replace(self, status="succeeded", ended_at=self.wakes_at)


class SuspendRun(BaseException):
    """Ends the call of a handler whose run goes on later. Whether it does is said by the engine's flag, not by this exception."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """Options of a step: its own retries, the limit of one try, and the key that tells it from others of its name."""

    retry: Retry | None = None
    limit: timedelta | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Suspension:
    """Why a run goes back to pending, and when it is due again at the latest."""

    reason: Suspended
    until: datetime

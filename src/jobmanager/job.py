"""A job: what runs, when, and by which policies. Values only; nothing here knows a store or a backend."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, TypedDict, get_args, get_type_hints

from jobmanager.errors import ConfigurationError, CronError, NonRetryable
from jobmanager.schedule import At, Cron, Every, Schedule

Overlap = Literal["skip", "queue", "queue_all", "cancel_running", "allow"]
CatchUp = Literal["latest", "all", "none"]
Gate = bool | str | Callable[[], bool]
Isolation = Literal["thread", "process"]

OVERLAPS, CATCH_UPS, ISOLATIONS = get_args(Overlap), get_args(CatchUp), get_args(Isolation)
MOST = 10_000
MOST_MIB = 16 * 1024 * 1024  # a number beyond is meant in bytes

SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
QUEUE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
NO_CONFIG: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When a failed attempt is followed by another. Delays are seconds.

    `delays` names them one by one (the last repeats); without it the n-th delay is `base * factor ** (n - 1)`, at most `max_delay`.
    Each is lengthened by up to `jitter` of itself. `retry_on` limits retries to these exceptions, `give_up_on` excludes some.
    `on_crash` says whether an attempt whose process died counts as failed (another follows) or ends the run.
    """

    max_attempts: int = 1
    delays: Sequence[float] | None = None
    base: float = 2.0
    factor: float = 2.0
    max_delay: float = 300.0
    jitter: float = 0.1
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()
    on_crash: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.max_attempts <= 1000:
            raise ConfigurationError(f"max_attempts={self.max_attempts}: use 1 (no retry) to 1000.")
        if self.delays is not None and (not self.delays or min(self.delays) < 0):
            raise ConfigurationError(
                f"delays={list(self.delays)}: give at least one delay, in seconds, none negative."
            )
        if self.base < 0 or self.factor < 1 or self.max_delay < 0 or not 0 <= self.jitter <= 1:
            raise ConfigurationError(
                "Retry needs base >= 0, factor >= 1, max_delay >= 0 and jitter between 0 and 1."
            )

    def allows(self, error: BaseException, attempt: int) -> bool:
        """True if another attempt may follow attempt number `attempt` (from 1) that raised `error`."""
        return (
            attempt < self.max_attempts
            and not isinstance(error, (NonRetryable, *self.give_up_on))
            and isinstance(error, self.retry_on)
        )

    def delay_after(self, attempt: int) -> timedelta:
        """How long to wait after attempt number `attempt` (from 1) failed."""
        if self.delays is not None:
            seconds = self.delays[min(attempt, len(self.delays)) - 1]
        else:
            # The exponent is bounded so that attempt 1000 is max_delay and not an OverflowError.
            seconds = min(self.base * self.factor ** min(attempt - 1, 64), self.max_delay)
        return timedelta(seconds=seconds * (1 + self.jitter * random.random()))  # noqa: S311


NO_RETRY = Retry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A named declaration: handler, schedule and policies. Durations are timedeltas.

    `id` is a stable slug, `name` a human title, `handler` a key of the registry. `schedule` None: started by hand only.
    `queue` names the workers that take its runs where a backend has queues (celery); elsewhere every process takes them.
    `isolation="process"` runs each attempt in a child process of its own, which is killed `timeout` plus ten seconds after its start
    and may take `memory_limit` MiB beyond what it has when the handler is called.
    """

    id: str
    name: str
    handler: str
    schedule: Schedule | None = None
    config: Mapping[str, Any] = field(default_factory=lambda: NO_CONFIG)
    retry: Retry = NO_RETRY
    timeout: timedelta | None = None
    overlap: Overlap = "skip"
    queue_cap: int = 100
    catch_up: CatchUp = "latest"
    catch_up_cap: int = 100
    catch_up_window: timedelta = timedelta(hours=1)
    start_deadline: timedelta | None = None
    jitter: timedelta = timedelta(0)
    pause_after_failures: int | None = None
    isolation: Isolation = "thread"
    memory_limit: int | None = None
    enabled_when: Gate = True
    priority: int = 0
    queue: str | None = None
    locale: str | None = None
    notify_on_failure: bool = False
    visibility: str = "system"
    retention: timedelta | None = None
    keep_runs: int | None = None

    def __post_init__(self) -> None:
        if not SLUG.fullmatch(self.id):
            raise ConfigurationError(
                f"Job id {self.id!r} is not a slug. Use lower-case letters, digits, '.', '_' and '-', "
                "starting with a letter or digit, at most 128."
            )
        wrong = self._wrong_policy()
        if wrong:
            raise ConfigurationError(f"Job {self.id!r}: {wrong}.")
        if isinstance(self.schedule, Cron) and self.schedule.never_matches:
            raise CronError(
                f"Job {self.id!r}: {self.schedule.expression!r} never matches a date.",
                kind="never_matches",
                value=self.schedule.expression,
                hint="Look at the day and month: that date does not exist.",
            )

    def _wrong_policy(self) -> str | None:
        """What cannot be meant, in words; None if everything can."""
        if self.overlap not in OVERLAPS:
            return f"overlap={self.overlap!r} is none of {', '.join(OVERLAPS)}"
        if self.catch_up not in CATCH_UPS:
            return f"catch_up={self.catch_up!r} is none of {', '.join(CATCH_UPS)}"
        if not (1 <= self.queue_cap <= MOST and 1 <= self.catch_up_cap <= MOST):
            return f"queue_cap and catch_up_cap must be between 1 and {MOST:,}"
        if self.pause_after_failures is not None and self.pause_after_failures < 1:
            return "pause_after_failures must be at least 1; leave it out for never"
        if self.keep_runs is not None and self.keep_runs < 1:
            return "keep_runs must be at least 1; leave it out for no limit"
        for option, duration in (("timeout", self.timeout), ("start_deadline", self.start_deadline)):
            if duration is not None and duration <= timedelta(0):
                return f"{option} must be longer than zero; leave it out for none"
        if self.queue is not None and not QUEUE_NAME.fullmatch(self.queue):
            return f"queue={self.queue!r} is no name: use letters, digits, '.', '_', '-' and ':', at most 128"
        if self.catch_up_window < timedelta(0) or self.jitter < timedelta(0):
            return "catch_up_window and jitter cannot be negative"
        return self._wrong_isolation()

    def _wrong_isolation(self) -> str | None:
        if self.isolation not in ISOLATIONS:
            return f"isolation={self.isolation!r} is none of {', '.join(ISOLATIONS)}"
        if self.memory_limit is not None and self.isolation != "process":
            return "memory_limit needs isolation='process'; threads share the memory of their process"
        if self.memory_limit is not None and not 1 <= self.memory_limit <= MOST_MIB:
            return f"memory_limit={self.memory_limit} is not in MiB; use 1 to {MOST_MIB:,}"
        return None

    @property
    def queues(self) -> bool:
        """True if a start may have to wait in line or make others give way, so that only the job's lock can decide."""
        return self.overlap not in ("skip", "allow")

    def due_at(self, instant: datetime) -> datetime:
        """When a tick may start: its instant, moved by the job's jitter; the same in every process."""
        return jittered(self.id, instant, self.jitter, self.schedule) if self.jitter else instant

    def declared(self) -> str:
        """The declaration as canonical JSON: equal text means nothing to write. Handlers are keys, never code."""
        config = _canonical(dict(self.config)) if self.config else "{}"
        own = f'"name":{_canonical(self.name)},"handler":{_canonical(self.handler)},"config":{config}'
        return f"{{{own},{_policies_text(*_policies_of(self))}}}"

    def gate(self, environ: Mapping[str, str]) -> bool:
        """Whether `enabled_when` lets the job be scheduled: a bool, the name of a variable that is true, or a callable."""
        if isinstance(self.enabled_when, str):
            return environ.get(self.enabled_when, "").strip().lower() in ("1", "true", "yes", "on")
        return self.enabled_when() if callable(self.enabled_when) else self.enabled_when


def jittered(job_id: str, instant: datetime, jitter: timedelta, schedule: Schedule | None) -> datetime:
    """The instant plus a share of `jitter` that depends on job and instant alone, and stays before the next instant."""
    following = schedule.next_after(instant) if schedule and jitter else None
    span = jitter if following is None else min(jitter, following - instant)
    if not span:
        return instant
    digest = hashlib.blake2b(f"{job_id} {instant.isoformat()}".encode(), digest_size=8).digest()
    return instant + timedelta(microseconds=int.from_bytes(digest) % (span // timedelta(microseconds=1)))


_DECLARED_AS = {
    "timeout": "timeout_seconds",
    "retry.max_attempts": "max_attempts",
    "retry.on_crash": "retry_on_crash",
    "overlap": "overlap",
    "queue_cap": "queue_cap",
    "catch_up": "catch_up",
    "catch_up_cap": "catch_up_cap",
    "catch_up_window": "catch_up_window_seconds",
    "start_deadline": "start_deadline_seconds",
    "jitter": "jitter_seconds",
    "pause_after_failures": "pause_after_failures",
    "isolation": "isolation",
    "memory_limit": "memory_limit_mib",
    "priority": "priority",
    "queue": "queue",
    "notify_on_failure": "notify_on_failure",
    "visibility": "visibility",
    "retention": "retention_seconds",
    "keep_runs": "keep_runs",
}
_policies_of = attrgetter(*_DECLARED_AS)
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


@lru_cache(maxsize=1024)
def _policies_text(*policies: Any) -> str:
    """Cached: many jobs have the same policies."""
    seconds = (value.total_seconds() if isinstance(value, timedelta) else value for value in policies)
    return _canonical(dict(zip(_DECLARED_AS.values(), seconds, strict=True)))[1:-1]


class Policies(TypedDict, total=False):
    """How a job runs, in the words of the decorator. Durations are seconds or timedeltas."""

    config: Mapping[str, Any]
    retry: Retry
    timeout: float | timedelta | None
    overlap: Overlap
    queue_cap: int
    catch_up: CatchUp
    catch_up_cap: int
    catch_up_window: float | timedelta
    start_deadline: float | timedelta | None
    jitter: float | timedelta
    pause_after_failures: int | None
    isolation: Isolation
    memory_limit: int | None
    enabled_when: Gate
    priority: int
    queue: str | None
    locale: str | None
    notify_on_failure: bool
    visibility: str
    retention: float | timedelta | None
    keep_runs: int | None


class JobOptions(Policies, total=False):
    """All words of the decorator; at most one of `cron`, `every` and `at`."""

    name: str
    cron: str
    timezone: str
    every: float | timedelta
    at: datetime


KNOWN_OPTIONS = frozenset(get_type_hints(JobOptions))


def make_job(job_id: str, handler: str, options: JobOptions) -> Job:
    """A Job from the words of the decorator; ConfigurationError for a word that is none or two schedules at once."""
    unknown = [word for word in options if word not in KNOWN_OPTIONS]
    if unknown:
        known = ", ".join(sorted(KNOWN_OPTIONS))
        raise ConfigurationError(f"Job {job_id!r}: {unknown[0]!r} is not an option. Known are {known}.")
    given = [word for word in ("cron", "every", "at") if options.get(word) is not None]
    if len(given) > 1:
        raise ConfigurationError(f"Job {job_id!r} has {' and '.join(given)}; give one of them.")
    policies: dict[str, Any] = {"name": job_id}
    for word, value in options.items():
        if word in _DURATIONS and value is not None:
            policies[word] = value if isinstance(value, timedelta) else timedelta(seconds=value)  # type: ignore[arg-type]
        elif word not in _SCHEDULES:
            policies[word] = value
    return Job(id=job_id, handler=handler, schedule=_schedule(options), **policies)


_DURATIONS = ("timeout", "catch_up_window", "start_deadline", "jitter", "retention")
_SCHEDULES = ("cron", "timezone", "every", "at")


def _cron(expression: Any, timezone: Any) -> Cron:
    """Many jobs have the same schedule: they share it. What is no text is Cron's to refuse."""
    texts = isinstance(expression, str) and isinstance(timezone, str)
    return _shared_cron(expression, timezone) if texts else Cron(expression, timezone=timezone)


_shared_cron = lru_cache(maxsize=4096)(Cron)


def _schedule(options: JobOptions) -> Schedule | None:
    if options.get("cron") is not None:
        return _cron(options["cron"], options.get("timezone", "UTC"))
    if options.get("every") is not None:
        return Every(options["every"])
    return At(options["at"]) if options.get("at") is not None else None

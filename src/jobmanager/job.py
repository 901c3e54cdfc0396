"""Job and Retry: what runs, when, and by which policies. Values only; this module knows neither stores nor backends."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from types import NoneType
from typing import Any, Literal, TypedDict, get_args

from jobmanager.clock import LONGEST, later, parse_duration
from jobmanager.errors import ConfigurationError, CronError, NonRetryable
from jobmanager.schedule import At, Cron, Dst, Every, On, Schedule
from jobmanager.schedule.dst import DEBIAN
from jobmanager.schedule.exclusion import Calendar, Exclusion
from jobmanager.schedule.instants import EPOCH, ending
from jobmanager.validation.kinds import (
    ATTEMPTS,
    MICROSECOND,
    PRIORITY,
    Condition,
    Delays,
    Duration,
    EventName,
    Exceptions,
    Flag,
    Kind,
    Number,
    OneOf,
    Refused,
    Seconds,
    Several,
    Text,
    TextMapping,
    Whole,
)
from jobmanager.validation.options import closest_name, option, options_of, read_all
from jobmanager.validation.texts import locate, shown

Overlap = Literal["skip", "queue", "queue_all", "cancel_running", "allow"]
CatchUp = Literal["latest", "all", "none"]
Gate = bool | str | Callable[[], bool]
Isolation = Literal["thread", "process"]
First = Literal["next", "now"]
OnChange = Literal["keep", "now"]
Visibility = Literal["team", "project", "system"]
AlertEvent = Literal["failed", "recovered", "missed", "paused", "ended"]

OVERLAPS, CATCH_UPS, ISOLATIONS = get_args(Overlap), get_args(CatchUp), get_args(Isolation)
FIRSTS, ON_CHANGES = get_args(First), get_args(OnChange)
VISIBILITIES = get_args(Visibility)
ALERT_EVENTS = get_args(AlertEvent)
MOST = 10_000
MOST_MIB = 16 * 1024 * 1024  # a number beyond is meant in bytes

SLUG = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
PING_URL = re.compile(r"https?://[^\s/?#@\\]+(?:[/?][^\s#]*)?")
QUEUE_NAME = re.compile(r"[A-Za-z0-9._:-]{1,128}")
NO_CONFIG: Mapping[str, Any] = {}
TITLE = Text(1_000)
# The groups in which forms show the options.
START, FAILURES, EXECUTION = "Starts", "Failures and retries", "Execution"
ALERTS, HISTORY = "Alerts", "Visibility and history"
GROUPS = (START, FAILURES, EXECUTION, ALERTS, HISTORY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """When another attempt follows a failed one, and after which delay. All delays are seconds.

    `max_attempts` counts the first attempt too; 1 means no retry. `delays` lists the delays one by one, and the last one
    repeats; without it the n-th delay is `base * factor ** (n - 1)`, at most `max_delay`. Each delay is lengthened by a random
    share of up to `jitter` of itself. Only exceptions of `retry_on` that are not of `give_up_on` are followed by another
    attempt. `on_crash` says whether another attempt also follows one whose process died; otherwise the run ends as failed.
    Raises ConfigurationError for values that cannot be meant.
    """

    max_attempts: int = option(
        1, ATTEMPTS, "how many attempts a run has", stored=True, overridable=True, group=FAILURES
    )
    delays: Sequence[float] | None = option(
        None,
        Delays(),
        "the delays one by one, the last repeats; without it `base`, `factor` and `max_delay` say them",
        group=FAILURES,
    )
    base: float = option(2.0, Seconds(), "the first delay", group=FAILURES)
    factor: float = option(
        2.0, Number(1, 1_000), "how many times longer each following delay is", group=FAILURES
    )
    max_delay: float = option(300.0, Seconds(), "the longest delay", group=FAILURES)
    jitter: float = option(
        0.1, Number(0, 1), "each delay is lengthened by up to this share of itself", group=FAILURES
    )
    retry_on: tuple[type[BaseException], ...] = option(
        (Exception,), Exceptions(), "another attempt follows these only"
    )
    give_up_on: tuple[type[BaseException], ...] = option((), Exceptions(), "no attempt follows these")
    on_crash: bool = option(
        True,  # noqa: FBT003 - the default of a field
        Flag(),
        "whether an attempt whose process died is followed by another",
        key="retry_on_crash",
        stored=True,
        group=FAILURES,
    )
    on_shutdown: bool = option(
        True,  # noqa: FBT003 - the default of a field
        Flag(),
        "whether a run whose handler saw the shutdown and raised goes back to pending, without an attempt used",
        group=FAILURES,
    )

    def __post_init__(self) -> None:
        try:
            changed = read_all(RETRY_OPTIONS.values(), _retry_values(self))
        except ConfigurationError as error:
            locate(error, "Retry")
            raise
        for name, value in changed.items():
            object.__setattr__(self, name, value)

    def allows(self, error: BaseException, attempt: int) -> bool:
        """Return whether another attempt may follow attempt number `attempt` (from 1), which raised `error`."""
        return (
            attempt < self.max_attempts
            # `isinstance` would ask the exception's own `__class__`.
            and not issubclass(type(error), (NonRetryable, *self.give_up_on))
            and issubclass(type(error), self.retry_on)
        )

    def delay_after(self, attempt: int) -> timedelta:
        """Return the delay after the failure of attempt number `attempt` (from 1), with jitter drawn anew."""
        if self.delays is not None:
            seconds = self.delays[min(attempt, len(self.delays)) - 1]
        else:
            # The exponent is bounded so that attempt 1000 is max_delay and not an OverflowError.
            seconds = min(self.base * self.factor ** min(attempt - 1, 64), self.max_delay)
        longer = seconds * (1 + self.jitter * random.random())  # noqa: S311
        return timedelta(seconds=min(longer, LONGEST.total_seconds()))


RETRY_OPTIONS = options_of(Retry)
_retry_values = attrgetter(*RETRY_OPTIONS)
NO_RETRY = Retry()


@dataclass(frozen=True, slots=True)
class Attempts(Kind):
    """A Retry, or the number of attempts alone."""

    @property
    def takes(self) -> str:
        return "Retry(...) or a number of attempts, 1 to 1,000"

    def read(self, value: Any) -> Retry:
        if isinstance(value, Retry):
            return value
        try:
            return Retry(max_attempts=RETRY_OPTIONS["max_attempts"].kind.read(value))
        except Refused:
            raise self.refusal() from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies that the store's own guards read: shared by a declared Job and its row in the store.

    A new one is a field here and a column in a migration; everything else iterates over the description.
    """

    overlap: Overlap = option(
        "skip",
        OneOf(OVERLAPS),
        "what becomes of a start while a run of the job is active, see [overlap](#overlap)",
        stored=True,
        overridable=True,
        group=START,
    )
    queue_cap: int = option(
        100,
        Whole(1, MOST),
        'how many may wait under `overlap="queue_all"`',
        stored=True,
        overridable=True,
        group=START,
    )
    catch_up: CatchUp = option(
        "latest",
        OneOf(CATCH_UPS),
        "what becomes of instants whose tick never came, see [late and missed](#late-and-missed-instants)",
        stored=True,
        overridable=True,
        group=START,
    )
    catch_up_cap: int = option(
        100,
        Whole(1, MOST),
        'how many instants `catch_up="all"` runs at most, the newest ones',
        stored=True,
        overridable=True,
        group=START,
    )
    catch_up_window: timedelta = option(
        timedelta(hours=1),
        Duration(),
        "how far back `catch_up` looks",
        stored=True,
        overridable=True,
        group=START,
    )
    start_deadline: timedelta | None = option(
        None,
        Duration(MICROSECOND),
        "a tick that could not start so long after its instant is missed (deadline)",
        stored=True,
        overridable=True,
        group=START,
    )
    jitter: timedelta = option(
        timedelta(0),
        Duration(),
        "a tick starts up to so much later; how much depends on job and instant alone, so all processes agree",
        stored=True,
        overridable=True,
        shown_as="up to {}",
        group=START,
    )
    pause_after_failures: int | None = option(
        None,
        Whole(1, MOST),
        "so many failed runs in a row pause the job",
        stored=True,
        overridable=True,
        shown_as="{} in a row",
        group=FAILURES,
    )
    visibility: Visibility = option(
        "team",
        OneOf(VISIBILITIES),
        "which principals see it, see [permissions](howto/permissions.md#what-a-principal-sees)",
        stored=True,
        overridable=True,
        group=HISTORY,
    )
    on: str | None = option(
        None,
        EventName(),
        "each event of this name starts a run, see [events](howto/steps.md#start-a-job-by-an-event)",
        stored=True,
        group=START,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Policies):
    """The declaration of a job: handler, schedule and policies. An immutable value; durations are timedeltas.

    `id` is a stable slug, `name` a title for people, `handler` a key of the registry. A job without `schedule` is started by
    hand only. `queue` names the workers that take the job's runs where a backend has queues (celery); elsewhere every process
    takes them. `isolation="process"` executes each attempt in a child process of its own, which is killed ten seconds after
    `timeout` is over and may take `memory_limit` MiB beyond what it has when the handler is called. The page on concepts
    explains every option. Raises ConfigurationError for a policy and CronError for a schedule that cannot be meant.
    """

    id: str
    name: str
    handler: str
    schedule: Schedule | None = None
    max_runs: int | None = option(
        None,
        Whole(1, MOST),
        "after so many due instants the schedule ends, see [a number of runs](howto/cron.md#a-number-of-runs)",
        overridable=True,
        group=START,
    )
    first: First = option(
        "next",
        OneOf(FIRSTS),
        "when a new job starts first: at its next instant, or now as well, see [starts by a deployment](#starts-by-a-deployment)",
        group=START,
    )
    on_change: OnChange = option(
        "keep",
        OneOf(ON_CHANGES),
        "whether another schedule also starts a run now, see [starts by a deployment](#starts-by-a-deployment)",
        overridable=True,
        group=START,
    )
    config: Mapping[str, Any] = option(
        NO_CONFIG,
        TextMapping(),
        "arguments for every run; the payload of a start by hand overrides them",
        overridable=True,
        declared=False,
    )
    retry: Retry = option(
        NO_RETRY, Attempts(), "when another attempt follows, see [retries](#retries)", declared=False
    )
    timeout: timedelta | None = option(
        None,
        Duration(MICROSECOND),
        "how long an attempt may take, see [ending early](#ending-early)",
        overridable=True,
        group=EXECUTION,
    )
    run_timeout: timedelta | None = option(
        None,
        Duration(MICROSECOND),
        "how long a run may take in all from its first start on, with its retries and its rests in steps; it is not tried again then",
        overridable=True,
        group=EXECUTION,
    )
    isolation: Isolation = option(
        "thread",
        OneOf(ISOLATIONS),
        'where the handler runs: `"process"` is a child process of its own, see [isolation](#isolation)',
        group=EXECUTION,
    )
    memory_limit: int | None = option(
        None,
        Whole(1, MOST_MIB, "MiB"),
        "MiB that an isolated handler may take on top of what its process has when it is called (Linux)",
        key="memory_limit_mib",
        shown_as="{} MiB",
        group=EXECUTION,
    )
    enabled_when: Gate = option(
        True,  # noqa: FBT003 - the default of a field
        Condition(),
        "a bool, a function, or the name of a variable that must be true; otherwise the job is disabled",
        declared=False,
    )
    priority: int = option(
        0,
        PRIORITY,
        "which pending run is taken first, the higher one; it interrupts nobody",
        overridable=True,
        group=EXECUTION,
    )
    queue: str | None = option(
        None,
        Text(128, QUEUE_NAME, "a name of letters, digits, '.', '_', '-' and ':'"),
        "the queue of the workers that take its runs, where a backend has queues (celery); elsewhere every process takes them",
        group=EXECUTION,
    )
    locale: str | None = option(
        None,
        Text(64),
        "what `context.locale` says, unless the payload has a `locale`; without either `en`",
        declared=False,
        group=EXECUTION,
    )
    notify_on_failure: bool = option(
        False,  # noqa: FBT003 - the default of a field
        Flag(),
        "whether a failure for good, the recovery and a pause by failures are told to `alert_to`",
        overridable=True,
        group=ALERTS,
    )
    alert_on: Sequence[AlertEvent] = option(
        (),
        Several(OneOf(ALERT_EVENTS)),
        "further events that are told, see [notify](howto/notify.md)",
        overridable=True,
        group=ALERTS,
    )
    alert_to: Sequence[str] = option(
        (),
        Several(Text(300)),
        "e-mail addresses and channels that are told; without them `JOBMANAGER_ALERTS_EMAIL`",
        overridable=True,
        group=ALERTS,
    )
    alert_late: timedelta | None = option(
        None,
        Duration(MICROSECOND),
        "a run that starts so much after its instant is told",
        overridable=True,
        group=ALERTS,
    )
    alert_running: timedelta | None = option(
        None,
        Duration(MICROSECOND),
        "an attempt that lasts longer is told",
        overridable=True,
        group=ALERTS,
    )
    ping_url: str | None = option(
        None,
        Text(1_000, PING_URL, "an http or https URL"),
        "called when a run starts, succeeds and fails, by the protocol of Healthchecks",
        group=ALERTS,
    )
    retention: timedelta | None = option(
        None,
        Duration(),
        "its runs are purged that long after their end; otherwise `JOBMANAGER_RETENTION_DAYS` and its like hold",
        group=HISTORY,
    )
    keep_runs: int | None = option(
        None,
        Whole(1, 2**31 - 1),
        "so many of its ended runs are kept at most, the newest ones",
        group=HISTORY,
    )

    def __post_init__(self) -> None:
        check_id(self.id)
        given: object = self.schedule
        if isinstance(given, On):
            object.__setattr__(self, "on", given)
            object.__setattr__(self, "schedule", None)
        try:
            changed = read_all(POLICY_OPTIONS.values(), _policy_values(self))
            self._check_fields()
        except ConfigurationError as error:
            error.args = (f"Job {self.id!r}: {error}",)
            raise
        for name, value in changed.items():
            object.__setattr__(self, name, value)
        if isinstance(self.schedule, Cron) and self.schedule.never_matches:
            raise CronError(
                f"Job {self.id!r}: cron={self.schedule.expression!r} never matches a date.",
                kind="never_matches",
                value=self.schedule.expression,
                hint="Look at the day and month: that date does not exist.",
            )

    def _check_fields(self) -> None:
        """Check what is no option, and what two options say together."""
        for field, value in (("name", self.name), ("handler", self.handler)):
            try:
                TITLE.read(value)
            except Refused as refused:
                raise ConfigurationError(f"{field}={shown(value)} {refused}.") from None
        if not isinstance(self.schedule, (Cron, Every, At, NoneType)):
            raise ConfigurationError(
                f"schedule={shown(self.schedule)} cannot be used; use Cron, Every, At or None."
            )
        if self.max_runs is not None and not isinstance(self.schedule, (Cron, Every)):
            raise ConfigurationError(
                f"max_runs={shown(self.max_runs)} belongs to cron= or every=; leave it out here."
            )
        if self.memory_limit is not None and self.isolation != "process":
            raise ConfigurationError(
                "memory_limit needs isolation='process'; threads share the memory of their process."
            )

    @property
    def queues(self) -> bool:
        """Whether a start may have to wait in the queue or cancel another run, so that only the job's lock can decide."""
        return self.overlap not in ("skip", "allow")

    def due_at(self, instant: datetime) -> datetime:
        """Return when the tick of `instant` may start: the instant plus the job's jitter, the same in every process."""
        return jittered(self.id, instant, self.jitter, self.schedule) if self.jitter else instant

    def declared(self) -> str:
        """Return the declaration as canonical JSON, in which the handler is its key. Equal text means an equal declaration."""
        config = _canonical(dict(self.config)) if self.config else "{}"
        own = f'"name":{_canonical(self.name)},"handler":{_canonical(self.handler)},"config":{config}'
        return f"{{{own},{_policies_text(*_policies_of(self))}}}"

    def gate(self, environ: Mapping[str, str]) -> bool:
        """Return whether `enabled_when` enables the job; a text is the name of a variable in `environ` that must be true.

        Raises ConfigurationError for a function that raises, or returns anything but True or False.
        """
        if isinstance(self.enabled_when, str):
            return environ.get(self.enabled_when, "").strip().lower() in ("1", "true", "yes", "on")
        return _result_of(self.id, self.enabled_when) if callable(self.enabled_when) else self.enabled_when


def _result_of(job_id: str, gate: Callable[[], bool]) -> bool:
    try:
        enabled: object = gate()
    except Exception as error:
        raise ConfigurationError(
            f"Job {job_id!r}: enabled_when={shown(gate)} raised {type(error).__name__}; let it return True or False."
        ) from error
    if isinstance(enabled, bool):
        return enabled
    raise ConfigurationError(
        f"Job {job_id!r}: enabled_when={shown(gate)} returned {shown(enabled)}; let it return True or False."
    )


def jittered(job_id: str, instant: datetime, jitter: timedelta, schedule: Schedule | None) -> datetime:
    """Return the instant plus a share of `jitter` that depends on job and instant alone and ends before the next instant."""
    following = schedule.next_after(instant) if schedule and jitter else None
    span = jitter if following is None else min(jitter, following - instant)
    if not span:
        return instant
    digest = hashlib.blake2b(f"{job_id} {instant.isoformat()}".encode(), digest_size=8).digest()
    return later(
        instant, timedelta(microseconds=int.from_bytes(digest) % (span // timedelta(microseconds=1)))
    )


def check_id(job_id: object) -> None:
    """Raise ConfigurationError for an id that is no slug."""
    if not (isinstance(job_id, str) and SLUG.fullmatch(job_id)):
        raise ConfigurationError(
            f"Job id {shown(job_id)} is not a slug. Use lower-case letters, digits, '.', '_' and '-', "
            "starting with a letter or digit, at most 128."
        )


POLICY_OPTIONS = options_of(Job)
_policy_values = attrgetter(*POLICY_OPTIONS)

_STORED_RETRY = {f"retry.{name}": item for name, item in RETRY_OPTIONS.items() if item.stored}
_DECLARED = {**{name: item for name, item in POLICY_OPTIONS.items() if item.declared}, **_STORED_RETRY}
_STORED = {**{name: item for name, item in POLICY_OPTIONS.items() if item.stored}, **_STORED_RETRY}
STORED_OPTIONS = {item.column if path.startswith("retry.") else path: item for path, item in _STORED.items()}
"""The options that have a column of their own, by the name of their field in the row."""
_stored_values = attrgetter(*_STORED)


def stored_policies(job: Job) -> dict[str, Any]:
    """Return the values of a job's stored policies, by the name of their field in the row."""
    return dict(zip(STORED_OPTIONS, _stored_values(job), strict=True))


_policies_of = attrgetter(*_DECLARED)
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


@lru_cache(maxsize=1024)
def _policies_text(*policies: Any) -> str:
    """Write policies as JSON. Cached: many jobs have the same policies."""
    plain = {item.column: item.plain(value) for item, value in zip(_DECLARED.values(), policies, strict=True)}
    return _canonical(plain)[1:-1]


Length = float | timedelta | str
"""A duration as the decorator takes it: seconds, a timedelta, or a text such as "5m"."""


Excluded = date | str | Calendar | Iterable[date | str | Calendar] | None
"""Dates, cron lines and calendars that a schedule leaves out, or texts of them."""


class PolicyWords(TypedDict, total=False):
    """The policies in the words of the decorator, for type checkers; a test holds them equal to the fields of Job."""

    max_runs: int | None
    first: First
    on_change: OnChange
    config: Mapping[str, Any]
    retry: Retry | int
    timeout: Length | None
    run_timeout: Length | None
    overlap: Overlap
    queue_cap: int
    catch_up: CatchUp
    catch_up_cap: int
    catch_up_window: Length
    start_deadline: Length | None
    jitter: Length
    pause_after_failures: int | None
    isolation: Isolation
    memory_limit: int | None
    enabled_when: Gate
    priority: int
    queue: str | None
    locale: str | None
    notify_on_failure: bool
    alert_on: Sequence[AlertEvent] | AlertEvent
    alert_to: Sequence[str] | str
    alert_late: Length | None
    alert_running: Length | None
    ping_url: str | None
    visibility: Visibility
    on: str | On | None
    retention: Length | None
    keep_runs: int | None


class JobOptions(PolicyWords, total=False):
    """All keyword arguments that `@jobs.job(...)` takes; at most one of `cron`, `every` and `at`."""

    name: str
    cron: str
    timezone: str
    dst: Dst | str
    every: Length
    at: datetime
    until: datetime | str | None
    exclude: Excluded


SCHEDULE_WORDS = ("cron", "timezone", "dst", "every", "at", "until", "exclude")
OF_CRON = ("timezone", "dst")
"""The words that say more about a cron line."""
OF_REPEATED = ("until", "exclude")
"""The words that say more about a cron line or an interval."""
KNOWN_OPTIONS = frozenset({"name", *SCHEDULE_WORDS, *POLICY_OPTIONS})


def make_job(job_id: str, handler: str, options: JobOptions) -> Job:
    """Return a Job from the words of the decorator.

    Raises ConfigurationError for a word that is no option, a value that an option does not take, and two schedules at once;
    CronError for a schedule that cannot be read. The text names job, option, value and the line of the declaration.
    """
    check_id(job_id)
    try:
        return _make_job(job_id, handler, options)
    except (ConfigurationError, CronError) as error:
        locate(error, f"Job {job_id!r}")
        raise


def _make_job(job_id: str, handler: str, options: JobOptions) -> Job:
    unknown = [word for word in options if word not in KNOWN_OPTIONS]
    if unknown:
        suggestion = closest_name(unknown[0], KNOWN_OPTIONS)
        raise ConfigurationError(
            f"{unknown[0]!r} is not an option.{suggestion} Known are {', '.join(sorted(KNOWN_OPTIONS))}."
        )
    given = [word for word in ("cron", "every", "at") if options.get(word) is not None]
    if len(given) > 1:
        raise ConfigurationError(f"{' and '.join(given)} exclude each other; give one of them.")
    stray = [word for word in OF_CRON if word in options] if given != ["cron"] else []
    if stray:
        raise ConfigurationError(
            f"{stray[0]}={shown(options.get(stray[0]))} belongs to cron=; leave it out here."
        )
    for word in OF_REPEATED:
        if options.get(word) is not None and given not in (["cron"], ["every"]):
            raise ConfigurationError(
                f"{word}={shown(options.get(word))} belongs to cron= or every=; leave it out here."
            )
    if options.get("max_runs") is not None and options.get("until") is not None:
        raise ConfigurationError("until and max_runs exclude each other; give one of them.")
    policies: dict[str, Any] = {word: value for word, value in options.items() if word not in SCHEDULE_WORDS}
    return Job(id=job_id, handler=handler, schedule=_schedule(options), **{"name": job_id, **policies})


def every(interval: Any, anchor: datetime = EPOCH, until: Any = None, exclude: Any = None) -> Every:
    """Return the schedule of an interval, which may also be a text such as "5m"; CronError if it is none."""
    end, excluded = last_moment(until), exclusion(exclude)
    try:
        return Every(_length(interval), anchor, until=end, exclude=excluded)
    except CronError as error:
        _name_option(error, "every", interval)
        raise


def last_moment(until: Any) -> datetime | None:
    """Return `until=` of a schedule in UTC; CronError if it is no moment."""
    try:
        return ending(until)
    except CronError as error:
        _name_option(error, "until", until)
        raise


def exclusion(value: Any) -> Exclusion:
    """Return `exclude=` of a schedule; CronError if it is none."""
    try:
        return Exclusion.read(value)
    except CronError as error:
        _name_option(error, "exclude", value)
        raise


def _length(interval: Any) -> Any:
    """Return the seconds that a text means; anything else is Every's to refuse."""
    try:
        return parse_duration(interval) if isinstance(interval, str) else interval
    except ValueError:
        return interval


def cron(
    expression: Any, timezone: Any = "UTC", dst: Any = DEBIAN, until: Any = None, exclude: Any = None
) -> Cron:
    """Return the schedule of a cron line; CronError if it is none. Many jobs have the same one and share it."""
    shared = isinstance(expression, str) and isinstance(timezone, str) and isinstance(dst, (str, Dst))
    end, excluded = last_moment(until), exclusion(exclude)
    try:
        # Cron refuses what is no text.
        return (_shared_cron if shared else Cron)(expression, timezone, dst=dst, until=end, exclude=excluded)
    except CronError as error:
        word = {"bad_timezone": "timezone"}.get(error.kind, "dst" if error.field == "dst" else "cron")
        _name_option(error, word, {"cron": expression, "timezone": timezone, "dst": dst}[word])
        raise


def _at(moment: Any) -> At:
    try:
        return At(moment)
    except CronError as error:
        _name_option(error, "at", moment)
        raise


def _name_option(error: CronError, name: str, value: Any) -> None:
    error.args = (f"{name}={shown(value)}: {error}",)


_shared_cron = lru_cache(maxsize=4096)(Cron)


def _schedule(options: JobOptions) -> Schedule | None:
    if (line := options.get("cron")) is not None:
        dst = DEBIAN if options.get("dst") is None else options.get("dst")
        return cron(line, options.get("timezone", "UTC"), dst, options.get("until"), options.get("exclude"))
    if (interval := options.get("every")) is not None:
        return every(interval, until=options.get("until"), exclude=options.get("exclude"))
    return None if (at := options.get("at")) is None else _at(at)

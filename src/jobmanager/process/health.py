"""What stands still although it should move: the judgement over facts of this process and of the ledger. Pure; reads nothing.

Absence leaves no event behind, so every check compares what should have happened by now with what did. `judge_process` looks at
one process on its monotonic clock, `judge_ledger` at what the store says of all processes. Every surface (`healthcheck`, `/healthz`,
`/readyz`, `doctor`, `explain`, Prometheus, the watchdog) formats the symptoms that these two return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from jobmanager.settings import Settings
from jobmanager.stores.values import Instance

SymptomKind = Literal[
    "no_process",
    "overdue",
    "not_brought",
    "late_ticks",
    "process_stalled",
    "not_taken",
    "store_silent",
    "timetable_stuck",
    "not_begun",
    "workers_abandoned",
    "background_stuck",
    "loop_blocked",
]
KINDS: tuple[SymptomKind, ...] = get_args(SymptomKind)
Told = Callable[[datetime], str]

MOST_ABANDONED = 10
"""Abandoned threads for each worker of the setting: with more than that the process is beyond help."""
LONGEST_TURN = 5.0
"""Seconds that a turn of the event loop may take before it is watched."""
LISTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Symptom:
    """One thing that stands still. `failing`: jobs do not run, or will not. `fatal`: only a new process helps.

    `because` completes "a tick is overdue since `since`, because ..." where it is about ticks.
    """

    kind: SymptomKind
    text: str
    fix: str
    since: datetime | None = None
    because: str = ""
    failing: bool = True
    fatal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long each thing may stand still and still be well."""

    grace: timedelta
    sweep: timedelta
    lease: timedelta
    late: timedelta = timedelta(seconds=60)
    """How late ticks may come."""

    @classmethod
    def of(cls, settings: Settings, *, late: timedelta | None = None) -> Limits:
        """Return the limits that follow from the settings."""
        return cls(
            grace=settings.grace,
            sweep=settings.sweep,
            lease=settings.lease,
            late=timedelta(seconds=60) if late is None else late,
        )

    @property
    def patience(self) -> timedelta:
        """The grace and one sweep: by then every instant was brought in time or is accounted for."""
        return self.grace + self.sweep


# ---------------------------------------------------------------- one process


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """What one process knows of itself at one moment. Reading it takes no lock that a waiting thread may hold.

    `waiting` counts runs that were taken and whose handler was not called yet, those that are being opened included.
    `busy_workers` counts handlers that run now, without abandoned ones. `timetable_next` is when the timetable wants to wake,
    `delivering_since` when the oldest delivery of ticks began that has not returned. Instants of the monotonic clock are floats.
    """

    now: datetime
    workers: int
    waiting: int = 0
    busy_workers: int = 0
    handlers_begun: int = 0
    abandoned_workers: int = 0
    timetable_next: datetime | None = None
    delivering_since: float | None = None
    background_turned_at: float | None = None
    last_beat_at: float | None = None
    loop_lag: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standstill:
    """A thing that does not move now: a symptom once its `mark` has stayed the same for `allowed`."""

    mark: object
    allowed: timedelta
    symptom: Symptom


def standstills(vitals: Vitals, limits: Limits) -> Iterator[Standstill]:
    """Yield what does not move at this moment, and how long each may last."""
    patience = limits.patience
    restart = "Restart the process; its watchdog logged the stacks of its threads."
    due, delivering = vitals.timetable_next, vitals.delivering_since
    if delivering is not None or (due is not None and due <= vitals.now):
        since = utc(due) if due is not None and due <= vitals.now else "some time ago"
        stuck = (
            "The delivery of ticks does not return"
            if delivering is not None
            else "The timetable stands still"
        )
        yield Standstill(
            mark=("delivery", delivering) if delivering is not None else due,
            allowed=patience,
            symptom=Symptom(
                kind="timetable_stuck",
                text=f"{stuck}: a tick is overdue since {since} and this process does not bring it.",
                fix=restart,
                fatal=True,
            ),
        )
    if vitals.waiting > 0 and vitals.busy_workers < vitals.workers:
        yield Standstill(
            mark=vitals.handlers_begun,
            allowed=patience,
            symptom=Symptom(
                kind="not_begun",
                text=f"{_counted(vitals.waiting, 'run')} taken and not begun, although workers are free.",
                fix=restart,
                fatal=True,
            ),
        )
    abandoned = vitals.abandoned_workers
    if abandoned >= vitals.workers:
        over = abandoned >= MOST_ABANDONED * vitals.workers
        yield Standstill(
            mark="abandoned",
            allowed=timedelta(0),
            symptom=Symptom(
                kind="workers_abandoned",
                text=f"{_counted(abandoned, 'worker')} abandoned: their handlers ignore their timeout and do not return.",
                fix="Make the handlers look at context.cancelled, or isolation='process'; a restart ends their threads.",
                failing=over,
                fatal=over,
            ),
        )
    if vitals.background_turned_at is not None:
        yield Standstill(
            mark=vitals.background_turned_at,
            allowed=patience,
            symptom=Symptom(
                kind="background_stuck",
                text="The background thread does not turn: time-outs, sweeps and claims wait behind one task.",
                fix=restart,
            ),
        )
    yield Standstill(
        mark=vitals.last_beat_at,
        allowed=limits.lease,
        symptom=Symptom(
            kind="store_silent",
            text=f"The store has accepted no heartbeat of this process for {limits.lease.total_seconds():g} s.",
            fix="See whether the store can be reached from this host; nothing has to be restarted afterwards.",
        ),
    )
    if vitals.loop_lag > LONGEST_TURN:
        yield Standstill(
            mark="loop",
            allowed=patience,
            symptom=Symptom(
                kind="loop_blocked",
                text="The event loop does not turn: a coroutine handler blocks it, and no other coroutine runs.",
                fix="Await in that handler, or make it a plain function, which runs on a worker thread.",
            ),
        )


class ProcessJudgement:
    """Remembers since when each thing stands still. Only one thread at a time may call it.

    A pause of the whole process (a suspended machine, SIGSTOP) stops what is watched as well as the watching: after one, every
    measurement begins anew.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since: dict[SymptomKind, tuple[object, float]] = {}
        self._looked_at: float | None = None
        self.longest_pause = limits.patience.total_seconds() / 2

    def judge(self, vitals: Vitals | None, monotonic: float) -> dict[SymptomKind, tuple[Symptom, float]]:
        """Return each symptom with the seconds it has lasted; `vitals` None: nothing is to be judged now."""
        paused = self._looked_at is not None and monotonic - self._looked_at > self.longest_pause
        self._looked_at = monotonic
        known: dict[SymptomKind, tuple[object, float]] = {} if paused or vitals is None else self._since
        self._since = {}
        found: dict[SymptomKind, tuple[Symptom, float]] = {}
        for still in () if vitals is None else standstills(vitals, self._limits):
            kind = still.symptom.kind
            mark, since = known.get(kind, (still.mark, monotonic))
            self._since[kind] = (still.mark, since if mark == still.mark else monotonic)
            lasted = monotonic - self._since[kind][1]
            if lasted >= still.allowed.total_seconds():
                found[kind] = still.symptom, lasted
        return found


# ---------------------------------------------------------------- the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class OverdueJob:
    """A job whose next due instant no process accounted for, and by how much that is later than it may be."""

    job_id: str
    due_at: datetime
    by: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFacts:
    """What the store says of all processes of a namespace at one moment.

    `not_brought`: the newest instant that the sweep of a living process had to make up because no tick came for it, with its
    job; None if a tick came since. `not_taken`: since when a run has waited that no living process may take.
    """

    now: datetime
    processes: Sequence[Instance] = ()
    overdue: Sequence[OverdueJob] = ()
    not_brought: tuple[str, datetime] | None = None
    not_taken: datetime | None = None

    @property
    def last_tick_at(self) -> datetime | None:
        """The latest tick that came to a living process."""
        return max((item.last_tick_at for item in self.processes if item.last_tick_at), default=None)

    @property
    def lag_seconds(self) -> float | None:
        """How late ticks come to the process that is least late."""
        return min(
            (item.lag_seconds for item in self.processes if item.lag_seconds is not None), default=None
        )


def judge_ledger(
    facts: LedgerFacts, limits: Limits, *, expects_process: bool = True, told: Told | None = None
) -> list[Symptom]:
    """Return what the store shows to stand still. `expects_process` False: a host that starts processes for calls only."""
    told = told or utc
    return [
        *_no_process(facts, expects_process=expects_process),
        *(() if (silent := _is_silent(facts, limits)) else _overdue(facts, limits, told)),
        *_not_brought(facts, told),
        *(() if silent else _late(facts, limits, told)),
        *_not_taken(facts, told),
    ]


def _no_process(facts: LedgerFacts, *, expects_process: bool) -> Iterator[Symptom]:
    if expects_process and not facts.processes:
        yield Symptom(
            kind="no_process",
            text="No process lives: nothing fires.",
            fix="Start one: `jobmanager run`, or jobs.start() in the application.",
        )


def _is_silent(facts: LedgerFacts, limits: Limits) -> bool:
    """Return True while no process has beaten for half a lease: each is dead, or was suspended and says so with its next beat."""
    newest = max((item.seen_at for item in facts.processes), default=None)
    return newest is not None and facts.now - newest > limits.lease / 2


def _overdue(facts: LedgerFacts, limits: Limits, told: Told) -> Iterator[Symptom]:
    # A process that has just come up, or stood still, settles what it found; it is judged after its first sweeps.
    oldest = min((item.started_at for item in facts.processes), default=None)
    settling = oldest is not None and facts.now - oldest < limits.patience
    if not facts.overdue or settling:
        return
    first = min(facts.overdue, key=lambda item: item.due_at)
    names = ", ".join(sorted(item.job_id for item in facts.overdue)[:LISTED])
    what = f"{len(facts.overdue):,} job" + ("" if len(facts.overdue) == 1 else "s")
    yield Symptom(
        kind="overdue",
        text=f"A tick is overdue since {told(first.due_at)} ({what}: {names}): it was neither started nor accounted for.",
        since=first.due_at,
        because="no process sweeps: it was neither started nor accounted for",
        fix="The living processes do not sweep: look for store errors in their logs, then restart them."
        if facts.processes
        else "Start a process: `jobmanager run`, or jobs.start() in the application.",
    )


def _not_brought(facts: LedgerFacts, told: Told) -> Iterator[Symptom]:
    if facts.not_brought is None:
        return
    job_id, instant = facts.not_brought
    yield Symptom(
        kind="not_brought",
        text=f"No tick comes: {job_id!r} was due at {told(instant)}, a process lived, and only its sweep noticed.",
        since=instant,
        because="no tick comes: a process lives, and only its sweep notices what is due",
        fix="Restart the process that keeps the time; on Celery start `jobmanager beat`; on pg_cron ask `jobmanager doctor` "
        "for missing entries; on external look why the calls of the clock outside do not arrive.",
    )


def _late(facts: LedgerFacts, limits: Limits, told: Told) -> Iterator[Symptom]:
    reporting = [item for item in facts.processes if item.lag_seconds is not None]
    late = [item for item in reporting if _is_late(item, limits)]
    if late and len(late) == len(reporting):
        allowed = f"{limits.late.total_seconds():g} s"
        yield Symptom(
            kind="late_ticks",
            text=f"Ticks come more than {allowed} late, or are not begun: nothing has moved since {told(_moved(late))}.",
            since=_moved(late),
            because="the processes that live bring ticks late, or do not begin what they took",
            fix="Look for a blocked thread, a locked store or a starved host in the logs of that process.",
        )
    for item in late if len(late) < len(reporting) else ():
        yield Symptom(
            kind="process_stalled",
            text=f"Process {item.pid} on {item.host} brings ticks late or begins nothing since {told(_moved([item]))}; others do.",
            fix="Look at its log, then restart it.",
            failing=False,
        )


def _is_late(item: Instance, limits: Limits) -> bool:
    """Return True if the last tick came late, and not long ago: one late tick of a daily job says nothing of the next."""
    if (
        item.lag_seconds is None
        or item.last_tick_at is None
        or item.last_tick_at < item.started_at  # it stood still when that tick was due
        or item.lag_seconds <= limits.late.total_seconds()
    ):
        return False
    return item.last_tick_at + timedelta(seconds=item.lag_seconds) >= item.seen_at - limits.patience


def _moved(late: Sequence[Instance]) -> datetime:
    return max(item.last_tick_at for item in late if item.last_tick_at is not None)


def _not_taken(facts: LedgerFacts, told: Told) -> Iterator[Symptom]:
    if facts.not_taken is not None:
        yield Symptom(
            kind="not_taken",
            text=f"A run waits since {told(facts.not_taken)}, and no living process executes.",
            since=facts.not_taken,
            because="no living process executes",
            fix="Start `jobmanager worker` on Celery; elsewhere `jobmanager run`, or jobs.start() in the application.",
        )


# ---------------------------------------------------------------- what every surface formats


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthReport:
    """What was found, of this process and of all of them. `facts` None: the store gave none in time."""

    ready: bool
    symptoms: tuple[Symptom, ...] = ()
    facts: LedgerFacts | None = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """True if nothing that was found keeps jobs from running."""
        return not any(symptom.failing for symptom in self.symptoms)

    def without_names(self) -> HealthReport:
        """Return the same report for those who may not see every job: no symptom and no fact names one."""
        facts = None if self.facts is None else replace(self.facts, overdue=(), not_brought=None)
        return replace(self, symptoms=tuple(map(_nameless, self.symptoms)), facts=facts)


def _nameless(symptom: Symptom) -> Symptom:
    if symptom.kind not in _NAME_JOBS:
        return symptom
    said = f"Not well since {utc(symptom.since)}" if symptom.since else "Not well"
    return replace(symptom, text=f"{said}: {symptom.because}.")


_NAME_JOBS = ("overdue", "not_brought")


def utc(moment: datetime) -> str:
    """Return `2026-11-23 01:00:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun} is" if number == 1 else f"{number:,} {noun}s are"

"""Seven days of a flow that sends mails, in processes that die at any transaction: each mail is sent once, in order, and nothing done is done again.

A mail that the server took when its process died before that was recorded is sent again with the same key, as steps are: of one key the
server delivers the first. What was recorded is never called again. JOBMANAGER_TEST_SEEDS=20 tries more seeds of each backend.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from tests.backends_by_hand import Sent, announced
from tests.postgres_clock import postgres_on

from jobmanager import JobManager, Retry, Run, RunContext, Settings
from jobmanager.stores import store_for
from jobmanager.testing import FakeClock, run_due

SEEDS = int(os.environ.get("JOBMANAGER_TEST_SEEDS", "3"))
START = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY = timedelta(days=1)
USERS = ("ann", "bob", "cid")


class Killed(BaseException):
    """Ends a process between two instructions."""


class Mortal:
    """The sessions of a process with its database: once it has died none of them does anything."""

    def __init__(self, database: Any, chance: random.Random) -> None:
        self.is_dead = False
        self._left = 0
        self._may_die = False
        self._chance = chance
        for name in ("reading", "writing", "committing"):
            if begin := getattr(database, name, None):
                setattr(database, name, partial(self._session, begin))

    def arm(self) -> None:
        """Have it die at one of its next sessions, or not yet."""
        self._may_die = True
        self._left = self._chance.choice((0, self._chance.randint(1, 40)))

    def arm_at_once(self) -> None:
        """Now and then, if it may die at all, have it die at its very next session."""
        if self._may_die and self._chance.random() < 0.5:
            self._left = 1

    def disarm(self) -> None:
        self._may_die = False
        self._left = 0

    @contextmanager
    def _session(self, begin: Callable[[], AbstractContextManager[Any]]) -> Iterator[Any]:
        is_last = self._left == 1
        self._left = max(0, self._left - 1)
        self.is_dead = self.is_dead or (is_last and self._chance.random() < 0.5)
        if self.is_dead:
            raise Killed
        with begin() as connection:
            yield connection
        if is_last:  # what it has committed stays
            self.is_dead = True
            raise Killed


class Process:
    """A process of the application, in which all jobs are declared; its clock is set by the week."""

    def __init__(self, week: Week, role: str) -> None:
        self.role = role
        self._week = week
        self.clock = FakeClock(week.now)
        url = week.settings.database_url
        on_postgres = url.startswith("postgresql")
        store: Any = postgres_on(url, self.clock) if on_postgres else store_for(week.settings, self.clock)
        self.store = store
        self.mortal = Mortal(store.database, week.chance)
        self.backend = week.outside.backend(self.clock)
        self.jobs = JobManager(week.settings, clock=self.clock, store=store, backend=self.backend)
        self.jobs.add_job(
            "thumb", lambda size: f"{size}.png", overlap="allow", retry=Retry(max_attempts=50, base=1)
        )
        retry = Retry(max_attempts=50, base=1)
        self.jobs.add_job("welcome", self.welcome, overlap="allow", retry=retry)
        week.outside.begin(self)
        for user, run_id in week.runs.items():
            week.kept |= {(user, step.name) for step in self.jobs.steps(run_id) if step.status == "succeeded"}

    def welcome(self, context: RunContext, user: str) -> list[str]:
        def mail(name: str) -> None:
            context.step(name, self._send, user, name)
            self._week.kept.add((user, name))

        mail("welcome")
        context.sleep("a day", days=1)
        mail("tips")
        event = context.wait_for("user/confirmed", key=user, timeout="3d")
        mail("thanks" if event else "reminder")
        thumbs = context.gather("thumbs", "thumb", [{"size": size} for size in (64, 256)])
        context.sleep_until("the week", START + 7 * DAY)
        mail("week")
        return thumbs

    def _send(self, user: str, name: str) -> str:
        week = self._week
        if (user, name) in week.kept:
            week.done_again.append((user, name))
        week.calls.append((user, name))
        week.sent.setdefault((user, name), self.clock.now())
        self.mortal.arm_at_once()
        return f"{name} for {user}"

    def come_to(self, moment: datetime) -> None:
        """Set the clock, and tell the others that this process has lived meanwhile."""
        self.clock.step(max(moment - self.clock.now(), timedelta(0)))
        with suppress(Killed):
            self.jobs._assembly.heartbeat.beat()

    def sweep(self) -> None:
        self.jobs._assembly.sweep.sweep()


class Outside:
    """What lives on when a process of the application dies: nothing, on the backends that keep the time themselves or not at all."""

    roles: tuple[str, ...] = ("application",)

    def backend(self, _clock: FakeClock) -> Any:
        """Return the backend of a new process; None for the one of the settings."""
        return None

    def begin(self, process: Process) -> None:
        process.jobs.start()

    def act(self, _now: datetime) -> None:
        """Do what is due outside."""

    def reach(self, _process: Process) -> None:
        """Bring a process what waits for it."""

    def bury(self, process: Process) -> None:
        process.store.close()

    def close(self) -> None:
        pass


class Broker(Outside):
    """Messages between a beat and a worker, each a process; what a dead worker had taken is lost, or brought again."""

    roles = ("beat", "worker")

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._messages: list[str] = []

    def backend(self, clock: FakeClock) -> Any:
        return Sent(clock, self._messages)

    def begin(self, process: Process) -> None:
        if process.role == "worker":
            process.backend.start_worker()
        else:
            process.backend.begin_beat()
            process.clock.drive(process.backend.timetable.top, process.backend.tick)

    def reach(self, process: Process) -> None:
        if process.role == "worker":
            arrived, self._messages[:] = list(self._messages), []
            try:
                process.backend.execute(arrived)
            except Killed:
                self._messages += self._chance.choice(([], arrived))
                raise

    def bury(self, process: Process) -> None:
        process.backend.stop(timedelta(0))
        process.store.close()


class Minutes(Outside):
    """A database that announces what is due whenever the week says that a minute has come, to two processes that listen."""

    roles = ("application", "application")

    def __init__(self, url: str) -> None:
        import psycopg

        self._url = url
        self._database = psycopg.connect(url, autocommit=True)
        self._is_moved = False

    def backend(self, clock: FakeClock) -> Any:
        return announced(self._url, clock)

    def begin(self, process: Process) -> None:
        from tests.company_days import MOVED

        if not self._is_moved:
            process.jobs.sync()  # installs the functions, which are then given the clock
            self._database.execute(MOVED)
            self._is_moved = True
        self._tell(process.clock.now())
        process.jobs.start()

    def act(self, now: datetime) -> None:
        self._tell(now)
        self._database.execute("SELECT jobmanager.fire(NULL)")
        self._database.execute("SELECT jobmanager.sweep()")

    def reach(self, process: Process) -> None:
        process.backend.bring(self._database)

    def _tell(self, now: datetime) -> None:
        self._database.execute("UPDATE public.moved SET now = %s", (now,))

    def close(self) -> None:
        self._database.close()


class Week:
    """The application, one process after the other, and the world outside, which stays."""

    def __init__(self, backend: str, url: str, seed: int) -> None:
        options: dict[str, Any] = {
            "celery": {"celery_broker_url": "memory://"},
            "pg_cron": {"pg_cron_transport": "notify"},
        }.get(backend, {})
        self.settings = Settings(backend=backend, database_url=url, lease_seconds=30, **options)
        self.chance = random.Random(seed)
        self.now = START
        self.deaths: Counter[str] = Counter()
        self.calls: list[tuple[str, str]] = []
        self.sent: dict[tuple[str, str], datetime] = {}
        """What the mail server delivered: of one idempotency key the first."""
        self.kept: set[tuple[str, str]] = set()
        self.done_again: list[tuple[str, str]] = []
        """Mails that were to be sent although they were kept."""
        self.runs: dict[str, str] = {}
        match backend:
            case "celery":
                self.outside: Outside = Broker(self.chance)
            case "pg_cron":
                self.outside = Minutes(url)
            case _:
                self.outside = Outside()
        self._processes = [Process(self, role) for role in self.outside.roles]

    @property
    def jobs(self) -> JobManager:
        return self._processes[-1].jobs

    def pass_by(self) -> None:
        """Let some hours pass, and do what is due; processes may die of it, and then others follow."""
        self._come_to(self.now + timedelta(hours=self.chance.uniform(0, 8)))
        for process in self._processes:
            process.mortal.arm()
        self.due()

    def due(self) -> None:
        """Do what is due at this moment, and bury the processes that die of it."""
        for _ in range(4):
            self.outside.act(self.now)
            for place, process in enumerate(self._processes):
                with suppress(Killed):
                    self.outside.reach(process)
                    run_due(process.jobs)
                self._come_to(max(self.now, process.clock.now()))
                if process.mortal.is_dead:
                    self._replace(place)

    def _replace(self, place: int) -> None:
        """Bury a process, and begin another one once the lease is over."""
        process = self._processes[place]
        self.deaths[process.role] += 1
        self.now += timedelta(minutes=5)
        gone = process.jobs._assembly.heartbeat.id
        self.outside.bury(process)
        process = self._processes[place] = Process(self, process.role)
        self._come_to(self.now)
        process.jobs.store.processes.deregister(
            gone
        )  # its process id, which is ours, would say that it lives
        process.sweep()
        process.mortal.arm()

    def _come_to(self, moment: datetime) -> None:
        self.now = moment
        for process in self._processes:
            process.come_to(moment)

    def at_its_end(self) -> list[Run]:
        """Return the runs once they have ended, half a day later at most."""
        self.disarm()
        for _ in range(24):
            self.due()
            self.disarm()
            for process in self._processes:
                process.sweep()
            self.due()
            self.disarm()
            runs = [self.jobs.run(run_id) for run_id in self.runs.values()]
            if all(run.status.closed for run in runs):
                break
            self._come_to(self.now + timedelta(minutes=30))
        return runs

    def confirm(self, user: str) -> None:
        self.disarm()
        self.jobs.send_event("user/confirmed", key=user, id=user)

    def disarm(self) -> None:
        for process in self._processes:
            process.mortal.disarm()

    def close(self) -> None:
        for process in self._processes:
            self.outside.bury(process)
        self.outside.close()


def live(backend: str, url: str, seed: int) -> None:
    """Let a week pass on this backend; fails if a mail is missing, doubled, early or out of order."""
    week = Week(backend, url, seed)
    try:
        _live(week, seed)
    finally:
        week.close()


def _live(week: Week, seed: int) -> None:
    week.runs = {user: week.jobs.trigger_job("welcome", {"user": user}).id for user in USERS}
    confirms = START + DAY + timedelta(hours=seed % 90)
    while week.now < START + 8 * DAY:
        week.pass_by()
        assert week.done_again == []
        if week.now > confirms:
            week.confirm("ann")
    ended = week.at_its_end()
    assert week.done_again == []
    told = [(run.status, run.reason, run.error and run.error.message, run.output) for run in ended]
    assert told == [("succeeded", None, None, ["64.png", "256.png"])] * len(USERS)
    for user in USERS:
        third = "thanks" if user == "ann" else "reminder"
        mails = [name for whom, name in week.sent if whom == user]
        assert mails == ["welcome", "tips", third, "week"]
        days = [week.sent[user, name] - START for name in mails]
        assert days[1] >= DAY
        assert days[3] >= 7 * DAY
        assert [child.status for child in week.jobs.children(week.runs[user])] == ["succeeded"] * 2
    again = Counter(week.calls)
    repeated = sum(again.values()) - len(again)  # mails that were sent and not yet kept
    assert repeated <= week.deaths.total()
    assert set(week.deaths) == set(week.outside.roles)
    print(
        f"{week.settings.backend} seed {seed}: {len(week.sent)} mails, deaths {dict(week.deaths)}, {repeated} calls repeated"
    )


@pytest.mark.parametrize("backend", ["local", "noop"])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, SEEDS))]
)
def test_each_mail_of_a_week_is_sent_once_and_in_order(seed: int, backend: str, store_url: str) -> None:
    """Fails if a step is kept after the next line has run, if a crash forgets a resting run, or if a finished step is done again."""
    live(backend, store_url, seed)


@pytest.mark.faults
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_mail_is_sent_once_although_beats_and_workers_die(seed: int, store_url: str) -> None:
    """Fails if a run that rests needs the beat that was there when it lay down, or the message that died with a worker."""
    live("celery", store_url, seed)


@pytest.mark.faults
@pytest.mark.servers
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_each_mail_is_sent_once_although_listeners_of_pg_cron_die(seed: int, still_pg_cron_url: str) -> None:
    """Fails if a run that rests, or one that was announced to a dead process, is brought to no other one, or to both."""
    live("pg_cron", still_pg_cron_url, seed)

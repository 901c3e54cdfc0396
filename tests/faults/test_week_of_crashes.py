"""Seven days of a flow that sends mails, in a process that dies at any transaction: each mail is sent once, in order, and nothing done is done again."""

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
        self._chance = chance
        for name in ("reading", "writing"):
            setattr(database, name, partial(self._session, getattr(database, name)))

    def arm(self) -> None:
        """Have it die at one of its next sessions, or not yet."""
        self._left = self._chance.choice((0, self._chance.randint(1, 40)))

    def disarm(self) -> None:
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


class Week:
    """The application, one process after the other, and the world outside, which stays."""

    def __init__(self, backend: str, url: str, seed: int) -> None:
        self._backend = backend
        self._url = url
        self._chance = random.Random(seed)
        self.now = START
        self.deaths = 0
        self.calls: list[tuple[str, str]] = []
        self.sent: dict[tuple[str, str], datetime] = {}
        """What the mail server delivered: of one idempotency key the first."""
        self.kept: set[tuple[str, str]] = set()
        self.runs: dict[str, str] = {}
        self._stores: list[Any] = []
        self._begin()

    def _begin(self) -> None:
        self._clock = FakeClock(self.now)
        settings = Settings(backend=self._backend, database_url=self._url, lease_seconds=30)
        on_postgres = self._url.startswith("postgresql")
        store: Any = postgres_on(self._url, self._clock) if on_postgres else store_for(settings, self._clock)
        self._stores.append(store)
        self.mortal = Mortal(store.database, self._chance)
        self.jobs = JobManager(settings, clock=self._clock, store=store)
        self.jobs.add_job("thumb", lambda size: f"{size}.png", overlap="allow", retry=Retry(max_attempts=50))
        retry = Retry(max_attempts=50, base=1)
        self.jobs.add_job("welcome", self.welcome, overlap="allow", retry=retry)
        self.jobs.start()
        for user, run_id in self.runs.items():
            self.kept |= {(user, step.name) for step in self.jobs.steps(run_id) if step.status == "succeeded"}

    def welcome(self, context: RunContext, user: str) -> list[str]:
        def mail(name: str) -> None:
            context.step(name, self._send, user, name)
            self.kept.add((user, name))

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
        assert (user, name) not in self.kept, f"{name} for {user} was kept, and is sent again"
        self.calls.append((user, name))
        self.sent.setdefault((user, name), self._clock.now())
        return f"{name} for {user}"

    def pass_by(self) -> None:
        """Let some hours pass, and do what is due; the process may die of it, and then another one follows."""
        self._clock.step(timedelta(hours=self._chance.uniform(0, 8)))
        self.mortal.arm()
        self.due()

    def due(self) -> None:
        """Do what is due at this moment, and bury the process if it dies."""
        for _ in range(4):
            with suppress(Killed):
                run_due(self.jobs)
            if self.mortal.is_dead:
                self.deaths += 1
                self.now = self._clock.now() + timedelta(minutes=5)  # after its lease
                gone = self.jobs._assembly.heartbeat.id
                self._stores[-1].close()
                self._begin()
                self.jobs.store.processes.deregister(
                    gone
                )  # its process id, which is ours, would say that it lives
                self.jobs._assembly.sweep.sweep()
                self.mortal.arm()
            self.now = self._clock.now()

    def at_its_end(self) -> list[Run]:
        """Return the runs once they have ended, half a day later at most."""
        for _ in range(24):
            self.jobs._assembly.sweep.sweep()
            self.due()
            runs = [self.jobs.run(run_id) for run_id in self.runs.values()]
            if all(run.status.closed for run in runs):
                break
            self._clock.step(timedelta(minutes=30))
        return runs

    def confirm(self, user: str) -> None:
        self.mortal.disarm()
        self.jobs.send_event("user/confirmed", key=user, id=user)

    def close(self) -> None:
        for store in self._stores:
            store.close()


@pytest.mark.parametrize("backend", ["local", "noop"])
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.faults) for seed in range(1, SEEDS))]
)
def test_each_mail_of_a_week_is_sent_once_and_in_order(seed: int, backend: str, store_url: str) -> None:
    """Fails if a step is kept after the next line has run, if a crash forgets a resting run, or if a finished step is done again."""
    week = Week(backend, store_url, seed)
    week.runs = {user: week.jobs.trigger_job("welcome", {"user": user}).id for user in USERS}
    confirms = START + DAY + timedelta(hours=seed % 90)
    while week.now < START + 8 * DAY:
        week.pass_by()
        if week.now > confirms:
            week.confirm("ann")
    week.mortal.disarm()
    ended = week.at_its_end()
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
    assert sum(again.values()) - len(again) <= week.deaths  # a mail that was sent and not yet kept
    assert week.deaths > 0
    print(f"seed {seed}: {week.deaths} deaths, {sum(again.values()) - len(again)} calls repeated")
    week.close()

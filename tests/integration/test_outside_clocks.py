"""Clocks outside call early, late, twice and from two processes at once: each instant runs once, and nothing stays pending."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from tests.calls import SECRET
from tests.effort import sampled
from tests.postgres_clock import postgres_on

from jobmanager import JobManager, Retry, RunContext, Settings
from jobmanager.run import SUCCEEDED, Run
from jobmanager.stores import store_for
from jobmanager.testing import FakeClock
from jobmanager.web.held import HeldCalls
from jobmanager.web.work import Work

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
DAY = timedelta(days=1)
FIRST = datetime(2026, 3, 11, 2, tzinfo=UTC)
INSTANTS = [FIRST + day * DAY for day in range(10)]
STORES = ["memory", "sqlite", "postgres"]
OFFSETS = [-30, -5, -0.5, 0, 0.5, 61, 1_500, 3_500]

Said = dict[str, Any]


@dataclass
class Site:
    """An application that a clock outside calls: its processes on one store, and what their handlers ran for."""

    clock: FakeClock
    processes: list[JobManager] = field(default_factory=list)
    works: list[Work] = field(default_factory=list)
    ran: list[datetime] = field(default_factory=list)

    @property
    def jobs(self) -> JobManager:
        return self.processes[0]

    def sleep_until(self, moment: datetime) -> None:
        """Let the host sleep until then: no thread of the application runs meanwhile."""
        self.clock.step(moment - self.clock.now())

    def call(self, work: Work | None = None, *, job: str | None = "daily", **more: Any) -> Said:
        """Call as a ticker that comes again when it is told to; return the last response. None means all jobs."""
        while True:
            response = (work or self.works[0]).tick(job, **more)
            said: Said = json.loads(response.body)
            if response.status != 425:
                assert response.status in {200, 202}, said
                return said
            assert said["finding"] == "early"
            self.clock.step(float(dict(response.headers)[b"retry-after"]))

    def runs(self, job: str = "daily") -> list[Run]:
        """Return the runs of the job, oldest first."""
        return self.jobs.runs(job, limit=1_000)[::-1]

    def statuses(self, job: str = "daily") -> list[str]:
        return [str(run.status) for run in self.runs(job)]


MakeSite = Callable[..., Site]


@pytest.fixture
def make_site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes sites with a job that is due at 02:00 each day; `handler` and policies replace what it does."""
    sites: list[Site] = []

    def make(
        store: str = "memory", *, backend: str = "external", wait: bool = True, processes: int = 1, **job: Any
    ) -> Site:
        site = Site(FakeClock(NOON))
        sites.append(site)
        urls = {"memory": "memory://", "sqlite": f"sqlite:///{tmp_path}/jobs.db"}
        url = urls.get(store) or str(request.getfixturevalue("postgres_url"))
        settings = Settings(backend=backend, database_url=url, secret=SECRET, wait=wait, capture_logs=False)
        memory = store_for(settings, site.clock) if store == "memory" else None
        handler = job.pop("handler", lambda context: site.ran.append(context.scheduled_for))
        for _ in range(processes):
            own = postgres_on(url, site.clock) if store == "postgres" else memory
            jobs = JobManager(settings, clock=site.clock, store=own)
            jobs.add_job("daily", handler, **{"cron": "0 2 * * *", **job})
            site.processes.append(jobs)
            site.works.append(Work(jobs, site.clock))
            site.works[-1].tick("daily")  # the job is known from here on
        return site

    yield make
    for site in sites:
        for jobs in site.processes:
            jobs.stop(1)
            jobs.store.close()


def cases(*lists: Sequence[Any]) -> list[Any]:
    """Return every combination of a store with these, the ones with a server marked."""
    marks = {"postgres": [pytest.mark.servers]}
    return [
        pytest.param(*case, id="-".join(map(str, case)), marks=marks.get(str(case[0]), []))
        for case in product(STORES, *lists)
    ]


def ran_once_each(site: Site) -> None:
    """Hold that each instant has one run, which succeeded and was executed once, and that nothing is open."""
    assert [run.scheduled_for for run in site.runs()] == INSTANTS
    assert {run.status for run in site.runs()} == {SUCCEEDED}
    assert sorted(site.ran) == INSTANTS


@pytest.mark.parametrize(
    ("store", "backend", "wait", "offset", "times"),
    sampled(cases(["external", "local"], [True, False], OFFSETS, [1, 2, 3]), every=23),
)
def test_one_call_a_day_runs_each_instant_once_whenever_it_comes(
    make_site: MakeSite, store: str, backend: str, wait: bool, offset: float, times: int
) -> None:
    """Fails if a call half a second early is `not_due`, or if a late one leaves a run that nobody executes."""
    site = make_site(store, backend=backend, wait=wait)
    for instant in INSTANTS:
        site.sleep_until(instant + timedelta(seconds=offset))
        said = [site.call() for _ in range(times)]
        site.clock.advance()  # what a host that stays awake does after the response
        assert {one["run"] for one in said} == {said[0]["run"]} != {None}
        assert {datetime.fromisoformat(one["scheduled_for"]) for one in said} == {instant}
        assert not wait or {str(one["outcomes"]) for one in said} == {"{'succeeded': 1}"}

    ran_once_each(site)


@pytest.mark.parametrize(
    ("store", "backend", "wait", "offset"),
    sampled(cases(["external", "local"], [True, False], [0, 0.5, 61, 1_500, 3_500]), every=13),
)
def test_two_processes_that_are_called_at_once_open_one_run_an_instant(
    make_site: MakeSite, store: str, backend: str, wait: bool, offset: float
) -> None:
    """Fails if both execute, or if the second call finds the first one's run and leaves it."""
    site = make_site(store, backend=backend, wait=wait, processes=2)
    for instant in INSTANTS:
        site.sleep_until(instant + timedelta(seconds=offset))
        said = at_once(site)
        site.clock.advance()
        assert {one["run"] for one in said} == {said[0]["run"]} != {None}

    ran_once_each(site)


def at_once(site: Site) -> list[Said]:
    """Call every process of the site at the same moment, each from a thread of its own; return what they said."""
    ready = threading.Barrier(len(site.works))
    said: list[Said] = []

    def call(work: Work) -> None:
        ready.wait()
        said.append(site.call(work))

    threads = [threading.Thread(target=call, args=[work]) for work in site.works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == len(threads)
    return said


@pytest.mark.parametrize("store", cases()[1:])
def test_two_processes_hold_two_early_calls_in_real_time(
    request: pytest.FixtureRequest, tmp_path: Path, store: str
) -> None:
    """Fails if a call that was held opens a second run, or comes back before its instant."""
    url = f"sqlite:///{tmp_path}/jobs.db" if store == "sqlite" else request.getfixturevalue("postgres_url")
    settings = Settings(backend="external", database_url=url, secret=SECRET, wait=True)
    ran: list[datetime] = []
    site = Site(FakeClock())
    due = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=4)
    for _ in range(2):
        jobs = JobManager(settings)
        jobs.add_job("daily", lambda: ran.append(datetime.now(UTC)), at=due)
        site.processes.append(jobs)
        site.works.append(Work(jobs, jobs._clock))
    try:
        said = at_once(site)
        assert {one["run"] for one in said} == {said[0]["run"]} != {None}
        assert [one["outcomes"] for one in said] == [{"succeeded": 1}] * 2
        assert [moment >= due for moment in ran] == [True]
        assert site.statuses() == ["succeeded"]
    finally:
        for jobs in site.processes:
            jobs.stop(1)
            jobs.store.close()


# ---------------------------------------------------------------- how early, how late


@pytest.mark.parametrize(("wait", "status"), [(True, 200), (False, 202)])
@pytest.mark.parametrize(
    ("early", "expected", "retry_after"),
    [(5.5, 425, "6"), (27.4, 425, "28"), (60, 425, "60"), (60.5, None, None), (3_600, None, None)],
)
def test_a_call_within_a_minute_is_told_when_to_come_again(
    make_site: MakeSite, wait: bool, status: int, early: float, expected: int | None, retry_after: str | None
) -> None:
    """Fails if a ticker that comes again learns from the response that it need not."""
    site = make_site(wait=wait)
    site.sleep_until(FIRST - timedelta(seconds=early))

    response = site.works[0].tick("daily")

    said = json.loads(response.body)
    if expected is None:
        assert (response.status, said["finding"]) == (status, "not_due")
    else:
        assert (response.status, said["finding"], said["due_in"]) == (425, "early", early)
        assert dict(response.headers)[b"retry-after"].decode() == retry_after
        assert said["scheduled_for"] == FIRST.isoformat()
    assert site.runs() == []


def test_at_most_so_many_calls_wait_in_a_process(make_site: MakeSite) -> None:
    """Fails if calls that wait take every thread of the server."""
    site = make_site()
    site.sleep_until(FIRST - timedelta(seconds=3.2))
    full = Work(site.jobs, site.clock, HeldCalls(0))

    response = full.tick("daily")

    assert (response.status, dict(response.headers)[b"retry-after"]) == (503, b"4")
    assert site.runs() == []
    assert site.call()["finding"] == "opened"


@pytest.mark.parametrize("every", [60, 120])
def test_a_repeated_call_of_a_frequent_job_is_no_early_one(make_site: MakeSite, every: int) -> None:
    """Fails if a second call for a minute's instant is told to come again for the next one."""
    site = make_site(cron=None, every=every)
    for number in range(5):
        instant = NOON + timedelta(seconds=every * (number + 1))
        site.sleep_until(instant + timedelta(seconds=0.4))
        assert [site.call()["finding"] for _ in range(2)] == ["opened", "duplicate"]
        site.sleep_until(instant + timedelta(seconds=every / 2 - 1))
        assert site.call()["finding"] == "duplicate"
    assert site.statuses() == ["succeeded"] * 5


def test_a_call_that_is_early_every_hour_keeps_to_its_own_instant(make_site: MakeSite) -> None:
    """Fails if the instant before, which no call came for, takes the call of the one that is due in a moment."""
    site = make_site(cron="0 * * * *")
    for hour in (2, 3, 4):
        instant = NOON + timedelta(hours=hour)
        site.sleep_until(instant - timedelta(seconds=0.5))
        assert site.call()["scheduled_for"] == instant.isoformat()
    assert site.ran == [NOON + timedelta(hours=hour) for hour in (2, 3, 4)]
    assert site.statuses() == ["missed", "succeeded", "succeeded", "succeeded"]


@pytest.mark.parametrize(
    ("catch_up", "late", "finding", "statuses"),
    [
        ("latest", 61, "opened", ["succeeded"]),
        ("latest", 3_599, "opened", ["succeeded"]),
        ("latest", 3_601, "late", ["missed"]),
        ("none", 59, "opened", ["succeeded"]),
        ("none", 61, "late", ["missed"]),
    ],
)
@pytest.mark.parametrize("wait", [True, False])
def test_a_late_call_runs_what_catch_up_allows(
    make_site: MakeSite, catch_up: str, late: float, finding: str, statuses: list[str], wait: bool
) -> None:
    """Fails if the response does not say whether its instant still runs."""
    site = make_site(catch_up=catch_up, wait=wait)
    site.sleep_until(FIRST + timedelta(seconds=late))

    said = site.call()
    site.clock.advance()

    assert (said["finding"], said["run"] is not None) == (finding, finding == "opened")
    assert site.statuses() == statuses


@pytest.mark.parametrize("wait", [True, False])
def test_a_late_call_runs_all_that_it_opened(make_site: MakeSite, wait: bool) -> None:
    """Fails if of several instants that are caught up only one is executed."""
    site = make_site(cron="*/10 * * * *", catch_up="all", wait=wait)
    site.sleep_until(NOON + timedelta(minutes=35))

    said = site.call()
    site.clock.advance()

    assert site.ran == [NOON + timedelta(minutes=minute) for minute in (10, 20, 30)]
    assert said["scheduled_for"] == (NOON + timedelta(minutes=30)).isoformat()
    assert not wait or said["outcomes"] == {"succeeded": 3}


# ---------------------------------------------------------------- the instant that a caller names


@pytest.mark.parametrize(
    ("now", "named", "finding"),
    [
        (timedelta(0), FIRST, "opened"),
        (timedelta(seconds=-3), FIRST, "opened"),  # held
        (timedelta(seconds=-40), FIRST, "opened"),  # told to come again
        (timedelta(seconds=-61), FIRST, "not_due"),
        (timedelta(minutes=20), FIRST, "opened"),
        (timedelta(minutes=61), FIRST, "late"),
        (timedelta(0), FIRST + timedelta(seconds=1), "not_due"),
        (timedelta(0), FIRST - DAY, "not_due"),  # from before the job was known
        (timedelta(0), FIRST + DAY, "not_due"),
    ],
)
def test_a_caller_may_name_the_instant_that_it_means(
    make_site: MakeSite, now: timedelta, named: datetime, finding: str
) -> None:
    """Fails if another instant than the named one is opened."""
    site = make_site()
    site.sleep_until(FIRST + now)

    said = site.call(scheduled_for=named)

    assert (said["finding"], said["scheduled_for"]) == (finding, named.isoformat())
    assert site.ran == ([named] if finding == "opened" else [])
    if finding == "opened":
        assert site.call(scheduled_for=named)["finding"] == "duplicate"
    assert site.ran == ([named] if finding == "opened" else [])


def test_naming_the_instant_of_yesterday_opens_none_of_today(make_site: MakeSite) -> None:
    """Fails if a call that was delayed by a day takes the run of the instant that is due now."""
    site = make_site(catch_up_window=2 * DAY)
    site.sleep_until(FIRST + DAY)

    assert site.call(scheduled_for=FIRST)["scheduled_for"] == FIRST.isoformat()
    assert site.ran == [FIRST]
    assert site.call()["scheduled_for"] == (FIRST + DAY).isoformat()
    assert site.ran == [FIRST, FIRST + DAY]


# ---------------------------------------------------------------- moves, and health


@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize("store", cases())
def test_moved_between_backends_every_instant_runs_once(make_site: MakeSite, store: str, wait: bool) -> None:
    """Fails if a change of the variable loses an instant, opens one twice or leaves one pending, in either direction."""
    site = make_site(store, wait=wait, cron="0 * * * *")
    url = site.jobs.settings.database_url
    hour = timedelta(hours=1)
    for number, backend in enumerate(["external", "local", "external", "local"] * 2):
        settings = Settings(backend=backend, database_url=url, secret=SECRET, wait=wait, capture_logs=False)
        jobs = JobManager(settings, clock=site.clock, store=site.jobs.store)
        jobs.add_job("daily", lambda context: site.ran.append(context.scheduled_for), cron="0 * * * *")
        instant = NOON + (number + 1) * hour
        with jobs:
            assert jobs.store.processes.keeper("default") == backend
            if backend == "local":
                site.clock.advance_to(instant + timedelta(seconds=1))
            else:
                site.sleep_until(instant + timedelta(seconds=1))
                site.call(Work(jobs, site.clock))
        site.jobs.stop(1)  # those of the generation before
    instants = [NOON + (number + 1) * hour for number in range(8)]
    assert site.ran == instants
    assert [run.scheduled_for for run in site.runs()] == instants
    assert set(site.statuses()) == {"succeeded"}


def test_calls_that_come_late_are_calls_and_calls_that_do_not_come_are_missed_by_health(
    make_site: MakeSite,
) -> None:
    """Fails if a clock outside that stopped is well, or if one that is late each day counts as one that stopped."""
    site = make_site(wait=False)

    def symptoms() -> set[str]:
        return {symptom.kind for symptom in site.jobs.health().symptoms}

    for day in range(2):
        site.clock.advance_to(
            FIRST + day * DAY + timedelta(minutes=2)
        )  # the sweep of a living process made it up
        assert symptoms() == {"not_brought"}
        site.clock.advance_to(FIRST + day * DAY + timedelta(minutes=25))
        assert site.call()["finding"] == "duplicate"
        site.clock.advance(seconds=30)
        assert symptoms() == set()


# ---------------------------------------------------------------- what else a call works off


def fails_at_first(attempts: list[int]) -> Callable[[Any], None]:
    def handler(context: Any) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise RuntimeError("not yet")

    return handler


@pytest.mark.parametrize("wait", [True, False])
def test_an_attempt_that_follows_soon_is_made_in_the_same_call(make_site: MakeSite, wait: bool) -> None:
    """Fails if a retry waits for the call of the next day."""
    attempts: list[int] = []
    site = make_site(
        wait=wait, handler=fails_at_first(attempts), retry=Retry(max_attempts=2, delays=[3], jitter=0)
    )
    site.sleep_until(FIRST)

    said = site.call()
    if not wait:
        site.clock.advance(seconds=3)

    assert attempts == [1, 2]
    assert site.statuses() == ["succeeded"]
    assert not wait or said["outcomes"] == {"succeeded": 1}


def test_an_attempt_that_follows_later_is_made_by_the_next_call_before_its_own_instant(
    make_site: MakeSite,
) -> None:
    """Fails if a retry that nobody executes has the next instant skipped, and every one after it."""
    attempts: list[int] = []
    site = make_site(handler=fails_at_first(attempts), retry=Retry(max_attempts=2, delays=[600], jitter=0))
    for day, expected in enumerate(([1], [1, 2, 1], [1, 2, 1, 2, 1])):
        site.sleep_until(FIRST + day * DAY)
        site.call()
        assert attempts == expected

    assert site.statuses() == ["succeeded", "succeeded", "pending"]


def test_a_call_works_off_what_is_due_of_other_jobs(make_site: MakeSite) -> None:
    """Fails if starts with a delay, and instants that no call came for, wait for ever on a host that sleeps."""
    site = make_site()
    ran: list[str] = []
    site.jobs.add_job("mail", lambda: ran.append("mail"))
    site.jobs.add_job("report", lambda: ran.append("report"), cron="30 1 * * *")
    site.jobs.sync()
    site.jobs.trigger_job("mail", delay=3_600)
    site.sleep_until(FIRST)

    said = site.call()

    assert said["outcomes"] == {"succeeded": 1}
    assert sorted(ran) == ["mail", "report"]
    assert site.statuses("report") == ["succeeded"]


def test_a_change_by_another_process_holds_from_the_next_call_on(make_site: MakeSite) -> None:
    """Fails if a process that sleeps between calls opens instants of a schedule that no longer holds."""
    site = make_site("sqlite", processes=2)
    site.processes[1].override_job("daily", cron="0 3 * * *")
    site.sleep_until(FIRST)
    assert site.call()["finding"] == "not_due"
    site.sleep_until(FIRST + timedelta(hours=1))

    assert site.call()["finding"] == "opened"
    assert site.ran == [FIRST + timedelta(hours=1)]


def test_a_paused_job_is_neither_held_nor_opened(make_site: MakeSite) -> None:
    """Fails if a pause is not seen by a process that sleeps between calls."""
    site = make_site()
    site.jobs.stop_job("daily")
    site.sleep_until(FIRST - timedelta(seconds=1))
    assert site.call()["finding"] == "not_due"
    site.sleep_until(FIRST)

    assert site.call()["finding"] == "paused"
    assert site.ran == []


# ---------------------------------------------------------------- one call for all jobs


def with_more_jobs(site: Site) -> list[str]:
    """Declare further jobs of 02:00, and some that are not due then; return all that are."""
    for jobs in site.processes:
        for name in ("second", "third"):
            jobs.add_job(name, lambda: site.ran.append(FIRST), cron="0 2 * * *", timezone="UTC")
        jobs.add_job("monthly", lambda: 1 / 0, cron="0 2 1 * *")
        jobs.add_job("manual", lambda: 1 / 0)
        jobs.add_job("off", lambda: 1 / 0, cron="0 2 * * *", enabled_when=False)
        jobs.sync()
    return ["daily", "second", "third"]


@pytest.mark.parametrize(
    ("store", "wait", "offset", "processes"),
    sampled(cases([True, False], [-5, -0.5, 0, 0.5, 61, 1_500, 3_500], [1, 2]), every=11),
)
def test_one_call_runs_what_is_due_of_every_job_once(
    make_site: MakeSite, store: str, wait: bool, offset: float, processes: int
) -> None:
    """Fails if a job is left out, runs twice, or loses its instant to a call that comes early, late, twice or in two processes."""
    site = make_site(store, wait=wait, processes=processes)
    names = with_more_jobs(site)
    for instant in INSTANTS[:3]:
        site.sleep_until(instant + timedelta(seconds=offset))
        first = site.call(job=None)
        again = [site.call(work, job=None) for work in site.works]
        site.clock.advance()
        assert [one["job"] for one in first["jobs"]] == names
        assert {one["finding"] for one in first["jobs"]} == {"opened"}
        assert {datetime.fromisoformat(one["scheduled_for"]) for one in first["jobs"]} == {instant}
        assert not wait or first["outcomes"] == {"succeeded": 3}
        runs = {one["job"]: one["run"] for one in first["jobs"]}
        for said in again:
            assert {one["job"]: one["run"] for one in said["jobs"]}.items() <= runs.items()
            assert {one["finding"] for one in said["jobs"]} <= {"duplicate"}

    for name in names:
        assert [run.scheduled_for for run in site.runs(name)] == INSTANTS[:3]
        assert site.statuses(name) == ["succeeded"] * 3
    assert [site.runs(name) for name in ("monthly", "manual", "off")] == [[], [], []]
    assert len(site.ran) == 9


def test_what_is_due_of_all_jobs_is_opened_in_one_transaction(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if each job is opened by a commit of its own."""
    site = make_site("sqlite", wait=False)
    names = with_more_jobs(site)
    opened: list[list[str]] = []
    recorder = site.jobs._assembly.recorder
    real = recorder.open

    def open_(runs: Sequence[Run], *rest: Any, **more: Any) -> None:
        opened.append([run.job_id for run in runs])
        real(runs, *rest, **more)

    monkeypatch.setattr(recorder, "open", open_)
    site.sleep_until(FIRST)
    site.call(job=None)

    assert opened == [names]


@pytest.mark.parametrize(
    ("early", "status"), [(5.5, 425), (29.9, 425), (30.1, 202), (59.9, 202), (3_600, 202)]
)
def test_a_call_for_all_jobs_is_early_for_no_more_than_half_a_minute(
    make_site: MakeSite, early: float, status: int
) -> None:
    """Fails if a ticker of every minute is told to come again in the minute before each instant."""
    site = make_site(wait=False)
    site.sleep_until(FIRST - timedelta(seconds=early))

    response = site.works[0].tick(None)

    assert (response.status, site.runs()) == (status, [])
    assert json.loads(response.body) == (
        {"finding": "early", "due_in": early} if status == 425 else {"jobs": []}
    )


def test_jobs_of_every_second_hold_no_call_for_long(make_site: MakeSite) -> None:
    """Fails if a call waits for one instant after the other."""
    site = make_site(backend="local", cron=None, every=1)
    began = site.clock.now()

    site.call(job=None)

    assert site.clock.now() - began <= timedelta(seconds=1.5)


def test_a_call_for_all_jobs_works_off_what_is_pending_before_its_instants(make_site: MakeSite) -> None:
    """Fails if a run that is pending has the tick of its job skipped, on a host that sleeps between calls."""
    failed = ValueError("the first attempt")

    def handler(context: RunContext) -> None:
        if context.attempt == 1 and context.scheduled_for == FIRST:
            raise failed

    site = make_site(handler=handler, retry=Retry(max_attempts=2, delays=[3_600]))
    for instant in INSTANTS[:2]:
        site.sleep_until(instant)
        said = site.call(job=None)
    assert said["outcomes"] == {"succeeded": 1}
    assert site.statuses() == ["succeeded", "succeeded"]


def test_the_time_that_a_call_takes_is_bounded_by_a_setting() -> None:
    """Fails if JOBMANAGER_WAIT_SECONDS is not what ends the working off of other jobs."""
    clock = FakeClock(NOON)
    settings = Settings(
        backend="external", database_url="memory://", secret=SECRET, wait=True, wait_seconds=10
    )
    jobs = JobManager(settings, clock=clock)
    jobs.add_job("daily", lambda: None, cron="0 2 * * *")
    # Time passes, and no thread of the application runs meanwhile.
    jobs.add_job("long", lambda: clock._pass(timedelta(seconds=4)), overlap="allow")
    work = Work(jobs, clock)
    work.tick(None)
    for _ in range(5):
        jobs.trigger_job("long", delay=3_600)
    clock.step(timedelta(hours=2))
    work.tick(None)

    assert sorted(str(run.status) for run in jobs.runs("long")) == ["pending"] * 2 + ["succeeded"] * 3
    jobs.stop()

"""`jobs.events`: every change that lasts comes, in order, to each listener; it resumes, it ends, and a slow one is given up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import JobManager, Settings
from jobmanager.access.acting import acting
from jobmanager.access.principal import Principal
from jobmanager.clock import SystemClock
from jobmanager.errors import PayloadError, RunNotFoundError, SlowListenerError
from jobmanager.manager import listening
from jobmanager.manager.feed import Feed
from jobmanager.manager.listening import Change
from jobmanager.run import new_id
from jobmanager.stores.changes import Signals
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url="memory://"), clock=clock)
    manager.add_job("work", lambda: None, overlap="allow")
    manager.add_job("other", lambda: None, overlap="allow")
    manager.start()
    yield manager
    manager.stop()


def told(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(change.kind, change.id, change.status) for change in changes]


def test_runs_and_jobs_that_change_are_told_and_nothing_else(jobs: JobManager, clock: FakeClock) -> None:
    jobs.trigger_job("work")
    events = jobs.events()
    assert list(events) == []

    later = jobs.trigger_job("work", delay=60)
    jobs.stop_job("other")
    assert told(list(events)) == [("run", later.id, "pending"), ("job", "other", "paused")]
    assert list(events) == []

    clock.advance(minutes=2)
    assert told(list(events)) == [("run", later.id, "succeeded")]


def test_a_run_that_is_old_and_open_is_told_when_it_ends(jobs: JobManager, clock: FakeClock) -> None:
    waits = jobs.trigger_job("work", delay=timedelta(hours=5))
    clock.advance(hours=4)
    events = jobs.events()

    jobs.cancel(waits.id)

    assert told(list(events)) == [("run", waits.id, "cancelled")]


def test_of_one_run_the_present_state_comes_first(jobs: JobManager, clock: FakeClock) -> None:
    run, other = jobs.trigger_job("work", delay=60), jobs.trigger_job("work", delay=60)
    events = jobs.events(run=run.id[-8:])

    assert told(list(events)) == [("run", run.id, "pending")]
    clock.advance(minutes=2)
    assert told(list(events)) == [("run", run.id, "succeeded")]
    assert jobs.run(other.id).status == "succeeded"


def test_of_one_job_only_its_runs_and_itself(jobs: JobManager) -> None:
    events = jobs.events(job="other")

    jobs.trigger_job("work")
    mine = jobs.trigger_job("other")
    jobs.stop_job("work")
    jobs.stop_job("other")

    assert told(list(events)) == [("run", mine.id, "succeeded"), ("job", "other", "paused")]


def test_a_cursor_leaves_out_nothing_that_came_after_it(jobs: JobManager, clock: FakeClock) -> None:
    waits = jobs.trigger_job("work", delay=timedelta(minutes=30))
    with jobs.events(run=waits.id) as events:
        cursor = next(events).cursor
    clock.advance(minutes=1)
    run = jobs.trigger_job("work")
    clock.advance(hours=1)
    jobs.stop_job("other")

    resumed = list(jobs.events(after=cursor))

    assert {("run", waits.id, "succeeded"), ("run", run.id, "succeeded"), ("job", "other", "paused")} <= set(
        told(resumed)
    )


def test_nonsense_is_refused(jobs: JobManager) -> None:
    for cursor in ("", "x", "12", "zz-1", "1-", "f" * 40 + "-1"):
        with pytest.raises(PayloadError, match="is no cursor"):
            jobs.events(after=cursor)
    with pytest.raises(RunNotFoundError):
        jobs.events(run="nothing")


def test_a_slow_listener_is_given_up_with_the_cursor_of_what_it_took_last(
    jobs: JobManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "MOST_WAITING", 20)
    slow, quick = jobs.events(), jobs.events()
    jobs.trigger_job("work")
    last = next(slow)
    for _ in range(22):
        jobs.trigger_job("work")
        list(quick)

    with pytest.raises(SlowListenerError, match="given up") as caught:
        next(slow)
    assert caught.value.cursor == last.cursor
    assert slow not in jobs._parts.assembly.feed._listeners
    jobs.trigger_job("work")
    assert len(list(quick)) == 1


def test_a_principal_hears_of_what_it_sees(clock: FakeClock) -> None:
    jobs = JobManager(Settings(database_url="memory://"), clock=clock)
    for job_id, visibility in (("team", "team"), ("project", "project"), ("system", "system")):
        jobs.add_job(job_id, lambda: None, overlap="allow", visibility=visibility)
    jobs.sync()
    with acting(Principal("ana", ["operator"], scopes=["blue"])):
        limited, one_job = jobs.events(), jobs.events(job="system")
    with acting(Principal("root", ["admin"])):
        whole = jobs.events()
    start = {
        "team": jobs.trigger_job("team").id,
        "blue": jobs.trigger_job("project", scope="blue").id,
        "red": jobs.trigger_job("project", scope="red").id,
        "system": jobs.trigger_job("system").id,
    }
    jobs.stop_job("system")

    assert {change.id for change in limited} == {start["team"], start["blue"]}
    assert {change.id for change in whole} == {*start.values(), "system"}
    assert list(one_job) == []
    with acting(Principal("ana", ["operator"], scopes=["blue"])):
        with pytest.raises(RunNotFoundError):
            jobs.events(run=start["red"])
        resumed = jobs.events(after=next(jobs.events(run=start["team"])).cursor)
        assert {change.id for change in resumed} == {start["team"], start["blue"]}


# ---------------------------------------------------------------- with threads


@pytest.fixture
def threaded(tmp_path: Path) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    manager.add_job("work", lambda: None, overlap="allow")
    manager.start()
    yield manager
    manager.stop()


def test_listeners_share_one_thread_and_stop_ends_them(threaded: JobManager) -> None:
    before = {*threading.enumerate()}  # one of another manager ends some time after its last listener
    heard: list[list[str]] = [[], []]

    def hear(place: int, events: Iterator[Change]) -> None:
        heard[place] += [change.id for change in events]

    threads = [threading.Thread(target=hear, args=(place, threaded.events())) for place in (0, 1)]
    for thread in threads:
        thread.start()
    run = threaded.trigger_job("work")
    threaded.wait(run.id)
    begun = {*threading.enumerate()} - before
    assert sum(thread.name == "jobmanager-feed" for thread in begun) == 1
    with threaded.events(run=run.id) as mine:
        change = mine.take(10)
        assert change is not None
        assert change.status == "succeeded"
        assert mine.take(0) is None
        assert not mine.ended

    threaded.stop()

    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert mine.ended


def test_a_coroutine_hears_too_and_holds_no_thread_meanwhile(threaded: JobManager) -> None:
    async def hear() -> list[str]:
        events = await threaded.aio.events(job="work")
        before = threading.active_count()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.05)
        assert threading.active_count() <= before
        run = await threaded.aio.trigger_job("work")
        heard = [await asyncio.wait_for(waiting, 10)]
        while heard[-1].status != "succeeded":
            heard.append(await asyncio.wait_for(anext(events), 10))
        assert {change.id for change in heard} == {run.id}
        await threaded.aio.stop()
        return [change.id async for change in events]

    assert asyncio.run(hear()) == []


def test_a_listener_that_was_cancelled_loses_nothing(threaded: JobManager) -> None:
    async def hear() -> None:
        events = await threaded.aio.events(job="work")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)
        run = await threaded.aio.trigger_job("work")
        assert (await asyncio.wait_for(anext(events), 10)).id == run.id

    asyncio.run(hear())


class NeverSilent(Signals):
    """Announces the end of some run all the time."""

    def wait(self, seconds: float) -> list[str]:
        time.sleep(0.001)
        return [new_id(START)]

    def close(self) -> None:
        """Do nothing."""


def test_a_start_is_heard_while_ends_are_announced_without_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if changes are looked for only when nothing is announced."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"))
    jobs.add_job("work", lambda: None)
    jobs.sync()
    changes = jobs.store.changes
    monkeypatch.setattr(changes, "announces", True)
    monkeypatch.setattr(changes, "signals", NeverSilent)
    feed = Feed(jobs.store, SystemClock(), namespace="default", wake=lambda _run_ids: None, by_hand=False)
    with feed.listen(after=None, run=None, job="work") as events:
        while not feed.hears:  # its first look is over
            time.sleep(0.001)
        run = jobs.trigger_job("work", delay=3600)
        change = events.take(10)
    feed.stop(5)
    jobs.store.close()

    assert change is not None
    assert (change.id, change.status) == (run.id, "pending")

"""Every backend keeps the same promises; local also as a guest in the application's own scheduler."""

from __future__ import annotations

import asyncio
import pickle
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.job import Job as APSchedulerJob
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.base import BaseScheduler

from jobmanager import Every
from jobmanager.backends.base import Backend
from jobmanager.backends.external import ExternalBackend
from jobmanager.backends.local import LocalBackend
from jobmanager.backends.noop import NoopBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.testing import BackendContract, FakeClock

Host = Callable[[], AbstractContextManager[BaseScheduler]]


@contextmanager
def background_scheduler() -> Iterator[BaseScheduler]:
    """A scheduler with a thread of its own, running."""
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start()
    yield scheduler
    scheduler.shutdown()


@contextmanager
def asyncio_scheduler() -> Iterator[BaseScheduler]:
    """A scheduler on an event loop that runs in a thread."""
    scheduler = AsyncIOScheduler(timezone=UTC)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> None:
        scheduler.start()

    async def stop() -> None:
        scheduler.shutdown()
        await asyncio.sleep(0)  # it ends with the next turn of the loop

    asyncio.run_coroutine_threadsafe(start(), loop).result()
    yield scheduler
    asyncio.run_coroutine_threadsafe(stop(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


class TestLocalBackend(BackendContract):
    def make_backend(self, clock: Clock) -> Backend:
        return LocalBackend(clock=clock)


class TestNoopBackend(BackendContract):
    def make_backend(self, clock: Clock) -> Backend:
        return NoopBackend()


class TestExternalBackend(BackendContract):
    """A ticker inside the process calls once at each instant for all jobs."""

    def make_backend(self, clock: Clock) -> Backend:
        return ExternalBackend(clock=clock)

    def make_due(self, backend: Backend, scheduled: ScheduledJob, instant: datetime) -> None:
        assert isinstance(backend, ExternalBackend)
        assert isinstance(self.clock, FakeClock)
        called: list[datetime] = []

        def due() -> datetime | None:
            return None if called else instant

        def call() -> None:
            called.append(instant)
            backend.ring()

        self.clock.drive(due, call)


@pytest.mark.slow
class TestLocalBackendOnTheSystemClock(BackendContract):
    def make_clock(self) -> Clock:
        return SystemClock()

    def make_backend(self, clock: Clock) -> Backend:
        return LocalBackend(clock=clock)


@pytest.mark.slow
@pytest.mark.parametrize("host", [background_scheduler, asyncio_scheduler])
class TestLocalBackendAsAGuest(BackendContract):
    scheduler: BaseScheduler

    @pytest.fixture(autouse=True)
    def _host(self, host: Host) -> Iterator[None]:
        with host() as self.scheduler:
            yield

    def make_clock(self) -> Clock:
        return SystemClock()

    def make_backend(self, clock: Clock) -> Backend:
        return LocalBackend(scheduler=self.scheduler, clock=clock)


# ---------------------------------------------------------------- as a guest, in short


@pytest.fixture(params=[background_scheduler, asyncio_scheduler])
def host(request: pytest.FixtureRequest) -> Iterator[BaseScheduler]:
    with request.param() as scheduler:
        yield scheduler


def every_second() -> ScheduledJob:
    schedule = Every(1)
    return ScheduledJob(
        Job(id="job", name="Job", handler="job", schedule=schedule),
        1,
        schedule.next_after(SystemClock().now()),
    )


def test_a_guest_rings_beside_the_application_s_jobs_and_leaves_them_alone(host: BaseScheduler) -> None:
    rung, theirs = threading.Semaphore(0), threading.Semaphore(0)
    ticks: list[Tick] = []
    host.add_job(theirs.release, "interval", seconds=0.2, id="theirs")
    backend = LocalBackend(scheduler=host)
    backend.sync([every_second()])

    backend.start(lambda found: (ticks.extend(found), rung.release()))

    assert {job.id for job in host.get_jobs()} == {"theirs", "jobmanager"}
    assert rung.acquire(timeout=5)
    assert rung.acquire(timeout=5)
    assert theirs.acquire(timeout=5)
    assert ticks[1].scheduled_for - ticks[0].scheduled_for == timedelta(seconds=1)
    backend.stop(timedelta(seconds=1))
    while theirs.acquire(blocking=False):
        pass
    assert [job.id for job in host.get_jobs()] == ["theirs"]
    assert theirs.acquire(timeout=5)
    assert host.running


class PicklingStore(MemoryJobStore):
    """As the persistent stores of APScheduler: what cannot be pickled cannot be kept."""

    def add_job(self, job: APSchedulerJob) -> None:
        pickle.dumps(job.__getstate__())
        super().add_job(job)


def test_two_managers_are_guests_of_one_scheduler_whatever_it_keeps_its_jobs_in() -> None:
    rung = [threading.Event(), threading.Event()]
    host = BackgroundScheduler(timezone=UTC, jobstores={"default": PicklingStore()})
    backends = [LocalBackend(scheduler=host), LocalBackend(scheduler=host)]
    for backend, bell in zip(backends, rung, strict=True):
        backend.sync([every_second()])
        backend.start(lambda _ticks, bell=bell: bell.set())
    assert "start()" in backends[0].health().detail

    host.start()

    assert {job.id for job in host.get_jobs()} == {"jobmanager", "jobmanager-2"}
    assert all(bell.wait(5) for bell in rung)
    backends[0].stop(timedelta(seconds=1))
    rung[1].clear()
    backends[1].sync([])
    backends[1].sync([every_second()])
    assert rung[1].wait(5)
    assert [job.id for job in host.get_jobs()] == ["jobmanager-2"]
    host.shutdown()
    backends[1].stop(timedelta(seconds=1))


def test_stop_waits_for_a_delivery_that_is_under_way(host: BaseScheduler) -> None:
    begun, let_go = threading.Event(), threading.Event()
    log: list[str] = []

    def deliver(_ticks: Sequence[Tick]) -> None:
        begun.set()
        let_go.wait(5)
        log.append("delivered")

    backend = LocalBackend(scheduler=host)
    backend.sync([every_second()])
    backend.start(deliver)
    assert begun.wait(5)
    stopping = threading.Thread(target=lambda: (backend.stop(timedelta(seconds=5)), log.append("stopped")))
    stopping.start()
    time.sleep(0.05)  # long enough for a stop() that does not wait to be noticed
    let_go.set()
    stopping.join(5)

    assert log == ["delivered", "stopped"]

"""Every policy for changes of the clocks, in every kind of zone, on every backend: the instants of the definition, no more and no less."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from tests.contract.test_celery_backend import ByHand
from tests.unit.schedule.dst_by_definition import POLICIES, TRANSITIONS, walk

from jobmanager import Cron, Dst, JobManager, Settings
from jobmanager.backends.external import ExternalBackend
from jobmanager.backends.local import LocalBackend
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.testing import FakeClock

SECOND = timedelta(seconds=1)


def jobs_of(line: str, zone: str) -> list[Job]:
    """Return a job for each policy."""
    return [
        Job(id=f"{gap}-{fold}", name="work", handler="work", schedule=Cron(line, zone, dst=Dst(gap, fold)))
        for gap, fold in POLICIES
    ]


def by_local(jobs: list[ScheduledJob], start: datetime, end: datetime) -> list[Tick]:
    clock = FakeClock(start)
    backend = LocalBackend(clock=clock)
    delivered: list[Tick] = []
    backend.sync(jobs)
    backend.start(delivered.extend)
    clock.advance_to(end)
    backend.stop(SECOND)
    return delivered


def by_celery(jobs: list[ScheduledJob], start: datetime, end: datetime) -> list[Tick]:
    backend = ByHand(FakeClock(start))
    delivered: list[Tick] = []
    backend.sync(jobs)
    backend.start(delivered.extend)
    backend.tick_until(end)
    return delivered


def by_external(jobs: list[ScheduledJob], start: datetime, end: datetime) -> list[Tick]:
    """Return what is due when a ticker comes by every five minutes."""
    clock = FakeClock(start)
    backend = ExternalBackend(clock=clock)
    backend.sync(jobs)
    delivered: list[Tick] = []
    backend.start(delivered.extend)
    clock.step(SECOND)
    while clock.now() <= end:
        backend.ring()
        clock.step(timedelta(minutes=5))
    return delivered


def by_noop(jobs: list[ScheduledJob], start: datetime, end: datetime) -> list[Tick]:
    """Return what the manager would let fire: nothing fires here by itself."""
    manager = JobManager(
        Settings(backend="noop", namespace="noop", database_url="memory://"), clock=FakeClock(start)
    )
    for item in jobs:
        assert isinstance(item.schedule, Cron)
        own = item.schedule
        manager.add_job(
            item.job.id, lambda: None, cron=own.expression, timezone=own.timezone, dst=own.dst.text
        )
    return [Tick(planned.job_id, planned.scheduled_for, 1) for planned in manager.simulate(start, end)]


@pytest.mark.parametrize("bring", [by_noop, by_external, by_local, by_celery])
@pytest.mark.parametrize(("zone", "day"), TRANSITIONS)
def test_a_backend_brings_the_instants_of_each_policy(
    bring: Callable[[list[ScheduledJob], datetime, datetime], list[Tick]], zone: str, day: str
) -> None:
    near = walk(zone, day)
    jobs = jobs_of(near.line, zone)
    scheduled = [ScheduledJob(job, 1, job.schedule and job.schedule.next_after(near.start)) for job in jobs]
    brought = defaultdict(list)
    for tick in bring(scheduled, near.start, near.end):
        brought[tick.job_id].append(tick.scheduled_for)

    assert brought == {f"{gap}-{fold}": near.instants(gap, fold) for gap, fold in POLICIES}

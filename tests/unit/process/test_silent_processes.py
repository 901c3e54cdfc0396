"""When a process that beats no more counts as dead: after a whole lease, watched by one that beat all the while."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from jobmanager import JobManager, Settings
from jobmanager.errors import StoreUnavailableError
from jobmanager.run import FAILED, RUNNING, Run, new_id
from jobmanager.stores.values import Instance
from jobmanager.testing import FakeClock

LEASE = 30
BEAT = LEASE / 4


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url="memory://", lease_seconds=LEASE), clock=clock)
    manager.add_job("work", lambda: None)
    yield manager.start()
    manager.stop()


@pytest.fixture
def other(jobs: JobManager, clock: FakeClock) -> str:
    """The id of a process that beat once."""
    now = clock.now()
    instance = Instance(
        id=new_id(now), namespace="default", host="there", pid=7, executes=True, started_at=now, seen_at=now
    )
    jobs.store.processes.register(instance)
    jobs.store.processes.beat(instance.id)
    return instance.id


def lives(jobs: JobManager, instance_id: str) -> bool:
    return instance_id in {instance.id for instance in jobs.store.processes.living()}


def beats_until_it_is_dead(jobs: JobManager, clock: FakeClock, instance_id: str) -> int:
    for count in range(1, 100):
        clock.advance(seconds=BEAT)
        if not lives(jobs, instance_id):
            return count
    return 0


def test_a_silent_process_is_dead_after_more_than_a_lease(
    jobs: JobManager, clock: FakeClock, other: str
) -> None:
    """Seen first at the first beat; a lease later it was silent for exactly a lease, and a beat later for more."""
    assert beats_until_it_is_dead(jobs, clock, other) == 1 + LEASE / BEAT + 1


def test_a_process_that_beats_in_time_lives(jobs: JobManager, clock: FakeClock, other: str) -> None:
    for _ in range(10):
        for _ in range(3):
            clock.advance(seconds=BEAT)
        assert jobs.store.processes.beat(other)

    assert lives(jobs, other)


def test_one_beat_begins_a_whole_lease(jobs: JobManager, clock: FakeClock, other: str) -> None:
    for _ in range(4):
        clock.advance(seconds=BEAT)
    jobs.store.processes.beat(other)

    assert beats_until_it_is_dead(jobs, clock, other) == 1 + LEASE / BEAT + 1


@pytest.mark.parametrize(("pause", "beats"), [(LEASE / 2, 1), (LEASE / 2 + 1, 1 + LEASE / BEAT)])
def test_whoever_slept_for_half_a_lease_watches_from_the_beginning(
    jobs: JobManager, clock: FakeClock, other: str, pause: float, beats: float
) -> None:
    """After a pause of its own the watcher has seen nothing: the others may have been held up by the same."""
    for _ in range(3):
        clock.advance(seconds=BEAT)
    clock.advance(timedelta(seconds=pause))

    assert lives(jobs, other)
    assert beats_until_it_is_dead(jobs, clock, other) == beats


def test_a_process_never_buries_itself(jobs: JobManager, clock: FakeClock) -> None:
    [me] = jobs.store.processes.living()
    clock.advance(minutes=10)
    for _ in range(20):
        clock.advance(seconds=BEAT)

    assert [instance.id for instance in jobs.store.processes.living()] == [me.id]


def test_runs_of_a_dead_process_are_taken_over(jobs: JobManager, clock: FakeClock, other: str) -> None:
    now = clock.now()
    run = Run(
        id=new_id(now), job_id="work", status=RUNNING, trigger="manual", attempt=1, owner=other, concurrency_key="work",
        turn="holds", due_at=now, opened_at=now, accepted_at=now, started_at=now,
    )  # fmt: skip
    assert run.id in jobs.store.runs.write([run], ()).opened
    beats_until_it_is_dead(jobs, clock, other)
    clock.advance()

    taken = jobs.run(run.id)
    assert taken.error is not None
    assert (taken.status, taken.error.kind) == (FAILED, "crashed")


@pytest.mark.parametrize("call", ["beat", "living"])
def test_after_an_outage_of_its_own_a_process_watches_from_the_beginning(
    jobs: JobManager, clock: FakeClock, other: str, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other was silent for three beats; then the store was away, and the other may have been cut off as well."""

    def away(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the connection was lost")

    for _ in range(3):
        clock.advance(seconds=BEAT)
    with monkeypatch.context() as outage:
        outage.setattr(jobs.store.processes, call, away)
        clock.advance(seconds=BEAT)

    assert beats_until_it_is_dead(jobs, clock, other) == 1 + LEASE / BEAT + 1

"""The Celery backend keeps the promises of every backend: with a beat and a real Redis, and on the golden instants."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import until

from jobmanager import Cron, CronError, Every, JobManager, Settings
from jobmanager.backends.base import Backend
from jobmanager.backends.celery import CeleryBackend, Scheduler
from jobmanager.backends.celery.application import make_app
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import Clock, SystemClock
from jobmanager.errors import ConfigurationError
from jobmanager.job import Job
from jobmanager.run import Tick
from jobmanager.testing import BackendContract, FakeClock

GOLDEN = json.loads((Path(__file__).parent.parent / "unit" / "schedule" / "golden.json").read_text())["cases"]


@pytest.mark.slow
@pytest.mark.servers
class TestCeleryBackend(BackendContract):
    broker: str

    @pytest.fixture(autouse=True)
    def _broker(self, redis_url: str) -> None:
        self.broker = redis_url

    def make_clock(self) -> Clock:
        return SystemClock()

    def make_backend(self, clock: Clock) -> Backend:
        return CeleryBackend(make_app(self.broker), clock=clock, beats=True)


class ByHand(CeleryBackend):
    """Its beat ticks when the test says so, on a clock that the test moves."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(make_app("memory://"), clock=clock)
        self.beat = Scheduler(self.app)

    def tick_until(self, moment: datetime) -> None:
        clock = self._clock
        assert isinstance(clock, FakeClock)
        while (top := self.timetable.top()) is not None and top <= moment:
            clock.advance_to(top)
            self.beat.tick()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["id"])
def test_the_beat_brings_the_golden_instants(case: dict[str, Any]) -> None:
    if not isinstance(case["expect"], list):
        with pytest.raises(CronError):
            Job(
                id="golden", name="golden", handler="golden", schedule=Cron(case["expr"], timezone=case["tz"])
            )
        return
    start, expected = moment(case["start"]), [moment(text) for text in case["expect"]]
    job = Job(id="golden", name="golden", handler="golden", schedule=Cron(case["expr"], timezone=case["tz"]))
    assert job.schedule is not None
    backend = ByHand(FakeClock(start))
    delivered: list[Tick] = []
    backend.sync([ScheduledJob(job, 1, job.schedule.next_after(start))])
    backend.start(delivered.extend)
    backend.tick_until(expected[-1])

    assert [tick.scheduled_for for tick in delivered] == expected


# ---------------------------------------------------------------- what Celery asks of a scheduler


def scheduled(every: float = 1) -> ScheduledJob:
    schedule = Every(every)
    return ScheduledJob(
        Job(id="job", name="Job", handler="job", schedule=schedule),
        1,
        schedule.next_after(SystemClock().now()),
    )


def test_the_scheduler_of_the_banner_connects_to_nothing() -> None:
    """Celery makes one with `lazy` before it forks or logs; fails if that touches the store or the broker."""
    jobs = JobManager(
        Settings(database_url="sqlite:////nowhere/at/all.db"),
        backend=CeleryBackend(make_app("redis://127.0.0.1:1/0")),
    )
    before = set(threading.enumerate())
    backend: Any = jobs.backend

    banner = Scheduler(backend.app, lazy=True)

    assert "jobmanager" in banner.info
    assert banner.max_interval == 1
    assert set(threading.enumerate()) <= before


def test_the_loop_interval_of_the_application_cannot_make_beat_deaf() -> None:
    app = make_app("memory://")
    app.conf.beat_max_loop_interval = 300
    backend = CeleryBackend(app)
    backend.start(lambda _ticks: None)

    assert Scheduler(app, max_interval=300).tick() == 1
    assert Scheduler(app).tick() == 1


def test_a_signal_in_the_middle_of_a_tick_ends_it_only_afterwards() -> None:
    """Celery's signal handler calls close() inside whatever tick() does; fails if that stops, or waits for, the delivery."""
    backend = CeleryBackend(make_app("memory://"))
    beat = Scheduler(backend.app)
    closed_inside: list[bool] = []
    stopped: list[bool] = []

    class Host:
        def start(self, *, executes: bool) -> None: ...
        def stop(self) -> None:
            stopped.append(True)

    def deliver(_ticks: Sequence[Tick]) -> None:
        beat.close()
        closed_inside.append(not stopped)
        raise SystemExit  # as the handler does next

    backend.attach(Host())  # type: ignore[arg-type]  # as much of one as is asked here
    backend.sync([scheduled(1)])
    backend.start(deliver)
    with pytest.raises(SystemExit):
        until(lambda: beat.tick() < 0)
    beat.close()
    beat.close()

    assert closed_inside == [True]
    assert stopped


def test_a_signal_while_a_beat_comes_up_waits_until_it_is_up() -> None:
    """Celery's handler asks for the scheduler, which is still being made, so it makes another. Fails if that is in the middle."""
    backend = CeleryBackend(make_app("memory://"))
    log: list[str] = []

    class Host:
        def start(self, *, executes: bool) -> None:
            log.append("coming up")
            if len(log) == 1:
                signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            log.append("up")

        def stop(self) -> None:
            log.append("stop")

    def handler(*_: object) -> None:
        Scheduler(backend.app).close()
        raise SystemExit

    backend.attach(Host())  # type: ignore[arg-type]  # as much of one as is asked here
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(SystemExit):
            Scheduler(backend.app)
    finally:
        signal.signal(signal.SIGTERM, before)
        backend.stop(timedelta(seconds=1))

    assert log == ["coming up", "up"] * 2 + ["stop"]


def test_one_application_belongs_to_one_manager() -> None:
    app = make_app("memory://")
    CeleryBackend(app)

    with pytest.raises(ConfigurationError, match="another JobManager"):
        CeleryBackend(app)


def test_a_scheduler_without_a_manager_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match=r"CeleryBackend\(app=app\)"):
        Scheduler(make_app("memory://"))


def test_limits_of_the_application_are_not_meant_for_our_task() -> None:
    app = make_app("memory://")
    app.conf.task_annotations = {"*": {"rate_limit": "1/h"}}
    CeleryBackend(app)
    app.finalize()

    assert app.tasks["jobmanager.execute"].rate_limit is None


def test_another_application_of_the_process_has_no_task_of_ours() -> None:
    other = make_app("memory://")
    CeleryBackend(make_app("memory://"))
    other.finalize()

    assert "jobmanager.execute" not in other.tasks


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"celery_broker_url": "redis://h/0", "database_url": "memory://"}, "memory://"),
        ({"celery_broker_url": "rediss2://h/0", "database_url": "sqlite:///x.db"}, "rediss2"),
        ({"database_url": "sqlite:///x.db"}, "JOBMANAGER_CELERY_BROKER_URL"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(settings: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        CeleryBackend.from_settings(Settings(**settings), clock=SystemClock())  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "amqp://127.0.0.1:1//"])
def test_our_own_application_never_gives_a_broker_up(url: str) -> None:
    """Celery's default is a hundred tries: a worker would end after a night without a broker."""
    conf = make_app(url).conf

    assert conf.broker_connection_max_retries is None
    assert conf.broker_connection_retry_on_startup
    assert conf.broker_channel_error_retry


def test_making_one_connects_to_nothing() -> None:
    backend = CeleryBackend.from_settings(
        Settings(celery_broker_url="redis://127.0.0.1:1/0", database_url="sqlite:///x.db"),
        clock=SystemClock(),
    )

    backend.stop(timedelta(seconds=1))
    assert not backend.health().ok


def test_a_forked_child_keeps_the_jobs_though_a_thread_of_its_parent_was_planning() -> None:
    """Fails if the child goes on with its parent's timetable, whose lock nobody there gives back."""
    backend = CeleryBackend(make_app("memory://"), beats=True)
    due = datetime(2027, 1, 1, tzinfo=UTC)
    backend.sync([ScheduledJob(Job(id="kept", name="kept", handler="kept", schedule=Every(60)), 1, due)])

    planning = backend.timetable._lock
    with planning:
        backend.after_fork()
        assert planning.locked()

        assert [(entry.name, entry.next_due_at) for entry in backend.entries()] == [("kept", due)]

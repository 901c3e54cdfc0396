"""Celery under faults (F25, F26, F28): beats and workers killed, the broker restarted, emptied, slow or away, and two ways to keep time at once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import shape
from tests.faults.proxy import Proxy
from tests.integration.celery_processes import Application, until
from tests.servers import RabbitMQ, Redis

from jobmanager import Every, JobManager, RunStatus, Settings
from jobmanager.backends.celery import CeleryBackend, Scheduler
from jobmanager.backends.celery.application import make_app
from jobmanager.backends.timetable import ScheduledJob
from jobmanager.clock import SystemClock
from jobmanager.job import Job
from jobmanager.run import PENDING, Run, new_id
from jobmanager.testing import FakeClock

pytestmark = [pytest.mark.slow, pytest.mark.servers]

MakeApplication = Callable[..., Application]

JOBS = """
@jobs.job("each", every=1, overlap="allow")
def each(context: RunContext):
    note("each", context.run_id, context.attempt)
    time.sleep(0.1)

@jobs.job("one", every=1)
def one(context: RunContext):
    note("one", context.run_id, context.attempt)

@jobs.job("long", timeout=60)
def long(context: RunContext, seconds: float = 4, way_out: str = ""):
    note("long", context.run_id, context.attempt, os.getpid())
    if way_out == "exit":
        os._exit(7)
    for _ in range(int(seconds * 20)):
        time.sleep(0.05)
    note("ended", context.run_id)

@jobs.job("tracked")
def tracked(context: RunContext):
    note("tracked", context.run_id, context.attempt)
    for _ in context.track(range(10_000)):
        time.sleep(0.01)

@jobs.job("deaf", timeout=1)
def deaf():
    note("deaf", os.getpid())
    while True:
        time.sleep(0.1)
"""
QUIET = JOBS.replace(", every=1", "")


@pytest.fixture
def broker() -> Iterator[Redis]:
    """A Redis that a test may break."""
    server = Redis(persistent=True).start()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def impatient_rabbitmq() -> Iterator[str]:
    """A RabbitMQ that closes the channel of a consumer that acknowledges nothing for a second."""
    server = RabbitMQ({"consumer_timeout": 1_000, "channel_tick_interval": 300})
    try:
        yield server.url
    finally:
        server.remove()


@pytest.fixture
def make_application(tmp_path: Path) -> Iterator[MakeApplication]:
    made: list[Application] = []

    def make(broker: str, source: str = JOBS, *, store: str | None = None, **settings: Any) -> Application:
        url = store or f"sqlite:///{tmp_path}/jobs.db"
        made.append(Application(tmp_path, broker, url, source, **{"grace_seconds": 4, **settings}))
        return made[-1]

    yield make
    for application in made:
        application.close()


def covered(runs: list[Run], step: timedelta) -> Counter[datetime]:
    """How many rows stand for each instant."""
    instants: Counter[datetime] = Counter()
    for run in runs:
        if run.scheduled_for is not None:
            first = run.first_for or run.scheduled_for
            instants.update(first + step * number for number in range(run.ticks))
    return instants


def account_holds(jobs: JobManager, application: Application, since: datetime, until_: datetime) -> None:
    """Every second of the time has exactly one row, and no run was started twice."""
    second = timedelta(seconds=1)
    for job_id in ("each", "one"):
        instants = covered(jobs.runs(job_id, limit=10_000), second)
        expected = list(Every(1).between(since, until_))
        holes = [str(instant) for instant in expected if not instants[instant]]
        doubles = [str(instant) for instant, rows in instants.items() if rows > 1]
        assert (holes, doubles) == ([], []), job_id
    starts = Counter((words[1], words[2]) for kind in ("each", "one") for words in application.effects(kind))
    assert [start for start, times in starts.items() if times > 1] == []


@pytest.mark.parametrize("seconds", [12, pytest.param(60, marks=pytest.mark.faults)])
@pytest.mark.parametrize("kind", ["postgres", pytest.param("sqlite", marks=pytest.mark.faults)])
@pytest.mark.timeout(240)
def test_three_beats_and_two_workers_killed_at_random_with_the_broker(
    request: pytest.FixtureRequest, make_application: MakeApplication, broker: Redis, kind: str, seconds: int
) -> None:
    """F25, F26. Fails without the unique tick, the claim, the takeover, the account or the second sending."""
    store = request.getfixturevalue("postgres_url") if kind == "postgres" else None
    application = make_application(broker.url, store=store)
    chance = random.Random(seconds)
    beats = [application.beat() for _ in range(3)]
    workers = [application.worker(pool="prefork") for _ in range(2)]
    jobs = application.manager()
    begun = jobs.store.now()
    ends_at = time.monotonic() + seconds
    killed = 0
    while time.monotonic() < ends_at:
        time.sleep(chance.uniform(0.5, 1.5))  # what happens when is what chance decides
        match chance.choice(["beat", "beat", "worker", "worker", "flush", "restart"]):
            case "beat":
                beats.pop(chance.randrange(len(beats))).kill()
                beats.append(application.command("jobmanager", "--app", "shop:jobs", "beat"))
            case "worker":
                workers.pop(chance.randrange(len(workers))).kill()
                options = ("--pool", "prefork", "--concurrency", "2")
                workers.append(application.command("jobmanager", "--app", "shop:jobs", "worker", *options))
            case "flush":
                broker.flush()
            case "restart":
                broker.stop()
                broker.start()
        killed += 1
    ended = jobs.store.now()
    for job_id in ("each", "one"):
        until(lambda job_id=job_id: _accounted_until(jobs, job_id) > ended, seconds=60)  # type: ignore[misc]
    until(lambda: jobs.runs("each")[5].status is RunStatus.SUCCEEDED, seconds=60)  # it goes on

    account_holds(jobs, application, begun, ended)
    until(lambda: not _stale(jobs, ended), seconds=60)
    assert killed >= seconds / 2


def _accounted_until(jobs: JobManager, job_id: str) -> datetime:
    row = jobs.store.jobs.get(job_id)
    assert row is not None
    return row.accounted_until


def _stale(jobs: JobManager, before: datetime) -> list[Run]:
    """Runs that were due before the moment and have not ended."""
    return [
        run
        for run in jobs.store.history.runs(statuses=[RunStatus.PENDING, RunStatus.RUNNING], limit=1000)
        if run.due_at < before
    ]


def test_a_message_that_comes_twice_starts_its_run_once(
    make_application: MakeApplication, broker: Redis
) -> None:
    """F26: the visibility time-out is shorter than the handler. Fails if the message decides, and not the claim."""
    options = (
        "celery.conf.broker_transport_options = {'visibility_timeout': 1, 'unacked_restore_interval': 1,"
        " 'unacked_restore_throttle': 1}\n"
    )
    application = make_application(broker.url, options + QUIET)
    workers = [application.worker(pool="prefork") for _ in range(2)]
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here")

    run = jobs.trigger_job("long", {"seconds": 5})

    assert jobs.wait(run.id, timeout=30).status is RunStatus.SUCCEEDED
    assert sum(worker.log().count(f"[{run.id}] received") for worker in workers) > 1
    assert len(application.effects("long")) == 1


def test_a_child_that_dies_in_the_handler_ends_its_run_as_crashed(
    make_application: MakeApplication, broker: Redis
) -> None:
    """F20: the broker delivers again at once, and again; fails if that starts it, or if nobody notices."""
    application = make_application(broker.url, QUIET)
    worker = application.worker(pool="prefork")
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here")

    run = jobs.trigger_job("long", {"way_out": "exit"})

    assert shape(jobs.wait(run.id, timeout=30)) == ("failed", "crashed")
    assert len(application.effects("long")) == 1
    assert jobs.wait(jobs.trigger_job("long", {"seconds": 0}).id, timeout=30).status is RunStatus.SUCCEEDED
    assert worker.end() == 0, worker.log()


def test_a_worker_told_to_end_lets_its_run_end(make_application: MakeApplication, broker: Redis) -> None:
    application = make_application(broker.url, QUIET)
    worker = application.worker(pool="prefork")
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here")
    run = jobs.trigger_job("long", {"seconds": 2})
    until(lambda: application.effects("long"))

    assert worker.end() == 0, worker.log()
    assert jobs.run(run.id).status is RunStatus.SUCCEEDED, worker.log()


def test_a_worker_that_is_killed_loses_its_run_to_the_lease_and_the_queue_to_another(
    make_application: MakeApplication, broker: Redis
) -> None:
    application = make_application(broker.url, QUIET)
    worker = application.worker(pool="prefork", concurrency=1)
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here", overlap="allow")
    with jobs.store.jobs.lock("long") as page:
        assert page.job.overlap == "skip"  # what the worker declared
    first = jobs.trigger_job("long", {"seconds": 60})
    until(lambda: application.effects("long"))
    worker.kill()
    application.worker(pool="prefork")

    assert shape(jobs.wait(first.id, timeout=30)) == ("failed", "crashed")
    jobs.redrive(first.id)
    until(lambda: [words[2] for words in application.effects("long")] == ["1", "2"])  # by the other one


def test_a_handler_that_ignores_its_timeout_is_recorded_and_then_killed(
    make_application: MakeApplication, broker: Redis
) -> None:
    quick = (
        "import jobmanager.execution.supervisor, jobmanager.backends.celery.backend\n"
        "jobmanager.execution.supervisor.TIMEOUT_GRACE = timedelta(seconds=0.5)\n"
        "jobmanager.backends.celery.backend.KILL_AFTER = 3\n"
    )
    application = make_application(broker.url, quick + QUIET)
    worker = application.worker(pool="prefork", concurrency=1)
    jobs = application.manager()
    command = application.command("jobmanager", "--app", "shop:jobs", "trigger", "deaf")
    assert command.wait() == 0, command.log()
    [run] = jobs.runs("deaf")

    assert shape(jobs.wait(run.id, timeout=30)) == ("failed", "timeout")
    [[_, pid]] = application.effects("deaf")
    until(lambda: not Path(f"/proc/{pid}").exists(), seconds=20)
    assert worker.end() == 0, worker.log()


def test_the_application_s_own_time_limit_is_a_timeout_too(
    make_application: MakeApplication, broker: Redis
) -> None:
    application = make_application(broker.url, "celery.conf.task_soft_time_limit = 1\n" + QUIET)
    application.worker(pool="prefork")
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here")

    run = jobs.trigger_job("long", {"seconds": 30})

    assert shape(jobs.wait(run.id, timeout=30)) == ("failed", "timeout")


def test_a_task_that_is_revoked_and_terminated_is_recorded_as_cut_off(
    make_application: MakeApplication, broker: Redis
) -> None:
    application = make_application(broker.url, QUIET)
    worker = application.worker(pool="prefork")
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here")
    run = jobs.trigger_job("long", {"seconds": 30})
    until(lambda: application.effects("long"))

    backend: Any = jobs.backend
    backend.app.control.revoke(run.id, terminate=True)

    assert shape(jobs.wait(run.id, timeout=30)) == ("failed", "shutdown")
    assert worker.end() == 0, worker.log()


def test_a_line_of_waiting_runs_is_worked_off_in_its_order_and_waits_for_no_lost_message(
    make_application: MakeApplication, broker: Redis
) -> None:
    """Fails if a later run of a line is sent beside an earlier one: one message is in vain, and its run waits for ever here."""
    source = """
jobmanager.stores.sql.runs.LOST_AFTER = timedelta(hours=1)

@jobs.job("line", overlap="queue_all")
def line(context: RunContext):
    note("line", context.run_id)
"""
    application = make_application(broker.url, source)
    for _ in range(2):
        application.worker(concurrency=4)
    jobs = application.manager()
    jobs.add_job("line", "shop:nothing_here", overlap="queue_all")

    runs = [jobs.trigger_job("line").id for _ in range(20)]
    until(lambda: len(application.effects("line")) >= 20, seconds=60)

    assert [run_id for _, run_id in application.effects("line")] == runs


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_warm_shutdown_is_a_drain_as_on_every_backend(
    make_application: MakeApplication, broker: Redis, pool: str
) -> None:
    """Fails if a worker waits for its handlers for ever, or does not tell them that it stops."""
    application = make_application(broker.url, QUIET, drain_seconds=3)
    worker = application.worker(pool=pool)
    jobs = application.manager()
    for job_id in ("long", "tracked"):
        jobs.add_job(job_id, "shop:nothing_here")
    looks = jobs.trigger_job("tracked")
    blind = jobs.trigger_job("long", {"seconds": 20})
    until(lambda: application.effects("tracked") and application.effects("long"))

    assert worker.end() == 0, worker.log()
    after = jobs.run(looks.id)
    assert (after.status, after.reason, after.next_attempt) == (RunStatus.PENDING, "shutdown", 1)
    assert shape(jobs.run(blind.id)) == ("failed", "shutdown")


THEIRS = """
from celery import Celery
celery = Celery("theirs", broker=os.environ["BROKER"])
jobs = JobManager(backend=CeleryBackend(app=celery))
"""


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_of_celery_s_own_command_tells_its_handlers_and_cuts_none(
    make_application: MakeApplication, broker: Redis, pool: str
) -> None:
    """Fails if a handler that looks is not told of the shutdown, or if one is cut although Celery waits for it."""
    application = make_application(broker.url, QUIET, head=THEIRS, drain_seconds=2)
    command = ("celery", "-A", "shop", "worker", "-P", pool, "-c", "2", "-l", "info")
    worker = application.command(*command).says(" ready.")
    jobs = application.manager()
    for job_id in ("long", "tracked"):
        jobs.add_job(job_id, "shop:nothing_here")
    looks = jobs.trigger_job("tracked")
    blind = jobs.trigger_job("long", {"seconds": 6})
    until(lambda: application.effects("tracked") and application.effects("long"))

    assert worker.end(seconds=60) == 0, worker.log()
    after = jobs.run(looks.id)
    assert (after.status, after.reason, after.next_attempt) == (RunStatus.PENDING, "shutdown", 1)
    assert jobs.run(blind.id).status is RunStatus.SUCCEEDED, worker.log()


def test_a_flushed_broker_loses_no_run(make_application: MakeApplication, broker: Redis) -> None:
    """Fails without the second sending: the message is gone, and the run would stay pending for ever."""
    application = make_application(broker.url, QUIET)
    jobs = application.manager()
    jobs.add_job("long", "shop:nothing_here")
    run = jobs.trigger_job("long", {"seconds": 0})
    broker.flush()

    application.worker()

    assert jobs.wait(run.id, timeout=30).status is RunStatus.SUCCEEDED
    assert len(application.effects("long")) == 1


def test_a_broker_that_is_away_holds_no_tick_up_and_gets_everything_when_it_is_back(
    make_application: MakeApplication, broker: Redis
) -> None:
    application = make_application(broker.url)
    jobs = application.manager()
    broker.stop()
    beat = application.beat()
    until(lambda: len(jobs.runs("each")) >= 4)
    assert {run.status for run in jobs.runs("each")} == {RunStatus.PENDING}
    assert beat.log().count("broker away") <= 3

    broker.start()
    application.worker()

    oldest = jobs.runs("each")[-1]
    assert jobs.wait(oldest.id, timeout=40).status is RunStatus.SUCCEEDED
    assert "broker is back" in beat.log()
    assert beat.end() == 0


def test_a_broker_that_never_answers_delays_no_tick(broker: Redis, tmp_path: Path) -> None:
    """Fails if tick() waits for the broker in any way: it would be seconds late, or for ever."""
    with Proxy(broker.port) as proxy:
        backend = CeleryBackend(make_app(f"redis://127.0.0.1:{proxy.port}/0"), beats=True)
        schedule = Every(1)
        job = Job(id="job", name="job", handler="job", schedule=schedule)
        late: list[float] = []
        proxy.set("hang")

        def deliver(ticks: Any) -> None:
            now = SystemClock().now()
            for tick in ticks:
                late.append((now - tick.scheduled_for).total_seconds())
                run = Run(
                    id=new_id(now),
                    job_id="job",
                    status=PENDING,
                    opened_at=now,
                    due_at=now,
                    concurrency_key="job",
                )
                backend.dispatch(job, run)

        backend.sync([ScheduledJob(job, 1, schedule.next_after(SystemClock().now()))])
        backend.start(deliver)
        until(lambda: len(late) >= 8)
        backend.stop(timedelta(seconds=1))

    assert sorted(late)[len(late) // 2] < 0.05
    assert max(late) < 1


@pytest.mark.parametrize(
    ("catch_up", "opened"), [("latest", 1), ("all", 9), ("none", 0)], ids=["latest", "all", "none"]
)
def test_what_fell_into_five_minutes_without_a_beat_is_on_record(
    tmp_path: Path, catch_up: str, opened: int
) -> None:
    """F25: beat alone would send one of ten and say nothing of the others."""
    clock = FakeClock()
    settings = Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", grace_seconds=20)

    def beat() -> tuple[JobManager, Scheduler]:
        backend = CeleryBackend(make_app("memory://"), clock=clock)
        jobs = JobManager(settings, backend=backend, clock=clock)
        jobs.add_job("job", lambda: None, every=30, catch_up=catch_up, overlap="allow")  # type: ignore[arg-type]
        return jobs, Scheduler(backend.app)

    jobs, scheduler = beat()
    clock.advance(seconds=30)
    scheduler.tick()
    assert [run.trigger for run in jobs.runs("job")] == ["schedule"]
    scheduler.close()
    clock.advance(minutes=5, seconds=5)

    jobs, scheduler = beat()
    scheduler.tick()  # the newest of the ten instants is on time
    clock.advance(seconds=20)

    runs = [run for run in jobs.runs("job", limit=100) if run.trigger != "schedule"]
    assert len(runs) == 9
    assert sum(run.status is RunStatus.PENDING for run in runs) == opened
    assert {(run.status, run.reason) for run in runs if run.status is not RunStatus.PENDING} <= {
        (RunStatus.MISSED, "downtime")
    }
    scheduler.close()


def test_two_ways_to_keep_the_time_at_once_and_one_after_the_other(
    make_application: MakeApplication, broker: Redis
) -> None:
    """F28: local, then local and Celery, then Celery alone, on one store. Fails if a tick runs twice or not at all."""
    application = make_application(broker.url)
    local = replace(application.settings, backend="local")
    jobs = JobManager(local)
    effects = application.folder / "effects"

    def noted(name: str) -> Callable[[Any], None]:
        def handler(context: Any) -> None:
            with effects.open("a") as log:
                log.write(f"{name} {context.run_id} {context.attempt}\n")

        return handler

    jobs.add_job("each", noted("each"), every=1, overlap="allow")
    jobs.add_job("one", noted("one"), every=1)
    jobs.start()
    begun = jobs.store.now()
    try:
        until(lambda: len(application.effects("each")) >= 2)
        application.beat()
        application.worker()
        before = len(application.effects("each"))
        until(lambda: len(application.effects("each")) >= before + 4)
    finally:
        jobs.stop()
    before = len(application.effects("each"))
    until(lambda: len(application.effects("each")) >= before + 3)
    ended = jobs.store.now()
    until(lambda: min(_accounted_until(jobs, job_id) for job_id in ("each", "one")) > ended, seconds=60)

    account_holds(jobs, application, begun, ended)


@pytest.mark.parametrize(
    ("pool", "concurrency"), [("threads", 1), pytest.param("prefork", 2, marks=pytest.mark.faults)]
)
@pytest.mark.timeout(180)
def test_a_run_longer_than_rabbitmq_s_patience_takes_no_worker_out(
    make_application: MakeApplication, impatient_rabbitmq: str, pool: str, concurrency: int
) -> None:
    """Fails if the worker ends when its channel is closed, stops taking messages, or executes the one that comes again."""
    application = make_application(impatient_rabbitmq, QUIET)
    worker = application.worker(pool=pool, concurrency=concurrency)
    jobs = application.manager()
    for job_id in ("long", "each"):
        jobs.add_job(job_id, "shop:nothing_here")

    run = jobs.trigger_job("long", {"seconds": 4})
    worker.says("delivery acknowledgement on channel")

    assert jobs.wait(jobs.trigger_job("each").id, timeout=60).status is RunStatus.SUCCEEDED
    assert jobs.wait(run.id, timeout=60).status is RunStatus.SUCCEEDED
    assert jobs.wait(jobs.trigger_job("each").id, timeout=60).status is RunStatus.SUCCEEDED
    assert len(application.effects("long")) == 1
    assert len(application.effects("each")) == 2
    assert worker.end() == 0, worker.log()


@pytest.mark.parametrize("pool", ["prefork", pytest.param("threads", marks=pytest.mark.faults)])
def test_a_busy_worker_goes_on_when_redis_restarts(
    make_application: MakeApplication, broker: Redis, pool: str
) -> None:
    """Fails if the worker ends, cuts the run that it executes, or executes the message that comes again."""
    application = make_application(broker.url, QUIET)
    worker = application.worker(pool=pool, concurrency=1)
    jobs = application.manager()
    for job_id in ("long", "each"):
        jobs.add_job(job_id, "shop:nothing_here")
    run = jobs.trigger_job("long", {"seconds": 3})
    until(lambda: application.effects("long"))

    broker.stop()
    worker.says("Connection to broker lost")
    broker.start()

    assert jobs.wait(run.id, timeout=60).status is RunStatus.SUCCEEDED
    assert jobs.wait(jobs.trigger_job("each").id, timeout=60).status is RunStatus.SUCCEEDED
    assert (len(application.effects("long")), len(application.effects("each"))) == (1, 1)
    assert worker.end() == 0, worker.log()


def test_a_redis_that_refuses_for_a_while_ends_no_worker(
    make_application: MakeApplication, broker: Redis
) -> None:
    """A fail-over leaves a replica. Fails if Celery's "Unrecoverable error" ends the worker, or if it tries without a pause."""
    import redis

    application = make_application(broker.url, QUIET)
    worker = application.worker(pool="prefork", concurrency=1)
    jobs = application.manager()
    jobs.add_job("each", "shop:nothing_here")
    with redis.Redis(port=broker.port) as client:
        client.replicaof("127.0.0.1", "1")
        worker.says("broker refuses this worker")
        run = jobs.trigger_job("each")
        client.replicaof("NO", "ONE")

    assert jobs.wait(run.id, timeout=60).status is RunStatus.SUCCEEDED
    assert len(application.effects("each")) == 1
    assert worker.log().count("broker refuses this worker") <= 3
    assert worker.end() == 0, worker.log()


@pytest.mark.timeout(180)
def test_a_worker_ends_with_celery_s_code_where_a_queue_exists_in_another_form(
    make_application: MakeApplication, impatient_rabbitmq: str
) -> None:
    """Fails if a channel that is refused for good is opened again and again: the worker would live and take nothing."""
    with make_app(impatient_rabbitmq).connection_for_write() as connection:
        connection.default_channel.queue_declare("classic", durable=True, auto_delete=False)
    source = '\njobs.add_job("work", lambda: 1, queue="classic")\n'
    application = make_application(impatient_rabbitmq, source)
    worker = application.command("jobmanager", "--app", "shop:jobs", "worker", "--pool", "solo")

    assert worker.wait(60) == 1, worker.log()
    assert "inequivalent arg 'x-queue-type'" in worker.log()

"""What the publisher puts into a message, and that no message is lost with the broker or with the process."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from kombu.entity import Exchange, Queue
from tests.faults.conftest import until
from tests.servers import RabbitMQ, Redis

from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import is_amqp, make_app
from jobmanager.backends.celery.publisher import Message, Publisher
from jobmanager.job import Job
from jobmanager.run import Run, RunStatus, new_id
from jobmanager.testing import FakeClock

QUEUE = "jobmanager"
SERVERS = [pytest.mark.slow, pytest.mark.servers]


def run_of(job: Job, priority: int = 0) -> Run:
    """A pending run of the job that is due now."""
    now = FakeClock().now()
    return Run(
        id=new_id(now),
        job_id=job.id,
        status=RunStatus.PENDING,
        concurrency_key=job.id,
        trigger="manual",
        due_at=now,
        opened_at=now,
        priority=priority,
    )


def job_named(job_id: str, **options: Any) -> Job:
    return Job(id=job_id, name=job_id, handler="shop:nothing_here", **options)


def received(app: Any, count: int, queue: str = QUEUE) -> list[Any]:
    """The next messages of the queue, in the order in which a worker gets them."""
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        return [until(lambda: channel.basic_get(queue, no_ack=True)) for _ in range(count)]


def ids(message: Any) -> list[str]:
    """The run ids that a message carries."""
    return list(json.loads(message.body)[0])


@pytest.fixture
def broker() -> Iterator[Redis]:
    """A Redis that a test may restart."""
    server = Redis().start()
    yield server
    server.remove()


# ---------------------------------------------------------------- time limits


@pytest.mark.parametrize(("group_max", "limits"), [(1, [35.0, 35.0, 35.0]), (10, [None])])
def test_only_a_message_of_one_run_has_a_time_limit(group_max: int, limits: list[float | None]) -> None:
    """The limit of one run would kill the child process while the others of its message run."""
    app = make_app("memory://")
    backend = CeleryBackend(app, group_max=group_max, queue=f"limits-{group_max}")
    job = job_named("limited", timeout=timedelta(seconds=5))
    publisher = backend._publisher

    with publisher._changed:  # so that all three are in one batch
        for _ in range(3):
            publisher.put(Message(run_of(job).id, backend.queue, 0, 35.0))
    assert publisher.flush(5)
    messages = received(app, len(limits), backend.queue)
    backend.stop(timedelta(seconds=1))

    assert [message.headers["timelimit"][0] for message in messages] == limits
    assert sum(len(ids(message)) for message in messages) == 3


def test_a_run_that_is_alone_in_a_group_keeps_its_time_limit() -> None:
    app = make_app("memory://")
    backend = CeleryBackend(app, group_max=10, queue="limits-alone")

    backend.dispatch(job_named("limited", timeout=timedelta(seconds=5)), run_of(job_named("limited")))
    [message] = received(app, 1, backend.queue)
    backend.stop(timedelta(seconds=1))

    assert message.headers["timelimit"][0] == 35.0


def test_a_group_holds_runs_of_one_queue_priority_and_limit() -> None:
    """A run must not travel to another queue, at another priority, or under another limit."""
    app = make_app("memory://")
    publisher = Publisher(app, group_max=10)
    kinds = [("groups-a", 0, None), ("groups-b", 0, None), ("groups-b", 1, None), ("groups-b", 1, 9.0)]

    with publisher._changed:
        for number, (queue, priority, limit) in enumerate(kind for kind in kinds for _ in range(2)):
            publisher.put(Message(f"run-{number}", queue, priority, limit))
    assert publisher.flush(5)
    found = [ids(message) for message in received(app, 1, "groups-a") + received(app, 3, "groups-b")]
    publisher.stop(1)

    assert found == [["run-0", "run-1"], ["run-2", "run-3"], ["run-4", "run-5"], ["run-6", "run-7"]]


# ---------------------------------------------------------------- priority


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("redis", marks=SERVERS),
        pytest.param("rabbitmq", marks=[*SERVERS, pytest.mark.timeout(180)]),
    ],
)
def test_the_higher_priority_comes_first(request: pytest.FixtureRequest, kind: str) -> None:
    """On a real broker: the two count in opposite directions."""
    app = make_app(request.getfixturevalue(f"{kind}_url"))
    queue = f"priority-{kind}"
    if is_amqp(app):
        app.conf.task_create_missing_queue_type = "classic"
        app.conf.task_queue_max_priority = 9
    publisher = Publisher(app, queue=queue)

    with publisher._changed:
        for priority in (0, -2, 2, -1, 1):
            publisher.put(Message(f"of-{priority}", queue, priority))
    assert publisher.flush(30)
    found = [ids(message)[0] for message in received(app, 5, queue)]
    publisher.stop(5)

    assert found[:3] == ["of-2", "of-1", "of-0"]
    assert set(found[3:]) == {"of--1", "of--2"}


# ---------------------------------------------------------------- nothing is lost


@pytest.mark.slow
@pytest.mark.servers
def test_queues_are_declared_again_after_the_broker_lost_them(broker: Redis) -> None:
    """A broker that came back empty knows no queue: what is sent to an undeclared one goes nowhere."""
    app = make_app(broker.url)
    publisher = Publisher(app)
    publisher.put(Message("before", QUEUE, 0))
    assert publisher.flush(10)
    broker.stop()
    publisher.put(Message("while away", QUEUE, 0))
    broker.start()

    assert publisher.flush(30)
    publisher.put(Message("after", QUEUE, 0))
    assert publisher.flush(10)

    assert [ids(message) for message in received(app, 2)] == [["while away"], ["after"]]
    publisher.stop(1)


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(180)
def test_a_queue_that_was_deleted_is_declared_again_on_a_new_connection(rabbitmq_url: str) -> None:
    """RabbitMQ drops without a word what is sent to a queue that is not there."""
    app = make_app(rabbitmq_url)
    queue = "deleted"
    publisher = Publisher(app, queue=queue)
    publisher.put(Message("before", queue, 0))
    assert publisher.flush(30)
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(queue)
    publisher._disconnect()  # as after an outage

    publisher.put(Message("after", queue, 0))
    assert publisher.flush(30)

    assert [ids(message) for message in received(app, 1, queue)] == [["after"]]
    publisher.stop(5)


# ---------------------------------------------------------------- a broker that replies and refuses

REFUSALS = {
    "full": (
        [("CONFIG", "SET", "maxmemory", "1")],
        [("CONFIG", "SET", "maxmemory", "0")],
        "OutOfMemoryError",
    ),
    "replica": (
        [("REPLICAOF", "127.0.0.1", "1")],
        [("REPLICAOF", "NO", "ONE")],
        "ReadOnlyError",
    ),
    "no right to write": (
        [("ACL", "SETUSER", "default", "-lpush")],
        [("ACL", "SETUSER", "default", "+@all")],
        "NoPermissionError",
    ),
    "no right to the queue": (
        [("ACL", "SETUSER", "default", "resetkeys", "~_kombu*")],
        [("ACL", "SETUSER", "default", "allkeys")],
        "NoPermissionError",
    ),
    "cannot save": (
        [("CONFIG", "SET", "save", "3600 1"), ("BGSAVE",)],
        [("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")],
        "MISCONF",
    ),
}
"""What refuses, what ends that, and what the log names."""


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the publisher warned of."""
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def do(broker: Redis, commands: list[tuple[str, ...]]) -> None:
    """Have the server execute these."""
    import redis

    with redis.Redis(port=broker.port) as client:
        for command in commands:
            client.execute_command(*command)


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.parametrize("how", REFUSALS)
def test_a_redis_that_refuses_is_told_once_and_gets_everything_when_it_takes_messages_again(
    broker: Redis, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """Fails if each message is tried and given up alone: all would be away until the sweep sends them again."""
    refuse, allow, told = REFUSALS[how]
    caplog.set_level("INFO", logger="jobmanager")
    app = make_app(broker.url)
    publisher = Publisher(app)
    publisher.put(Message("before", QUEUE, 0))
    assert publisher.flush(30)
    if how == "cannot save":
        shutil.rmtree(broker.folder)
    do(broker, refuse)
    if how == "cannot save":
        until(lambda: saving_failed(broker))

    sent = [f"run-{number}" for number in range(300)]
    for run_id in sent:
        publisher.put(Message(run_id, QUEUE, 0))
    until(lambda: warnings_of(caplog))
    assert not publisher.flush(1.5), "it is asked again, and refuses"
    [warning] = warnings_of(caplog)
    do(broker, allow)

    assert publisher.flush(30)
    publisher.put(Message("after", QUEUE, 0))
    assert publisher.flush(30)
    publisher.stop(5)
    assert "broker refuses runs for queue jobmanager" in warning
    assert told in warning
    assert "broker takes runs again" in caplog.text
    assert [ids(message)[0] for message in received(app, 302)] == ["before", *sent, "after"]


def saving_failed(broker: Redis) -> bool:
    """Whether the server knows that it cannot save."""
    import redis

    with redis.Redis(port=broker.port) as client:
        return client.info("persistence")["rdb_last_bgsave_status"] == "err"


@pytest.mark.slow
@pytest.mark.servers
def test_a_queue_that_is_refused_holds_no_other_up(broker: Redis, caplog: pytest.LogCaptureFixture) -> None:
    """A right to one queue that is missing may never come. Fails if others wait for it."""
    do(broker, [("ACL", "SETUSER", "default", "resetkeys", f"~{QUEUE}*", "~_kombu*")])
    app = make_app(broker.url)
    publisher = Publisher(app)

    for number in range(3):
        with publisher._changed:  # so that both are in one batch
            publisher.put(Message(f"refused-{number}", "reports", 0))
            publisher.put(Message(f"taken-{number}", QUEUE, 0))
        assert ids(received(app, 1)[0]) == [f"taken-{number}"]
    assert not publisher.flush(0)
    [warning] = warnings_of(caplog)
    assert "broker refuses runs for queue reports" in warning
    do(broker, [("ACL", "SETUSER", "default", "allkeys")])

    assert publisher.flush(30)
    publisher.stop(5)
    assert [ids(message) for message in received(app, 3, "reports")] == [
        ["refused-0"],
        ["refused-1"],
        ["refused-2"],
    ]


RABBITMQ_REFUSALS = {
    "alarm": (
        ("set_vm_memory_high_watermark", "0.000001"),
        ("set_vm_memory_high_watermark", "0.4"),
        "short of memory or disk",
    ),
    "no right to write": (
        ("set_permissions", "guest", ".*", "^refused-", ".*"),  # to the queues, but not to the exchange
        ("set_permissions", "guest", ".*", ".*", ".*"),
        "ACCESS_REFUSED",
    ),
}


@pytest.mark.slow
@pytest.mark.servers
@pytest.mark.timeout(180)
@pytest.mark.parametrize("how", RABBITMQ_REFUSALS)
def test_a_rabbitmq_that_refuses_is_told_once_and_gets_everything_when_it_takes_messages_again(
    rabbitmq_server: RabbitMQ, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    """RabbitMQ replies to no message: fails if the publisher takes for sent what was only written to a socket."""
    refuse, allow, told = RABBITMQ_REFUSALS[how]
    caplog.set_level("INFO", logger="jobmanager")
    app = make_app(rabbitmq_server.url)
    queue = f"refused-{how.replace(' ', '-')}"
    app.conf.task_queues = [Queue(queue, Exchange("runs"), queue, queue_arguments={"x-queue-type": "quorum"})]
    publisher = Publisher(app, queue=queue)
    sent = [f"run-{number}" for number in range(20)]
    try:
        rabbitmq_server.control(*refuse)
        publisher.put(Message(sent[0], queue, 0))
        if how == "alarm":
            publisher.flush(5)  # RabbitMQ still takes what comes first
        else:
            until(lambda: warnings_of(caplog), 15)
        for run_id in sent[1:]:
            publisher.put(Message(run_id, queue, 0))
        until(lambda: warnings_of(caplog))
        assert not publisher.flush(1.5), "it is asked again, and refuses"
        [warning] = warnings_of(caplog)
    finally:
        rabbitmq_server.control(*allow)

    assert publisher.flush(30)
    publisher.put(Message("after", queue, 0))
    assert publisher.flush(30)
    assert f"broker refuses runs for queue {queue}" in warning
    assert told in warning
    assert "broker takes runs again" in caplog.text
    # What was written before it was known may come twice.
    found: list[str] = []
    while "after" not in found:
        found += ids(received(app, 1, queue)[0])
    publisher.stop(5)
    assert list(dict.fromkeys(found)) == [*sent, "after"]


# Its broker takes a moment: else the message may be out before the next line although nobody waited for it.
SCRIPT = """
import os, sys, time
import tests.faults.mutations  # before anything of the library
from jobmanager import JobManager, Settings
from jobmanager.backends.celery.publisher import Publisher
send = Publisher._send
Publisher._send = lambda self, batch: (time.sleep(0.5), send(self, batch))
jobs = JobManager(Settings(backend="celery", celery_broker_url=sys.argv[1], database_url=sys.argv[2]))
jobs.add_job("work", "shop:nothing_here")
run = jobs.trigger_job("work")
print(run.id, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.servers
def test_what_a_script_starts_is_sent_before_its_next_line(redis_url: str, tmp_path: Path) -> None:
    """A script may end with its next line, and its daemon threads with it."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    ran = subprocess.run(
        [sys.executable, "-c", SCRIPT, redis_url, store],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    app = make_app(redis_url)
    with app.connection_for_read() as connection:
        message = connection.default_channel.basic_get(QUEUE, no_ack=True)
    assert message is not None, "the script ended before its run was sent"
    assert ids(message) == [ran.stdout.split()[0]]

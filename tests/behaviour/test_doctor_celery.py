"""What `doctor` says on Celery: brokers that answer, refuse, hang or are none, the application's settings, and who is missing."""

import os
import shutil
import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from celery import Celery
from tests.faults.conftest import until
from tests.servers import Redis, free_port

from jobmanager import JobManager, Settings
from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import make_app
from jobmanager.doctor import examine
from jobmanager.run import new_id
from jobmanager.stores.values import Instance

pytestmark = pytest.mark.slow

# ---------------------------------------------------------------- ground


@pytest.fixture
def manager(tmp_path):
    """Makes managers on one SQLite file."""
    made = []

    def make(app=None, *, broker=None, clock=None, group_max=1, store=None, **declared):
        backend = CeleryBackend(app or make_app(broker or "memory://"), group_max=group_max)
        settings = Settings(database_url=store or f"sqlite:///{tmp_path}/jobs.db")
        jobs = JobManager(settings, backend=backend, clock=clock)
        jobs.job("work", **{"every": 3600, **declared})(print)
        made.append(jobs)
        return jobs

    yield make
    for jobs in made:
        if "store" in vars(jobs._parts):
            jobs.store.close()


def found(jobs, *levels):
    every = examine(jobs)
    assert all(finding.fix for finding in every if finding.level in ("warning", "failing"))
    return [finding for finding in every if finding.level in (levels or ("warning", "failing"))]


def one(jobs, words, level):
    [finding] = [finding for finding in found(jobs, level) if words in finding.text]
    return finding


class Silent:
    """A server that accepts and never says anything."""

    def __enter__(self):
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._kept = []
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def _accept(self):
        with closing(self._socket):
            while True:
                try:
                    self._kept.append(self._socket.accept()[0])
                except OSError:
                    return

    def __exit__(self, *_):
        self._socket.shutdown(socket.SHUT_RDWR)
        for kept in self._kept:
            kept.close()


# ---------------------------------------------------------------- the broker


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_refuses(manager, scheme):
    jobs = manager(broker=f"{scheme}://ana:hunter2@127.0.0.1:{free_port()}//")
    [finding] = found(jobs)
    assert (finding.check, finding.level) == ("backend", "failing")
    assert "cannot be used" in finding.text
    assert "refused" in finding.text
    assert "Start it if it does not run" in finding.fix
    assert "JOBMANAGER_CELERY_BROKER_URL" in finding.fix
    assert "hunter2" not in repr(examine(jobs))


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_hangs_is_given_up_after_two_seconds(manager, scheme):
    with Silent() as server:
        jobs = manager(broker=f"{scheme}://ana:hunter2@127.0.0.1:{server.port}//")
        began = time.monotonic()
        [finding] = found(jobs)
        assert time.monotonic() - began < 4
    assert (finding.check, finding.level) == ("backend", "failing")
    assert "hunter2" not in finding.text
    assert "2 s" in finding.text or "cannot be used" in finding.text


def test_a_transport_whose_package_is_missing(manager):
    finding = one(manager(broker="sqs://"), "needs the package", "failing")
    assert "botocore" in finding.text or "boto3" in finding.text
    assert "redis://host:6379/0" in finding.fix


def test_the_applications_own_broker_is_called_so(manager):
    app = Celery("shop", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
    assert "the application's broker_url" in one(manager(app), "cannot be used", "failing").fix


@pytest.mark.servers
def test_a_broker_that_answers(manager, redis_url):
    jobs = manager(broker=redis_url, queue="mail")
    assert found(jobs) == []
    assert "answers" in one(jobs, "the broker", "ok").text
    assert "mail (1); no worker answered" in one(jobs, "jobs by queue", "note").text


@pytest.mark.servers
def test_a_broker_that_wants_a_password_is_told_without_it(manager):
    server = Redis()
    try:
        server.start()
        import redis

        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", "correct-horse")
        finding = one(
            manager(broker=f"redis://:hunter2@127.0.0.1:{server.port}/0"), "cannot be used", "failing"
        )
    finally:
        server.remove()
    assert "Correct user and password" in finding.fix
    assert "hunter2" not in finding.text


# What it refuses beats and workers, and what the fix has to say.
REFUSALS = {
    "full": (("CONFIG", "SET", "maxmemory", "1"), "maxmemory"),
    "replica": (("REPLICAOF", "127.0.0.1", "1"), "name the primary in JOBMANAGER_CELERY_BROKER_URL"),
    "cannot save": (("BGSAVE",), "CONFIG SET save ''"),
    "no command": (("ACL", "SETUSER", "default", "-brpop"), "lists under 'Rights'"),
    "no queue": (("ACL", "SETUSER", "default", "resetkeys", "~_kombu*", "~unacked*"), "lists under 'Rights'"),
    "no acknowledgements": (
        ("ACL", "SETUSER", "default", "resetkeys", "~_kombu*", "~jobmanager*"),
        "lists under 'Rights'",
    ),
    "no script": (("ACL", "SETUSER", "default", "-@scripting"), "lists under 'Rights'"),
    "no channel": (("ACL", "SETUSER", "default", "resetchannels"), "lists under 'Rights'"),
}


@pytest.fixture
def redis_of_ours():
    """A Redis that a test may spoil."""
    server = Redis().start()
    yield server
    server.remove()


@pytest.mark.servers
@pytest.mark.parametrize("how", REFUSALS)
def test_a_redis_that_answers_and_cannot_be_used(manager, redis_of_ours, how):
    """Fails if a reply to a knock is enough: beats and workers would be refused."""
    import redis

    command, advice = REFUSALS[how]
    with redis.Redis(port=redis_of_ours.port) as client:
        if how == "cannot save":
            client.config_set("save", "3600 1")
            shutil.rmtree(redis_of_ours.folder)
            client.set("unsaved", "1")
        client.execute_command(*command)
        if how == "cannot save":
            until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    [finding] = found(manager(broker=redis_of_ours.url), "failing")
    assert "cannot be used" in finding.text
    assert advice in finding.fix
    assert "Until then runs are opened and stay pending" in finding.fix


@pytest.mark.servers
def test_using_a_redis_leaves_nothing_there(manager, redis_of_ours):
    import redis

    jobs = manager(broker=redis_of_ours.url)
    assert found(jobs) == []
    with redis.Redis(port=redis_of_ours.port) as client:
        assert [key for key in client.scan_iter() if b"doctor" in key or b"unacked" in key] == []
        assert client.llen("jobmanager") == 0


@pytest.mark.servers
@pytest.mark.timeout(180)
def test_a_rabbitmq_that_answers_and_cannot_be_used(manager, rabbitmq_server):
    """A queue in another form, a missing right and an alarm; and a queue that nobody has made yet is no finding."""
    broker, queue = rabbitmq_server.url, "left-behind"
    assert found(manager(broker=broker, queue="never-made")) == []
    with make_app(broker).connection_for_write() as connection:
        connection.default_channel.queue_declare(queue, durable=True, auto_delete=False)

    jobs = manager(broker=broker, queue=queue)
    finding = one(jobs, "can take from queue 'left-behind'", "failing")
    assert "exists in another form" in finding.text
    assert "inequivalent arg 'x-queue-type'" in finding.text
    assert "rabbitmqctl delete_queue left-behind" in finding.fix
    kept = Celery("shop", broker=broker, set_as_current=False)
    assert not [finding for finding in found(manager(kept, queue=queue)) if queue in finding.text]

    try:
        rabbitmq_server.control("set_permissions", "guest", ".*", "^jobmanager\\.x$", ".*")
        assert "lists under 'Rights'" in one(jobs, "ACCESS_REFUSED", "failing").fix
        rabbitmq_server.control("set_permissions", "guest", ".*", ".*", ".*")
        rabbitmq_server.control("set_vm_memory_high_watermark", "0.000001")
        assert "rabbitmqctl status" in one(jobs, "short of memory", "failing").fix
    finally:
        rabbitmq_server.control("set_permissions", "guest", ".*", ".*", ".*")
        rabbitmq_server.control("set_vm_memory_high_watermark", "0.4")


@pytest.mark.servers
def test_a_queue_that_no_worker_takes_from(manager, redis_url):
    from celery.contrib.testing.worker import start_worker

    jobs = manager(broker=redis_url, queue="mail")
    other = Celery("other", broker=redis_url, set_as_current=False)
    with start_worker(other, perform_ping_check=False, shutdown_timeout=20):
        finding = one(jobs, "takes from queue 'mail'", "warning")
    assert "runs of work go" in finding.text
    assert "--queues mail" in finding.fix


# ---------------------------------------------------------------- the application


def app_with(**conf):
    app = Celery("shop", broker="memory://", set_as_current=False)
    app.conf.update(conf)
    return app


def test_our_own_application_is_as_we_want_it(manager):
    assert found(manager(timeout=300)) == []


def test_an_application_that_does_not_take_json(manager):
    finding = one(manager(app_with(accept_content=["pickle"])), "runs travel as json", "failing")
    assert finding.fix == "Add 'json' to accept_content."


def test_an_old_message_protocol(manager):
    assert one(manager(app_with(task_protocol=1)), "task_protocol is 1", "warning")


def test_a_soft_limit_below_the_jobs_timeout(manager):
    finding = one(manager(app_with(task_soft_time_limit=60), timeout=300), "task_soft_time_limit", "warning")
    assert "may take 300 s" in finding.text
    assert "after 60 s" in finding.text


def test_a_hard_limit_gives_way_to_the_jobs_own_unless_runs_travel_in_groups(manager):
    assert found(manager(app_with(task_time_limit=60), timeout=300)) == []
    assert one(manager(app_with(task_time_limit=60), timeout=300, group_max=10), "task_time_limit", "warning")


def test_a_limit_holds_for_jobs_without_a_timeout(manager):
    assert one(manager(app_with(task_time_limit=60)), "no timeout of their own: work", "note")


@pytest.mark.parametrize("timeout", [None, 3600])
def test_a_worker_that_a_long_run_would_end(manager, timeout):
    amqp = {"broker_url": f"amqp://127.0.0.1:{free_port()}//"}
    finding = one(manager(app_with(**amqp), timeout=timeout), "consumer_timeout", "warning")
    assert "as these may: work." in finding.text
    assert "broker_channel_error_retry=True" in finding.fix


def test_no_worker_is_ended_by_a_short_run_or_where_the_application_connects_again(manager):
    amqp = {"broker_url": f"amqp://127.0.0.1:{free_port()}//"}
    short, again = manager(app_with(**amqp), timeout=60), app_with(**amqp, broker_channel_error_retry=True)
    for jobs in (short, manager(again), manager(broker=amqp["broker_url"])):
        assert not [finding for finding in found(jobs) if "consumer_timeout" in finding.text]


def test_a_queue_that_the_application_does_not_know_and_does_not_make(manager):
    from kombu import Queue

    jobs = manager(app_with(task_create_missing_queues=False))
    finding = one(jobs, "knows no queue 'jobmanager'", "failing")
    assert finding.fix == "Add Queue('jobmanager') to task_queues."
    known = app_with(task_create_missing_queues=False, task_queues=[Queue("jobmanager")])
    assert found(manager(known)) == []


def test_what_else_lives_in_the_application_is_worth_a_note(manager):
    jobs = manager(
        app_with(
            beat_schedule={"mine": {"task": "x", "schedule": 60.0}},
            result_backend="cache+memory://",
            task_always_eager=True,
        )
    )
    notes = "\n".join(finding.text for finding in found(jobs, "note"))
    assert "beat_schedule goes on, in one beat at a time, without a record here: mine" in notes
    assert "a result backend is set" in notes
    assert "task_always_eager" in notes
    assert found(jobs) == []


# ---------------------------------------------------------------- who lives


@pytest.fixture
def company(manager):
    """A manager whose store knows other processes, as they told of themselves."""
    jobs = manager(every=60)
    jobs.sync()

    def lives(*, executes, ticked=False, host="one", since=timedelta(0)):
        now = jobs.store.now()
        instance = Instance(
            id=new_id(now),
            namespace="default",
            host=host,
            pid=os.getpid(),
            executes=executes,
            started_at=now - since,
            seen_at=now,
        )
        jobs.store.processes.register(instance, ["work"])
        jobs.store.processes.beat(
            instance.id, last_tick_at=now if ticked else None, lag_seconds=0.1 if ticked else None
        )
        return replace(instance)

    jobs.lives = lives
    return jobs


def test_beats_and_workers(company):
    company.lives(executes=False, ticked=True)
    company.lives(executes=False, ticked=True)
    company.lives(executes=True)
    assert found(company) == []
    assert "1 of them execute; 2 of them brought ticks" in one(company, "execute", "ok").text


def test_one_beat_alone_is_worth_a_note(company):
    company.lives(executes=False, ticked=True)
    company.lives(executes=True)
    assert found(company) == []
    assert one(company, "one beat alone", "note")


def test_no_worker(company):
    company.lives(executes=False, ticked=True)
    assert one(company, "No living process executes", "failing").fix == "Start `jobmanager worker`."


def test_no_beat(company):
    company.lives(executes=True)
    assert "jobmanager beat" in one(company, "No living process brings ticks", "failing").fix


def test_a_beat_that_has_only_just_started_is_believed(company):
    company.lives(executes=True)
    company.lives(executes=False)
    assert found(company) == []


def test_a_web_process_that_called_start_is_no_beat(company):
    company.lives(executes=True)
    company.lives(executes=False, since=timedelta(minutes=5))
    assert "None came at" in one(company, "No living process brings ticks", "failing").text


def test_an_sqlite_file_on_two_hosts(company):
    company.lives(executes=False, ticked=True, host="one")
    company.lives(executes=True, host="two")
    finding = one(company, "share one SQLite file", "failing")
    assert "Processes on one, two" in finding.text
    assert "PostgreSQL" in finding.fix

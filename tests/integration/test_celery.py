"""The same jobs on Celery: real beats and workers on a real broker, seen from another process of the application."""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from tests.integration.celery_processes import OWN_APP, Application, until

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.backends.celery import CeleryBackend
from jobmanager.backends.celery.application import make_app

pytestmark = [pytest.mark.slow, pytest.mark.servers]

JOBS = """
@jobs.job("tick", every=1, overlap="allow")
def tick(context: RunContext):
    context.log.info("in the worker")
    note("tick", context.run_id, context.attempt, os.getpid())
    return {"pid": os.getpid()}

@jobs.job("long")
def long(context: RunContext, seconds: float = 30):
    note("long", context.run_id, os.getpid())
    for _ in context.track(range(int(seconds * 20))):
        context.raise_if_cancelled()
        time.sleep(0.05)
    return "whole"

@jobs.job("coroutine")
async def coroutine(name: str = "you"):
    return f"hello {name}"

@jobs.job("twice", retry=Retry(max_attempts=2, delays=[0.5]))
def twice(context: RunContext):
    if context.attempt == 1:
        raise ValueError("not yet")
    return context.attempt
"""

MakeApplication = Callable[..., Application]


@pytest.fixture
def make_application(tmp_path: Path, redis_url: str) -> Iterator[MakeApplication]:
    made: list[Application] = []

    def make(
        source: str = JOBS, *, broker: str = redis_url, store: str | None = None, **options: object
    ) -> Application:
        made.append(
            Application(tmp_path, broker, store or f"sqlite:///{tmp_path}/jobs.db", source, **options)
        )
        return made[-1]

    yield make
    for application in made:
        application.close()


def declared(jobs: JobManager, *job_ids: str) -> JobManager:
    """The manager with jobs of these names, which it can start and never executes."""
    for job_id in job_ids:
        jobs.add_job(job_id, "shop:nothing_here")
    return jobs


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_ticks_become_runs_in_a_worker_and_both_end_with_code_0(
    make_application: MakeApplication, pool: str
) -> None:
    application = make_application()
    beat, worker = application.beat(), application.worker(pool=pool)
    jobs = application.manager()

    runs = until(lambda: len(found := jobs.runs("tick", status="succeeded")) >= 3 and found)

    run = runs[-1]
    assert run.scheduled_for is not None
    assert run.scheduled_for.microsecond == 0
    assert [line.text for _, _, line in jobs.store.history.lines(run.id)] == ["in the worker"]
    assert run.output["pid"] in [int(words[3]) for words in application.effects("tick")]
    assert (run.output["pid"] == worker.pid) == (pool != "prefork")
    assert (beat.end(), worker.end()) == (0, 0)
    assert jobs.store.processes.living() == []
    assert "Traceback" not in beat.log() + worker.log()
    assert {run.status for run in jobs.runs("tick")} <= {RunStatus.SUCCEEDED, RunStatus.PENDING}


def test_a_start_by_hand_is_executed_and_its_progress_is_seen_from_elsewhere(
    make_application: MakeApplication,
) -> None:
    application = make_application()
    application.worker()
    jobs = declared(application.manager(), "long", "coroutine")

    run = jobs.trigger_job("long", {"seconds": 2})
    until(lambda: (progress := jobs.run(run.id).progress) and progress.processed > 5)
    assert jobs.executors("long")
    assert jobs.wait(run.id, timeout=20).output == "whole"
    assert jobs.wait(jobs.trigger_job("coroutine", {"name": "Ana"}).id).output == "hello Ana"


def test_cancel_reaches_a_run_in_a_worker(make_application: MakeApplication) -> None:
    application = make_application()
    application.worker()
    jobs = declared(application.manager(), "long")
    run = jobs.trigger_job("long")
    until(lambda: application.effects("long"))

    jobs.cancel(run.id)

    ended = jobs.wait(run.id, timeout=20)
    assert (ended.status, ended.reason) == (RunStatus.CANCELLED, "requested")


def test_an_attempt_that_failed_comes_back_through_the_broker(make_application: MakeApplication) -> None:
    application = make_application()
    application.worker()
    jobs = application.manager()
    with jobs.store.jobs.lock("twice") as page:
        assert page.job.max_attempts == 2
    application.command("jobmanager", "--app", "shop:jobs", "trigger", "twice").wait()

    run = jobs.wait(until(lambda: jobs.runs("twice"))[0].id, timeout=20)

    assert (run.status, run.output, run.attempt) == (RunStatus.SUCCEEDED, 2, 2)
    [first] = jobs.store.history.attempts(run.id)
    assert first.error is not None
    assert first.error.type == "ValueError"


def test_what_changes_is_followed_by_a_beat_without_a_restart(make_application: MakeApplication) -> None:
    application = make_application()
    application.beat()
    application.worker()
    jobs = application.manager()
    until(lambda: jobs.runs("tick", status="succeeded"))

    jobs.registry.jobs.clear()
    jobs._assembly.account.change("tick", state="paused", by="test")
    until(lambda: jobs.runs("tick")[0].status is RunStatus.SKIPPED or not _rings(application))

    jobs._assembly.account.change("tick", state="active", by="test")
    before = len(application.effects("tick"))
    until(lambda: len(application.effects("tick")) > before, seconds=5)


def _rings(application: Application) -> bool:
    """Whether another tick is executed within two seconds and a half."""
    before = len(application.effects("tick"))
    try:
        until(lambda: len(application.effects("tick")) > before, seconds=2.5)
    except AssertionError:
        return False
    return True


def test_a_worker_with_a_beat_in_it_needs_no_other_process(make_application: MakeApplication) -> None:
    application = make_application()
    worker = application.worker("--beat", pool="prefork")
    jobs = application.manager()

    until(lambda: len(jobs.runs("tick", status="succeeded")) >= 2)

    assert worker.end() == 0, worker.log()


def test_many_runs_travel_in_few_messages(make_application: MakeApplication) -> None:
    source = (
        "for number in range(30):\n    jobs.add_job(f'job-{number}', lambda: 1, every=1, overlap='allow')\n"
    )
    application = make_application(source, celery_group_max=10)
    worker = application.worker()
    application.beat()
    jobs = application.manager()

    runs = until(lambda: len(found := jobs.runs(status="succeeded", limit=1000)) >= 90 and found)

    assert worker.log().count("] received") <= len(runs) / 5


def test_an_older_worker_leaves_what_it_does_not_know_to_a_newer_one(
    make_application: MakeApplication, tmp_path: Path
) -> None:
    application = make_application()
    old = application.worker()
    source = (tmp_path / "shop.py").read_text()
    (tmp_path / "shop.py").write_text(
        source + '\n@jobs.job("new")\ndef new():\n    return "by the new one"\n'
    )
    command = application.command("jobmanager", "--app", "shop:jobs", "trigger", "new")
    assert command.wait() == 0, command.log()
    jobs = application.manager()
    [run] = until(lambda: jobs.runs("new"))
    until(lambda: f"[{run.id}] received" in old.log())

    application.worker()

    assert jobs.wait(run.id, timeout=30).output == "by the new one"
    assert "Traceback" not in old.log()


def test_a_handler_that_the_worker_cannot_find_fails_the_run(make_application: MakeApplication) -> None:
    application = make_application(JOBS + '\njobs.add_job("gone", "shop:not_there")\n')
    application.worker()
    jobs = application.manager()
    command = application.command("jobmanager", "--app", "shop:jobs", "trigger", "gone")
    assert command.wait() == 0, command.log()

    run = jobs.wait(until(lambda: jobs.runs("gone"))[0].id, timeout=20)

    assert run.error is not None
    assert (run.status, run.error.kind) == (RunStatus.FAILED, "handler_missing")
    assert "not_there" in run.error.message


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_messages_that_are_none_of_ours_harm_nobody(
    make_application: MakeApplication, pool: str, redis_url: str
) -> None:
    """Unknown ids, no ids, other types, a pickle: fails if any of them ends the worker or starts something."""
    application = make_application()
    worker = application.worker(pool=pool)
    jobs = declared(application.manager(), "coroutine")
    sender = application.manager().backend.app  # type: ignore[attr-defined]
    for arguments in ([], [1], [None], ["nonsense"], ["01a20ffc-0f78-7591-8000-03ad6f591d4f"], [{"id": 1}]):
        sender.send_task("jobmanager.execute", args=arguments, queue="jobmanager")
    sender.conf.accept_content = ["json", "pickle"]
    sender.send_task("jobmanager.execute", args=["x"], serializer="pickle", queue="jobmanager")

    run = jobs.trigger_job("coroutine")

    assert jobs.wait(run.id, timeout=30).output == "hello you"
    assert worker.end() == 0, worker.log()
    assert "carries no run ids" in worker.log()


def test_a_pool_without_real_threads_is_refused(make_application: MakeApplication) -> None:
    application = make_application()
    (application.folder / "gevent.py").write_text("")
    process = application.command("jobmanager", "--app", "shop:jobs", "worker", "--pool", "gevent")

    assert process.wait() != 0
    assert "prefork" in process.log()


OTHERS_APP = """
from celery import Celery
app = Celery("theirs", broker=os.environ["BROKER"])
app.conf.beat_schedule = {"theirs": {"task": "theirs.note", "schedule": 1.0}}
app.conf.task_annotations = {"*": {"rate_limit": "1000/s"}}

@app.task(name="theirs.note")
def theirs_note():
    note("theirs", time.time())

jobs = JobManager(backend=CeleryBackend(app=app))
jobs.start()  # inert here: celery's own commands only import us
"""


def test_beside_the_application_s_own_tasks_and_schedule(make_application: MakeApplication) -> None:
    """`celery -A` as its users know it: their entries are sent by one of two beats, ours by both and once."""
    application = make_application(head=OTHERS_APP)
    scheduler = "jobmanager.backends.celery:Scheduler"
    beats = [
        application.command("celery", "-A", "shop", "beat", "-S", scheduler, "--pidfile=", "-l", "info").says(
            "store="
        )
        for _ in range(2)
    ]
    worker = application.command("celery", "-A", "shop", "worker", "-c", "2", "-l", "info").says(" ready.")
    jobs = application.manager()
    until(lambda: len(jobs.runs("tick", status="succeeded")) >= 3 and len(application.effects("theirs")) >= 3)

    senders = [beat for beat in beats if "this beat sends the application's own beat_schedule" in beat.log()]
    assert len(senders) == 1
    senders[0].kill()
    before = len(application.effects("theirs"))
    until(lambda: len(application.effects("theirs")) >= before + 3)

    times = sorted(time for beat in beats for time in _sending_times(beat.log()))
    assert all(later - earlier > 0.5 for earlier, later in itertools.pairwise(times)), times
    instants = [run.scheduled_for for run in jobs.runs("tick", limit=1000)]
    assert len(instants) == len(set(instants))
    started = [words[1] for words in application.effects("tick")]
    assert len(started) == len(set(started))
    assert worker.end() == 0, worker.log()


def _sending_times(log: str) -> list[float]:
    """When a beat said that it sends the application's own entry."""
    said = re.findall(r"\[(\S+ \S+): INFO/MainProcess\] Scheduler: Sending due task theirs", log)
    return [datetime.strptime(moment, "%Y-%m-%d %H:%M:%S,%f").timestamp() for moment in said]


def test_on_rabbitmq_with_quorum_queues(
    make_application: MakeApplication, rabbitmq_url: str, postgres_url: str
) -> None:
    application = make_application(broker=rabbitmq_url, store=postgres_url)
    beat, worker = application.beat(), application.worker(pool="prefork")
    jobs = declared(application.manager(), "coroutine")

    until(lambda: len(jobs.runs("tick", status="succeeded")) >= 2)
    assert jobs.wait(jobs.trigger_job("coroutine").id, timeout=20).output == "hello you"
    assert (beat.end(), worker.end()) == (0, 0)


def test_without_any_server_in_one_process(tmp_path: Path) -> None:
    """A laptop or a test: a beat in a thread, a worker in another, messages in memory."""
    from celery.contrib.testing.worker import start_worker

    backend = CeleryBackend(make_app("memory://"), beats=True)
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"), backend=backend)
    threads: list[str] = []
    jobs.add_job("tick", lambda: threads.append(threading.current_thread().name), every=1)
    with start_worker(backend.app, pool="threads", perform_ping_check=False, shutdown_timeout=20), jobs:
        run = until(lambda: jobs.runs("tick", status="succeeded"))[0]
        assert jobs.executors("tick")
        until(lambda: len(jobs.runs("tick", status="succeeded")) >= 3)

    assert jobs.run(run.id).attempt == 1
    assert threading.current_thread().name not in threads


BROKEN = """
from celery import bootsteps

class Broken(bootsteps.StartStopStep):
    requires = {"celery.worker.components:Pool"}

    def start(self, parent):
        raise RuntimeError("the step of an application")

celery.steps["worker"].add(Broken)
"""


def test_a_worker_that_celery_could_not_keep_up_ends_with_celery_s_code(
    make_application: MakeApplication,
) -> None:
    """Fails if the command drops it: a supervisor took the worker's end for wanted, and started none."""
    application = make_application(broker="memory://", head=OWN_APP + BROKEN)
    worker = application.command("jobmanager", "--app", "shop:jobs", "worker", "--pool", "solo")

    assert worker.wait() == 1, worker.log()
    assert "Unrecoverable error: RuntimeError('the step of an application')" in worker.log()


def test_a_beat_that_celery_could_not_keep_up_ends_with_a_code_other_than_0(
    make_application: MakeApplication,
) -> None:
    """Fails as the one above, for the other process."""
    head = OWN_APP + "celery.conf.beat_schedule = 3\n"
    beat = make_application(broker="memory://", head=head).command("jobmanager", "--app", "shop:jobs", "beat")

    assert beat.wait() != 0, beat.log()


def test_messages_in_files_need_no_server_either(make_application: MakeApplication, tmp_path: Path) -> None:
    (tmp_path / "messages").mkdir()
    folders = dict.fromkeys(
        ("data_folder_in", "data_folder_out", "control_folder"), str(tmp_path / "messages")
    )
    head = OWN_APP + f"celery.conf.broker_transport_options = {folders!r}\n"
    application = make_application(broker="filesystem://", head=head)
    application.beat()
    application.worker()
    jobs = application.manager()

    until(lambda: len(jobs.runs("tick", status="succeeded")) >= 2)


def test_a_job_s_queue_is_taken_by_the_workers_that_serve_it(make_application: MakeApplication) -> None:
    source = JOBS + '\n@jobs.job("report", queue="reports")\ndef report():\n    return "made"\n'
    application = make_application(source)
    application.worker("--queues", "jobmanager")
    command = application.command("jobmanager", "--app", "shop:jobs", "trigger", "report")
    assert command.wait() == 0, command.log()
    jobs = declared(application.manager(), "coroutine")
    [run] = jobs.runs("report")
    jobs.wait(jobs.trigger_job("coroutine").id, timeout=20)
    assert jobs.run(run.id).status is RunStatus.PENDING

    application.worker()  # told nothing: all queues that the jobs name

    assert jobs.wait(run.id, timeout=20).output == "made"


def test_a_queue_that_cannot_be_used_holds_nobody_else_up(make_application: MakeApplication) -> None:
    """Fails if whatever the broker or the application refuses counts as an outage: no run of any job would be sent."""
    head = OWN_APP + "celery.conf.task_create_missing_queues = False\n"
    source = JOBS + '\njobs.add_job("nowhere", lambda: 1, every=1, queue="nowhere", overlap="allow")\n'
    application = make_application(source, head=head)
    beat, worker = application.beat(), application.worker()
    jobs = application.manager()

    until(lambda: len(jobs.runs("tick", status="succeeded")) >= 4)

    assert {run.status for run in jobs.runs("nowhere")} == {RunStatus.PENDING}
    assert "cannot be sent to queue nowhere" in beat.log()
    assert "broker away" not in beat.log()
    assert "no queue nowhere" in worker.log()


def test_the_rights_that_the_page_lists_are_enough(make_application: MakeApplication, redis_url: str) -> None:
    """Fails if beat, worker or doctor needs a right that operators are not told of."""
    import redis

    page = (Path(__file__).parents[2] / "docs" / "howto" / "celery.md").read_text()
    [rights] = re.findall(r"^ACL SETUSER .*$", page, re.MULTILINE)
    with redis.Redis.from_url(redis_url) as client:
        client.execute_command(*rights.split())
        try:
            application = make_application(broker=redis_url.replace("://", "://jobs:PASSWORD@"))
            beat, worker = application.beat(), application.worker()
            jobs = application.manager()
            until(lambda: len(jobs.runs("tick", status="succeeded")) >= 2)
            doctor = application.command("jobmanager", "--app", "shop:jobs", "doctor")

            assert doctor.wait(60) == 0, doctor.log()
            assert "workers that answer: 1" in doctor.log()
            assert (beat.end(), worker.end()) == (0, 0)
            assert not re.search("NOPERM|NoPermission|no permissions", beat.log() + worker.log())
        finally:
            client.execute_command("ACL", "DELUSER", "jobs")


def test_a_beat_with_a_name_answers_celery_s_ping(make_application: MakeApplication) -> None:
    application = make_application()
    beat = application.beat("--name", "beat7@here")

    def asked() -> str:
        ping = application.command("celery", "-A", "shop", "inspect", "ping", "-d", "beat7@here", "-t", "5")
        return ping.log() if ping.wait() == 0 else ""

    assert "beat7@here" in until(
        asked
    )  # a probe that comes before the beat listens is lost, as with every node
    assert beat.end() == 0


def test_a_beat_and_a_worker_say_what_they_are_about_to_do_for_machines_too(
    make_application: MakeApplication,
) -> None:
    application = make_application()
    beat = application.command("jobmanager", "--app", "shop:jobs", "--json", "beat").says("store=")
    beat.end(signal.SIGINT)

    said = json.loads(beat.log().splitlines()[0])
    assert (said["process"], said["event"], said["jobs"]) == ("beat", "starting", 4)
    assert "Traceback" not in beat.log()


def test_the_own_app_can_be_served_by_celery_s_own_command(make_application: MakeApplication) -> None:
    application = make_application(head=OWN_APP)
    application.command("celery", "-A", "shop", "worker", "-P", "solo", "-l", "info").says(" ready.")
    jobs = declared(application.manager(), "coroutine")

    assert jobs.wait(jobs.trigger_job("coroutine").id, timeout=20).output == "hello you"


def test_a_handler_that_waits_for_what_needs_its_own_worker_is_told_what_to_do(
    make_application: MakeApplication,
) -> None:
    """One worker, one process. Fails if the wait blocks for ever, or if its end does not say why it was in vain."""
    source = """
@jobs.job("child")
def child():
    return "done"

@jobs.job("parent")
def parent():
    jobs.wait(jobs.trigger_job("child").id, timeout=1)
"""
    application = make_application(source)
    application.worker(pool="prefork", concurrency=1)
    jobs = declared(application.manager(), "parent")

    run = jobs.wait(jobs.trigger_job("parent").id, timeout=40)

    assert run.error is not None
    assert "keeps its worker, and the run may need one" in run.error.message
    assert "another queue for what they wait for" in run.error.message
    [left] = jobs.runs("child")
    assert jobs.wait(left.id, timeout=40).output == "done"

"""The store answers badly, late or not at all (F6, F9, F13, F29): no run is started twice, none is lost silently."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from apscheduler.schedulers.background import BackgroundScheduler
from tests.faults.conftest import LEASE, shape, until

from jobmanager import JobManager, Retry, RunContext, RunStatus
from jobmanager.errors import StoreError, StoreUnavailableError
from jobmanager.execution.opening import OpenRequest
from jobmanager.manager.sweep import FORGOTTEN_AFTER
from jobmanager.run import Ending, Run
from jobmanager.stores.values import Written
from jobmanager.testing import FakeClock

MakeManager = Callable[..., JobManager]


class Trouble:
    """Stands before `write` of a manager's store: `before` and `after` it something may go wrong, once per entry."""

    def __init__(self, jobs: JobManager) -> None:
        self.before: list[Callable[[Sequence[Run], Sequence[Ending]], None]] = []
        self.after: list[Callable[[Sequence[Run], Sequence[Ending]], None]] = []
        self.calls: list[tuple[int, int]] = []
        store: Any = jobs.store
        self._write = store.runs.write
        store.runs.write = self.write

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        self.calls.append((len(opens), len(endings)))
        if self.before:
            self.before.pop(0)(opens, endings)
        written: Written = self._write(opens, endings)
        if self.after:
            self.after.pop(0)(opens, endings)
        return written


def lost(*_: object, **__: object) -> None:
    raise StoreUnavailableError("the connection was lost")


@pytest.fixture
def counting() -> tuple[list[int], Callable[[RunContext], str]]:
    """A handler, and the attempts in which it was called."""
    calls: list[int] = []

    def handler(context: RunContext) -> str:
        calls.append(context.attempt)
        return "done"

    return calls, handler


@pytest.mark.parametrize("answers_lost", [1, 3])
def test_an_open_whose_answer_was_lost_after_the_commit_is_repeated_and_starts_once(
    store_url: str, make_manager: MakeManager, counting: Any, answers_lost: int
) -> None:
    """F9. Fails if the repeat carries a new id (a second run or none), or if a taken row is never recognised as ours."""
    calls, handler = counting
    jobs = make_manager(store_url)
    jobs.add_job("once", handler, overlap="allow")
    jobs.start()
    trouble = Trouble(jobs)
    trouble.after = [lost] * answers_lost
    run = jobs.trigger_job("once")

    assert jobs.wait(run.id).output == "done"
    assert calls == [1]
    assert [run.id for run in jobs.runs("once")] == [run.id]


def test_an_end_whose_answer_was_lost_is_repeated_and_stays_the_same(
    store_url: str, make_manager: MakeManager, counting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """F9. Fails if the second answer of the fence, no row, is taken for a refusal."""
    calls, handler = counting
    jobs = make_manager(store_url)
    jobs.add_job("once", handler)
    jobs.start()
    until(lambda: jobs._assembly.pool.in_flight == 0)
    trouble = Trouble(jobs)

    def lost_at_end(opens: Sequence[Run], endings: Sequence[Ending]) -> None:
        if endings:
            lost()

    trouble.after = [lost_at_end] * 3
    run = jobs.wait(jobs.trigger_job("once").id)
    until(lambda: sum(ends for _, ends in trouble.calls) >= 2)
    until(lambda: jobs._assembly.pool.in_flight == 0)

    assert (run.output, calls) == ("done", [1])
    assert jobs.run(run.id) == run
    assert "refused" not in caplog.text


def test_a_retry_whose_answer_was_lost_is_one_retry(store_url: str, make_manager: MakeManager) -> None:
    """F9, F29. Fails if the repeated retry is refused or counts another attempt."""
    calls: list[int] = []

    def failing(context: RunContext) -> str:
        calls.append(context.attempt)
        if context.attempt < 2:
            raise RuntimeError("once more")
        return "done"

    jobs = make_manager(store_url)
    jobs.add_job("again", failing, retry=Retry(max_attempts=3, delays=[0.05]))
    jobs.start()
    trouble = Trouble(jobs)

    def lost_at_retry(opens: Sequence[Run], endings: Sequence[Ending]) -> None:
        if any(ending.retry_at for ending in endings):
            lost()

    trouble.after = [lost_at_retry] * 4
    run = jobs.wait(jobs.trigger_job("again").id)

    assert (run.output, run.attempt, calls) == ("done", 2, [1, 2])
    assert [attempt.attempt for attempt in jobs.store.history.attempts(run.id)] == [1]


def test_an_end_that_cannot_be_written_is_tried_until_the_store_is_back(
    store_url: str, make_manager: MakeManager, counting: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """F29. Fails if the writer gives up; at most one line per five seconds tells of it."""
    calls, handler = counting
    jobs = make_manager(store_url)
    jobs.add_job("once", handler)
    jobs.start()
    trouble = Trouble(jobs)

    def lost_before_end(opens: Sequence[Run], endings: Sequence[Ending]) -> None:
        if away.is_set():
            trouble.before.insert(0, lost_before_end)
            if endings:
                lost()

    away = threading.Event()
    away.set()
    trouble.before = [lost_before_end]
    run = jobs.trigger_job("once")
    until(lambda: sum(ends for _, ends in trouble.calls) >= 4)
    away.clear()

    assert jobs.wait(run.id).output == "done"
    assert calls == [1]
    assert sum("store away" in record.getMessage() for record in caplog.records) <= 2


def test_a_row_the_store_cannot_keep_and_an_outage_at_that_moment_do_not_end_the_writer(
    store_url: str, make_manager: MakeManager, counting: Any
) -> None:
    """Fails if the writer's thread dies of the second error: nothing of this process would ever be written again."""
    _, handler = counting
    jobs = make_manager(store_url)
    jobs.add_job("bad", handler)
    jobs.add_job("good", handler)
    jobs.start()
    until(lambda: jobs._assembly.pool.in_flight == 0)
    trouble = Trouble(jobs)
    rounds = [
        StoreError("cannot be kept"),
        StoreUnavailableError("away"),
        StoreError("cannot be kept either"),
    ]

    def bad_end(opens: Sequence[Run], endings: Sequence[Ending]) -> None:
        trouble.before.insert(0, bad_end)
        if any(ending.run.job_id == "bad" for ending in endings) and rounds:
            raise rounds.pop(0)

    trouble.before = [bad_end]
    bad = jobs.trigger_job("bad")
    until(lambda: not rounds)
    good = jobs.trigger_job("good")

    assert jobs.wait(good.id).output == "done"
    assert not jobs.run(bad.id).status.closed  # until the sweep ends it as forgotten


@pytest.mark.parametrize("times", [1, 3])
def test_transactions_that_the_database_rolled_back_are_repeated(
    store_url: str, make_manager: MakeManager, counting: Any, times: int
) -> None:
    """F13: deadlock and serialization failure mean try again. Fails if they are taken for a bad row."""
    _, handler = counting
    jobs = make_manager(store_url)
    jobs.add_job("once", handler)
    jobs.start()
    trouble = Trouble(jobs)
    trouble.before = [lost] * times

    assert jobs.wait(jobs.trigger_job("once").id).output == "done"


REFUSING = """
CREATE SEQUENCE jobmanager.refused;
CREATE FUNCTION jobmanager.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  -- A sequence remembers what a rollback forgets.
  IF nextval('jobmanager.refused') <= 3 THEN RAISE EXCEPTION 'not now' USING ERRCODE = '{code}'; END IF;
  RETURN NEW; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON jobmanager.runs FOR EACH ROW EXECUTE FUNCTION jobmanager.refuse();
"""


@pytest.mark.servers
@pytest.mark.parametrize("code", ["40001", "40P01", "55P03", "57014"])
def test_what_postgresql_rolls_back_for_a_while_is_repeated_and_runs_once(
    postgres_url: str, make_manager: MakeManager, counting: Any, code: str
) -> None:
    """F13 by the server itself: serialization failure, deadlock, lock and statement time-out. Fails if one counts as a bad row."""
    import psycopg

    calls, handler = counting
    jobs = make_manager(postgres_url)
    jobs.add_job("once", handler)
    jobs.start()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(REFUSING.format(code=code))
        run = jobs.wait(jobs.trigger_job("once").id)
        refused = connection.execute("SELECT last_value FROM jobmanager.refused").fetchone()

    assert (run.output, calls) == ("done", [1])
    assert refused is not None
    assert refused[0] > 3


def test_a_process_whose_heartbeat_fails_starts_no_handler_after_its_lease(
    store_url: str, make_manager: MakeManager
) -> None:
    """F6. Fails without `lease_ok`: others may have buried it, and would start the run as well."""
    jobs = make_manager(store_url, lease_seconds=2 * LEASE)
    started = threading.Event()
    trusted: list[bool] = []

    def handler(context: RunContext) -> None:
        started.set()
        trusted.append(context.lease_ok())

    jobs.add_job("held", handler)
    jobs.start()
    until(lambda: jobs._assembly.pool.in_flight == 0)
    store: Any = jobs.store
    beat, store.processes.beat = store.processes.beat, lost
    until(lambda: not jobs._assembly.heartbeat.ok())
    jobs._assembly.runner.open([OpenRequest(jobs.registry.job("held"))])
    run = until(lambda: jobs.runs("held"))[0]
    assert not started.wait(2 * LEASE)  # that nothing happens meanwhile is what is tested
    store.processes.beat = beat

    assert jobs.wait(run.id).status is RunStatus.SUCCEEDED
    assert trusted == [True]


def test_a_run_that_waits_for_the_next_heartbeat_is_not_taken_for_forgotten(
    make_manager: MakeManager, tmp_path: Any
) -> None:
    """Fails if the sweep looks only at what the executor has begun: the run would end as crashed, and run besides."""
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db")
    jobs.add_job("held", lambda: "done")
    jobs.start()
    until(lambda: jobs._assembly.pool.in_flight == 0)
    store: Any = jobs.store
    lease = jobs._assembly.heartbeat
    beat, store.processes.beat = store.processes.beat, lost
    until(lambda: not lease.ok())
    jobs._assembly.runner.open([OpenRequest(jobs.registry.job("held"))])
    run = until(lambda: jobs.runs("held"))[0]

    assert until(lambda: jobs._assembly.executor.knows(run.id))
    time.sleep(0.2)
    assert jobs._assembly.executor.knows(run.id)
    store.processes.beat = beat
    assert jobs.wait(run.id).output == "done"


def test_a_heartbeat_that_meets_an_error_of_any_kind_is_not_the_last(
    make_manager: MakeManager, tmp_path: Any
) -> None:
    """Fails if the beating thread dies of it: a healthy process would be buried with all it runs."""
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db")
    jobs.start()
    store: Any = jobs.store
    beat = store.processes.beat
    met = threading.Event()

    def broken(*_: object, **__: object) -> bool:
        met.set()
        raise ZeroDivisionError

    store.processes.beat = broken
    assert met.wait(60)
    store.processes.beat = beat
    before = jobs.store.processes.living()[0].beats
    until(lambda: jobs.store.processes.living()[0].beats > before)


def test_a_run_of_ours_that_nobody_here_knows_is_ended_and_tried_again(
    make_manager: MakeManager, tmp_path: Any
) -> None:
    """The self-check: an answer was lost between the claim and our memory. Fails without it: the run stays running for ever."""
    clock = FakeClock()
    calls: list[int] = []
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db", clock=clock, lease_seconds=30)
    jobs.add_job("lost", lambda context: calls.append(context.attempt), retry=Retry(max_attempts=2))
    jobs.start()
    clock.advance(seconds=1)
    lease = jobs._assembly.heartbeat
    run = jobs._assembly.factory.build(OpenRequest(jobs.registry.job("lost")), clock.now(), ours=True)
    assert jobs.store.runs.write([run], ()).opened
    clock.advance(seconds=1)
    assert jobs.run(run.id).owner == lease.id  # one sweep may come between the commit and the start
    clock.advance(FORGOTTEN_AFTER + timedelta(seconds=1))
    clock.advance(FORGOTTEN_AFTER + timedelta(seconds=1))

    assert (jobs.run(run.id).status, calls) == (RunStatus.SUCCEEDED, [2])


def test_a_sweep_between_the_commit_and_the_start_does_not_end_the_run(
    store_url: str, make_manager: MakeManager, counting: Any
) -> None:
    """On a host whose clock is behind the database's every fresh run looks old. Fails if one look is enough."""
    calls, handler = counting
    jobs = make_manager(store_url)
    jobs.add_job("once", handler)
    jobs.start()
    until(lambda: jobs._assembly.pool.in_flight == 0)
    trouble = Trouble(jobs)
    factory: Any = jobs._assembly.factory
    build, behind = factory.build, datetime.now(UTC) - timedelta(minutes=1)
    factory.build = lambda *words, **more: replace(
        build(*words, **more), opened_at=behind, started_at=behind, due_at=behind
    )
    trouble.after = [lambda *_: jobs._assembly.sweep.sweep()]
    result = jobs._assembly.runner.accept(OpenRequest(jobs.registry.job("once")))
    run: Any = result.run

    assert jobs.wait(run.id).output == "done"
    assert calls == [1]


def test_one_job_that_cannot_be_settled_stops_no_other(
    store_url: str, make_manager: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Fails if the account stops at the first error: one row would silence every job behind it."""
    jobs = make_manager(store_url, grace_seconds=1)
    jobs.add_job("a-broken", lambda: None, every=1)
    jobs.add_job("b-healthy", lambda: None, every=1)
    jobs.sync()
    store: Any = jobs.store
    lock_job = store.jobs.lock

    def broken(job_id: str) -> Any:
        if job_id == "a-broken":
            raise StoreError("this row is bad")
        return lock_job(job_id)

    store.jobs.lock = broken
    time.sleep(2.2)  # ticks that nobody opens become the account's
    caplog.set_level(logging.CRITICAL, "jobmanager.ledger.reconciliation")
    jobs._assembly.account.settle_due()

    assert [run.status for run in jobs.runs("b-healthy")] != []


def test_a_schedule_that_this_version_cannot_read_is_left_to_those_who_can(
    make_manager: MakeManager, tmp_path: Any
) -> None:
    """Fails if the watermark moves all the same: the ticks of a rolling deployment would be gone without a row."""
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db", grace_seconds=1)
    jobs.add_job("newer", lambda: None, every=1)
    jobs.sync()
    with jobs.store.jobs.lock("newer") as page:
        page.save(replace(page.job, schedule="a schedule of next year"))
        before = page.job
    jobs._assembly.account.settle("newer")
    after = jobs.store.jobs.get("newer")

    assert after is not None
    assert (after.accounted_until, after.next_due_at) == (before.accounted_until, before.next_due_at)


def test_a_slow_reading_shortens_nobodys_lease(make_manager: MakeManager, tmp_path: Any) -> None:
    """Fails if silence is counted from before the reading: a sender that beat meanwhile would be buried while it trusts itself."""
    from jobmanager.process.failure_detector import FailureDetector

    clock = FakeClock()
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db", clock=clock, lease_seconds=30)
    other = make_manager(f"sqlite:///{tmp_path}/jobs.db", clock=clock, lease_seconds=30)
    for manager in (jobs, other):
        manager.store.install()
        manager._assembly.heartbeat.beat()
    store: Any = jobs.store
    instances = store.processes.living

    def slow() -> Any:
        clock.advance(seconds=9)
        other._assembly.heartbeat.beat()
        return instances()

    failure_detector = FailureDetector(store, clock, length=timedelta(seconds=30), on_dead=lambda: None)
    store.processes.living = slow
    failure_detector.check(jobs._assembly.heartbeat.id)
    store.processes.living = instances
    for _ in range(2):
        clock.advance(seconds=11)
        failure_detector.check(jobs._assembly.heartbeat.id)
    alive = {instance.id for instance in instances()}

    assert other._assembly.heartbeat.id in alive


def test_after_an_outage_for_everybody_nobody_is_buried(make_manager: MakeManager, tmp_path: Any) -> None:
    """Fails if what was seen before the outage still counts: all were silent, and all of them live."""
    clock = FakeClock()
    managers = [
        make_manager(f"sqlite:///{tmp_path}/jobs.db", clock=clock, lease_seconds=30) for _ in range(2)
    ]
    for manager in managers:
        manager.store.install()
        manager._assembly.heartbeat.beat()
    me, other = managers
    failure_detector = me._assembly.failure_detector
    failure_detector.check(me._assembly.heartbeat.id)
    clock.advance(seconds=7)
    failure_detector.check(me._assembly.heartbeat.id)
    clock.advance(seconds=40)  # nobody's beat got through
    failure_detector.check(me._assembly.heartbeat.id)

    assert other._assembly.heartbeat.id in {instance.id for instance in me.store.processes.living()}


def test_the_end_of_a_run_that_was_taken_over_is_refused(
    store_url: str, make_manager: MakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    """The fence. Fails without owner and attempt in the UPDATE that ends a run."""
    jobs, other = make_manager(store_url), make_manager(store_url)
    go, entered = threading.Event(), threading.Event()

    def first() -> str:
        entered.set()
        go.wait(100)
        return "from the first"

    jobs.add_job("fenced", first, retry=Retry(max_attempts=2))
    other.add_job("fenced", lambda: "from the second", retry=Retry(max_attempts=2))
    jobs.start()
    run = jobs.trigger_job("fenced")
    assert entered.wait(60)
    # It never learns that it was declared dead: had it, it would not even ask to write its end.
    store: Any = jobs.store
    store.processes.beat = lambda *_, **__: True
    until(
        lambda: other.store.processes.mark_dead(
            next(i for i in other.store.processes.living() if i.id == run.owner)
        )
    )
    other.start()
    until(lambda: other.run(run.id).status is RunStatus.SUCCEEDED)
    go.set()
    refused = "late writer refused: another process owns it"
    until(lambda: refused in caplog.text or other.run(run.id).output != "from the second")

    assert refused in caplog.text
    assert other.run(run.id).output == "from the second"
    assert shape(other.run(run.id)) == ("succeeded", None)


@pytest.mark.parametrize("attempts", [1, 2])
def test_a_run_opened_while_its_process_goes_is_not_started_and_given_back(
    store_url: str, make_manager: MakeManager, attempts: int
) -> None:
    """The store answered after the drain was over. Fails if the run stays running, or if it loses an attempt that never began."""
    calls: list[int] = []
    jobs = make_manager(store_url, lease_seconds=30)
    jobs.add_job("late", lambda context: calls.append(1), retry=Retry(max_attempts=attempts))
    jobs.start()
    until(lambda: jobs._assembly.pool.in_flight == 0)
    trouble = Trouble(jobs)
    writing, back = threading.Event(), threading.Event()

    def slow(*_: object) -> None:
        writing.set()
        back.wait(100)

    trouble.before = [slow]
    request = OpenRequest(jobs.registry.job("late"))
    opener = threading.Thread(target=jobs._assembly.runner.accept, args=(request,))
    opener.start()
    assert writing.wait(60)
    stopper = threading.Thread(target=jobs.stop, args=(0.1,))
    stopper.start()
    until(lambda: jobs._assembly.executor._drained)
    back.set()
    stopper.join(60)
    opener.join(60)

    assert not stopper.is_alive()
    assert calls == []
    left = jobs.runs("late")[0]
    assert (shape(left), left.attempt) == (("pending", "returned"), 0)
    assert jobs.store.processes.living() == []


def test_a_stop_while_it_comes_up_waits_for_that_and_leaves_nothing_behind(
    make_manager: MakeManager, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM at the moment the store answers at last. Fails if what is half up is stopped: an error, threads and a lease stay."""
    jobs = make_manager(f"sqlite:///{tmp_path}/jobs.db", lease_seconds=30)
    jobs.add_job("second", lambda: None, every=1)
    store: Any = jobs.store
    install, store.install = store.install, lost
    starting, go = threading.Event(), threading.Event()
    start = BackgroundScheduler.start

    def slow(scheduler: BackgroundScheduler, *words: Any) -> None:
        starting.set()
        go.wait(60)
        start(scheduler, *words)

    monkeypatch.setattr(BackgroundScheduler, "start", slow)
    jobs.start()
    store.install = install
    assert starting.wait(60)
    stopper = threading.Thread(target=jobs.stop, args=(1,))
    stopper.start()
    stopper.join(0.3)  # as long as it takes to do it wrong
    go.set()
    stopper.join(60)

    assert not jobs.started
    assert jobs.store.processes.living() == []
    assert not jobs._assembly.backend.health().ok

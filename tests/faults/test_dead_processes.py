"""A process is killed or stopped (F5, F23, F24): its runs end or are tried again, and it cannot write over what came after."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.faults.conftest import LEASE, PATIENCE, Process, effects, shape, until

from jobmanager import JobManager, Retry, RunStatus

StartProcess = Callable[..., Process]

LONG_RUNS = """
from jobmanager import Retry

@jobs.job("once")
def once():
    note("once")
    time.sleep(3)
    note("ended")

@jobs.job("twice", retry=Retry(max_attempts=2))
def twice(context):
    note("twice", context.attempt)
    time.sleep(3)
    note("ended")
"""


@pytest.fixture
def process(store_url: str, start_process: StartProcess) -> Process:
    return start_process(store_url, LONG_RUNS)


@pytest.fixture
def jobs(store_url: str, make_manager: Callable[..., JobManager]) -> JobManager:
    """Another process's manager on the same store; its handlers end at once."""
    manager = make_manager(store_url)
    manager.add_job("once", lambda: None)
    manager.add_job("twice", lambda: "taken over", retry=Retry(max_attempts=2))
    return manager


def running_there(process: Process, job_id: str, folder: Path) -> str:
    """Start a run in the other process, and wait until its handler is inside."""
    run_id: str = process(f"jobs.trigger_job({job_id!r}).id")
    until(lambda: any(line[0] == job_id for line in effects(folder)))
    return run_id


def test_the_run_of_a_killed_process_fails_as_crashed_within_a_few_leases(
    jobs: JobManager, process: Process, tmp_path: Path
) -> None:
    """Fails without failure_detector or takeover."""
    run_id = running_there(process, "once", tmp_path)
    process.close()
    jobs.start()

    assert shape(jobs.wait(run_id, timeout=PATIENCE)) == ("failed", "crashed")
    assert [instance.pid for instance in jobs.store.processes.living()] != [process.pid]


@pytest.mark.faults
def test_with_attempts_left_the_run_of_a_killed_process_is_tried_again(
    jobs: JobManager, process: Process, tmp_path: Path
) -> None:
    """Fails without failure_detector or takeover."""
    run_id = running_there(process, "twice", tmp_path)
    process.close()
    jobs.start()
    run = jobs.wait(run_id, timeout=PATIENCE)

    assert (run.status, run.attempt, run.output) == (RunStatus.SUCCEEDED, 2, "taken over")
    attempts = jobs.store.history.attempts(run_id)
    assert [(attempt.attempt, attempt.error and attempt.error.kind) for attempt in attempts] == [
        (1, "crashed")
    ]


def test_a_process_that_was_stopped_beyond_its_lease_cannot_write_over_its_successor(
    jobs: JobManager, process: Process, tmp_path: Path
) -> None:
    """F5. Fails without the fence: the zombie's end would replace the successor's."""
    run_id = running_there(process, "twice", tmp_path)
    process.stop()
    jobs.start()
    taken_over = jobs.wait(run_id, timeout=PATIENCE)
    process.send(signal.SIGCONT)
    until(lambda: ["ended"] in effects(tmp_path))
    until(lambda: "refused" in process.errors())

    assert taken_over.output == "taken over"
    assert jobs.run(run_id) == taken_over
    until(lambda: len(jobs.store.processes.living()) == 2)  # it goes on under a new id


@pytest.mark.faults
def test_a_living_process_is_never_buried(
    store_url: str, start_process: StartProcess, make_manager: Callable[..., JobManager]
) -> None:
    """Fails if death is judged by anything that one slow moment can fake."""
    lease = 3 * LEASE  # a busy machine lets a process stand still for a second
    start_process(store_url, LONG_RUNS, lease_seconds=lease)
    jobs = make_manager(store_url, lease_seconds=lease)
    jobs.start()
    before = {instance.id for instance in jobs.store.processes.living()}
    time.sleep(3 * lease)  # that nothing happens in three leases is what is tested

    assert {instance.id for instance in jobs.store.processes.living()} == before
    assert len(before) == 2


SECOND = """
@jobs.job("second", every=1)
def second(context):
    note("start", context.run_id, context.attempt)

@jobs.job("long")
def long(seconds: float):
    note("long")
    time.sleep(seconds)
"""


def test_sigterm_lets_what_runs_end_and_takes_nothing_new(
    store_url: str, start_process: StartProcess, make_manager: Callable[..., JobManager], tmp_path: Path
) -> None:
    """F23, G11. Fails if the drain waits for nothing, or if ticks are opened meanwhile."""
    process = start_process(store_url, SECOND, drain_seconds=30)
    run_id = process("jobs.trigger_job('long', {'seconds': 3}).id")
    until(lambda: ["long"] in effects(tmp_path))
    process.send(signal.SIGTERM)
    until(lambda: "draining" in process.errors())
    draining = datetime.now(UTC)
    assert process.wait() == 0
    ledger = make_manager(store_url)

    assert shape(ledger.run(run_id)) == ("succeeded", None)
    assert (datetime.now(UTC) - draining).total_seconds() > 1.5  # so that there were ticks to take
    # What was opened before the signal may still have started after it.
    assert all(run.scheduled_for < draining for run in ledger.runs("second", limit=500))


@pytest.mark.faults
def test_sigterm_records_what_outlives_the_drain_and_leaves_no_lease_behind(
    store_url: str, start_process: StartProcess, make_manager: Callable[..., JobManager], tmp_path: Path
) -> None:
    """F23, G11. Fails if leftovers stay running until somebody buries the process."""
    process = start_process(store_url, SECOND, drain_seconds=0.3, lease_seconds=60)
    run_id = process("jobs.trigger_job('long', {'seconds': 30}).id")
    until(lambda: ["long"] in effects(tmp_path))
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    jobs = make_manager(store_url)

    assert shape(jobs.run(run_id)) == ("failed", "shutdown")
    assert jobs.store.processes.living() == []


@pytest.mark.faults
def test_a_second_sigterm_leaves_at_once(store_url: str, start_process: StartProcess, tmp_path: Path) -> None:
    """F23. Fails if the second signal waits for the drain as well."""
    process = start_process(store_url, SECOND, drain_seconds=60)
    process("jobs.trigger_job('long', {'seconds': 60}).id")
    until(lambda: ["long"] in effects(tmp_path))
    process.send(signal.SIGTERM)
    until(lambda: "draining" in process.errors())
    process.send(signal.SIGTERM)

    assert process.wait(30) == 128 + signal.SIGTERM


FORKING = (
    SECOND
    + """
import faulthandler

def fork(count):
    children = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            code = 1
            faulthandler.dump_traceback_later(90, exit=True)  # one that hangs says where
            try:
                assert not jobs.started
                jobs.start()
                mine = jobs._assembly.heartbeat.id
                # By hand, under a key of its own: which process wins a tick is a lottery.
                run = jobs.trigger_job("long", {'seconds': 0}, scope=str(os.getpid()))
                assert jobs.wait(run.id).owner == mine, "this child executed nothing"
                jobs.stop()
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
"""
)


FORKING_AT_WORK = (
    SECOND
    + """
import faulthandler, logging, threading

logging.getLogger().addHandler(logging.FileHandler(os.devnull))

def read():
    jobs.runs("second", limit=1)

def log():
    logging.getLogger("another.library").warning("a line")

def fork(count, work):
    def for_ever():
        while True:
            work()

    for _ in range(3):
        threading.Thread(target=for_ever, daemon=True).start()
    codes = []
    for _ in range(count):
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(20, exit=True)
            work()
            os._exit(0)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return codes
"""
)


def test_a_child_can_use_the_store_whatever_the_parent_did_with_it_at_the_fork(
    tmp_path: Path, start_process: StartProcess
) -> None:
    """Fails if a fork does not wait for readers: the child inherits SQLite's own locks as they hold them, one time in 25."""
    process = start_process(f"sqlite:///{tmp_path}/jobs.db", FORKING_AT_WORK)

    assert set(process("fork(100, read)")) == {0}, process.errors()


def test_a_child_can_log_whatever_the_parent_logged_at_the_fork(
    tmp_path: Path, start_process: StartProcess
) -> None:
    """Fails if a fork does not wait for log handlers: the child inherits the stream's lock as a thread held it."""
    process = start_process(f"sqlite:///{tmp_path}/jobs.db", FORKING_AT_WORK)

    assert set(process("fork(20, log)")) == {0}


FORKING_WHILE_PLANNING = (
    SECOND
    + """
import faulthandler

def fork():
    with jobs.backend.timetable._lock:  # where the scheduler's thread is for some microseconds a tick
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(20, exit=True)
            jobs.start()
            jobs.stop()
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
)


def test_a_child_keeps_time_though_its_parent_was_planning_at_the_fork(
    tmp_path: Path, start_process: StartProcess
) -> None:
    """Fails if a child goes on with its parent's timetable, whose lock nobody there gives back."""
    process = start_process(f"sqlite:///{tmp_path}/jobs.db", FORKING_WHILE_PLANNING)

    assert process("fork()") == 0, process.errors()


def test_children_forked_after_start_use_nothing_of_their_parent_and_share_the_ticks(
    store_url: str, start_process: StartProcess, make_manager: Callable[..., JobManager], tmp_path: Path
) -> None:
    """F24. Fails if a child uses the parent's connection, lease or thread: errors, or a tick started twice."""
    process = start_process(store_url, FORKING, lease_seconds=5)
    until(lambda: effects(tmp_path))

    assert process("fork(3)") == [0, 0, 0], process.errors()
    assert process("jobs.wait(jobs.trigger_job('long', {'seconds': 0}).id).status") == "succeeded"
    starts = [tuple(line) for line in effects(tmp_path) if line[0] == "start"]
    assert len(starts) == len(set(starts))
    runs = make_manager(store_url).runs("second", limit=500)
    instants = [run.scheduled_for for run in runs]
    assert len(instants) == len(set(instants))
    # Skipped where a busy machine let one of them run into the next.
    assert {str(run.status) for run in runs} <= {"succeeded", "running", "skipped"}

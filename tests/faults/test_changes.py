"""Jobs that change between due and claim and while they run (F27), bulk outages (F30), tables of another version (F31)."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.faults.conftest import Process, effects, until

from jobmanager import JobManager
from jobmanager.errors import SchemaError
from jobmanager.testing import FakeClock

MakeManager = Callable[..., JobManager]
StartProcess = Callable[..., Process]

SECOND = """
@jobs.job("changed", every=1)
def changed(context):
    note("start", int(context.scheduled_for.timestamp()))
    time.sleep(0.1)
"""


def cover(jobs: JobManager) -> dict[int, str]:
    """Instant to status, ranges spread out; fails if an instant is covered twice."""
    covered: dict[int, str] = {}
    for run in jobs.runs("changed", limit=1000):
        assert run.scheduled_for is not None
        first = int((run.first_for or run.scheduled_for).timestamp())
        for instant in range(first, int(run.scheduled_for.timestamp()) + 1):
            assert instant not in covered or run.ticks > 1, f"{instant} twice"
            covered[instant] = str(run.status) if run.reason is None else f"{run.status}({run.reason})"
    return covered


def watermark(jobs: JobManager) -> int:
    row = jobs.store.jobs.get("changed")
    assert row is not None
    return int(row.accounted_until.timestamp())


def started(folder: Path) -> set[int]:
    return {int(line[1]) for line in effects(folder)}


@pytest.mark.parametrize(
    "state", ["paused", *(pytest.param(state, marks=pytest.mark.faults) for state in ("disabled", "deleted"))]
)
def test_after_a_change_no_process_opens_a_tick_by_the_old_rule(
    store_url: str, start_process: StartProcess, make_manager: MakeManager, tmp_path: Path, state: Any
) -> None:
    """F27. Fails without the revision guard and the state guard: the other process learns of the change only seconds later."""
    start_process(store_url, SECOND, grace_seconds=2)
    until(lambda: len(effects(tmp_path)) >= 2)
    here = make_manager(store_url, grace_seconds=2)
    row = here._assembly.account.change("changed", state=state, by="a test")
    end = int(row.accounted_until.timestamp())
    time.sleep(3)  # ticks that nobody may open

    assert max(started(tmp_path)) <= end
    if state == "paused":
        here._assembly.account.change("changed", state="active")
        resumed = watermark(here)
        until(lambda: max(started(tmp_path)) > resumed)
        last = max(started(tmp_path))
        # Ticks between the change and the moment the other process learned of it are the account's: they come later.
        until(lambda: set(range(end + 1, last + 1)) <= cover(here).keys())
        covered = cover(here)
        assert {covered[instant] for instant in range(end + 1, resumed + 1)} == {"skipped(paused)"}
        assert set(range(min(covered), last + 1)) <= covered.keys()


@pytest.mark.faults
def test_after_an_edit_the_old_rule_ends_where_the_new_one_begins(
    store_url: str, start_process: StartProcess, make_manager: MakeManager, tmp_path: Path
) -> None:
    """F27. Fails if a change does not settle first: ticks between the last run and the edit would have no row."""
    start_process(store_url, SECOND, grace_seconds=2)
    until(lambda: len(effects(tmp_path)) >= 2)
    newer = make_manager(store_url, grace_seconds=2)
    newer.add_job("changed", lambda: None, every=3)
    newer.sync()
    end = watermark(newer)
    until(lambda: max(started(tmp_path)) > end + 6)
    late = started(tmp_path)
    wanted = {instant for instant in range(end + 1, max(late) + 1) if instant % 3 == 0}
    until(lambda: wanted <= cover(newer).keys())
    covered = cover(newer)

    assert all(instant % 3 == 0 for instant in late if instant > end)
    assert set(range(min(covered), end + 1)) == {instant for instant in covered if instant <= end}


def test_a_run_goes_on_while_its_job_is_deleted_and_is_not_tried_again(
    store_url: str, start_process: StartProcess, make_manager: MakeManager, tmp_path: Path
) -> None:
    """F27. Fails without the job-open guard: a retry would bring a deleted job back to life."""
    source = """
import threading
from jobmanager import Retry

go = threading.Event()

@jobs.job("changed", retry=Retry(max_attempts=5, delays=[0.1]))
def changed():
    note("start", 0)
    go.wait()
    raise RuntimeError("once more")
"""
    process = start_process(store_url, source)
    run_id = process("jobs.trigger_job('changed').id")
    until(lambda: effects(tmp_path))
    here = make_manager(store_url)
    here._assembly.account.change("changed", state="deleted", by="a test")
    process("go.set()")
    until(lambda: here.run(run_id).status.closed)

    assert (str(here.run(run_id).status), here.run(run_id).attempt) == ("failed", 1)
    assert len(effects(tmp_path)) == 1


@pytest.mark.faults
def test_ten_thousand_overdue_ticks_are_settled_in_bites_and_starve_nobody(make_manager: MakeManager) -> None:
    """F30. Fails without the cap, or if a sweep settles everything in one transaction."""
    clock = FakeClock(datetime(2026, 3, 1, 12, tzinfo=UTC))
    jobs = make_manager("memory://", clock=clock, lease_seconds=30, sweep_seconds=30)
    ran: list[str] = []
    for number in range(100):
        jobs.add_job(
            f"bulk-{number:03}",
            lambda context: ran.append(context.job.id),
            every=60,
            catch_up="all",
            catch_up_cap=5,
            catch_up_window=86400,
        )
    jobs.start()
    clock.advance(seconds=61)
    jobs.stop()
    clock.step(100 * 60)
    ran.clear()
    store: Any = jobs.store
    slowest = 0.0
    lock_job = store.jobs.lock

    def timed(job_id: str) -> Any:
        nonlocal slowest, begin
        slowest, begin = max(slowest, time.monotonic() - begin), time.monotonic()
        return lock_job(job_id)

    begin = time.monotonic()
    store.jobs.lock = timed
    assert jobs._assembly.account.settle_due() == 100 * 5
    store.jobs.lock = lock_job
    jobs.start()
    clock.advance(seconds=1)
    clock.advance(seconds=60)

    assert slowest < 2
    assert len(set(ran)) == 100
    for number in range(100):
        rows = jobs.runs(f"bulk-{number:03}", limit=500)
        assert sum(run.ticks for run in rows) >= 100


@pytest.mark.faults
def test_a_bulk_outage_is_settled_on_each_store_while_other_jobs_go_on(
    store_url: str, make_manager: MakeManager
) -> None:
    """F30 with real threads and databases: 100 jobs, 100 overdue ticks each. Fails if the sweep takes the others' turn."""
    jobs = make_manager(store_url)
    bulk = [f"bulk-{number:03}" for number in range(100)]
    for job_id in bulk:
        jobs.add_job(job_id, lambda: None, every=60, catch_up="all", catch_up_cap=5, catch_up_window=86400)
    jobs.add_job("second", lambda: None, every=1, overlap="allow")
    jobs.sync()
    past = jobs.store.now() - timedelta(minutes=100)
    for job_id in bulk:
        with jobs.store.jobs.lock(job_id) as page:
            page.save(replace(page.job, accounted_until=past, history_from=past, next_due_at=past))
    slowest = 0.0
    store: Any = jobs.store
    lock_job = store.jobs.lock

    @contextmanager
    def timed(job_id: str) -> Iterator[Any]:
        nonlocal slowest
        begin = time.monotonic()
        with lock_job(job_id) as page:
            yield page
        slowest = max(slowest, time.monotonic() - begin)

    store.jobs.lock = timed
    jobs.start()
    for job_id in bulk:
        until(lambda job_id=job_id: len(jobs.runs(job_id, "succeeded")) >= 5)  # type: ignore[misc]
    last = int(jobs.store.now().timestamp())
    until(lambda: any(run.scheduled_for.timestamp() >= last for run in jobs.runs("second")))  # type: ignore[union-attr]

    assert slowest < 2
    for job_id in bulk:
        assert sum(run.ticks for run in jobs.runs(job_id, limit=500)) >= 99
    seconds = [
        int(run.scheduled_for.timestamp()) for run in jobs.runs("second", limit=500) if run.scheduled_for
    ]
    assert set(range(min(seconds), max(seconds) + 1)) == set(seconds)
    assert {run.trigger for run in jobs.runs("second", limit=500)} == {"schedule"}


def set_version(jobs: JobManager, version: str) -> None:
    store: Any = jobs.store
    table = store.schema._versions
    with store.database.writing() as connection:
        connection.execute(table.update().values(version_num=version))


def test_tables_of_a_newer_version_are_refused_with_the_way_out(
    store_url: str, make_manager: MakeManager
) -> None:
    """F31. Fails if the version is not looked at: an older program would write into tables it does not know."""
    first = make_manager(store_url)
    first.add_job("any", lambda: None, every=1)
    first.sync()
    set_version(first, "9999")
    second = make_manager(store_url)
    second.add_job("any", lambda: None, every=1)

    with pytest.raises(SchemaError, match=r"(?i)newer|install|upgrade"):
        second.start()
    assert not second.started
    assert second.store.history.runs() == []


@pytest.mark.servers
def test_older_tables_in_postgresql_are_refused_with_the_command_that_mends_them(
    postgres_url: str, make_manager: MakeManager
) -> None:
    """F31. Fails if a process upgrades under others that still run the old version."""
    first = make_manager(postgres_url)
    first.sync()
    set_version(first, "0000")
    with pytest.raises(SchemaError, match="jobmanager db upgrade"):
        make_manager(postgres_url).start()


DYING = """
import signal
import sqlalchemy as sa

start = False

def install_and_die(after):
    made = []

    def killed(_connection, _cursor, statement, *_):
        if statement.lstrip().startswith("CREATE"):
            made.append(statement)
            if len(made) == after:
                os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(jobs.store.database._engine, "after_cursor_execute", killed)
    jobs.store.install()
"""


@pytest.mark.parametrize("after", [1, 4, 12])
def test_tables_whose_maker_was_killed_half_way_are_made_by_the_next(
    each_store_url: str, start_process: StartProcess, make_manager: MakeManager, after: int
) -> None:
    """F31. Fails if the tables are made in more than one transaction."""
    process = start_process(each_store_url, DYING)
    process.tell(f"install_and_die({after})")
    assert process.wait() == -signal.SIGKILL
    jobs = make_manager(each_store_url)
    jobs.add_job("any", lambda: "ran")
    store: Any = jobs.store

    assert store.schema.version() is None
    jobs.start()
    assert store.schema.differences() == []
    assert jobs.wait(jobs.trigger_job("any").id).output == "ran"


def test_many_processes_make_the_tables_at_the_same_moment(
    store_url: str, start_process: StartProcess, make_manager: MakeManager, tmp_path: Path
) -> None:
    """F31. Fails if installing is a look before a leap: one of them would meet half-made tables."""
    processes = [start_process(store_url, SECOND, wait=False) for _ in range(4)]
    for process in processes:
        process.up()
    until(lambda: len(effects(tmp_path)) >= 2)

    assert all("Traceback" not in process.errors() for process in processes)
    assert len(make_manager(store_url).store.processes.living()) == 4

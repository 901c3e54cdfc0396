"""A stored run that cannot be read stops neither the other runs nor its own job, and is named."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.effort import sampled

from jobmanager import JobManager, Settings
from jobmanager.doctor.ledger import states
from jobmanager.errors import StoreError, UnreadableRowError
from jobmanager.observe.prometheus import text_of
from jobmanager.stores import store_for
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.stores.sql.tables import make_tables
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.slow

COLUMNS = [column for column in make_tables().runs.columns if column.name not in ("id", "job_id")]
# Values are SQL text. What the column refuses cannot be there.
IN_SQLITE = {"JSON": ["'{'", "'[1]'", "CAST(x'ff' AS TEXT)", "'{\"a\": 1}'"]}
ANYWHERE_IN_SQLITE = ["'nonsense'", str(2**62), "CAST(x'ff' AS TEXT)"]
IN_POSTGRES = {
    "JSON": ["'3'", "'[1]'", "'\"text\"'", '\'{"kind": 3, "message": []}\'', "'{\"a\": 1}'"],
    "Instant": ["'infinity'", "'-infinity'", "'200000-01-01'", "'0044-03-15 BC'"],
}
HOLDS_ITS_KEY = ("status", "turn", "concurrency_key", "owner")
"""Nobody may decide for a row that is neither pending nor running, or is said to be another process's."""

Make = Callable[[Any, FakeClock | None], tuple[JobManager, list[str]]]


@pytest.fixture
def manager() -> Iterator[Make]:
    """Make managers that are stopped in any case."""
    made: list[JobManager] = []

    def make(store: Any, clock: FakeClock | None) -> tuple[JobManager, list[str]]:
        settings = Settings(database_url="memory://", drain_seconds=1, sweep_seconds=1)
        jobs, ran = JobManager(settings, store=store, clock=clock), []
        jobs.job("bad")(lambda: ran.append("bad"))
        jobs.job("good", overlap="allow")(lambda: ran.append("good"))
        made.append(jobs)
        return jobs, ran

    yield make
    for jobs in made:
        jobs.stop()
        jobs.store.close()


def change(store: Any, statement: str) -> bool:
    """Change the row past the library; False if the table refuses that."""
    try:
        with store.database.writing() as connection:
            connection.exec_driver_sql(
                statement.replace("%", "%%") if store.database.tables.meta.schema else statement
            )
    except (StoreError, sqlite3.Error, sa.exc.SQLAlchemyError):
        return False
    return True


def started(jobs: JobManager, ran: list[str], name: str, clock: FakeClock | None, **options: Any) -> None:
    """Start this job by hand, and wait for its run."""
    before, deadline = ran.count(name), time.monotonic() + 10
    jobs.trigger_job(name, **options)
    while ran.count(name) == before:
        assert time.monotonic() < deadline, f"{name} does not run"
        if clock is not None:
            clock.advance(seconds=1)
        else:
            time.sleep(0.02)


def the_others_go_on(
    store: Any,
    make: Make,
    clock: FakeClock | None,
    spoiling: str,
    caplog: pytest.LogCaptureFixture,
    *,
    running: bool,
) -> None:
    """Spoil a waiting or running run, and hold that a new process goes on with everything else."""
    runs = store.database.tables.runs
    first, _ = make(store, clock)
    first.sync()
    bad = first.trigger_job("bad", delay=3600).id
    due = f"UPDATE {runs} SET due_at = opened_at WHERE id = '{bad}'"
    owned = f"UPDATE {runs} SET status = 'running', turn = 'holds', owner = '00000000-0000-7000-8000-00000000dead', started_at = opened_at, starts = 1 WHERE id = '{bad}'"
    assert change(store, owned if running else due)
    if not change(store, f"UPDATE {runs} SET {spoiling} WHERE id = '{bad}'"):
        return

    second, ran = make(store, clock)
    second.start()
    started(second, ran, "good", clock)
    second._assembly.sweep.sweep()
    started(second, ran, "good", clock, delay=1)
    named_where_unreadable(second, bad, caplog)
    second.get_all_job_statuses()
    second.get_job_metrics()
    second.health(thorough=True)
    assert "jobmanager_healthy" in text_of(second)
    if not spoiling.startswith(HOLDS_ITS_KEY):
        second._assembly.sweep.sweep()
        if "bad" not in ran:
            started(second, ran, "bad", clock)


def named_where_unreadable(jobs: JobManager, run_id: str, caplog: pytest.LogCaptureFixture) -> None:
    """Hold that a row that is left out was logged, and is named where somebody looks for it."""
    jobs.runs(limit=100)
    for found, why in jobs.store.history.unreadable().items():
        assert found == run_id
        assert why
        said = [record.getMessage() for record in caplog.records if run_id in record.getMessage()]
        assert any("its stored row cannot be read" in text for text in said), caplog.text
        with pytest.raises(UnreadableRowError, match=run_id):
            jobs.store.history.run(run_id)
        assert run_id not in {run.id for run in jobs.runs(limit=100)}
        texts = [finding.text for finding in states(jobs, str) if finding.check == "runs"]
        assert any(run_id in text for text in texts)


def cases(values: Mapping[str, Sequence[str]], others: Sequence[str] = ()) -> list[Any]:
    """Return SQL that spoils a column, for each column and value."""
    found = []
    for column in COLUMNS:
        kind = "JSON" if "JSON" in str(column.type).upper() else type(column.type).__name__
        found += [
            pytest.param(f"{column.name} = {value}", id=f"{column.name}-{value}")
            for value in values.get(kind, others)
        ]
    return sampled(found, every=6)


@pytest.mark.parametrize("running", [False, True], ids=["pending", "running"])
@pytest.mark.parametrize("spoiling", cases(IN_SQLITE, ANYWHERE_IN_SQLITE))
def test_whatever_a_column_holds_on_sqlite_the_others_go_on(
    tmp_path: Path, manager: Make, spoiling: str, running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "jobs.db", clock=clock)
    store.install()
    with store.database.writing() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = ON")
    the_others_go_on(store, manager, clock, spoiling, caplog, running=running)


@pytest.mark.servers
@pytest.mark.parametrize("running", [False, True], ids=["pending", "running"])
@pytest.mark.parametrize("spoiling", cases(IN_POSTGRES))
def test_whatever_a_column_holds_on_postgresql_the_others_go_on(
    postgres_url: str, manager: Make, spoiling: str, running: bool, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_for(Settings(database_url=postgres_url), FakeClock())
    the_others_go_on(store, manager, None, spoiling, caplog, running=running)


def sends_the_others(store: Any, make: Make, spoiling: str) -> None:
    jobs, _ = make(store, None)
    jobs.sync()
    bad, good = jobs.trigger_job("bad", delay=3600).id, jobs.trigger_job("good", delay=3600).id
    assert change(store, f"UPDATE {store.database.tables.runs} SET due_at = opened_at, dispatched_at = NULL")
    assert change(store, f"UPDATE {store.database.tables.runs} SET {spoiling} WHERE id = '{bad}'")
    assert [run.id for run in store.runs.to_dispatch("default", 10)] == [good]


@pytest.mark.parametrize("spoiling", ["payload = '['", "expires_at = 4611686018427387904", "error = '{}'"])
def test_what_cannot_be_read_is_not_sent_on_sqlite(tmp_path: Path, manager: Make, spoiling: str) -> None:
    sends_the_others(SqliteStore(tmp_path / "jobs.db"), manager, spoiling)


@pytest.mark.servers
@pytest.mark.parametrize("spoiling", ["payload = '[]'", "dispatched_at = '-infinity'", "error = '{}'"])
def test_what_cannot_be_read_is_not_sent_on_postgresql(
    postgres_url: str, manager: Make, spoiling: str
) -> None:
    sends_the_others(store_for(Settings(database_url=postgres_url), FakeClock()), manager, spoiling)


def test_an_unreadable_row_is_said_once(
    tmp_path: Path, manager: Make, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "jobs.db", clock=clock)
    jobs, _ = manager(store, clock)
    jobs.sync()
    bad = jobs.trigger_job("bad", delay=3600).id
    assert change(store, f"UPDATE jobmanager_runs SET payload = '[' WHERE id = '{bad}'")
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            jobs.runs()

    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"run_id={bad} is left out, its stored row cannot be read: column payload of run '{bad}' holds '['"
    ]

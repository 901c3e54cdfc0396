"""A stored job that cannot be used stops neither the start of a process nor the other jobs, and is named."""

from __future__ import annotations

import itertools
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.effort import sampled

from jobmanager import JobManager, Settings
from jobmanager.doctor.ledger import states
from jobmanager.errors import StoreError, UnreadableRowError
from jobmanager.stores import store_for
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.stores.sql.tables import make_tables
from jobmanager.testing import FakeClock

pytestmark = pytest.mark.slow

COLUMNS = [column.name for column in make_tables().jobs.columns if column.name != "id"]
HUGE = 2**62
# Values are SQL text. What the column refuses cannot be there.
IN_SQLITE = ["'nonsense'", str(HUGE), "-1", "CAST(x'ff' AS TEXT)", "'{'"]
IN_POSTGRES = {
    "jsonb": ["'3'", "'[1]'", "'\"text\"'", '\'{"every": "x"}\'', '\'{"max_attempts": [1], "timeout": {}}\''],
    "timestamptz": ["'infinity'", "'-infinity'", "'200000-01-01'", "'9999-12-31 23:59:59Z'"],
    "int": ["-1", "2147483647"],
    "bigint": ["-1"],
    "float": ["'infinity'", "'nan'", "1e300", "-1"],
    "text": ["''", "'nonsense'"],
    "bool": ["NULL"],
}


def spoil(store: Any, statement: str) -> bool:
    """Change the row past the library; False if the table refuses that."""
    try:
        with store.database.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE meta SET change_seq = change_seq + 1".replace("meta", str(store.database.tables.meta))
            )
            connection.exec_driver_sql(statement.replace("%", "%%") if store.schema.name else statement)
    except (StoreError, sqlite3.Error, sa.exc.SQLAlchemyError):
        return False
    return True


Make = Callable[..., tuple[JobManager, list[int]]]


@pytest.fixture
def manager() -> Iterator[Make]:
    """Make managers that are stopped in any case."""
    made: list[JobManager] = []

    def make(store: Any, clock: FakeClock | None) -> tuple[JobManager, list[int]]:
        jobs, ran = manager_of(store, clock)
        made.append(jobs)
        return jobs, ran

    yield make
    for jobs in made:
        jobs.stop()
        jobs.store.close()


def manager_of(store: Any, clock: FakeClock | None) -> tuple[JobManager, list[int]]:
    settings = Settings(database_url="memory://", drain_seconds=1)
    jobs, ran = JobManager(settings, store=store, clock=clock), []
    jobs.job("bad", every=1, config={"a": 1})(lambda a: None)
    jobs.job("good", every=1)(lambda: ran.append(1))
    jobs.job("zzz", every=3600)(lambda: None)
    return jobs, ran


def goes_on(jobs: JobManager, ran: list[int], clock: FakeClock | None) -> None:
    """Wait for the good job's next run."""
    before, deadline = len(ran), time.monotonic() + 20
    while len(ran) == before:
        assert time.monotonic() < deadline, "the good job does not run any more"
        if clock is not None:
            clock.advance(seconds=1)
        else:
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("column", "value"),
    sampled(
        [
            pytest.param(column, value, id=f"{column}-{value}")
            for column, value in itertools.product(COLUMNS, IN_SQLITE)
        ],
        every=6,
    ),
)
def test_whatever_a_column_holds_on_sqlite_the_others_go_on(
    tmp_path: Path, manager: Make, column: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "jobs.db", clock=clock)
    first, ran = manager(store, clock)
    first.start()
    goes_on(first, ran, clock)
    if not spoil(
        store, f"UPDATE jobmanager_jobs SET {column} = {value}, change_seq = change_seq + 9 WHERE id = 'bad'"
    ):
        first.stop()
        return
    clock.advance(seconds=6)  # the poll for changes
    goes_on(first, ran, clock)
    first.stop()

    second, ran_again = manager(store, clock)
    second.start()
    goes_on(second, ran_again, clock)
    clock.advance(minutes=3)
    goes_on(second, ran_again, clock)
    second.get_all_job_statuses()
    named_where_unreadable(store, caplog)
    second.stop()
    store.close()


def named_where_unreadable(store: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Hold that a row that is left out was logged, and is named where somebody looks for it."""
    for job_id, why in store.jobs.unreadable().items():
        assert job_id == "bad"
        assert why
        assert any("job=bad is left out" in record.getMessage() for record in caplog.records)
        with pytest.raises(UnreadableRowError, match="'bad'"):
            store.jobs.get("bad")
        assert [row.id for row in store.jobs.rows()] == ["good", "zzz"]


def cases() -> Iterator[Any]:
    kinds = {
        "BIGINT": "bigint",
        "INTEGER": "int",
        "FLOAT": "float",
        "TEXT": "text",
        "BOOLEAN": "bool",
        "JSON": "jsonb",
    }
    for column in make_tables().jobs.columns:
        if column.name == "id":
            continue
        name = type(column.type).__name__
        kind = "timestamptz" if name == "Instant" else kinds[str(column.type).upper()]
        for value in [*IN_POSTGRES[kind], "NULL"]:
            yield pytest.param(column.name, value, id=f"{column.name}-{value}")


@pytest.mark.servers
@pytest.mark.parametrize(("column", "value"), sampled(list(cases()), every=6))
def test_whatever_a_column_holds_on_postgresql_the_others_go_on(
    postgres_url: str, manager: Make, column: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = store_for(Settings(database_url=postgres_url), FakeClock())
    first, _ = manager(store, None)
    first.sync()
    if not spoil(store, f"UPDATE jobmanager.jobs SET {column} = {value} WHERE id = 'bad'"):
        return

    second, ran = manager(store, None)
    second.start()
    goes_on(second, ran, None)
    second._assembly.job_sync.refresh()
    second._assembly.account.settle_due()
    second.get_all_job_statuses()
    named_where_unreadable(store, caplog)
    second.stop()
    store.close()


def test_many_unreadable_rows_are_said_once_each_and_cost_few_statements(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "jobs.db", clock=clock)
    jobs = JobManager(Settings(database_url="memory://"), store=store, clock=clock)
    for number in range(500):
        jobs.schedule_job(f"job-{number:03}", "a job", lambda: None, interval=60)
    jobs.sync()
    for number in (7, 300):
        spoil(store, f"UPDATE jobmanager_jobs SET override = '{{' WHERE id = 'job-{number:03}'")
    reads, read = [], store.jobs._read

    def counted(query: Any, make: Callable[[Any], Any], asked: Any) -> list[Any]:
        reads.append(query)
        return read(query, make, asked)

    monkeypatch.setattr(store.jobs, "_read", counted)
    with caplog.at_level(logging.ERROR):
        assert len(store.jobs.rows()) == 498
        assert len(store.jobs.rows()) == 498

    said = [record.getMessage() for record in caplog.records if "is left out" in record.getMessage()]
    assert [text.split()[0] for text in said] == ["job=job-007", "job=job-300"]
    assert len(reads) < 2 * 45
    store.close()


def test_doctor_names_the_row(tmp_path: Path, manager: Make) -> None:
    clock = FakeClock()
    store = SqliteStore(tmp_path / "jobs.db", clock=clock)
    jobs, _ = manager(store, clock)
    jobs.sync()
    spoil(store, "UPDATE jobmanager_jobs SET override = '[1]' WHERE id = 'bad'")

    found = [finding for finding in states(jobs, str) if finding.level == "failing"]

    assert [finding.text for finding in found] == [
        "The stored row of job 'bad' cannot be read, so the job is left out: column override of job 'bad' holds [1]."
    ]

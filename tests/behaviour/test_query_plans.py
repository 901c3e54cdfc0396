"""Every question that is asked often has an index that answers it: the plans SQLite makes."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from jobmanager.run import PENDING, Run, new_id
from jobmanager.stores.sql.database import newest_of
from jobmanager.stores.sql.sqlite import SqliteStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    made = SqliteStore(tmp_path / "jobs.db")
    made.install()
    return made


def plan(store: SqliteStore, query: sa.Select[tuple[object, ...]]) -> str:
    compiled = query.compile(dialect=store.database._engine.dialect, compile_kwargs={"literal_binds": True})
    with store.database.reading() as connection:
        return "\n".join(row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}"))


@pytest.mark.parametrize("before", [False, True])
def test_a_page_of_a_job_walks_its_ticks_and_its_runs_by_hand(store: SqliteStore, before: bool) -> None:
    last = Run(id=new_id(NOW), job_id="job", status=PENDING, opened_at=NOW, due_at=NOW, concurrency_key="job")

    steps = plan(
        store, newest_of(store.database.tables.runs, "job", limit=50, before=last if before else None)
    )

    assert "USING INDEX jobmanager_runs_tick (job_id=? AND scheduled_for" in steps
    assert "USING INDEX jobmanager_runs_by_hand (job_id=?" in steps
    assert "SCAN jobmanager_runs" not in steps
    assert steps.count("TEMP B-TREE") == 1  # for what both halves found together

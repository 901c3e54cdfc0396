"""What asks for notifications and alarms is led by an index, and a run that tells nobody asks nothing more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from jobmanager import JobManager, Settings
from jobmanager.run import Notice
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.stores.sql.sqlite_database import driver_of
from jobmanager.testing import FakeClock

MINUTE = timedelta(minutes=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(tmp_path / "jobs.db")
    made.install()
    yield made
    made.close()


ASKED: dict[str, Callable[[SqliteStore], object]] = {
    "add": lambda store: store.outbox.add(
        [
            Notice(namespace="default", event=event, subject="run", channel="email", job_id="job")
            for event in ("failed", "recovered")
        ]
    ),
    "claim": lambda store: store.outbox.claim("default", ["email"], quiet=MINUTE, lease=MINUTE, limit=5),
    "begin": lambda store: store.outbox.begin_sending("message", MINUTE),
    "sent": lambda store: store.outbox.note_sent("message"),
    "failed": lambda store: store.outbox.note_failed(
        "message", "no", pauses=[MINUTE], begun=False, unsure=False
    ),
    "counts": lambda store: store.outbox.counts("default"),
    "missed": lambda store: store.lookout.missed(["job"], store.now(), 10),
    "running": lambda store: store.lookout.running(["job"], 10),
    "not started": lambda store: store.lookout.not_started(["job"], store.now(), 10),
    "backlog": lambda store: store.lookout.backlog("default", 10),
}


@pytest.mark.parametrize("name", sorted(ASKED))
def test_no_question_reads_a_whole_table(store: SqliteStore, name: str) -> None:
    store.outbox.add(
        [Notice(namespace="default", event="failed", subject="first", channel="email", job_id="job")]
    )
    plans: list[str] = []

    def explain(_conn: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if not many and statement.startswith(("SELECT", "UPDATE", "DELETE")):
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            plans.extend(row[3] for row in rows)

    sa.event.listen(store.database._engine, "before_cursor_execute", explain)
    ASKED[name](store)

    tables = ("SCAN jobmanager_notifications", "SCAN jobmanager_runs")
    assert [step for step in plans if step.startswith(tables) and "INDEX" not in step] == []


def statements_of_a_run(clock: FakeClock, url: str, **settings: Any) -> list[str]:
    """Every statement of one run that fails, of a job that tells nobody."""
    jobs = JobManager(Settings(backend="local", database_url=url, **settings), clock=clock)

    def fail() -> None:
        raise OSError("no disk")

    jobs.add_job("work", fail)
    jobs.start()
    database = jobs.store.database  # type: ignore[attr-defined]
    said: list[str] = []
    run = jobs.trigger_job("work", delay=1)
    driver_of(database.opened_writer()).set_trace_callback(said.append)
    jobs._assembly.claims.claim_these([run.id])
    clock.sleep(2)
    jobs._assembly.claims.claim_these([run.id])
    driver_of(database.opened_writer()).set_trace_callback(None)
    assert jobs.run(run.id).status == "failed"
    jobs.stop()
    return [text.partition("'")[0] for text in said]


def test_a_run_that_tells_nobody_costs_no_statement_more(tmp_path: Path) -> None:
    plain = statements_of_a_run(FakeClock(), f"sqlite:///{tmp_path}/plain.db")
    told = statements_of_a_run(
        FakeClock(),
        f"sqlite:///{tmp_path}/told.db",
        smtp_url="smtp://127.0.0.1:1",
        alerts_email="ops@example.org",
    )

    assert plain
    assert not [text for text in [*plain, *told] if "INTO jobmanager_notifications" in text]
    assert told == plain

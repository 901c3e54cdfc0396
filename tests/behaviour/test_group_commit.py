"""Many writers, few transactions; an outage is waited out and one bad row stands alone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager.clock import SystemClock
from jobmanager.errors import StoreUnavailableError
from jobmanager.ledger.group_commit import GroupCommit
from jobmanager.run import PENDING, Ending, Run, new_id
from jobmanager.stores.sql.database import Database
from jobmanager.stores.sql.sqlite import SqliteStore
from jobmanager.stores.sql.sqlite_runs import SqliteRuns
from jobmanager.stores.values import JobRow, Written

NOW = datetime.now(UTC)


class TroubledRuns(SqliteRuns):
    """Runs of a real store that can be made unavailable, and counts its transactions."""

    away = False

    def __init__(self, database: Database, grace: timedelta) -> None:
        super().__init__(database, grace)
        self.batches: list[int] = []

    def write(self, opens: Sequence[Run], endings: Sequence[Ending]) -> Written:
        if self.away:
            raise StoreUnavailableError("away")
        self.batches.append(len(opens) + len(endings))
        return super().write(opens, endings)


class TroubledStore(SqliteStore):
    runs: TroubledRuns

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.runs = TroubledRuns(self.database, timedelta(seconds=60))


@pytest.fixture
def store(tmp_path: Path) -> TroubledStore:
    store = TroubledStore(tmp_path / "jobs.db")
    store.install()
    store.jobs.add(
        [
            JobRow(
                id="a",
                namespace="default",
                declared="{}",
                schedule="none",
                accounted_until=NOW,
                history_from=NOW,
                next_due_at=None,
            )
        ]
    )
    return store


def run() -> Run:
    now = datetime.now(UTC)
    return Run(
        id=new_id(now),
        job_id="a",
        status=PENDING,
        trigger="manual",
        opened_at=now,
        accepted_at=now,
        due_at=now,
        concurrency_key="a",
    )


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_what_waits_while_one_batch_is_written_is_the_next_batch(store: TroubledStore) -> None:
    commits = GroupCommit(store, SystemClock(), threaded=True)
    answers: list[Written] = []
    with store.database.writing():  # the writer has to wait, and the others gather behind it
        commits.open([run()], answers.append)
        until(lambda: commits.is_writing)
        for _ in range(50):
            commits.open([run()], answers.append)
    until(lambda: len(answers) == 51)

    assert store.runs.batches == [1, 50]
    assert len(store.history.runs(limit=100)) == 51
    commits.stop(5)


def test_an_outage_is_waited_out_and_nothing_is_written_twice(store: TroubledStore) -> None:
    commits = GroupCommit(store, SystemClock(), threaded=True)
    answers: list[Written] = []
    store.runs.away = True
    for _ in range(5):
        commits.open([run()], answers.append)
    time.sleep(0.2)  # long enough for several tries; none may answer
    assert answers == []
    store.runs.away = False
    until(lambda: len(answers) == 5)

    assert len(store.history.runs(limit=100)) == 5
    commits.stop(5)


def test_one_row_that_cannot_be_kept_stands_alone(store: TroubledStore) -> None:
    commits = GroupCommit(store, SystemClock(), threaded=False)
    good, bad = [run() for _ in range(6)], replace(run(), trigger="nonsense")  # type: ignore[arg-type]
    answers: list[Written] = []
    commits.open([*good[:3], bad, *good[3:]], answers.append)

    assert set(answers[0].opened) == {each.id for each in good}
    assert list(answers[0].errors) == [bad.id]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_writer_that_a_log_handler_ended_is_followed_by_another(store: TroubledStore) -> None:
    """Fails if the thread that died counts as the writer: nothing would ever be written again, and nobody told."""

    class Hostile(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise SystemExit

    def fails(_: Written) -> None:
        raise RuntimeError("what follows a commit")

    commits = GroupCommit(store, SystemClock(), threaded=True)
    answers: list[Written] = []
    hostile, log = Hostile(), logging.getLogger("jobmanager")
    log.addHandler(hostile)
    try:
        commits.open([run()], fails)
        writer = commits._thread
        assert writer is not None
        writer.join(10)
        assert not writer.is_alive()
    finally:
        log.removeHandler(hostile)
    commits.open([run()], answers.append)
    until(lambda: answers)

    assert len(answers[0].opened) == 1
    commits.stop(5)


def test_stop_writes_what_waits(store: TroubledStore) -> None:
    commits = GroupCommit(store, SystemClock(), threaded=True)
    written = threading.Event()
    commits.open([run()], lambda _: written.set())
    commits.stop(5)
    commits.stop(5)

    assert written.is_set()
    assert len(store.history.runs()) == 1


def test_a_job_whose_every_start_is_refused_is_said_once_in_five_seconds(
    store: TroubledStore, caplog: pytest.LogCaptureFixture
) -> None:
    commits = GroupCommit(store, SystemClock(), threaded=False)
    for _ in range(20):
        commits.open([replace(run(), trigger="nonsense")], lambda _: None)  # type: ignore[arg-type]

    assert sum("cannot be recorded" in record.getMessage() for record in caplog.records) == 1

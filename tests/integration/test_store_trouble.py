"""The store is locked, full or read-only: the process lives, says so, and goes on; nothing that was due is lost."""

from __future__ import annotations

import itertools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from jobmanager import JobManager, Run, RunStatus, Settings
from jobmanager.errors import StoreUnavailableError
from jobmanager.job import CatchUp
from jobmanager.stores.sql.sqlite import SqliteStore

NOBODY = 65534


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for the condition; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    manager = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/data/jobs.db", grace_seconds=60))
    (tmp_path / "data").mkdir()

    @manager.job("second", every=1, overlap="allow")  # a run whose end must wait does not skip the next
    def second() -> str:
        return "x" * 20_000

    yield manager
    manager.stop(drain=1)


@contextmanager
def readers_without_a_gap(jobs: JobManager) -> Iterator[None]:
    """Four threads read by turns, so that at each moment one of them holds a connection."""
    store, leave = jobs.store, threading.Event()
    assert isinstance(store, SqliteStore)

    def read() -> None:
        while not leave.is_set():
            with suppress(StoreUnavailableError), store.database.reading() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM jobmanager_runs").scalar_one()
                leave.wait(0.05)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        leave.set()
        for thread in threads:
            thread.join(60)


def every_second_is_on_record(jobs: JobManager) -> bool:
    instants = sorted(run.scheduled_for for run in jobs.runs("second", limit=500) if run.scheduled_for)
    steps = {(b - a).total_seconds() for a, b in itertools.pairwise(instants)}
    return bool(instants) and steps == {1.0}


def test_a_lock_held_by_a_foreign_writer_is_waited_out(jobs: JobManager) -> None:
    jobs.start()
    until(lambda: jobs.runs("second"))
    foreign = sqlite3.connect(jobs.settings.database_path or "", isolation_level=None)
    foreign.execute("BEGIN IMMEDIATE")
    time.sleep(3)  # the length of the lock is what is tested
    foreign.execute("COMMIT")

    until(lambda: len(jobs.runs("second", "succeeded")) >= 5)
    until(lambda: every_second_is_on_record(jobs))


def test_a_full_disk_stops_nothing_and_loses_nothing(
    jobs: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    jobs.start()
    until(lambda: jobs.runs("second"))
    store = jobs.store
    assert isinstance(store, SqliteStore)
    with store.database.writing() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    until(lambda: "disk is full" in caplog.text)
    said = sum("disk is full" in record.getMessage() for record in caplog.records)
    with store.database.writing() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

    assert said <= 3
    until(lambda: "store is back" in caplog.text or every_second_is_on_record(jobs))
    until(lambda: len(jobs.runs("second", "succeeded")) >= 4)
    until(lambda: every_second_is_on_record(jobs))
    assert {run.status for run in jobs.runs("second", limit=500)} <= {RunStatus.SUCCEEDED, RunStatus.RUNNING}


@pytest.mark.parametrize("catch_up", ["latest", "all"])
def test_what_a_full_disk_held_up_did_not_overlap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, catch_up: CatchUp
) -> None:
    """Fails if a tick that the store could not take is recorded as skipped (overlap): no handler ran when it was due."""
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db"))
    hold, release = threading.Event(), threading.Event()

    def second() -> str:
        if hold.is_set():
            release.wait(60)
        return "x" * 20_000  # fills what room is left

    jobs.add_job("second", second, every=1, catch_up=catch_up)
    jobs.start()
    until(lambda: jobs.runs("second", "succeeded"))
    store = jobs.store
    assert isinstance(store, SqliteStore)
    try:
        with store.database.writing() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        until(lambda: "disk is full" in caplog.text)
        full_since = datetime.now(UTC)
        until(lambda: datetime.now(UTC) > full_since + timedelta(seconds=4))
        hold.set()  # the first of them is executed still when the others are decided
        lifted = datetime.now(UTC)
        with store.database.writing() as connection:
            connection.exec_driver_sql("PRAGMA max_page_count = 1000000")

        def held_up() -> list[Run]:
            runs = [run for run in jobs.runs("second", limit=100) if run.scheduled_for]
            return [run for run in runs if full_since < run.instant <= lifted]

        until(lambda: len(held_up()) >= 3)
        assert not [run for run in held_up() if run.reason == "overlap"]
        if catch_up == "latest":
            missed = [run for run in held_up() if run.status is RunStatus.MISSED]
            assert len(missed) >= 2
            assert {(run.reason, run.error and run.error.kind) for run in missed} == {
                ("transport", "transport")
            }
            assert all("disk is full" in run.error.message for run in missed if run.error)
        release.set()
        until(lambda: not [run for run in held_up() if not run.status.closed])
        if catch_up == "all":
            assert {run.status for run in held_up()} == {RunStatus.SUCCEEDED}
    finally:
        release.set()
        jobs.stop(drain=5)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_a_read_only_folder_is_named_and_the_manager_comes_up_when_it_is_writable(
    jobs: JobManager, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "jobmanager")
    jobs.store.exists()  # everything is imported before the process may read no files of root's
    os.seteuid(NOBODY)
    try:
        with pytest.raises(StoreUnavailableError, match="cannot be opened"):
            jobs.trigger_job("second")
        jobs.start()
        assert "not up yet" in caplog.text
    finally:
        os.seteuid(0)

    until(lambda: "up: the store answers" in caplog.text)
    until(lambda: jobs.runs("second", "succeeded"))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not write")
def test_a_read_only_file_stops_nothing_and_is_written_again_when_it_is_writable(
    jobs: JobManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    jobs.start()
    until(lambda: jobs.runs("second"))
    jobs.stop()
    for file in (tmp_path / "data").iterdir():
        file.chmod(0o444)
    (tmp_path / "data").chmod(0o777)
    os.seteuid(NOBODY)
    try:
        jobs.store.close()  # what is opened from here on is opened by nobody
        jobs.start()
        # Without its log beside it, SQLite cannot even open a file that it may not write.
        until(lambda: "read-only" in caplog.text or "cannot be opened" in caplog.text)
        with readers_without_a_gap(jobs):
            os.seteuid(0)
            for file in (tmp_path / "data").iterdir():
                file.chmod(0o666)
            until(lambda: len(jobs.runs("second", "succeeded")) >= 4)
    finally:
        os.seteuid(0)
    until(lambda: every_second_is_on_record(jobs))

"""The judge of chaos runs, on ledgers written by hand: it finds each kind of violation and lets legal histories be."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.faults.chaos import checker
from tests.faults.chaos.checker import Database

from jobmanager.stores.sql.sqlite import SqliteStore

T0 = int(time.time()) // 60 * 60 - 600
GRACE = 2.0
INSTANTS = {
    "accounted_until", "history_from", "scheduled_for", "first_for", "due_at", "started_at", "finished_at",
    "opened_at", "seen_at", "dead_at",
}  # fmt: skip
FILLED = {"change_seq": 1, "schedule": "every 1s", "state": "active", "trigger": "schedule"}


class Ledger:
    """The real tables in a file, written to without the library, and the log of what handlers did."""

    def __init__(self, folder: Path) -> None:
        with closing(SqliteStore(folder / "jobs.db")) as store:
            store.install()
        self.database = Database(f"sqlite:///{folder}/jobs.db")
        self.database.log_transitions()
        self.effects = folder / "effects"
        self.effects.touch()
        self._sql = sqlite3.connect(folder / "jobs.db", isolation_level=None)

    def close(self) -> None:
        self._sql.close()

    def add(self, table: str, **given: Any) -> None:
        """Insert a row; what must have a value and is not given gets an empty one."""
        row = {**given}
        for _, column, kind, required, default, _ in self._sql.execute(
            f"PRAGMA table_info(jobmanager_{table})"
        ):
            if required and default is None:
                row.setdefault(column, FILLED.get(column, "" if kind == "TEXT" else 0))
        names, values = zip(*((name, _stored(name, value)) for name, value in row.items()), strict=True)
        self._sql.execute(
            f"INSERT INTO jobmanager_{table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})",
            values,
        )

    def change(self, table: str, id_: str, **given: Any) -> None:
        assigned = ", ".join(f"{name} = ?" for name in given)
        values = [_stored(name, value) for name, value in given.items()]
        self._sql.execute(f"UPDATE jobmanager_{table} SET {assigned} WHERE id = ?", (*values, id_))

    def did(self, event: str, run: str, *, job: str = "all", tick: int | None = T0, **more: Any) -> None:
        """Log what a handler did."""
        line = {
            "event": event,
            "job": job,
            "run": run,
            "attempt": 1,
            "tick": tick,
            "pid": 11,
            "mono": 0,
            **more,
        }
        with self.effects.open("a") as log:
            log.write(json.dumps(line) + "\n")

    def job(self, id_: str = "all", *, until: float = T0) -> None:
        """Declare a job just before T0, accounted for until `until`."""
        self.add("jobs", id=id_, history_from=T0 - 1, accounted_until=until)

    def process(self, id_: str = "P", *, pid: int = 11, dead_at: float | None = None) -> None:
        self.add("instances", id=id_, pid=pid, dead_at=dead_at)

    def opened(
        self, id_: str = "r1", *, job: str = "all", tick: int = T0, owner: str = "P", **more: Any
    ) -> None:
        """Open a run of a tick as running."""
        values = {"concurrency_key": id_, "ticks": 1, "attempt": 1, "status": "running", **more}
        self.add(
            "runs",
            id=id_,
            job_id=job,
            owner=owner,
            scheduled_for=tick,
            due_at=tick,
            started_at=tick,
            **values,
        )
        # The log has the moment of the insert; these histories happened some minutes ago.
        self._sql.execute(
            "UPDATE chaos_log SET at = ? WHERE run = ? AND old_status IS NULL", (tick + 0.1, id_)
        )

    def ended(self, id_: str = "r1", *, status: str = "succeeded", nonce: str = "n", **more: Any) -> None:
        """Close a run; one that succeeded carries the output of the handler that drew `nonce`."""
        output = {"nonce": nonce} if status == "succeeded" else None
        self.change("runs", id_, status=status, finished_at=T0 + 1, output=output, **more)

    def took_place(self, id_: str = "r1", *, tick: int = T0, job: str = "all", nonce: str = "n") -> None:
        """Open a run, run its handler, and record its end."""
        self.opened(id_, tick=tick, job=job)
        self.did("start", id_, job=job, tick=tick, nonce=nonce)
        self.did("end", id_, job=job, tick=tick, nonce=nonce, how="returned")
        self.ended(id_, nonce=nonce)

    def violations(self, disturbed: set[int] = frozenset()) -> set[str]:
        """Judge; the numbers of the broken invariants."""
        found = checker.check(self.database, self.effects, disturbed=set(disturbed), grace=GRACE)
        return {text.partition(":")[0] for text in found.violations}


def _stored(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return json.dumps(value)
    return int(value * 1_000_000) if name in INSTANTS and value is not None else value


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


class TestLegalHistories:
    def test_a_run_that_started_ended_and_was_recorded(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process()
        ledger.took_place()

        assert ledger.violations() == set()

    def test_ticks_skipped_as_one_row_of_many(self, ledger: Ledger) -> None:
        ledger.job(until=T0 + 4)
        ledger.process()
        ledger.took_place()
        ledger.add(
            "runs", id="r2", job_id="all", status="skipped", reason="overlap", blocked_by="r1", ticks=4, first_for=T0 + 1,
            scheduled_for=T0 + 4, due_at=T0 + 4, finished_at=T0 + 4, trigger="catch_up",
        )  # fmt: skip

        assert ledger.violations() == set()

    def test_an_attempt_of_a_killed_process_that_another_repeats(self, ledger: Ledger) -> None:
        ledger.job("allow")
        ledger.process(dead_at=T0 + 3)
        ledger.process("Q", pid=12)
        ledger.opened(job="allow")
        ledger.did("start", "r1", job="allow", nonce="n")
        ledger.change("runs", "r1", status="pending", owner=None)
        ledger.change("runs", "r1", status="running", owner="Q", attempt=2)
        ledger.did("start", "r1", job="allow", nonce="m", attempt=2, pid=12)
        ledger.did("end", "r1", job="allow", nonce="m", attempt=2, pid=12, how="returned")
        ledger.ended(nonce="m")

        assert ledger.violations({11}) == set()

    def test_an_attempt_that_a_shutdown_gave_back_and_another_process_goes_on_with(
        self, ledger: Ledger
    ) -> None:
        ledger.job("allow")
        ledger.process()
        ledger.process("Q", pid=12)
        ledger.opened(job="allow")
        ledger.did("start", "r1", job="allow", nonce="n")
        ledger.did("end", "r1", job="allow", nonce="n", how="stopped")
        ledger.change("runs", "r1", status="pending", owner=None, reason="shutdown")
        ledger.change("runs", "r1", status="running", owner="Q", reason=None)
        ledger.did("start", "r1", job="allow", nonce="m", pid=12)
        ledger.did("end", "r1", job="allow", nonce="m", pid=12, how="returned")
        ledger.ended(nonce="m")

        assert ledger.violations() == set()

    def test_a_run_of_a_killed_process_ends_as_crashed(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process(dead_at=T0 + 3)
        ledger.opened()
        ledger.did("start", "r1", nonce="n")
        ledger.ended(status="failed", error={"kind": "crashed"})

        assert ledger.violations({11}) == set()

    def test_a_process_that_the_machine_gave_no_time_was_taken_for_dead(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process(dead_at=T0 + 3)
        ledger.opened()
        ledger.did("start", "r1", nonce="n")
        ledger.did("stalled", "", seconds=1.7)
        ledger.ended(status="failed", error={"kind": "crashed"})

        assert ledger.violations() == set()

    def test_the_next_handler_of_a_key_begins_while_the_one_of_a_dead_process_runs(
        self, ledger: Ledger
    ) -> None:
        ledger.job("skip", until=T0 + 1)
        ledger.process(dead_at=T0 + 1)
        ledger.process("Q", pid=12)
        ledger.opened(job="skip")
        ledger.did("start", "r1", job="skip", nonce="n")
        ledger.ended(status="failed", error={"kind": "crashed"})
        ledger.opened("r2", job="skip", tick=T0 + 1, owner="Q")
        ledger.did("start", "r2", job="skip", tick=T0 + 1, nonce="m", pid=12)
        ledger.did("end", "r2", job="skip", tick=T0 + 1, nonce="m", pid=12, how="returned")
        ledger.ended("r2", nonce="m")

        assert ledger.violations({11}) == set()


class TestViolations:
    """Each history is the first legal one but for a single thing."""

    @pytest.fixture(autouse=True)
    def one_job_and_one_process(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process()

    def test_an_instant_without_a_row(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.change("jobs", "all", accounted_until=T0 + 2)

        assert ledger.violations() == {"I2"}

    def test_a_row_for_an_instant_before_the_job_existed(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.took_place("r0", tick=T0 - 5)

        assert ledger.violations() == {"I3"}

    def test_an_instant_that_two_rows_cover(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.took_place("r2", tick=T0 + 1)
        ledger.add(
            "runs", id="r3", job_id="all", status="missed", reason="downtime", ticks=3, first_for=T0,
            scheduled_for=T0 + 2, due_at=T0 + 2, finished_at=T0 + 3, trigger="catch_up",
        )  # fmt: skip

        assert ledger.violations() == {"I1"}

    def test_an_attempt_that_started_twice(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.did("start", "r1", nonce="again", pid=12)

        assert ledger.violations() == {"I4"}

    def test_a_tick_that_two_runs_started(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.took_place("r2", tick=T0 + 1)
        ledger.change("jobs", "all", accounted_until=T0 + 1)
        ledger.did("start", "r2", nonce="x", attempt=1, tick=T0)

        assert "I4" in ledger.violations()

    def test_a_handler_that_started_without_a_row(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.did("start", "none", tick=None, nonce="x")

        assert ledger.violations() == {"I5"}

    def test_a_handler_that_began_before_its_row_was_durable(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.did("seen", "r1", seen=False)

        assert ledger.violations() == {"I5"}

    def test_a_run_that_began_before_it_was_due(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.change("runs", "r1", due_at=T0 + 1)

        assert "I6" in ledger.violations()

    def test_a_success_whose_handler_never_returned(self, ledger: Ledger) -> None:
        ledger.opened()
        ledger.did("start", "r1", nonce="n")
        ledger.ended()

        assert ledger.violations() == {"I7"}

    def test_a_skipped_run_that_was_started(self, ledger: Ledger) -> None:
        ledger.opened(status="skipped", finished_at=T0)
        ledger.did("start", "r1", nonce="n")

        assert "I7" in ledger.violations()

    def test_an_output_that_another_attempt_wrote(self, ledger: Ledger) -> None:
        ledger.opened()
        ledger.did("start", "r1", nonce="n")
        ledger.did("end", "r1", nonce="n", how="returned")
        ledger.ended(nonce="of a zombie")

        assert ledger.violations() == {"G5"}

    def test_a_failure_that_another_attempt_wrote(self, ledger: Ledger) -> None:
        ledger.opened()
        ledger.did("start", "r1", nonce="n1")
        ledger.did("end", "r1", nonce="n1", how="raised")
        error = {"kind": "exception", "type": "RuntimeError", "message": "nonce n2"}
        ledger.ended(status="failed", error=error)

        assert ledger.violations() == {"G5"}

    def test_two_handlers_of_one_key_in_living_processes(self, ledger: Ledger) -> None:
        ledger.job("skip", until=T0 + 1)
        ledger.took_place()
        for run, tick in (("s1", T0), ("s2", T0 + 1)):
            ledger.opened(run, job="skip", tick=tick)
            ledger.did("start", run, job="skip", tick=tick, nonce=run)
        for run, tick in (("s1", T0), ("s2", T0 + 1)):
            ledger.did("end", run, job="skip", tick=tick, nonce=run, how="returned")
            ledger.ended(run, nonce=run)

        assert ledger.violations() == {"I8"}

    def test_a_closed_run_that_changed_its_status(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.change("runs", "r1", status="failed")

        assert ledger.violations() == {"I9"}

    def test_an_attempt_number_that_jumped(self, ledger: Ledger) -> None:
        ledger.opened()
        ledger.change("runs", "r1", status="pending", owner=None)
        ledger.change("runs", "r1", status="running", owner="P", attempt=3)
        ledger.did("start", "r1", nonce="n", attempt=3)
        ledger.did("end", "r1", nonce="n", attempt=3, how="returned")
        ledger.ended()

        assert ledger.violations() == {"I4"}

    def test_a_watermark_that_fell(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.change("jobs", "all", accounted_until=T0 + 9)
        ledger.change("jobs", "all", accounted_until=T0)

        assert ledger.violations() == {"I10"}

    def test_a_run_that_nobody_ends(self, ledger: Ledger) -> None:
        ledger.opened()
        ledger.did("start", "r1", nonce="n")

        assert ledger.violations() == {"I12"}

    def test_a_run_of_a_healthy_process_that_was_taken_over(self, ledger: Ledger) -> None:
        ledger.opened()
        ledger.did("start", "r1", nonce="n")
        ledger.ended(status="failed", error={"kind": "crashed"})

        assert ledger.violations({12}) == {"I13"}

    def test_a_tick_opened_late_as_on_time(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger._sql.execute("UPDATE chaos_log SET at = ? WHERE old_status IS NULL", (T0 + GRACE + 6,))

        assert ledger.violations() == {"I14"}

    def test_a_key_that_was_given_to_two_runs(self, ledger: Ledger) -> None:
        ledger.took_place()
        ledger.did("triggered", "r1", key="k")
        ledger.did("triggered", "r2", key="k")

        assert ledger.violations() == {"key"}


class TestRest:
    """When a history has come to rest, so that its processes may be ended."""

    def test_all_is_accounted_for_and_what_runs_has_a_living_owner(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process()
        ledger.opened()

        assert checker.unrest(ledger.database, T0, {11}) == []

    def test_a_killed_process_that_the_table_still_takes_for_living_is_none(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process()
        ledger.process("Q", pid=12)
        ledger.opened()

        assert checker.unrest(ledger.database, T0, {12}) == ["all r1 runs without a living owner"]

    def test_a_process_that_was_declared_dead_owns_nothing(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process(dead_at=T0)
        ledger.opened()

        assert checker.unrest(ledger.database, T0, {11}) == ["all r1 runs without a living owner"]

    def test_a_job_that_is_not_accounted_for_until_now(self, ledger: Ledger) -> None:
        ledger.job()

        assert checker.unrest(ledger.database, T0 + 1, {11}) == [f"all is accounted for only until {T0}"]

    def test_a_due_run_that_nobody_takes(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process()
        ledger.opened(status="pending", owner=None)

        [found] = checker.unrest(ledger.database, T0, {11})

        assert "nobody takes it" in found

    def test_a_run_that_waits_behind_another_is_not_late(self, ledger: Ledger) -> None:
        ledger.job()
        ledger.process()
        ledger.opened(turn="holds", concurrency_key="k")
        ledger.opened("r2", tick=T0 + 1, status="pending", owner=None, turn="waits", concurrency_key="k")

        assert checker.unrest(ledger.database, T0, {11}) == []


class TestLogs:
    def test_a_traceback_is_a_fault_unless_it_is_celerys_own(self) -> None:
        stamp = "2026-11-29 12:32:32,992 14560 "
        theirs = f"{stamp}WARNING celery.worker.consumer.consumer: connection lost\nTraceback (most recent call last):\n"
        ours = f"{stamp}ERROR jobmanager.backends.celery: it failed\nTraceback (most recent call last):\n"

        assert checker.faults_in(theirs) == []
        assert len(checker.faults_in(theirs + ours)) == 1
        assert checker.faults_in(f"{stamp}CRITICAL celery.worker.request: Couldn't ack\n") == []
        assert len(checker.faults_in(f"{stamp}CRITICAL jobmanager.process.watchdog: stands still\n")) == 1

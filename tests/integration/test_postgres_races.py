"""What only a real server can show: locks that are waited for, in one order, and sessions in which nothing is kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg
from tests.servers import Pooler

from jobmanager.errors import StoreUnavailableError
from jobmanager.ledger.overlap import apply_overlap
from jobmanager.run import PENDING, RUNNING, SKIPPED, SUCCEEDED, Ending, Run, RunStatus
from jobmanager.stores.sql import postgres_writes as writes
from jobmanager.stores.sql.postgres import PostgresStore
from jobmanager.stores.sql.transaction import SqlJobTransaction
from jobmanager.testing import FakeClock
from jobmanager.testing.store_contract.ground import StoreGround, seconds

pytestmark = [pytest.mark.servers, pytest.mark.slow]


class Ground(StoreGround):
    """A store on a fresh database, and a second one as of another process."""

    @pytest.fixture(autouse=True)
    def _fresh_store(self, postgres_url: str, tmp_path: Path) -> Iterator[None]:
        self.url = postgres_url
        self.open(tmp_path)
        self.other = PostgresStore(postgres_url)
        yield
        self.other.close()
        self.close()

    def make_store(self, _clock: FakeClock, _tmp_path: Path) -> PostgresStore:
        return PostgresStore(self.url)

    def at_once(self, *acts: Callable[[], object]) -> None:
        """Do all of it at the same time, and raise what any of it raised."""
        gate, errors = threading.Barrier(len(acts)), []

        def do(act: Callable[[], object]) -> None:
            gate.wait()
            try:
                act()
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=do, args=(act,)) for act in acts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for error in errors:
            raise error


class TestOrderOfLocks(Ground):
    def test_two_processes_that_bring_the_same_ticks_in_opposite_order_do_not_deadlock(self) -> None:
        for number in range(60):
            self.job(f"job-{number:02}", accounted_until=self.now - seconds(60))
        won: list[str] = []

        def bring(store: Any, ticks: list[Run]) -> None:
            won.extend(store.runs.write(ticks, ()).opened)

        for round_ in range(12):
            runs = [self.tick(30 - round_, f"job-{number:02}") for number in range(60)]
            twins = [self.tick(30 - round_, f"job-{number:02}") for number in reversed(range(60))]
            self.at_once(
                lambda runs=runs: bring(self.store, runs), lambda twins=twins: bring(self.other, twins)
            )

        assert len(won) == 60 * 12
        assert len(self.store.history.runs(limit=1000)) == 60 * 12

    def test_declaring_and_changing_the_same_jobs_does_not_deadlock(self) -> None:
        rows = {f"job-{number:02}": self.job(f"job-{number:02}") for number in range(30)}

        def declare(store: Any, names: list[str]) -> None:
            for _ in range(5):
                store.jobs.declare({name: rows[name] for name in names})

        def change() -> None:
            for name in [*rows, *rows]:
                with self.store.jobs.lock(name) as page:
                    page.save(replace(page.job, state="paused" if page.job.state == "active" else "active"))

        self.at_once(
            lambda: declare(self.store, list(rows)), lambda: declare(self.other, list(rows)[::-1]), change
        )

        assert {row.definition_rev for row in self.store.jobs.rows()} == {11}


class TestClaimWhileTheOverlapIsDecided(Ground):
    """A claim does not wait for the job's lock, so a run may begin to hold the key between the look at it and the insert."""

    def waiting_run(self, overlap: str) -> tuple[str, Run]:
        """A job with this policy and one run that waits for its key, and the process that will claim it."""
        self.job(overlap=overlap, queue_cap=5)
        waits = self.tick(30, turn="waits")
        with self.store.jobs.lock("job") as txn:
            assert txn.insert(waits)
        return self.process(declares=["job"]), waits

    @pytest.mark.parametrize(
        ("overlap", "status"),
        [("skip", SKIPPED), ("queue", PENDING), ("queue_all", PENDING), ("cancel_running", PENDING)],
    )
    @pytest.mark.parametrize("together", [False, True])
    def test_a_tick_has_its_row_although_a_claim_takes_the_key_meanwhile(
        self, overlap: str, status: RunStatus, together: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        process, waits = self.waiting_run(overlap)
        look = SqlJobTransaction.waiting

        def claimed_first(txn: SqlJobTransaction, key: str) -> list[Run]:
            self.other.runs.claim(process, "default", 10)
            return look(txn, key)

        monkeypatch.setattr(SqlJobTransaction, "waiting", claimed_first)
        tick = self.tick(10, turn="holds")
        if together:
            with self.store.jobs.lock_many([tick]) as txns:
                found = apply_overlap(txns["job"], tick)
        else:
            with self.store.jobs.lock("job") as txn:
                found = apply_overlap(txn, tick)

        assert self.row(waits).status is RUNNING
        assert (found.finding, self.row(tick).status) == (
            "skipped" if overlap == "skip" else "opened",
            status,
        )


class TestSweepAgainstOpening(Ground):
    """Whoever has the job's row first is waited for; without that a range and a late insert would cover the same tick."""

    def test_a_sweep_waits_for_an_insert_that_has_not_committed_and_then_sees_its_row(self) -> None:
        self.job()
        run = self.tick(10)
        found: list[Run | None] = []

        def sweep() -> None:
            with self.other.jobs.lock("job") as page:
                found.append(page.run_for(self.now - seconds(10)))

        values = {**writes.open_one(run), "grace": timedelta(seconds=60)}
        with psycopg.connect(self.url) as opener:
            assert opener.execute(writes.OPEN_ONE, values).fetchall() == [(run.id,)]
            sweeper = threading.Thread(target=sweep)
            sweeper.start()
            sweeper.join(0.3)
            assert found == []
            opener.commit()
        sweeper.join(60)

        assert found == [run]

    @pytest.mark.parametrize("many", [False, True])
    def test_an_insert_waits_for_a_sweep_and_then_looks_again(self, many: bool) -> None:
        self.job()
        self.job("other")
        runs = [self.tick(10), self.tick(10, "other")] if many else [self.tick(10)]
        opened: list[set[str]] = []
        opener = threading.Thread(target=lambda: opened.append(set(self.other.runs.write(runs, ()).opened)))

        with self.store.jobs.lock("job") as page:
            opener.start()
            opener.join(0.3)
            assert opened == []
            page.save(replace(page.job, accounted_until=self.now - seconds(10)))
        opener.join(60)

        assert opened == [{run.id for run in runs if run.job_id == "other"}]

    def test_a_retry_waits_for_the_job_to_be_disabled_and_is_then_refused(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))
        ending = self.ending(run, SUCCEEDED, retry_at=self.now)
        answers: list[Any] = []
        writer = threading.Thread(target=lambda: answers.append(self.other.runs.write((), [ending]).ended))

        with self.store.jobs.lock("job") as page:
            writer.start()
            writer.join(0.3)
            page.save(replace(page.job, state="disabled"))
            page.close_pending()
        writer.join(60)

        assert answers == [{run.id: SUCCEEDED}]


class TestOutcomesAndLimits(Ground):
    def test_the_database_s_clock_decides_however_wrong_this_host_s_is(self) -> None:
        wrong = PostgresStore(self.url, clock=FakeClock(datetime.fromisoformat("2001-01-01T00:00:00+00:00")))
        self.job()
        run = self.tick(5)

        assert abs(wrong.now() - self.store.now()) < seconds(5)
        assert wrong.runs.write([run], ()).opened == {run.id}
        wrong.close()

    def test_a_lock_that_is_held_too_long_is_an_outage_and_not_a_hang(self) -> None:
        self.job()
        run = self.tick(5)
        with psycopg.connect(self.url) as somebody:
            somebody.execute("SELECT FROM jobmanager.jobs FOR UPDATE")
            with pytest.raises(StoreUnavailableError, match="holds the lock; it is tried again"):
                self.store.runs.write([run], ())
        assert self.store.runs.write([run], ()).opened == {run.id}

    def test_whoever_stands_still_inside_a_transaction_loses_it(self) -> None:
        self.job()

        def stand_still() -> None:
            with self.store.jobs.lock("job") as page:
                threading.Event().wait(6)  # the limit is five seconds of real time
                page.save(replace(page.job, state="paused"))

        with pytest.raises(StoreUnavailableError):
            stand_still()

        assert self.stored_job().state == "active"

    def test_a_connection_that_was_cut_is_replaced(self) -> None:
        self.job()
        with psycopg.connect(self.url, autocommit=True) as somebody:
            somebody.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobmanager'"
            )
        run = self.tick(5)
        with pytest.raises(StoreUnavailableError):
            self.store.runs.write([run], ())

        assert self.store.runs.write([run], ()).opened == {run.id}

    def test_a_connection_that_died_while_nobody_looked_fails_no_call(self) -> None:
        clock = FakeClock()
        store = PostgresStore(self.url, clock=clock)
        assert store.exists()
        with psycopg.connect(self.url, autocommit=True) as somebody:
            somebody.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobmanager'"
            )
        clock.advance(minutes=1)

        assert store.jobs.change_seq() == 0
        store.close()

    def test_the_row_that_cannot_be_kept_is_not_quoted(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process(), payload={"card": "4111"}))
        ending = Ending(run=run, status=RUNNING, started_at=self.now, finished_at=self.now)

        with pytest.raises(Exception, match="check constraint") as caught:
            self.store.runs.write((), [ending])

        assert "4111" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_text_that_jsonb_cannot_keep_does_not_cost_the_run(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))
        others = [self.opened(self.run_of(owner=run.owner)) for _ in range(2)]

        for endings in (
            [self.ending(run, output={"raw": "a\0b\ud800"})],
            [self.ending(o, output="\0") for o in others],
        ):
            self.write(endings=endings)

        assert self.row(run).output == {"raw": "a\ufffdb\ufffd"}
        assert [self.row(other).output for other in others] == ["\ufffd", "\ufffd"]


class TestPooler(Ground):
    """PgBouncer in transaction mode stands between."""

    @pytest.fixture(autouse=True)
    def _pooled(self, postgres_pooler: Pooler) -> None:
        self.pooler = postgres_pooler

    def test_no_prepared_statement_and_no_setting_is_left_in_a_session(self) -> None:
        store = PostgresStore(self.pooler.url(self.url) + "?jobmanager_pooler=true")
        owner = self.process()
        self.job()
        for number in range(12):
            run = self.run_of(owner=owner)
            assert store.runs.write([run], ()).opened
            assert store.runs.write((), [self.ending(run)]).ended
            batch = [self.run_of(owner=owner), self.tick(number + 1)]
            assert len(store.runs.write(batch, ()).opened) == 2
            store.runs.claim(owner, "default", 10)
            store.processes.beat(owner)
            store.history.runs()

        with store.database._engine.connect() as connection:
            sessions = {connection.exec_driver_sql("SELECT pg_backend_pid()").scalar() for _ in range(5)}
            assert connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar() == 0
            assert connection.exec_driver_sql("SHOW statement_timeout").scalar() == "0"
        assert sessions
        store.close()

    def test_each_transaction_has_its_limits(self) -> None:
        store = PostgresStore(self.pooler.url(self.url) + "?jobmanager_pooler=true")
        for transaction in (store.database.reading, store.database.writing):
            with transaction() as connection:
                limits = [
                    connection.exec_driver_sql(f"SHOW {name}").scalar()
                    for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
                ]
            assert limits == ["5s", "3s", "5s"]
        store.close()

    def test_an_unannounced_pooler_is_named_in_the_error(self) -> None:
        store = PostgresStore(self.pooler.url(self.url))

        with pytest.raises(Exception, match="jobmanager_pooler=true"):
            store.exists()
        store.close()

"""Promises the account stands on: pauses that grow, who was alive when, closing and reopening, and what may be purged."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from jobmanager.run import CANCELLED, FAILED, MISSED, PENDING, SKIPPED, SUCCEEDED, Failure, LogLine, RunStatus
from jobmanager.stores.values import JobState
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class AccountPromises(StoreGround):
    """What `jobs.lock` offers to settle and change a job, and `maintenance.purge`."""

    # ---------------------------------------------------------------- the database

    def test_facts_name_the_database_and_its_size(self) -> None:
        facts = self.store.maintenance.facts()

        assert facts.system.strip()
        assert facts.size > 0
        assert facts.version

    # ---------------------------------------------------------------- pauses

    def test_the_pause_row_is_the_newest_row_if_it_is_one(self) -> None:
        self.job(accounted_until=self.now, state="paused")
        pause = self.closed(
            self.tick(20), SKIPPED, reason="paused", first_for=self.now - seconds(40), ticks=21
        )
        self.inserted(self.closed(self.tick(50), SKIPPED, reason="paused"), pause)

        with self.store.jobs.lock("job") as txn:
            assert txn.pause_row() == pause
            txn.insert(self.closed(self.tick(10), MISSED, reason="downtime"))
            assert txn.pause_row() is None

    def test_a_pause_row_beyond_the_watermark_does_not_grow(self) -> None:
        self.job(accounted_until=self.now - seconds(30), state="paused")
        self.inserted(self.closed(self.tick(20), SKIPPED, reason="paused"))

        with self.store.jobs.lock("job") as txn:
            assert txn.pause_row() is None

    def test_growing_a_row_moves_its_ends_and_its_ticks(self) -> None:
        self.job()
        row = self.closed(self.tick(20), SKIPPED, reason="paused")
        self.inserted(row)
        grown = replace(row, scheduled_for=self.now, first_for=self.now - seconds(20), ticks=21)

        with self.store.jobs.lock("job") as txn:
            txn.grow(grown)

        assert self.row(row) == grown

    # ---------------------------------------------------------------- who was alive

    def test_somebody_was_alive_between_a_start_and_the_last_sign_of_life(self) -> None:
        self.job()
        self.process(started_at=self.now - seconds(100), seen_at=self.now - seconds(50))
        self.process(namespace="other", started_at=self.now - HOUR, seen_at=self.now)

        with self.store.jobs.lock("job") as txn:
            assert txn.was_alive(self.now - seconds(100))
            assert txn.was_alive(self.now - seconds(50))
            assert not txn.was_alive(self.now - seconds(101))
            assert not txn.was_alive(self.now - seconds(49))

    def test_a_process_that_died_since_was_alive_then(self) -> None:
        self.job()
        gone = self.process(started_at=self.now - seconds(100), seen_at=self.now - seconds(50))
        self.store.processes.deregister(gone)

        with self.store.jobs.lock("job") as txn:
            assert txn.was_alive(self.now - seconds(60))
            assert not txn.is_alive(gone)

    def test_a_job_is_executed_by_a_living_process_of_its_namespace_that_executes(self) -> None:
        self.job()
        self.process(executes=False, seen_at=self.now)
        self.process(namespace="other", seen_at=self.now)
        self.store.processes.deregister(self.process(seen_at=self.now))

        with self.store.jobs.lock("job") as txn:
            assert txn.executed_since(self.now - seconds(60)) is None
        self.process(started_at=self.now - seconds(80), seen_at=self.now - seconds(60))
        self.process(started_at=self.now - seconds(70), seen_at=self.now)
        with self.store.jobs.lock("job") as txn:
            assert txn.executed_since(self.now - seconds(60)) == self.now - seconds(80)
            assert txn.executed_since(self.now - seconds(59)) == self.now - seconds(70)

    def test_an_unknown_instance_counts_as_dead(self) -> None:
        self.job()
        living = self.process()

        with self.store.jobs.lock("job") as txn:
            assert txn.is_alive(living)
            assert not txn.is_alive("nobody")

    # ---------------------------------------------------------------- closing and reopening

    def test_closing_what_is_pending_skips_first_attempts_of_ticks_and_cancels_the_rest(self) -> None:
        self.job()
        self.job("other")
        owner = self.process()
        tick, by_hand, retry = self.tick(30), self.run_of(), self.tick(20, attempt=1, turn="holds")
        running, elsewhere = self.tick(10, owner=owner), self.tick(10, "other")
        self.inserted(tick, by_hand, retry, running, elsewhere)

        with self.store.jobs.lock("job") as txn:
            txn.close_pending()

        assert [(row.status, row.reason) for row in map(self.row, (tick, by_hand, retry))] == [
            (SKIPPED, "disabled"),
            (CANCELLED, "disabled"),
            (CANCELLED, "disabled"),
        ]
        assert all(row.finished_at and row.turn is None for row in map(self.row, (tick, by_hand, retry)))
        assert self.row(running) == running
        assert self.row(elsewhere) == elsewhere

    def test_runs_that_rest_stay_when_their_job_is_disabled_and_end_when_it_is_deleted(self) -> None:
        self.job()
        owner = self.process()
        resting, running = [], self.opened(self.run_of(owner=owner, turn=None))
        for reason in ("sleeping", "waiting", "children"):
            run = self.opened(self.run_of(owner=owner, turn=None))
            self.ended(run, retry_at=self.now + HOUR, reason=reason)
            resting.append(run)

        states: tuple[tuple[JobState, tuple[RunStatus, str | None]], ...] = (
            ("disabled", (PENDING, None)),
            ("deleted", (CANCELLED, "disabled")),
        )
        for state, becomes in states:
            with self.store.jobs.lock("job") as txn:
                txn.save(replace(txn.job, state=state))
                txn.close_pending()
            if state == "disabled":
                self.ended(running, retry_at=self.now - seconds(1), reason="sleeping")
                assert self.claim(self.process()) == []
            for run in (*resting, running):
                row = self.row(run)
                assert (row.status, becomes[1] and row.reason) == becomes

    def test_a_reopened_run_is_pending_and_due_and_its_outcome_becomes_an_attempt(self) -> None:
        self.job()
        owner = self.process()
        error = Failure(kind="exception", type="OSError", message="no", traceback="...")
        run = self.opened(self.tick(owner=owner, turn="holds", payload={"a": 1}))
        assert self.ended(run, FAILED, error=error, output={"half": True}) is FAILED

        with self.store.jobs.lock("job") as txn:
            answer = txn.reopen(self.row(run), max_attempts=3, turn="waits")

        row = self.row(run)
        assert answer == row
        assert (row.status, row.turn, row.owner, row.attempt, row.max_attempts) == (
            PENDING,
            "waits",
            None,
            1,
            3,
        )
        assert (row.error, row.output, row.finished_at, row.started_at, row.expires_at) == (None,) * 5
        assert (row.payload, row.scheduled_for) == ({"a": 1}, run.scheduled_for)
        assert self.now <= row.due_at <= self.store.now()
        [attempt] = self.store.history.attempts(run.id)
        assert (attempt.attempt, attempt.owner, attempt.outcome, attempt.error) == (1, owner, "failed", error)
        [claimed] = self.claim(owner)
        assert (claimed.id, claimed.attempt) == (run.id, 2)

    # ---------------------------------------------------------------- purging

    def test_only_closed_runs_that_ended_before_the_moment_are_purged(self) -> None:
        self.job(accounted_until=self.now)
        owner = self.process()
        old = [
            self.closed(self.run_of(), status, finished_at=self.now - HOUR, reason=reason)
            for status, reason in ((SUCCEEDED, None), (FAILED, None), (CANCELLED, "requested"))
        ]
        missed = self.closed(self.tick(30), MISSED, reason="downtime", finished_at=self.now - HOUR)
        young = self.closed(self.run_of(), SUCCEEDED, finished_at=self.now)
        pending, running = self.run_of(), self.run_of(owner=owner)
        self.inserted(*old, missed, young, pending, running)

        assert self.store.maintenance.purge(self.now) == 4
        assert {run.id for run in self.store.history.runs()} == {young.id, pending.id, running.id}
        assert self.store.maintenance.purge(self.now) == 0

    def test_a_tick_that_is_not_accounted_for_is_kept(self) -> None:
        self.job(accounted_until=self.now - seconds(20))
        accounted, ahead = (
            self.closed(self.tick(ago), SUCCEEDED, finished_at=self.now - seconds(5)) for ago in (20, 19)
        )
        self.inserted(accounted, ahead)

        assert self.store.maintenance.purge(self.now) == 1
        assert [run.id for run in self.store.history.runs()] == [ahead.id]

    def test_history_begins_after_the_newest_purged_tick_and_never_earlier_than_before(self) -> None:
        self.job(accounted_until=self.now)
        self.job("late", accounted_until=self.now, history_from=self.now)
        for job_id in ("job", "late"):
            self.inserted(
                *(
                    self.closed(self.tick(ago, job_id), SUCCEEDED, finished_at=self.now - seconds(5))
                    for ago in (30, 20)
                ),
                self.closed(self.tick(10, job_id), SUCCEEDED, finished_at=self.now + HOUR),
            )

        assert self.store.maintenance.purge(self.now) == 4

        assert self.stored_job().history_from == self.now - seconds(20)
        assert self.stored_job("late").history_from == self.now

    def test_a_late_duplicate_of_a_purged_tick_is_refused(self) -> None:
        self.job(accounted_until=self.now - seconds(5))
        self.inserted(self.closed(self.tick(10), SUCCEEDED, finished_at=self.now - seconds(5)))
        assert self.store.maintenance.purge(self.now) == 1

        self.refused(self.tick(10))

    def test_attempts_and_lines_go_with_their_run(self) -> None:
        self.job()
        owner = self.process()
        run = self.opened(self.run_of(owner=owner))
        kept = self.opened(self.run_of(owner=owner))
        for each in (run, kept):
            self.store.runs.add_lines(each.id, 1, [LogLine(self.now, "INFO", "kept")])
            assert self.retried(each) is PENDING
        assert self.store.runs.cancel(run.id).status is CANCELLED

        assert self.store.maintenance.purge(self.store.now() + seconds(1)) == 1

        assert (self.store.history.attempts(run.id), self.store.history.lines(run.id)) == ([], [])
        assert len(self.store.history.attempts(kept.id)) == len(self.store.history.lines(kept.id)) == 1

    def test_one_job_can_be_purged_alone_or_left_out(self) -> None:
        for job_id in ("job", "other", "third"):
            self.job(job_id)
            self.inserted(self.closed(self.run_of(job_id), SUCCEEDED, finished_at=self.now - HOUR))

        assert self.store.maintenance.purge(self.now, job_id="other") == 1
        assert {run.job_id for run in self.store.history.runs()} == {"job", "third"}
        assert self.store.maintenance.purge(self.now, but={"job", "nobody"}) == 1
        assert [run.job_id for run in self.store.history.runs()] == ["job"]

    def test_a_job_may_keep_only_its_newest_runs(self) -> None:
        self.job()
        self.job("other")
        pending = self.run_of()
        runs = [self.closed(self.run_of(), SUCCEEDED) for _ in range(5)]
        self.inserted(pending, *runs, self.closed(self.run_of("other"), SUCCEEDED))

        assert self.store.maintenance.purge(self.now - HOUR, job_id="job", keep=2) == 3

        assert [run.id for run in self.store.history.runs(job_id="job")] == [
            runs[4].id,
            runs[3].id,
            pending.id,
        ]
        assert len(self.store.history.runs(job_id="other")) == 1
        assert self.store.maintenance.purge(self.now - HOUR, job_id="job", keep=9) == 0

    def test_a_purge_may_be_of_runs_that_ended_so_and_a_dry_run_counts_them(self) -> None:
        self.job()
        ended = self.now - HOUR
        rows = [
            self.closed(self.run_of(), status, finished_at=ended)
            for status in (FAILED, SUCCEEDED, SUCCEEDED, CANCELLED)
        ]
        self.inserted(*rows)

        assert self.store.maintenance.purge(self.now, statuses=[SUCCEEDED, CANCELLED], dry_run=True) == 3
        assert self.store.maintenance.purge(self.now, statuses=[SUCCEEDED]) == 2
        assert [run.status for run in self.store.history.runs()] == [CANCELLED, FAILED]

    def test_of_too_many_runs_the_oldest_that_have_ended_are_purged(self) -> None:
        self.job()
        pending = self.opened(self.run_of())
        rows = [self.closed(self.run_of(), FAILED) for _ in range(5)]
        self.inserted(*rows)

        assert self.store.maintenance.purge_beyond(6) == 0
        assert self.store.maintenance.purge_beyond(2, dry_run=True) == 3
        assert self.store.maintenance.purge_beyond(2) == 3
        assert {run.id for run in self.store.history.runs()} == {pending.id, rows[3].id, rows[4].id}

    def test_of_runs_that_take_too_many_bytes_the_oldest_that_have_ended_are_purged(self) -> None:
        """Fails if what deleted runs have left is counted: then each purge would delete more, until nothing is left."""
        self.job()
        pending = self.opened(self.run_of())
        rows = [self.closed(self.run_of(payload={"text": _noise(4000)}), FAILED) for _ in range(300)]
        self.inserted(*rows)
        for run in rows:
            line = LogLine(self.now, "INFO", _noise(2000))
            self.store.runs.add_lines(run.id, 1, [line])
        purge = self.store.maintenance.purge_beyond_bytes

        assert purge(100_000_000) == 0
        surplus = purge(2_400_000, dry_run=True)
        assert 50 < surplus < 200
        purged = [purge(2_400_000)]
        assert abs(purged[0] - surplus) < 30
        while purged[-1]:
            purged.append(purge(2_400_000))
        left = [run.id for run in self.store.history.runs(limit=1000)]
        assert left == [run.id for run in reversed(rows[sum(purged) :])] + [pending.id]
        assert len(left) > 100


def _noise(length: int) -> str:
    """Return a text of twice the length; one that repeats itself would be compressed."""
    return hashlib.shake_128(b"noise").hexdigest(length)

"""Promises about the end of processes: who may bury whom, and what becomes of runs nobody will end."""

from __future__ import annotations

from typing import Any

from jobmanager.run import CANCELLED, FAILED, MISSED, PENDING, SUCCEEDED, Run
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class TakeoverPromises(StoreGround):
    """`mark_dead`, `running_of`, and the sweeps of `store.maintenance`."""

    def orphan(self, **fields: Any) -> Run:
        """Return a running run whose process has died."""
        if self.store.jobs.get("job") is None:
            self.job()
        owner = self.process()
        run = self.opened(self.run_of(owner=owner, **fields))
        self.store.processes.deregister(owner)
        return run

    # ---------------------------------------------------------------- burying

    def test_a_process_is_buried_once_while_its_counter_stands_still(self) -> None:
        self.store.processes.beat(self.process())
        [seen] = self.store.processes.living()

        assert [self.store.processes.mark_dead(seen), self.store.processes.mark_dead(seen)] == [True, False]

        assert self.store.processes.living() == []
        assert not self.store.processes.beat(seen.id)

    def test_a_process_that_has_spoken_since_is_not_buried(self) -> None:
        self.process()
        [seen] = self.store.processes.living()
        self.store.processes.beat(seen.id)

        assert not self.store.processes.mark_dead(seen)
        assert self.store.processes.beat(seen.id)

    def test_a_beat_tells_how_late_the_ticks_come(self) -> None:
        instance_id = self.process()

        self.store.processes.beat(instance_id, last_tick_at=self.now, lag_seconds=0.25)

        [instance] = self.store.processes.living()
        assert (instance.last_tick_at, instance.lag_seconds) == (self.now, 0.25)

    # ---------------------------------------------------------------- taking over

    def test_a_run_whose_process_died_has_failed(self) -> None:
        run = self.orphan(turn="holds")

        [taken] = self.store.maintenance.take_over()

        assert taken == self.row(run)
        assert (taken.status, taken.turn) == (FAILED, None)
        assert taken.error is not None
        assert taken.error.kind == "crashed"
        assert taken.finished_at is not None
        assert self.store.maintenance.take_over() == []

    def test_a_run_of_an_unknown_process_is_taken_over_too(self) -> None:
        self.job()
        run = self.run_of(owner="nobody")
        self.inserted(run)

        assert [taken.id for taken in self.store.maintenance.take_over()] == [run.id]

    def test_nothing_of_a_living_process_is_taken_over(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))

        assert self.store.maintenance.take_over() == []
        assert self.row(run) == run

    def test_a_crash_is_followed_by_another_attempt_if_one_remains(self) -> None:
        run = self.orphan(turn="holds", max_attempts=2)

        [taken] = self.store.maintenance.take_over()

        assert taken == self.row(run)
        assert (taken.status, taken.owner, taken.attempt, taken.turn) == (PENDING, None, 1, "holds")
        assert self.now <= taken.due_at <= self.store.now()
        [attempt] = self.store.history.attempts(run.id)
        assert (attempt.attempt, attempt.owner) == (1, run.owner)
        assert attempt.error is not None
        assert attempt.error.kind == "crashed"
        [again] = self.claim(self.process())
        assert again.attempt == 2
        assert self.ended(run, SUCCEEDED) is None, "the dead process's ending counted"
        assert self.row(run) == again

    def test_a_crash_is_the_end_if_it_may_not_be_retried(self) -> None:
        self.orphan(max_attempts=3, retry_on_crash=False)
        self.orphan(max_attempts=3, attempt=3, starts=3)

        assert [taken.status for taken in self.store.maintenance.take_over()] == [FAILED, FAILED]

    def test_a_run_whose_cancel_was_requested_is_cancelled_instead(self) -> None:
        run = self.orphan(max_attempts=3)
        self.store.runs.cancel(run.id)

        [taken] = self.store.maintenance.take_over()

        assert (taken.status, taken.reason) == (CANCELLED, "requested")
        assert self.row(run) == taken

    def test_a_job_that_is_no_longer_open_gets_no_other_attempt(self) -> None:
        self.orphan(max_attempts=3)
        self.change(state="disabled")

        assert [taken.status for taken in self.store.maintenance.take_over()] == [FAILED]

    def test_an_owner_finds_its_running_runs(self) -> None:
        self.job()
        me, other = self.process(), self.process()
        mine, done, theirs = (self.opened(self.run_of(owner=owner)) for owner in (me, me, other))
        self.opened(self.run_of())
        self.ended(done)

        assert self.store.runs.running_of(me) == [mine]
        assert self.store.runs.running_of(other) == [theirs]
        assert self.store.runs.running_of("nobody") == []

    # ---------------------------------------------------------------- too late, and long ago

    def test_a_tick_that_did_not_start_before_its_deadline_is_missed(self) -> None:
        self.job()
        past, future = self.now - seconds(1), self.now + HOUR
        expired = self.tick(30, expires_at=past, turn="waits")
        others = [
            self.tick(20, expires_at=future),
            self.tick(10),
            self.tick(9, attempt=1, expires_at=past),
            self.tick(8, owner=self.process(), expires_at=past),
        ]
        self.inserted(expired, *others)

        assert self.store.maintenance.expire_pending() == 1

        row = self.row(expired)
        assert (row.status, row.reason, row.turn) == (MISSED, "deadline", None)
        assert row.finished_at is not None
        assert [self.row(run) for run in others] == others
        assert self.store.maintenance.expire_pending() == 0

    def test_a_tick_past_its_deadline_is_not_claimed(self) -> None:
        self.job()
        self.inserted(self.tick(30, expires_at=self.now - seconds(1)))

        assert self.claim(self.process()) == []

    def test_processes_long_dead_are_forgotten_with_what_only_they_declared(self) -> None:
        self.job()
        gone, owner = self.process(declares=["old"]), self.process(declares=["job"])
        self.process(declares=["job"])
        run = self.opened(self.run_of(owner=owner))
        for instance_id in (gone, owner):
            self.store.processes.deregister(instance_id)

        assert self.store.maintenance.forget_dead(self.now - HOUR) == 0
        assert self.store.maintenance.forget_dead(self.store.now() + seconds(1)) == 1
        assert self.store.processes.declared_by_living("default") == {"job"}
        assert [taken.id for taken in self.store.maintenance.take_over()] == [run.id]
        assert self.store.maintenance.forget_dead(self.store.now() + seconds(1)) == 1
        assert len(self.store.processes.living()) == 1

"""What a store promises about rows that an outside system put there: announced, and not yet accepted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from jobmanager.run import PENDING, RUNNING, SUCCEEDED, Run, Turn
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class AnnouncingPromises(StoreGround):
    """An announced row is opened in place, by one of all, or stays as it is."""

    def announced(self, ago: float = 10, **fields: Any) -> Run:
        """Return the row of a tick that was announced so many seconds ago."""
        run = self.tick(ago, accepted_at=None, **fields)
        self.inserted(run)
        return self.row(run)

    def accepting(
        self, run: Run, owner: str | None = None, *, turn: Turn | None = "holds", **fields: Any
    ) -> Run:
        """Return what the process that takes it wants to make of it: running if it has an owner."""
        status, attempt = (RUNNING, 1) if owner else (PENDING, 0)
        return replace(
            run,
            status=status,
            attempt=attempt,
            starts=attempt,
            owner=owner,
            turn=turn,
            started_at=self.now if owner else None,
            **fields,
        )

    def test_an_announced_run_is_opened_in_place(self) -> None:
        self.job()
        run = self.announced()
        owner = self.process()

        opened = self.opened(self.accepting(run, owner, priority=3))

        assert (opened.id, opened.opened_at) == (run.id, run.opened_at)
        assert (opened.status, opened.owner, opened.attempt, opened.turn, opened.priority) == (
            RUNNING,
            owner,
            1,
            "holds",
            3,
        )
        assert opened.accepted_at is not None
        assert opened.started_at is not None

    def test_accepted_and_left_to_others_it_is_claimed_by_one(self) -> None:
        self.job()
        run = self.announced()
        self.opened(self.accepting(run))

        assert [each.id for each in self.claim(self.process())] == [run.id]

    def test_of_two_that_accept_it_one_has_it(self) -> None:
        self.job()
        run = self.announced()
        first, second = self.process(), self.process()

        assert self.write([self.accepting(run, first)]).opened
        assert not self.write([self.accepting(run, second)]).opened
        assert self.row(run).owner == first

    def test_accepting_it_again_answers_the_same(self) -> None:
        self.job()
        run, owner = self.announced(), self.process()

        for _ in range(2):
            assert self.write([self.accepting(run, owner)]).opened == {run.id}

    def test_brought_twice_to_one_process_it_is_accepted_once(self) -> None:
        """Both bringings have the same id and owner; only the first may start the handler."""
        self.job()
        run, owner = self.announced(), self.process()
        first = self.accepting(run, owner)
        second = replace(first, started_at=self.now + seconds(1))

        assert self.write([first]).opened
        assert not self.write([second]).opened
        assert self.write([first]).opened

    def test_brought_again_in_the_batch_that_ends_it_it_stays_ended(self) -> None:
        self.job()
        run, owner = self.announced(), self.process()
        first = self.accepting(run, owner)
        self.opened(first)

        written = self.write([replace(first, started_at=self.now + seconds(1))], [self.ending(first)])

        assert not written.opened
        assert written.ended == {run.id: SUCCEEDED}

    def test_what_happened_to_the_schedule_since_does_not_matter(self) -> None:
        self.job()
        run = self.announced()
        self.change(schedule_rev=9, accounted_until=self.now)

        self.opened(self.accepting(run, self.process()))

    @pytest.mark.parametrize("state", ["paused", "disabled", "deleted"])
    def test_of_a_job_that_is_not_active_it_stays(self, state: str) -> None:
        self.job()
        run = self.announced()
        self.change(state=state)

        self.stays_announced(run, self.accepting(run, self.process()))

    def stays_announced(self, run: Run, wanted: Run) -> None:
        """Hold that the store does not accept it as this."""
        assert not self.write([wanted]).opened
        row = self.row(run)
        assert (row.status, row.owner, row.accepted_at, row.turn) == (PENDING, None, None, None)

    def test_too_late_too_early_past_its_deadline_or_for_the_dead_it_stays(self) -> None:
        self.job()
        run, owner = self.announced(), self.process()
        dead = self.process()
        self.store.processes.deregister(dead)

        for wanted in (
            self.accepting(run, owner, due_at=self.now - HOUR),
            self.accepting(run, owner, due_at=self.now + HOUR),
            self.accepting(run, owner, expires_at=self.now - seconds(1)),
            self.accepting(run, dead),
        ):
            self.stays_announced(run, wanted)

    def test_while_another_run_has_its_key_it_stays(self) -> None:
        self.job()
        self.opened(self.run_of(owner=self.process(), turn="holds"))
        run = self.announced()

        self.stays_announced(run, self.accepting(run, self.process()))
        self.opened(self.accepting(run, self.process(), turn=None))

    def test_of_two_with_one_key_the_first_is_opened(self) -> None:
        self.job()
        first, second, owner = self.announced(20), self.announced(10), self.process()

        written = self.write([self.accepting(first, owner), self.accepting(second, owner)])

        assert written.opened == {first.id}
        assert self.row(second).accepted_at is None

    def test_its_tick_is_not_taken_before_it_is_accepted(self) -> None:
        self.job()
        run = self.announced()
        mine = replace(self.tick(), scheduled_for=run.scheduled_for)

        assert self.store.runs.already_recorded([mine]) == set()
        self.opened(self.accepting(run))
        assert self.store.runs.already_recorded([mine]) == {mine.id}

    def test_what_is_announced_and_due_in_a_stretch_is_found_oldest_first(self) -> None:
        self.job()
        late, second, first = self.announced(60), self.announced(20), self.announced(59)
        self.announced(-1)
        taken = self.announced(40)
        self.opened(self.accepting(taken))

        found = self.store.maintenance.unaccepted_runs(self.now - seconds(60), self.now, 10)
        assert found == [first.id, second.id]
        assert self.store.maintenance.unaccepted_runs(self.now - HOUR, self.now, 1) == [late.id]

    def test_what_nobody_accepted_is_found_and_can_be_withdrawn(self) -> None:
        self.job()
        self.job("other")
        run, late = self.announced(10), self.announced(100)
        taken = self.announced(50)
        self.opened(self.accepting(taken))

        assert self.store.maintenance.jobs_with_unaccepted_runs(self.now - seconds(60), 10) == ["job"]
        assert self.store.maintenance.jobs_with_unaccepted_runs(self.now - HOUR, 10) == []
        several = self.store.maintenance.jobs_with_several_unaccepted_runs
        assert several(["job", "other", "none"], self.now) == ["job"]
        assert (
            several(["job"], self.now - seconds(60))
            == several(["other"], self.now)
            == several([], self.now)
            == []
        )
        with self.store.jobs.lock("job") as txn:
            assert txn.announced(self.now) == {run.scheduled_for: run.id, late.scheduled_for: late.id}
            assert txn.announced(self.now - seconds(60)) == {late.scheduled_for: late.id}
            txn.delete_unaccepted([late.id, taken.id])
        assert [each.id for each in self.store.runs.by_id([run.id, late.id, taken.id, "none"])] == [
            taken.id,
            run.id,
        ]

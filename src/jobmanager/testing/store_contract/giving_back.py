"""Promises about running runs that go back to pending without using an attempt."""

from __future__ import annotations

from typing import Any

import pytest

from jobmanager.run import CANCELLED, KEEPS_ATTEMPT, PENDING, SKIPPED, Run
from jobmanager.testing.store_contract.ground import HOUR, StoreGround


class GivingBackPromises(StoreGround):
    """`give_back`, and the start after it."""

    def taken(self, ago: float = 10, **fields: Any) -> Run:
        """Return a running tick of a fresh process."""
        if self.store.jobs.get("job") is None:
            self.job()
        return self.opened(self.tick(ago, owner=self.process(), **{"turn": "holds", **fields}))

    def test_a_run_given_back_starts_again_with_the_same_attempt(self) -> None:
        run = self.taken(max_attempts=2)
        assert self.retried(run) is PENDING
        [again] = self.claim(self.process())

        for starts, reason in enumerate(sorted(KEEPS_ATTEMPT), 2):
            assert (again.attempt, again.starts) == (2, starts)
            assert self.store.runs.give_back([again], reason) == {run.id: PENDING}

            row = self.row(run)
            assert (row.status, row.reason, row.attempt, row.starts) == (PENDING, reason, 2, starts)
            assert (row.owner, row.started_at, row.dispatched_at, row.progress) == (None, None, None, None)
            assert row.next_attempt == 2
            [again] = self.claim(self.process())
            assert (again.id, again.reason) == (run.id, None)

    def test_a_run_that_never_began_is_as_if_it_had_not_been_taken(self) -> None:
        """Its deadline holds for it still, and a disabled job skips its tick."""
        run = self.taken(expires_at=self.now + HOUR)

        assert self.store.runs.give_back([run], "returned") == {run.id: PENDING}

        row = self.row(run)
        assert (row.attempt, row.starts, row.reason, row.next_attempt) == (0, 1, "returned", 1)
        assert self.store.history.attempts(run.id) == []
        [again] = self.claim(self.process())
        assert (again.attempt, again.starts) == (1, 2)
        assert self.store.runs.give_back([again], "returned") == {run.id: PENDING}
        with self.store.jobs.lock("job") as txn:
            txn.close_pending()
        assert (self.row(run).status, self.row(run).reason) == (SKIPPED, "disabled")

    def test_a_run_that_was_interrupted_before_it_was_returned_has_begun(self) -> None:
        run = self.taken()
        assert self.store.runs.give_back([run], "shutdown")
        [again] = self.claim(self.process())

        assert self.store.runs.give_back([again], "returned") == {run.id: PENDING}

        assert self.row(run).attempt == 1
        [third] = self.claim(self.process())
        assert (third.attempt, third.starts) == (1, 3)

    def test_each_interrupted_start_is_on_record(self) -> None:
        run = self.taken()
        assert self.store.runs.give_back([run], "shutdown")
        [again] = self.claim(self.process())
        assert self.store.runs.give_back([again], "shutdown")

        kept = [(each.starts, each.attempt, each.outcome) for each in self.store.history.attempts(run.id)]

        assert kept == [(1, 1, "shutdown"), (2, 1, "shutdown")]

    def test_a_run_given_back_keeps_its_key_and_its_place(self) -> None:
        run = self.taken()
        waiting = self.opened(self.run_of(turn="waits"))
        self.job("other")
        younger = self.opened(self.tick(5, "other"))

        assert self.store.runs.give_back([run], "returned")

        assert (self.row(run).turn, self.row(run).due_at) == ("holds", run.due_at)
        assert [each.id for each in self.claim(self.process())] == [run.id, younger.id]
        assert self.row(waiting) == waiting

    def test_giving_back_again_changes_nothing_and_answers_the_same(self) -> None:
        run = self.taken()

        for _ in range(2):
            assert self.store.runs.give_back([run], "shutdown") == {run.id: PENDING}
        assert len(self.store.history.attempts(run.id)) == 1

    def test_of_many_only_those_whose_fence_holds_are_given_back(self) -> None:
        mine, done, orphan = (self.taken(ago, turn=None) for ago in (3, 2, 1))
        assert self.ended(done)
        self.store.processes.deregister(str(orphan.owner))
        self.store.maintenance.take_over()

        assert self.store.runs.give_back([mine, done, orphan], "returned").get(mine.id) is PENDING

        assert self.row(done).status.closed
        assert self.row(orphan).status.closed

    def test_a_run_whose_cancel_was_requested_is_cancelled_instead(self) -> None:
        run = self.taken()
        self.store.runs.cancel(run.id)

        assert self.store.runs.give_back([run], "returned") == {run.id: CANCELLED}

        assert (self.row(run).status, self.row(run).reason, self.row(run).turn) == (
            CANCELLED,
            "requested",
            None,
        )

    def test_a_run_whose_job_is_no_longer_open_is_cancelled_instead(self) -> None:
        run = self.taken()
        self.change(state="disabled")

        assert self.store.runs.give_back([run], "shutdown") == {run.id: CANCELLED}

        assert (self.row(run).status, self.row(run).reason) == (CANCELLED, "disabled")

    def test_a_reason_that_uses_an_attempt_is_refused(self) -> None:
        run = self.taken()

        with pytest.raises(ValueError, match="'overlap' uses an attempt"):
            self.store.runs.give_back([run], "overlap")
        assert self.row(run) == run

"""Promises about the line before a key: who waits, who goes first, who is sent away."""

from __future__ import annotations

from jobmanager.run import CANCELLED, FAILED, SKIPPED, SUCCEEDED
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class LinePromises(StoreGround):
    """What `jobs.lock` offers to the overlap policies."""

    def test_due_runs_that_wait_for_a_key_stand_in_line(self) -> None:
        self.job()
        line = [
            self.run_of(turn="waits", priority=1),
            self.run_of(turn="waits", due_at=self.now - seconds(5)),
            self.run_of(turn="waits"),
        ]
        later = self.run_of(turn="waits", due_at=self.now + seconds(30))
        tenant = self.run_of(turn="waits", concurrency_key="job/tenant")
        self.inserted(line[2], later, line[0], tenant, line[1], self.run_of(turn="holds"), self.run_of())

        with self.store.jobs.lock("job") as txn:
            assert txn.waiting("job") == line
            assert txn.waiting("job/tenant") == [tenant]
            assert txn.waiting("job/nobody") == []

    def test_a_pending_run_can_be_superseded_and_a_running_one_cannot(self) -> None:
        self.job()
        pending, running = self.run_of(turn="holds"), self.run_of(owner=self.process())
        self.inserted(pending, running)

        with self.store.jobs.lock("job") as txn:
            txn.supersede(pending)
            txn.supersede(running)
            assert txn.holder("job") is None

        row = self.row(pending)
        assert (row.status, row.reason, row.turn) == (CANCELLED, "superseded", None)
        assert row.finished_at is not None
        assert self.row(running) == running

    def test_the_owner_of_a_running_run_is_asked_to_end_it_once(self) -> None:
        self.job()
        owner = self.process()
        running, pending = self.run_of(owner=owner, turn="holds"), self.run_of()
        self.inserted(running, pending)

        with self.store.jobs.lock("job") as txn:
            txn.request_cancel(running)
            txn.request_cancel(pending)
        asked = self.row(running).cancel_requested_at
        with self.store.jobs.lock("job") as txn:
            txn.request_cancel(running)

        assert asked is not None
        assert self.row(running).cancel_requested_at == asked
        assert self.store.runs.cancel_requests(owner) == [running.id]
        assert self.row(pending) == pending

    def test_the_last_ended_runs_are_those_that_were_executed(self) -> None:
        self.job()
        self.job("other")
        owner = self.process()
        ended = [self.opened(self.run_of(owner=owner)) for _ in range(3)]
        for run, status in zip(ended, (FAILED, SUCCEEDED, FAILED), strict=True):
            self.ended(run, status)
        self.ended(self.opened(self.run_of("other", owner=owner)))
        self.inserted(
            self.closed(self.tick(), SKIPPED, reason="overlap", blocked_by="another-run"),
            self.run_of(owner=owner),
            self.run_of(),
        )

        with self.store.jobs.lock("job") as txn:
            assert [run.id for run in txn.last_ended(2)] == [ended[2].id, ended[1].id]
            assert [run.status for run in txn.last_ended(10)] == [FAILED, SUCCEEDED, FAILED]

    def test_a_stretch_is_found_by_any_instant_it_covers(self) -> None:
        self.job()
        stretch = self.closed(
            self.tick(20), SKIPPED, reason="paused", first_for=self.now - seconds(40), ticks=21
        )
        self.inserted(stretch, self.tick(10))

        with self.store.jobs.lock("job") as txn:
            assert [txn.range_over(self.now - seconds(ago)) for ago in (40, 30, 20)] == [stretch] * 3
            assert [txn.range_over(self.now - seconds(ago)) for ago in (41, 19, 10)] == [None] * 3

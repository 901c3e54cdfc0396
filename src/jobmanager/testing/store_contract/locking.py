"""Promises about one job under its lock: what is read stays true, and all of it is kept or nothing."""

from __future__ import annotations

import threading
from dataclasses import fields, replace

import pytest

from jobmanager.errors import JobNotFoundError
from jobmanager.run import SKIPPED, Run
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class LockingPromises(StoreGround):
    """`jobs.lock`."""

    def test_an_unknown_job_cannot_be_locked(self) -> None:
        with pytest.raises(JobNotFoundError, match="nobody"), self.store.jobs.lock("nobody"):
            pass

    def test_the_page_shows_the_job_and_the_store_s_time(self) -> None:
        job = self.job()

        with self.store.jobs.lock("job") as txn:
            assert txn.job == job
            assert txn.now >= self.now
            assert txn.now.utcoffset() == seconds(0)

    def test_what_the_block_wrote_is_kept_when_it_ends(self) -> None:
        self.job()
        run = self.tick()

        with self.store.jobs.lock("job") as txn:
            assert txn.insert(run)
            txn.save(replace(txn.job, state="paused"))
            assert txn.job.state == "paused"
            assert txn.get(run.id) == run

        assert self.row(run) == run
        assert self.stored_job().state == "paused"

    def test_many_jobs_are_held_at_once_and_what_their_pages_say_is_true(self) -> None:
        self.job()
        other = self.job("other")
        self.job("third")
        owner = self.process()
        holder = self.opened(self.run_of(owner=owner, turn="holds"))
        recorded = self.opened(self.tick(job_id="other", turn=None))
        asked = [self.tick(turn="holds"), self.tick(job_id="other"), self.tick(job_id="nobody")]

        with self.store.jobs.lock_many(asked) as txns:
            assert set(txns) == {"job", "other"}
            assert txns["other"].job == other
            assert txns["job"].holder(holder.concurrency_key) == holder
            assert txns["other"].holder(asked[1].concurrency_key) is None
            assert txns["job"].run_for(asked[0].instant) is None
            assert txns["other"].run_for(recorded.instant) == recorded
            assert txns["other"].run_for(recorded.instant - seconds(1)) is None

    def test_what_was_written_for_many_jobs_is_kept_together_or_not_at_all(self) -> None:
        self.job()
        self.job("other")
        skipped = self.closed(self.tick(), SKIPPED, reason="overlap", blocked_by="another-run")
        opened = self.tick(job_id="other", turn="holds")

        with pytest.raises(ZeroDivisionError), self.store.jobs.lock_many([skipped, opened]) as txns:
            assert txns["job"].insert(skipped)
            assert txns["other"].insert(opened)
            raise ZeroDivisionError
        assert self.store.history.runs() == []

        with self.store.jobs.lock_many([skipped, opened]) as txns:
            assert txns["job"].insert(skipped)
            assert txns["other"].insert(opened)
            assert txns["job"].run_for(skipped.instant) == skipped
            assert txns["other"].holder(opened.concurrency_key) == opened

        assert (self.row(skipped), self.row(opened)) == (skipped, opened)

    def test_who_holds_a_job_may_read_the_store(self) -> None:
        job = self.job()
        run = self.tick()

        with self.store.jobs.lock("job") as txn:
            txn.insert(run)
            assert self.store.jobs.get("job") == job
            assert self.store.history.runs(job_id="other") == []

        assert self.row(run) == run

    def test_what_a_raising_block_wrote_is_gone(self) -> None:
        before = self.job()
        run = self.tick()
        other = self.tick(20)
        self.inserted(other)
        seq = self.store.jobs.change_seq()

        with pytest.raises(ZeroDivisionError), self.store.jobs.lock("job") as txn:
            txn.insert(run)
            txn.close_pending()
            txn.save(replace(txn.job, state="disabled"))
            raise ZeroDivisionError

        assert self.store.history.run(run.id) is None
        assert self.row(other) == other
        assert self.stored_job() == before
        assert self.store.jobs.change_seq() == seq

    def test_a_block_that_failed_holds_no_lock(self) -> None:
        self.job()
        with pytest.raises(ZeroDivisionError), self.store.jobs.lock("job"):
            raise ZeroDivisionError

        assert self.change(state="paused").state == "paused"
        assert self.write([self.run_of()]).opened

    def test_one_thread_at_a_time_holds_a_job(self) -> None:
        self.job(override={"count": 0})

        def count() -> None:
            for _ in range(20):
                with self.store.jobs.lock("job") as txn:
                    before = (txn.job.override or {})["count"]
                    txn.save(replace(txn.job, override={"count": before + 1}))

        threads = [threading.Thread(target=count) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert self.stored_job().override == {"count": 80}

    def test_no_tick_is_opened_while_its_job_is_being_changed(self) -> None:
        self.job()
        run = self.tick()
        answers: list[bool] = []
        opener = threading.Thread(target=lambda: answers.append(run.id in self.write([run]).opened))

        with self.store.jobs.lock("job") as txn:
            opener.start()
            opener.join(0.1)  # it waits for us, or was refused; it must not have been let through
            txn.save(replace(txn.job, schedule_rev=2, accounted_until=self.now))
        opener.join(60)

        assert answers == [False]
        assert self.store.history.run(run.id) is None

    # ---------------------------------------------------------------- looking

    def test_a_run_is_found_by_id_by_tick_and_by_key(self) -> None:
        self.job()
        self.job("other")
        ticked, by_hand, other = (
            self.tick(),
            self.run_of(idempotency_key="order-7"),
            self.tick(job_id="other"),
        )
        self.inserted(ticked, by_hand, other)

        with self.store.jobs.lock("job") as txn:
            assert txn.get(by_hand.id) == by_hand
            assert txn.run_for(self.now - seconds(10)) == ticked
            assert txn.run_with_key("order-7") == by_hand
            assert txn.get(self.tick().id) is None
            assert txn.run_for(self.now - seconds(11)) is None
            assert txn.run_with_key("order-8") is None
        with self.store.jobs.lock("other") as txn:
            assert txn.run_with_key("order-7") is None
            assert txn.run_for(self.now - seconds(10)) == other

    def test_the_holder_is_the_run_whose_turn_it_is(self) -> None:
        self.job()
        holds, waits = self.run_of(turn="holds"), self.run_of(turn="waits")
        tenant = self.run_of(turn="holds", concurrency_key="job/tenant")
        self.inserted(waits, holds, tenant, self.run_of(turn=None))

        with self.store.jobs.lock("job") as txn:
            assert txn.holder("job") == holds
            assert txn.holder("job/tenant") == tenant
            assert txn.holder("job/nobody") is None

    def test_instants_are_those_of_the_job_s_rows_after_and_until(self) -> None:
        self.job()
        self.job("other")
        self.inserted(*(self.tick(ago) for ago in (10, 20, 30, 40)), self.tick(25, "other"), self.run_of())

        with self.store.jobs.lock("job") as txn:
            found = txn.instants(self.now - seconds(40), self.now - seconds(20))
            assert found == {self.now - seconds(30), self.now - seconds(20)}
            assert txn.newest_instant() == self.now - seconds(10)
        self.job("empty")
        with self.store.jobs.lock("empty") as txn:
            assert txn.instants(self.now - seconds(40), self.now) == set()
            assert txn.newest_instant() is None

    def test_a_later_tick_counts_as_opened_unless_it_is_skipped_missed_or_only_announced(self) -> None:
        self.job()
        self.inserted(
            self.tick(30),
            self.closed(self.tick(20), SKIPPED, reason="overlap", blocked_by="another-run"),
            self.tick(10, accepted_at=None),
            self.run_of(),
        )

        with self.store.jobs.lock("job") as txn:
            assert txn.opened_after(self.now - seconds(31))
            assert not txn.opened_after(self.now - seconds(30))

    # ---------------------------------------------------------------- writing

    def test_a_taken_id_tick_key_or_turn_is_not_inserted(self) -> None:
        self.job()
        first = self.tick(turn="holds", idempotency_key="once")
        self.inserted(first)

        with self.store.jobs.lock("job") as txn:
            assert not txn.insert(replace(self.tick(30), id=first.id))
            assert not txn.insert(self.tick())
            assert not txn.insert(self.run_of(idempotency_key="once"))
            assert not txn.insert(self.run_of(turn="holds"))
            assert txn.insert(self.run_of(turn="waits"))
            assert txn.insert(self.run_of(turn=None))
        assert len(self.store.history.runs()) == 3

    def test_every_field_of_a_run_comes_back(self) -> None:
        self.job()
        owner = self.process()
        instant = self.now - seconds(5)
        run = replace(
            self.tick(
                5,
                owner=owner,
                payload={"days": 7, "name": "Größe", "deep": [None, True, 1.5]},
                requested_by="ana",
                notify=True,
                expires_at=self.now,
                max_attempts=4,
                retry_on_crash=False,
                turn="holds",
                concurrency_key="job/tenant",
                priority=-3,
                idempotency_key="order-7",
                cancel_requested_at=self.now,
                dispatched_at=self.now,
            ),
            blocked_by="another-run",
            parent_id="019b76da-a800-7000-8000-000000000003",
            first_for=instant,
            output={"made": 3},
            reason=None,
        )

        self.inserted(run)

        assert self.row(run) == run
        plain = {item.name for item in fields(Run) if getattr(run, item.name) == item.default}
        assert plain == {"ticks", "trigger", "reason", "error", "progress", "finished_at", "discarded_at"}

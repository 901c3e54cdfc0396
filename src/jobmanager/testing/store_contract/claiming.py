"""Promises about pending runs that find a process: who gets which, in which order, and nobody twice."""

from __future__ import annotations

from dataclasses import replace

from jobmanager.run import FAILED, PENDING, RUNNING
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class ClaimingPromises(StoreGround):
    """`claim`."""

    def test_a_claimed_run_is_running_and_its_owner_s(self) -> None:
        self.job()
        owner = self.process()
        run = self.opened(self.tick(turn="holds", payload={"a": 1}))

        [claimed] = self.claim(owner)

        assert claimed == self.row(run)
        assert claimed == replace(
            run, status=RUNNING, attempt=1, starts=1, owner=owner, started_at=claimed.started_at
        )
        assert claimed.started_at is not None
        assert self.now <= claimed.started_at <= self.store.now()
        assert self.claim(owner) == []

    def test_attempts_count_from_start_to_start(self) -> None:
        self.job()
        owner = self.process()
        run = self.opened(self.run_of(owner=owner))

        for attempt in (2, 3):
            assert self.retried(run) is PENDING
            [run] = self.claim(owner)
            assert (run.attempt, run.starts) == (attempt, attempt)

        assert [attempt.attempt for attempt in self.store.history.attempts(run.id)] == [1, 2]

    def test_priority_comes_first_then_age(self) -> None:
        self.job()
        order = [
            self.run_of(priority=5, due_at=self.now - seconds(1)),
            self.run_of(priority=1, due_at=self.now - HOUR),
            self.run_of(priority=1, due_at=self.now - seconds(2)),
            self.run_of(priority=1, due_at=self.now - seconds(2)),
            self.run_of(priority=0, due_at=self.now - 2 * HOUR),
            self.run_of(priority=-1, due_at=self.now - 2 * HOUR),
        ]
        self.write([order[number] for number in (4, 2, 3, 5, 0, 1)])
        owner = self.process()

        claimed = [*self.claim(owner, 2), *self.claim(owner, 3), *self.claim(owner, 3)]

        assert [run.id for run in claimed] == [run.id for run in order]

    def test_no_more_than_the_limit_is_claimed(self) -> None:
        self.job()
        self.write([self.run_of() for _ in range(5)])
        owner = self.process()

        assert [len(self.claim(owner, limit)) for limit in (2, 2, 2, 2)] == [2, 2, 1, 0]

    def test_what_is_due_is_counted_as_far_as_asked(self) -> None:
        self.job()
        self.job("other")
        self.write([self.run_of() for _ in range(3)])
        self.opened(self.run_of(due_at=self.now + seconds(30)))
        self.opened(self.run_of("other"))
        count = self.store.runs.count_due

        assert [count("default", 10), count("default", 2), count("elsewhere", 10)] == [4, 2, 0]
        assert count("default", 10, unknown=["other"]) == 3
        self.change(state="disabled")
        assert count("default", 10) == 1

    def test_what_is_not_due_yet_stays(self) -> None:
        self.job()
        later = self.opened(self.run_of(due_at=self.now + seconds(30)))

        assert self.claim(self.process()) == []
        assert self.row(later) == later

    def test_a_run_that_waits_for_its_key_stays_while_somebody_holds_it(self) -> None:
        self.job()
        owner = self.process()
        holder = self.opened(self.run_of(owner=owner, turn="holds"))
        waiting = self.opened(self.run_of(turn="waits"))
        tenant = self.opened(self.run_of(turn="waits", concurrency_key="job/tenant"))

        assert [run.id for run in self.claim(owner)] == [tenant.id]
        assert self.retried(holder, after=30) is PENDING
        assert self.claim(owner) == []
        self.store.runs.cancel(holder.id)
        [claimed] = self.claim(owner)
        assert (claimed.id, claimed.turn) == (waiting.id, "holds")

    def test_of_two_runs_that_wait_for_one_key_one_is_claimed(self) -> None:
        self.job()
        owner = self.process()
        first, second = (self.opened(self.run_of(turn="waits", priority=1 - place)) for place in (0, 1))

        [claimed] = self.claim(owner)

        assert claimed.id == first.id
        assert self.claim(owner) == []
        assert self.ended(claimed)
        assert [run.id for run in self.claim(owner)] == [second.id]

    def test_runs_that_need_no_turn_are_claimed_together(self) -> None:
        self.job()
        self.write([self.run_of() for _ in range(3)])
        self.opened(self.run_of(turn="holds"))

        assert len(self.claim(self.process())) == 4

    def test_jobs_that_a_process_does_not_know_are_left_to_others(self) -> None:
        self.job("known")
        self.job("strange")
        known, strange = self.opened(self.run_of("known")), self.opened(self.run_of("strange"))

        assert [run.id for run in self.claim(self.process(), unknown={"strange", "other"})] == [known.id]
        assert [run.id for run in self.claim(self.process())] == [strange.id]

    def test_runs_of_another_namespace_are_left_alone(self) -> None:
        self.job(namespace="shop")
        run = self.opened(self.run_of())

        assert self.claim(self.process()) == []
        assert [each.id for each in self.claim(self.process(namespace="shop"), namespace="shop")] == [run.id]

    def test_one_run_can_be_claimed_by_its_id_if_it_could_be_claimed_at_all(self) -> None:
        self.job()
        owner = self.process()
        other, wanted = self.opened(self.run_of(priority=9)), self.opened(self.run_of())
        later = self.opened(self.run_of(due_at=self.now + seconds(30)))

        assert [run.id for run in self.claim(owner, 1, run_ids=[wanted.id])] == [wanted.id]
        assert self.claim(owner, 1, run_ids=[wanted.id]) == []
        assert self.claim(owner, 1, run_ids=[later.id]) == []
        assert self.row(other).status is PENDING

    def test_a_process_gets_runs_of_the_jobs_it_declares_only(self) -> None:
        self.job("mine")
        self.job("newer")
        mine = self.opened(self.run_of("mine"))
        newer = self.opened(self.run_of("newer"))

        assert [run.id for run in self.claim(self.process(declares=["mine", "else"]))] == [mine.id]
        assert [run.id for run in self.claim(self.process(declares=["newer"]))] == [newer.id]

    def test_a_dead_or_unknown_process_gets_nothing(self) -> None:
        self.job()
        self.opened(self.run_of())
        dead = self.process()
        self.store.processes.deregister(dead)

        assert self.claim(dead) == []
        assert self.claim("nobody") == []

    def test_runs_of_a_job_that_is_not_open_are_not_claimed(self) -> None:
        self.job()
        self.opened(self.run_of())

        for state in ("disabled", "deleted"):
            self.change(state=state)
            assert self.claim(self.process()) == []

    def test_a_paused_job_s_runs_that_were_opened_before_are_claimed(self) -> None:
        self.job()
        run = self.opened(self.run_of())
        self.change(state="paused")

        assert [each.id for each in self.claim(self.process())] == [run.id]

    def test_a_run_that_was_only_announced_is_not_claimed(self) -> None:
        self.job()
        self.inserted(self.tick(accepted_at=None))

        assert self.claim(self.process()) == []

    def test_what_has_ended_or_is_running_is_not_claimed(self) -> None:
        self.job()
        owner = self.process()
        self.opened(self.run_of(owner=owner))
        self.ended(self.opened(self.run_of(owner=owner)), FAILED)

        assert self.claim(self.process()) == []

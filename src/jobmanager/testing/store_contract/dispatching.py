"""Promises about pending runs that others execute: which are to be sent, when again, and which process may do what only one does."""

from __future__ import annotations

from jobmanager.run import PENDING, SUCCEEDED
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class DispatchingPromises(StoreGround):
    """`to_dispatch` and `acquire_role`."""

    def to_dispatch(self, limit: int = 100, **which: object) -> list[str]:
        """Ids of what is to be sent now."""
        return [run.id for run in self.store.runs.to_dispatch("default", limit, **which)]  # type: ignore[arg-type]

    def test_what_nobody_has_sent_is_to_be_sent_and_noted_as_sent(self) -> None:
        self.job()
        run = self.opened(self.run_of())

        [sent] = self.store.runs.to_dispatch("default", 100)

        assert sent == self.row(run)
        assert sent.status is PENDING
        assert sent.dispatched_at is not None
        assert self.now <= sent.dispatched_at <= self.store.now()
        assert self.to_dispatch() == []

    def test_whoever_opens_it_may_say_that_it_is_sent(self) -> None:
        self.job()
        self.opened(self.run_of(dispatched_at=self.now))

        assert self.to_dispatch() == []

    def test_a_message_that_must_be_lost_is_sent_again_and_then_after_twice_as_long(self) -> None:
        self.job()

        def sent(ago: float, *, after: float) -> str:
            due_at = self.now - seconds(ago + after)
            return self.opened(self.run_of(due_at=due_at, dispatched_at=self.now - seconds(ago))).id

        sent(20, after=0)
        lost = sent(40, after=0)
        sent(50, after=60)
        lost_again = sent(70, after=60)

        assert set(self.to_dispatch()) == {lost, lost_again}
        assert self.to_dispatch() == []

    def test_priority_comes_first_then_age_and_no_more_than_the_limit(self) -> None:
        self.job()
        order = [
            self.run_of(priority=5),
            self.run_of(due_at=self.now - HOUR),
            self.run_of(due_at=self.now - seconds(2)),
            self.run_of(priority=-1, due_at=self.now - 2 * HOUR),
        ]
        self.write([order[number] for number in (2, 3, 0, 1)])

        assert [*self.to_dispatch(3), *self.to_dispatch(3)] == [run.id for run in order]

    def test_what_could_not_be_claimed_is_not_to_be_sent(self) -> None:
        self.job()
        self.job("strange")
        self.job("shop", namespace="shop")
        owner = self.process()
        self.opened(self.run_of(owner=owner, turn="holds"))
        self.opened(self.run_of(turn="waits"))
        self.opened(self.run_of(due_at=self.now + seconds(30)))
        self.opened(self.run_of("strange"))
        self.opened(self.run_of("shop"))
        self.inserted(self.run_of(accepted_at=None), self.tick(20, expires_at=self.now - seconds(5)))

        assert self.to_dispatch(unknown={"strange"}) == []

    def test_of_two_runs_that_wait_for_one_key_the_second_is_sent_after_the_first(self) -> None:
        self.job()
        owner = self.process()
        first, second = (self.opened(self.run_of(turn="waits", priority=1 - place)) for place in (0, 1))

        assert self.to_dispatch() == [first.id]
        [claimed] = self.claim(owner, run_ids=[first.id])
        assert self.to_dispatch() == []
        assert self.ended(claimed) is SUCCEEDED
        assert self.to_dispatch() == [second.id]

    def test_none_of_a_line_is_sent_while_an_earlier_one_is_under_way(self) -> None:
        self.job()
        self.opened(self.run_of(turn="waits", priority=1, dispatched_at=self.now))
        self.opened(self.run_of(turn="waits"))

        assert self.to_dispatch() == []

    def test_a_lost_message_is_sent_again_before_the_next_in_line(self) -> None:
        self.job()
        long_ago = self.now - seconds(40)
        lost = self.opened(self.run_of(turn="waits", due_at=long_ago, dispatched_at=long_ago))
        self.opened(self.run_of(turn="waits"))

        assert self.to_dispatch() == [lost.id]

    def test_a_message_whose_key_was_held_is_sent_again_when_it_is_free(self) -> None:
        self.job()
        owner = self.process()
        holder = self.opened(self.run_of(owner=owner, turn="holds"))
        sent = self.opened(self.run_of(turn="waits", dispatched_at=self.now))
        assert self.claim(owner, run_ids=[sent.id]) == []

        assert self.store.runs.note_unclaimed([sent.id, holder.id, "nonsense"]) == []

        assert self.row(sent).dispatched_at is None
        assert self.ended(holder) is SUCCEEDED
        assert self.to_dispatch() == [sent.id]

    def test_of_unclaimed_runs_those_with_a_free_key_may_be_asked_for_again(self) -> None:
        self.job()
        plain = self.opened(self.run_of(dispatched_at=self.now))
        waiting = self.opened(self.run_of(turn="waits", dispatched_at=self.now))
        later = self.opened(self.run_of(due_at=self.now + seconds(30)))

        found = self.store.runs.note_unclaimed([plain.id, waiting.id, later.id])

        assert set(found) == {plain.id, waiting.id}
        assert self.row(plain).dispatched_at == self.now

    def test_a_run_that_is_pending_again_is_to_be_sent_again(self) -> None:
        self.job()
        owner = self.process()
        for again in (self.retried, self._taken_over, self._redriven):
            run = self.opened(self.run_of(dispatched_at=self.now, max_attempts=9))
            [claimed] = self.claim(owner, run_ids=[run.id])
            again(claimed)
            assert self.to_dispatch() == [run.id], again.__name__
            owner = self.process()

    def _taken_over(self, run: object) -> None:
        for instance in self.store.processes.living():
            self.store.processes.deregister(instance.id)
        assert [taken.status for taken in self.store.maintenance.take_over()] == [PENDING]

    def _redriven(self, run: object) -> None:
        claimed = self.store.runs.running_of(self.store.processes.living()[-1].id)[0]
        assert self.ended(claimed) is SUCCEEDED
        with self.store.jobs.lock("job") as txn:
            closed = txn.get(claimed.id)
            assert closed is not None
            txn.reopen(closed, max_attempts=9, turn=None)

    def test_one_of_all_living_has_a_role(self) -> None:
        first, second = self.process(), self.process()

        assert self.store.processes.acquire_role("bell", first)
        assert self.store.processes.acquire_role("bell", first)
        assert not self.store.processes.acquire_role("bell", second)
        assert self.store.processes.acquire_role("whistle", second)

    def test_a_role_goes_over_when_whoever_had_it_is_gone(self) -> None:
        first, second, third = self.process(), self.process(), self.process()
        assert self.store.processes.acquire_role("bell", first)

        self.store.processes.deregister(first)

        assert self.store.processes.acquire_role("bell", second)
        assert not self.store.processes.acquire_role("bell", third)

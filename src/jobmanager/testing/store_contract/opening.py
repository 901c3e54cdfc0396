"""Promises about opening: one guarded insert decides whether a tick becomes a run, whoever brings it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobmanager.errors import StoreError
from jobmanager.run import CANCELLED, PENDING, RUNNING, SUCCEEDED
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class OpeningPromises(StoreGround):
    """`write(opens, ...)` and `taken`."""

    def test_a_tick_on_time_becomes_a_run(self) -> None:
        self.job()
        run = self.tick(turn="holds", priority=2, max_attempts=3, retry_on_crash=False)

        assert self.opened(run) == run
        assert self.row(run).status is PENDING

    def test_who_executes_opens_the_run_as_running(self) -> None:
        self.job()
        run = self.tick(owner=self.process(), turn="holds")

        assert self.opened(run) == run
        assert (run.status, run.attempt) == (RUNNING, 1)

    def test_a_run_by_hand_keeps_what_it_was_started_with(self) -> None:
        self.job()
        run = self.run_of(
            owner=self.process(),
            payload={"days": 7, "name": "Größe"},
            requested_by="ana",
            notify=True,
            idempotency_key="order-7",
            concurrency_key="job/tenant",
            turn="holds",
        )

        assert self.opened(run) == run

    # ---------------------------------------------------------------- the guards

    def test_an_unknown_job_opens_nothing(self) -> None:
        self.refused(self.tick(job_id="nobody"))
        self.refused(self.run_of("nobody"))

    def test_a_tick_of_another_revision_is_refused(self) -> None:
        self.job(schedule_rev=2)

        self.refused(self.tick(revision=1))
        self.refused(self.tick(revision=3))
        self.opened(self.tick(revision=2))

    def test_a_tick_at_or_before_the_watermark_is_refused(self) -> None:
        self.job(accounted_until=self.now - seconds(10))

        self.refused(self.tick(10))
        self.refused(self.tick(11))
        self.opened(self.tick(9))

    def test_a_tick_before_its_time_is_refused(self) -> None:
        self.job()

        self.refused(self.tick(-30))
        self.refused(self.tick(10, due_at=self.now + seconds(30)))

    def test_a_tick_is_on_time_at_its_very_instant(self) -> None:
        self.job()

        self.opened(self.tick(0))

    def test_a_tick_later_than_the_grace_is_refused(self) -> None:
        self.job()

        self.refused(self.tick(61))
        self.opened(self.tick(50))

    def test_a_tick_past_its_deadline_is_refused(self) -> None:
        self.job()

        self.refused(self.tick(10, expires_at=self.now - seconds(5)))
        self.opened(self.tick(10, expires_at=self.now + seconds(30)))

    def test_lateness_counts_from_when_the_run_is_due(self) -> None:
        self.job()

        self.opened(self.tick(100, due_at=self.now - seconds(5)))

    def test_a_tick_of_a_job_that_is_not_active_is_refused(self) -> None:
        for state in ("paused", "disabled", "deleted"):
            self.job(state, state=state)

            self.refused(self.tick(job_id=state))
            self.refused(self.tick(job_id=state, owner=self.process()))

    def test_nothing_of_a_job_that_is_not_open_starts_by_hand(self) -> None:
        for state in ("disabled", "deleted"):
            self.job(state, state=state)

            self.refused(self.run_of(state))

    def test_a_paused_job_can_be_started_by_hand(self) -> None:
        self.job(state="paused")

        self.opened(self.run_of(owner=self.process()))

    def test_a_run_by_hand_knows_no_revision_and_no_lateness(self) -> None:
        self.job(schedule_rev=9)

        self.opened(self.run_of(due_at=self.now - HOUR))
        self.opened(self.run_of(due_at=self.now + HOUR))

    def test_a_dead_process_opens_nothing_as_its_own(self) -> None:
        self.job()
        dead = self.process()
        self.store.processes.deregister(dead)

        self.refused(self.tick(owner=dead))
        self.refused(self.run_of(owner=dead))

    def test_an_unknown_process_opens_nothing_as_its_own(self) -> None:
        self.job()

        self.refused(self.tick(owner="nobody"))

    def test_what_is_pending_needs_no_process(self) -> None:
        self.job()

        self.opened(self.tick())

    # ---------------------------------------------------------------- unique

    def test_a_second_run_for_the_same_tick_is_refused(self) -> None:
        self.job()
        self.opened(self.tick())

        self.refused(self.tick())
        self.refused(self.tick(owner=self.process()))
        self.job("other")
        self.opened(self.tick(job_id="other"))

    def test_a_tick_that_was_skipped_or_has_ended_stays_taken(self) -> None:
        self.job()
        self.inserted(self.closed(self.tick(), SUCCEEDED))

        self.refused(self.tick())

    def test_a_key_is_held_by_one_run(self) -> None:
        self.job()
        first = self.opened(self.tick(20, turn="holds"))

        self.refused(self.tick(10, turn="holds"))
        self.refused(self.run_of(turn="holds"))
        self.opened(self.run_of(turn="holds", concurrency_key="job/tenant"))
        assert self.store.runs.cancel(first.id).status is CANCELLED
        self.opened(self.tick(10, turn="holds"))

    def test_runs_that_wait_or_need_no_turn_meet_nobody(self) -> None:
        self.job()
        self.opened(self.run_of(turn="holds"))

        for turn in ("waits", "waits", None, None):
            self.opened(self.run_of(turn=turn))

    def test_an_idempotency_key_is_used_once_per_job(self) -> None:
        self.job()
        self.job("other")
        first = self.opened(self.run_of(idempotency_key="order-7"))

        self.refused(self.run_of(idempotency_key="order-7"))
        self.opened(self.run_of("other", idempotency_key="order-7"))
        self.opened(self.run_of(idempotency_key="order-8"))
        assert self.store.runs.cancel(first.id).status is CANCELLED
        self.refused(self.run_of(idempotency_key="order-7"))

    # ---------------------------------------------------------------- many at once

    def test_of_a_batch_the_refused_ones_do_not_hinder_the_others(self) -> None:
        self.job()
        self.job("paused", state="paused")
        living, dead = self.process(), self.process()
        self.store.processes.deregister(dead)
        taken = self.opened(self.tick(1))
        good = [self.tick(2), self.tick(3, owner=living), self.run_of(), self.run_of("paused")]
        bad = [
            replace(self.tick(1), priority=1),
            self.tick(4, owner=dead),
            self.tick(5, revision=2),
            self.tick(61),
            self.tick(-30),
            self.tick(6, "paused"),
            self.tick(7, "nobody"),
        ]

        written = self.write([*bad[:3], *good, *bad[3:]])

        assert set(written.opened) == {run.id for run in good}
        assert {run.id for run in self.store.history.runs()} == {taken.id, *(run.id for run in good)}

    def test_of_two_runs_for_one_tick_in_one_batch_one_is_opened(self) -> None:
        self.job()
        pair = [self.tick(), self.tick()]

        written = self.write(pair)

        assert len(set(written.opened)) == 1
        assert [run.id for run in self.store.history.runs()] == list(written.opened)

    def test_many_ticks_are_opened_in_one_write(self) -> None:
        owner = self.process()
        for number in range(100):
            self.job(f"job-{number}")
        runs = [self.tick(job_id=f"job-{number}", owner=owner, turn="holds") for number in range(100)]
        for place, run in enumerate(runs):
            runs[place] = replace(run, concurrency_key=run.job_id)

        written = self.write(runs)

        assert set(written.opened) == {run.id for run in runs}
        assert len(self.store.history.runs(limit=1000)) == 100

    def test_nothing_to_write_is_written(self) -> None:
        written = self.write()

        assert (list(written.opened), dict(written.ended)) == ([], {})

    def test_a_write_with_a_row_that_cannot_be_kept_keeps_nothing(self) -> None:
        self.job()
        running = self.opened(self.run_of(owner=self.process()))
        run = self.tick()

        with pytest.raises(StoreError):
            self.write([run], [self.ending(running, reason="no such reason")])

        assert self.store.history.run(run.id) is None
        assert self.row(running) == running
        self.opened(run)

    # ---------------------------------------------------------------- again

    def test_the_same_write_again_changes_nothing_and_answers_the_same(self) -> None:
        self.job()
        owner = self.process()
        runs = [self.tick(1, owner=owner, turn="holds"), self.tick(2), self.tick(-30), self.run_of()]

        first = self.write(runs)
        rows = self.store.history.runs()
        again = self.write(runs)

        assert set(first.opened) == set(again.opened) == {runs[0].id, runs[1].id, runs[3].id}
        assert self.store.history.runs() == rows

    def test_the_same_write_again_is_answered_even_when_the_job_changed_meanwhile(self) -> None:
        self.job()
        run = self.opened(self.tick(owner=self.process()))
        self.change(schedule_rev=2, accounted_until=self.now)

        assert set(self.write([run]).opened) == {run.id}

    def test_a_run_that_has_ended_meanwhile_is_not_handed_out_to_be_executed_again(self) -> None:
        self.job()
        run = self.opened(self.tick(owner=self.process()))
        assert self.ended(run) is SUCCEEDED

        assert set(self.write([run]).opened) == set()

    # ---------------------------------------------------------------- taken

    def test_refused_ticks_that_have_a_row_are_taken(self) -> None:
        self.job()
        self.job("other")
        self.opened(self.tick(10))
        duplicate, twin, free = self.tick(10), self.tick(10), self.tick(20)
        elsewhere, by_hand = self.tick(10, "other"), self.run_of()

        assert self.store.runs.already_recorded([duplicate, free, twin, elsewhere, by_hand]) == {
            duplicate.id,
            twin.id,
        }
        assert self.store.runs.already_recorded([by_hand]) == set()
        assert self.store.runs.already_recorded([]) == set()

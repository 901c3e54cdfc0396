"""Promises about a run while it lasts: progress, log lines and the wish to cancel it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from jobmanager.errors import RunNotFoundError
from jobmanager.run import CANCELLED, SUCCEEDED, LogLine, Progress
from jobmanager.testing.store_contract.ground import StoreGround, seconds


class LastingPromises(StoreGround):
    """`note_progress`, `add_lines`, `cancel` and `cancel_requests`."""

    def test_progress_is_kept_while_the_run_is_its_owner_s(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))

        for progress in (Progress(processed=1), Progress(processed=2, total=9, message="Größe")):
            self.store.runs.note_progress(run, progress)
            assert self.row(run).progress == progress

    def test_a_late_writer_s_progress_is_not_kept(self) -> None:
        self.job()
        owner = self.process()
        run, done = self.opened(self.run_of(owner=owner)), self.opened(self.run_of(owner=owner))
        self.ended(done)

        self.store.runs.note_progress(replace(run, owner=self.process()), Progress(processed=1))
        self.store.runs.note_progress(replace(run, starts=2), Progress(processed=2))
        self.store.runs.note_progress(done, Progress(processed=3))
        self.store.runs.note_progress(self.run_of(owner=owner), Progress(processed=4))

        assert (self.row(run).progress, self.row(done).progress) == (None, None)

    def test_lines_come_back_in_their_order_and_from_a_position_on(self) -> None:
        self.job()
        run, other = (self.opened(self.run_of(owner=self.process())) for _ in range(2))
        lines = [
            LogLine(self.now + seconds(number / 10), "INFO", f"line {number}: Größe") for number in range(6)
        ]

        self.store.runs.add_lines(run.id, 1, lines[:2])
        self.store.runs.add_lines(other.id, 1, [LogLine(self.now, "ERROR", "elsewhere")])
        self.store.runs.add_lines(run.id, 2, lines[2:3])
        before = self.store.history.lines(run.id)
        self.store.runs.add_lines(run.id, 2, lines[3:])

        assert [(attempt, line) for _, attempt, line in before] == [
            (1, lines[0]),
            (1, lines[1]),
            (2, lines[2]),
        ]
        assert [line for _, _, line in self.store.history.lines(run.id)] == lines
        seen = max(position for position, _, _ in before)
        assert [line for _, _, line in self.store.history.lines(run.id, after=seen)] == lines[3:]
        assert self.store.history.lines(run.id, after=10_000_000) == []

    # ---------------------------------------------------------------- cancelling

    def test_a_run_is_cancelled_with_all_that_it_has_started(self) -> None:
        self.job()
        owner = self.process()
        parent = self.opened(self.run_of(owner=owner, turn=None))
        waits, runs = (
            self.opened(self.run_of(parent_id=parent.id, turn=None, **how)) for how in ({}, {"owner": owner})
        )
        ended = self.opened(self.run_of(parent_id=parent.id, turn=None, owner=owner))
        below = self.opened(self.run_of(parent_id=ended.id, turn=None))
        self.ended(ended, SUCCEEDED)
        other = self.opened(self.run_of(turn=None))

        assert self.store.runs.cancel(parent.id, children=False).cancel_requested_at is not None
        assert self.row(waits) == waits
        self.store.runs.cancel(parent.id)

        assert [self.row(run).status for run in (waits, below)] == [CANCELLED, CANCELLED]
        assert self.row(runs).cancel_requested_at is not None
        assert (self.row(ended).status, self.row(other)) == (SUCCEEDED, other)

    def test_a_pending_run_is_cancelled_at_once(self) -> None:
        self.job()
        run = self.opened(self.run_of(turn="holds", due_at=self.now + seconds(30)))

        answer = self.store.runs.cancel(run.id)

        assert answer == self.row(run)
        assert (answer.status, answer.reason, answer.turn) == (CANCELLED, "requested", None)
        assert answer.finished_at is not None
        assert self.now <= answer.finished_at <= self.store.now()

    def test_a_running_run_is_asked_to_end(self) -> None:
        self.job()
        owner = self.process()
        run = self.opened(self.run_of(owner=owner, turn="holds"))

        answer = self.store.runs.cancel(run.id)

        assert answer.cancel_requested_at is not None
        assert answer == replace(run, cancel_requested_at=answer.cancel_requested_at) == self.row(run)
        assert self.store.runs.cancel(run.id) == answer
        assert self.ended(run, SUCCEEDED) is SUCCEEDED

    def test_a_closed_run_stays_as_it_is(self) -> None:
        self.job()
        run = self.opened(self.run_of(owner=self.process()))
        self.ended(run)
        row = self.row(run)

        assert self.store.runs.cancel(run.id) == row == self.row(run)

    def test_an_unknown_run_cannot_be_cancelled(self) -> None:
        with pytest.raises(RunNotFoundError):
            self.store.runs.cancel(self.run_of().id)

    def test_an_owner_learns_which_of_its_running_runs_somebody_wants_to_end(self) -> None:
        self.job()
        me, other = self.process(), self.process()
        mine, mine_too, untouched, done = (self.opened(self.run_of(owner=me)) for _ in range(4))
        theirs, pending = self.opened(self.run_of(owner=other)), self.opened(self.run_of())
        assert self.store.runs.cancel_requests(me) == []
        for run in (mine, mine_too, done, theirs, pending):
            self.store.runs.cancel(run.id)
        self.ended(done)

        assert set(self.store.runs.cancel_requests(me)) == {mine.id, mine_too.id}
        assert self.store.runs.cancel_requests(other) == [theirs.id]
        assert self.row(untouched) == untouched

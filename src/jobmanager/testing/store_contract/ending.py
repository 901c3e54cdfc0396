"""Promises about ending an attempt: only its owner may, once, and another attempt follows only where it still may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jobmanager.run import (
    CANCELLED,
    FAILED,
    PENDING,
    RUNNING,
    SUCCEEDED,
    Failure,
    LogLine,
    Progress,
    Run,
)
from jobmanager.testing.store_contract.ground import StoreGround, seconds

ERROR = Failure(kind="exception", type="OSError", message="Größe", traceback="Traceback ...")


class EndingPromises(StoreGround):
    """`write(..., endings)`."""

    def running(self, **fields: Any) -> Run:
        """Return a run of a fresh process, running."""
        if self.store.jobs.get("job") is None:
            self.job()
        return self.opened(self.run_of(owner=self.process(), **fields))

    def test_the_owner_ends_its_run(self) -> None:
        for status, reason in ((SUCCEEDED, None), (FAILED, None), (CANCELLED, "handler")):
            run = self.running(turn="holds")

            assert self.ended(run, status, reason=reason) is status

            row = self.row(run)
            assert (row.status, row.reason, row.turn) == (status, reason, None)
            assert row.finished_at == self.now + seconds(1)
            assert (row.owner, row.attempt) == (run.owner, 1)

    def test_what_an_attempt_left_is_kept(self) -> None:
        run = self.running()
        lines = (LogLine(self.now, "INFO", "one"), LogLine(self.now + seconds(0.5), "WARNING", "Größe"))
        progress = Progress(processed=3, total=9, message="rows")

        assert self.ended(run, FAILED, output={"n": [1, None]}, error=ERROR, progress=progress, lines=lines)

        row = self.row(run)
        assert (row.output, row.error, row.progress) == ({"n": [1, None]}, ERROR, progress)
        assert [line for _, _, line in self.store.history.lines(run.id)] == list(lines)
        assert [attempt for _, attempt, _ in self.store.history.lines(run.id)] == [1, 1]

    def test_an_output_of_each_kind_of_json_comes_back(self) -> None:
        for output in (7, -1, 0.5, True, "7", "seven", [1, "two", None], {"three": 3.5}):
            run = self.running()

            assert self.ended(run, output=output) is SUCCEEDED

            assert self.row(run).output == output
            assert type(self.row(run).output) is type(output)

    def test_a_key_is_free_when_its_holder_has_ended(self) -> None:
        run = self.running(turn="holds")
        self.refused(self.run_of(turn="holds"))

        self.ended(run)

        self.opened(self.run_of(turn="holds"))

    def test_an_ending_may_come_after_its_process_was_declared_dead(self) -> None:
        run = self.running()
        assert run.owner is not None
        self.store.processes.deregister(run.owner)

        assert self.ended(run) is SUCCEEDED

    # ---------------------------------------------------------------- the fence

    def test_another_owner_s_ending_does_not_count(self) -> None:
        run = self.running()

        assert self.ended(replace(run, owner=self.process()), FAILED) is None
        assert self.row(run) == run

    def test_the_ending_of_another_start_does_not_count(self) -> None:
        run = self.running(starts=2)

        for starts in (1, 3):
            assert self.ended(replace(run, starts=starts), FAILED) is None
        assert self.row(run) == run

    def test_a_late_writer_cannot_end_the_attempt_after_its_own(self) -> None:
        run = self.running()
        assert self.retried(run) is PENDING
        [again] = self.claim(str(run.owner))

        assert self.ended(run) is None
        assert self.row(run) == again
        assert self.ended(again, FAILED) is FAILED

    def test_a_late_writer_of_an_earlier_start_of_the_same_owner_is_refused(self) -> None:
        """The same process has the same attempt again: only the number of the start tells the two writers apart."""
        run = self.running(turn="holds", max_attempts=3)
        owner = str(run.owner)
        assert self.store.runs.give_back([run], "shutdown") == {run.id: PENDING}
        [again] = self.claim(owner)
        assert (again.id, again.attempt, again.starts) == (run.id, 1, 2)

        assert self.ended(run) is None
        assert self.retried(run) is None
        assert self.store.runs.give_back([run], "returned") == {}
        self.store.runs.note_progress(run, Progress(processed=9))

        assert self.row(run) == again
        assert self.ended(again, FAILED) is FAILED

    def test_nothing_but_a_running_run_ends(self) -> None:
        self.job()
        owner = self.process()
        pending = self.opened(self.run_of())

        assert self.ended(replace(pending, owner=owner, starts=1)) is None
        assert self.ended(replace(pending, owner=owner, starts=0)) is None
        assert self.row(pending) == pending

    def test_an_ended_run_stays_as_it_ended(self) -> None:
        run = self.running()
        assert self.ended(run, SUCCEEDED, output={"first": True}) is SUCCEEDED
        row = self.row(run)

        self.ended(run, FAILED, error=ERROR)

        assert self.row(run) == row

    def test_of_a_batch_only_those_count_whose_fence_holds(self) -> None:
        mine, also_mine, stolen = self.running(), self.running(), self.running()
        endings = [
            self.ending(mine),
            self.ending(replace(stolen, owner=self.process())),
            self.ending(also_mine, FAILED, error=ERROR),
        ]

        written = self.write(endings=endings)

        assert dict(written.ended) == {mine.id: SUCCEEDED, also_mine.id: FAILED}
        assert (self.row(also_mine).error, self.row(stolen)) == (ERROR, stolen)

    # ---------------------------------------------------------------- again

    def test_the_same_ending_again_changes_nothing_and_answers_the_same(self) -> None:
        run = self.running()
        line = (LogLine(self.now, "INFO", "one"),)
        assert self.ended(run, FAILED, error=ERROR, lines=line) is FAILED
        row = self.row(run)

        assert self.ended(run, FAILED, error=ERROR) is FAILED
        assert self.row(run) == row

    def test_the_ending_of_a_run_that_was_purged_meanwhile_counts(self) -> None:
        run = self.running()
        assert self.ended(run) is SUCCEEDED
        assert self.store.maintenance.purge(self.now + seconds(3600)) == 1

        assert self.ended(run) is SUCCEEDED

    def test_the_same_retry_again_changes_nothing_and_answers_the_same(self) -> None:
        run = self.running()

        assert self.retried(run, after=30, error=ERROR) is PENDING
        row = self.row(run)
        assert self.retried(run, after=30, error=ERROR) is PENDING

        assert self.row(run) == row
        assert len(self.store.history.attempts(run.id)) == 1

    def test_opens_and_endings_share_a_write(self) -> None:
        old = self.running(turn="holds")
        new = self.tick(owner=self.process())

        written = self.write([new], [self.ending(old)])

        assert set(written.opened) == {new.id}
        assert dict(written.ended) == {old.id: SUCCEEDED}

    # ---------------------------------------------------------------- another attempt

    def test_a_retry_waits_for_its_moment_and_the_attempt_is_on_record(self) -> None:
        run = self.running(turn="holds", max_attempts=3)

        assert self.retried(run, after=30, error=ERROR) is PENDING

        row = self.row(run)
        assert (row.status, row.owner, row.attempt, row.due_at) == (PENDING, None, 1, self.now + seconds(30))
        assert (row.finished_at, row.started_at, row.error) == (None, None, None)
        [attempt] = self.store.history.attempts(run.id)
        assert attempt.ended_at == self.now + seconds(1)
        assert (attempt.attempt, attempt.owner, attempt.started_at, attempt.outcome, attempt.error) == (
            1,
            run.owner,
            run.started_at,
            "failed",
            ERROR,
        )

    def test_a_run_keeps_its_key_until_its_last_attempt(self) -> None:
        run = self.running(turn="holds")
        assert self.retried(run, after=30) is PENDING

        assert self.row(run).turn == "holds"
        self.refused(self.run_of(turn="holds"))

    def test_a_retry_keeps_the_lines_of_its_attempt(self) -> None:
        run = self.running()
        self.ended(run, FAILED, retry_at=self.now, lines=(LogLine(self.now, "INFO", "first"),))
        [again] = self.claim(self.process())
        self.ended(again, lines=(LogLine(self.now, "INFO", "second"),))

        assert [(attempt, line.text) for _, attempt, line in self.store.history.lines(run.id)] == [
            (1, "first"),
            (2, "second"),
        ]

    def test_a_late_writer_gets_no_other_attempt(self) -> None:
        run = self.running()

        assert self.retried(replace(run, owner=self.process())) is None
        assert self.retried(replace(run, starts=7)) is None
        assert self.row(run) == run
        assert self.store.history.attempts(run.id) == []

    def test_a_run_whose_cancel_was_requested_is_not_tried_again(self) -> None:
        run = self.running(turn="holds")
        self.store.runs.cancel(run.id)

        assert self.retried(run, error=ERROR) is CANCELLED

        row = self.row(run)
        assert (row.status, row.reason, row.turn) == (CANCELLED, "requested", None)
        assert self.store.history.attempts(run.id) == []

    def test_a_run_whose_job_is_no_longer_open_is_not_tried_again(self) -> None:
        runs = {"disabled": self.running(), "deleted": self.running()}
        for state, run in runs.items():
            self.change(state=state)

            assert self.retried(run, error=ERROR) is FAILED
            assert (self.row(run).status, self.row(run).error) == (FAILED, ERROR)

    def test_a_paused_job_goes_on_with_what_it_began(self) -> None:
        run = self.running()
        self.change(state="paused")

        assert self.retried(run) is PENDING

    def test_endings_and_retries_share_a_write(self) -> None:
        done, again, stolen = self.running(), self.running(), self.running()

        written = self.write(
            endings=[
                self.ending(again, FAILED, retry_at=self.now),
                self.ending(done),
                self.ending(replace(stolen, starts=2), FAILED, retry_at=self.now),
            ]
        )

        assert dict(written.ended) == {again.id: PENDING, done.id: SUCCEEDED}
        assert self.row(stolen).status is RUNNING

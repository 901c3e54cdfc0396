"""Promises about the steps of runs: what is kept stays, and only the start that has the run may write."""

from __future__ import annotations

from dataclasses import replace

from jobmanager.run import FAILED, PENDING, Failure, Run
from jobmanager.step import Step
from jobmanager.stores.steps import StepWrite
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class StepPromises(StoreGround):
    """The facet `steps`."""

    def _with_steps(self) -> Run:
        self.job()
        return self.opened(self.run_of(owner=self.process()))

    def _step(self, run: Run, name: str = "load", **fields: object) -> Step:
        plain = {
            "occurrence": 0,
            "kind": "step",
            "status": "succeeded",
            "started_at": self.now,
            "ended_at": self.now,
        }
        return Step(run_id=run.id, name=name, **{**plain, **fields})  # type: ignore[arg-type]

    def test_steps_are_kept_as_they_are_and_listed_as_they_began(self) -> None:
        run = self._with_steps()
        error = Failure(kind="exception", type="ValueError", message="ü", traceback="...")
        steps = [
            self._step(run, output={"user": [1, None, "ü"]}),
            self._step(run, occurrence=1, started_at=self.now + seconds(1), output=None),
            self._step(
                run,
                "wait",
                kind="sleep",
                status="waiting",
                started_at=self.now + seconds(2),
                ended_at=None,
                wakes_at=self.now + HOUR,
            ),
            self._step(
                run,
                "send",
                status="retrying",
                attempt=3,
                started_at=self.now + seconds(3),
                ended_at=None,
                error=error,
            ),
        ]
        assert self.store.steps.of(run.id) == []

        assert self.store.steps.record([StepWrite(run, step) for step in reversed(steps)]) == [True] * 4

        assert self.store.steps.of(run.id) == steps
        assert self.store.steps.of("no such run") == []

    def test_a_step_goes_on_from_try_to_try_and_a_kept_one_is_not_written_again(self) -> None:
        run = self._with_steps()
        begun = self._step(run, status="retrying", ended_at=None, wakes_at=self.now + HOUR)
        done = replace(begun, status="succeeded", attempt=2, output=7, ended_at=self.now, wakes_at=None)

        assert self.store.steps.record([StepWrite(run, begun)]) == [True]
        assert self.store.steps.record([StepWrite(run, done, known=True)]) == [True]
        assert self.store.steps.record([StepWrite(run, replace(done, output=8))]) == [True]

        assert self.store.steps.of(run.id) == [done]

    def test_only_the_start_that_has_the_run_writes(self) -> None:
        run = self._with_steps()
        other = self.opened(self.run_of(owner=self.process()))
        writes = [
            StepWrite(replace(run, starts=run.starts + 1), self._step(run, "later start")),
            StepWrite(replace(run, owner="somebody"), self._step(run, "another process")),
            StepWrite(other, self._step(other)),
        ]
        assert self.store.steps.record(writes) == [False, False, True]
        self.ended(run, FAILED)
        assert self.store.steps.record([StepWrite(run, self._step(run))]) == [False]

        assert self.store.steps.of(run.id) == []
        assert [step.name for step in self.store.steps.of(other.id)] == ["load"]

    def test_steps_stay_while_the_run_rests_and_when_it_goes_on(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run))])
        self.ended(run, retry_at=self.now - seconds(1), reason="sleeping")
        resting = self.store.history.run(run.id)
        assert resting is not None
        assert (resting.status, resting.reason, resting.attempt) == (PENDING, "sleeping", 1)
        [again] = self.store.runs.claim(self.process(), "default", 1)
        assert (again.id, again.attempt, again.starts) == (run.id, 1, 2)
        assert self.store.steps.record([StepWrite(run, self._step(run, "late"))]) == [False]
        assert self.store.steps.record([StepWrite(again, self._step(run, "next"))]) == [True]
        assert {step.name for step in self.store.steps.of(run.id)} == {"load", "next"}

    def test_a_reopened_run_keeps_its_steps_but_those_that_failed(self) -> None:
        run = self._with_steps()
        failed = self._step(run, "send", status="failed")
        self.store.steps.record([StepWrite(run, self._step(run)), StepWrite(run, failed)])
        self.ended(run, FAILED)
        closed = self.store.history.run(run.id)
        assert closed is not None
        with self.store.jobs.lock(run.job_id) as txn:
            txn.reopen(closed, max_attempts=2, turn=None)
        assert [step.name for step in self.store.steps.of(run.id)] == ["load"]

    def test_all_steps_of_a_run_that_is_not_running_can_be_forgotten(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run))])
        assert self.store.steps.forget(run.id) == 0
        self.ended(run, FAILED)
        assert self.store.steps.forget(run.id) == 1
        assert self.store.steps.forget(run.id) == 0
        assert self.store.steps.of(run.id) == []

    def test_purged_runs_leave_no_steps(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run))])
        self.ended(run, FAILED)
        assert self.store.maintenance.purge(self.now + HOUR) == 1
        assert self.store.history.run(run.id) is None
        assert self.store.steps.of(run.id) == []

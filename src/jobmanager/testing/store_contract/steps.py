"""Promises about the steps of runs: what is kept stays, and only the start that has the run may write."""

from __future__ import annotations

from dataclasses import replace

from jobmanager.access.view import View
from jobmanager.run import FAILED, PENDING, SUCCEEDED, Failure, Run, new_id
from jobmanager.step import GATHERED, Awaited, Event, EventWait, Step
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
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
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
            self._step(
                run,
                "all",
                kind="gather",
                status="waiting",
                ended_at=None,
                output={"limit": 3},
                traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
        ]
        steps = [replace(step, position=place) for place, step in enumerate(steps)]
        assert self.store.steps.of(run.id) == []

        assert self.store.steps.record([StepWrite(run, step) for step in reversed(steps)]) == [True] * 5

        assert self.store.steps.of(run.id) == steps
        assert self.store.steps.of("no such run") == []
        other = self._with_steps()
        assert self.store.steps.record([StepWrite(other, self._step(other, "load"))]) == [True]
        found = self.store.steps.of_runs([other.id, "no such run", run.id])
        assert [[step.name for step in each] for each in found] == [
            ["load"],
            [],
            [step.name for step in steps],
        ]
        assert self.store.steps.of_runs([]) == []

    def test_a_step_goes_on_from_try_to_try_and_a_kept_one_is_not_written_again(self) -> None:
        run = self._with_steps()
        begun = self._step(run, status="retrying", ended_at=None, wakes_at=self.now + HOUR)
        done = replace(begun, status="succeeded", attempt=2, output=7, ended_at=self.now, wakes_at=None)

        assert self.store.steps.record([StepWrite(run, begun)]) == [True]
        assert self.store.steps.record([StepWrite(run, done)]) == [True]
        assert self.store.steps.record([StepWrite(run, replace(done, output=8))]) == [True]

        assert self.store.steps.of(run.id) == [done]

    def test_only_the_start_that_has_the_run_writes(self) -> None:
        run = self._with_steps()
        other = self.opened(self.run_of(owner=self.process()))
        writes = [
            StepWrite(replace(run, starts=run.starts + 1), self._step(run, "later start")),
            StepWrite(replace(run, owner="another process"), self._step(run, "another process")),
            StepWrite(other, self._step(other)),
        ]
        assert [self.store.steps.record([write]) for write in writes[:2]] == [[False], [False]]
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

    def test_after_a_crash_a_run_with_a_finished_step_goes_on_ten_times_without_an_attempt_used(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run))])
        for crash in range(10):
            after = self._after_a_crash(run)
            assert (after.status, after.reason, after.attempt) == (PENDING, "shutdown", 1), crash
            [run] = self.claim(self.process())
        assert (run.attempt, run.starts) == (1, 11)
        assert self._after_a_crash(run).status is FAILED

    def test_after_a_crash_a_run_that_has_finished_no_step_has_used_its_attempt(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run, status="retrying", ended_at=None))])
        assert self._after_a_crash(run).status is FAILED

    def test_after_a_crash_a_run_whose_sleep_is_over_goes_on_without_an_attempt_used(self) -> None:
        run = self._with_steps()
        rest = self._step(
            run, "rest", kind="sleep", status="waiting", ended_at=None, wakes_at=self.now + HOUR
        )
        self.store.steps.record([StepWrite(run, rest)])
        assert self._after_a_crash(run).status is FAILED
        run = self.opened(self.run_of(owner=self.process()))
        self.store.steps.record(
            [StepWrite(run, replace(rest, run_id=run.id, wakes_at=self.now - seconds(1)))]
        )
        assert self._after_a_crash(run).status is PENDING

    def _after_a_crash(self, run: Run) -> Run:
        """Return the run after its process was found dead."""
        assert run.owner is not None
        self.store.processes.deregister(run.owner)
        self.store.maintenance.take_over()
        return self.row(run)

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

    def test_a_run_that_is_reopened_from_the_start_has_no_steps_and_finds_no_children(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run))])
        child = self.opened(self.run_of(parent_id=run.id, idempotency_key=f"{GATHERED}{run.id}/a#0/0"))
        self.ended(run, FAILED)
        closed = self.store.history.run(run.id)
        assert closed is not None
        with self.store.jobs.lock(run.job_id) as txn:
            txn.reopen(closed, max_attempts=2, turn=None, from_start=True)
        assert self.store.steps.of(run.id) == []
        assert [each.id for each in self.store.steps.children(run.id)] == [child.id]
        assert self.store.steps.children(run.id, key_prefix=GATHERED) == []

    def test_purged_runs_leave_no_steps(self) -> None:
        run = self._with_steps()
        self.store.steps.record([StepWrite(run, self._step(run))])
        self.ended(run, FAILED)
        assert self.store.maintenance.purge(self.now + HOUR) == 1
        assert self.store.history.run(run.id) is None
        assert self.store.steps.of(run.id) == []

    # ---------------------------------------------------------------- events

    def _resting(
        self,
        reason: str,
        *,
        awaits: Awaited | None = None,
        limit: int | None = None,
        job_id: str = "job",
    ) -> Run:
        """Return a pending run that waits for an event or for others, for an hour at most; with `limit` it is to start more of them."""
        run = self.opened(self.run_of(job_id, owner=self.process()))
        step = self._step(
            run,
            "wait",
            kind="gather" if reason == "children" else "wait_for",
            status="waiting",
            ended_at=None,
            wakes_at=self.now + HOUR,
            awaits=awaits,
            output=None if limit is None else {"limit": limit},
        )
        self.store.steps.record([StepWrite(run, step)])
        self.ended(run, retry_at=self.now + HOUR, reason=reason)
        return self.row(run)

    def _sent(
        self,
        name: str = "paid",
        key: str = "7",
        *,
        id: str = "",  # noqa: A002 - as the event has it
        namespace: str = "default",
        data: object = None,
    ) -> Event:
        event = Event(id=id or new_id(self.now), name=name, key=key, data=data, sent_at=self.now)
        return self.store.steps.send(namespace, event)

    def _is_due(self, run: Run) -> bool:
        return self.row(run).due_at <= self.store.now()

    def test_an_event_is_found_by_what_waits_for_it_the_oldest_first(self) -> None:
        before = self.now - seconds(1)
        assert self.store.steps.event("default", Awaited("paid", "7", before)) is None
        first = self._sent(data={"sum": [1, "ü"]})
        second = self._sent()
        self._sent(key="8")
        self._sent(namespace="other")

        assert first.sent_at < second.sent_at
        assert self.store.steps.event("default", Awaited("paid", "7", before)) == first
        assert self.store.steps.event("default", Awaited("paid", "7", first.sent_at)) == second
        assert self.store.steps.event("default", Awaited("paid", "7", second.sent_at)) is None

    def test_of_two_events_with_one_id_the_first_is_kept(self) -> None:
        first = self._sent(id="mine", data=1)
        assert self._sent("other", id="mine", data=2) == first
        assert self._sent("other", id="mine", namespace="other").name == "other"

    def test_an_event_makes_the_runs_due_that_wait_for_it(self) -> None:
        self.job()
        before = self.now - seconds(1)
        waits = [self._resting("waiting", awaits=Awaited("paid", "7", before)) for _ in (1, 2)]
        others = [
            self._resting("waiting", awaits=Awaited("paid", "8", before)),
            self._resting("waiting", awaits=Awaited("other", "7", before)),
            self._resting("waiting", awaits=Awaited("paid", "7", self.now + HOUR)),
            self._resting("sleeping"),
        ]
        self._sent(namespace="other")
        assert not any(map(self._is_due, waits))

        self._sent()

        assert all(map(self._is_due, waits))
        assert not any(map(self._is_due, others))

    def test_a_later_look_finds_the_runs_whose_event_was_sent_while_they_ran(self) -> None:
        self.job()
        awaited = Awaited("paid", "7", self.now - seconds(1))
        self._sent()
        run, other = (
            self._resting("waiting", awaits=awaited),
            self._resting("waiting", awaits=Awaited("paid", "8", awaited.after)),
        )
        assert not self._is_due(run)

        assert self.store.steps.wake("other") == 0
        assert self.store.steps.wake("default") == 1
        assert self.store.steps.wake("default") == 0

        assert self._is_due(run)
        assert not self._is_due(other)

    def test_an_event_is_new_until_the_jobs_that_it_starts_have_a_run_for_it(self) -> None:
        for job_id, how in (
            ("job", {"on": "paid"}),
            ("second", {"on": "paid"}),
            ("paused", {"on": "paid", "state": "paused"}),
            ("foreign", {"on": "paid", "namespace": "other"}),
            ("later", {"on": "paid", "history_from": self.now + HOUR}),
            ("just resumed", {"on": "paid", "state_at": self.now + HOUR}),
            ("another", {"on": "other"}),
            ("scheduled", {}),
        ):
            self.job(job_id, **how)
        ids = [row.id for row in self.store.jobs.rows()]
        first, second = self._sent(data={"sum": 1}), self._sent(key="")
        self._sent("unheard")

        found = self.store.steps.new_events("default", ids, 9)
        assert found == [("job", first), ("second", first), ("job", second), ("second", second)]
        assert self.store.steps.new_events("default", ids, 2) == found[:2]
        assert self.store.steps.new_events("default", ["second"], 9) == [found[1], found[3]]
        assert self.store.steps.new_events("default", [], 9) == []

        assert (self.store.steps.settle_events("other"), self.store.steps.settle_events("default")) == (0, 1)
        for job_id, event in found[:3]:
            self.opened(self.run_of(job_id, idempotency_key=f"event:{event.id}"))
        assert self.store.steps.new_events("default", ids, 9) == found[3:]
        assert self.store.steps.settle_events("default") == 1
        self.opened(self.run_of("second", idempotency_key=f"event:{second.id}"))
        assert self.store.steps.settle_events("default") == 1
        assert self.store.steps.settle_events("default") == 0

    def test_sent_events_are_listed_newest_first_with_the_runs_that_they_started(self) -> None:
        self.job("job", on="paid")
        self.job("secret", on="paid", visibility="system")
        first, second = self._sent(data={"card": "4711"}), self._sent("refunded", key="")
        third = self._sent()
        self._sent(namespace="other")
        started = self.opened(self.run_of("job", idempotency_key=f"event:{first.id}"))
        hidden = self.opened(self.run_of("secret", idempotency_key=f"event:{first.id}"))
        self.opened(self.run_of("job", idempotency_key="another key"))
        sent = self.store.events.sent
        team = View("default")

        found = sent("default", limit=9)

        assert [event.id for event in found] == [third.id, second.id, first.id]
        assert [(event.name, event.key, event.sent_at) for event in found] == [
            (event.name, event.key, event.sent_at) for event in (third, second, first)
        ]
        assert [[run.id for run in event.runs] for event in found] == [
            [],
            [],
            sorted([started.id, hidden.id]),
        ]
        assert [run.id for run in sent("default", limit=9, seen=team)[-1].runs] == [started.id]
        assert [event.id for event in sent("default", limit=2)] == [third.id, second.id]
        assert [event.id for event in sent("default", before=second.id, limit=9)] == [first.id]
        assert sent("default", before="no such event", limit=9) == []
        assert [event.id for event in sent("default", name="refunded", limit=9)] == [second.id]
        assert sent("elsewhere", limit=9) == []

    def test_the_runs_that_wait_for_an_event_are_listed_until_they_go_on(self) -> None:
        self.job()
        self.job("secret", visibility="system")
        self.job("foreign", namespace="other")
        awaited = Awaited("paid", "7", self.now)
        first = self._resting("waiting", awaits=awaited)
        other = self._resting("waiting", awaits=Awaited("refunded", "", self.now))
        hidden = self._resting("waiting", awaits=awaited, job_id="secret")
        self._resting("waiting", awaits=awaited, job_id="foreign")
        self._resting("sleeping")
        over = self._resting("waiting", awaits=awaited)
        self.store.runs.cancel(over.id)
        waits = self.store.events.waits

        found = waits("default", limit=9)

        assert [wait.run_id for wait in found] == [first.id, other.id, hidden.id]
        assert found[0] == EventWait(
            run_id=first.id,
            job_id="job",
            step="wait",
            name="paid",
            key="7",
            since=self.now,
            until=self.now + HOUR,
        )
        assert [wait.run_id for wait in waits("default", limit=9, seen=View("default"))] == [
            first.id,
            other.id,
        ]
        assert [wait.run_id for wait in waits("default", name="refunded", limit=9)] == [other.id]
        assert [wait.run_id for wait in waits("default", limit=1)] == [first.id]

    def test_old_events_are_forgotten(self) -> None:
        old, new = self._sent(), self._sent()
        assert self.store.steps.purge_events(new.sent_at) == 1
        assert self.store.steps.purge_events(new.sent_at) == 0
        assert self.store.steps.event("default", Awaited("paid", "7", old.sent_at - seconds(1))) == new

    # ---------------------------------------------------------------- children

    def test_the_children_of_a_run_are_listed_as_they_were_opened(self) -> None:
        parent = self._with_steps()
        keys = [f"{GATHERED}{parent.id}/thumbs#0/{place}" for place in range(3)]
        children = [
            self.opened(self.run_of(parent_id=parent.id, idempotency_key=key)) for key in (*keys, "start:one")
        ]
        self.opened(self.run_of())

        assert [run.id for run in self.store.steps.children(parent.id)] == [run.id for run in children]
        found = self.store.steps.children(parent.id, key_prefix=f"{GATHERED}{parent.id}/thumbs#0/")
        assert [run.idempotency_key for run in found] == keys
        assert len(self.store.steps.children(parent.id, limit=2)) == 2
        assert self.store.steps.children("no such run") == []
        assert self.row(children[0]).parent_id == parent.id

    def test_a_run_is_due_when_the_last_child_that_it_waits_for_has_ended(self) -> None:
        self.job()
        parent, owner = self._resting("children"), self.process()
        children = [
            self.opened(self.run_of(parent_id=parent.id, idempotency_key=key, owner=owner))
            for key in (
                f"{GATHERED}{parent.id}/a#0/0",
                f"{GATHERED}{parent.id}/a#0/1",
                "start:not waited for",
            )
        ]
        for child in children[:2]:
            assert self.store.steps.wake("default") == 0
            self.ended(child, SUCCEEDED)

        assert self.store.steps.wake("default") == 1
        assert self._is_due(parent)

    def test_a_run_that_gathers_a_few_at_a_time_is_due_when_a_quarter_of_them_has_room(self) -> None:
        self.job()
        parent, owner = self._resting("children", limit=4), self.process()
        prefix = f"{GATHERED}{parent.id}/wait#0/"
        children = [
            self.opened(self.run_of(parent_id=parent.id, idempotency_key=key, owner=owner))
            for key in (*(f"{prefix}{place}" for place in range(4)), f"{GATHERED}{parent.id}/other#0/0")
        ]
        assert self.store.steps.wake("default") == 0
        assert self.store.steps.child_keys(parent.id, prefix) == {
            f"{prefix}{place}": True for place in range(4)
        }

        self.ended(children[2], SUCCEEDED)

        assert self.store.steps.wake("default") == 1
        assert self._is_due(parent)
        assert self.store.steps.child_keys(parent.id, prefix)[f"{prefix}2"] is False
        assert self.store.steps.child_keys("no such run", prefix) == {}

    def test_a_run_that_gathers_more_at_a_time_is_not_due_for_each_of_them(self) -> None:
        self.job()
        parent, owner = self._resting("children", limit=8), self.process()
        children = [
            self.opened(self.run_of(parent_id=parent.id, idempotency_key=key, owner=owner))
            for key in (f"{GATHERED}{parent.id}/wait#0/{place}" for place in range(8))
        ]
        for child in children[:2]:
            assert self.store.steps.wake("default") == 0
            self.ended(child, SUCCEEDED)
        assert self.store.steps.wake("default") == 1

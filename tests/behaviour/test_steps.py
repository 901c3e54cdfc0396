"""A step is done once for its run: what it returned is kept, whatever becomes of the process or of the handler's other lines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager import AsyncRunContext, JobManager, Retry, Run, RunContext, Settings, StepFailedError
from jobmanager.errors import NonRetryable, StepError, StoreUnavailableError
from jobmanager.testing import FakeClock, run_due

START = datetime(2026, 3, 2, 9, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def jobs(clock: FakeClock) -> Iterator[JobManager]:
    jobs = JobManager(Settings(backend="noop", database_url="memory://"), clock=clock)
    yield jobs.start()
    jobs.stop()


class Calls(list[str]):
    """Notes what was called."""

    def note(self, name: str, result: Any = None) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            self.append(name)
            return {"args": list(args), **kwargs} if result is None else result

        return called

    def failing(self, name: str, times: int, error: Exception) -> Callable[[], str]:
        def called() -> str:
            self.append(name)
            if self.count(name) <= times:
                raise error
            return name

        return called


@pytest.fixture
def calls() -> Calls:
    return Calls()


def run_to_end(jobs: JobManager, clock: FakeClock, run: Run, *, most: int = 50) -> Run:
    """Let time pass to each moment the run is due, until it has ended."""
    for _ in range(most):
        run = jobs.run(run.id)
        if run.status.closed:
            return run
        clock.step(max(timedelta(0), run.due_at - clock.now()))
        run_due(jobs)
    raise AssertionError(f"still {run.status}: {run.reason}")


def test_a_finished_step_is_not_called_again_by_the_next_attempt(jobs, clock, calls):
    def handler(context: RunContext) -> list[Any]:
        first = context.step("load", calls.note("load"), 1, of="x")
        second = context.step("send", calls.failing("send", 2, ValueError("refused")))
        return [first, second]

    jobs.add_job("flow", handler, retry=Retry(max_attempts=3, base=60))
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert (run.status, run.attempt) == ("succeeded", 3)
    assert run.output == [{"args": [1], "of": "x"}, "send"]
    assert calls == ["load", "send", "send", "send"]
    assert [(s.name, s.status, s.attempt) for s in jobs.steps(run.id)] == [
        ("load", "succeeded", 1),
        ("send", "succeeded", 3),
    ]


def test_a_sleep_uses_no_attempt_and_goes_on_when_it_is_due(jobs, clock, calls):
    def handler(context: RunContext) -> str:
        context.step("first", calls.note("first"))
        context.sleep("rest", days=3)
        context.step("second", calls.note("second"))
        return "done"

    jobs.add_job("flow", handler)
    run = jobs.trigger_job("flow")
    assert (run.status, run.reason, run.due_at) == ("pending", "sleeping", START + timedelta(days=3))
    clock.step(timedelta(days=3) - timedelta(seconds=1))
    run_due(jobs)
    assert jobs.run(run.id).status == "pending"
    assert calls == ["first"]

    run = run_to_end(jobs, clock, run)

    assert (run.status, run.output, run.attempt, run.starts) == ("succeeded", "done", 1, 2)
    assert calls == ["first", "second"]
    [_, rest, _] = jobs.steps(run.id)
    assert (rest.status, rest.ended_at) == ("succeeded", START + timedelta(days=3))


def test_a_handler_without_steps_asks_for_none(jobs, clock, calls):
    asked: list[str] = []
    writer = jobs.store.database.opened_writer().connection.dbapi_connection
    writer.set_trace_callback(asked.append)
    jobs.add_job("plain", calls.note("plain"))
    run = jobs.trigger_job("plain")
    writer.set_trace_callback(None)
    assert (run.status, calls) == ("succeeded", ["plain"])
    assert [text for text in asked if "run_steps" in text] == []
    assert any("jobmanager_runs" in text for text in asked)


def test_a_handler_that_catches_everything_is_suspended_all_the_same(jobs, clock, calls):
    def handler(context: RunContext) -> str:
        for name in ("a", "b"):
            try:
                context.sleep(name, hours=1)
            except BaseException:
                calls.append(f"caught {name}")
        return "not really done"

    jobs.add_job("flow", handler)
    run = jobs.trigger_job("flow")
    assert (run.status, run.reason) == ("pending", "sleeping")
    run = run_to_end(jobs, clock, run)
    assert run.status == "succeeded"
    assert calls == ["caught a", "caught b", "caught b"]


def test_the_own_retry_of_a_step_leaves_the_runs_attempts_alone(jobs, clock, calls):
    def handler(context: RunContext) -> str:
        return context.step(
            "send", calls.failing("send", 2, OSError("no route")), retry=Retry(max_attempts=3, base=3600)
        )

    jobs.add_job("flow", handler)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert (run.status, run.attempt, run.starts) == ("succeeded", 1, 3)
    assert calls == ["send"] * 3


def test_after_its_last_try_a_step_raises_the_same_on_each_attempt(jobs, clock, calls):
    seen: list[tuple[str, str, bool]] = []

    def handler(context: RunContext) -> None:
        try:
            context.step(
                "send", calls.failing("send", 9, OSError("no route")), retry=Retry(max_attempts=2, base=1)
            )
        except StepFailedError as error:
            seen.append((error.kind, str(error), "no route" in error.traceback))
        context.step("undo", calls.failing("undo", 1, ValueError("later")))

    jobs.add_job("flow", handler, retry=2)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert run.status == "succeeded"
    assert calls == ["send", "send", "undo", "undo"]
    assert len(seen) == 2
    assert seen[0] == seen[1] == ("OSError", "step 'send' failed after 2 tries: OSError: no route", True)


def test_a_failed_step_that_nobody_catches_ends_the_run(jobs, clock, calls):
    def handler(context: RunContext) -> None:
        context.step("send", calls.failing("send", 9, OSError("no route")), retry=1)

    jobs.add_job("flow", handler, retry=5)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert (run.status, run.attempt) == ("failed", 1)
    assert run.error is not None
    assert run.error.type == "StepFailedError"


def test_a_redrive_keeps_what_was_done_and_does_again_what_failed(jobs, clock, calls):
    def handler(context: RunContext) -> None:
        context.step("load", calls.note("load"))
        context.step("send", calls.failing("send", 1, NonRetryable("broken")), retry=3)

    jobs.add_job("flow", handler)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))
    assert run.status == "failed"

    jobs.redrive(run.id)
    run = run_to_end(jobs, clock, run)

    assert run.status == "succeeded"
    assert calls == ["load", "send", "send"]


def test_time_chance_and_ids_stay_the_same(jobs, clock):
    seen: list[tuple[Any, ...]] = []

    def handler(context: RunContext) -> None:
        seen.append((context.now(), context.random(), context.uuid(), context.random()))
        context.sleep("rest", "1h")

    jobs.add_job("flow", handler)
    run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert len(seen) == 2
    assert seen[0] == seen[1]
    assert seen[0][0] == START
    assert seen[0][1] != seen[0][3]


def test_a_name_may_be_used_in_a_loop(jobs, clock, calls):
    def handler(context: RunContext) -> list[int]:
        found = [context.step("page", calls.note("page", number)) for number in (1, 2, 3)]
        context.sleep("rest", "1h")
        return [*found, context.step("page", calls.note("page", 4))]

    jobs.add_job("flow", handler)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))
    assert run.output == [1, 2, 3, 4]
    assert len(calls) == 4


def test_a_step_that_became_another_kind_ends_the_run_and_says_so(jobs, clock, calls):
    def handler(context: RunContext) -> None:
        if calls:
            context.step("rest", calls.note("rest"))
        calls.append("changed")
        context.sleep("rest", hours=1)

    jobs.add_job("flow", handler, retry=3)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert run.status == "failed"
    assert run.error is not None
    assert run.error.kind == "steps_changed"
    assert "'rest' of this run was a sleep and is a function now" in run.error.message


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda context: context.step("outer", lambda: context.step("inner", int)), "inside of step 'outer'"),
        (lambda context: context.step("", int), "is no name or key of a step"),
        (lambda context: context.wait_for("paid", key=7), "is no name or key of a step"),
        (lambda context: context.gather("all", "flow", [{}], limit=0), "would start nothing"),
        (lambda context: context.gather("all", "flow", [{}] * 10_001), "10,001 payloads, more than 10,000"),
        (lambda context: context.sleep_until("rest", datetime(2026, 3, 2, 9)), "no time zone"),
        (lambda context: context.step("late", asyncio.sleep, 1), "returned an awaitable"),
    ],
)
def test_a_misuse_is_refused_with_what_to_change(misuse, words, jobs, clock):
    caught: list[str] = []

    def handler(context: RunContext) -> None:
        try:
            misuse(context)
        except StepError as error:
            caught.append(str(error))

    jobs.add_job("flow", handler)
    run_to_end(jobs, clock, jobs.trigger_job("flow"))
    assert len(caught) == 1
    assert words in caught[0]


@pytest.mark.parametrize(
    "result", [{1, 2}, "x" * 70_000, float("nan"), b"bytes"], ids=["set", "big", "nan", "bytes"]
)
def test_a_result_that_cannot_be_kept_fails_the_step_and_is_not_done_again(result, jobs, clock, calls):
    def handler(context: RunContext) -> None:
        context.step("load", calls.note("load", result))

    jobs.add_job("flow", handler, retry=3)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert run.status == "failed"
    assert calls == ["load"]


def test_coroutine_handlers_await_the_same(jobs, clock, calls):
    async def load(number: int) -> int:
        calls.append("load")
        await asyncio.sleep(0)
        return number

    async def handler(context: AsyncRunContext) -> list[Any]:
        first = await context.step("load", load, 7)
        await context.sleep("rest", days=1)
        plain = await context.step("plain", calls.note("plain", 8))
        several = await asyncio.gather(*(context.step("many", load, n, key=str(n)) for n in (1, 2)))
        return [first, plain, *several, (await context.now()).isoformat()]

    jobs.add_job("flow", handler)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert run.output == [7, 8, 1, 2, (START + timedelta(days=1)).isoformat()]
    assert calls == ["load", "plain", "load", "load"]


def test_two_open_steps_of_one_name_need_a_key(jobs, clock, calls):
    async def handler(context: AsyncRunContext) -> str:
        try:
            await asyncio.gather(*(context.step("many", asyncio.sleep, 0.01) for _ in (1, 2)))
        except StepError as error:
            return str(error)
        return ""

    jobs.add_job("flow", handler)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))
    assert "two steps 'many' are open at once" in run.output


def test_steps_in_threads_of_the_handler_are_kept_under_their_own_names(jobs, clock, calls):
    def handler(context: RunContext) -> list[Any]:
        with ThreadPoolExecutor(4) as pool:
            names = [f"part-{number}" for number in range(8)]
            done = list(pool.map(lambda name: context.step(name, calls.note(name, name)), names))
        context.sleep("rest", days=1)
        return done

    jobs.add_job("flow", handler)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert run.output == [f"part-{number}" for number in range(8)]
    assert sorted(calls) == run.output
    assert len({step.position for step in jobs.steps(run.id)}) == 9


@pytest.mark.parametrize("broken", range(1, 6))
def test_a_store_that_fails_at_a_write_loses_and_doubles_nothing(broken, jobs, clock, calls, monkeypatch):
    """Each write of the flow fails once, after it was done: as if its reply had been lost on the way."""
    record, written = jobs.store.steps.record, 0

    def losing(writes: Any) -> Any:
        nonlocal written
        written += 1
        kept = record(writes)
        if written == broken:
            raise StoreUnavailableError("the reply was lost")
        return kept

    monkeypatch.setattr(jobs.store.steps, "record", losing)

    def handler(context: RunContext) -> Any:
        context.step("first", calls.note("first", 1))
        context.sleep("rest", hours=1)
        context.step("second", calls.failing("second", 1, ValueError("no")), retry=2)
        return context.now().isoformat()

    jobs.add_job("flow", handler, retry=2)
    run = run_to_end(jobs, clock, jobs.trigger_job("flow"))

    assert run.status == "succeeded"
    assert calls == ["first", "second", "second"]
    assert [step.status for step in jobs.steps(run.id)] == ["succeeded"] * 4
    assert written > broken


def test_two_processes_that_find_a_run_due_go_on_with_it_once(tmp_path, calls):
    clock, made = FakeClock(START), []
    settings = Settings(backend="local", database_url=f"sqlite:///{tmp_path}/jobs.db")

    def handler(context: RunContext) -> None:
        context.sleep("rest", days=1)
        context.step("after", calls.note("after", 1))

    for _ in range(2):
        jobs = JobManager(settings, clock=clock)
        jobs.add_job("flow", handler, overlap="allow")
        made.append(jobs.start())
    try:
        runs = [made[0].trigger_job("flow") for _ in range(5)]
        run_due(made[0])
        assert {made[1].run(run.id).reason for run in runs} == {"sleeping"}
        clock.step(timedelta(days=1))
        threads = [threading.Thread(target=jobs._assembly.claims.claim) for jobs in made]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for jobs in made:
            run_due(jobs)
        assert [made[0].run(run.id).status for run in runs] == ["succeeded"] * 5
        assert calls == ["after"] * 5
    finally:
        for jobs in made:
            jobs.stop()


@pytest.mark.parametrize("state", ["pending", "sleeping", "running"])
def test_a_flow_is_cancelled_in_every_state(state, jobs, clock, calls):
    def handler(context: RunContext) -> None:
        context.step("first", calls.note("first", 1))
        if state == "running":
            jobs.cancel(context.run_id)
        context.sleep("rest", days=1)
        context.step("second", calls.note("second", 2))

    jobs.add_job("flow", handler)
    run = jobs.trigger_job("flow", delay=60 if state == "pending" else None)
    jobs.cancel(run.id)
    clock.step(timedelta(days=2))
    run_due(jobs)

    assert (jobs.run(run.id).status, jobs.run(run.id).reason) == ("cancelled", "requested")
    assert calls == ([] if state == "pending" else ["first"])

"""Runs that wait for events and for other runs: each event is taken, each child starts once, and the parent goes on when all have ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jobmanager import AsyncRunContext, JobManager, NonRetryable, Retry, Run, RunContext, Settings
from jobmanager.errors import ConfigurationError, JobNotFoundError, PayloadError, StoreUnavailableError
from jobmanager.explain import explain_now
from jobmanager.job import Job
from jobmanager.present.runs import started_by
from jobmanager.schedule import On
from jobmanager.step import Event
from jobmanager.testing import FakeClock, run_due

START = datetime(2026, 3, 2, 9, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture(params=["noop", "local"])
def jobs(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[JobManager]:
    jobs = JobManager(Settings(backend=request.param, database_url="memory://"), clock=clock)
    yield jobs.start()
    jobs.stop()


def settled(jobs: JobManager, run: Run) -> Run:
    """Return the run once nothing more happens at this moment."""
    for _ in range(20):
        before = jobs.run(run.id)
        run_due(jobs)
        if jobs.run(run.id) == before:
            return before
    raise AssertionError("it never comes to rest")


# ---------------------------------------------------------------- events


@pytest.fixture
def confirmations(jobs: JobManager) -> Callable[[str], Run]:
    def handler(context: RunContext, user: str) -> Any:
        event = context.wait_for("user/confirmed", key=user, timeout="7d")
        return None if event is None else event.data

    jobs.add_job("welcome", handler, overlap="allow")
    return lambda user: jobs.trigger_job("welcome", {"user": user})


def test_an_event_wakes_the_runs_that_wait_for_it(jobs, confirmations):
    runs = [settled(jobs, confirmations(user)) for user in ("ann", "ann", "bob")]
    assert {(run.status, run.reason, run.due_at) for run in runs} == {("pending", "waiting", START + 7 * DAY)}

    event = jobs.send_event("user/confirmed", key="ann", data={"at": "desk"})

    assert event.sent_at == START
    assert [settled(jobs, run).output for run in runs] == [{"at": "desk"}, {"at": "desk"}, None]
    assert jobs.run(runs[2].id).status == "pending"


def test_without_an_event_the_wait_ends_with_none(jobs, confirmations, clock):
    run = settled(jobs, confirmations("ann"))
    clock.step(7 * DAY)
    run = settled(jobs, run)
    assert (run.status, run.output, run.attempt) == ("succeeded", None, 1)


def test_an_event_counts_that_came_before_the_wait_and_not_one_from_before_the_run(jobs, clock):
    def handler(context: RunContext) -> list[Any]:
        context.sleep("rest", days=1)
        return [getattr(context.wait_for("paid", timeout="1h"), "data", None) for _ in range(3)]

    jobs.add_job("order", handler)
    jobs.send_event("paid", data="too early")
    clock.step(1)
    run = settled(jobs, jobs.trigger_job("order"))
    clock.step(1)
    jobs.send_event("paid", data=1)
    clock.step(1)
    jobs.send_event("paid", data=2)
    clock.step(DAY)
    assert settled(jobs, run).reason == "waiting"
    clock.step(timedelta(hours=1))
    assert settled(jobs, run).output == [1, 2, None]


def test_an_event_with_the_id_of_another_is_sent_once(jobs, clock):
    first = jobs.send_event("paid", key="7", data=1, id="stripe-1")
    clock.step(60)
    assert (
        jobs.send_event("paid", key="8", data=2, id="stripe-1")
        == first
        == Event(id="stripe-1", name="paid", key="7", data=1, sent_at=START)
    )


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "x" * 201}, {"key": 7}, {"data": {1, 2}}, {"data": "x" * 70_000}, {"id": ""}],
)
def test_an_event_that_cannot_be_kept_is_refused(wrong, jobs):
    with pytest.raises(PayloadError):
        jobs.send_event(**{"name": "paid", **wrong})


def test_events_are_forgotten_after_seven_days(jobs, clock):
    jobs.send_event("paid", id="1")
    clock.step(8 * DAY)
    jobs.purge()
    assert jobs.send_event("paid", id="1").sent_at == clock.now()


# ---------------------------------------------------------------- children


class Thumbs:
    """A job that others start, and how it is to end by size."""

    def __init__(self, jobs: JobManager) -> None:
        self.made: list[int] = []
        self.fails: Mapping[int, Exception] = {}
        jobs.add_job("thumb", self.make)

    def make(self, size: int) -> str:
        self.made.append(size)
        if size in self.fails:
            raise self.fails[size]
        return f"{size}.png"


@pytest.fixture
def thumbs(jobs: JobManager) -> Thumbs:
    return Thumbs(jobs)


def gathering(**options: Any) -> Callable[[RunContext], Any]:
    def handler(context: RunContext) -> Any:
        sizes = context.step("sizes", list, range(5))
        found = context.gather("thumbs", "thumb", [{"size": size} for size in sizes], **options)
        context.sleep("rest", hours=1)
        return [str(each) for each in found]

    return handler


@pytest.mark.parametrize("limit", [None, 2, 50])
def test_a_gather_starts_each_child_once_and_goes_on_when_all_have_ended(limit, jobs, thumbs, clock):
    jobs.add_job("album", gathering(limit=limit))
    run = settled(jobs, jobs.trigger_job("album"))
    assert run.reason == "sleeping"
    clock.step(3600)
    run = settled(jobs, run)

    assert run.output == ["0.png", "1.png", "2.png", "3.png", "4.png"]
    assert sorted(thumbs.made) == [0, 1, 2, 3, 4]
    children = jobs.children(run.id)
    assert len(children) == 5
    assert {(child.parent_id, child.job_id, child.turn) for child in children} == {(run.id, "thumb", None)}
    assert [step.name for step in jobs.steps(run.id)] == ["sizes", "thumbs", "rest"]


@pytest.mark.parametrize("limit", [1, 2, 4, 7])
def test_with_a_limit_the_next_children_start_as_earlier_ones_end(limit, jobs, clock):
    """Fails if more are open than the limit says, or if one slow child keeps the others from being started."""
    begun: list[int] = []

    def make(context: RunContext, number: int) -> int:
        context.step("begin", begun.append, number)
        context.sleep("work", hours=30 if number == 0 else 1)
        return number

    jobs.add_job("child", make)
    jobs.add_job(
        "all", lambda context: context.gather("all", "child", [{"number": n} for n in range(12)], limit=limit)
    )
    run, seen = settled(jobs, jobs.trigger_job("all")), []
    for _ in range(60):
        open_ones = [child for child in jobs.children(run.id) if not child.status.closed]
        seen.append(len(open_ones))
        if run.status.closed:
            break
        clock.step(timedelta(hours=1))
        run = settled(jobs, run)

    assert run.output == list(range(12))
    assert begun == list(range(12))
    assert max(seen) == limit
    if limit > 1:  # all others are done when the slow one is
        assert clock.now() - START == timedelta(hours=30)
    [step] = jobs.steps(run.id)
    assert (step.status, step.output) == ("succeeded", {"runs": 12})


def test_a_gather_whose_limit_or_payloads_have_changed_meanwhile_goes_on(jobs, clock):
    """Fails if the parent is woken again and again where the code does not start more, or never again."""
    called: list[int] = []
    how = {"count": 8, "limit": 4}

    def all_of_them(context: RunContext) -> int:
        called.append(1)
        payloads = [{}] * how["count"]
        return len(context.gather("all", "child", payloads, limit=how["limit"]))

    jobs.add_job("child", lambda context: context.sleep("work", hours=1))
    jobs.add_job("all", all_of_them)
    run = settled(jobs, jobs.trigger_job("all"))
    how.update(count=6, limit=1)
    for _ in range(4):
        clock.step(timedelta(hours=1))
        run = settled(jobs, run)
    assert (run.status, run.output, len(called)) == ("succeeded", 6, 4)


def test_the_first_child_that_fails_is_named(jobs, thumbs):
    thumbs.fails = {1: NonRetryable("no such picture"), 3: ValueError("too large")}
    jobs.add_job("album", gathering())
    run = settled(jobs, jobs.trigger_job("album"))

    assert run.status == "failed"
    assert run.error is not None
    assert run.error.type == "StepFailedError"
    assert "job 'thumb' is failed: no such picture" in run.error.message
    assert sorted(thumbs.made) == [0, 1, 2, 3, 4]


def test_failures_can_be_had_beside_the_outputs(jobs, thumbs, clock):
    thumbs.fails = {1: NonRetryable("no such picture")}
    jobs.add_job("album", gathering(return_failures=True))
    run = settled(jobs, jobs.trigger_job("album"))
    clock.step(3600)
    found = settled(jobs, run).output
    assert found[0] == "0.png"
    assert "no such picture" in found[1]


def test_a_started_run_is_not_waited_for(jobs, thumbs, clock):
    def handler(context: RunContext) -> str:
        child = context.start("one", "thumb", {"size": 7})
        context.sleep("rest", hours=1)
        return child

    jobs.add_job("album", handler)
    run = settled(jobs, jobs.trigger_job("album"))
    clock.step(3600)
    run = settled(jobs, run)
    [child] = jobs.children(run.id)
    assert run.output == child.id
    assert thumbs.made == [7]


def test_a_job_that_nobody_knows_is_named(jobs):
    def handler(context: RunContext) -> None:
        context.gather("thumbs", "thumb", [{}])

    jobs.add_job("album", handler)
    run = settled(jobs, jobs.trigger_job("album"))
    assert run.error is not None
    assert run.error.type == JobNotFoundError.__name__


def test_coroutines_wait_for_events_and_children(jobs, thumbs, clock):
    async def handler(context: AsyncRunContext) -> list[Any]:
        event = await context.wait_for("go", timeout=60)
        found = await context.gather("thumbs", "thumb", [{"size": 1}, {"size": 2}])
        return [event and event.data, *found]

    jobs.add_job("album", handler)
    run = settled(jobs, jobs.trigger_job("album"))
    jobs.send_event("go", data="now")
    assert settled(jobs, run).output == ["now", "1.png", "2.png"]


def test_what_was_missed_is_found_by_the_next_look(jobs, confirmations, clock):
    """The event came between the last look of the handler and the moment its run was pending."""
    run = settled(jobs, confirmations("ann"))
    store = jobs._assembly.store
    store.steps._make_due = lambda *_: 0  # type: ignore[attr-defined]
    jobs.send_event("user/confirmed", key="ann", data=1)
    del store.steps._make_due  # type: ignore[attr-defined]
    jobs._assembly.wake()

    assert settled(jobs, run).output == 1


# ---------------------------------------------------------------- jobs that events start


@pytest.fixture
def greets(jobs: JobManager) -> Callable[[], list[Any]]:
    """Return what the runs of a job that an event starts got, the oldest first."""
    got: list[Any] = []

    def handler(**payload: Any) -> None:
        got.append(payload)

    jobs.add_job("greet", handler, on="user/created")
    jobs.sync()

    def seen() -> list[Any]:
        run_due(jobs)
        return got

    return seen


def by_event(jobs: JobManager, job_id: str = "greet") -> list[Run]:
    return sorted(jobs.runs(job_id), key=lambda run: run.id)


def test_each_event_starts_one_run_with_its_data(jobs, greets):
    first = jobs.send_event("user/created", data={"user": "ann"}, id="1")
    jobs.send_event("user/created", data="bob", key="bob")
    jobs.send_event("user/created")
    jobs.send_event("user/created", data={"user": "ann"}, id="1")
    jobs.send_event("user/deleted", data={"user": "ann"})

    assert greets() == [{"user": "ann"}, {"data": "bob"}, {}]
    runs = by_event(jobs)
    assert [run.status for run in runs] == ["succeeded"] * 3
    assert (runs[0].idempotency_key, runs[0].requested_by) == (f"event:{first.id}", "event user/created")


def test_an_event_that_another_put_into_the_table_starts_a_run_with_the_next_sweep(jobs, greets, clock):
    jobs.store.steps.send("default", Event(id="raw", name="user/created", data={"user": "cy"}, sent_at=START))
    jobs._parts.assembly.sweep.look()
    jobs._parts.assembly.sweep.look()

    assert greets() == [{"user": "cy"}]
    assert len(by_event(jobs)) == 1


def test_an_event_that_the_store_did_not_take_over_at_once_starts_its_run_later(jobs, greets, monkeypatch):
    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailableError("away")

    with monkeypatch.context() as away:
        away.setattr(jobs._parts.assembly.runner, "accept_all", fail)
        assert jobs.send_event("user/created", data={"user": "ann"}).name == "user/created"
    assert by_event(jobs) == []

    jobs._parts.assembly.sweep.look()

    assert greets() == [{"user": "ann"}]


@pytest.mark.parametrize(("stop", "go_on"), [("stop_job", "resume_job"), ("disable_job", "enable_job")])
def test_an_event_that_meets_a_job_that_is_not_active_starts_nothing(stop, go_on, jobs, greets, clock):
    getattr(jobs, stop)("greet")
    jobs.send_event("user/created", data={"user": "ann"})
    clock.step(1)
    getattr(jobs, go_on)("greet")
    jobs._parts.assembly.sweep.look()
    assert greets() == []

    clock.step(1)
    jobs.send_event("user/created", data={"user": "bob"})
    assert greets() == [{"user": "bob"}]


def test_events_leave_none_out_whatever_overlap_says(jobs):
    for overlap in ("skip", "queue", "queue_all", "allow"):
        jobs.add_job(
            f"work-{overlap}", lambda context: context.sleep("rest", days=1), on="go", overlap=overlap
        )
    for _ in range(3):
        jobs.send_event("go")
    run_due(jobs)
    for overlap in ("skip", "queue", "queue_all", "allow"):
        assert len(by_event(jobs, f"work-{overlap}")) == 3, overlap


def test_a_job_by_events_is_said_in_words(jobs, greets):
    assert jobs.list_jobs(ids=["greet"])[0].words == "on event user/created"
    [decision] = explain_now(jobs, "greet")
    assert "each event user/created starts a run" in str(decision)
    jobs.send_event("user/created")
    assert started_by(by_event(jobs)[0]) == "event user/created"


def test_on_is_a_schedule_too(jobs):
    assert Job(id="a", name="a", handler="a", schedule=On("x")).on == "x"
    assert Job(id="a", name="a", handler="a", on=On("x")) == Job(id="a", name="a", handler="a", on="x")
    with pytest.raises(ConfigurationError, match="on=7 "):
        jobs.add_job("wrong", print, on=7)


def test_a_job_that_an_operator_made_starts_by_events(jobs):
    jobs.handler("note")(lambda **payload: payload)
    jobs.create_job("made", handler="note", on="user/created")
    jobs.send_event("user/created", data={"user": "ann"})
    run_due(jobs)
    assert [run.output for run in by_event(jobs, "made")] == [{"user": "ann"}]


# ---------------------------------------------------------------- disabled, cancelled, and from the start


def test_a_run_rests_on_while_its_job_is_disabled_and_goes_on_when_it_is_enabled(jobs, confirmations, clock):
    run = settled(jobs, confirmations("ann"))

    jobs.disable_job("welcome")
    jobs.send_event("user/confirmed", key="ann", data="meanwhile")
    assert settled(jobs, run).status == "pending"

    jobs.enable_job("welcome")
    assert settled(jobs, run).output == "meanwhile"


def test_a_run_that_comes_to_rest_after_its_job_was_disabled_goes_on_later(jobs, clock):
    def handler(context: RunContext) -> str:
        context.step("disable", lambda: jobs.disable_job("flow"))
        context.sleep("rest", days=1)
        return "rested"

    jobs.add_job("flow", handler)
    run = settled(jobs, jobs.trigger_job("flow"))
    clock.step(2 * DAY)
    assert settled(jobs, run).reason == "sleeping"

    jobs.enable_job("flow")
    assert settled(jobs, run).output == "rested"


def test_deleting_a_job_ends_the_runs_that_rest(jobs):
    jobs.handler("note")(lambda context: context.sleep("rest", days=1))
    jobs.create_job("made", handler="note")
    run = settled(jobs, jobs.trigger_job("made"))

    jobs.disable_job("made")
    assert jobs.run(run.id).status == "pending"
    jobs.delete_job("made")

    assert (jobs.run(run.id).status, jobs.run(run.id).reason) == ("cancelled", "disabled")


def tree(jobs: JobManager) -> tuple[Run, list[Run]]:
    """Return a run that waits for two children, of which each sleeps."""
    jobs.add_job("child", lambda context, number: context.sleep("rest", days=number))
    jobs.add_job("parent", lambda context: context.gather("all", "child", [{"number": 1}, {"number": 2}]))
    parent = settled(jobs, jobs.trigger_job("parent"))
    children = jobs.children(parent.id)
    assert [(run.status, run.reason) for run in (parent, *children)] == [
        ("pending", "children"),
        ("pending", "sleeping"),
        ("pending", "sleeping"),
    ]
    return parent, children


def test_cancelling_a_run_cancels_what_it_has_started(jobs):
    parent, children = tree(jobs)
    assert jobs.cancel(parent.id).status == "cancelled"
    assert [jobs.run(child.id).status for child in children] == ["cancelled"] * 2
    assert jobs.cancel(parent.id).status == "cancelled"


def test_children_may_be_kept(jobs, clock):
    parent, children = tree(jobs)
    jobs.cancel(parent.id, children="keep")
    clock.step(3 * DAY)
    assert [settled(jobs, child).status for child in children] == ["succeeded"] * 2
    with pytest.raises(PayloadError, match='use "cancel" or "keep"'):
        jobs.cancel(parent.id, children="all")


def test_a_parent_goes_on_when_its_last_child_is_cancelled(jobs, clock):
    parent, children = tree(jobs)
    for child in children:
        jobs.cancel(child.id)
    ended = settled(jobs, parent)
    assert (ended.status, ended.error.type) == ("failed", "StepFailedError")


def test_children_go_on_while_the_job_of_their_parent_is_disabled(jobs, clock):
    parent, children = tree(jobs)
    jobs.disable_job("parent")
    clock.step(3 * DAY)
    assert [settled(jobs, child).status for child in children] == ["succeeded"] * 2
    assert settled(jobs, parent).reason == "children"

    jobs.enable_job("parent")
    assert settled(jobs, parent).status == "succeeded"


def test_children_go_on_when_the_job_of_their_parent_is_deleted(jobs, clock):
    jobs.handler("spread")(lambda context: context.gather("all", "child", [{}, {}]))
    jobs.add_job("child", lambda context: context.sleep("rest", days=1))
    jobs.create_job("parent", handler="spread")
    parent = settled(jobs, jobs.trigger_job("parent"))
    jobs.delete_job("parent")

    assert (jobs.run(parent.id).status, jobs.run(parent.id).reason) == ("cancelled", "disabled")
    clock.step(DAY)
    run_due(jobs)
    assert [child.status for child in jobs.children(parent.id)] == ["succeeded"] * 2
    assert jobs.run(parent.id).status == "cancelled"


@pytest.mark.parametrize("disable", [True, False])
def test_a_parent_waits_for_children_of_a_disabled_job_and_fails_when_that_is_deleted(disable, jobs, clock):
    jobs.handler("rest")(lambda context: context.sleep("rest", days=1))
    jobs.create_job("child", handler="rest")
    jobs.add_job("parent", lambda context: context.gather("all", "child", [{}, {}]))
    parent = settled(jobs, jobs.trigger_job("parent"))
    if disable:
        jobs.disable_job("child")
        clock.step(2 * DAY)
        assert settled(jobs, parent).reason == "children"
        jobs.enable_job("child")
        run_due(jobs)
        assert settled(jobs, parent).status == "succeeded"
        return
    jobs.delete_job("child")
    ended = settled(jobs, parent)
    assert (ended.status, ended.error.type) == ("failed", "StepFailedError")
    assert "job 'child' is cancelled" in ended.error.message


def test_a_run_that_was_cancelled_starts_no_more_children(jobs):
    def handler(context: RunContext) -> None:
        jobs.store.runs.cancel(context.run_id)  # by another process: this one has not heard yet
        context.start("one", "child", {})

    jobs.add_job("child", lambda context: context.sleep("rest", days=1))
    jobs.add_job("parent", handler)
    parent = settled(jobs, jobs.trigger_job("parent"))
    assert parent.status == "cancelled"
    assert [run.status for run in jobs.children(parent.id)] == ["cancelled"]


def test_a_run_may_be_redriven_from_its_start(jobs):
    done: list[str] = []

    def handler(context: RunContext) -> None:
        context.step("first", done.append, "first")
        context.start("one", "noted", {})
        if len(done) < 3:
            raise NonRetryable("not yet")

    jobs.add_job("noted", lambda: done.append("child"))
    jobs.add_job("flow", handler)
    run = settled(jobs, jobs.trigger_job("flow"))
    run_due(jobs)
    assert (run.status, done) == ("failed", ["first", "child"])

    again = settled(jobs, jobs.redrive(run.id))
    assert (again.status, done) == ("failed", ["first", "child"])

    settled(jobs, jobs.redrive(run.id, from_start=True))
    run_due(jobs)
    assert done == ["first", "child", "first", "child"]
    assert jobs.run(run.id).status == "succeeded"
    assert len(jobs.children(run.id)) == 2


# ---------------------------------------------------------------- a limit for the whole run


def test_a_run_ends_when_its_own_timeout_is_over_though_it_rests(jobs, clock):
    called: list[int] = []

    def handler(context: RunContext) -> None:
        called.append(1)
        context.sleep("rest", days=3)

    jobs.add_job("flow", handler, run_timeout="1d", retry=5)
    run = settled(jobs, jobs.trigger_job("flow"))
    assert run.due_at == START + DAY

    clock.step(DAY)
    run = settled(jobs, run)

    assert (run.status, run.error.kind, called) == ("failed", "timeout", [1])
    assert run.error.message == "the whole run has not ended after 86400 s (run_timeout)"

    again = settled(jobs, jobs.redrive(run.id))
    assert (again.status, again.due_at) == ("pending", START + 2 * DAY)


def test_attempts_share_the_timeout_of_their_run(jobs, clock):
    def handler(context: RunContext) -> None:
        raise ValueError("again")

    jobs.add_job("work", handler, run_timeout=100, retry=Retry(max_attempts=50, delays=[60], jitter=0))
    if not jobs.backend.capabilities.keeps_time:
        pytest.skip("its attempts follow at once")
    run = jobs.trigger_job("work", delay=500)
    for _ in range(5):
        clock.step(100)
        run_due(jobs)
    assert jobs.run(run.id).attempt == 1
    clock.step(60)
    assert settled(jobs, run).attempt == 2
    clock.step(60)
    run = settled(jobs, run)
    assert (run.status, run.error.kind) == ("failed", "timeout")


def test_a_run_that_is_within_its_timeout_succeeds(jobs, clock):
    async def handler(context: AsyncRunContext) -> str:
        await context.sleep("rest", hours=1)
        return "done"

    jobs.add_job("flow", handler, run_timeout="2h")
    run = settled(jobs, jobs.trigger_job("flow"))
    clock.step(timedelta(hours=1))
    assert settled(jobs, run).output == "done"

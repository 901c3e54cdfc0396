"""Why a job did, will, or will not run: for each cause a world in which it holds, and it is named."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager import JobManager, Retry, RunContext, Settings
from jobmanager.errors import JobNotFoundError
from jobmanager.explain import explain, explain_now
from jobmanager.run import RUNNING, SKIPPED, Run, new_id
from jobmanager.testing import FakeClock

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class World:
    """A clock, a store, and managers over it."""

    def __init__(self):
        self.clock = FakeClock(NOON - timedelta(seconds=30))
        self.settings = Settings(backend="local", database_url="memory://")
        self.store = JobManager(self.settings, clock=self.clock).store
        self.managers = []

    def manager(self, function=lambda: "done", *, settings=None, scheduled=True, **declared):
        if scheduled:
            declared.setdefault("cron", "0 * * * *")
        manager = JobManager(settings or self.settings, store=self.store, clock=self.clock)
        manager.job("work", **declared)(function)
        self.managers.append(manager)
        return manager

    def server(self, function=lambda: "done", **declared):
        return self.manager(function, **declared).start()


@pytest.fixture
def world():
    made = World()
    yield made
    for manager in made.managers:
        manager.stop()


def cause(jobs, at):
    explained = explain(jobs, "work", at)
    return explained.verdict, explained.cause


# ---------------------------------------------------------------- a row answers


def test_it_ran(world):
    jobs = world.server()
    world.clock.advance(minutes=1)
    assert cause(jobs, NOON) == ("ran", "succeeded")
    assert explain(jobs, "work", NOON).run.output == "done"


def broken():
    raise OSError("no route")


@pytest.mark.parametrize(
    ("flow", "named", "because"),
    [(lambda context: context.sleep("rest", days=1), "sleeps", "It sleeps in step `rest` until 2026-03-02 12:00:00 UTC."),
     (lambda context: context.step("send", broken, retry=Retry(max_attempts=3, delays=[HOUR], jitter=0)), "waits_for_retry",
      "It rests before try 2 of step `send` after OSError until 2026-03-01 13:00:00 UTC."),
     (lambda context: context.wait_for("paid", key="7"), "waits_for_event", "It waits for the event paid of 7."),
     (lambda context: context.gather("all", "resting", [{}]), "waits_for_children",
      "It waits for 1 of 1 runs that step `all` has started.")],
)  # fmt: skip
def test_it_waits_in_a_step(world, flow, named, because):
    def handler(context: RunContext) -> None:
        flow(context)

    def rest(context: RunContext) -> None:
        context.sleep("rest", days=1)

    jobs = world.manager(handler)
    jobs.add_job("resting", rest)
    jobs.start()
    world.clock.advance(seconds=30)
    world.clock.advance()
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause, explained.because) == ("pending", named, because)
    assert ("jobmanager events send 'paid' --key '7'" in explained.advice) is (named == "waits_for_event")


def test_it_ran_and_failed(world):
    def fail():
        raise ValueError("broken down")

    jobs = world.server(fail)
    world.clock.advance(minutes=1)
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("ran", "failed")
    assert explained.because.endswith("failed: ValueError: broken down")
    assert f"jobmanager redrive {explained.run.id[-8:]}" in explained.advice


def test_its_handler_was_missing_where_it_was_taken(world):
    jobs = world.manager("not_there:at_all")
    jobs.start()
    world.clock.advance(minutes=1)
    assert cause(jobs, NOON) == ("did_not_run", "handler_missing")


def test_it_was_caught_up(world):
    tool = world.manager()
    tool.sync()
    world.clock.advance(minutes=20)
    jobs = world.server()
    world.clock.advance(seconds=5)
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("ran", "succeeded")
    assert "caught up" in explained.because


def test_it_was_missed_while_nobody_lived(world):
    world.manager().sync()
    world.clock.advance(hours=5)
    jobs = world.server()
    world.clock.advance(seconds=5)
    assert cause(jobs, NOON) == ("did_not_run", "downtime")
    assert cause(jobs, NOON + 4 * HOUR)[0] == "ran"


def test_it_met_a_run_of_its_own(world):
    jobs = world.manager()
    jobs.sync()
    jobs.start()
    blocker = Run(
        id=new_id(NOON), job_id="work", status=RUNNING, owner=jobs._assembly.heartbeat.id, attempt=1, opened_at=world.clock.now(),
        accepted_at=world.clock.now(), started_at=world.clock.now(), due_at=world.clock.now(), concurrency_key="work", turn="holds",
    )  # fmt: skip
    with world.store.jobs.lock("work") as page:
        page.insert(blocker)
    world.clock.advance(minutes=1)
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("did_not_run", "overlap")
    assert blocker.id[-8:] in explained.because


def test_its_queue_was_full(world):
    jobs = world.server(overlap="queue")
    world.clock.advance(minutes=1)
    run = jobs.runs()[0]
    with world.store.jobs.lock("work") as page:
        page.insert(
            replace(
                run,
                id=new_id(NOON),
                scheduled_for=NOON - HOUR,
                status=SKIPPED,
                reason="overlap",
                owner=None,
                attempt=0,
                started_at=None,
                blocked_by=run.id,
                turn=None,
            )
        )
    assert "overlap='queue' had no room" in explain(jobs, "work", NOON - HOUR).because


def test_nothing_is_made_up_by_policy(world):
    world.manager(catch_up="none").sync()
    world.clock.advance(minutes=30)
    assert "records it as missed" in explain(world.manager(catch_up="none"), "work", NOON).because
    jobs = world.server(catch_up="none")
    world.clock.advance(seconds=5)
    explained = explain(jobs, "work", NOON)
    assert explained.cause == "downtime"
    assert "catch_up='none' makes nothing up" in explained.because


def test_all_is_made_up_by_policy(world):
    jobs = world.manager(catch_up="all")
    jobs.sync()
    world.clock.advance(minutes=30)
    assert "the next process to start catches it up" in explain(jobs, "work", NOON).because


def test_it_was_paused_then(world):
    jobs = world.server()
    jobs.stop_job("work", by="ana")
    world.clock.advance(minutes=5)
    assert cause(jobs, NOON) == ("did_not_run", "paused")  # by the state, before the sweep
    jobs.resume_job("work")
    explained = explain(jobs, "work", NOON)  # by the row, after it
    assert (explained.cause, explained.run.reason) == ("paused", "paused")


def test_it_is_running(world):
    seen = []

    def look(context: RunContext):
        seen.append(cause(tool, NOON))

    tool = world.manager(look)
    world.server(look)
    world.clock.advance(minutes=1)
    assert seen == [("running", "running")]


def test_it_waits_for_its_retry(world):
    def fail():
        raise ValueError("later")

    jobs = world.server(fail, retry=Retry(max_attempts=2, delays=[600], jitter=0))
    world.clock.advance(minutes=1)
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("pending", "waits_for_retry")
    assert "the next one is due 2026-03-01 12:10:00 UTC" in explained.because


def test_it_is_open_and_nobody_executes_it(world):
    jobs = world.server()
    world.clock.advance(minutes=1)
    failed = jobs.run(jobs.runs()[0].id)
    jobs.stop()
    with world.store.jobs.lock("work") as page:
        page.reopen(replace(failed), max_attempts=2, turn="holds")
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("pending", "waits_for_executor")
    assert "no living process" in explained.because
    with world.server():
        assert explain(jobs, "work", NOON).cause in ("waits_for_executor", "succeeded")


# ---------------------------------------------------------------- no row: schedule and state


def test_it_has_no_schedule(world):
    explained = explain(world.manager(scheduled=False), "work", NOON)
    assert (explained.verdict, explained.cause) == ("will_not_run", "no_schedule")
    assert "jobmanager trigger work" in explained.advice


@pytest.mark.parametrize("at", [NOON - 29 * MINUTE, NOON + 31 * MINUTE])
def test_it_is_no_instant_of_the_schedule(world, at):
    explained = explain(world.manager(), "work", at)
    assert explained.cause == "not_an_instant"
    assert explained.before < at < explained.after
    assert explained.after - explained.before == HOUR
    assert "every hour" in explained.because


def test_a_schedule_that_changed_since_is_mentioned(world):
    world.manager(cron="30 * * * *").sync()
    world.manager(cron="0 * * * *").sync()
    world.clock.advance(hours=2)
    jobs = world.server(cron="15 * * * *")
    world.clock.advance(seconds=5)
    assert "what held then is not on record" in explain(jobs, "work", NOON + HOUR / 2).because


def test_no_process_ever_started(world):
    jobs = world.manager()
    world.clock.advance(hours=1)
    assert cause(jobs, NOON) == ("did_not_run", "never_started")


def test_it_is_before_the_record_begins(world):
    jobs = world.server()
    assert cause(jobs, NOON - 3 * HOUR) == ("did_not_run", "before_history")


def test_nothing_was_expected_while_it_was_disabled(world):
    jobs = world.server()
    account = jobs._assembly.account
    account.change("work", state="disabled", by="ana")
    world.clock.advance(hours=2)
    assert cause(jobs, NOON) == ("did_not_run", "disabled")
    account.change("work", state="active", by="ana")
    assert cause(jobs, NOON) == ("did_not_run", "not_expected")


def test_it_is_paused(world):
    jobs = world.server()
    jobs.stop_job("work", reason="moving house", by="ana")
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("will_not_run", "paused")
    assert "since 2026-03-01 11:59:30 UTC by ana: moving house" in explained.because
    assert "jobmanager jobs resume work" in explained.advice


def test_its_gate_is_closed(world, monkeypatch):
    monkeypatch.delenv("WITH_WORK", raising=False)
    jobs = world.manager(enabled_when="WITH_WORK")
    assert cause(jobs, NOON) == ("will_not_run", "disabled")
    assert "WITH_WORK=true" in explain(jobs, "work", NOON).because
    jobs.sync()
    assert "WITH_WORK=true" in explain(jobs, "work", NOON).because


def test_no_living_process_declares_it(world):
    old = world.server()
    old.stop()
    jobs = JobManager(world.settings, store=world.store, clock=world.clock)
    jobs.job("other", every=3600)(print)
    with jobs:
        world.clock.advance(minutes=5)
        explained = explain(jobs, "work", NOON + HOUR)
        assert (explained.verdict, explained.cause) == ("will_not_run", "disabled")
        assert "no living process declares it" in explained.because


def test_nobody_keeps_the_time(world):
    jobs = world.manager(settings=Settings(disabled=True, database_url="memory://"))
    explained = explain(jobs, "work", NOON)
    assert (explained.verdict, explained.cause) == ("will_not_run", "nobody_keeps_time")
    assert "JOBMANAGER_DISABLED=true" in explained.because


def test_its_handler_cannot_be_imported(world):
    jobs = world.manager("not_there:at_all")
    assert cause(jobs, NOON) == ("will_not_run", "handler_missing")


def test_nobody_lives(world):
    jobs = world.manager()
    jobs.sync()
    assert cause(jobs, NOON) == ("will_not_run", "nobody_lives")
    world.clock.advance(minutes=10)
    assert cause(jobs, NOON) == ("did_not_run", "nobody_lives")
    assert "catches up" in explain(jobs, "work", NOON).because
    world.clock.advance(hours=2)
    assert "as missed (downtime)" in explain(jobs, "work", NOON).because


def test_it_may_still_start_and_then_is_not_yet_accounted(world):
    jobs = world.manager()
    with world.server():
        world.clock.advance(seconds=20)
        with world.store.jobs.lock("work") as page:  # those ticks nobody brought
            page.save(replace(page.job, accounted_until=NOON - 2 * HOUR, history_from=NOON - 3 * HOUR))
        assert cause(jobs, NOON - HOUR) == ("pending", "not_yet_accounted")
        world.clock._now = NOON + timedelta(seconds=5)  # without moving those who are driven by it
        assert cause(jobs, NOON) == ("pending", "due_now")


def test_the_clock_was_ahead_once(world):
    jobs = world.manager()
    jobs.sync()
    with world.store.jobs.lock("work") as page:
        page.save(replace(page.job, accounted_until=NOON + HOUR))
    assert cause(jobs, NOON) == ("will_not_run", "accounted_ahead")


def test_it_will_run(world):
    jobs = world.server()
    assert cause(jobs, NOON) == ("will_run", "as_planned")


def test_a_declaration_that_nobody_started_with_is_mentioned(world):
    world.server()
    newer = world.manager(cron="0 */2 * * *")
    assert "the code here declares another" in explain(newer, "work", NOON).because


def test_a_job_that_only_the_store_knows(world):
    world.server()
    tool = JobManager(world.settings, store=world.store, clock=world.clock)
    assert explain(tool, "work", NOON).cause == "as_planned"


def test_an_unknown_job_is_an_error(world):
    with pytest.raises(JobNotFoundError, match="Did you mean 'work'"):
        explain(world.manager(), "wrok", NOON)


# ---------------------------------------------------------------- without a moment


def test_now_means_the_last_instant_and_the_next(world):
    jobs = world.server()
    world.clock.advance(minutes=1)
    assert [(item.at, item.cause) for item in explain_now(jobs, "work")] == [
        (NOON, "succeeded"),
        (NOON + HOUR, "as_planned"),
    ]


def test_a_job_without_instants_is_explained_once(world):
    assert [item.cause for item in explain_now(world.manager(scheduled=False), "work")] == ["no_schedule"]


def test_an_instant_of_this_very_second_is_the_last_one(world):
    jobs = world.server()
    world.clock.advance(seconds=30)
    assert world.clock.now() == NOON
    assert [item.at for item in explain_now(jobs, "work")] == [NOON, NOON + HOUR]


def test_instants_are_told_as_asked(world):
    jobs = world.manager()
    explained = explain(jobs, "work", NOON + MINUTE, told=lambda moment: f"<{moment:%H:%M}>")
    assert "<12:01>" in explained.because


# ---------------------------------------------------------------- changes of the clocks

SPRING = datetime(2026, 3, 29, 1, tzinfo=UTC)  # in Berlin 02:00 becomes 03:00
AUTUMN = datetime(2026, 10, 25, 1, tzinfo=UTC)  # 03:00 becomes 02:00


@pytest.mark.parametrize(
    ("policy", "at", "verdict", "note"),
    [
        ("end", SPRING, "will_run", "02:30 is not on the clock that day: it runs at 03:00."),
        ("shift", SPRING, "will_not_run", "02:30 is not on the clock that day: it runs at 03:30."),
        ("shift", SPRING + HOUR / 2, "will_run", "it runs at 03:30."),
        ("skip", SPRING + HOUR / 2, "will_not_run", "the job leaves that out."),
        ("first", AUTUMN - HOUR / 2, "will_run", "02:30 comes twice that day: it runs once, the first time."),
        ("first", AUTUMN + HOUR / 2, "will_not_run", "it runs once, the first time."),
        ("both", AUTUMN + HOUR / 2, "will_run", "and the job runs both times."),
    ],
)
def test_a_change_of_the_clocks_is_named_where_it_decides(world, policy, at, verdict, note):
    jobs = world.server(cron="30 2 * * *", timezone="Europe/Berlin", dst=policy)
    explained = explain(jobs, "work", at)

    assert explained.verdict == verdict
    assert explained.because.endswith(note)
    assert (
        "forward from 02:00 to 03:00" if at < AUTUMN - 2 * HOUR else "back from 03:00 to 02:00"
    ) in explained.because


def test_a_change_of_the_clocks_is_not_named_where_it_decides_nothing(world):
    jobs = world.server(cron="*/30 * * * *", timezone="Europe/Berlin")
    assert "clocks" not in explain(jobs, "work", SPRING).because
    jobs = world.manager(cron="30 2 * * *", timezone="Europe/Berlin")
    assert "clocks" not in explain(jobs, "work", SPRING - HOUR / 2).because

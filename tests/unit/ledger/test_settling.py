"""How far the account goes, what the rows that it writes carry, and what a change of the job leaves as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.tick_source import TickSource

from jobmanager import JobManager, Retry, Run, RunStatus, Settings
from jobmanager.ledger.missing_instants import row_of
from jobmanager.stores.base import RunStore
from jobmanager.stores.sql.memory import MemoryStore
from jobmanager.stores.values import JobRow
from jobmanager.testing import FakeClock

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(START)


@pytest.fixture
def ticks() -> TickSource:
    return TickSource()


@pytest.fixture
def store(clock: FakeClock) -> RunStore:
    return MemoryStore(clock=clock)


@pytest.fixture
def start(clock: FakeClock, ticks: TickSource, store: RunStore) -> Iterator[Callable[..., JobManager]]:
    """A process that is started, with a job whose ticks all get lost unless the test brings them."""
    made: list[JobManager] = []

    def begin(**options: Any) -> JobManager:
        manager = JobManager(Settings(database_url="memory://"), backend=ticks, store=store, clock=clock)
        manager.add_job("work", options.pop("handler", lambda: None), **{"cron": "* * * * *", **options})
        made.append(manager)
        return manager.start()

    yield begin
    for manager in made:
        manager.stop()


def minute(number: float) -> datetime:
    return START + timedelta(minutes=number)


def rows(jobs: JobManager) -> list[Run]:
    return sorted(
        (run for run in jobs.runs("work", limit=1000) if run.scheduled_for), key=lambda run: run.instant
    )


def stored(jobs: JobManager) -> JobRow:
    row = jobs.store.jobs.get("work")
    assert row is not None
    return row


# ---------------------------------------------------------------- how far


def test_a_tick_whose_jitter_is_longer_than_the_grace_is_left_to_come(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    """The account looks in twice a minute; until jitter and grace are over it must not call the instant missed."""
    jobs = start(cron="0 * * * *", jitter=900, catch_up="none")
    instant = minute(60)
    due = jobs.registry.jobs["work"].due_at(instant)
    assert due > instant + jobs.settings.grace
    while clock.now() < due:
        clock.advance_to(min(clock.now() + timedelta(seconds=30), due))
    ticks.bring("work", instant)

    assert [(run.scheduled_for, run.status) for run in rows(jobs)] == [(instant, RunStatus.SUCCEEDED)]


def test_what_was_accounted_for_stays_so_however_long_the_jitter(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    """Grace and jitter reach back beyond the moment in which the job was declared."""
    jobs = start(jitter=600, catch_up="none")
    marks = []
    for _ in range(30):
        clock.advance(seconds=30)
        marks.append(stored(jobs).accounted_until)

    assert marks == sorted(marks)
    assert marks[0] >= START
    assert rows(jobs)[0].instant == minute(1)


def test_older_holes_are_folded_around_the_rows_between_them(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    jobs = start(catch_up="none")
    clock.step(timedelta(minutes=20))  # nobody looks in the meantime
    ticks.bring("work", minute(20))
    clock.step(timedelta(minutes=180))
    clock.advance()

    stretches = [(run.first_for, run.scheduled_for, run.ticks) for run in rows(jobs) if run.ticks > 1]
    assert stretches == [(minute(1), minute(19), 19), (minute(21), minute(99), 79)]
    assert sum(run.ticks for run in rows(jobs)) == 199


def test_a_pause_is_a_row_for_each_stretch_around_the_ticks_that_ran_before_it(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    """Fails if the row of the pause says that it covers an instant that has a row of its own."""
    jobs = start(cron=None, every=10)
    clock.step(timedelta(seconds=20))
    ticks.bring("work", minute(2 / 6))
    clock.step(timedelta(seconds=10))
    jobs.stop_job("work")

    covered = [(run.first_for or run.instant, run.instant, run.ticks, run.reason) for run in rows(jobs)]
    first, second, third = (minute(number / 6) for number in (1, 2, 3))
    assert covered == [(first, first, 1, "paused"), (second, second, 1, None), (third, third, 1, "paused")]


def announce(store: RunStore, *instants: datetime) -> None:
    """Insert the rows of these ticks as the database announces them: no process has accepted them."""
    with store.jobs.lock("work") as txn:
        for instant in instants:
            row = row_of(txn, instant, RunStatus.PENDING, None, trigger="schedule")
            txn.insert(replace(row, accepted_at=None, turn=None))
        txn.save(replace(txn.job, accounted_until=max(instants)))


def test_an_announcement_that_is_settled_after_the_pause_began_leaves_the_row_of_the_pause_as_it_is(
    start: Callable[..., JobManager], clock: FakeClock, store: RunStore
) -> None:
    jobs = start()
    account = jobs._assembly.account
    clock.step(timedelta(minutes=1))
    announce(store, minute(1))
    jobs.stop_job("work")
    clock.step(timedelta(minutes=5))
    with store.jobs.lock("work") as txn:  # as by a process that looked for announcements before the pause
        account._settle(txn)
    account.settle("work")
    clock.step(timedelta(minutes=5))
    account.settle("work")

    covered = [(run.first_for or run.instant, run.instant, run.ticks, run.reason) for run in rows(jobs)]
    assert covered == [
        (minute(1), minute(1), 1, "paused"),
        (minute(2), minute(10), 9, "paused"),
    ]


def test_many_late_announcements_are_folded_around_the_rows_between_them(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource, store: RunStore
) -> None:
    jobs = start(catch_up="none")
    clock.step(timedelta(minutes=20))
    ticks.bring("work", minute(20))
    clock.step(timedelta(minutes=181))
    announce(store, *(minute(number) for number in range(1, 200) if number != 20))
    jobs._assembly.account.settle("work")

    stretches = [(run.first_for, run.scheduled_for, run.ticks) for run in rows(jobs) if run.ticks > 1]
    assert stretches == [(minute(1), minute(19), 19), (minute(21), minute(99), 79)]
    assert sum(run.ticks for run in rows(jobs)) == 200


def test_every_overdue_job_is_settled_in_one_sweep(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    """However many there are: they are looked for fifty at a time."""
    jobs = start()
    names = [f"other-{number}" for number in range(120)]
    for name in names:
        jobs.add_job(name, lambda: None, cron="* * * * *", catch_up="none")
    jobs.sync()
    clock.step(90)
    clock.step(30)
    clock.advance()

    assert [name for name in names if not jobs.runs(name, "missed")] == []


# ---------------------------------------------------------------- what the rows carry


def test_a_caught_up_run_has_the_policies_of_its_job(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    jobs = start(start_deadline=1800, priority=3, retry=Retry(max_attempts=4, on_crash=False))
    clock.advance(minutes=2)

    [run] = [run for run in rows(jobs) if run.trigger == "catch_up"]
    assert (run.max_attempts, run.retry_on_crash) == (4, False)
    assert run.expires_at == run.instant + timedelta(seconds=1800)


def test_a_caught_up_run_is_tried_as_often_as_any_other(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    def broken() -> None:
        raise OSError("no")

    jobs = start(handler=broken, retry=Retry(max_attempts=3, delays=[1], jitter=0))
    clock.advance(minutes=2)
    clock.advance(seconds=5)

    [run] = [run for run in rows(jobs) if run.trigger == "catch_up"]
    assert (run.status, run.attempt) == (RunStatus.FAILED, 3)


def test_backfill_runs_at_once_what_is_past_every_deadline(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    jobs = start(start_deadline=60, jitter=50)
    made_up = jobs.backfill("work", minute(-5), minute(-2))
    clock.advance()

    assert [item.action for item in made_up] == ["open"] * 3
    assert [(run.scheduled_for, run.status, run.due_at) for run in rows(jobs)] == [
        (minute(number), RunStatus.SUCCEEDED, START) for number in (-4, -3, -2)
    ]


def test_a_redriven_run_has_as_many_attempts_again(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    def broken() -> None:
        raise OSError("no")

    jobs = start(handler=broken, retry=Retry(max_attempts=2, delays=[1], jitter=0))
    run = jobs.trigger_job("work")
    clock.advance(seconds=5)
    jobs.redrive(run.id)
    clock.advance(seconds=5)

    assert (jobs.run(run.id).attempt, jobs.run(run.id).status) == (4, RunStatus.FAILED)


# ---------------------------------------------------------------- a change


def test_the_same_change_again_writes_nothing(start: Callable[..., JobManager]) -> None:
    jobs = start()
    jobs.override_job("work", cron="*/2 * * * *", timeout=7)
    jobs.stop_job("work")
    before = stored(jobs)
    jobs.override_job("work", cron="*/2 * * * *", timeout=7)
    jobs.stop_job("work")

    assert stored(jobs) == before


def test_a_change_of_policies_leaves_the_schedule_in_force(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource
) -> None:
    jobs = start()
    clock.step(60)
    jobs.override_job("work", timeout=7, max_attempts=3)
    ticks.bring("work", minute(1))

    assert stored(jobs).schedule_rev == 1
    assert stored(jobs).definition_rev > 1
    assert [(run.scheduled_for, run.status) for run in rows(jobs)] == [(minute(1), RunStatus.SUCCEEDED)]


@pytest.mark.parametrize("change", ["pause", "edit"])
def test_after_a_change_and_its_opposite_old_ticks_are_still_refused(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource, change: str
) -> None:
    jobs = start()
    if change == "pause":
        jobs.stop_job("work")
        jobs.resume_job("work")
    else:
        jobs.override_job("work", cron="*/2 * * * *")
        jobs.reset_job("work")
    clock.step(60)
    ticks.bring("work", minute(1), revision=1)

    assert rows(jobs) == []
    assert ticks.revision_of("work") == 3


@pytest.mark.parametrize(("late", "becomes"), [(59, "succeeded"), (60, "missed")])
def test_a_change_lets_run_what_is_on_time_by_the_old_schedule(
    start: Callable[..., JobManager], clock: FakeClock, late: int, becomes: str
) -> None:
    jobs = start(catch_up="none", cron="1-59/10 * * * *")
    clock.advance(seconds=60 + late)
    jobs.override_job("work", cron="0 0 1 1 *")
    clock.advance()

    assert [(run.scheduled_for, str(run.status)) for run in rows(jobs)] == [(minute(1), becomes)]


def test_of_several_instants_on_time_a_change_lets_the_newest_run(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    jobs = start(catch_up="all", cron=None, every=20)
    clock.advance(seconds=50)
    jobs.override_job("work", every=3600)
    clock.advance()

    assert [str(run.status) for run in rows(jobs)] == ["missed", "succeeded"]


@pytest.mark.parametrize("backend", ["ticks", "noop"])
def test_a_change_while_no_process_lives_lets_nothing_run(
    start: Callable[..., JobManager], clock: FakeClock, store: RunStore, backend: str
) -> None:
    """Fails where the change opens a run that waits for whatever process starts next, however late."""
    jobs = start(catch_up="none")
    clock.advance(seconds=30)
    jobs.stop()
    clock.step(60)
    operator = JobManager(
        Settings(database_url="memory://", **({"backend": "noop"} if backend == "noop" else {})),
        store=store,
        clock=clock,
    )
    operator.add_job("work", lambda: None, cron="* * * * *", catch_up="none")
    operator.override_job("work", cron="0 0 1 1 *")
    clock.step(timedelta(hours=5))
    jobs.start()
    clock.advance(minutes=2)

    assert [(str(run.status), run.reason) for run in rows(jobs)] == [("missed", "downtime")]
    assert jobs.trigger_job("work").status is RunStatus.SUCCEEDED


def test_a_change_after_the_process_was_killed_leaves_a_run_that_expires(
    start: Callable[..., JobManager], clock: FakeClock, store: RunStore
) -> None:
    """The killed process still counts as living; what the change opens for it ends with the grace."""
    jobs = start(catch_up="none")
    clock.advance(seconds=59)
    clock.step(2)  # killed: the tick was not brought, and nobody deregistered
    operator = JobManager(Settings(database_url="memory://"), store=store, clock=clock)
    operator.add_job("work", lambda: None, cron="* * * * *", catch_up="none")
    operator.override_job("work", cron="0 0 1 1 *")
    [run] = rows(operator)
    assert (run.status, run.expires_at) == (RunStatus.PENDING, minute(1) + jobs.settings.grace)


def test_a_pause_runs_nothing_that_was_due_before_it(
    start: Callable[..., JobManager], clock: FakeClock
) -> None:
    jobs = start(catch_up="all")
    clock.step(90)
    jobs.stop_job("work")
    clock.advance()

    assert [(run.scheduled_for, run.status, run.reason) for run in rows(jobs)] == [
        (minute(1), RunStatus.SKIPPED, "paused")
    ]


@pytest.mark.parametrize(
    ("outcomes", "state"),
    [("ff", "active"), ("fsf", "active"), ("fff", "paused"), ("ffsfff", "paused"), ("ffsff", "active")],
)
def test_only_so_many_failures_in_a_row_pause_a_job(
    start: Callable[..., JobManager], outcomes: str, state: str
) -> None:
    coming = iter(outcomes)

    def work() -> None:
        if next(coming) == "f":
            raise OSError("no")

    jobs = start(handler=work, pause_after_failures=3)
    for _ in outcomes:
        jobs.trigger_job("work")

    assert stored(jobs).state == state


def test_a_job_that_fails_while_paused_keeps_the_reason_it_was_paused_for(
    start: Callable[..., JobManager],
) -> None:
    def broken() -> None:
        raise OSError("no")

    jobs = start(handler=broken, pause_after_failures=2)
    jobs.stop_job("work", reason="maintenance", by="ana")
    for _ in range(3):
        jobs.trigger_job("work")

    assert (stored(jobs).state_reason, stored(jobs).state_by) == ("maintenance", "ana")


@pytest.mark.parametrize(("until_now", "following"), [("nothing", 2), ("missed", 6), ("brought", 6)])
def test_a_change_after_the_clock_was_set_back_begins_where_the_account_ended(
    start: Callable[..., JobManager], clock: FakeClock, ticks: TickSource, until_now: str, following: int
) -> None:
    """What has a row, or was accounted for, or lies before the job was declared, is not expected by the new schedule."""
    jobs = start(catch_up="none")
    if until_now == "missed":
        clock.advance(minutes=5)
    if until_now == "brought":
        clock.step(timedelta(minutes=5))
        ticks.bring("work", minute(5))
    before = max([stored(jobs).accounted_until, *(run.instant for run in rows(jobs))])
    clock.step(-timedelta(minutes=30))
    jobs.override_job("work", cron="*/2 * * * *")

    assert before > clock.now()
    assert stored(jobs).accounted_until >= before
    assert stored(jobs).next_due_at == minute(following)


@pytest.mark.parametrize(
    ("catch_up", "opened"), [("none", []), ("latest", []), ("all", ["pending", "pending"])]
)
def test_announced_before_any_process_lived_all_but_the_newest_follow_catch_up(
    start: Callable[..., JobManager], clock: FakeClock, store: RunStore, catch_up: str, opened: list[str]
) -> None:
    jobs = start(catch_up=catch_up)
    jobs.stop()
    clock.step(timedelta(minutes=3))
    announce(store, minute(1), minute(2), minute(3))
    clock.step(timedelta(seconds=1))
    decided = jobs._assembly.account.settle_left(["work", "other"])

    older, newest = rows(jobs)[:2], rows(jobs)[2]
    assert decided == {run.id for run in older}
    assert [str(run.status) for run in older] == (opened or ["missed", "missed"])
    assert newest.announced


def test_announced_while_a_process_lives_every_instant_is_merely_late(
    start: Callable[..., JobManager], clock: FakeClock, store: RunStore
) -> None:
    jobs = start(cron=None, every=10)
    clock.advance(minutes=3)
    instants = [minute(3) - timedelta(seconds=10 * number) for number in (2, 1, 0)]
    announce(store, *instants)

    assert jobs._assembly.account.settle_left(["work"]) == set()
    assert [run.instant for run in rows(jobs) if run.announced] == instants

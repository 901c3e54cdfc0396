"""What counts as standing still: the judgement over facts of one process and of the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from jobmanager.process.health import (
    LedgerFacts,
    Limits,
    OverdueJob,
    ProcessJudgement,
    Vitals,
    judge_ledger,
)
from jobmanager.stores.values import Instance

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIMITS = Limits(grace=timedelta(seconds=60), sweep=timedelta(seconds=30), lease=timedelta(seconds=30))
WELL = Vitals(now=NOON, workers=10)


class Process:
    """A process on a clock that the test moves in steps of five seconds; `vitals` is what it says of itself."""

    def __init__(self) -> None:
        self.judgement = ProcessJudgement(LIMITS)
        self.monotonic = 0.0
        self.beats = True

    def passes(self, seconds, **vitals):
        """Let time pass with these vitals; return the kinds found at the end."""
        found = {}
        for _ in range(round(seconds / 5)):
            self.monotonic += 5
            now = NOON + timedelta(seconds=self.monotonic)
            values = {name: value() if callable(value) else value for name, value in vitals.items()}
            if self.beats:
                values.setdefault("last_beat_at", self.monotonic)
            found = self.judgement.judge(replace(WELL, now=now, **values), self.monotonic)
        return set(found)


@pytest.fixture
def process():
    return Process()


# ---------------------------------------------------------------- one process


def test_a_process_that_moves_has_no_symptom(process):
    numbers = iter(range(10_000))
    assert process.passes(3600, waiting=3, handlers_begun=lambda: next(numbers)) == set()


STUCK = {
    "timetable_stuck": {"timetable_next": NOON},
    "not_begun": {"waiting": 1, "handlers_begun": 7},
    "background_stuck": {"background_turned_at": 1.0},
    "loop_blocked": {"loop_lag": 6.0},
}


@pytest.mark.parametrize("kind", STUCK)
def test_what_stands_still_for_grace_and_a_sweep_is_a_symptom(process, kind):
    assert process.passes(90, **STUCK[kind]) == set()
    assert process.passes(10, **STUCK[kind]) == {kind}
    assert process.passes(5) == set()


def test_a_delivery_that_does_not_return_is_a_stuck_timetable(process):
    assert process.passes(100, delivering_since=2.0) == {"timetable_stuck"}


def test_deliveries_that_follow_one_another_are_none(process):
    assert process.passes(600, delivering_since=lambda: process.monotonic) == set()


def test_a_store_that_takes_no_heartbeat_for_a_lease_is_silent(process):
    process.passes(60)
    process.beats = False
    assert process.passes(25, last_beat_at=60.0) == set()
    assert process.passes(10, last_beat_at=60.0) == {"store_silent"}
    process.beats = True
    assert process.passes(5) == set()


def test_runs_that_wait_for_busy_workers_are_no_standstill(process):
    assert process.passes(3600, waiting=50, busy_workers=10, handlers_begun=10) == set()


def test_abandoned_workers_are_told_and_beyond_ten_for_each_worker_they_are_fatal(process):
    assert process.passes(5, abandoned_workers=9) == set()
    assert process.passes(5, abandoned_workers=10) == {"workers_abandoned"}
    found = process.judgement.judge(replace(WELL, abandoned_workers=10), process.monotonic)
    assert not found["workers_abandoned"][0].failing
    found = process.judgement.judge(replace(WELL, abandoned_workers=100), process.monotonic)
    assert found["workers_abandoned"][0].fatal


def test_a_machine_that_was_suspended_begins_to_measure_anew(process):
    process.passes(80, timetable_next=NOON)
    process.monotonic += 3600
    assert process.passes(90, timetable_next=NOON) == set()
    assert process.passes(10, timetable_next=NOON) == {"timetable_stuck"}


def test_a_process_that_comes_up_or_drains_is_not_judged(process):
    process.passes(100, timetable_next=NOON)
    assert process.judgement.judge(None, process.monotonic + 5) == {}
    process.monotonic += 5
    assert process.passes(5, timetable_next=NOON) == set()


# ---------------------------------------------------------------- the ledger


def instance(**facts):
    values = {
        "id": "one", "namespace": "default", "host": "here", "pid": 17, "executes": True,
        "started_at": NOON - timedelta(hours=1), "seen_at": NOON,
    }  # fmt: skip
    return Instance(**{**values, **facts})


def kinds(*processes, **facts):
    return [s.kind for s in judge_ledger(LedgerFacts(now=NOON, processes=processes, **facts), LIMITS)]


OVERDUE = (OverdueJob(job_id="work", due_at=NOON - timedelta(hours=1), by=timedelta(minutes=58)),)


def test_a_ledger_of_living_processes_has_no_symptom():
    late = instance(last_tick_at=NOON - timedelta(seconds=30), lag_seconds=59)
    assert kinds(instance()) == kinds(late) == []


def test_nobody_living_is_a_symptom_but_not_where_processes_start_for_calls():
    assert kinds() == ["no_process"]
    assert judge_ledger(LedgerFacts(now=NOON), LIMITS, expects_process=False) == []


def test_overdue_jobs_are_judged_once_a_process_had_time_to_settle_them():
    assert kinds(instance(), overdue=OVERDUE) == ["overdue"]
    assert kinds(instance(started_at=NOON - timedelta(seconds=80)), overdue=OVERDUE) == []
    assert kinds(overdue=OVERDUE) == ["no_process", "overdue"]


def test_late_ticks_count_while_they_are_recent():
    def ticked(ago, lag):
        last = NOON - timedelta(seconds=ago)
        return instance(started_at=NOON - timedelta(days=1), last_tick_at=last, lag_seconds=lag)

    assert kinds(ticked(100, 70)) == ["late_ticks"]
    assert kinds(ticked(5000, 70)) == []  # a daily job that was late once
    assert kinds(ticked(5000, 5000)) == ["late_ticks"]  # a process that stands still reports for how long
    assert kinds(ticked(5000, 5000), instance()) == [
        "late_ticks"
    ]  # the other never ticked: it proves nothing


def test_one_stalled_process_beside_others_that_tick_is_a_warning():
    stalled = instance(pid=18, last_tick_at=NOON - timedelta(seconds=500), lag_seconds=500)
    well = instance(last_tick_at=NOON, lag_seconds=0)
    [found] = judge_ledger(LedgerFacts(now=NOON, processes=[well, stalled]), LIMITS)
    assert (found.kind, found.failing) == ("process_stalled", False)
    assert "Process 18" in found.text

"""How long a failed run waits for its next attempt, and how many attempts there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from jobmanager import JobManager, Retry, RetryLater, Run, RunContext, RunStatus, Settings
from jobmanager.testing import FakeClock


def attempts(retry: Retry, handler: Callable[[RunContext], Any]) -> tuple[Run, list[float]]:
    """The run of a handler that always raises, and the seconds between the starts of its attempts."""
    clock = FakeClock()
    jobs = JobManager(Settings(database_url="memory://"), clock=clock)
    starts = []

    @jobs.job("failing", retry=retry)
    def failing(context: RunContext) -> None:
        assert context.attempt == len(starts) + 1
        starts.append(clock.now())
        handler(context)

    jobs.start()
    run = jobs.trigger_job("failing")
    clock.advance(days=1)
    jobs.stop()
    return jobs.run(run.id), [(later - earlier).total_seconds() for earlier, later in pairwise(starts)]


def broken(_context: RunContext) -> None:
    raise OSError("no")


def test_each_delay_is_the_factor_times_the_one_before_up_to_the_longest() -> None:
    run, waits = attempts(Retry(max_attempts=6, base=2, factor=3, max_delay=30, jitter=0), broken)

    assert waits == [2, 6, 18, 30, 30]
    assert (run.status, run.attempt) == (RunStatus.FAILED, 6)


def test_delays_by_name_are_kept_and_the_last_one_repeats() -> None:
    _, waits = attempts(Retry(max_attempts=5, delays=[7, 1], jitter=0), broken)

    assert waits == [7, 1, 1, 1]


@pytest.mark.parametrize("delays", [None, [100]])
def test_jitter_lengthens_each_delay_by_a_share_of_its_own(delays: list[float] | None) -> None:
    _, waits = attempts(Retry(max_attempts=60, base=100, factor=1, delays=delays, jitter=0.5), broken)

    assert len(waits) == 59
    assert all(100 <= wait <= 150 for wait in waits)
    assert min(waits) < 125 < max(waits)


def test_without_jitter_two_runs_wait_equally_long() -> None:
    retry = Retry(max_attempts=4, jitter=0)

    assert attempts(retry, broken)[1] == attempts(retry, broken)[1] == [2, 4, 8]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_retry_later_makes_no_more_attempts_than_the_policy_gives(most: int) -> None:
    def not_ready(_context: RunContext) -> None:
        raise RetryLater(5, "not ready")

    run, waits = attempts(Retry(max_attempts=most, delays=[60]), not_ready)

    assert waits == [5] * (most - 1)
    assert (run.status, run.attempt) == (RunStatus.FAILED, most)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_an_error_makes_no_more_attempts_than_the_policy_gives(most: int) -> None:
    run, waits = attempts(Retry(max_attempts=most, delays=[5], jitter=0), broken)

    assert waits == [5] * (most - 1)
    assert (run.status, run.attempt) == (RunStatus.FAILED, most)


def test_only_the_named_errors_are_tried_again() -> None:
    def other(context: RunContext) -> None:
        raise (OSError if context.attempt == 1 else LookupError)("no")

    run, waits = attempts(Retry(max_attempts=9, delays=[1], jitter=0, retry_on=(OSError,)), other)

    assert waits == [1]
    assert run.error is not None
    assert run.error.type == "LookupError"


def test_the_longest_backoff_of_the_last_attempt_is_a_number() -> None:
    retry = Retry(max_attempts=1000, base=1, factor=10, max_delay=60, jitter=0)

    assert retry.delay_after(999) == timedelta(seconds=60)


CENTURY = 36_500 * 86_400.0


@pytest.mark.parametrize(
    "retry",
    [
        Retry(max_attempts=1000, base=CENTURY, factor=1000, max_delay=CENTURY, jitter=1),
        Retry(max_attempts=1000, base=5e-324, factor=1000.0, max_delay=CENTURY, jitter=1),
        Retry(max_attempts=1000, base=0, factor=1000, max_delay=0, jitter=1),
        Retry(max_attempts=1000, delays=[0, CENTURY], jitter=1),
    ],
)
def test_the_most_that_a_policy_may_say_gives_a_delay_after_each_attempt(retry: Retry) -> None:
    for attempt in range(1, 1001):
        assert timedelta(0) <= retry.delay_after(attempt) <= timedelta(days=36_500)


@pytest.mark.parametrize(
    ("delay", "status"),
    [
        (timedelta(days=36_500), RunStatus.PENDING),
        (timedelta(days=36_501), RunStatus.FAILED),
        (timedelta.max, RunStatus.FAILED),
        (timedelta.min, RunStatus.FAILED),
    ],
)
def test_a_delay_up_to_a_century_leaves_the_run_waiting_and_a_longer_one_fails_it(
    delay: timedelta, status: RunStatus
) -> None:
    def later(_context: RunContext) -> None:
        raise RetryLater(delay)

    run, _ = attempts(Retry(max_attempts=2, jitter=0), later)

    assert run.error is None or run.error.kind == "exception"
    assert run.status is status

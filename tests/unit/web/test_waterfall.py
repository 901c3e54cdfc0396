"""The picture of a run's attempts."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from jobmanager.run import FAILED, PENDING, RUNNING, Attempt, Failure, Run
from jobmanager.web.pages.times import Times
from jobmanager.web.pages.waterfall import axis, bars_of, scale_of, waterfall

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def run_of(**fields: object) -> Run:
    return Run(
        **{  # type: ignore[arg-type]
            "id": "01900000-0000-7000-8000-000000000001",
            "job_id": "job",
            "status": FAILED,
            "opened_at": NOON,
            "due_at": NOON,
            "scheduled_for": NOON,
            "concurrency_key": "job",
            "attempt": 2,
            "started_at": after(60),
            "finished_at": after(100),
            "error": Failure(kind="timeout", message="", type=""),
            **fields,
        }
    )


FIRST = Attempt(
    run_id="x", starts=1, attempt=1, owner="p1", started_at=after(1), ended_at=after(20), outcome="failed",
    error=Failure(kind="crashed", message=""),
)  # fmt: skip


def test_each_start_is_a_bar_that_says_since_when_it_waited() -> None:
    first, last = bars_of(run_of(owner="p2"), [FIRST], {"p1": "web-1"}, after(200))
    assert (first.number, first.owner, first.told, first.waited, first.took) == (
        1, "web-1", "crashed", timedelta(seconds=1), timedelta(seconds=19),
    )  # fmt: skip
    assert (last.number, last.owner, last.told, last.waited, last.took) == (
        2, "p2", "timeout", timedelta(seconds=40), timedelta(seconds=40),
    )  # fmt: skip
    assert (first.is_retry, last.is_retry) == (False, True)


def test_a_running_bar_ends_now_and_a_waiting_one_has_none() -> None:
    [running] = bars_of(
        run_of(status=RUNNING, started_at=NOON, finished_at=None, error=None), [], {}, after(9)
    )
    assert running.took == timedelta(seconds=9)
    first, waiting = bars_of(
        run_of(status=PENDING, attempt=1, started_at=None, finished_at=None, due_at=after(300)),
        [FIRST],
        {},
        after(30),
    )
    assert (waiting.number, waiting.began, waiting.waited) == (2, None, None)
    picture = waterfall(
        waiting, scale_of(run_of(status=PENDING, due_at=after(300)), [first, waiting], after(30)), after(30)
    )
    assert "waits 10 s" in picture
    assert "<rect" not in picture


def test_bars_have_their_place_on_one_scale() -> None:
    bars = bars_of(run_of(), [FIRST], {}, after(200))
    scale = scale_of(run_of(), bars, after(200))
    assert (scale.start, scale.end) == (NOON, after(100))
    crashed, last = (waterfall(bar, scale, after(200)) for bar in bars)
    assert re.search(r'class="hollow" x="1.00%" y="4" width="19.00%"', crashed)
    assert re.search(r'class="mark" x="60.00%" y="4" width="40.00%"', last)
    told = axis(scale, Times(after(200), UTC))
    assert re.findall(r">([^<]+)</text>", told) == ["12:00", "+30 s", "+60 s", "+90 s"] or "+30 s" in told


def test_a_run_that_never_started_has_no_bar_and_a_scale_of_a_moment() -> None:
    skipped = run_of(attempt=0, started_at=None, finished_at=NOON, error=None)
    assert bars_of(skipped, [], {}, NOON) == []
    scale = scale_of(skipped, [], NOON)
    assert scale.ticks == [NOON]
    assert scale.at(after(5)) == 100.0


def test_the_calls_of_an_attempt_that_rested_are_one_bar_and_its_rests_are_no_work() -> None:
    """Fails where each resumption is a bar of its own, or where a sleep counts as work."""
    calls = [
        Attempt(
            run_id="x", starts=1, attempt=1, owner="p1", started_at=after(1), ended_at=after(2), outcome="sleeping"
        ),
        Attempt(
            run_id="x", starts=2, attempt=1, owner="p1", started_at=after(30), ended_at=after(33), outcome="waiting"
        ),
    ]  # fmt: skip
    [bar] = bars_of(run_of(attempt=1), calls, {}, after(200))
    assert (bar.waited, bar.first, bar.took) == (timedelta(seconds=1), after(1), timedelta(seconds=44))
    resting = run_of(attempt=1, status=PENDING, reason="waiting", started_at=None, finished_at=None, error=None, due_at=after(1e6))  # fmt: skip
    [bar] = bars_of(resting, calls, {}, after(200))
    assert (bar.took, bar.status) == (timedelta(seconds=4), "pending")
    scale = scale_of(resting, [bar], after(200))
    assert scale.end == after(200)
    assert waterfall(bar, scale, after(200)).count("<rect") == 2

"""What a test expects of the record, in one line each, with the record in the text when it is not so.

Every function takes a manager, whose whole record is looked at, or the runs of one block:

    with new_runs(jobs) as runs:
        sign_up("ana@example.org")
    assert_triggered(runs, "send-welcome", payload={"to": "ana@example.org"})
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from jobmanager.manager.manager import JobManager
from jobmanager.run import MISSED, PENDING, SKIPPED, Run, RunStatus
from jobmanager.testing.clock import FakeClock

Runs = JobManager | Sequence[Run]
EVERYTHING = 1_000_000


def assert_ran(runs: Runs, job: str, *, times: int | None = None, status: str = "succeeded") -> list[Run]:
    """Return the runs of the job that ended so, oldest first; fail unless there are exactly `times`, or at least one."""
    wanted = RunStatus(status)
    all_of_job = _of(runs, job)
    found = [run for run in all_of_job if run.status is wanted]
    if (times is None and not found) or (times is not None and len(found) != times):
        expected = "at least once" if times is None else _times(times)
        _fail(f"Job {job!r} {wanted} {_times(len(found))}, expected {expected}.", all_of_job)
    return found


def assert_no_runs(runs: Runs, job: str | None = None) -> None:
    """Nothing is on record, of this job or of any: nothing started, waits, was skipped or missed."""
    found = _of(runs, job)
    if found:
        whose = "any job" if job is None else f"job {job!r}"
        _fail(f"No run of {whose} was expected, but there are {len(found)}.", found)


def assert_triggered(
    runs: Runs, job: str, *, times: int = 1, payload: Mapping[str, Any] | None = None
) -> list[Run]:
    """Return the runs of the job that were started by hand, oldest first; fail unless there are exactly `times`.

    With `payload`, only runs with exactly this payload count.
    """
    by_hand = [run for run in _of(runs, job) if run.trigger == "manual"]
    found = [run for run in by_hand if payload is None or (run.payload or {}) == payload]
    if len(found) != times:
        which = "" if payload is None else f" with payload {dict(payload)!r}"
        _fail(
            f"Job {job!r} was started by hand{which} {_times(len(found))}, expected {_times(times)}.", by_hand
        )
    return found


def assert_fired(runs: Runs, job: str, instants: Iterable[datetime]) -> None:
    """Exactly these ticks of the job led to a run that may start, started or ended; skipped and missed ones do not count."""
    all_of_job = _of(runs, job)
    _compare(
        f"Job {job!r} did not fire as expected.",
        expected=[instant.astimezone(UTC) for instant in instants],
        fired=[run.scheduled_for for run in all_of_job if _fired(run)],
        shown=all_of_job,
    )


def assert_fired_as_planned(jobs: JobManager, start: datetime, end: datetime) -> None:
    """In (start, end] exactly those ticks fired that `jobs.simulate(start, end)` says."""
    runs = [run for run in _of(jobs, None) if run.scheduled_for and start < run.scheduled_for <= end]
    _compare(
        f"What fired between {start} and {end} is not what was planned.",
        expected=[(item.job_id, item.scheduled_for) for item in jobs.simulate(start, end) if item.fires],
        fired=[(run.job_id, run.scheduled_for) for run in runs if _fired(run)],
        shown=runs,
    )


@contextmanager
def new_runs(jobs: JobManager) -> Iterator[list[Run]]:
    """Collect the runs that the block adds to the record, oldest first; the list is filled when the block ends."""
    before = {run.id for run in _of(jobs, None)}
    added: list[Run] = []
    yield added
    added.extend(run for run in _of(jobs, None) if run.id not in before)


def run_due(jobs: JobManager) -> list[Run]:
    """Execute here and now what is due, and answer the runs that this ended, oldest first.

    For a manager on a FakeClock as `clock.advance()`: ticks fire, delays and retries that are over follow. For one on noop it
    takes the runs whose delay is over, and those whose children have ended, which nobody else would. Nothing happens in a manager that was not started.
    """
    before = _ended(jobs)
    if jobs.started:
        clock, assembly = jobs._clock, jobs._assembly  # noqa: SLF001 - the kit may move the parts
        if isinstance(clock, FakeClock):
            clock.advance()
        assembly.claims.claim()
        assembly.wake()
    return [run for run_id, run in _ended(jobs).items() if run_id not in before]


def _ended(jobs: JobManager) -> dict[str, Run]:
    return {run.id: run for run in _of(jobs, None) if run.status.closed}


def _of(runs: Runs, job: str | None) -> list[Run]:
    """List the runs of the job, or of all jobs, oldest first."""
    if isinstance(runs, JobManager):
        return runs.runs(job, limit=EVERYTHING)[::-1]
    return [run for run in runs if job is None or run.job_id == job]


def _fired(run: Run) -> bool:
    return run.scheduled_for is not None and run.status not in (SKIPPED, MISSED)


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number} times")


def _compare(
    message: str, *, expected: Collection[Any], fired: Collection[Any], shown: Sequence[Run]
) -> None:
    """Hold that both have the same members, as often."""
    missing, unexpected = Counter(expected) - Counter(fired), Counter(fired) - Counter(expected)
    details = [
        f"{word}: {', '.join(map(_shown, sorted(ticks.elements())))}"
        for word, ticks in (("did not fire", missing), ("fired unexpectedly", unexpected))
        if ticks
    ]
    if details:
        _fail("\n  ".join([message, *details]), shown)


def _shown(tick: Any) -> str:
    if isinstance(tick, datetime):
        return tick.isoformat()
    return f"{tick[0]} at {tick[1].isoformat()}"


def _fail(message: str, runs: Sequence[Run]) -> None:
    """Raise AssertionError with the message and the newest runs."""
    __tracebackhide__ = True
    lines = [_line(run) for run in runs[-20:]]
    if len(runs) > len(lines):
        lines.insert(0, f"... {len(runs) - len(lines)} older ones")
    raise AssertionError(
        "\n  ".join([message, *(["On record:", *lines] if lines else ["Nothing is on record."])])
    )


def _line(run: Run) -> str:
    when = (
        f"at {run.due_at.isoformat()}"
        if run.scheduled_for is None
        else f"for {run.scheduled_for.isoformat()}"
    )
    end = f" ({run.reason})" if run.reason else f": {run.error.message}" if run.error else ""
    again = f", attempt {run.attempt} of {run.max_attempts}" if run.status is PENDING and run.attempt else ""
    payload = f" {dict(run.payload)!r}" if run.payload else ""
    return f"{run.job_id} {run.trigger} {when}{payload}: {run.status}{again}{end}"

"""Arguments of the manager's methods: what a column cannot keep is refused in a sentence, the same on every store."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from jobmanager import CancelRun, JobManager, RetryLater, RunContext, Settings
from jobmanager.errors import (
    JobManagerError,
    JobNotFoundError,
    PayloadError,
    RunNotFoundError,
    UnsupportedError,
)

NUL, HALF = "a\0b", "a\ud800b"
DAY = datetime(2026, 1, 1, tzinfo=UTC)
UNKEEPABLE = (NUL, HALF, 3, b"x", ["x"], object())


@pytest.fixture(params=["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.servers)])
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[JobManager]:
    urls: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory://",
        "sqlite": lambda: f"sqlite:///{tmp_path}/jobs.db",
        "postgres": lambda: str(request.getfixturevalue("postgres_url")),
    }
    manager = JobManager(Settings(backend="noop", database_url=urls[request.param]()))
    manager.add_job("work", lambda context: context.payload)
    manager.start()
    yield manager
    manager.stop(drain=2)
    manager.store.close()


WRONG: list[tuple[str, tuple[Any, ...]]] = [
    ("requested_by", (*UNKEEPABLE, "x" * 501)),
    ("key", (*UNKEEPABLE, "\N{GRINNING FACE}" * 501)),
    ("scope", (*UNKEEPABLE, "x" * 501)),
    ("priority", (2**70, -(2**70), 2**15, True, 1.5, float("nan"), "high")),
    ("max_attempts", (0, 1001, True, 1.5, "many")),
    ("delay", (float("nan"), float("inf"), 1e300, 2**70, "soon", True, b"5", timedelta.max)),
    ("at", ("tomorrow", 5, datetime(2026, 1, 1), datetime.max.replace(tzinfo=timezone(timedelta(hours=-9))))),
    ("notify", ("yes", 1, 0)),
    ("payload", (5, "abc", [1], {1: 2}, {"a": float("nan")}, {"a": {1}}, {NUL: 1}, {"a": [{"b": NUL}]}, {HALF: 1},
                 {"a": HALF})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "values"), WRONG, ids=[name for name, _ in WRONG])
def test_a_start_by_hand_refuses_what_its_row_cannot_keep_and_the_next_one_runs(
    jobs: JobManager, name: str, values: tuple[Any, ...]
) -> None:
    for value in values:
        with pytest.raises(PayloadError) as refused:
            jobs.trigger_job("work", **{name: value})
        assert name in str(refused.value).lower()
    assert jobs.runs() == []
    assert jobs.trigger_job("work", {"a": "\N{GRINNING FACE}"}).output == {"a": "\N{GRINNING FACE}"}


def test_what_a_row_can_keep_is_kept(jobs: JobManager) -> None:
    longest = "\N{GRINNING FACE}" * 500
    run = jobs.trigger_job(
        "work", priority=2**15 - 1, key=longest, scope=longest, requested_by=longest, delay="0s"
    )

    assert (run.priority, run.idempotency_key, run.requested_by) == (2**15 - 1, longest, longest)
    assert jobs.run(run.id).output == {}


def test_a_notification_is_refused_where_no_mail_can_be_sent(jobs: JobManager) -> None:
    with pytest.raises(
        UnsupportedError, match=r"notify=True: no e-mail can be sent\. Set JOBMANAGER_SMTP_URL"
    ):
        jobs.trigger_job("work", notify=True)


@pytest.mark.parametrize("text", [NUL, HALF, 3, "x" * 5_000])
def test_reasons_and_names_of_operators_are_refused_before_anything_changes(
    jobs: JobManager, text: Any
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: jobs.stop_job("work", reason=text),
        lambda: jobs.stop_job("work", by=text),
        lambda: jobs.stop_all_jobs(reason=text),
        lambda: jobs.resume_job("work", by=text),
        lambda: jobs.override_job("work", by=text, priority=3),
        lambda: jobs.reset_job("work", by=text),
        lambda: jobs.backfill("work", DAY, DAY, by=text),
    ]
    for call in calls:
        with pytest.raises(PayloadError, match=r"^(Job .work.: )?(reason|by)="):
            call()
    row = jobs.store.jobs.get("work")
    assert row is not None
    assert (row.state, row.override) == ("active", None)


@pytest.mark.parametrize("wrong", [NUL, HALF, "", None, 3, b"x"])
def test_an_id_that_no_store_can_hold_is_not_found(jobs: JobManager, wrong: Any) -> None:
    by_run: list[Callable[[Any], object]] = [jobs.run, jobs.cancel, jobs.redrive, jobs.discard, jobs.wait]
    by_job: list[Callable[[Any], object]] = [
        jobs.trigger_job,
        jobs.stop_job,
        jobs.resume_job,
        lambda job: jobs.override_job(job, priority=3),
        jobs.reset_job,
        lambda job: jobs.backfill(job, DAY, DAY),
    ]
    for call in by_run:
        with pytest.raises(RunNotFoundError):
            call(wrong)
    for call in by_job:
        with pytest.raises(JobNotFoundError):
            call(wrong)
    assert jobs.get_job_status(wrong) is None
    if wrong is not None:
        assert jobs.runs(wrong) == []


@pytest.mark.parametrize("limit", [-1, 2**70, True, "5", 1.5])
def test_a_limit_is_a_number_of_rows(jobs: JobManager, limit: Any) -> None:
    for call in (jobs.runs, jobs.dead_letters, jobs.redrive_all):
        with pytest.raises(JobManagerError, match="limit="):
            call(limit=limit)


def _leaves(text: str, how: str) -> Callable[[RunContext], Any]:
    def handler(context: RunContext) -> Any:
        context.log.info("line %s", text)
        context.progress(1, total=2, message=text)
        match how:
            case "returns":
                return {text: [text]}
            case "raises":
                raise ValueError(text)
            case "cancels":
                raise CancelRun(text)
            case _:
                raise RetryLater(0, text)

    return handler


@pytest.mark.parametrize("how", ["returns", "raises", "cancels", "retries"])
@pytest.mark.parametrize("text", [NUL, HALF])
def test_what_a_handler_leaves_is_kept_alike_with_the_replacement_character(
    jobs: JobManager, text: str, how: str
) -> None:
    jobs.add_job("leaves", _leaves(text, how))
    run = jobs.trigger_job("leaves")
    kept = "a\N{REPLACEMENT CHARACTER}b"

    assert run.status.closed
    assert run.progress is not None
    assert run.progress.message == kept
    assert run.output == ({kept: [kept]} if how == "returns" else None)
    assert (run.error is None) == (how == "returns")
    if run.error is not None:
        assert run.error.message == kept
        assert text not in (run.error.traceback or "")
    assert [line.text for _, _, line in jobs.store.history.lines(run.id)] == [f"line {kept}"]


# ---------------------------------------------------------------- the line that is to blame

MISTAKEN: dict[str, tuple[Callable[[JobManager], object], str]] = {
    "unknown job": (lambda jobs: jobs.trigger_job("wrok"), "No job 'wrok' is declared. Did you mean 'work'?"),
    "payload": (lambda jobs: jobs.trigger_job("typed", {"days": "x"}), "Job 'typed': Handler 'typed' refuses days='x'"),
    "unknown key": (lambda jobs: jobs.trigger_job("typed", {"dyas": 1}), "Did you mean 'days'?"),
    "missing": (lambda jobs: jobs.trigger_job("typed"), "Handler 'typed' needs days"),
    "no JSON": (lambda jobs: jobs.trigger_job("work", {"a": {1}}), "Job 'work': "),
    "delay": (lambda jobs: jobs.trigger_job("work", delay="soon"), "Job 'work': delay='soon'"),
    "at": (lambda jobs: jobs.trigger_job("work", at=5), "Job 'work': at=5 is no datetime"),
    "both": (lambda jobs: jobs.trigger_job("work", delay=1, at=DAY), "Job 'work': Give either delay or at"),
    "priority": (lambda jobs: jobs.trigger_job("work", priority="high"), "Job 'work': priority='high'"),
    "notify": (lambda jobs: jobs.trigger_job("work", notify=True), "Job 'work': notify=True"),
    "timeout": (lambda jobs: jobs.wait("some-run", timeout="soon"), "timeout='soon'"),
    "status": (lambda jobs: jobs.runs(status="lost"), "status='lost'"),
    "limit": (lambda jobs: jobs.redrive_all(limit=-1), "limit=-1"),
    "moment": (lambda jobs: jobs.simulate(DAY, 5), "end=5 is no datetime"),
    "by": (lambda jobs: jobs.stop_all_jobs(by=3), "by=3"),
    "job to pause": (lambda jobs: jobs.stop_job("wrok"), "No job 'wrok' is declared or stored."),
    "override": (lambda jobs: jobs.override_job("work", timeout="x"), "Job 'work': timeout='x'"),
    "backfill": (lambda jobs: jobs.backfill("work", 1, DAY), "Job 'work': start=1 is no datetime"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKEN)
def test_an_error_about_a_call_names_its_file_and_line(mistake: str) -> None:
    """Fails if the sentence does not say which of many calls is meant, or names a line of the library."""
    call, said = MISTAKEN[mistake]
    with closing(JobManager(Settings(backend="noop", database_url="memory://")).store) as store:
        jobs = JobManager(Settings(backend="noop", database_url="memory://"), store=store)
        jobs.add_job("work", lambda context: context.payload)
        jobs.add_job("typed", typed)
        with pytest.raises(JobManagerError) as refused:
            call(jobs)
    assert said in str(refused.value)
    assert str(refused.value).endswith(f"(at {__file__}:{call.__code__.co_firstlineno})")


def typed(days: int) -> int:
    return days


async def test_an_error_about_an_awaited_call_names_the_line_that_awaits_it() -> None:
    jobs = JobManager(Settings(backend="noop", database_url="memory://"))
    line = sys._getframe().f_lineno + 2
    with pytest.raises(JobNotFoundError) as refused:
        await jobs.aio.trigger_job("nope")
    assert str(refused.value) == f"No job 'nope' is declared. (at {__file__}:{line})"

"""Every argument of every door times hostile values: honoured, or refused by an error of ours that names job and argument."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from jobmanager import JobManager, RetryLater, Settings
from jobmanager.errors import (
    ConfigurationError,
    DuplicateJobError,
    JobManagerError,
    JobNotFoundError,
    PayloadError,
    RunNotFoundError,
    UnsupportedError,
)
from jobmanager.ledger.overrides import OVERRIDABLE, WORDS
from jobmanager.schedule import Every


class Hostile:
    """A value whose every question raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __bool__(self) -> bool:
        raise RuntimeError("no truth")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


HOSTILE: tuple[Any, ...] = (
    True, 0, -1, 2**70, 0.5, float("nan"), float("inf"), 1e300, 1j, "", "high", "5m", "1h30", "no\0text", "half \ud800", "x" * 100_000,
    b"5m", [], ["x"], {}, {1: "a"}, {"a": "\0"}, object(), Hostile(), print, int, OSError(), timedelta.max, timedelta(seconds=-1),
    datetime(2026, 1, 1), datetime.max.replace(tzinfo=UTC),
)  # fmt: skip
NOW = datetime(2026, 11, 23, tzinfo=UTC)
HERE = re.escape(__file__)


@pytest.fixture
def jobs() -> JobManager:
    manager = JobManager(Settings(backend="noop", database_url="memory://"))
    manager.add_job("door", lambda **_: None, every=60)
    manager.add_job("cron", lambda **_: None, cron="0 2 * * *")
    return manager


def refused(call: Callable[[], object]) -> JobManagerError | None:
    try:
        call()
    except JobManagerError as error:
        return error
    return None


TRIGGER = ("payload", "delay", "at", "priority", "key", "scope", "requested_by", "notify")


@pytest.mark.parametrize("word", TRIGGER)
def test_a_start_by_hand_honours_a_value_or_names_job_argument_and_line(jobs: JobManager, word: str) -> None:
    asked = [partial(jobs.trigger_job, "door", **{word: value}) for value in HOSTILE]
    errors = [error for call in asked if (error := refused(call))]

    assert len(errors) > len(HOSTILE) / 2
    for error in errors:
        assert isinstance(error, (PayloadError, UnsupportedError)), error
        assert re.match(r"Job 'door': .*" + word, str(error), re.IGNORECASE), error
        assert re.search(rf" \(at {HERE}:\d+\)$", str(error)), error


@pytest.mark.parametrize("word", sorted(WORDS))
@pytest.mark.parametrize("job_id", ["door", "cron"])
def test_an_override_is_in_force_or_names_job_word_and_line(jobs: JobManager, job_id: str, word: str) -> None:
    accepted = 0
    for value in HOSTILE:
        jobs.reset_job(job_id)
        error = refused(partial(jobs.override_job, job_id, **{word: value}))
        row = jobs.store.jobs.get(job_id)
        assert row is not None
        if error is None:
            accepted += 1
            assert row.override is not None
            assert word in row.override
        else:
            assert row.override is None
            assert re.match(rf"Job '{job_id}': .*{word}", str(error)), error
            assert re.search(rf" \(at {HERE}:\d+\)$", str(error)), error
    assert accepted < len(HOSTILE) / 2


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("status", lambda jobs, value: jobs.runs(status=value)),
        ("limit", lambda jobs, value: jobs.runs(limit=value)),
        ("limit", lambda jobs, value: jobs.redrive_all(limit=value)),
        ("start", lambda jobs, value: jobs.simulate(value, NOW)),
        ("end", lambda jobs, value: jobs.simulate(NOW, value)),
        ("start", lambda jobs, value: jobs.backfill("door", value, NOW)),
        ("end", lambda jobs, value: jobs.backfill("door", NOW, value)),
        ("dry_run", lambda jobs, value: jobs.backfill("door", NOW, NOW, dry_run=value)),
        ("plan", lambda jobs, value: jobs.sync(plan=value)),
        ("by", lambda jobs, value: jobs.resume_job("door", by=value)),
        ("reason", lambda jobs, value: jobs.stop_all_jobs(reason=value)),
        ("drain", lambda jobs, value: (jobs.start(), jobs.stop(value))),
        ("handler", lambda jobs, value: jobs.add_job(f"other-{id(value)}", value)),
        ("settings", lambda _, value: JobManager(value)),
        ("backend", lambda _, value: JobManager(backend=value)),
        ("store", lambda _, value: JobManager(store=value)),
        ("clock", lambda _, value: JobManager(clock=value)),
        ("observers", lambda _, value: JobManager(observers=value)),
        ("delay", lambda _, value: RetryLater(value)),
        ("interval", lambda _, value: Every(value)),
    ],
)
def test_every_other_argument_is_honoured_or_named(
    jobs: JobManager, argument: str, call: Callable[[JobManager, Any], object]
) -> None:
    errors = [error for value in HOSTILE if (error := refused(partial(call, jobs, value)))]

    assert errors
    assert all(argument in str(error).lower() for error in errors), [str(error)[:200] for error in errors]


@pytest.mark.parametrize("value", [value for value in HOSTILE if not isinstance(value, str) or "\0" in value])
def test_what_can_be_no_id_is_not_found(jobs: JobManager, value: Any) -> None:
    for of_run in (jobs.run, jobs.wait, jobs.cancel, jobs.redrive, jobs.discard, jobs.execute_here):
        with pytest.raises(RunNotFoundError):
            of_run(value)
    for of_job in (jobs.trigger_job, jobs.stop_job, jobs.reset_job):
        with pytest.raises(JobNotFoundError):
            of_job(value)


def test_a_wait_for_an_unknown_run_leaves_nothing_behind(jobs: JobManager) -> None:
    with pytest.raises(RunNotFoundError):
        jobs.wait("0" * 32)
    assert not jobs._assembly.executor._waiters


def test_the_schedule_of_a_later_override_replaces_the_earlier_one(jobs: JobManager) -> None:
    jobs.override_job("cron", every="5m")
    jobs.override_job("cron", cron="0 3 * * *", timezone="Europe/Berlin")
    at_night = jobs.registry.jobs["cron"].schedule
    jobs.override_job("cron", every=30)
    often = jobs.registry.jobs["cron"].schedule
    jobs.override_job("cron", every=None)

    assert at_night is not None
    assert at_night.text == "cron 0 3 * * * in Europe/Berlin"
    assert often is not None
    assert often.text == "every 30s"
    assert jobs.registry.jobs["cron"].schedule == jobs.registry.declared["cron"].schedule


@pytest.mark.parametrize(
    "words", [{"every": 5, "timezone": "Europe/Berlin"}, {"every": 5, "cron": "* * * * *"}]
)
def test_an_override_with_two_schedules_is_refused(jobs: JobManager, words: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"Job 'cron': .* exclude each other"):
        jobs.override_job("cron", **words)


def test_a_timezone_is_refused_where_no_cron_line_reads_it(jobs: JobManager) -> None:
    with pytest.raises(ConfigurationError, match="Job 'door': timezone='Europe/Berlin' belongs to cron="):
        jobs.override_job("door", timezone="Europe/Berlin")


def test_two_declarations_of_one_id_name_both_lines(jobs: JobManager) -> None:
    with pytest.raises(
        DuplicateJobError,
        match=rf"first at {HERE}:\d+\).*\(at {HERE}:\d+\)$|first at {HERE}:\d+.*\(at {HERE}:\d+\)$",
    ):
        jobs.add_job("door", jobs.registry.handlers["door"].target, every=61)


def test_a_config_that_does_not_fit_names_the_line_of_the_declaration(jobs: JobManager) -> None:
    @jobs.job("strict", every=5, config={"dayz": 3})
    def strict(days: int = 1) -> None:
        """Take days."""

    with pytest.raises(
        ConfigurationError, match=rf"Job 'strict' \(declared at {HERE}:\d+\): .*'dayz' is unknown"
    ):
        jobs.check()


@pytest.mark.parametrize("result", [None, "false", 1, "raise"])
def test_a_gate_that_is_neither_true_nor_false_is_named(jobs: JobManager, result: Any) -> None:
    def gate() -> Any:
        if result == "raise":
            raise KeyError("FLAG")
        return result

    jobs.add_job("gated", print, every=5, enabled_when=gate)

    with pytest.raises(ConfigurationError, match=r"Job 'gated': enabled_when=<function .* True or False"):
        jobs.start()


async def test_a_refusal_of_a_task_names_no_line_of_the_standard_library(jobs: JobManager) -> None:
    with pytest.raises(PayloadError) as wrong:
        await asyncio.create_task(jobs.aio.trigger_job("door", priority="high"))  # type: ignore[arg-type]
    assert str(wrong.value).endswith("32,767.")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("2d", 172_800), ("1h30m", 5_400), ("1.5m", 90)])
def test_a_text_is_a_duration_wherever_one_is_taken(jobs: JobManager, text: str, seconds: float) -> None:
    length = timedelta(seconds=seconds)
    durations = {word: text for word, item in OVERRIDABLE.items() if item.column.endswith("_seconds")}
    job = jobs.add_job("all", print, every=text, retention=text, **durations)
    jobs.override_job("door", every=text, **durations)

    assert job.schedule == Every(length)
    assert RetryLater(text).delay == length
    assert {getattr(job, word) for word in durations} == {length}
    assert {getattr(jobs.registry.jobs["door"], word) for word in durations} == {length}
    assert jobs.trigger_job("door", delay=text).due_at - jobs._clock.now() > length - timedelta(minutes=1)

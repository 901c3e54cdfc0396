"""Between rows and values: how Run, JobRow, Instance and log lines look as columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from jobmanager.run import Attempt, Failure, LogLine, Progress, Run, RunStatus
from jobmanager.stores.base import Instance, JobRow
from jobmanager.stores.sql.tables import micros, moment

if TYPE_CHECKING:
    from sqlalchemy import RowMapping as Row


def encode(value: Any) -> str | None:
    """JSON text, None for nothing; what JSON cannot say was refused or clipped before it came here."""
    return None if value is None else json.dumps(value, separators=(",", ":"))


RUN_COLUMNS = tuple(field.name for field in fields(Run))
_run_columns = attrgetter(*RUN_COLUMNS)


def run_values(run: Run) -> dict[str, Any]:
    """A run as column values; JSON columns hold plain objects."""
    values = dict(zip(RUN_COLUMNS, _run_columns(run), strict=True))
    values["status"] = run.status.value
    values["error"] = failure_values(run.error)
    values["progress"] = None if run.progress is None else asdict(run.progress)
    return values


def run_from(row: Row) -> Run:
    """The run a row stands for."""
    values = dict(row)
    values["status"] = RunStatus(values["status"])
    values["error"] = failure_from(values["error"])
    if values["progress"] is not None:
        values["progress"] = Progress(**values["progress"])
    return Run(**values)


def failure_values(failure: Failure | None) -> dict[str, str] | None:
    """A failure as a JSON object."""
    return None if failure is None else asdict(failure)


def failure_from(value: Mapping[str, Any] | None) -> Failure | None:
    """The failure a JSON object stands for."""
    return None if value is None else Failure(**value)


def attempt_from(row: Row) -> Attempt:
    """The attempt a row stands for."""
    return Attempt(**{**dict(row), "error": failure_from(row["error"])})


def job_values(job: JobRow) -> dict[str, Any]:
    """A job row as column values."""
    return {
        "id": job.id,
        "namespace": job.namespace,
        "declared": job.declared,
        "override": job.override,
        "definition_rev": job.definition_rev,
        "state": job.state,
        "state_reason": job.state_reason,
        "state_by": job.state_by,
        "state_at": job.state_at,
        "schedule": job.schedule,
        "schedule_rev": job.schedule_rev,
        "accounted_until": job.accounted_until,
        "next_due_at": job.next_due_at,
        "history_from": job.history_from,
        "overlap": job.overlap,
        "queue_cap": job.queue_cap,
        "catch_up": job.catch_up,
        "catch_up_cap": job.catch_up_cap,
        "catch_up_window_seconds": job.catch_up_window.total_seconds(),
        "start_deadline_seconds": None if job.start_deadline is None else job.start_deadline.total_seconds(),
        "jitter_seconds": job.jitter.total_seconds(),
        "pause_after_failures": job.pause_after_failures,
        "max_attempts": job.max_attempts,
        "retry_on_crash": job.retry_on_crash,
        "change_seq": job.change_seq,
    }


def job_from(row: Row) -> JobRow:
    """The job a row stands for."""
    values = dict(row)
    for name in ("catch_up_window", "start_deadline", "jitter"):
        seconds = values.pop(f"{name}_seconds")
        values[name] = None if seconds is None else timedelta(seconds=seconds)
    return JobRow(**values)


def instance_from(row: Row) -> Instance:
    """The instance a row stands for."""
    return Instance(**dict(row))


def line_values(lines: Sequence[LogLine]) -> list[list[Any]]:
    """Log lines as one JSON array: a row per flush, not per line."""
    return [[micros(line.at), line.level, line.text] for line in lines]


def lines_from(value: Sequence[Sequence[Any]]) -> list[LogLine]:
    """The log lines of one flush."""
    return [LogLine(moment(at), level, text) for at, level, text in value]  # type: ignore[arg-type]  # `at` is never null

"""Between rows and values: how Run, JobRow, Instance and log lines look as columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from jobmanager.job import STORED_OPTIONS
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
    """Return a run as column values; JSON columns hold plain objects."""
    values = dict(zip(RUN_COLUMNS, _run_columns(run), strict=True))
    values["status"] = run.status.value
    values["error"] = failure_values(run.error)
    values["progress"] = None if run.progress is None else asdict(run.progress)
    return values


def run_from(row: Row) -> Run:
    """Return the run a row stands for."""
    values = dict(row)
    values["status"] = RunStatus(values["status"])
    values["error"] = failure_from(values["error"])
    if values["progress"] is not None:
        values["progress"] = Progress(**values["progress"])
    return Run(**values)


def failure_values(failure: Failure | None) -> dict[str, str] | None:
    """Return a failure as a JSON object."""
    return None if failure is None else asdict(failure)


def failure_from(value: Mapping[str, Any] | None) -> Failure | None:
    """Return the failure a JSON object stands for."""
    return None if value is None else Failure(**value)


def attempt_from(row: Row) -> Attempt:
    """Return the attempt a row stands for."""
    return Attempt(**{**dict(row), "error": failure_from(row["error"])})


def job_values(job: JobRow) -> dict[str, Any]:
    """Return a job row as column values."""
    values = dict(zip(_JOB_FIELDS, _job_fields(job), strict=True))
    for name, item in STORED_OPTIONS.items():
        values[item.column] = item.plain(getattr(job, name))
    return values


_JOB_FIELDS = tuple(item.name for item in fields(JobRow) if item.name not in STORED_OPTIONS)
_job_fields = attrgetter(*_JOB_FIELDS)
_DURATIONS = {name: item.column for name, item in STORED_OPTIONS.items() if item.column != name}


def job_from(row: Row) -> JobRow:
    """Return the job a row stands for."""
    values = dict(row)
    for name, column in _DURATIONS.items():
        seconds = values.pop(column)
        values[name] = None if seconds is None else timedelta(seconds=seconds)
    return JobRow(**values)


def instance_from(row: Row) -> Instance:
    """Return the instance a row stands for."""
    return Instance(**dict(row))


def line_values(lines: Sequence[LogLine]) -> list[list[Any]]:
    """Log lines as one JSON array: a row per flush, not per line."""
    return [[micros(line.at), line.level, line.text] for line in lines]


def lines_from(value: Sequence[Sequence[Any]]) -> list[LogLine]:
    """Return the log lines of one flush."""
    return [LogLine(moment(at), level, text) for at, level, text in value]  # type: ignore[arg-type]  # `at` is never null

"""Between rows and values: how Run, JobRow, Instance and log lines look as columns."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, fields
from datetime import datetime, timedelta
from functools import cache
from operator import attrgetter, itemgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeAlias, get_args

import sqlalchemy as sa

from jobmanager.errors import UnreadableRowError
from jobmanager.job import STORED_OPTIONS, CatchUp, Overlap
from jobmanager.run import Attempt, Failure, LogLine, Progress, Run, RunStatus, Trigger, Turn
from jobmanager.stores.sql.postgres_json import to_json
from jobmanager.stores.sql.tables import Instant, make_tables, micros, moment
from jobmanager.stores.values import Instance, JobRow, JobState

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

Row: TypeAlias = "RowMapping | Mapping[str, Any]"


def rows_of(result: sa.CursorResult[Any]) -> list[Row]:
    """Return the rows of a result by name, as plain dictionaries: values are read from those several times as fast."""
    # Plain and interned, as the names of arguments are: hundreds of rows with dozens of these are passed as such.
    names = [sys.intern(str(name)) for name in result.keys()]  # noqa: SIM118 - the rows are no keys
    return [dict(zip(names, row, strict=True)) for row in result.all()]


def raw_rows(result: sa.CursorResult[Any]) -> Sequence[Sequence[Any]]:
    """Return the rows of a result as the driver has them: for thousands, SQLAlchemy's would take as long as the database. Instants on SQLite are numbers."""
    assert result.cursor is not None  # noqa: S101 - a SELECT has one
    with closing(result):
        rows: Sequence[Sequence[Any]] = result.cursor.fetchall()
    return rows


def encode(value: Any) -> str | None:
    """JSON text, None for nothing; what JSON cannot say was refused or clipped before it came here."""
    return None if value is None else to_json(value)


_NOT_PLAIN = re.compile(r"""[^ -~]|["\\:]""")
"""Finds the characters that JSON escapes, and the colon: shown errors have one between type and message, stored errors none."""


def longest_plain_part(text: str) -> str:
    """Return the longest part of a text that stands so in the JSON of every error that has the text."""
    return max((part.strip() for part in _NOT_PLAIN.split(text)), key=len)


STATUS: Mapping[str, RunStatus] = {status.value: status for status in RunStatus}
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
    """Return the run a row stands for; UnreadableRowError if it stands for none."""
    values = dict(row)
    kinds = tuple(map(type, _run_row(values)))
    if kinds not in _READABLE:
        check_run(values)
        _READABLE.add(kinds)
    try:
        values["status"] = RunStatus(values["status"])
        _check_choices("run", values)
        values["error"] = failure_from(values["error"])
        if values["progress"] is not None:
            values["progress"] = Progress(**values["progress"])
        return Run(**values)
    except UNREADABLE as error:
        raise UnreadableRowError(f"run {values['id']!r} cannot be read: {error}") from error


_run_row = itemgetter(*RUN_COLUMNS)
_READABLE: set[tuple[type, ...]] = set()
_READABLE_JOBS: set[tuple[Any, ...]] = set()
"""Types of the columns of rows that were checked, and of a job its words: of a few dozen combinations that exist each is looked at once."""


def failure_values(failure: Failure | None) -> dict[str, str] | None:
    """Return a failure as a JSON object."""
    return None if failure is None else asdict(failure)


def failure_from(value: Mapping[str, Any] | None) -> Failure | None:
    """Return the failure a JSON object stands for; UnreadableRowError for what is none."""
    if value is None:
        return None
    failure = Failure(**value)
    if not all(isinstance(item, str) for item in value.values()):
        raise UnreadableRowError(f"column error holds {shortened(value)}")
    return failure


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
    check_job(values)
    for name, column in _DURATIONS.items():
        seconds = values.pop(column)
        values[name] = None if seconds is None else timedelta(seconds=seconds)
    return JobRow(**values)


UNREADABLE = (ValueError, TypeError, ArithmeticError, LookupError, UnreadableRowError)
"""What reading a row raises that holds what does not belong there."""

UNDECODABLE = "Could not decode to UTF-8"  # SQLite's words


def is_about_a_value(error: sa.exc.DBAPIError) -> bool:
    """Return True if the driver could not make a Python value of what a column holds."""
    return isinstance(error, sa.exc.DataError) or UNDECODABLE in str(error)


_CHOICES: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "job": {"state": get_args(JobState), "overlap": get_args(Overlap), "catch_up": get_args(CatchUp)},
    "run": {"trigger": get_args(Trigger), "turn": (None, *get_args(Turn))},
}
_ANYTHING = ("output",)


@cache
def _kinds(noun: str) -> dict[str, tuple[type, ...]]:
    """Return what the columns of a job or run may hold. SQLite keeps anything in any column."""
    kinds: dict[str, tuple[type, ...]] = {}
    tables = make_tables()
    for column in {"job": tables.jobs, "run": tables.runs}[noun].columns:
        kind: tuple[type, ...] = (int,)
        if isinstance(column.type, Instant):
            kind = (datetime,)
        elif isinstance(column.type, sa.JSON):
            kind = (dict, list, str, int, float) if column.name in _ANYTHING else (dict,)
        elif isinstance(column.type, sa.Float):
            kind = (float, int)
        elif isinstance(column.type, sa.Text):
            kind = (str,)
        kinds[column.name] = (*kind, NoneType) if column.nullable else kind
    return kinds


def check_job(values: Mapping[str, Any]) -> None:
    """Raise UnreadableRowError if a column of a job holds something of another kind; columns may be left out."""
    words = [values[name] for name in _CHOICES["job"] if name in values]
    kinds = (*values, *map(type, values.values()), *words)
    if kinds not in _READABLE_JOBS:
        _check_kinds("job", values)
        _check_choices("job", values)
        _READABLE_JOBS.add(kinds)


def check_run(values: Mapping[str, Any]) -> None:
    """Raise UnreadableRowError if a column of a run holds something of another kind."""
    _check_kinds("run", values)


def _check_kinds(noun: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if not isinstance(value, _kinds(noun)[name]):
            raise UnreadableRowError(f"column {name} of {noun} {values['id']!r} holds {shortened(value)}")


def _check_choices(noun: str, values: Mapping[str, Any]) -> None:
    for name, known in _CHOICES[noun].items():
        if name in values and values[name] not in known:
            raise UnreadableRowError(
                f"column {name} of {noun} {values['id']!r} holds {shortened(values[name])}"
            )


def shortened(value: Any) -> str:
    """Return what the value looks like, on one short line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def instance_from(row: Row) -> Instance:
    """Return the instance a row stands for."""
    return Instance(**dict(row))


def line_values(lines: Sequence[LogLine]) -> list[list[Any]]:
    """Log lines as one JSON array: a row per flush, not per line."""
    return [[micros(line.at), line.level, line.text] for line in lines]


def lines_from(value: Sequence[Sequence[Any]]) -> list[LogLine]:
    """Return the log lines of one flush."""
    return [LogLine(moment(at), level, text) for at, level, text in value]  # type: ignore[arg-type]  # `at` is never null

"""The conditions of a filter of runs, and of what else it asks for by the way."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import FAILED, SUCCEEDED, RunStatus
from jobmanager.search import RunFilter
from jobmanager.stores.search import LATE_AFTER
from jobmanager.stores.sql.database import NEVER, Database
from jobmanager.stores.sql.tables import Tables, has_scope, scope_of
from jobmanager.stores.sql.visible import runs_seen

Condition = sa.ColumnElement[bool]
ALL = frozenset(RunStatus)
NOT_SUCCEEDED = ALL - {SUCCEEDED}


def statuses_of(wanted: RunFilter) -> frozenset[RunStatus]:
    """Return the statuses that the filter allows, also by what else it asks for."""
    allowed = frozenset(wanted.statuses) or ALL
    if wanted.dead:
        allowed &= {FAILED}
    elif wanted.text is not None or wanted.error_kind is not None or wanted.reason is not None:
        allowed &= NOT_SUCCEEDED
    return allowed


def conditions_of(
    database: Database, wanted: RunFilter, seen: View | None, *, kinds: bool = True
) -> list[Condition]:
    """Return what each row of a wanted status must be, cheap conditions first; without `kinds` only what divides runs into no kinds.

    Of the runs of one job the range is none of them: an index has it.
    """
    found = _kind_of(database, wanted) if kinds else []
    found += _course_of(database, wanted)
    if wanted.job is None:
        found += range_of(database.tables, wanted)
    if wanted.text is not None:
        found += database.may_hold(database.tables.runs.c.error, wanted.text)
        found.append(error_text(database).icontains(wanted.text, autoescape=True))
    return [*found, *runs_seen(database.tables, seen)]


def status_of(tables: Tables, wanted: RunFilter) -> list[Condition]:
    """Return the condition that a run has a status that the filter allows."""
    allowed = statuses_of(wanted)
    return [] if allowed >= ALL else [tables.runs.c.status.in_([status.value for status in sorted(allowed)])]


def _kind_of(database: Database, wanted: RunFilter) -> list[Condition]:
    c = database.tables.runs.c
    found: list[Condition] = []
    if wanted.reason is not None:
        found.append(c.reason == wanted.reason)
    if wanted.trigger is not None:
        found.append(c.trigger == wanted.trigger)
    if wanted.error_kind is not None:
        found.append(error_in(database, "kind") == wanted.error_kind)
    return found


def _course_of(database: Database, wanted: RunFilter) -> list[Condition]:
    """Return the conditions on who asked for a run and how it went."""
    c = database.tables.runs.c
    found: list[Condition] = []
    if wanted.dead:
        found.append((c.status == FAILED) & c.discarded_at.is_(None))
    if wanted.retried:
        found.append(c.attempt > 1)
    if wanted.requested_by is not None:
        found.append(c.requested_by == wanted.requested_by)
    if wanted.scope is not None:
        found.append(has_scope(c) & (scope_of(c) == wanted.scope))
    if wanted.duration is not None:
        found.append(database.seconds(c.finished_at, c.started_at) >= wanted.duration.total_seconds())
    if wanted.late:
        found.append(database.seconds(c.started_at, c.scheduled_for) > LATE_AFTER.total_seconds())
    return found


def range_of(tables: Tables, wanted: RunFilter) -> list[Condition]:
    """Return the range of instants that the filter wants, of any run."""
    some = wanted.since is not None or wanted.until is not None
    return within(instant_of(tables), wanted) if some else []


def within(instant: sa.ColumnElement[Any], wanted: RunFilter) -> list[Condition]:
    """Return that a column of instants lies in the filter's range."""
    # Bounded even without a range: only a range on the second column makes SQLite take the right index.
    bounds = [instant < wanted.until if wanted.until is not None else instant <= NEVER]
    return [*bounds, instant >= wanted.since] if wanted.since is not None else bounds


def instant_of(tables: Tables) -> sa.ColumnElement[datetime]:
    """Return the instant that each run stands for."""
    c = tables.runs.c
    return sa.func.coalesce(c.scheduled_for, c.opened_at)


def error_in(database: Database, key: str) -> sa.ColumnElement[Any]:
    """Return one text of each run's error."""
    return database.text_in(database.tables.runs.c.error, key)


def error_text(database: Database) -> sa.ColumnElement[Any]:
    """Return type and message as people read them: `ValueError: no luck`."""
    kind = sa.func.nullif(error_in(database, "type"), "").concat(": ")
    return sa.func.coalesce(kind, "").concat(error_in(database, "message"))

"""The facet `steps`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import reduce
from operator import add, attrgetter
from typing import Any

import sqlalchemy as sa

from jobmanager.run import BY_EVENT, MICROSECOND, PENDING, RUNNING, Run
from jobmanager.step import DONE, GATHERED, Awaited, Event, Step
from jobmanager.stores.sql.columns import INSTANT
from jobmanager.stores.sql.database import Connection, SqlFacet, literally
from jobmanager.stores.sql.rows import failure_from, failure_values
from jobmanager.stores.steps import StepBook

COLUMNS = {
    "run_id": "uuid",
    "name": "text",
    "occurrence": "int",
    "kind": "text",
    "status": "text",
    "attempt": "int",
    "output": "jsonb",
    "error": "jsonb",
    "started_at": INSTANT,
    "ended_at": INSTANT,
    "wakes_at": INSTANT,
    "position": "int",
    "event_name": "text",
    "event_key": "text",
    "event_after": INSTANT,
}
NEW = sa.text("is_new")  # as the index has it
OF_THE_ROW = ("namespace", "is_new")
CHANGED = ("status", "attempt", "output", "error", "ended_at", "wakes_at")
ORDER = "position, name, occurrence"
SPAN = "traceparent"  # within the output of a step that is not done
UNFINISHED = "s.status NOT IN ('succeeded', 'failed')"
"""The condition that a step which is there already may be written once more."""


class SqlStepBook(SqlFacet, StepBook):
    """Steps beside the runs; a write is refused unless the start that makes it still is the run's. How they are written and read the dialects say."""

    # ---------------------------------------------------------------- what runs wait for

    def send(self, namespace: str, event: Event) -> Event:
        table, steps = self.tables.events, self.tables.run_steps
        with self.database.writing() as connection:
            kept = replace(event, sent_at=self._moment_of_its_own(connection, namespace, event))
            row = {"namespace": namespace, **asdict(kept)}
            if not connection.execute(self.database.insert_ignoring(table), row).rowcount:
                there = sa.select(table).where(table.c.namespace == namespace, table.c.id == event.id)
                return _event_from(connection.execute(there).mappings().one())
            waits = sa.exists().where(
                steps.c.run_id == self.tables.runs.c.id,
                steps.c.event_name == event.name,
                steps.c.event_key == event.key,
                literally(steps.c.status, "waiting"),
                steps.c.event_after < kept.sent_at,
            )
            self._make_due(connection, namespace, "waiting", waits)
        return kept

    def new_events(self, namespace: str, job_ids: Collection[str], limit: int) -> list[tuple[str, Event]]:
        if not job_ids:
            return []
        jobs, events = self.tables.jobs, self.tables.events
        query = (
            sa.select(jobs.c.id.label("job_id"), events)
            .select_from(events)
            .join(jobs, self._starts())
            .where(events.c.namespace == namespace, NEW, jobs.c.id.in_(sorted(job_ids)))
            .order_by(events.c.sent_at, events.c.id, jobs.c.id)
            .limit(limit)
        )
        with self.database.reading() as connection:
            found = [dict(row) for row in connection.execute(query).mappings()]
        return [(row.pop("job_id"), _event_from(row)) for row in found]

    def settle_events(self, namespace: str) -> int:
        jobs, events = self.tables.jobs, self.tables.events
        done = (
            sa.update(events)
            .where(events.c.namespace == namespace, NEW)
            .where(~sa.exists(sa.select(jobs.c.id).where(self._starts()).correlate(events)))
            .values(is_new=False)
        )
        is_any_new = sa.select(events.c.id).where(events.c.namespace == namespace, NEW).limit(1)
        with self.database.reading() as connection:
            if connection.execute(is_any_new).first() is None:
                return 0  # so that an idle process writes nothing
        with self.database.writing() as connection:
            return int(connection.execute(done).rowcount)

    def _starts(self) -> sa.ColumnElement[bool]:
        """Return the condition that an event is still to start a job."""
        jobs, events, runs = self.tables.jobs.c, self.tables.events.c, self.tables.runs
        key = sa.literal(BY_EVENT) + events.id
        has_run = sa.exists(
            sa.select(runs.c.id)
            .where(runs.c.job_id == jobs.id, runs.c.idempotency_key == key)
            .correlate(self.tables.jobs, self.tables.events)
        )
        return sa.and_(
            jobs.namespace == events.namespace,
            jobs.on == events.name,
            literally(jobs.state, "active"),
            jobs.history_from <= events.sent_at,
            jobs.state_at.is_(None) | (jobs.state_at <= events.sent_at),
            ~has_run,
        )

    def _moment_of_its_own(self, connection: Connection, namespace: str, event: Event) -> datetime:
        """Return the time, or just after the last event of this name and key: a wait goes on from the moment of the one before."""
        c, now = self.tables.events.c, self.database.clock(connection)
        newest = sa.select(c.sent_at).where(
            c.namespace == namespace, c.name == event.name, c.key == event.key
        )
        last = connection.scalar(newest.order_by(c.sent_at.desc()).limit(1))
        return now if last is None else max(now, last + MICROSECOND)

    def event(self, namespace: str, awaited: Awaited) -> Event | None:
        c = self.tables.events.c
        wanted = (
            c.namespace == namespace,
            c.name == awaited.name,
            c.key == awaited.key,
            c.sent_at > awaited.after,
        )
        query = sa.select(self.tables.events).where(*wanted).order_by(c.sent_at, c.id).limit(1)
        with self.database.reading() as connection:
            row = connection.execute(query).mappings().one_or_none()
        return None if row is None else _event_from(row)

    def wake(self, namespace: str) -> int:
        runs, steps, events = self.tables.runs, self.tables.run_steps, self.tables.events
        sent = sa.exists().where(
            steps.c.run_id == runs.c.id,
            literally(steps.c.status, "waiting"),
            events.c.namespace == namespace,
            events.c.name == steps.c.event_name,
            events.c.key == steps.c.event_key,
            events.c.sent_at > steps.c.event_after,
        )
        child = runs.alias("child")
        is_open = child.c.status.in_([PENDING.value, RUNNING.value])
        awaited = child.c.idempotency_key.startswith(GATHERED, autoescape=True)
        ended = ~sa.exists().where(child.c.parent_id == runs.c.id, is_open, awaited)
        with self.database.writing() as connection:
            woken = self._make_due(connection, namespace, "waiting", sent)
            return woken + self._make_due(connection, namespace, "children", ended | self._has_room())

    def _has_room(self) -> sa.ColumnElement[bool]:
        """Return the condition that a waiting gather may start more children: at most three quarters of its limit are open."""
        runs, steps, child = self.tables.runs, self.tables.run_steps.c, self.tables.runs.alias("child")
        words = (
            GATHERED,
            sa.cast(runs.c.id, sa.Text),
            "/",
            steps.name,
            "#",
            sa.cast(steps.occurrence, sa.Text),
            "/",
        )
        prefix = reduce(add, words[1:], sa.literal(words[0]))
        still_open = (
            sa.select(sa.func.count())
            .where(child.c.parent_id == runs.c.id, child.c.status.in_([PENDING.value, RUNNING.value]))
            .where(sa.func.substr(child.c.idempotency_key, 1, sa.func.length(prefix)) == prefix)
            .correlate(runs, self.tables.run_steps)
            .scalar_subquery()
        )
        # No other step's output is taken for a number.
        limit = sa.case((steps.kind == "gather", steps.output["limit"].as_integer()))
        waits = steps.run_id == runs.c.id, literally(steps.status, "waiting")
        return sa.exists().where(*waits, 4 * still_open <= 3 * limit)

    def _make_due(
        self, connection: Connection, namespace: str, reason: str, condition: sa.ColumnElement[bool]
    ) -> int:
        c, jobs = self.tables.runs.c, self.tables.jobs
        now = self.database.clock(connection)
        ours = sa.exists().where(jobs.c.id == c.job_id, jobs.c.namespace == namespace)
        resting = literally(c.status, PENDING), literally(c.reason, reason), c.due_at > now
        wake = (
            sa.update(self.tables.runs)
            .where(*resting, ours, condition)
            .values(due_at=now, dispatched_at=None)
        )
        return int(connection.execute(wake).rowcount)

    def children(self, run_id: str, *, key_prefix: str = "", limit: int | None = None) -> list[Run]:
        if not self.database.may_be_run_id(run_id):
            return []
        c = self.tables.runs.c
        query = sa.select(self.tables.runs).where(c.parent_id == run_id).order_by(c.id).limit(limit)
        if key_prefix:
            query = query.where(c.idempotency_key.startswith(key_prefix, autoescape=True))
        with self.database.reading() as connection:
            return self.database.runs_from(connection.execute(query).mappings())

    def child_keys(self, run_id: str, key_prefix: str) -> dict[str, bool]:
        if not self.database.may_be_run_id(run_id):
            return {}
        c = self.tables.runs.c
        begins_so = c.idempotency_key.startswith(key_prefix, autoescape=True)
        query = sa.select(c.idempotency_key, c.status).where(c.parent_id == run_id, begins_so)
        with self.database.reading() as connection:
            found = connection.execute(query).all()
        return {key: status in (PENDING.value, RUNNING.value) for key, status in found}

    def purge_events(self, before: datetime) -> int:
        table = self.tables.events
        with self.database.writing() as connection:
            return int(connection.execute(sa.delete(table).where(table.c.sent_at < before)).rowcount)


def _event_from(row: Mapping[Any, Any]) -> Event:
    return Event(**{name: value for name, value in dict(row).items() if name not in OF_THE_ROW})


_plain = attrgetter("run_id", "name", "occurrence", "kind", "status", "attempt")


def by_run(run_ids: Sequence[str], steps: Sequence[Step]) -> list[list[Step]]:
    """Return the steps of each of these runs, in the order in which they stand."""
    found: dict[str, list[Step]] = {run_id: [] for run_id in run_ids}
    for step in steps:
        found.setdefault(step.run_id, []).append(step)
    return [found[run_id] for run_id in run_ids]


def step_row(step: Step, instant: Callable[[datetime | None], Any]) -> list[Any]:
    """Return the values of COLUMNS in their order, each moment as `instant` writes it."""
    awaits = step.awaits
    return [
        *_plain(step),
        step.output if step.traceparent is None else {**(step.output or {}), SPAN: step.traceparent},
        failure_values(step.error),
        instant(step.started_at),
        instant(step.ended_at),
        instant(step.wakes_at),
        step.position,
        *((None, None, None) if awaits is None else (awaits.name, awaits.key, instant(awaits.after))),
    ]


def step_from(row: Sequence[Any], instant: Callable[[Any], Any], json: Callable[[Any], Any]) -> Step:
    """Return the step of a row of COLUMNS, each moment as `instant` reads it and each document as `json` does."""
    (
        *plain,
        output,
        error,
        started_at,
        ended_at,
        wakes_at,
        position,
        event_name,
        event_key,
        event_after,
    ) = row
    run_id, name, occurrence, kind, status, attempt = plain
    after, output, span = instant(event_after), None if output is None else json(output), None
    if status not in DONE and isinstance(output, dict):
        span = output.pop(SPAN, None)
    return Step(
        run_id=run_id,
        name=name,
        occurrence=occurrence,
        kind=kind,
        status=status,
        attempt=attempt,
        output=output if span is None else output or None,
        error=None if error is None else failure_from(json(error)),
        started_at=instant(started_at),
        ended_at=instant(ended_at),
        wakes_at=instant(wakes_at),
        awaits=None if after is None else Awaited(event_name, event_key, after),
        position=position,
        traceparent=span,
    )

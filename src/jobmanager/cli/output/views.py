"""A job as the command line shows it: its declaration, its stored row, its next instant and its last runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobmanager.cli.output.phrases import iso, length
from jobmanager.cli.output.records import run_record, state_record
from jobmanager.errors import JobNotFoundError

if TYPE_CHECKING:
    from jobmanager.job import Job
    from jobmanager.manager.manager import JobManager
    from jobmanager.run import Run
    from jobmanager.schedule import Schedule
    from jobmanager.stores.values import JobRow
    from jobmanager.validation.options import Option


@dataclass(frozen=True)
class View:
    """A job as declared here, as stored, and its latest runs. One of `job` and `row` is there."""

    id: str
    job: Job | None
    row: JobRow | None
    schedule: Schedule | None
    next_run: datetime | None
    last: Run | None
    state: str
    why: str

    @property
    def name(self) -> str:
        return self.job.name if self.job else str(self.declared.get("name", self.id))

    @property
    def declared(self) -> dict[str, Any]:
        """Return the declaration in force, overrides included: that of the code that started last, or of this code."""
        overridden = self.job is not None and self.row is not None and self.row.override
        stored = None if overridden or self.row is None else self.row.declared
        text = stored or (self.job.declared() if self.job else "{}")
        return dict(json.loads(text))

    @property
    def words(self) -> str:
        return self.schedule.describe() if self.schedule else "by hand"


def views(manager: JobManager, wanted: str | None = None) -> list[View]:
    """Return every job that is declared here or stored in this namespace, by id; JobNotFoundError if `wanted` is none of them."""
    from jobmanager.ledger.overrides import in_force
    from jobmanager.ledger.queries import closed_because, effective, next_run
    from jobmanager.registry import closest

    stored = manager.store.jobs.rows() if manager.store.exists() else []
    rows = {
        row.id: row
        for row in stored
        if (row.namespace == manager.settings.namespace or row.id in manager.registry.jobs)
        and (row.state != "deleted" or row.id == wanted)
    }
    known = {*rows, *manager.registry.jobs}
    if wanted is not None and wanted not in known:
        raise JobNotFoundError(
            f"No job {wanted!r} is declared or stored.{closest(wanted, known)}", job_id=wanted
        )
    ids = sorted(known if wanted is None else {wanted})
    last = manager.store.history.last_runs([job_id for job_id in ids if job_id in rows]) if rows else {}
    now = manager.store.now()
    found = []
    for job_id in ids:
        job, row = manager.registry.declared.get(job_id), rows.get(job_id)
        if row is not None and row.definition is not None:
            job = _defined(row)
        elif job is not None and row is not None:
            job = in_force(job, row.override)
        state, _, why = closed_because(job, row).partition(": ")
        found.append(
            View(
                id=job_id,
                job=job,
                row=row,
                schedule=effective(job, row),
                next_run=next_run(job, row, now),
                last=next(iter(last.get(job_id, [])), None),
                state=state or "active",
                why=why,
            )
        )
    return found


def _defined(row: JobRow) -> Job | None:
    """Return the job that an operator made; None if a newer version wrote what this one cannot read."""
    from jobmanager.errors import ConfigurationError, CronError
    from jobmanager.ledger.definition import job_of

    try:
        return job_of(row.id, row.definition or {})
    except (ConfigurationError, CronError, LookupError, TypeError):
        return None


def job_record(view: View) -> dict[str, Any]:
    """Return a job as a JSON document."""
    return {
        "id": view.id,
        "name": view.name,
        "source": "code" if view.row is None or view.row.definition is None else "stored",
        "declared_here": view.job is not None,
        "schedule": view.schedule.text if view.schedule else None,
        "schedule_in_words": view.words,
        **state_record(view.row),
        "state": view.state,
        "next_run": iso(view.next_run),
        "last_status": view.last.status.value if view.last else None,
        "last_run": run_record(view.last) if view.last else None,
    }


def fires(view: View, now: datetime, number: int) -> list[datetime]:
    """Return the next instants that will fire: none while the job is paused or disabled."""
    return view.schedule.upcoming(now, number) if view.schedule and view.next_run else []


def fire_record(view: View, fire: datetime) -> dict[str, Any]:
    """Return an instant in UTC and in the job's zone."""
    zone, local = in_zone(view, fire)
    return {"utc": iso(fire), "zone": zone, "in_zone": local.isoformat()}


def in_zone(view: View, moment: datetime) -> tuple[str, datetime]:
    """Return the zone of the job's schedule, and the moment in it."""
    from zoneinfo import ZoneInfo

    from jobmanager.schedule import Cron

    zone = view.schedule.timezone if isinstance(view.schedule, Cron) else "UTC"
    return zone, moment.astimezone(ZoneInfo(zone))


def policies(view: View) -> dict[str, Any]:
    """Return the job's policies as they are declared; retry only where the code is at hand."""
    from jobmanager.job import RETRY_OPTIONS

    declared = {
        key: value for key, value in view.declared.items() if key not in ("name", "handler", "config")
    }
    if view.job:
        declared["retry"] = {name: _plain(getattr(view.job.retry, name)) for name in RETRY_OPTIONS}
    return declared


def _plain(value: Any) -> Any:
    """Return a value of Retry as JSON has it: exception classes by name."""
    if isinstance(value, (list, tuple)):
        return [item.__name__ if isinstance(item, type) else item for item in value]
    return value


ALWAYS_SHOWN = ("overlap", "catch_up", "timeout")
SHOWN_WITH_ANOTHER = ("catch_up_window",)


def policies_in_words(view: View) -> list[tuple[str, str]]:
    """Return the policies for people, by name: the usual ones, and every other one that differs from its default."""
    from jobmanager.job import POLICY_OPTIONS

    declared = policies(view)
    rows = []
    for name, item in POLICY_OPTIONS.items():
        value = declared.get(item.column, item.plain(item.default))
        if name == "catch_up":
            window = length(timedelta(seconds=declared.get("catch_up_window_seconds", 0)))
            rows.append((name, value if value == "none" else f"{value} of the last {window}"))
        elif name == "retry":
            rows.append((name, _attempts(declared)))
        elif name in ALWAYS_SHOWN or (
            item.declared and value != item.plain(item.default) and name not in SHOWN_WITH_ANOTHER
        ):
            rows.append((name, _in_words(item, value)))
    return rows


def _in_words(item: Option, value: Any) -> str:
    from jobmanager.validation.kinds import Duration

    if value is None:
        return "none"
    text = length(timedelta(seconds=value)) if isinstance(item.kind, Duration) else str(value)
    return item.shown_as.format(text) if item.shown_as else text


def _attempts(declared: dict[str, Any]) -> str:
    retry = declared.get("retry")
    if declared.get("max_attempts", 1) <= 1:
        return "no retry"
    attempts = f"up to {declared['max_attempts']} attempts"
    if retry and retry["delays"]:
        return f"{attempts}, after {', '.join(f'{delay:g} s' for delay in retry['delays'])}"
    if retry:
        return f"{attempts}, after {retry['base']:g} s and then {retry['factor']:g} times longer, at most {retry['max_delay']:g} s"
    return attempts


def handler_name(manager: JobManager, view: View) -> str:
    """Return the handler's key, and its function if this process has it."""
    key = view.job.handler if view.job else str(view.declared.get("handler", ""))
    handler = manager.registry.handlers.get(key)
    if handler is None:
        return f"{key} (not registered in this application)"
    target = handler.target
    if handler.kind == "webhook":
        code = handler.info().description
    elif isinstance(target, str):
        code = target
    else:
        code = f"{target.__module__}:{getattr(target, '__qualname__', target)}"
    return code if key == view.id else f"{key} = {code}"


def parameters(manager: JobManager, view: View) -> str:
    """Return the parameters of the handler, as they are written: the keys a payload may have."""
    from inspect import signature

    from jobmanager.errors import HandlerNotFoundError

    handler = manager.registry.handlers.get(view.job.handler) if view.job else None
    try:
        taken = signature(handler.function).parameters if handler else {}
    except HandlerNotFoundError:
        return ""
    return ", ".join(str(parameter) for name, parameter in taken.items() if name != "context") or "nothing"


def shown_config(manager: JobManager, view: View) -> Any:
    """Return the config without secrets."""
    from jobmanager.ledger.redaction import Redactor

    return Redactor(manager.settings.secret_values()).value(view.declared.get("config") or {})

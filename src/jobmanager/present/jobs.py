"""A job in words and as a JSON document."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from jobmanager.present.phrases import iso, length
from jobmanager.present.records import run_record, state_record

if TYPE_CHECKING:
    from jobmanager.ledger.job_view import JobView
    from jobmanager.manager.manager import JobManager
    from jobmanager.validation.options import Option


def job_record(view: JobView) -> dict[str, Any]:
    """Return a job as a JSON document."""
    return {
        "id": view.id,
        "name": view.name,
        "source": view.source,
        "declared_here": view.job is not None,
        "schedule": view.schedule.text if view.schedule else None,
        "schedule_in_words": view.words,
        "ended": view.ended,
        "on": view.on,
        **state_record(view.row),
        "state": view.state,
        "next_run": iso(view.next_run),
        "last_status": view.last.status.value if view.last else None,
        "last_run": run_record(view.last) if view.last else None,
    }


FIRES, RUNS = 5, 5
"""How many of its next instants and of its last runs the whole document of a job has."""


def whole_job_record(manager: JobManager, view: JobView) -> dict[str, Any]:
    """Return a job as a JSON document with its handler, options, next instants and last runs."""
    coming = fires(view, manager.store.now(), FIRES)
    return {
        **job_record(view),
        "handler": handler_name(manager, view),
        "arguments": arguments_schema(manager, view),
        "config": shown_config(manager, view),
        "policies": policies(view),
        "next_fires": [fire_record(view, fire) for fire in coming],
        "runs": [run_record(run) for run in manager.runs(view.id, limit=RUNS)],
    }


def arguments_schema(manager: JobManager, view: JobView) -> Any:
    """Return the JSON schema of what config and payload may hold; None where the handler is not at hand."""
    from jobmanager.errors import HandlerNotFoundError

    handler = manager.registry.handlers.get(view.handler)
    try:
        return None if handler is None else handler.info().arguments
    except HandlerNotFoundError:
        return None


def fires(view: JobView, now: datetime, number: int) -> list[datetime]:
    """Return the next instants that will fire: none while the job is paused or disabled."""
    return view.schedule.runs_after(now, number) if view.schedule and view.next_run else []


def fire_record(view: JobView, fire: datetime) -> dict[str, Any]:
    """Return an instant in UTC and in the job's zone."""
    zone, local = in_zone(view, fire)
    return {"utc": iso(fire), "zone": zone, "in_zone": local.isoformat()}


def in_zone(view: JobView, moment: datetime) -> tuple[str, datetime]:
    """Return the zone of the job's schedule, and the moment in it."""
    from zoneinfo import ZoneInfo

    from jobmanager.schedule import Cron

    zone = view.schedule.timezone if isinstance(view.schedule, Cron) else "UTC"
    return zone, moment.astimezone(ZoneInfo(zone))


def policies(view: JobView) -> dict[str, Any]:
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


def policies_in_words(view: JobView) -> list[tuple[str, str]]:
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


def handler_name(manager: JobManager, view: JobView) -> str:
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


def parameters(manager: JobManager, view: JobView) -> str:
    """Return the parameters of the handler, as they are written: the keys a payload may have."""
    from inspect import signature

    from jobmanager.errors import HandlerNotFoundError

    handler = manager.registry.handlers.get(view.job.handler) if view.job else None
    try:
        taken = signature(handler.function).parameters if handler else {}
    except HandlerNotFoundError:
        return ""
    return ", ".join(str(parameter) for name, parameter in taken.items() if name != "context") or "nothing"


def shown_config(manager: JobManager, view: JobView) -> Any:
    """Return the config without secrets."""
    from jobmanager.ledger.redaction import Redactor

    return Redactor(manager.settings.secret_values()).value(view.declared.get("config") or {})

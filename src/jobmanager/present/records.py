"""Runs, jobs and what else is shown, as JSON documents: stable keys, instants in ISO 8601 UTC, lengths in seconds."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from jobmanager.present.phrases import iso, seconds

if TYPE_CHECKING:
    from jobmanager.ledger.redaction import Redactor
    from jobmanager.run import Attempt, Failure, LogLine, Run
    from jobmanager.stores.values import JobRow

# A payload is kept as it was given: what its keys call a secret, and the application's own secrets, are not shown.
_secrets: list[frozenset[str]] = [frozenset()]


def hide(secrets: Iterable[str]) -> None:
    """Let no payload show these secrets, of the settings of the application whose runs are shown."""
    _secrets[0] = frozenset(secrets)


def shown_payload(payload: Any) -> Any:
    """Return a payload without secrets."""
    return _redactor(_secrets[0]).value(payload)


@lru_cache(maxsize=1)
def _redactor(secrets: frozenset[str]) -> Redactor:
    from jobmanager.ledger.redaction import Redactor

    return Redactor(secrets)


def run_record(run: Run) -> dict[str, Any]:
    """Return every field of the run, and what follows from them."""
    return {
        "id": run.id,
        "job": run.job_id,
        "status": run.status.value,
        "reason": run.reason,
        "trigger": run.trigger,
        "requested_by": run.requested_by,
        "scheduled_for": iso(run.scheduled_for),
        "first_for": iso(run.first_for),
        "ticks": run.ticks,
        "due_at": iso(run.due_at),
        "opened_at": iso(run.opened_at),
        "started_at": iso(run.started_at),
        "finished_at": iso(run.finished_at),
        "duration_seconds": seconds(run.duration),
        "queue_delay_seconds": seconds(run.queue_delay),
        "attempt": run.attempt,
        "max_attempts": run.max_attempts,
        "owner": run.owner,
        "priority": run.priority,
        "scope": run.scope,
        "idempotency_key": run.idempotency_key,
        "blocked_by": run.blocked_by,
        "parent_id": run.parent_id,
        "cancel_requested_at": iso(run.cancel_requested_at),
        "payload": shown_payload(run.payload),
        "output": run.output,
        "error": failure_record(run.error),
        "progress": None
        if run.progress is None
        else {
            "processed": run.progress.processed,
            "total": run.progress.total,
            "message": run.progress.message,
        },
    }


def failure_record(failure: Failure | None) -> dict[str, str] | None:
    """Return kind, type, message and traceback of an error."""
    if failure is None:
        return None
    return {
        "kind": failure.kind,
        "type": failure.type,
        "message": failure.message,
        "traceback": failure.traceback,
    }


def attempt_record(attempt: Attempt) -> dict[str, Any]:
    """Return one attempt that was followed by another."""
    return {
        "attempt": attempt.attempt,
        "outcome": attempt.outcome,
        "owner": attempt.owner,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "error": failure_record(attempt.error),
    }


def line_record(attempt: int, line: LogLine) -> dict[str, Any]:
    """Return one captured log line."""
    return {"at": iso(line.at), "level": line.level, "attempt": attempt, "text": line.text}


def state_record(row: JobRow | None) -> dict[str, Any]:
    """Return a stored job's state and account; `stored` is False for a job that no process has started with yet."""
    if row is None:
        return {
            "stored": False,
            "state": "active",
            "state_reason": None,
            "state_by": None,
            "state_since": None,
            "override_by": None,
            "override_since": None,
        }
    return {
        "stored": True,
        "state": row.state,
        "state_reason": row.state_reason,
        "state_by": row.state_by,
        "state_since": iso(row.state_at),
        "override_by": row.override_by,
        "override_since": iso(row.override_at),
    }

"""Records beside jobs and runs, as JSON documents: explanations, health, statistics, the audit, notifications, keys and processes."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from jobmanager.present.phrases import iso, seconds
from jobmanager.present.records import run_record, shown_payload

if TYPE_CHECKING:
    from jobmanager.access.keys import ApiKey
    from jobmanager.explain.explanation import Explanation
    from jobmanager.ledger.statistics import Lengths, Statistics
    from jobmanager.manager.manager import JobManager
    from jobmanager.stores.outbox import Notification
    from jobmanager.stores.values import AuditEntry, Instance


def explanation_record(found: Explanation) -> dict[str, Any]:
    """Return an explanation as a JSON document, with the run that stands for the instant."""
    return {
        "at": iso(found.at),
        "verdict": found.verdict,
        "cause": found.cause,
        "because": found.because,
        "advice": found.advice,
        "before": iso(found.before),
        "after": iso(found.after),
        "run": run_record(found.run) if found.run else None,
    }


def engine_record(manager: JobManager) -> dict[str, Any]:
    """Return which backend was chosen, why each other one was not, and what stands still, as a JSON document."""
    chosen, report = manager.resolution, manager.health()
    return {
        "backend": chosen.backend,
        "reason": chosen.reason,
        "rejected": [asdict(rejected) for rejected in chosen.rejected],
        "namespace": manager.settings.namespace,
        "disabled": manager.settings.disabled,
        "healthy": report.ok,
        "symptoms": [
            {"kind": one.kind, "failing": one.failing, "text": one.text, "fix": one.fix}
            for one in report.symptoms
        ],
    }


def statistics_record(found: Statistics) -> dict[str, Any]:
    """Return the statistics as a JSON document: the fields by their names, lengths of time in seconds."""
    return {
        "job": found.job,
        "period": found.period,
        "since": iso(found.since),
        "until": iso(found.until),
        "timezone": found.timezone,
        "total": found.total,
        "success_rate": found.success_rate,
        "counts": dict(found.counts),
        "duration": _lengths(found.duration),
        "lateness": _lengths(found.lateness),
        "backlog": found.backlog,
        "oldest_pending": iso(found.oldest_pending),
        "counted_at": iso(found.counted_at),
        "newest_only": found.newest_only,
        "buckets": [
            {"since": iso(bucket.since), "until": iso(bucket.until), "counts": dict(bucket.counts)}
            for bucket in found.buckets
        ],
    }


def _lengths(lengths: Lengths | None) -> dict[str, float | None] | None:
    if lengths is None:
        return None
    return {
        name: seconds(value) if isinstance(value, timedelta) else value
        for name, value in asdict(lengths).items()
    }


def audit_record(entry: AuditEntry) -> dict[str, Any]:
    """Return an entry of the audit as a JSON document."""
    return {
        "id": entry.id,
        "at": iso(entry.at),
        "by": entry.by,
        "action": entry.action,
        "job": entry.job_id,
        "target": entry.target,
        "target_id": entry.target_id,
        "outcome": entry.outcome,
        "reason": entry.reason,
        "address": entry.address,
        "user_agent": entry.user_agent,
        "request_id": entry.request_id,
        "batch_id": entry.batch_id,
        "rev": entry.rev,
        "before": shown_payload(entry.before),
        "after": shown_payload(entry.after),
    }


def notification_record(item: Notification) -> dict[str, Any]:
    """Return a notification as a JSON document; one that does not wait is not due."""
    return {
        "id": item.id,
        "event": item.event,
        "job": item.job_id or None,
        "subject": item.subject,
        "channel": item.channel,
        "address": item.address or None,
        "state": item.state.value,
        "count": item.count,
        "attempts": item.attempts,
        "unsure": item.unsure,
        "created_at": iso(item.created_at),
        "due_at": iso(item.due_at) if item.state.value == "waiting" else None,
        "sent_at": iso(item.sent_at),
        "message": item.message,
        "error": item.error,
        "details": dict(item.details),
    }


def key_record(key: ApiKey) -> dict[str, Any]:
    """Return an API key as a JSON document, without its secret."""
    moments = ("created_at", "expires_at", "revoked_at", "last_used_at")
    plain = {name: getattr(key, name) for name in type(key).__slots__}
    return plain | {name: iso(plain[name]) for name in moments}


def instance_record(instance: Instance) -> dict[str, Any]:
    """Return a process as a JSON document."""
    return {
        "id": instance.id,
        "host": instance.host,
        "pid": instance.pid,
        "backend": instance.backend,
        "executes": instance.executes,
        "started_at": iso(instance.started_at),
        "seen_at": iso(instance.seen_at),
        "last_tick_at": iso(instance.last_tick_at),
        "lag_seconds": instance.lag_seconds,
    }

"""Findings about notifications: those that could not be delivered, and those that wait for a channel or for a process."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from jobmanager.doctor.finding import Finding, counted
from jobmanager.explain import Told
from jobmanager.manager.manager import JobManager
from jobmanager.notify.delivery import LEASE
from jobmanager.stores.outbox import NotificationState

LONG = timedelta(minutes=5)
"""The longest time that a notification may be due and still wait."""


def notifications(jobs: JobManager, told: Told) -> Iterator[Finding]:
    """Yield what nobody was told of."""
    outbox, namespace = jobs.store.outbox, jobs.settings.namespace
    counts = outbox.counts(namespace)
    if counts["dead"]:
        [last] = outbox.list(namespace, states=[NotificationState.DEAD], limit=1)
        yield Finding(
            check="notifications",
            level="warning",
            text=f"{counted(counts['dead'], 'notification')} could not be delivered, the last by {last.channel}: {last.error}",
            fix="See `jobmanager notifications list --state dead`; `jobmanager notifications test` says what is wrong now.",
        )
    waiting = (
        outbox.list(namespace, states=[NotificationState.WAITING], limit=1000) if counts["waiting"] else ()
    )
    stuck = [item for item in waiting if item.due_at < jobs.store.now() - LONG - LEASE]
    if stuck:
        channels = ", ".join(sorted({item.channel for item in stuck}))
        yield Finding(
            check="notifications",
            level="warning",
            text=f"{counted(len(stuck), 'notification')} waiting since {told(stuck[-1].due_at)} for a process that serves {channels}.",
            fix="Give JOBMANAGER_SMTP_URL, or that channel, to a process that was started.",
        )

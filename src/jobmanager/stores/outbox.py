"""Outbox: the facet of a store with the notifications that wait for their delivery, and those that were sent or given up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from jobmanager.access.view import View
from jobmanager.run import Notice
from jobmanager.stores.values import AuditEntry


class NotificationState(StrEnum):
    """The state of a notification: it waits, was sent, was given up, or was dropped by an operator."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"
    DROPPED = "dropped"


MOST_WAITING = 10_000
"""Rows that may wait in a namespace; what comes beyond is counted in one row of the event OVERFLOW."""
OVERFLOW = "outbox_full"
LONGEST_PAUSE = timedelta(minutes=15)
"""A notification that is due later than this was planned before the clock was set back, and is due now."""
MOST_UNSURE = 2
"""The most transmissions of a message without a confirmation: the receiver may have it so often."""
LISTED = 20
"""Notifications of one message that are read; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notification:
    """One row of the outbox: an event for one address of one channel.

    `count` is how many events it stands for. `message` is the message that it was or is being sent in, maybe with others.
    `unsure` counts transmissions that nobody confirmed.
    """

    id: str
    namespace: str
    event: str
    job_id: str
    subject: str
    channel: str
    address: str
    fold: str
    state: NotificationState
    created_at: datetime
    due_at: datetime
    count: int = 1
    attempts: int = 0
    unsure: int = 0
    message: str | None = None
    sent_at: datetime | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """Notifications that one message is to tell: same event, job, channel and address. `count` events in all, the oldest ones listed."""

    id: str
    event: str
    job_id: str
    channel: str
    address: str
    count: int
    notifications: Sequence[Notification]


class Outbox(ABC):
    """The notifications of all processes. Any thread may call any method; each is one transaction."""

    @abstractmethod
    def add(self, notices: Sequence[Notice]) -> int:
        """Keep those notices that are not there yet, and return how many were kept or counted.

        Their key is namespace, event, job, subject, channel and address. A notice of the event `recovered` is kept only if a notice
        `failed` of the job to that address precedes it, once for the last one. A full outbox counts instead.
        """

    @abstractmethod
    def claim(
        self, namespace: str, channels: Collection[str], *, quiet: timedelta, lease: timedelta, limit: int
    ) -> list[Letter]:
        """Take up to `limit` messages for the lease; nobody else gets them until it ends.

        What belongs together is one letter. For `quiet` after a message about the same, others wait. One that was transmitted
        twice without a confirmation becomes dead. A clock that was set back delays none by more than the longest pause.
        """

    @abstractmethod
    def begin_sending(self, message: str, lease: timedelta) -> bool:
        """Note, before it is transmitted, that the message may arrive; False if another process has taken it meanwhile."""

    @abstractmethod
    def note_sent(self, message: str) -> None:
        """Note that the message was accepted."""

    @abstractmethod
    def note_failed(
        self, message: str, error: str, *, pauses: Sequence[timedelta], begun: bool, unsure: bool
    ) -> None:
        """Note that it was not, and plan the next attempt: after the pause of as many attempts; after the last pause none.

        `begun`: `begin_sending` was called for this attempt. `unsure`: the receiver may have it all the same.
        """

    @abstractmethod
    def list(
        self,
        namespace: str,
        *,
        states: Collection[NotificationState] = (),
        job_id: str | None = None,
        before: str | None = None,
        limit: int = 50,
        seen: View | None = None,
    ) -> Sequence[Notification]:
        """Return a page of notifications, newest first; `before` is the id of the last one of the page before.

        With `seen` only those of jobs whose every run is seen; a view that is whole sees those of no job, too.
        """

    @abstractmethod
    def get(self, namespace: str, notification_id: str, *, seen: View | None = None) -> Notification | None:
        """Return the notification with this id, or whose id ends so, if only one does."""

    @abstractmethod
    def change(self, notification_id: str, state: NotificationState, entry: AuditEntry | None = None) -> bool:
        """Make a notification wait again as if it were new, or drop it, and write the entry of the audit with it.

        False if there is none, or if it was sent and is to be dropped.
        """

    @abstractmethod
    def counts(self, namespace: str) -> Mapping[str, int]:
        """Return how many notifications are waiting and dead, and how many events were not kept because the outbox was full."""

    @abstractmethod
    def purge(self, before: datetime) -> int:
        """Delete what was sent, given up or dropped and is older than the moment; return how many rows."""

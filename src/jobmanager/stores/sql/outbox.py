"""The facet `outbox`, and the writing of notices inside the transaction that causes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from jobmanager.access.view import View
from jobmanager.run import Ending, Notice, RunStatus, new_id
from jobmanager.stores import outbox
from jobmanager.stores.outbox import (
    LISTED,
    LONGEST_PAUSE,
    MOST_UNSURE,
    OVERFLOW,
    Letter,
    Notification,
    NotificationState,
    Outbox,
)
from jobmanager.stores.sql.database import Connection, Database, SqlFacet, literally
from jobmanager.stores.sql.rows import Row
from jobmanager.stores.sql.visible import jobs_seen
from jobmanager.stores.values import AuditEntry

WAITING, DROPPED = NotificationState.WAITING, NotificationState.DROPPED
UNCONFIRMED = "transmitted twice without a confirmation: it may have arrived"
CHUNK = 2000  # rows in one transaction, as for runs


def notices_of(endings: Iterable[Ending], ended: Mapping[str, RunStatus]) -> list[Notice]:
    """Return the notices of those endings that ended their run as they wanted to."""
    return [
        notice
        for ending in endings
        if ending.notices and ended.get(ending.run.id) is ending.status
        for notice in ending.notices
    ]


def write_notices(database: Database, connection: Connection, notices: Sequence[Notice]) -> int:
    """Write the notices within this transaction, and return how many rows that made. Twice is once."""
    if not notices:
        return 0
    table, now = database.tables.notifications, database.clock(connection)
    full = {each for each in {notice.namespace for notice in notices} if _is_full(table, connection, each)}
    beyond: Counter[tuple[str, str, str]] = Counter()
    kept = 0
    # In one order everywhere: two processes that write the same notices must not wait for each other.
    for notice in sorted(
        notices,
        key=lambda notice: (notice.event, notice.job_id, notice.subject, notice.channel, notice.address),
    ):
        subject = _failed_before(table, connection, notice) if notice.event == "recovered" else notice.subject
        if subject is None:
            continue
        if notice.namespace in full:
            beyond[notice.namespace, notice.channel, notice.address] += 1
            continue
        row = _new_row({**asdict(notice), "subject": subject}, now)
        kept += connection.execute(database.insert_ignoring(table), row).rowcount
    for (namespace, channel, address), number in beyond.items():
        told = Notice(
            namespace=namespace, event=OVERFLOW, subject=new_id(now), channel=channel, address=address
        )
        _count(table, connection, told, number, now)
    return kept


def _new_row(values: Mapping[str, Any], now: datetime, count: int = 1) -> dict[str, Any]:
    fresh = {
        "id": new_id(now),
        "created_at": now,
        "due_at": now,
        "state": WAITING,
        "attempts": 0,
        "unsure": 0,
    }
    return {**values, **fresh, "count": count}


def _is_full(table: sa.Table, connection: Connection, namespace: str) -> bool:
    beyond = sa.select(table.c.id).where(table.c.namespace == namespace, literally(table.c.state, WAITING))
    return connection.execute(beyond.limit(1).offset(outbox.MOST_WAITING - 1)).first() is not None


def _failed_before(table: sa.Table, connection: Connection, notice: Notice) -> str | None:
    """Return the id of the last notification `failed` of the job to that address: the one a recovery is about."""
    c = table.c
    same = c.namespace == notice.namespace, c.channel == notice.channel, c.address == notice.address
    failed = sa.select(c.id).where(c.job_id == notice.job_id, literally(c.event, "failed"), *same)
    found: str | None = connection.scalar(failed.order_by(c.id.desc()).limit(1))
    return found


def _count(table: sa.Table, connection: Connection, notice: Notice, number: int, now: datetime) -> None:
    """Count events that are not kept, in one row that waits like the others."""
    c = table.c
    there = sa.update(table).where(
        c.namespace == notice.namespace,
        literally(c.event, OVERFLOW),
        c.job_id == "",
        c.channel == notice.channel,
        c.address == notice.address,
        c.state == WAITING,
        c.message.is_(None),
    )
    if not connection.execute(there.values(count=c.count + number)).rowcount:
        connection.execute(sa.insert(table), _new_row(asdict(notice), now, number))


class SqlOutbox(SqlFacet, Outbox):
    """Claims, notes and lists notifications."""

    def add(self, notices: Sequence[Notice]) -> int:
        with self.database.writing() as connection:
            return write_notices(self.database, connection, notices)

    def claim(
        self, namespace: str, channels: Collection[str], *, quiet: timedelta, lease: timedelta, limit: int
    ) -> list[Letter]:
        c = self.tables.notifications.c
        # There is nearly never one: no need to stop the writers for that.
        with self.database.reading() as connection:
            due = self._due(namespace, channels, self.database.clock(connection), quiet)
            if connection.execute(sa.select(c.id).where(due).limit(1)).first() is None:
                return []
        with self.database.writing() as connection:
            # One process at a time, so that what belongs together is taken together.
            connection.execute(self.database.locked(sa.select(self.tables.meta.c.id)))
            now = self.database.clock(connection)
            due = self._due(namespace, channels, now, quiet)
            self._give_up_unconfirmed(connection, due)
            group = (c.event, c.job_id, c.channel, c.address, c.fold)
            groups = sa.select(*group).where(due).group_by(*group).order_by(sa.func.min(c.id)).limit(limit)
            taken = [
                self._take(connection, due, tuple(row), now, quiet, lease)
                for row in connection.execute(groups).all()
            ]
            return [letter for letter in taken if letter is not None]

    def _due(
        self, namespace: str, channels: Collection[str], now: datetime, quiet: timedelta
    ) -> sa.ColumnElement[bool]:
        c = self.tables.notifications.c
        # What is due later than any pause reaches was planned before the clock was set back.
        reached = (c.due_at <= now) | (c.due_at > now + max(quiet, LONGEST_PAUSE))
        return (c.namespace == namespace) & literally(c.state, WAITING) & c.channel.in_(channels) & reached

    def _give_up_unconfirmed(self, connection: Connection, due: sa.ColumnElement[bool]) -> None:
        table = self.tables.notifications
        often = sa.update(table).where(due, table.c.unsure >= MOST_UNSURE)
        connection.execute(often.values(state="dead", error=UNCONFIRMED))

    def _take(
        self,
        connection: Connection,
        due: sa.ColumnElement[bool],
        group: tuple[str, ...],
        now: datetime,
        quiet: timedelta,
        lease: timedelta,
    ) -> Letter | None:
        table = self.tables.notifications
        c = table.c
        event, job_id, channel, address, fold = group
        same = (
            (c.job_id == job_id)
            & (c.event == event)
            & (c.channel == channel)
            & (c.address == address)
            & (c.fold == fold)
        )
        last = connection.scalar(
            sa.select(sa.func.max(c.sent_at)).where(same, c.sent_at > now - quiet, c.sent_at <= now)
        )
        theirs = sa.update(table).where(due, same)
        if last is not None:
            connection.execute(theirs.values(due_at=last + quiet))
            return None
        message = new_id(now)
        connection.execute(theirs.values(message=message, due_at=now + lease))
        count = connection.scalar(sa.select(sa.func.sum(c.count)).where(c.message == message))
        first = sa.select(table).where(c.message == message).order_by(c.id).limit(LISTED)
        listed = self.database.readable(
            connection.execute(first).mappings(), _notification, "notification", "id"
        )
        return Letter(
            id=message,
            event=event,
            job_id=job_id,
            channel=channel,
            address=address,
            count=int(count or 0),
            notifications=listed,
        )

    def begin_sending(self, message: str, lease: timedelta) -> bool:
        c = self.tables.notifications.c
        with self.database.writing() as connection:
            until = self.database.clock(connection) + lease
            return bool(
                connection.execute(self._of(message).values(unsure=c.unsure + 1, due_at=until)).rowcount
            )

    def note_sent(self, message: str) -> None:
        c = self.tables.notifications.c
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            sent = self._of(message).values(
                state="sent", sent_at=now, attempts=c.attempts + 1, unsure=0, error=None
            )
            connection.execute(sent)

    def note_failed(
        self, message: str, error: str, *, pauses: Sequence[timedelta], begun: bool, unsure: bool
    ) -> None:
        c = self.tables.notifications.c
        with self.database.writing() as connection:
            now = self.database.clock(connection)
            tried = connection.scalar(sa.select(sa.func.min(c.attempts)).where(c.message == message)) or 0
            again = now + (pauses[min(tried, len(pauses) - 1)] if pauses else timedelta(0))
            certain = 1 if begun and not unsure else 0
            counted = {
                "attempts": c.attempts + 1,
                "unsure": c.unsure - certain,
                "error": error,
                "due_at": again,
            }
            connection.execute(self._of(message).values(**counted))
            over = (c.attempts > len(pauses)) | (c.unsure >= MOST_UNSURE)
            connection.execute(self._of(message).where(over).values(state="dead"))

    def _of(self, message: str) -> sa.Update:
        """Return an UPDATE of what is being sent in this message, and was not taken by another process since."""
        c = self.tables.notifications.c
        return sa.update(self.tables.notifications).where(c.message == message, literally(c.state, WAITING))

    # ---------------------------------------------------------------- for operators

    def list(
        self,
        namespace: str,
        *,
        states: Collection[NotificationState] = (),
        job_id: str | None = None,
        before: str | None = None,
        limit: int = 50,
        seen: View | None = None,
    ) -> list[Notification]:
        c = self.tables.notifications.c
        query = self._seen(namespace, seen)
        if states:
            query = query.where(c.state.in_(states))
        if job_id is not None:
            query = query.where(c.job_id == job_id)
        if before is not None:
            query = query.where(c.id < before)
        with self.database.reading() as connection:
            rows = connection.execute(query.order_by(c.id.desc()).limit(limit)).mappings()
            return self.database.readable(rows, _notification, "notification", "id")

    def get(self, namespace: str, notification_id: str, *, seen: View | None = None) -> Notification | None:
        ending = self.tables.notifications.c.id.endswith(notification_id, autoescape=True)
        with self.database.reading() as connection:
            rows = connection.execute(self._seen(namespace, seen).where(ending).limit(2)).mappings().all()
        return _notification(rows[0]) if len(rows) == 1 else None

    def _seen(self, namespace: str, seen: View | None) -> sa.Select[Any]:
        table, jobs = self.tables.notifications, self.tables.jobs
        query = sa.select(table).where(table.c.namespace == namespace)
        if seen is None or seen.is_whole:
            return query
        its_job = sa.select(jobs.c.id).where(
            jobs.c.id == table.c.job_id, *jobs_seen(self.tables, seen, whole=True)
        )
        return query.where(its_job.correlate(table).exists())

    def change(self, notification_id: str, state: NotificationState, entry: AuditEntry | None = None) -> bool:
        table = self.tables.notifications
        c = table.c
        with self.database.writing() as connection:
            anew = {
                "attempts": 0,
                "unsure": 0,
                "due_at": self.database.clock(connection),
                "error": None,
                "sent_at": None,
                "message": None,
            }
            values = {"state": state, **(anew if state is WAITING else {})}
            changed = sa.update(table).where(c.id == notification_id)
            if state is DROPPED:
                changed = changed.where(c.state.in_((WAITING, "dead")))
            done = bool(connection.execute(changed.values(**values)).rowcount)
            if done:
                self.database.note(connection, entry)
            return done

    def counts(self, namespace: str) -> Mapping[str, int]:
        table = self.tables.notifications
        ours = table.c.namespace == namespace
        beyond = sa.select(sa.func.sum(table.c.count)).where(ours, literally(table.c.event, OVERFLOW))
        with self.database.reading() as connection:
            found = {
                state.value: connection.scalar(
                    sa.select(sa.func.count()).select_from(table).where(ours, literally(table.c.state, state))
                )
                for state in (WAITING, NotificationState.DEAD)
            }
            found["not_kept"] = connection.scalar(beyond)
        return {name: int(number or 0) for name, number in found.items()}

    def purge(self, before: datetime) -> int:
        table = self.tables.notifications
        c = table.c
        old = sa.select(c.id).where(c.id < new_id(before), c.state != WAITING).order_by(c.id).limit(CHUNK)
        deleted = 0
        while True:
            with self.database.writing() as connection:
                ids = list(connection.scalars(old))
                connection.execute(sa.delete(table).where(c.id.in_(ids)))
            deleted += len(ids)
            if len(ids) < CHUNK:
                return deleted


def _notification(row: Row) -> Notification:
    return Notification(**{**row, "state": NotificationState(row["state"])})

"""The row that would open a run. The store decides whether it does."""

from __future__ import annotations

import threading
from datetime import datetime

from jobmanager.clock import later
from jobmanager.execution.opening import OpenRequest
from jobmanager.process.heartbeat import Heartbeat
from jobmanager.run import EPOCH, MICROSECOND, PENDING, RUNNING, Run, new_id


class RunFactory:
    """Makes the rows of this process. Any thread may ask."""

    def __init__(self, heartbeat: Heartbeat, *, executes: bool) -> None:
        self._heartbeat = heartbeat
        self._executes = executes
        self._moments = threading.Lock()
        self._last_moment = EPOCH

    def build(self, request: OpenRequest, now: datetime, *, ours: bool) -> Run:
        """Return the row of a run that is due when its tick is, or when the request says, or now.

        With `ours` it is running from the beginning, as this process has a slot for it; else pending.
        """
        job, tick, due_at, by_hand = request.job, request.tick, request.due_at, request.by_hand
        instant = tick.scheduled_for if tick else None
        sent_at = None if self._executes or (due_at and due_at > now) else now
        due_at = due_at or (now if instant is None else job.due_at(instant))
        return Run(
            id=tick.run_id if tick and tick.run_id else new_id(now),
            job_id=job.id,
            status=RUNNING if ours else PENDING,
            trigger="schedule" if tick else "manual",
            schedule_rev=tick.revision if tick else 0,
            scheduled_for=instant,
            due_at=due_at,
            expires_at=None
            if instant is None or job.start_deadline is None
            else later(instant, job.start_deadline),
            attempt=1 if ours else 0,
            starts=1 if ours else 0,
            owner=self._heartbeat.id if ours else None,
            max_attempts=by_hand.max_attempts or job.retry.max_attempts,
            retry_on_crash=job.retry.on_crash,
            concurrency_key=f"{job.id}/{by_hand.scope}" if by_hand.scope else job.id,
            turn=None if job.overlap == "allow" else "waits" if due_at > now else "holds",
            opened_at=now,
            accepted_at=None if tick and tick.run_id else now,
            dispatched_at=sent_at,
            started_at=self._moment_of_its_own(now) if ours else None,
            priority=job.priority if by_hand.priority is None else by_hand.priority,
            payload=by_hand.payload,
            idempotency_key=by_hand.key,
            requested_by=by_hand.requested_by,
            notify=by_hand.notify,
            parent_id=by_hand.parent_id,
        )

    def _moment_of_its_own(self, now: datetime) -> datetime:
        """No two openings of this process have the same: an announced run that is brought twice at once starts once."""
        with self._moments:
            self._last_moment = max(now, self._last_moment + MICROSECOND)
            return self._last_moment

"""Events that start jobs: a run for each event and each job that names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from jobmanager.execution.opening import OpenRequest
from jobmanager.execution.runner import Runner
from jobmanager.job import Job
from jobmanager.registry import Registry
from jobmanager.run import BY_EVENT, ByHand
from jobmanager.step import Event
from jobmanager.stores.base import RunStore
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

OPENED_AT_ONCE = 500
IN_LINE = ("queue_all", "cancel_running")
"""The overlap policies that leave no event out; with any other one the runs of events start beside each other."""


class EventStarts:
    """Opens the runs that events start. Any thread and any number of processes may: the event's id is the idempotency key."""

    def __init__(self, registry: Registry, store: RunStore, runner: Runner, *, namespace: str) -> None:
        self._registry = registry
        self._store = store
        self._runner = runner
        self._namespace = namespace

    def open(self, name: str | None = None, *, here: bool = True) -> int:
        """Open the runs that events are still to start, or those of one name; return how many were.

        With `here` this process may execute them at once.
        """
        jobs = self._registry.jobs
        started = {
            job.id: job for job in list(jobs.values()) if job.on is not None and name in (None, job.on)
        }
        opened, tried = 0, set[tuple[str, str]]()
        while started:
            found = self._store.steps.new_events(self._namespace, started, OPENED_AT_ONCE)
            fresh = [(job_id, event) for job_id, event in found if (job_id, event.id) not in tried]
            tried.update((job_id, event.id) for job_id, event in fresh)
            requests = [self._request(started[job_id], event, here=here) for job_id, event in fresh]
            results = self._runner.accept_all(requests) if requests else []
            opened += sum(result.finding == "opened" for result in results)
            if len(found) < OPENED_AT_ONCE or not fresh:
                break
        if name is None or tried:
            self._store.steps.settle_events(self._namespace)
        return opened

    def _request(self, job: Job, event: Event, *, here: bool) -> OpenRequest:
        if job.overlap not in IN_LINE:
            job = replace(job, overlap="allow")
        by_hand = ByHand(
            payload=payload_of(event), key=f"{BY_EVENT}{event.id}", requested_by=f"event {event.name}"
        )
        return OpenRequest(job, by_hand=by_hand, here=here)


def payload_of(event: Event) -> Mapping[str, object] | None:
    """Return the payload of a run that the event starts: its data, which stands under `data` where it is no object."""
    if event.data is None or isinstance(event.data, dict):
        return event.data
    return {"data": event.data}

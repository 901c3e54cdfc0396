"""The manager in processes that an outside system starts or calls: what their backend, and the endpoint, may ask of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from jobmanager.backends.timetable import ScheduledJob
from jobmanager.job import Job
from jobmanager.manager.assembly import Assembly
from jobmanager.run import Accepted, Ticked, TickedJobs, Worked


class Begin(Protocol):
    """Starts the manager in this process, even if it was stopped before; twice is once."""

    def __call__(self, *, executes: bool) -> None: ...


class ManagerHost:
    """The Host of a manager's backend. What brings work starts the manager, but none that was stopped: StoppedError.

    Where the kill switch is set, or no time is kept, nothing does: SwitchedOffError.
    """

    def __init__(
        self,
        begin: Begin,
        go_on: Callable[[], None],
        stop: Callable[[], None],
        assembly: Callable[[], Assembly],
        *,
        jobs: Callable[[], Mapping[str, Job]],
        drain: Callable[[], timedelta],
        check_switch: Callable[[], None],
    ) -> None:
        self.drain = drain
        self._check_switch = self.check_switch = check_switch
        self._begin = begin
        self._start_if_not_stopped = go_on
        self._stop = stop
        self._assembly = assembly
        self._jobs = jobs

    def queues(self) -> set[str]:
        return {job.queue for job in self._jobs().values() if job.queue is not None}

    def start(self, *, executes: bool) -> None:
        self._begin(executes=executes)

    def execute(self, run_ids: Sequence[str]) -> None:
        self._go_on()
        self._assembly().claims.claim_these(run_ids, here=True)

    def accept(self, run_ids: Sequence[str]) -> Accepted:
        self._go_on()
        return self._assembly().runner.accept_announced(run_ids)

    def tick(self, job_id: str, *, scheduled_for: datetime | None = None) -> Ticked:
        self._go_on()
        return self._assembly().called.tick(job_id, scheduled_for)

    def tick_all(self, *, waited_for: datetime | None = None) -> TickedJobs:
        self._go_on()
        return self._assembly().called.tick_all(waited_for)

    def work(self, limit: int) -> Worked:
        self._go_on()
        return self._assembly().called_work.work(limit)

    def plan(self) -> None:
        self._go_on()
        self._assembly().sync()

    def sweep(self) -> None:
        self._go_on()
        self._assembly().sweep.sweep()

    def planned(self) -> Sequence[ScheduledJob]:
        return self._assembly().planned()

    def elsewhere(self) -> frozenset[str]:
        return self._assembly().job_sync.elsewhere

    def acquire_role(self, role: str) -> bool:
        assembly = self._assembly()
        heartbeat = assembly.heartbeat
        return heartbeat.ok() and assembly.store.processes.acquire_role(
            f"{heartbeat.namespace}/{role}", heartbeat.id
        )

    def stop(self) -> None:
        self._stop()

    def _go_on(self) -> None:
        """Start the manager if need be; SwitchedOffError where nothing is to run, StoppedError after a stop."""
        self._check_switch()
        self._start_if_not_stopped()

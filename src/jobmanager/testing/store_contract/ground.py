"""What every test of the contract stands on: a fresh store, and short words to fill it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from jobmanager.run import FAILED, PENDING, RUNNING, SUCCEEDED, Ending, Failure, Run, RunStatus, new_id
from jobmanager.stores.audit import AuditQuery
from jobmanager.stores.base import RunStore
from jobmanager.stores.values import AuditEntry, Instance, JobRow, Written
from jobmanager.testing.clock import FakeClock

HOUR = timedelta(hours=1)


def seconds(number: float) -> timedelta:
    """So many seconds."""
    return timedelta(seconds=number)


class StoreGround:
    """A fresh store as `self.store`, and `self.now`, the whole second in which the test began by the store's clock."""

    store: RunStore
    clock: FakeClock
    now: datetime

    def make_store(self, clock: FakeClock, tmp_path: Path) -> RunStore:
        """Return a store that is empty, not installed, and has a grace of 60 s. A store with a clock of its own ignores `clock`."""
        raise NotImplementedError("Say in make_store() how a fresh, empty store is made.")

    @pytest.fixture(autouse=True)
    def _fresh_store(self, tmp_path: Path) -> Iterator[None]:
        self.open(tmp_path)
        yield
        self.close()

    def open(self, tmp_path: Path) -> None:
        """Make and install the store; called before each test."""
        self.clock = FakeClock()
        self.store = self.make_store(self.clock, tmp_path)
        self.store.install()
        self.now = self.store.now().replace(microsecond=0)

    def close(self) -> None:
        """Give the store up; called after each test."""
        self.store.close()

    # ---------------------------------------------------------------- filling it

    def job(self, job_id: str = "job", **fields: Any) -> JobRow:
        """Return a stored job with a schedule, accounted for until an hour ago."""
        self.store.jobs.add([self.unsaved(job_id, **fields)])
        return self.stored_job(job_id)

    def unsaved(self, job_id: str = "job", **fields: Any) -> JobRow:
        """Return the row of such a job, which the store does not have yet."""
        return JobRow(
            **{
                "id": job_id,
                "namespace": "default",
                "declared": "{}",
                "schedule": "every 1",
                "accounted_until": self.now - HOUR,
                "next_due_at": self.now - HOUR + seconds(1),
                "history_from": self.now - 2 * HOUR,
                **fields,
            }
        )

    def entry(
        self, job_id: str, action: str, *, namespace: str = "default", seconds_later: int = 0
    ) -> AuditEntry:
        """Return an entry of the audit, made so many seconds after the beginning of the test."""
        at = self.now + seconds(seconds_later)
        return AuditEntry(
            id=new_id(at),
            at=at,
            namespace=namespace,
            action=action,
            target="job",
            target_id=job_id,
            job_id=job_id,
            by="ana",
            before={"state": "active"},
            after={"state": "paused", "state_reason": "Größe"},
        )

    def audited(self, **wanted: Any) -> list[AuditEntry]:
        """Return the entries of the audit of the namespace `default`, newest first."""
        return self.store.audit.entries(AuditQuery(**{"namespace": "default", **wanted}))

    def stored_job(self, job_id: str = "job") -> JobRow:
        """Return the job as the store has it."""
        row = self.store.jobs.get(job_id)
        assert row is not None, f"no job {job_id!r}"
        return row

    def process(
        self,
        *,
        namespace: str = "default",
        declares: Collection[str] = (),
        handlers: Collection[str] = (),
        **fields: Any,
    ) -> str:
        """Return the id of a registered instance that lives."""
        instance_id = new_id(self.now)
        instance = Instance(
            **{
                "id": instance_id,
                "namespace": namespace,
                "host": "here",
                "pid": 1,
                "executes": True,
                "started_at": self.now,
                "seen_at": self.now,
                **fields,
            }
        )
        self.store.processes.register(instance, declares, handlers)
        return instance_id

    def run_of(self, job_id: str = "job", *, owner: str | None = None, **fields: Any) -> Run:
        """Return a run by hand that is not opened yet: running if it has an owner, else pending."""
        return Run(
            **{
                "id": new_id(self.now),
                "job_id": job_id,
                "status": RUNNING if owner else PENDING,
                "trigger": "manual",
                "due_at": self.now,
                "attempt": 1 if owner else 0,
                "starts": 1 if owner else 0,
                "owner": owner,
                "concurrency_key": job_id,
                # Three moments of their own: a store that mixes them up is seen.
                "opened_at": self.now,
                "accepted_at": self.now + timedelta(microseconds=1),
                "started_at": self.now + timedelta(microseconds=2) if owner else None,
                **fields,
            }
        )

    def tick(
        self,
        ago: float = 10,
        job_id: str = "job",
        *,
        owner: str | None = None,
        revision: int = 1,
        **fields: Any,
    ) -> Run:
        """Return the run of a tick that was due so many seconds ago, not yet opened."""
        instant = self.now - seconds(ago)
        return self.run_of(
            job_id,
            owner=owner,
            **{
                "trigger": "schedule",
                "schedule_rev": revision,
                "scheduled_for": instant,
                "due_at": instant,
                **fields,
            },
        )

    def closed(self, run: Run, status: RunStatus, **fields: Any) -> Run:
        """Return the same run as a row that was closed when it was opened."""
        return replace(
            run,
            status=status,
            turn=None,
            owner=None,
            attempt=0,
            starts=0,
            started_at=None,
            **{"finished_at": self.now, **fields},
        )

    # ---------------------------------------------------------------- asking it

    def opened(self, run: Run) -> Run:
        """Return the run as the store has it, after it opened it."""
        written = self.store.runs.write([run], ())
        assert run.id in written.opened, "the run was refused"
        return self.row(run)

    def refused(self, run: Run) -> None:
        """Hold that the store does not open this run."""
        written = self.store.runs.write([run], ())
        assert run.id not in written.opened, "a run was opened that should have been refused"
        assert self.store.history.run(run.id) is None, "a refused run left a row"

    def inserted(self, *runs: Run) -> None:
        """Rows as they are, past the guards, under the lock of their job."""
        for run in runs:
            with self.store.jobs.lock(run.job_id) as txn:
                assert txn.insert(run), f"{run} was not inserted"

    def ending(self, run: Run, status: RunStatus = SUCCEEDED, **fields: Any) -> Ending:
        """How the run's owner wants the attempt to end."""
        return Ending(
            **{
                "run": run,
                "status": status,
                "started_at": run.started_at or self.now,
                "finished_at": self.now + seconds(1),
                **fields,
            }
        )

    def ended(self, run: Run, status: RunStatus = SUCCEEDED, **fields: Any) -> RunStatus | None:
        """Return what an ending led to; None if it did not count."""
        return self.write(endings=[self.ending(run, status, **fields)]).ended.get(run.id)

    def retried(self, run: Run, *, after: float = 0, error: Failure | None = None) -> RunStatus | None:
        """Return what the owner's wish for another attempt led to, so many seconds from now."""
        return self.ended(run, FAILED, retry_at=self.now + seconds(after), error=error)

    def write(self, opens: Collection[Run] = (), endings: Collection[Ending] = ()) -> Written:
        return self.store.runs.write(list(opens), list(endings))

    def row(self, run: Run) -> Run:
        """Return the run as the store has it."""
        found = self.store.history.run(run.id)
        assert found is not None, f"no row for run {run.id}"
        return found

    def claim(self, owner: str, limit: int = 100, *, namespace: str = "default", **which: Any) -> list[Run]:
        return self.store.runs.claim(owner, namespace, limit, **which)

    def change(self, job_id: str = "job", **fields: Any) -> JobRow:
        """Give the job's row these values, under its lock."""
        with self.store.jobs.lock(job_id) as txn:
            txn.save(replace(txn.job, **fields))
        return self.stored_job(job_id)

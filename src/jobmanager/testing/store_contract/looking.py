"""Promises about what alarms look for."""

from __future__ import annotations

from jobmanager.run import FAILED, MISSED
from jobmanager.testing.store_contract.ground import HOUR, StoreGround, seconds


class LookingPromises(StoreGround):
    """The facet `lookout`."""

    def test_missed_runs_of_these_jobs_are_found(self) -> None:
        for job_id in ("job", "other"):
            self.job(job_id)
            self.inserted(self.closed(self.tick(30, job_id), MISSED, reason="downtime"))
        self.inserted(self.closed(self.tick(7200), MISSED, reason="downtime"))

        found = self.store.lookout.missed(["job"], self.now - HOUR, 10)

        assert [(run.job_id, run.scheduled_for) for run in found] == [("job", self.now - seconds(30))]

    def test_running_runs_of_these_jobs_are_found(self) -> None:
        owner = self.process()
        for job_id in ("job", "other"):
            self.job(job_id)
            self.opened(self.run_of(job_id, owner=owner))

        assert [run.job_id for run in self.store.lookout.running(["job"], 10)] == ["job"]
        assert len(self.store.lookout.running(["job", "other"], 1)) == 1

    def test_runs_that_were_not_started_in_time_are_found(self) -> None:
        self.job()
        late = self.opened(self.tick(30))
        self.opened(self.tick(5))

        assert [run.id for run in self.store.lookout.not_started(["job"], self.now - seconds(20), 10)] == [
            late.id
        ]
        assert self.store.lookout.not_started(["other"], self.now, 10) == []

    def test_a_backlog_is_counted_to_its_limit(self) -> None:
        self.job()
        for ago in range(1, 6):
            self.opened(self.tick(ago))

        assert self.store.lookout.backlog("default", 100) == 5
        assert self.store.lookout.backlog("default", 3) == 3
        assert self.store.lookout.backlog("other", 100) == 0

    def test_dead_letters_are_counted_until_somebody_saw_to_them(self) -> None:
        self.job()
        owner = self.process()
        runs = [self.opened(self.run_of(owner=owner)) for _ in range(3)]
        for run in runs:
            self.ended(run, FAILED)

        assert self.store.lookout.dead_letters("default", 100) == 3
        self.store.maintenance.discard(runs[0].id)
        assert self.store.lookout.dead_letters("default", 100) == 2
        assert self.store.lookout.dead_letters("other", 100) == 0

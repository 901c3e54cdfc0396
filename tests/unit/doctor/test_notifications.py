"""What doctor says of notifications that nobody got."""

from __future__ import annotations

from datetime import timedelta

from jobmanager import JobManager, Settings
from jobmanager.doctor.notifications import notifications
from jobmanager.run import Notice
from jobmanager.testing import FakeClock


def found(jobs: JobManager) -> list[str]:
    return [finding.text for finding in notifications(jobs, str)]


def test_dead_ones_and_those_that_no_process_serves_are_named() -> None:
    clock = FakeClock()
    jobs = JobManager(Settings(backend="local", database_url="memory://"), clock=clock)
    jobs.store.install()
    outbox = jobs.store.outbox
    outbox.add([Notice(namespace="default", event="failed", subject="run", channel="email", job_id="job")])
    assert found(jobs) == []

    clock.advance(timedelta(minutes=10))
    [waiting] = found(jobs)
    [letter] = outbox.claim("default", ["email"], quiet=timedelta(0), lease=timedelta(0), limit=1)
    outbox.note_failed(letter.id, "554 no", pauses=(), begun=False, unsure=False)
    [dead] = found(jobs)

    assert waiting.startswith("1 notification waiting since 2026-01-01 00:00:00")
    assert waiting.endswith("for a process that serves email.")
    assert dead == "1 notification could not be delivered, the last by email: 554 no"

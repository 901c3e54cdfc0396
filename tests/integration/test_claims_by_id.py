"""A message brings a run by its id, and another session looks at its row in that moment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("psycopg", reason="needs psycopg: pip install psycopg[binary]")

import psycopg

from jobmanager import JobManager, RunStatus, Settings
from jobmanager.clock import SystemClock

pytestmark = pytest.mark.servers


class Unlocking(SystemClock):
    """Ends the other session's transaction when the first vain claim is slept over."""

    def __init__(self, url: str) -> None:
        self.other = psycopg.connect(url)

    def lock(self, run_id: str) -> None:
        self.other.execute("SELECT FROM jobmanager.runs WHERE id = %s FOR UPDATE", (run_id,))

    def sleep(self, seconds: float) -> None:
        self.other.rollback()
        super().sleep(seconds)


@pytest.fixture
def clock(postgres_url: str) -> Iterator[Unlocking]:
    clock = Unlocking(postgres_url)
    yield clock
    clock.other.close()


def test_a_run_whose_row_is_locked_for_a_moment_is_asked_for_again(
    postgres_url: str, clock: Unlocking
) -> None:
    """Fails if the message of a locked run is dropped: it would be sent again half a minute later."""
    jobs = JobManager(Settings(database_url=postgres_url), clock=clock)
    jobs.add_job("work", lambda: None)
    run = jobs.trigger_job("work")
    clock.lock(run.id)

    assert jobs.execute_here(run.id)
    assert jobs.wait(run.id).status is RunStatus.SUCCEEDED
    jobs.stop()
    jobs.store.close()

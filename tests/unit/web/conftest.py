"""The API of a manager with a few jobs of different fates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.api import Api, declare

from jobmanager import JobManager, Settings


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[JobManager]:
    jobs = JobManager(Settings(database_url=f"sqlite:///{tmp_path}/jobs.db", backend="noop"))
    declare(jobs)
    yield jobs
    jobs.stop()
    jobs.store.close()


@pytest.fixture
def api(jobs: JobManager) -> Api:
    return Api(jobs)

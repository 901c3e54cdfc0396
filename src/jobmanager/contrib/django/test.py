"""For the tests of a project: jobs whose record lives in memory and whose starts run inline, on a clock that a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from jobmanager.contrib.django.current import made, replaced_by
from jobmanager.contrib.django.manager import DjangoJobs
from jobmanager.settings import Settings
from jobmanager.testing.clock import START, FakeClock

try:
    import pytest
except ImportError:  # a project that tests with Django's runner alone
    fixture: Any = None
else:
    fixture = pytest.fixture


@contextmanager
def jobs_in_memory(start: datetime = START, **settings: Any) -> Iterator[tuple[DjangoJobs, FakeClock]]:
    """Have `jobs` be a manager of its own inside the block, with all that the project declares, on noop and in memory."""
    clock = FakeClock(start)
    of_tests = Settings(**{"backend": "noop", "database_url": "memory://", **settings})
    with replaced_by(made(of_tests, clock=clock)) as manager:
        yield manager, clock


class JobsTestCase:
    """Mixin for Django's test cases: `self.jobs` and `self.clock`, fresh for each test.

    A start with `on_commit` runs at the end of `captureOnCommitCallbacks(execute=True)`.
    """

    jobs: DjangoJobs
    clock: FakeClock

    def setUp(self) -> None:
        """Put the jobs of this test in place of the project's."""
        super().setUp()  # type: ignore[misc]  # of the test case beside it
        self.jobs, self.clock = self.enterContext(jobs_in_memory())  # type: ignore[attr-defined]


if fixture is not None:

    @fixture
    def django_jobs() -> Iterator[DjangoJobs]:
        """Provide the project's jobs, in memory and inline, for one test."""
        with jobs_in_memory() as (manager, _):
            yield manager

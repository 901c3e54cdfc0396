"""The pytest plugin: a manager on a clock moved by hand, whose record lives in memory.

    def test_sessions_are_cleaned_at_night(jobmanager, jobmanager_clock):
        jobmanager.add_job("cleanup", cleanup, cron="0 2 * * *")
        with jobmanager:
            jobmanager_clock.advance(days=1)
        assert_ran(jobmanager, "cleanup")

`@pytest.mark.jobmanager(backend="noop", start=datetime(...), workers=1)` changes what the fixtures give: `start` is where the
clock stands, every other word a field of Settings. Nothing of the library is loaded before a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from jobmanager.manager.manager import JobManager
    from jobmanager.settings import Settings
    from jobmanager.testing.clock import FakeClock


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known, so that --strict-markers accepts it."""
    config.addinivalue_line(
        "markers",
        "jobmanager(backend='local', start=None, **settings): what the fixtures jobmanager, jobmanager_clock and "
        "jobmanager_settings give",
    )


@pytest.fixture
def jobmanager_clock(request: pytest.FixtureRequest) -> FakeClock:
    """Provide a FakeClock that stands at 2026-01-01 00:00 UTC, or at the marker's `start`."""
    from jobmanager.testing.clock import START, FakeClock

    return FakeClock(_asked(request).get("start") or START)


@pytest.fixture
def jobmanager_settings(request: pytest.FixtureRequest) -> Settings:
    """Provide settings without the environment: backend `local`, a store in memory, and the marker's options."""
    from jobmanager.settings import Settings

    asked = _asked(request)
    asked.pop("start", None)
    return Settings(**{"backend": "local", "database_url": "memory://", **asked})


@pytest.fixture
def jobmanager(jobmanager_settings: Settings, jobmanager_clock: FakeClock) -> Iterator[JobManager]:
    """Provide a JobManager, not yet started, on `jobmanager_settings` and `jobmanager_clock`; stop it after the test."""
    from jobmanager.manager.manager import JobManager

    manager = JobManager(jobmanager_settings, clock=jobmanager_clock)
    yield manager
    manager.stop(drain=0)


def _asked(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Merge the options of the markers; the closest one wins."""
    asked: dict[str, Any] = {}
    for marker in request.node.iter_markers("jobmanager"):
        if marker.args:
            raise pytest.UsageError(
                f"@pytest.mark.jobmanager takes words only, such as backend='noop'; not {marker.args!r}."
            )
        asked = {**marker.kwargs, **asked}
    return asked

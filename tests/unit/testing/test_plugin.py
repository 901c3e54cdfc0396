"""What an application's test gets from the plugin, and what a session that does not use it is spared."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from jobmanager import JobManager, Settings
from jobmanager.testing import FakeClock

pytest_plugins = ["pytester"]


def test_the_manager_keeps_time_by_the_clock_and_its_record_in_memory(
    jobmanager: JobManager, jobmanager_clock: FakeClock, jobmanager_settings: Settings
) -> None:
    jobmanager.add_job("nightly", lambda: "clean", cron="0 2 * * *")

    with jobmanager:
        jobmanager_clock.advance(days=2)

    assert [run.output for run in jobmanager.runs("nightly")] == ["clean", "clean"]
    assert jobmanager.settings is jobmanager_settings
    assert (jobmanager.backend.name, jobmanager.store.url) == ("local", "memory://")


def test_the_clock_starts_at_new_year(jobmanager_clock: FakeClock) -> None:
    assert jobmanager_clock.now() == datetime(2026, 1, 1, tzinfo=UTC)


def test_settings_know_nothing_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setenv("JOBMANAGER_BACKEND", "pg_cron")
    monkeypatch.setenv("JOBMANAGER_WORKERS", "99")

    settings = request.getfixturevalue("jobmanager_settings")

    assert (settings.backend, settings.workers) == ("local", 10)


@pytest.mark.jobmanager(backend="noop", workers=3, start=datetime(2030, 5, 1, tzinfo=UTC))
class TestTheMarker:
    def test_chooses_backend_settings_and_start(
        self, jobmanager: JobManager, jobmanager_clock: FakeClock
    ) -> None:
        jobmanager.add_job("minutely", lambda: None, every=60)

        with jobmanager:
            jobmanager_clock.advance(hours=1)

        assert jobmanager.runs("minutely") == []
        assert jobmanager.settings.workers == 3
        assert jobmanager_clock.now() == datetime(2030, 5, 1, 1, tzinfo=UTC)

    @pytest.mark.jobmanager(backend="local")
    def test_closest_to_the_test_wins(self, jobmanager_settings: Settings) -> None:
        assert (jobmanager_settings.backend, jobmanager_settings.workers) == ("local", 3)


def test_a_manager_that_a_test_forgot_is_stopped(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        left = []

        def test_starts(jobmanager):
            jobmanager.start()
            left.append(jobmanager)

        def test_was_stopped():
            assert not left[0].started
    """)

    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio").assert_outcomes(passed=2)


def test_a_wrong_word_of_the_marker_is_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.jobmanager(bakend="noop")
        def test_typo(jobmanager): ...

        @pytest.mark.jobmanager("noop")
        def test_without_a_word(jobmanager): ...
    """)

    result = pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "--strict-markers")

    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*bakend is not a setting. Did you mean backend?*", "*takes words only*"])


def test_the_plugin_is_found_by_its_entry_point(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.get_plugin("jobmanager") is not None
    assert "jobmanager(backend='local', start=None, **settings)" in "\n".join(pytestconfig.getini("markers"))

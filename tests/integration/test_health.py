"""Each thing that can stand still, made to do so for real: every surface turns red, in this process and seen from another one."""

from __future__ import annotations

import gc
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.calls import SECRET, ask_wsgi
from tests.faults.proxy import Proxy
from tests.integration.celery_processes import Application

from jobmanager import JobManager, RunContext, Settings
from jobmanager.cli import main
from jobmanager.doctor import examine
from jobmanager.explain import explain_now
from jobmanager.observe.prometheus import text_of
from jobmanager.process.health import Vitals
from jobmanager.web import wsgi

QUICK = {"grace_seconds": 2, "sweep_seconds": 1, "lease_seconds": 8}


def until(condition: Callable[[], Any], seconds: float = 40) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)
    return found


# A scheduler's thread that dies is what these are about.
dies = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


class Surfaces:
    """Everything that shows health: of `jobs`, and by the command line of a process that knows nothing but the settings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def healthcheck(self, settings: Settings, *words: str) -> tuple[int, list[str]]:
        """The exit code of the verb, and the kinds it names."""
        for name in ("backend", "database_url", "pg_cron_transport", *QUICK):
            self._monkeypatch.setenv(f"JOBMANAGER_{name.upper()}", str(getattr(settings, name)))
        if settings.celery_broker_url:
            self._monkeypatch.setenv("JOBMANAGER_CELERY_BROKER_URL", settings.celery_broker_url)
        self._capsys.readouterr()
        code = main(["healthcheck", "--json", *words])
        said = json.loads(self._capsys.readouterr().out)
        assert said["healthy"] == (code == 0)
        return code, [one["kind"] for one in said["symptoms"] if one["failing"]]

    @staticmethod
    def gauges(jobs: JobManager) -> dict[str, float]:
        """Each gauge without labels by its name, and each symptom by its kind."""
        return {
            sample.labels.get("kind", sample.name.removeprefix("jobmanager_")): sample.value
            for family in text_string_to_metric_families(text_of(jobs))
            for sample in family.samples
            if set(sample.labels) <= {"kind"}
        }

    @staticmethod
    def probe(jobs: JobManager, path: str = "/jobs/healthz") -> int:
        return ask_wsgi(wsgi(jobs), b"", path=path, method="GET").status

    @staticmethod
    def findings(jobs: JobManager) -> list[str]:
        return [finding.text for finding in examine(jobs) if finding.level == "failing"]

    def are_well(self, settings: Settings, *jobs: JobManager) -> None:
        code, kinds = self.healthcheck(settings)
        assert (code, kinds) == (0, [])
        for one in jobs:
            assert self.probe(one) == 200
            assert self.findings(one) == []
            assert self.gauges(one)["healthy"] == 1

    def are_red(self, settings: Settings, kind: str, says: str, jobs: JobManager) -> None:
        """All of them, as `jobs` sees it; the verb sees it from its own process."""
        code, kinds = self.healthcheck(settings)
        assert code == 1
        assert kinds
        assert self.probe(jobs) == 503
        assert any(says in text for text in self.findings(jobs)), self.findings(jobs)
        assert self.gauges(jobs)[kind] == 1
        assert self.gauges(jobs)["healthy"] == 0


@pytest.fixture
def surfaces(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Surfaces:
    return Surfaces(monkeypatch, capsys)


def settings_for(url: str, **more: Any) -> Settings:
    return Settings(**{"backend": "local", "database_url": url, "secret": SECRET, **QUICK, **more})


@pytest.fixture
def local(tmp_path: Path) -> Iterator[JobManager]:
    jobs = JobManager(settings_for(f"sqlite:///{tmp_path}/jobs.db"))
    jobs.add_job("work", lambda: None, every=1, overlap="allow")
    jobs.start()
    until(lambda: jobs.runs("work", "succeeded"))
    yield jobs
    jobs.stop()


def kinds(jobs: JobManager) -> set[str]:
    return {symptom.kind for symptom in jobs.health().symptoms if symptom.failing}


# ---------------------------------------------------------------- local


@dies
def test_a_dead_scheduler_thread_is_seen_by_all(local: JobManager, surfaces: Surfaces) -> None:
    other = JobManager(local.settings)
    surfaces.are_well(local.settings, local, other)
    [scheduler] = [thread for thread in threading.enumerate() if thread.name == "APScheduler"]
    raises(local.backend._wake_up._scheduler)  # type: ignore[attr-defined]  # only the thread is to be ended
    scheduler.join(20)
    assert not scheduler.is_alive()

    until(lambda: "not_brought" in kinds(other))
    until(lambda: "timetable_stuck" in kinds(local))

    surfaces.are_red(local.settings, "timetable_stuck", "The timetable stands still", local)
    surfaces.are_red(local.settings, "not_brought", "No tick comes: 'work' was due", other)
    coming = explain_now(other, "work")[-1]
    assert (coming.verdict, coming.cause) == ("will_not_run", "overdue")
    assert coming.because.startswith("A tick is overdue since ")
    assert "because no tick comes" in coming.because


def raises(scheduler: Any) -> None:
    """The next turn of the scheduler's thread ends it, as an error in it would."""

    def end() -> float:
        raise SystemExit

    scheduler._process_jobs = end
    scheduler.wakeup()


def test_a_delivery_that_does_not_return_is_seen_by_all(local: JobManager, surfaces: Surfaces) -> None:
    blocked = threading.Event()
    local._assembly.deliver._deliver = lambda _: blocked.wait()  # type: ignore[assignment,return-value]
    try:
        until(lambda: "timetable_stuck" in kinds(local))
        until(lambda: surfaces.healthcheck(local.settings)[0] == 1)
        surfaces.are_red(local.settings, "timetable_stuck", "The delivery of ticks does not return", local)
    finally:
        blocked.set()


@pytest.mark.parametrize(
    ("kind", "facts", "says"),
    [
        ("workers_abandoned", {"abandoned_workers": 100}, "100 workers are abandoned"),
        ("not_begun", {"waiting": 3}, "3 runs are taken and not begun"),
    ],
)
def test_workers_that_begin_nothing_are_seen_by_all(
    local: JobManager,
    surfaces: Surfaces,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    facts: dict[str, Any],
    says: str,
) -> None:
    jobs = local
    well = jobs._assembly._vitals

    def vitals() -> Vitals | None:
        now = well()
        return None if now is None else replace(now, handlers_begun=7, **facts)

    monkeypatch.setattr(jobs._assembly.watchdog, "_vitals", vitals)
    until(lambda: kind in kinds(jobs))

    # The process tells the others with its heartbeat that it does not move.
    until(lambda: surfaces.healthcheck(jobs.settings, "--max-lag", "3s")[1] == ["late_ticks"], 80)

    assert surfaces.probe(jobs) == 503
    assert any(says in text for text in surfaces.findings(jobs))
    assert surfaces.gauges(jobs)[kind] == 1


@dies
def test_a_job_that_nobody_accounts_for_is_seen_by_all(local: JobManager, surfaces: Surfaces) -> None:
    local._assembly.background.stop()  # no sweep any more
    raises(local.backend._wake_up._scheduler)  # type: ignore[attr-defined]
    other = JobManager(local.settings)

    until(lambda: "overdue" in kinds(other))
    until(lambda: "background_stuck" in kinds(local))

    surfaces.are_red(local.settings, "overdue", "A tick is overdue since", other)
    assert surfaces.gauges(other)["next_due_overdue_seconds"] > 0
    past, coming = explain_now(other, "work")
    assert coming.cause == "overdue"
    assert coming.because.startswith("A tick is overdue since ")
    assert past.verdict in ("pending", "ran")


@dies
def test_a_process_that_stands_still_ends_where_that_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = JobManager(settings_for(f"sqlite:///{tmp_path}/jobs.db", watchdog="exit"))
    jobs.add_job("work", lambda: None, every=1, overlap="allow")
    ended: list[int] = []
    monkeypatch.setattr(jobs._assembly.watchdog, "_end", ended.append)
    with jobs:
        until(lambda: jobs.runs("work", "succeeded"))
        raises(jobs.backend._wake_up._scheduler)  # type: ignore[attr-defined]
        until(lambda: ended)
    assert set(ended) == {70}


def test_readiness_follows_start_drain_and_stop(tmp_path: Path, surfaces: Surfaces) -> None:
    jobs = JobManager(settings_for(f"sqlite:///{tmp_path}/jobs.db"))
    begun, go_on = threading.Event(), threading.Event()

    def long(context: RunContext) -> None:
        begun.set()
        go_on.wait(30)

    jobs.add_job("long", long)
    assert surfaces.probe(jobs, "/jobs/readyz") == 503
    jobs.start()
    assert surfaces.probe(jobs, "/jobs/readyz") == 200
    jobs.trigger_job("long")
    assert begun.wait(10)
    stopping = threading.Thread(target=jobs.stop)
    stopping.start()
    until(lambda: surfaces.probe(jobs, "/jobs/readyz") == 503)
    go_on.set()
    stopping.join(30)
    assert surfaces.probe(jobs, "/jobs/readyz") == 503


# ---------------------------------------------------------------- a silent store


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # connections that hang are left
@pytest.mark.servers
@pytest.mark.slow
def test_a_silent_store_is_seen_by_all_and_holds_none_of_them_up(
    postgres_url: str, surfaces: Surfaces
) -> None:
    address = psycopg.conninfo.conninfo_to_dict(postgres_url.replace("+psycopg", ""))
    with Proxy(int(address["port"] or 5432)) as proxy:
        url = f"postgresql://{address['user']}:{address.get('password') or ''}@127.0.0.1:{proxy.port}/{address['dbname']}"
        jobs = JobManager(settings_for(url))
        jobs.add_job("work", lambda: None, every=1, overlap="allow")
        jobs.start()
        other = JobManager(jobs.settings)
        try:
            until(lambda: jobs.runs("work", "succeeded"))
            surfaces.are_well(jobs.settings, jobs, other)

            proxy.set("hang")
            for one in (jobs, other):
                began = time.monotonic()
                assert "store_silent" in {symptom.kind for symptom in one.health(within=1).symptoms}
                assert surfaces.probe(one) == 503
                assert surfaces.probe(one, "/jobs/readyz") == 503
                assert surfaces.gauges(one)["store_silent"] == 1
                assert surfaces.gauges(one)["store_up"] == 0
                assert [finding.check for finding in examine(one) if finding.level == "failing"] == ["store"]
                assert time.monotonic() - began < 60
            began = time.monotonic()
            assert surfaces.healthcheck(jobs.settings, "--timeout", "1s") == (1, ["store_silent"])
            assert time.monotonic() - began < 15
        finally:
            proxy.set("pass")
            jobs.stop()
    for one in (jobs, other):
        one.store.close()
    # What hangs ends with the proxy; its connections are nobody's.
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "jobmanager-probe"])
    gc.collect()


# ---------------------------------------------------------------- Celery and pg_cron

TICKING = """
@jobs.job("tick", every=1, overlap="allow")
def tick():
    note("tick")
"""


@pytest.mark.servers
@pytest.mark.slow
def test_a_killed_beat_is_seen_by_all(
    tmp_path: Path, redis_url: str, surfaces: Surfaces, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in QUICK.items():
        monkeypatch.setenv(f"JOBMANAGER_{name.upper()}", str(value))
    url = f"sqlite:///{tmp_path}/jobs.db"
    application = Application(tmp_path, redis_url, url, TICKING)
    try:
        beat = application.beat()
        application.worker(pool="threads")
        settings = settings_for(url, backend="celery", celery_broker_url=redis_url)
        jobs = JobManager(settings)
        until(lambda: jobs.store.exists() and jobs.runs("tick", "succeeded"))
        assert kinds(jobs) == set()

        beat.end(signal.SIGKILL)

        until(lambda: "not_brought" in kinds(jobs), 60)
        code, found = surfaces.healthcheck(settings)
        assert (code, found) == (1, ["not_brought"])
        assert surfaces.probe(jobs) == 503
        assert any("brings ticks" in text or "No tick comes" in text for text in surfaces.findings(jobs))
        assert surfaces.gauges(jobs)["not_brought"] == 1

        application.beat()
        until(lambda: kinds(jobs) == set(), 60)
    finally:
        application.close()


@pytest.mark.servers
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_entries_that_were_all_removed_from_pg_cron_are_seen_by_all(
    pg_cron_url: str, surfaces: Surfaces
) -> None:
    """Takes up to two minutes: pg_cron knows minutes only."""
    settings = settings_for(pg_cron_url, backend="pg_cron", pg_cron_transport="notify")
    jobs = JobManager(settings)
    jobs.add_job("work", lambda: None, cron="* * * * *")
    jobs.start()
    try:
        until(lambda: jobs.runs("work", "succeeded"), 100)
        surfaces.are_well(settings)
        with psycopg.connect(pg_cron_url.replace("+psycopg", ""), autocommit=True) as database:
            database.execute("SELECT cron.unschedule(jobname) FROM cron.job WHERE jobname LIKE 'jm\\_%'")

        until(lambda: "not_brought" in kinds(jobs), 100)
        surfaces.are_red(settings, "not_brought", "No tick comes: 'work' was due", jobs)
    finally:
        jobs.stop()
        jobs.store.close()

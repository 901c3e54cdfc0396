"""JOBMANAGER_DISABLED and noop switch everything off, also what is called for from outside; nothing runs, and a sentence says why."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.calls import OTHER_SECRET, RUNS, SECRET, Replied, ask, ask_wsgi, bearer, body_of, signed

from jobmanager import JobManager, Settings
from jobmanager.backends.local import LocalBackend
from jobmanager.cli import main
from jobmanager.errors import JobDisabledError, SwitchedOffError
from jobmanager.testing import FakeClock
from jobmanager.web import asgi, wsgi

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
SENTENCES = {"disabled": "JOBMANAGER_DISABLED=true", "no_time_kept": "JOBMANAGER_BACKEND=external"}

Call = Callable[..., Replied]


def over_asgi(jobs: JobManager) -> Call:
    app = asgi(jobs)
    return lambda *request, **more: asyncio.run(ask(app, *request, **more))


def over_wsgi(jobs: JobManager) -> Call:
    app = wsgi(jobs)
    return lambda *request, **more: ask_wsgi(app, *request, **more)


def calls(call: Call) -> dict[str, Replied]:
    """Make every call that the endpoint knows."""
    bodies = {
        kind: body_of(1, RUNS[:2] if kind == "ticks" else [], kind) for kind in ("ticks", "plan", "sweep")
    }
    return {
        **{kind: call(body, signed(body)) for kind, body in bodies.items()},
        "tick": call(b"", bearer(), path="/jobs/tick/daily", method="GET"),
        "post": call(b"", bearer(), path="/jobs/tick/daily"),
    }


@pytest.mark.parametrize("over", [over_asgi, over_wsgi])
@pytest.mark.parametrize("wait", [True, False])
@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"disabled": True}, "disabled"),
        ({"disabled": True, "backend": "external"}, "disabled"),
        ({"backend": "noop"}, "no_time_kept"),
    ],
)
def test_every_call_gets_503_with_a_sentence_and_runs_nothing(
    tmp_path: Path, over: Callable[[JobManager], Call], wait: bool, settings: dict[str, Any], finding: str
) -> None:
    """Fails if a call starts a handler although the switch is set, or if the caller does not learn why none runs."""
    clock, ran = FakeClock(NOON), list[str]()
    url = f"sqlite:///{tmp_path}/jobs.db"
    jobs = JobManager(Settings(**settings, database_url=url, secret=SECRET, wait=wait), clock=clock)
    jobs.add_job("daily", lambda: ran.append("daily"), cron="0 2 * * *")
    clock.step(timedelta(hours=14, seconds=1))

    answers = calls(over(jobs))

    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(answers, 503)
    assert {answer.said["finding"] for answer in answers.values()} == {finding}
    assert all(SENTENCES[finding] in answer.said["error"] for answer in answers.values())
    stranger = over(jobs)(b"", bearer(OTHER_SECRET), path="/jobs/tick/daily")
    assert (stranger.status, stranger.said) == (401, {"error": "unauthorized"})
    clock.advance(timedelta(days=2))
    assert (ran, jobs.runs()) == ([], [])
    jobs.stop()
    jobs.store.close()


@pytest.mark.parametrize("given", [False, True])
def test_disabled_starts_nothing_and_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, given: bool
) -> None:
    """Fails if a backend that is handed over, a start by hand or a start of the process gets past the switch."""
    clock, ran = FakeClock(NOON), list[str]()
    settings = Settings(disabled=True, database_url=f"sqlite:///{tmp_path}/jobs.db")
    jobs = JobManager(settings, clock=clock, backend=LocalBackend(clock=clock) if given else None)
    jobs.add_job("minutely", lambda: ran.append("minutely"), cron="* * * * *")

    with caplog.at_level(logging.WARNING), jobs:
        assert jobs.started
        clock.advance(hours=1)
        with pytest.raises(JobDisabledError, match="JOBMANAGER_DISABLED=true"):
            jobs.trigger_job("minutely")
        with pytest.raises(JobDisabledError, match="JOBMANAGER_DISABLED=true"):
            jobs.backfill("minutely", NOON, NOON + timedelta(hours=1))
        for call in (
            jobs.host.plan,
            jobs.host.sweep,
            lambda: jobs.host.accept(RUNS[:1]),
            lambda: jobs.host.execute(RUNS[:1]),
        ):
            with pytest.raises(SwitchedOffError, match="JOBMANAGER_DISABLED=true"):
                call()
        for probe in ("healthz", "readyz"):
            assert over_wsgi(jobs)(b"", {}, path=f"/jobs/{probe}", method="GET").status == 200
        status = jobs.get_job_status("minutely")
        assert status is not None
        assert (status.status, status.next_run) == ("stopped", None)

    assert "nothing fires" in caplog.text
    assert ran == []
    assert list(tmp_path.iterdir()) == []


def test_what_waits_when_the_switch_is_set_goes_on_when_it_is_not(tmp_path: Path) -> None:
    """Fails if a run that is pending is executed, redriven or ended while the switch is set."""
    clock, ran = FakeClock(NOON), list[str]()

    def manager(**settings: Any) -> JobManager:
        url = f"sqlite:///{tmp_path}/jobs.db"
        made = JobManager(Settings(**settings, database_url=url, secret=SECRET, wait=True), clock=clock)
        made.add_job("work", lambda: ran.append("work"))
        return made

    before, off, after = manager(), manager(disabled=True), manager()
    run = before.trigger_job("work")
    answer = over_wsgi(off)(body := body_of(1, [run.id]), signed(body))
    assert (answer.status, ran, str(off.run(run.id).status)) == (503, [], "pending")
    assert not off.execute_here(run.id)

    with after:
        clock.advance(seconds=10)
    assert (ran, str(after.run(run.id).status)) == (["work"], "succeeded")
    for made in (before, off, after):
        made.store.close()


# ---------------------------------------------------------------- every method and every verb

READS = {
    "attempts", "audit", "check", "count_runs", "dead_letters", "dead_letters_by_error", "entries", "events", "executors", "get_all_job_statuses", "get_job_metrics",
    "children", "due_instants", "get_job", "get_job_status", "handlers", "health", "history", "instances", "is_executed_here", "keys", "logs", "notification",
    "list_jobs", "notification_message", "notifications", "principal_of_key", "run", "run_for", "runs", "runs_beside", "runs_by_id", "search_runs", "simulate", "stats", "storage", "wait", "webhooks",
    "event_waits", "sent_events", "standings", "steps", "totals",
}  # fmt: skip
DECLARES = {"add_job", "handler", "job", "schedule_cron_job", "schedule_job", "webhook"}
LIVES = {
    "after_fork", "after_fork_in_parent", "before_fork", "lifespan", "lifespan_with", "run_forever", "start", "stop",
}  # fmt: skip
DAY = timedelta(days=1)
WRITES: dict[str, Callable[[JobManager, dict[str, str]], object]] = {
    "backfill": lambda jobs, _: jobs.backfill("work", NOON - DAY, NOON),
    "bulk": lambda jobs, ids: jobs.bulk("cancel", [ids["pending"]]),
    "cancel": lambda jobs, ids: jobs.cancel(ids["pending"]),
    "create_key": lambda jobs, _: jobs.create_key("ci"),
    "create_job": lambda jobs, _: jobs.create_job("made", handler="work"),
    "create_webhook": lambda jobs, _: jobs.create_webhook("made", url="https://example.com/"),
    "delete_job": lambda jobs, _: jobs.delete_job("work"),
    "delete_webhook": lambda jobs, _: jobs.delete_webhook("hook"),
    "disable_job": lambda jobs, _: jobs.disable_job("work"),
    "discard": lambda jobs, ids: jobs.discard(ids["failed"]),
    "enable_job": lambda jobs, _: jobs.enable_job("work"),
    "drop_notification": lambda jobs, ids: jobs.drop_notification("some-notification"),
    "notify_admins": lambda jobs, _: jobs.notify_admins("hello"),
    "resend_notification": lambda jobs, ids: jobs.resend_notification("some-notification"),
    "test_notifications": lambda jobs, _: jobs.test_notifications(),
    "execute_here": lambda jobs, ids: jobs.execute_here(ids["pending"]),
    "override_job": lambda jobs, _: jobs.override_job("work", priority=3),
    "purge": lambda jobs, _: jobs.purge(),
    "purge_orphans": lambda jobs, _: jobs.purge_orphans(),
    "redrive": lambda jobs, ids: jobs.redrive(ids["failed"]),
    "redrive_all": lambda jobs, _: jobs.redrive_all(),
    "reset_job": lambda jobs, _: jobs.reset_job("overridden"),
    "resume_all_jobs": lambda jobs, _: jobs.resume_all_jobs(),
    "resume_job": lambda jobs, _: jobs.resume_job("paused"),
    "retire_secrets": lambda jobs, _: jobs.retire_secrets(),
    "revoke_key": lambda jobs, _: jobs.revoke_key("ci"),
    "rotate_secret": lambda jobs, _: jobs.rotate_secret(),
    "rotate_webhooks": lambda jobs, _: jobs.rotate_webhooks(),
    "seed": lambda jobs, _: jobs.seed({"made": {"handler": "work"}}),
    "send_event": lambda jobs, _: jobs.send_event("paid"),
    "set_entry_active": lambda jobs, _: jobs.set_entry_active("jm_sweep", False),
    "stop_all_jobs": lambda jobs, _: jobs.stop_all_jobs(),
    "stop_job": lambda jobs, _: jobs.stop_job("work"),
    "sync": lambda jobs, _: jobs.sync(),
    "test_webhook": lambda jobs, _: jobs.test_webhook("hook"),
    "trigger_job": lambda jobs, _: jobs.trigger_job("work"),
    "unschedule_entry": lambda jobs, _: jobs.unschedule_entry("jm_sweep"),
    "update_job": lambda jobs, _: jobs.update_job("work", priority=3),
    "update_webhook": lambda jobs, _: jobs.update_webhook("hook", timeout=3),
}
VERBS = {
    "trigger": ("trigger", "work"),
    "redrive": ("redrive", "{failed}"),
    "cancel": ("cancel", "{pending}"),
    "pause": ("jobs", "pause", "work"),
    "pause all": ("jobs", "pause", "--all"),
    "resume": ("jobs", "resume", "paused"),
    "resume all": ("jobs", "resume", "--all"),
    "override": ("override", "work", "priority=3"),
    "reset": ("override", "overridden", "--reset"),
    "backfill": ("backfill", "work", "--from", "2026-03-09", "--to", "2026-03-10"),
    "dead redrive": ("dead", "redrive"),
    "dead discard": ("dead", "discard", "{failed}"),
    "notifications resend": ("notifications", "resend", "some-notification"),
    "notifications drop": ("notifications", "drop", "some-notification"),
    "notifications test": ("notifications", "test"),
    "purge": ("purge", "--older-than", "0s", "--yes"),
    "sync": ("sync", "--apply"),
    "webhooks create": ("webhooks", "create", "made", "--url", "https://example.com/"),
    "webhooks edit": ("webhooks", "edit", "hook", "--timeout", "3"),
    "webhooks delete": ("webhooks", "delete", "hook", "--yes"),
    "webhooks test": ("webhooks", "test", "hook"),
    "webhooks rotate": ("webhooks", "rotate"),
}
SHOP = """
import os
from jobmanager import JobManager
jobs = JobManager()
if "JOBMANAGER_DISABLED" in os.environ:
    jobs.add_job("newcomer", lambda: 1)
jobs.add_job("work", lambda: 1, cron="0 * * * *")
for job in ("paused", "overridden"):
    jobs.add_job(job, lambda: 1)

@jobs.job("bad")
def bad(): raise OSError("no disk")
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[JobManager, dict[str, str]]]:
    """The manager of an application whose store holds something for each method to change; the switch is set."""
    (tmp_path / "shop_switched_off.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = importlib.import_module("shop_switched_off").jobs
    ids = {"pending": before.trigger_job("work").id, "failed": before.trigger_job("bad").id}
    before.stop_job("paused")
    before.create_webhook("hook", url="https://example.com/")
    before.override_job("overridden", priority=2)
    assert before.execute_here(ids["failed"])
    assert before.wait(ids["failed"], timeout=50).status == "failed"
    before.stop()
    before.store.close()
    del sys.modules["shop_switched_off"]
    monkeypatch.setenv("JOBMANAGER_DISABLED", "true")
    jobs = importlib.import_module("shop_switched_off").jobs
    yield jobs, ids
    jobs.store.close()
    sys.modules.pop("shop_switched_off", None)


def content(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "jobmanager.db")) as connection:
        return list(connection.iterdump())


def test_no_method_is_forgotten() -> None:
    names = {name for name, _ in inspect.getmembers(JobManager, callable) if not name.startswith("_")}
    assert names == READS | DECLARES | LIVES | WRITES.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITES)
def test_every_method_that_writes_is_refused_and_writes_nothing(
    shop: tuple[JobManager, dict[str, str]], tmp_path: Path, name: str
) -> None:
    jobs, ids = shop
    before = content(tmp_path)
    if name == "execute_here":  # it says whether it took the run
        assert WRITES[name](jobs, ids) is False
    else:
        with pytest.raises(
            JobDisabledError, match=r"^(Job|Key|Run|Event|No|Nothing) .* JOBMANAGER_DISABLED=true"
        ):
            WRITES[name](jobs, ids)
    assert content(tmp_path) == before


def test_a_job_that_is_declared_while_the_switch_is_set_is_not_stored(
    shop: tuple[JobManager, dict[str, str]], tmp_path: Path
) -> None:
    jobs, _ = shop
    before = content(tmp_path)
    with jobs:
        jobs.schedule_job("later", "Later", lambda: 1, interval=60)
    assert content(tmp_path) == before


@pytest.mark.slow
@pytest.mark.parametrize("name", VERBS)
def test_every_verb_that_writes_is_refused_and_writes_nothing(
    shop: tuple[JobManager, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    _, ids = shop
    before = content(tmp_path)

    code = main(["--app", "shop_switched_off:jobs", *(word.format(**ids) for word in VERBS[name])])

    said = capsys.readouterr()
    assert (code, "JOBMANAGER_DISABLED=true" in said.err) == (3, True), said
    assert content(tmp_path) == before

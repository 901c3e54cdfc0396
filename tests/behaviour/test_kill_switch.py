"""JOBMANAGER_DISABLED and noop switch everything off, also what is called for from outside; nothing runs, and a sentence says why."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.calls import OTHER_SECRET, RUNS, SECRET, Replied, ask, ask_wsgi, bearer, body_of, signed

from jobmanager import JobManager, Settings
from jobmanager.backends.local import LocalBackend
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

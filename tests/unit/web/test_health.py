"""`/healthz` and `/readyz`: one bit, without login and details, the same over ASGI and WSGI."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace

import pytest
from tests.calls import Jobs, Replied, ask, ask_wsgi

from jobmanager.process.health import HealthReport, Symptom
from jobmanager.web import asgi, wsgi

SECRETIVE = Symptom(kind="overdue", text="A tick of 'pay-salaries' is overdue.", fix="Look.")


def jobs_that(*, failing: bool = False, ready: bool = True, **settings: object) -> Jobs:
    jobs = Jobs(**settings)
    jobs.report = HealthReport(ready=ready, symptoms=(SECRETIVE,) if failing else ())
    return jobs


async def both(make: object, path: str, **more: object) -> Replied:
    """The response, which is the same over ASGI and WSGI."""
    over_asgi = await ask(asgi(make()), b"", path=path, **{"method": "GET", **more})
    over_wsgi = ask_wsgi(wsgi(make()), b"", path=path, **{"method": "GET", **more})
    assert over_wsgi == over_asgi
    return over_asgi


@pytest.mark.parametrize("path", ["/jobs/healthz", "/jobs/readyz", "/jobs/healthz/"])
async def test_a_process_that_is_well_is_200_without_a_key(path: str) -> None:
    replied = await both(jobs_that, path)
    assert (replied.status, replied.body) == (200, b'{"ok":true}')
    assert replied.headers["cache-control"] == "no-store"


async def test_a_symptom_is_503_and_shows_no_detail(caplog: pytest.LogCaptureFixture) -> None:
    replied = await both(lambda: jobs_that(failing=True), "/jobs/healthz")
    assert (replied.status, replied.body) == (503, b'{"ok":false}')
    assert "healthz is 503: A tick of 'pay-salaries' is overdue." in caplog.text


async def test_a_warning_is_no_failure() -> None:
    def make() -> Jobs:
        jobs = Jobs()
        jobs.report = HealthReport(
            ready=True, symptoms=(Symptom(kind="process_stalled", text="x", fix="y", failing=False),)
        )
        return jobs

    assert (await both(make, "/jobs/healthz")).status == 200


async def test_readiness_is_a_question_of_its_own() -> None:
    assert (await both(lambda: jobs_that(ready=False), "/jobs/readyz")).status == 503
    assert (await both(lambda: jobs_that(ready=False), "/jobs/healthz")).status == 200
    assert (await both(lambda: jobs_that(failing=True), "/jobs/readyz")).status == 200


async def test_probes_stand_beside_the_run_path_and_below_a_mount() -> None:
    assert (await both(lambda: jobs_that(run_path="/internal/tick-me"), "/internal/healthz")).status == 200
    assert (await both(jobs_that, "/healthz", mount="/jobs")).status == 200
    assert (await both(jobs_that, "/healthz")).status == 404
    assert (await both(jobs_that, "/other/jobs/healthz")).status == 404


async def test_a_host_may_ask_by_head_and_by_nothing_else() -> None:
    head = await both(jobs_that, "/jobs/healthz", method="HEAD")
    assert (head.status, head.body) == (200, b"")
    post = await both(jobs_that, "/jobs/healthz", method="POST")
    assert (post.status, post.headers["allow"]) == (405, "GET, HEAD")


def test_many_who_ask_at_once_cost_one_look() -> None:
    jobs = jobs_that()
    app = wsgi(jobs)
    threads = [
        threading.Thread(target=ask_wsgi, args=(app, b""), kwargs={"path": "/jobs/healthz", "method": "GET"})
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert jobs.asked_for_health == 1


async def test_probes_reply_while_every_thread_of_the_calls_is_taken() -> None:
    jobs = jobs_that(workers=1)
    app = asgi(jobs)
    busy = threading.Event()
    blocked = app._batcher().do(lambda: SimpleNamespace(waited=busy.wait(10)))  # type: ignore[arg-type,return-value]
    task = asyncio.ensure_future(blocked)
    try:
        assert (await ask(app, b"", path="/jobs/healthz", method="GET")).status == 200
    finally:
        busy.set()
        await task

"""Calls over ASGI: what the manager is asked, what is answered, and that many at once are accepted together."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from tests.calls import DUE, RUNS, Jobs, Replied, ask, ask_wsgi, bearer, body_of, signed

from jobmanager.errors import (
    BackPressureError,
    ConfigurationError,
    StoppedError,
    StoreError,
    StoreUnavailableError,
)
from jobmanager.run import RunStatus, Ticked
from jobmanager.web import asgi, work, wsgi
from jobmanager.web.body import LARGEST
from jobmanager.web.held import MOST_HELD, OF_THIS_PROCESS, HeldCalls

AWAY = StoreUnavailableError("the database is down")


async def call(app, number: int = 17, runs=RUNS[:2], kind: str = "ticks", **more) -> Replied:
    body = body_of(number, runs, kind)
    return await ask(app, body, signed(body, call_id=f"call_{number}"), **more)


async def until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_a_call_is_answered_202_after_its_runs_are_accepted():
    jobs = Jobs(known=RUNS[:1])
    answer = await call(asgi(jobs))

    assert (answer.status, answer.body) == (202, b'{"call":17,"accepted":1,"known":1}')
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cache-control"] == "no-store"
    assert jobs.host.asked == [("accept", RUNS[:2])]


async def test_nothing_is_answered_before_the_accept_has_returned():
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    answering = asyncio.ensure_future(call(asgi(jobs)))
    await asyncio.sleep(0.05)
    assert not answering.done()
    committed.set()
    assert (await answering).status == 202


async def test_an_empty_call_is_a_way_to_try_the_whole_path():
    jobs = Jobs()
    assert (await call(asgi(jobs), runs=[])).said == {"call": 17, "accepted": 0, "known": 0}
    assert jobs.host.verbs() == ["accept"]


@pytest.mark.parametrize("kind", ["plan", "sweep"])
async def test_a_call_may_order_a_plan_or_a_sweep(kind):
    jobs = Jobs()
    answer = await call(asgi(jobs), runs=[], kind=kind)
    assert (answer.status, answer.said) == (202, {"call": 17, "accepted": 0, "known": 0})
    assert jobs.host.verbs() == [kind]


# ---------------------------------------------------------------- the same call again


async def test_a_repeated_call_gets_the_same_answer_and_is_not_done_again():
    jobs = Jobs()
    app = asgi(jobs)
    first = await call(app)
    jobs.host.known.clear()
    body = body_of()
    again = await ask(
        app, body, signed(body, at=time.time() - 200)
    )  # signed anew, as the number and body are the same
    assert (again.status, again.body) == (first.status, first.body)
    assert jobs.host.verbs() == ["accept"]


async def test_a_repeat_during_the_first_waits_for_the_same_answer():
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    answering = [asyncio.ensure_future(call(app)) for _ in range(3)]
    await asyncio.sleep(0.05)
    answering[1].cancel()  # its caller goes away
    committed.set()
    assert [(await answering[n]).body for n in (0, 2)] == [b'{"call":17,"accepted":2,"known":2}'] * 2
    assert jobs.host.verbs() == ["accept"]


async def test_a_repeat_is_answered_though_the_caller_of_the_first_went_away():
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    first = asyncio.ensure_future(call(app))
    await asyncio.sleep(0.02)
    second = asyncio.ensure_future(call(app))
    await asyncio.sleep(0.02)
    first.cancel()
    assert (await second).status == 503  # it may be sent again
    committed.set()
    assert (await call(app)).status == 202


async def test_the_same_number_with_other_runs_is_another_call():
    jobs = Jobs()
    app = asgi(jobs)
    await call(app, runs=RUNS[:1])
    assert (await call(app, runs=RUNS[:3])).said["accepted"] == 3


async def test_a_call_that_failed_is_done_when_it_comes_again():
    jobs = Jobs()
    app = asgi(jobs)
    jobs.host.troubles += [AWAY, AWAY]
    assert (await call(app)).status == 503
    assert (await call(app)).status == 202


# ---------------------------------------------------------------- many at once


async def test_calls_that_come_during_an_accept_are_accepted_together():
    jobs = Jobs(known=RUNS[:50])
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    answering = [asyncio.ensure_future(call(app, n, RUNS[n * 10 : n * 10 + 10])) for n in range(7)]
    await asyncio.sleep(0.05)
    committed.set()
    answers = [await one for one in answering]

    assert [one.said for one in answers] == [
        {"call": n, "accepted": 10 if n < 5 else 0, "known": 10 if n < 5 else 0} for n in range(7)
    ]
    assert [len(what) for _, what in jobs.host.asked] == [10, 60]


async def test_a_run_in_two_calls_at_once_is_asked_for_once_and_counted_in_both():
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    answering = [asyncio.ensure_future(call(app, n, RUNS[:2])) for n in range(3)]
    await asyncio.sleep(0.05)
    committed.set()
    assert [(await one).said["accepted"] for one in answering] == [2, 2, 2]
    assert [what for _, what in jobs.host.asked] == [RUNS[:2], RUNS[:2]]


async def test_what_is_accepted_together_is_bounded():
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    answering = [asyncio.ensure_future(call(app, n, RUNS[n : n + 1600])) for n in range(14)]
    await asyncio.sleep(0.2)
    committed.set()
    assert {(await one).status for one in answering} == {202}
    assert len(jobs.host.asked) == 1 + 3  # the first alone, then five calls of 1,600 ids at most


async def test_one_call_that_breaks_the_accept_fails_alone(caplog):
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    first = asyncio.ensure_future(call(app, 0))
    await asyncio.sleep(0.02)
    together = [asyncio.ensure_future(call(app, n, RUNS[n : n + 1])) for n in (1, 2, 3)]
    await asyncio.sleep(0.02)
    real = jobs.host.accept

    def accept(run_ids):
        if RUNS[2] in run_ids:
            raise ZeroDivisionError("of a bug")
        return real(run_ids)

    jobs.host.accept = accept  # type: ignore[method-assign]
    committed.set()
    assert (await first).status == 202
    assert [(await one).status for one in together] == [202, 500, 202]
    assert caplog.text.count("500 for a call") == 1


async def test_a_store_that_is_away_fails_all_of_them_without_asking_for_each():
    jobs = Jobs()
    committed = threading.Event()
    jobs.host.before_accept = committed.wait
    app = asgi(jobs)
    first = asyncio.ensure_future(call(app, 0))
    await asyncio.sleep(0.02)
    together = [asyncio.ensure_future(call(app, n)) for n in range(1, 6)]
    await asyncio.sleep(0.02)
    jobs.host.asked.clear()
    jobs.host.troubles += [AWAY] * 4
    committed.set()
    assert {(await one).status for one in [first, *together]} == {503}
    assert len(jobs.host.asked) == 4  # each accept twice


async def test_what_blocks_the_application_keeps_no_call_waiting():
    """Fails if calls share the loop's default threads with the application."""
    loop = asyncio.get_running_loop()
    release = threading.Event()
    blocked = [loop.run_in_executor(None, release.wait) for _ in range(64)]
    try:
        assert (await asyncio.wait_for(call(asgi(Jobs())), 5)).status == 202
    finally:
        release.set()
        await asyncio.gather(*blocked)


def test_each_loop_has_its_own_threads_and_none_outlives_its_loop():
    app = asgi(Jobs())
    with ThreadPoolExecutor(1) as elsewhere:  # this thread's loop is pytest's
        for number in range(3):
            assert elsewhere.submit(asyncio.run, call(app, number)).result(10).status == 202
    deadline = time.monotonic() + 10
    while list(app._batchers):  # a thread may just be putting its last call down
        assert time.monotonic() < deadline
        gc.collect()


# ---------------------------------------------------------------- trouble


async def test_a_store_that_answers_the_second_time_is_no_trouble():
    jobs = Jobs()
    jobs.host.troubles += [AWAY]
    assert (await call(asgi(jobs))).status == 202
    assert jobs.host.verbs() == ["accept", "accept"]


@pytest.mark.parametrize(
    ("troubles", "times"),
    [
        ([AWAY, AWAY], 2),
        ([StoreError("no")], 1),
        ([BackPressureError("full")], 1),
        ([AWAY, StoreError("no")], 2),
        ([StoppedError("meanwhile")], 1),
    ],
)
async def test_trouble_that_may_pass_is_503_and_when_to_come_back(troubles, times, caplog):
    jobs = Jobs()
    jobs.host.troubles += troubles
    answer = await call(asgi(jobs))

    assert answer.status == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.said == {"error": "unavailable, try again"}
    assert len(jobs.host.asked) == times
    assert "503 for a call" in caplog.text


async def test_a_bug_is_500_without_details_and_once_in_the_log(caplog):
    jobs = Jobs()
    jobs.host.troubles += [RuntimeError("password=hunter2 in /srv/app.py")]
    answer = await call(asgi(jobs))

    assert (answer.status, answer.said) == (500, {"error": "internal error"})
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.exc_info is not None


# ---------------------------------------------------------------- the manager's life


async def test_the_first_call_starts_the_manager_and_the_next_ones_do_not():
    jobs = Jobs()
    app = asgi(jobs)
    assert jobs.starts == 0  # nothing is started by mounting it
    for number in range(3):
        await call(app, number)
    assert jobs.starts == 1


async def test_a_stranger_starts_nothing():
    jobs = Jobs()
    app = asgi(jobs)
    assert (await ask(app, body_of(), {})).status == 401
    assert (await ask(app, body_of(), bearer("x"), path="/jobs/tick/report")).status == 401
    assert jobs.starts == 0


@pytest.mark.parametrize("trouble", [ConfigurationError("no handler"), AWAY, RuntimeError("bug")])
async def test_a_manager_that_does_not_start_is_503_until_it_does(trouble, caplog):
    jobs = Jobs()
    jobs.trouble = trouble
    app = asgi(jobs)
    answer = await call(app)
    assert answer.status == 503
    assert str(trouble) not in answer.body.decode()
    assert f"does not start: {type(trouble).__name__}: {trouble}" in caplog.text
    assert jobs.host.asked == []

    jobs.trouble = None
    assert (await call(app)).status == 202


async def test_a_manager_that_was_stopped_is_not_started_again_by_a_late_call():
    jobs = Jobs()
    app = asgi(jobs)
    await call(app, 1)
    jobs.stop()
    assert (await call(app, 2)).status == 503
    assert jobs.starts == 1

    jobs.start()
    assert (await call(app, 2)).status == 202


async def test_alone_on_a_server_it_starts_and_stops_the_manager():
    jobs = Jobs()
    sent = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    started = []

    async def receive():
        started.append(jobs.started)
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    await asgi(jobs)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert started == [False, True]
    assert not jobs.started


async def test_alone_on_a_server_it_says_when_the_manager_does_not_start():
    jobs = Jobs()
    jobs.trouble = ConfigurationError("no handler")
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message)

    await asgi(jobs)({"type": "lifespan"}, receive, send)
    assert sent == [{"type": "lifespan.startup.failed", "message": "no handler"}]


async def test_alone_on_a_server_it_says_when_the_manager_does_not_stop():
    jobs = Jobs()
    jobs.stop = lambda: 1 / 0  # type: ignore[method-assign]
    sent = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        sent.append(message["type"])

    await asgi(jobs)({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.failed"]


# ---------------------------------------------------------------- wait mode


async def test_in_wait_mode_the_runs_are_executed_before_the_answer_which_counts_how_they_ended():
    jobs = Jobs(known=RUNS[:2], wait=True)
    answer = await call(asgi(jobs), runs=RUNS[:3])

    assert answer.status == 200
    assert answer.said == {"call": 17, "accepted": 2, "known": 2, "outcomes": {"succeeded": 2}}
    assert jobs.host.asked == [("accept", RUNS[:3]), ("execute", RUNS[:2])]
    assert jobs.starts == 0


async def test_in_wait_mode_runs_that_another_thread_executes_are_waited_for():
    jobs = Jobs(wait=True)
    ended = threading.Event()
    real = jobs.run
    asked = threading.Semaphore(0)

    def run(run_id):
        asked.release()
        return real(run_id) if ended.is_set() else SimpleNamespace(status=RunStatus.RUNNING)

    jobs.run = run  # type: ignore[method-assign]
    answering = asyncio.ensure_future(call(asgi(jobs)))
    await until(lambda: asked._value > 1)
    assert not answering.done()
    ended.set()
    assert (await answering).said["outcomes"] == {"succeeded": 2}


async def test_in_wait_mode_the_answer_does_not_wait_for_ever():
    jobs = Jobs(wait=True, wait_seconds=0.1)
    jobs.run = lambda run_id: SimpleNamespace(status=RunStatus.RUNNING)  # type: ignore[method-assign]
    assert (await call(asgi(jobs))).said["outcomes"] == {"running": 2}


async def test_in_wait_mode_a_repeat_waits_for_the_first_and_executes_nothing():
    jobs = Jobs(wait=True)
    app = asgi(jobs)
    first, second = await asyncio.gather(call(app), call(app))
    assert first.body == second.body == (await call(app)).body
    assert jobs.host.verbs() == ["accept", "execute"]


async def test_in_wait_mode_long_handlers_keep_no_other_call_waiting():
    jobs = Jobs(wait=True)
    release, held = threading.Event(), threading.Semaphore(0)
    real = jobs.host.execute

    def execute(run_ids):
        if RUNS[0] in run_ids:
            held.release()
            release.wait(10)
        real(run_ids)

    jobs.host.execute = execute  # type: ignore[method-assign]
    app = asgi(jobs)
    long = [asyncio.ensure_future(call(app, n, RUNS[:1])) for n in range(8)]
    await until(lambda: held._value == 8)
    assert (await asyncio.wait_for(call(app, 99, RUNS[1:2]), 5)).status == 200
    release.set()
    assert {(await one).status for one in long} == {200}


async def test_in_wait_mode_trouble_is_told_like_any_other():
    jobs = Jobs(wait=True)
    app = asgi(jobs)
    real = jobs.host.accept

    def accept(run_ids):
        accepted = real(run_ids)
        jobs.host.troubles += [AWAY, AWAY]
        return accepted

    jobs.host.accept = accept  # type: ignore[method-assign]
    assert (await call(app)).status == 503


async def test_a_run_that_was_purged_meanwhile_is_not_counted():
    jobs = Jobs(known=RUNS[:2], wait=True)
    real = jobs.host.execute

    def execute(run_ids):
        real(run_ids)
        jobs.host.known.discard(RUNS[0])

    jobs.host.execute = execute  # type: ignore[method-assign]
    assert (await call(asgi(jobs))).said["outcomes"] == {"succeeded": 1}


# ---------------------------------------------------------------- ticks of others


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_ticker_of_another_kind_names_the_job(method):
    jobs = Jobs()
    answer = await ask(asgi(jobs), b"ignored", bearer(), path="/jobs/tick/report", method=method)

    assert answer.status == 202
    assert answer.said == {
        "job": "report",
        "finding": "opened",
        "run": RUNS[0],
        "scheduled_for": "2026-01-02T03:04:00+00:00",
    }
    assert (jobs.host.asked, jobs.starts) == ([("tick", "report")], 1)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("over", ["asgi", "wsgi"])
async def test_a_ticker_that_names_no_job_calls_for_all(over, method):
    """Fails if the path without a job is not ours, or needs another key than that with one."""
    jobs = Jobs()
    request = {"path": "/jobs/tick", "method": method}
    if over == "asgi":
        answer = await ask(asgi(jobs), b"ignored", bearer(), **request)
        refused = await ask(asgi(jobs), b"", bearer("wrong"), **request)
    else:
        answer = ask_wsgi(wsgi(jobs), b"ignored", bearer(), **request)
        refused = ask_wsgi(wsgi(jobs), b"", bearer("wrong"), **request)

    assert answer.status == 202
    opened = {
        "job": "report",
        "finding": "opened",
        "run": RUNS[0],
        "scheduled_for": "2026-01-02T03:04:00+00:00",
    }
    assert answer.said == {"jobs": [opened]}
    assert jobs.host.asked == [("tick_all", None)]
    assert refused.status == 401


async def test_a_call_for_all_jobs_that_is_early_is_held_or_told_to_come_again():
    """Fails if such a call is tried again without the instant that it waits for: a frequent job would hold it for ever."""
    jobs = Jobs(wait=True)
    jobs.host.early += [early(0.01), early(20, may_be_held=False)]
    again = await ask(asgi(jobs), b"", bearer(), path="/jobs/tick")
    assert (again.status, again.headers["retry-after"], again.said) == (
        425,
        "20",
        {"finding": "early", "due_in": 20},
    )
    assert jobs.host.asked == [("tick_all", None), ("tick_all", DUE)]
    jobs.host.early += [early(0.01)]
    held = await ask(asgi(jobs), b"", bearer(), path="/jobs/tick")
    assert (held.status, held.said["outcomes"]) == (200, {"succeeded": 1})


@pytest.mark.parametrize("over", ["asgi", "wsgi"])
async def test_an_instant_is_that_of_a_job(over):
    jobs, body = Jobs(), b'{"scheduled_for": "2026-01-02T03:04:00Z"}'
    if over == "asgi":
        answer = await ask(asgi(jobs), body, bearer(), path="/jobs/tick")
    else:
        answer = ask_wsgi(wsgi(jobs), body, bearer(), path="/jobs/tick")
    assert (answer.status, answer.said["error"]) == (400, "scheduled_for needs a job: call /jobs/tick/JOB")
    assert jobs.host.asked == []


async def test_an_unknown_job_is_told_to_those_who_may_know():
    app = asgi(Jobs())
    assert (await ask(app, b"", bearer(), path="/jobs/tick/nope", method="GET")).status == 404
    known = await ask(app, b"", bearer("wrong"), path="/jobs/tick/report", method="GET")
    unknown = await ask(app, b"", bearer("wrong"), path="/jobs/tick/nope", method="GET")
    assert (known.status, known.body) == (unknown.status, unknown.body) == (401, b'{"error":"unauthorized"}')


async def test_in_wait_mode_a_tick_executes_its_run():
    jobs = Jobs(wait=True)
    answer = await ask(asgi(jobs), b"", bearer(), path="/jobs/tick/report", method="GET")
    assert (answer.status, answer.said["outcomes"]) == (200, {"succeeded": 1})
    assert jobs.host.verbs() == ["tick", "execute"]


@pytest.mark.parametrize(("troubles", "status"), [([AWAY], 202), ([AWAY, AWAY], 503), ([KeyError("x")], 500)])
async def test_trouble_with_a_tick_is_told_like_any_other(troubles, status):
    jobs = Jobs()
    jobs.host.troubles += troubles
    answer = await ask(asgi(jobs), b"", bearer(), path="/jobs/tick/report", method="GET")
    assert answer.status == status


def early(due_in: float, *, may_be_held: bool = True) -> Ticked:
    return Ticked("early", None, DUE, due_in=due_in, may_be_held=may_be_held)


async def test_calls_that_are_held_take_no_thread():
    """Fails if more early calls than workers keep a call that could be answered at once."""
    jobs = Jobs(workers=2)
    app = asgi(jobs)
    jobs.host.early += [early(0.5)] * 8
    held = [
        asyncio.ensure_future(ask(app, b"", bearer(), path="/jobs/tick/report", method="GET"))
        for _ in range(8)
    ]
    await until(lambda: not jobs.host.early)
    assert (await ask(app, b"", bearer(), path="/jobs/tick/report", method="GET")).said["run"] == RUNS[0]
    assert not any(one.done() for one in held)
    assert {answer.status for answer in await asyncio.gather(*held)} == {202}
    assert len(jobs.host.asked) == 17


@pytest.mark.slow
async def test_a_call_whose_instant_never_comes_is_told_to_come_again():
    """Fails if a store's clock that runs slow holds a call for ever."""
    jobs = Jobs()
    jobs.host.early += [early(4.9), early(4.9)]
    answer = await ask(asgi(jobs), b"", bearer(), path="/jobs/tick/report", method="GET")
    assert (answer.status, answer.headers["retry-after"]) == (425, "5")
    assert answer.said["due_in"] == 4.9


async def test_no_more_than_a_hundred_calls_are_held(monkeypatch):
    """Fails if a process holds as many calls as come."""
    monkeypatch.setattr(work.Work.__init__, "__defaults__", (HeldCalls(3),))
    jobs = Jobs()
    jobs.host.early += [early(0.3)] * 4
    app = asgi(jobs)
    answers = await asyncio.gather(
        *[ask(app, b"", bearer(), path="/jobs/tick/report", method="GET") for _ in range(4)]
    )
    assert sorted(answer.status for answer in answers) == [202, 202, 202, 503]
    assert OF_THIS_PROCESS._free._value == MOST_HELD == 100
    (full,) = (answer for answer in answers if answer.status == 503)
    assert full.headers["retry-after"] == "1"


@pytest.mark.parametrize("over", ["asgi", "wsgi"])
@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (b'{"scheduled_for": "2026-03-11T02:00:00Z"}', ("report", datetime(2026, 3, 11, 2, tzinfo=UTC))),
        (
            b'{"scheduled_for": "2026-03-11T03:00:00+01:00", "x": 1}',
            ("report", datetime(2026, 3, 11, 2, tzinfo=UTC)),
        ),
        (b'{"scheduled_for": null}', "report"),
        (b"{}", "report"),
        (b"[1]", "report"),
        (b"", "report"),
        (b"no JSON", "report"),
        (b"\xff", "report"),
    ],
)
async def test_a_ticker_may_name_its_instant(over, body, asked):
    """Fails if a body of a ticker's own is refused, or if another instant is asked for than the one that is named."""
    jobs = Jobs()
    if over == "asgi":
        answer = await ask(asgi(jobs), body, bearer(), path="/jobs/tick/report")
    else:
        answer = ask_wsgi(wsgi(jobs), body, bearer(), path="/jobs/tick/report")
    assert answer.status == 202
    assert jobs.host.asked == [("tick", asked)]


@pytest.mark.parametrize(
    "named", ["2026-03-11T02:00:00", "2026-03-11", "soon", 5, True, ["x"], "0001-01-01T00:00:00+14:00"]
)
async def test_an_instant_that_is_none_is_refused_with_a_sentence(named):
    """Fails if a caller that names an instant wrongly gets the run of another one."""
    jobs = Jobs()
    body = json.dumps({"scheduled_for": named}).encode()
    answer = await ask(asgi(jobs), body, bearer(), path="/jobs/tick/report")
    assert (answer.status, jobs.host.asked) == (400, [])
    assert answer.said["error"].startswith("scheduled_for ")


async def test_the_body_of_a_tick_is_bounded():
    """Fails if a ticker's body may be as long as it likes."""
    jobs = Jobs()
    for answer in (
        await ask(asgi(jobs), b" " * (LARGEST + 1), bearer(), path="/jobs/tick/report"),
        await ask(
            asgi(jobs), b"", {**bearer(), "content-length": str(LARGEST + 1)}, path="/jobs/tick/report"
        ),
    ):
        assert (answer.status, jobs.host.asked) == (413, [])


# ---------------------------------------------------------------- reading


async def test_a_body_in_pieces_is_put_together():
    body = body_of(17, RUNS[:100])
    pieces = [body[start : start + 7] for start in range(0, len(body), 7)]
    assert (await ask(asgi(Jobs()), headers=signed(body), chunks=pieces)).said["accepted"] == 100


async def test_an_endless_body_is_not_read_to_its_end():
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield b" " * 1024

    answer = await ask(asgi(Jobs()), headers=signed(b""), chunks=endless())
    assert answer.status == 413
    assert taken <= LARGEST // 1024 + 3


async def test_the_body_of_a_stranger_is_not_read_at_all():
    async def receive():
        raise AssertionError("read")

    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/jobs/run", "headers": [], "client": None}
    await asgi(Jobs())(scope, receive, send)
    assert sent[0]["status"] == 401


async def test_a_caller_who_goes_away_is_answered_nothing():
    jobs = Jobs()

    async def receive():
        return {"type": "http.disconnect"}

    sent = []

    async def send(message):
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in signed(body_of()).items()]
    scope = {"type": "http", "method": "POST", "path": "/jobs/run", "headers": headers}
    await asgi(jobs)(scope, receive, send)
    assert sent == []
    assert jobs.host.asked == []


async def test_head_gets_no_body():
    answer = await ask(asgi(Jobs()), b"", {}, method="HEAD")
    assert (answer.status, answer.body, answer.headers["allow"]) == (405, b"", "POST")


# ---------------------------------------------------------------- beside an application


async def test_what_is_not_ours_is_not_found_or_goes_to_the_application_behind():
    assert (await ask(asgi(Jobs()), path="/other")).status == 404

    async def behind(scope, receive, send):
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    app = asgi(Jobs(), otherwise=behind)
    assert (await ask(app, path="/other")).body == b"/other"
    assert (await call(app)).status == 202


@pytest.mark.parametrize(
    ("path", "raw", "status"),
    [
        ("/run/", "/jobs/run", 202),  # mounted in Litestar at /jobs
        ("jobs/run/", "/jobs/run", 202),  # and at /
        ("/run/", "/jobs/run/", 202),
        ("/jobs/run/", "/api/jobs/run", 202),
        ("/jobs/run", "/jobs/run?x=1", 202),
        ("/jobs/run", "/jobs/%72un", 202),
        ("/run/", "/jobz/run", 404),
        ("/x/jobs/run", "/x/jobs/run", 404),
        ("//jobs/run", "//jobs/run", 404),
        ("/run", "/run", 404),
    ],
)
async def test_a_prefix_that_was_taken_off_silently_is_found_in_what_came_over_the_wire(path, raw, status):
    assert (await call(asgi(Jobs()), path=path, raw=raw)).status == status


async def test_lifespan_and_websockets_go_to_the_application_behind():
    seen = []

    async def behind(scope, receive, send):
        seen.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        await asgi(Jobs(), otherwise=behind)({"type": kind, "path": "/jobs/run"}, None, None)
    assert seen == ["lifespan", "websocket"]

    sent = []

    async def send(message):
        sent.append(message)

    await asgi(Jobs())({"type": "websocket", "path": "/jobs/run"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1000}]


async def test_answers_are_json_of_the_length_they_say():
    app = asgi(Jobs())
    for answer in [
        await call(app),
        await ask(app, b"", {}),
        await ask(app, path="/other"),
        await ask(app, b"", {}, method="PUT"),
    ]:
        assert int(answer.headers["content-length"]) == len(answer.body)
        assert isinstance(json.loads(answer.body), dict)
        assert "location" not in answer.headers

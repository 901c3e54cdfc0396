"""The loop is closed: whatever becomes of a call, its outcome has a name and its run starts once (docs/internals/pg_cron.md#sweep-of-calls)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, timedelta

import psycopg
import pytest
from tests.faults.conftest import until
from tests.pg_net.loop import SECRET, Loop
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Reply, redirect
from tests.servers import PgCron

pytestmark = [pytest.mark.servers, pytest.mark.slow]

LATER = 62.0  # seconds: whatever backoff there is, it is over


@pytest.fixture
def pg_cron_url(still_pg_cron_url: str) -> str:
    """Where no entry runs by itself: a full minute that comes while a test gets ready would bring ticks of its own."""
    return still_pg_cron_url


@pytest.fixture
def loop(pg_cron_url: str, pg_net: StandIn) -> Iterator[Loop]:
    with Loop(pg_cron_url, pg_net) as loop:
        yield loop


def test_a_call_is_signed_accepted_and_executed_once(loop: Loop) -> None:
    instant = loop.make_due()

    assert loop.fire() == 1
    loop.succeeded()
    loop.answered()
    loop.sweep()

    assert loop.started == [("work", instant)]
    assert loop.outcomes() == ["accepted"]
    assert loop.sweep(after=LATER) == 0
    [request] = loop.gate.received
    assert request.method == "POST"
    assert request.json() == {"v": 1, "call": 1, "kind": "ticks", "runs": [loop.manager.runs("work")[0].id]}
    from standardwebhooks import Webhook

    headers = {name.lower(): value for name, value in request.headers}
    assert Webhook(SECRET).verify(request.body, headers)


ANSWERS: dict[str, Reply] = {
    "unauthorized": Reply(status=401),
    "wrong_path": Reply(status=404),
    "wrong_method": Reply(status=405),
    "too_large": Reply(status=413),
    "rate_limited": Reply(status=429),
    "server_error": Reply(status=500),
    "http_418": Reply(status=418),
    "not_ours": Reply(status=200, body=b"<html>Please log in</html>"),
    "network": Reply(hang_up=True),
}


@pytest.mark.parametrize("label", ANSWERS)
def test_a_refused_call_is_named_and_made_again(loop: Loop, label: str) -> None:
    loop.gate.reply = ANSWERS[label]
    loop.make_due()
    loop.fire()
    loop.answered()

    loop.sweep()
    assert loop.outcomes() == [label]
    assert loop.started == []
    loop.gate.reply = loop.application
    assert loop.sweep(after=LATER) == 1

    loop.succeeded()
    loop.answered(2)
    loop.sweep(after=LATER)
    assert loop.outcomes() == [label, "accepted"]


def test_a_redirect_that_ends_at_a_page_is_not_our_answer(loop: Loop) -> None:
    """pg_net follows it, makes a GET of the POST, and notes 200."""
    loop.gate.replies["/jobs/run"] = redirect("/login")
    loop.gate.reply = Reply(status=200, body=b'{"call":99}')
    loop.make_due()
    loop.fire()
    loop.answered()

    loop.sweep()

    assert loop.outcomes() == ["not_ours"]
    loop.gate.replies.clear()
    loop.gate.reply = loop.application
    loop.sweep(after=LATER)
    loop.succeeded()


def refuse(loop: Loop) -> Callable[[], object]:
    loop.gate.stop()
    return loop.gate.start


def lose_the_name(loop: Loop) -> Callable[[], object]:
    url = loop.ask("SELECT url FROM jobmanager.tickers")
    loop.ask("UPDATE jobmanager.tickers SET url = 'http://no-such-host.invalid/jobs/run' RETURNING 1")
    return lambda: loop.ask("UPDATE jobmanager.tickers SET url = %s RETURNING 1", url)


def be_slow(loop: Loop) -> Callable[[], object]:
    loop.ask("UPDATE jobmanager.tickers SET timeout_ms = 1000 RETURNING 1")
    loop.gate.reply = Reply(delay=3)

    def repair() -> None:
        loop.gate.reply = loop.application

    return repair


@pytest.mark.parametrize(
    ("break_it", "label"), [(refuse, "refused"), (lose_the_name, "dns"), (be_slow, "timeout")]
)
def test_an_application_out_of_reach_is_named_and_called_again(
    loop: Loop, break_it: Callable[[Loop], Callable[[], object]], label: str
) -> None:
    repair = break_it(loop)
    loop.make_due()
    loop.fire()
    loop.answered()
    loop.sweep()
    assert loop.outcomes() == [label]

    repair()
    loop.sweep(after=LATER)

    loop.succeeded()


def test_an_old_signature_is_the_workers_fault_and_a_fresh_one_is_accepted(loop: Loop) -> None:
    instant = loop.make_due(minutes=7)
    loop.fire(instant)  # sent by then; the queue stood still until now
    loop.answered()

    assert loop.sweep() == 1

    assert loop.outcomes()[0] == "worker_stalled"
    loop.succeeded()


def test_a_call_answered_too_late_whose_runs_were_accepted_is_no_failure(loop: Loop) -> None:
    """As in a burst of thousands. Fails if pg_net's time-out alone says what became of a call."""
    loop.connection.execute("UPDATE jobmanager.tickers SET timeout_ms = 1000")
    loop.gate.reply = lambda request: replace(loop.application(request), delay=3)
    loop.make_due()
    loop.fire()
    loop.answered()
    loop.succeeded()
    assert loop.ask("SELECT timed_out FROM net._http_response")

    assert loop.sweep(after=LATER) == 0

    assert loop.connection.execute("SELECT outcome, detail FROM jobmanager.calls").fetchall() == [
        ("accepted", None)
    ]


@pytest.mark.parametrize("switch", ["drop", "truncate", "crash_after_send"])
def test_a_lost_call_is_made_again(loop: Loop, switch: str) -> None:
    setattr(loop.stand_in, switch, 1)
    loop.make_due()
    loop.fire()
    if switch == "crash_after_send":
        loop.succeeded()  # the call arrived, and its answer never will
    else:
        until(lambda: getattr(loop.stand_in, switch) == 0 and loop.is_sent())

    loop.sweep(after=16)

    # Accepted runs are evidence enough; the worker that died sends its batch again.
    assert loop.outcomes()[0] == ("accepted" if switch == "crash_after_send" else "lost")
    loop.succeeded()


def test_a_call_that_waits_for_a_worker_is_no_lost_one(loop: Loop) -> None:
    loop.stand_in.stop()
    loop.make_due()
    loop.fire()

    loop.sweep(after=16)
    assert loop.outcomes()[0] == "worker_stalled"

    loop.stand_in.start()
    loop.succeeded()


def test_an_answer_that_expired_is_not_needed(loop: Loop) -> None:
    """Without looking at the ledger, a run that succeeded would be called for again."""
    loop.make_due()
    loop.fire()
    loop.succeeded()
    loop.answered()
    loop.ask("DELETE FROM net._http_response RETURNING 1")

    assert loop.sweep(after=16) == 0
    assert loop.outcomes() == ["accepted"]


def test_accepted_and_then_forgotten_is_called_for_again(loop: Loop) -> None:
    """As when the process dies after its 202."""
    loop.gate.reply = Reply(status=202, body=b'{"call":1,"accepted":1,"known":1}')
    loop.make_due()
    loop.fire()
    loop.answered()
    loop.sweep()
    assert loop.outcomes() == ["accepted"]

    loop.gate.reply = loop.application
    loop.sweep(after=LATER)

    loop.succeeded()


@pytest.mark.parametrize("jobs", [5])
@pytest.mark.parametrize("switch", ["duplicate", "reorder", "delay"])
def test_whatever_the_transport_does_each_run_starts_once(
    pg_cron_url: str, pg_net: StandIn, switch: str, jobs: int
) -> None:
    names = [f"job-{number}" for number in range(jobs)]
    with Loop(pg_cron_url, pg_net, jobs=names) as loop:
        setattr(pg_net, switch, {"duplicate": jobs, "reorder": True, "delay": 1.0}[switch])
        loop.make_due()

        assert loop.fire() == jobs
        for name in names:
            loop.succeeded(name)
        loop.sweep(after=LATER)

        assert sorted(job for job, _ in loop.started) == names


def test_what_nobody_took_within_its_window_is_missed_with_the_reason(loop: Loop) -> None:
    loop.gate.stop()
    loop.ask("UPDATE jobmanager.jobs SET catch_up_window_seconds = 60 RETURNING 1")
    loop.make_due()
    loop.fire()
    loop.answered()
    loop.sweep()

    loop.sweep(after=130)

    [run] = loop.manager.runs("work")
    assert (str(run.status), run.reason) == ("missed", "transport")
    assert run.error is not None
    assert run.error.kind == "http"
    assert run.error.message.startswith("refused: Couldn't connect to server")
    loop.gate.start()
    assert loop.sweep(after=200) == 0


def test_a_late_announcement_is_settled_by_the_jobs_policy(pg_cron_url: str, pg_net: StandIn) -> None:
    """The application was away for five minutes: with `latest` one instant is caught up, the others are missed."""
    with Loop(pg_cron_url, pg_net) as loop:
        loop.manager.stop(1)
        instant = loop.make_due(minutes=20)
        loop.fire(instant + timedelta(minutes=5))
        assert loop.ask("SELECT count(*) FROM jobmanager.runs WHERE accepted_at IS NULL") == 6
        announced = {run.id for run in loop.manager.runs("work")}
        loop.manager.start()
        loop.succeeded()

        until(
            lambda: (
                loop.ask("SELECT count(*) FROM jobmanager.runs WHERE status IN ('pending', 'running')") == 0
            )
        )

        runs = loop.manager.runs("work")
        assert [(str(run.status), run.reason, run.trigger) for run in runs] == [
            ("succeeded", None, "catch_up"),
            *[("missed", "downtime", "sweep")] * 5,
        ]
        assert runs[0].scheduled_for == instant + timedelta(minutes=5)
        assert {run.id for run in runs} == announced, "a run keeps the id that it was announced under"


# ---------------------------------------------------------------- atomicity


def test_row_and_call_come_together_or_not_at_all(loop: Loop) -> None:
    loop.make_due()

    with loop.connection.transaction(force_rollback=True):
        assert loop.ask("SELECT jobmanager.fire(NULL)") == 1

    assert loop.ask("SELECT count(*) FROM jobmanager.runs") == 0
    assert loop.ask("SELECT count(*) FROM jobmanager.calls") == 0
    assert loop.fire() == 1
    loop.succeeded()


def test_a_crash_after_the_commit_leaves_the_row_and_it_is_called_for(loop: Loop) -> None:
    """As with the extension http, or a queue that went with a crash."""
    loop.make_due()
    loop.ask("SELECT count(*) FROM jobmanager.announce(NULL, '0', clock_timestamp())")
    loop.connection.execute("UPDATE jobmanager.jobs SET next_due_at = clock_timestamp() + interval '1 day'")

    assert loop.sweep() == 1
    loop.succeeded()


def test_eight_that_fire_at_once_and_a_sweep_make_one_row_and_one_call_per_tick(
    pg_cron_url: str, pg_net: StandIn
) -> None:
    """Fails without SKIP LOCKED and the unique tick: rows would be doubled, or a run posted twice."""
    names = [f"job-{number:03}" for number in range(200)]
    with Loop(pg_cron_url, pg_net, jobs=names) as loop:
        loop.gate.reply = Reply(status=500)
        instant = loop.make_due()
        barrier = threading.Barrier(9)
        failures: list[BaseException] = []

        def at_once(statement: str) -> None:
            with psycopg.connect(pg_cron_url, autocommit=True) as connection:
                barrier.wait(30)
                try:
                    connection.execute(statement, (instant + timedelta(seconds=1),))
                except psycopg.Error as error:
                    failures.append(error)

        threads = [
            threading.Thread(target=at_once, args=(statement,))
            for statement in ["SELECT jobmanager.fire(NULL, %s)"] * 8 + ["SELECT jobmanager.sweep(%s)"]
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert failures == []
        assert loop.ask("SELECT count(*) FROM jobmanager.runs") == len(names)
        assert loop.ask("SELECT sum(runs) FROM jobmanager.calls") == len(names)
        assert loop.ask("SELECT max(calls) FROM jobmanager.run_calls") == 1


# ---------------------------------------------------------------- what the application is woken for


def test_a_schedule_without_a_plan_makes_the_application_plan(loop: Loop) -> None:
    """As after an edit in SQL, or when the application was away for longer than the plans reach."""
    loop.connection.execute("UPDATE jobmanager.jobs SET schedule = 'cron 7 * * * * in Asia/Kathmandu'")
    assert loop.ask("SELECT next_due_at = accounted_until FROM jobmanager.jobs")

    loop.sweep()

    until(lambda: loop.ask("SELECT next_due_at > accounted_until FROM jobmanager.jobs"))
    assert loop.ask("SELECT next_due_at FROM jobmanager.jobs").astimezone(UTC).minute == 22
    assert loop.sweep() == 0


def test_a_job_whose_schedule_cannot_be_worked_with_stops_no_other(pg_cron_url: str, pg_net: StandIn) -> None:
    with Loop(pg_cron_url, pg_net, jobs=["bad", "good"]) as loop:
        loop.make_due()
        loop.connection.execute(
            "ALTER TABLE jobmanager.runs ADD CONSTRAINT poison CHECK (job_id <> 'bad') NOT VALID"
        )

        assert loop.fire() == 1

        loop.succeeded("good")
        assert loop.ask("SELECT job_id FROM jobmanager.parked") == "bad"
        assert "poison" in loop.ask("SELECT error FROM jobmanager.parked")


# ---------------------------------------------------------------- crashes


def test_answers_are_never_read_over_a_crash() -> None:
    """Ids of requests begin at 1 again: fails without the epoch, an old call would get a stranger's answer."""
    server = PgCron()
    stand_in = StandIn(server.url)
    try:
        server.start()
        server.clear()
        stand_in.install()
        stand_in.start()
        with Loop(server.url, stand_in) as loop:
            stand_in.drop = 1
            loop.make_due()
            loop.fire()
            until(lambda: stand_in.drop == 0 and loop.is_sent())
            stand_in.stop()
            loop.connection.close()
            server.stop(immediately=True)
            server.start()
            stand_in.start()
            loop.connection = psycopg.connect(server.url, autocommit=True)
            for _ in range(10):
                loop.ask("SELECT net.http_post(url := %s, body := '{}')", loop.gate.url + "/stranger")
            loop.gate.replies["/stranger"] = Reply(status=200, body=b'{"call":1}')
            loop.answered(10)
            assert loop.ask("SELECT count(*) FROM net._http_response WHERE id = 1") == 1

            loop.sweep()

            assert loop.outcomes()[0] == "lost_crash"
            loop.succeeded()
    finally:
        stand_in.close()
        server.remove()

"""Ticks without pg_net: by notification, behind a pooler, over the extension http; and with other backends beside."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.faults.conftest import until
from tests.pg_net.curl import Curl, Request
from tests.pg_net.loop import Loop, start_in_silence
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Reply
from tests.servers import Pooler

from jobmanager import JobManager, RunContext, Settings
from jobmanager.job import CatchUp
from jobmanager.run import Tick

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def pg_cron_url(still_pg_cron_url: str) -> str:
    """Where no entry runs by itself: a full minute that comes while a test gets ready would bring ticks of its own."""
    return still_pg_cron_url


class Ground:
    """A manager that listens, jobs of every minute, and a database in which the test says when a minute has come."""

    def __init__(self, url: str, jobs: int = 1, **settings: Any) -> None:
        self.started: list[tuple[str, datetime | None]] = []
        self.manager = self.make(url, jobs, pg_cron_transport="notify", backend="pg_cron", **settings)
        self.database = psycopg.connect(url, autocommit=True)

    def make(self, url: str, jobs: int, *, catch_up: CatchUp = "latest", **settings: Any) -> JobManager:
        manager = JobManager(Settings(database_url=url, **{"grace_seconds": 3000, **settings}))
        for number in range(jobs):
            manager.add_job(f"job-{number}", self._note, cron="* * * * *", overlap="allow", catch_up=catch_up)
        return manager

    def _note(self, context: RunContext) -> None:
        self.started.append((context.job.id, context.scheduled_for))

    def make_due(self, minutes: int = 0) -> datetime:
        until(lambda: datetime.now(UTC).second < 45)  # what follows is of one minute
        instant = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=minutes)
        self.database.execute(
            "UPDATE jobmanager.jobs SET next_due_at = %s, accounted_until = %s",
            (instant, instant - timedelta(seconds=1)),
        )
        return instant

    def fire(self, moment: datetime | None = None) -> int:
        row = self.database.execute("SELECT jobmanager.fire(NULL, %s)", (moment,)).fetchone()
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        self.manager.stop(1)
        self.manager.store.close()
        self.database.close()


@pytest.fixture
def ground(pg_cron_url: str) -> Iterator[Callable[..., Ground]]:
    made: list[Ground] = []

    def make(url: str = pg_cron_url, **settings: Any) -> Ground:
        made.append(Ground(url, **settings))
        start_in_silence(made[-1].manager)
        # Only the test lets minutes pass.
        made[-1].database.execute("SELECT jobmanager.remove_entries()")
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_a_notification_brings_a_tick_at_once(ground: Callable[..., Ground]) -> None:
    here = ground()
    instant = here.make_due()

    assert here.fire() == 1
    until(lambda: here.manager.runs(status="succeeded"), 4)  # sooner than the poll

    assert here.started == [("job-0", instant)]


def test_a_thousand_ticks_at_once_start_once_each(ground: Callable[..., Ground]) -> None:
    here = ground(jobs=1000, workers=50)
    here.make_due()

    assert here.fire() == 1000
    until(lambda: len(here.started) >= 1000, 60)
    until(lambda: len(here.manager.runs(status="succeeded", limit=2000)) >= 1000, 60)

    assert set(Counter(here.started).values()) == {1}


def test_a_listener_whose_connection_is_cut_listens_again(
    ground: Callable[..., Ground], caplog: pytest.LogCaptureFixture
) -> None:
    here = ground()
    here.make_due()
    until(
        lambda: here.database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'jobmanager listener'"
        ).fetchall(),
        10,
    )
    here.fire()

    until(lambda: here.manager.runs(status="succeeded"), 15)
    assert "listening is interrupted" in caplog.text


def test_behind_a_transaction_pooler_it_says_so_and_asks(
    pg_cron_url: str, ground: Callable[..., Ground], caplog: pytest.LogCaptureFixture
) -> None:
    """LISTEN succeeds there, and nothing ever comes. Fails without the probe: it would wait for notifications alone."""
    pooler = Pooler(pg_cron_url)
    try:
        url = pooler.url(pg_cron_url) + "?jobmanager_pooler=true"
        here = Ground(pg_cron_url)
        here.manager = here.make(url, 1, backend="pg_cron", pg_cron_transport="notify")
        here.manager.start()
        try:
            until(lambda: "no notification arrives" in caplog.text, 15)
            here.make_due()
            here.fire()
            until(lambda: here.manager.runs(status="succeeded"), 20)
        finally:
            here.close()
    finally:
        pooler.remove()


# ---------------------------------------------------------------- http


class Answerer:
    """Answers what the stand-in for the extension http asks, by real HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._live)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(10)

    def _live(self) -> None:
        curl = Curl()
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stopping.wait(0.01):
                rows = connection.execute(
                    "SELECT id, method, uri, headers, content FROM web.asked WHERE status IS NULL AND error IS NULL"
                ).fetchall()
                for number, method, uri, headers, content in rows:
                    answer = curl.send(
                        Request(
                            id=number,
                            method=method,
                            url=uri,
                            headers={**headers, "Content-Type": "application/json"},
                            body=content.encode(),
                            timeout_milliseconds=5000,
                        )
                    )
                    connection.execute(
                        "UPDATE web.asked SET status = %s, answer = web.unchecked(%s), error = %s WHERE id = %s",
                        (answer.status, answer.content, answer.error, number),
                    )
        curl.close()


@pytest.fixture
def http(pg_cron_url: str, pg_net: StandIn) -> Iterator[Loop]:
    pg_net.stop()
    with psycopg.connect(pg_cron_url, autocommit=True) as connection:
        connection.execute("DROP SCHEMA net CASCADE")
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
        connection.execute((Path(__file__).parent.parent / "pg_net" / "http_stand_in.sql").read_text())
    answerer = Answerer(pg_cron_url)
    try:
        with Loop(pg_cron_url, pg_net, pg_cron_transport="auto") as loop:
            yield loop
    finally:
        answerer.stop()
        with psycopg.connect(pg_cron_url, autocommit=True) as connection:
            connection.execute("DELETE FROM pg_extension WHERE oid = 999999")


def test_the_extension_http_calls_after_the_commit_and_knows_the_answer_at_once(http: Loop) -> None:
    """Fails if it called inside the transaction that announced: the application would not find the row."""
    assert http.ask("SELECT transport FROM jobmanager.tickers") == "http"
    http.make_due()

    http.connection.execute("CALL jobmanager.fire_http(NULL)")

    http.succeeded()
    assert http.outcomes() == ["accepted"]


def test_an_answer_of_any_bytes_is_labelled_and_kept_as_text(http: Loop) -> None:
    http.gate.reply = Reply(status=500, body="Größe".encode("latin-1") + b" \xe2\x82")
    http.make_due()

    http.connection.execute("CALL jobmanager.fire_http(NULL)")

    assert http.outcomes() == ["server_error"]
    assert http.ask("SELECT detail FROM jobmanager.calls") == r"Gr\366\337e \342\202"


def test_an_application_that_is_down_ends_the_pass_and_is_called_later(http: Loop) -> None:
    http.gate.stop()
    http.make_due()
    http.connection.execute("CALL jobmanager.fire_http(NULL)")
    assert http.outcomes() == ["refused"]

    http.gate.start()
    http.connection.execute("UPDATE jobmanager.run_calls SET next_call_at = clock_timestamp()")
    http.connection.execute("CALL jobmanager.fire_http(NULL)")

    http.succeeded()
    assert http.outcomes() == ["refused", "accepted"]


def test_a_refusal_over_http_is_named(http: Loop) -> None:
    http.gate.reply = Reply(status=401)
    http.make_due()

    http.connection.execute("CALL jobmanager.fire_http(NULL)")

    assert http.outcomes() == ["unauthorized"]


# Holds one session back, at the row that it is about to write, until the test lets it go on.
HELD = """
CREATE FUNCTION public.held() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('application_name') = 'held' THEN
    PERFORM pg_advisory_xact_lock(42);
  END IF;
  RETURN NEW;
END $$;
"""
ENTRIES = {"sweep": "CALL jobmanager.sweep_minute(1)", "http": "CALL jobmanager.fire_http(NULL)"}


@pytest.mark.parametrize("at", ["runs", "calls"])
@pytest.mark.parametrize(("held", "free"), [("sweep", "http"), ("http", "sweep")])
def test_of_the_two_entries_at_a_full_minute_whichever_is_held_up_the_tick_is_called_for(
    http: Loop, held: str, free: str, at: str
) -> None:
    """Fails if what the sweep announces is left to an entry that has looked already: the tick waited a minute, and was late."""
    http.connection.execute(HELD)
    http.connection.execute(
        f"CREATE TRIGGER held BEFORE INSERT ON jobmanager.{at} FOR EACH ROW EXECUTE FUNCTION public.held()".encode()
    )
    http.ask("SELECT jobmanager.current_epoch()")
    url = http.manager.settings.database_url
    http.make_due()
    with psycopg.connect(url, autocommit=True, application_name="held") as slow:
        http.connection.execute("SELECT pg_advisory_lock(42)")
        thread = threading.Thread(target=slow.execute, args=(ENTRIES[held],))
        thread.start()
        try:
            until(lambda: http.ask("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"), 30)
            http.connection.execute(ENTRIES[free].encode())
        finally:
            http.connection.execute("SELECT pg_advisory_unlock(42)")
            thread.join(60)

    http.succeeded()
    assert http.outcomes() == ["accepted"]


def test_one_entry_announces_nothing_for_applications_that_it_does_not_call(http: Loop) -> None:
    """Two applications, one of them reached by http: fails if either's tick is left to the sweep's next pass."""
    http.connection.execute(
        "INSERT INTO jobmanager.tickers SELECT 'other', 'notify', layout, auth, url, timeout_ms FROM jobmanager.tickers"
    )
    http.make_due()

    assert http.ask("SELECT jobmanager.fire(NULL)") == 0
    assert http.ask("SELECT count(*) FROM jobmanager.runs") == 0
    http.connection.execute("UPDATE jobmanager.jobs SET namespace = 'other'")
    http.connection.execute("CALL jobmanager.fire_http(NULL)")
    assert http.ask("SELECT count(*) FROM jobmanager.runs") == 0
    assert http.ask("SELECT jobmanager.fire(NULL)") > 0


def test_over_http_too_an_application_is_called_to_plan_and_to_look_after_the_dead(http: Loop) -> None:
    http.connection.execute("UPDATE jobmanager.jobs SET schedule = 'cron 7 7 * * * in UTC'")

    http.connection.execute("CALL jobmanager.sweep_minute(1)")
    http.connection.execute("CALL jobmanager.sweep_minute(1)")

    called = http.connection.execute("SELECT kind, outcome FROM jobmanager.calls").fetchall()
    assert called == [("plan", "accepted")]


# ---------------------------------------------------------------- beside other backends


def keeps_time(jobs: JobManager, backend: str) -> None:
    """As if the last process that started had this backend."""
    jobs.store.processes.keep_time("default", backend, even_if_alive=True)


def without_sweeps(jobs: JobManager, patch: pytest.MonkeyPatch) -> None:
    """Before its start: have no sweep of this manager take the time again, or settle what is due."""
    take = jobs.store.processes.keep_time

    def take_at_start(namespace: str, backend: str, *, even_if_alive: bool) -> str | None:
        return take(namespace, backend, even_if_alive=True) if even_if_alive else None

    patch.setattr(jobs.store.processes, "keep_time", take_at_start)
    patch.setattr(jobs._assembly.sweep, "look", lambda: None)


@pytest.mark.parametrize("backend", ["local", "external"])
def test_what_pg_cron_has_planned_is_inert_while_another_backend_keeps_the_time(
    ground: Callable[..., Ground], caplog: pytest.LogCaptureFixture, backend: str
) -> None:
    """A move by one variable: no command, no double bookkeeping, and back again in the same way."""
    here = ground()
    here.manager.stop(1)
    local = here.make(here.manager.settings.database_url, 1, backend=backend, sweep_seconds=600)
    local.start()
    assert (
        f"backend={backend} keeps the time of namespace default from now on, and backend=pg_cron no longer"
        in caplog.text
    )
    local.stop(1)  # the row stands while no process lives

    here.make_due(1)
    assert here.fire() == 0
    assert here.database.execute("SELECT jobmanager.sweep()").fetchone() == (0,)
    assert here.database.execute("SELECT count(*) FROM jobmanager.calls").fetchone() == (0,)
    assert local.runs("job-0") == []

    here.manager.start()  # and brings at once what is due, without waiting for the next minute
    until(lambda: here.manager.runs("job-0", "succeeded"), 10)
    local.store.close()


def test_a_living_process_keeps_the_time_when_no_other_backend_lives(ground: Callable[..., Ground]) -> None:
    here = ground(sweep_seconds=1)
    keeps_time(here.manager, "celery")
    until(lambda: here.manager.store.processes.keeper("default") == "pg_cron", 60)


def test_a_tick_that_was_announced_is_opened_by_whatever_backend_brings_it(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fails if an announced row counted as taken: a switch of backends would lose the tick between them."""
    until(lambda: datetime.now(UTC).second < 40)  # no minute comes while they start
    here = ground()
    here.manager.stop(1)  # whose database goes on announcing
    local = here.make(here.manager.settings.database_url, 1, backend="local")
    without_sweeps(local, monkeypatch)
    local.start()
    local._assembly.backend.stop(timedelta(seconds=5))  # the test is its clock
    try:
        keeps_time(local, "pg_cron")
        instant = here.make_due()
        assert here.fire() == 1
        [announced] = local.runs("job-0")
        row = local.store.jobs.get("job-0")
        assert row is not None

        local._assembly.runner.deliver([Tick("job-0", instant, row.schedule_rev)])

        until(lambda: local.runs("job-0", "succeeded"), 10)
        assert [run.id for run in local.runs("job-0") if run.scheduled_for == instant] == [announced.id]
    finally:
        local.stop(1)
        local.store.close()


@pytest.mark.parametrize("wait", [True, False])
def test_a_tick_that_was_announced_is_opened_by_the_call_of_a_clock_outside(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch, *, wait: bool
) -> None:
    """Fails if a call takes a row for a run that somebody has in hand: a move to external would lose the tick between them."""
    here = ground()
    here.manager.stop(1)
    outside = here.make(here.manager.settings.database_url, 1, backend="external", wait=wait)
    without_sweeps(outside, monkeypatch)
    outside.start()
    try:
        keeps_time(outside, "pg_cron")
        instant = here.make_due()
        assert here.fire() == 1
        [announced] = outside.runs("job-0")

        ticked = outside.host.tick("job-0", scheduled_for=instant)

        assert ticked.run_id == announced.id
        until(lambda: outside.runs("job-0", "succeeded"), 10)
        assert [run.id for run in outside.runs("job-0") if run.scheduled_for == instant] == [announced.id]
    finally:
        outside.stop(1)
        outside.store.close()


@pytest.mark.parametrize("backend", ["local", "pg_cron", "external"])
def test_what_was_announced_between_a_stop_and_a_start_runs_if_it_is_on_time(
    ground: Callable[..., Ground], backend: str
) -> None:
    """Fails if a restart shorter than the grace, or a move to another backend, loses the tick that fell into it."""
    here = ground()
    here.manager.stop(1)
    instant = here.make_due()
    assert here.fire() == 1
    later = here.make(
        here.manager.settings.database_url,
        1,
        backend=backend,
        sweep_seconds=600,
        **({"pg_cron_transport": "notify"} if backend == "pg_cron" else {}),
    )
    later.start()
    try:
        until(lambda: later.runs("job-0", "succeeded"), 10)
        [run] = [run for run in later.runs("job-0") if run.scheduled_for == instant]
        assert (str(run.status), str(run.trigger)) == ("succeeded", "schedule")
    finally:
        later.stop(1)
        later.store.close()


@pytest.mark.parametrize(
    ("catch_up", "expected"),
    [
        ("latest", {"missed": 2, "succeeded": 1}),
        ("none", {"missed": 2, "succeeded": 1}),
        ("all", {"succeeded": 3}),
    ],
)
def test_of_several_announced_between_a_stop_and_a_start_the_newest_is_on_time(
    ground: Callable[..., Ground], catch_up: CatchUp, expected: dict[str, int]
) -> None:
    """Fails if a restart within a long grace runs all of them at once, whatever `catch_up` says."""
    here = ground(catch_up=catch_up)
    here.manager.stop(1)
    instant = here.make_due(2)
    for minutes in range(3):
        assert here.fire(instant + timedelta(minutes=minutes)) == 1
    later = here.make(
        here.manager.settings.database_url,
        1,
        catch_up=catch_up,
        backend="pg_cron",
        pg_cron_transport="notify",
        sweep_seconds=600,
    )
    later.start()
    try:
        until(lambda: len(later.runs("job-0", list(expected))) == 3, 10)
        runs = sorted(later.runs("job-0"), key=lambda run: run.instant)
        assert Counter(str(run.status) for run in runs) == expected
        assert [run.instant for run in runs] == [instant + timedelta(minutes=number) for number in range(3)]
        assert (str(runs[-1].status), str(runs[-1].trigger)) == ("succeeded", "schedule")
    finally:
        later.stop(1)
        later.store.close()


def test_handed_over_in_both_directions_no_tick_is_lost_or_started_twice(
    ground: Callable[..., Ground], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two generations overlap, and bring the same 60 instants in any order (F28, G15)."""
    here = ground()
    local = here.make(here.manager.settings.database_url, 1, backend="local")
    without_sweeps(local, monkeypatch)
    local.start()
    try:
        keeps_time(local, "pg_cron")
        # Both have lived since before the instants, so that each of them is merely late.
        here.database.execute("UPDATE jobmanager.instances SET started_at = started_at - interval '1 day'")
        first = here.make_due(40)
        instants = [first + timedelta(seconds=60 * number) for number in range(40)]
        row = local.store.jobs.get("job-0")
        assert row is not None
        choice = random.Random(7)
        for instant in instants:
            brings = [
                lambda instant=instant: here.fire(instant),
                lambda instant=instant: local._assembly.runner.deliver(
                    [Tick("job-0", instant, row.schedule_rev)]
                ),
            ]
            choice.shuffle(brings)
            for bring in brings[: choice.choice([1, 2, 2])]:
                bring()

        # A job that somebody else holds is left out of a pass, and due in the next.
        until(lambda: here.fire() >= 0 and {instant for _, instant in here.started} >= set(instants), 30)
        until(lambda: all(run.status.closed for run in local.runs("job-0", limit=200)), 30)
        found = Counter(instant for _, instant in here.started)
        assert {instant: found[instant] for instant in instants} == dict.fromkeys(instants, 1)
    finally:
        local.stop(1)
        local.store.close()


def test_while_pg_cron_is_stuck_a_living_process_opens_the_tick_and_pg_cron_opens_nothing_later(
    ground: Callable[..., Ground],
) -> None:
    """As with every place of cron.max_running_jobs taken (F34)."""
    here = ground(grace_seconds=5)
    until(
        lambda: 6 < datetime.now(UTC).second < 50, 30
    )  # the minute's own instant is late, too, and no new one comes
    instant = here.make_due(2)

    here.manager.host.sweep()
    until(lambda: here.manager.runs(status="succeeded"), 10)
    runs = here.manager.runs("job-0")
    found = here.fire(instant + timedelta(minutes=2))

    assert found == 0
    assert [str(run.trigger) for run in runs if str(run.status) == "succeeded"] == ["catch_up"]
    assert sorted(run.scheduled_for for run in runs if run.scheduled_for) == [
        instant + timedelta(minutes=number) for number in range(len(runs))
    ]


# ---------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("overlap", "became"),
    [
        ("skip", [("skipped", "overlap")]),
        ("allow", [("succeeded", None)]),
        ("queue", [("succeeded", None)]),
        ("queue_all", [("succeeded", None)]),
        ("cancel_running", [("succeeded", None)]),
    ],
)
def test_an_announced_tick_that_meets_a_run_becomes_what_the_policy_says(
    ground: Callable[..., Ground], overlap: Any, became: list[tuple[str, str | None]]
) -> None:
    """As on every backend the table of docs/internals/ledger.md#overlap decides, not SQL."""
    here = ground()
    release, entered = threading.Event(), threading.Event()

    def busy(context: RunContext) -> None:
        if context.scheduled_for is None:
            entered.set()
            while not release.wait(0.02):
                context.raise_if_cancelled()

    here.manager.add_job("busy", busy, cron="* * * * *", overlap=overlap)
    here.manager.sync()
    here.database.execute("SELECT jobmanager.remove_entries()")
    here.manager.trigger_job("busy")
    assert entered.wait(60)
    here.make_due()
    here.fire()

    if overlap in ("skip", "allow", "cancel_running"):
        until(
            lambda: [run for run in here.manager.runs("busy") if run.scheduled_for and run.status.closed], 15
        )
    else:
        until(lambda: [run.turn for run in here.manager.runs("busy") if run.scheduled_for] == ["waits"], 15)
    release.set()

    until(lambda: all(run.status.closed for run in here.manager.runs("busy")), 60)
    assert [(str(run.status), run.reason) for run in here.manager.runs("busy") if run.scheduled_for] == became


def test_a_tick_announced_before_a_pause_is_skipped_and_one_of_a_disabled_job_too(
    ground: Callable[..., Ground],
) -> None:
    here = ground(jobs=2)
    here.manager.stop(1)
    here.make_due()
    assert here.fire() == 2
    here.manager.stop_job("job-0")
    with here.manager.store.jobs.lock("job-1") as page:
        page.close_pending()
    here.database.execute("UPDATE jobmanager.jobs SET next_due_at = now() + interval '1 day'")

    here.manager.start()

    until(lambda: all(run.status.closed for run in here.manager.runs()), 60)
    found = {run.job_id: (str(run.status), run.reason) for run in here.manager.runs()}
    assert found == {"job-0": ("skipped", "paused"), "job-1": ("skipped", "disabled")}
    assert here.started == []

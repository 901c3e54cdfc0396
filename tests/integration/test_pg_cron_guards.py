"""Each guard in the database's own code holds alone: what it keeps from happening is tried against it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.pg_net.loop import SECRET, VAULT, Loop
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Reply

pytestmark = [pytest.mark.servers, pytest.mark.slow]

LATER = 62.0  # seconds: whatever backoff there is, it is over


@pytest.fixture
def pg_cron_url(still_pg_cron_url: str) -> str:
    """Where no entry runs by itself."""
    return still_pg_cron_url


@pytest.fixture
def loop(pg_cron_url: str, pg_net: StandIn) -> Iterator[Loop]:
    with Loop(pg_cron_url, pg_net) as loop:
        yield loop


@pytest.fixture
def alone(loop: Loop) -> Loop:
    """The application is stopped and refuses calls: only the database acts."""
    loop.manager.stop(1)
    loop.gate.reply = Reply(status=503)
    return loop


def insert_run(loop: Loop, due: datetime, **columns: object) -> str:
    """A pending run of the job that was due then, with the given columns; its id."""
    values = {
        "id": loop.ask("SELECT jobmanager.new_id(clock_timestamp())"),
        "job_id": "work",
        "schedule_rev": 1,
        "ticks": 1,
        "status": "pending",
        "trigger": "manual",
        "notify": False,
        "due_at": due,
        "attempt": 0,
        "max_attempts": 1,
        "retry_on_crash": False,
        "concurrency_key": "work",
        "priority": 0,
        "opened_at": due,
        **columns,
    }
    names, places = ", ".join(values), ", ".join(["%s"] * len(values))
    statement = f"INSERT INTO jobmanager.runs ({names}) VALUES ({places}) RETURNING id"
    return str(loop.ask(statement, *values.values()))


def status(loop: Loop, run_id: str) -> str:
    return str(loop.ask("SELECT status FROM jobmanager.runs WHERE id = %s", run_id))


# ---------------------------------------------------------------- what is announced


def test_fire_moves_the_account_to_the_last_instant_it_announced(alone: Loop) -> None:
    instant = alone.make_due(minutes=3)

    assert alone.ask("SELECT jobmanager.fire(NULL, %s)", instant + timedelta(minutes=2)) == 3

    accounted, due = alone.connection.execute(
        "SELECT accounted_until, next_due_at FROM jobmanager.jobs"
    ).fetchone() or (None, None)
    assert accounted == instant + timedelta(minutes=2)
    assert due == instant + timedelta(minutes=3)


def test_fire_takes_no_account_back(alone: Loop) -> None:
    """A process may have accounted for more than the plan knows."""
    instant = alone.make_due()
    ahead = instant + timedelta(hours=1)
    alone.ask("UPDATE jobmanager.jobs SET accounted_until = %s RETURNING 1", ahead)

    alone.ask("SELECT jobmanager.fire(NULL)")

    assert alone.ask("SELECT accounted_until FROM jobmanager.jobs") == ahead


@pytest.mark.parametrize("state", ["paused", "disabled", "deleted"])
@pytest.mark.parametrize("by", ["fire", "sweep"])
def test_a_job_that_is_not_active_is_not_announced(alone: Loop, state: str, by: str) -> None:
    """The revision moves with the state, as the library does it: no trigger settles anything."""
    alone.make_due()
    alone.ask("UPDATE jobmanager.jobs SET state = %s, schedule_rev = schedule_rev + 1 RETURNING 1", state)

    alone.ask(f"SELECT jobmanager.{by}()" if by == "sweep" else "SELECT jobmanager.fire(NULL)")

    assert alone.ask("SELECT count(*) FROM jobmanager.runs") == 0


def test_an_application_that_keeps_its_own_time_is_not_announced(alone: Loop) -> None:
    alone.make_due()
    alone.ask("DELETE FROM jobmanager.tickers RETURNING 1")

    alone.ask("SELECT jobmanager.fire(NULL)")
    alone.ask("SELECT jobmanager.sweep()")

    assert alone.ask("SELECT count(*) FROM jobmanager.runs") == 0


def test_an_entry_announces_its_own_job_alone(pg_cron_url: str, pg_net: StandIn) -> None:
    with Loop(pg_cron_url, pg_net, jobs=["one", "other"]) as loop:
        loop.gate.reply = Reply(status=503)
        loop.make_due()

        loop.ask("SELECT jobmanager.fire(jobmanager.entry_name('one'))")

        assert loop.ask("SELECT array_agg(job_id) FROM jobmanager.runs") == ["one"]


# ---------------------------------------------------------------- who is called for


def test_a_waiting_run_is_not_called_for_while_another_holds_its_key(alone: Loop) -> None:
    now = datetime.now(UTC)
    holder = insert_run(
        alone, now - timedelta(minutes=5), turn="holds", status="running", accepted_at=now, started_at=now,
        owner="elsewhere",
    )  # fmt: skip
    waiting = insert_run(alone, now - timedelta(minutes=4), turn="waits", accepted_at=now)

    assert alone.sweep() == 0

    alone.ask(
        "UPDATE jobmanager.runs SET status = 'succeeded', turn = NULL, finished_at = %s WHERE id = %s RETURNING 1",
        now,
        holder,
    )
    assert alone.sweep() == 1
    assert alone.ask("SELECT run_id::text FROM jobmanager.run_calls") == waiting


def test_a_run_that_waits_for_its_retry_is_not_called_for(alone: Loop) -> None:
    insert_run(alone, datetime.now(UTC) + timedelta(minutes=10), accepted_at=datetime.now(UTC))

    assert alone.sweep() == 0


def test_a_run_that_was_just_called_for_is_not_called_for_again(alone: Loop) -> None:
    insert_run(alone, datetime.now(UTC))

    assert alone.sweep() == 1
    assert alone.sweep() == 0
    assert alone.sweep(after=LATER) == 1


def test_no_run_of_a_disabled_job_is_called_for(alone: Loop) -> None:
    alone.ask("UPDATE jobmanager.jobs SET state = 'disabled', schedule_rev = schedule_rev + 1 RETURNING 1")
    insert_run(alone, datetime.now(UTC))

    assert alone.sweep() == 0


# ---------------------------------------------------------------- what is closed


def test_only_what_was_never_accepted_is_closed_as_missed(alone: Loop) -> None:
    """An accepted run that waits, whatever its age, belongs to the application."""
    alone.ask(
        "UPDATE jobmanager.jobs SET catch_up_window_seconds = 60, next_due_at = clock_timestamp() + interval '1 day'"
        " RETURNING 1"
    )
    old = datetime.now(UTC) - timedelta(hours=2)
    accepted = insert_run(alone, old, accepted_at=old)
    announced = insert_run(alone, old)
    fresh = insert_run(alone, datetime.now(UTC))

    alone.sweep()

    assert [status(alone, run) for run in (accepted, announced, fresh)] == ["pending", "missed", "pending"]


def test_a_call_keeps_the_first_outcome_that_it_got(alone: Loop) -> None:
    alone.make_due()
    alone.fire()
    alone.answered()
    alone.sweep()
    assert alone.outcomes() == ["server_error"]

    alone.ask("SELECT jobmanager.label(1, 'accepted', 202, '', clock_timestamp())")

    assert alone.outcomes() == ["server_error"]


# ---------------------------------------------------------------- keys


def test_nothing_of_a_retired_key_is_kept(loop: Loop) -> None:
    loop.ask("SELECT jobmanager.put_key('default', 'whsec_bmV3ZXIgdGhhbiB0aGUgb3RoZXI=', true)")
    loop.ask("SELECT jobmanager.put_key('default', 'whsec_bmV3ZXN0IG9mIHRoZW0gYWxsLg==', true)")

    assert loop.ask("SELECT jobmanager.retire_signing_keys('default')") == 2

    rows = loop.connection.execute(
        "SELECT retired_at IS NULL, length(ipad), length(opad), bearer FROM jobmanager.signing_keys ORDER BY id"
    ).fetchall()
    assert rows == [
        (False, 0, 0, None),
        (False, 0, 0, None),
        (True, 64, 64, "whsec_bmV3ZXN0IG9mIHRoZW0gYWxsLg=="),
    ]
    signed = loop.ask("SELECT jobmanager.signature('default', 'message')")
    assert signed.count("v1,") == 1


def test_nothing_of_a_key_from_before_the_vault_is_kept(loop: Loop) -> None:
    loop.ask("SELECT jobmanager.put_key('default', 'whsec_YmVmb3JlIHRoZXJlIHdhcyBhIHZhdWx0', true)")
    loop.connection.execute(VAULT)
    loop.ask("SELECT jobmanager.put_key('default', 'whsec_aW4gdGhlIHZhdWx0LCBhcyBpdCBpcw==')")

    loop.ask("SELECT jobmanager.retire_signing_keys('default')")

    rows = loop.connection.execute(
        "SELECT DISTINCT retired_at IS NULL, length(ipad), length(opad), bearer FROM jobmanager.signing_keys"
    ).fetchall()
    assert rows == [(False, 0, 0, None)]


def test_a_key_of_another_application_is_not_retired(loop: Loop) -> None:
    loop.ask("SELECT jobmanager.put_key('other', %s)", SECRET)
    loop.ask("SELECT jobmanager.put_key('default', 'whsec_bmV3ZXN0IG9mIHRoZW0gYWxsLg==')")

    assert loop.ask("SELECT jobmanager.retire_signing_keys('default')") == 1

    assert loop.ask("SELECT jobmanager.key_count('other')") == 1

"""The faults that the stand-in for pg_net can be told to have, and the cluster beneath it: what other tests believe of them."""

from __future__ import annotations

import time

import psycopg
import pytest
from tests.pg_net.target import Reply

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def session(pg_net):
    with psycopg.connect(pg_net.url, autocommit=True) as session:
        yield session


@pytest.fixture
def post(session, http_target):
    """Posts so many numbered requests in one transaction."""

    def post(count: int = 3) -> list[int]:
        call = "SELECT net.http_post(url := %s || n, body := to_jsonb(n)) FROM generate_series(1, %s) AS n"
        return [request for (request,) in session.execute(call, (f"{http_target.url}/", count)).fetchall()]

    return post


def answered(session, request, *, seconds=10):
    """Waits for its answer."""
    deadline = time.monotonic() + seconds
    while not session.execute("SELECT 1 FROM net._http_response WHERE id = %s", (request,)).fetchone():
        assert time.monotonic() < deadline, f"no answer to {request}"
        time.sleep(0.01)


def answers(session):
    return [row for (row,) in session.execute("SELECT id FROM net._http_response ORDER BY id").fetchall()]


def numbers(target):
    return [received.json() for received in target.received]


def queued(session):
    return session.execute("SELECT count(*) FROM net.http_request_queue").fetchone()[0]


def test_dropped_request_leaves_the_queue_and_gets_no_answer(pg_net, session, post, http_target):
    pg_net.drop = 2
    requests = post()
    answered(session, requests[2])
    assert (numbers(http_target), answers(session), queued(session)) == ([3], requests[2:], 0)


def test_duplicate_is_sent_twice_and_answered_once(pg_net, session, post, http_target):
    pg_net.duplicate = 1
    requests = post()
    answered(session, requests[2])
    assert sorted(numbers(http_target)) == [1, 1, 2, 3]
    assert answers(session) == requests


def test_reordered_batch_is_sent_last_first(pg_net, session, post, http_target):
    pg_net.reorder = True
    requests = post()
    answered(session, requests[0])
    assert numbers(http_target) == [3, 2, 1]


def test_truncated_queue_is_lost_without_a_word(pg_net, session, post, http_target):
    pg_net.truncate = 1
    post()
    deadline = time.monotonic() + 10
    while queued(session):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (later,) = post(1)
    answered(session, later)
    assert (numbers(http_target), answers(session)) == ([1], [later])


def test_delayed_batch_stays_in_the_queue_until_it_is_let_go(pg_net, session, post, http_target):
    pg_net.delay = 600
    requests = post()
    assert not http_target.received
    assert queued(session) == 3
    pg_net.delay = 0
    answered(session, requests[0])
    assert len(http_target.received) == 3


def test_worker_that_dies_after_sending_sends_again(pg_net, session, post, http_target):
    """Fails if the crash happens before the requests are out, or the batch is lost by it."""
    pg_net.crash_after_send = 1
    requests = post()
    http_target.wait(3)
    assert answers(session) == []
    http_target.wait(6)
    answered(session, requests[0])
    assert answers(session) == requests


def test_stopped_worker_is_not_seen_and_finds_the_queue_when_it_is_back(pg_net, session, post, http_target):
    pg_net.stop()
    with pytest.raises(psycopg.Error, match="not up"):
        session.execute("SELECT net.check_worker_is_up()")
    requests = post()
    pg_net.start()
    answered(session, requests[0])


def test_answers_expire(pg_net, session, post):
    (first,) = post(1)
    answered(session, first)
    pg_net.ttl = "0 seconds"
    (second,) = post(1)
    answered(session, second)
    assert first not in answers(session)


def test_target_goes_and_comes_back_at_its_address(pg_net, session, post, http_target):
    http_target.stop()
    (refused,) = post(1)
    answered(session, refused)
    http_target.start()
    http_target.replies["/1"] = lambda received: Reply(status=202, body=b'{"call": %d}' % received.json())
    (heard,) = post(1)
    answered(session, heard)
    rows = session.execute(
        "SELECT status_code, content, error_msg FROM net._http_response ORDER BY id"
    ).fetchall()
    assert rows == [(None, None, "Couldn't connect to server"), (202, '{"call": 1}', None)]


def test_database_of_pg_cron_is_as_new_for_every_test(pg_cron_server, pg_cron_url, pg_cron_databases):
    """Fails if a test could meet another one's entries, roles, databases or settings."""
    state = """
        SELECT (SELECT count(*) FROM cron.job), (SELECT count(*) FROM cron.job_run_details),
               (SELECT array_agg(extname::text ORDER BY extname) FROM pg_extension),
               (SELECT array_agg(nspname::text) FROM pg_namespace WHERE nspname !~ '^pg_|^information_schema$|^cron$'),
               (SELECT count(*) FROM pg_roles WHERE rolname !~ '^pg_'), (SELECT count(*) FROM pg_database WHERE NOT datistemplate),
               current_setting('log_statement'), has_schema_privilege('public', 'cron', 'USAGE')
    """
    new = (0, 0, ["pg_cron", "plpgsql"], ["public"], 1, 1, "none", False)
    with psycopg.connect(pg_cron_url, autocommit=True) as session:
        assert session.execute(state).fetchone() == new
        session.execute("SELECT cron.schedule('one', '* * * * *', 'SELECT 1')")
        session.execute(
            "CREATE ROLE owner LOGIN; CREATE SCHEMA jobmanager AUTHORIZATION owner; CREATE EXTENSION pageinspect"
        )
        session.execute("GRANT USAGE ON SCHEMA cron TO PUBLIC")
        session.execute("ALTER SYSTEM SET log_statement = 'all'")
        session.execute("ALTER DATABASE postgres SET search_path = jobmanager")
    with psycopg.connect(pg_cron_databases.make(), autocommit=True) as session:
        session.execute("CREATE SCHEMA other AUTHORIZATION owner")
        with pytest.raises(psycopg.Error, match="can only create extension in database postgres"):
            session.execute("CREATE EXTENSION pg_cron")

    pg_cron_server.clear()

    with psycopg.connect(pg_cron_url) as session:
        assert session.execute(state).fetchone() == new

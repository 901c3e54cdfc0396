"""What pg_net does, asked of the stand-in and, where there is one, of the real extension: our SQL stands on nothing but these."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb
from tests.pg_net.stand_in import StandIn
from tests.pg_net.target import Reply, Target, redirect
from tests.servers import PgCron, free_port

pytestmark = [pytest.mark.servers, pytest.mark.slow]

JSON = {"Content-Type": "application/json"}


class Ground:
    """A database in which `net` is, and whose server may be stopped."""

    def __init__(self, server: PgCron) -> None:
        self.server = server
        self.target = Target().start()
        self._session: psycopg.Connection | None = None

    @property
    def session(self) -> psycopg.Connection:
        """A superuser's, a new one after the server was stopped."""
        if self._session is None or self._session.closed:
            self._session = psycopg.connect(self.server.url, autocommit=True, row_factory=namedtuple_row)
        return self._session

    def ask(self, query: str, *values: object) -> Any:
        """The first value, or the first row if it has several."""
        row = self.session.execute(query, values).fetchone()
        return row[0] if row and len(row) == 1 else row

    def post(self, session: psycopg.Connection | None = None, **named: object) -> int:
        """Call http_post by names, with the target's path / where no URL is given."""
        named = {"url": f"{self.target.url}/", **named}
        sent = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in named.items()}
        call = ", ".join(f"{name} := %({name})s" for name in sent)
        return (session or self.session).execute(f"SELECT net.http_post({call})", sent).fetchone()[0]

    def answer(self, request: int, *, seconds: float = 15) -> Any:
        """The row of answers, once it is there."""
        deadline = time.monotonic() + seconds
        while (row := self.ask("SELECT * FROM net._http_response WHERE id = %s", request)) is None:
            assert time.monotonic() < deadline, f"request {request} got no answer"
            time.sleep(0.01)
        return row

    def restart(self, *, immediately: bool = False) -> None:
        """Stop the server, as a crash if so wished, and start it again."""
        self.session.close()
        self.server.stop(immediately=immediately)
        self.server.start()

    def close(self) -> None:
        """Leave the database and stop the target."""
        self.session.close()
        self.target.stop()


@pytest.fixture(scope="module", params=["stand-in", "pg_net"])
def ground(request: pytest.FixtureRequest, pg_cron_server: PgCron) -> Iterator[Ground]:
    """One for all probes of a kind."""
    yield from (_stand_in if request.param == "stand-in" else _real)(pg_cron_server)


def _stand_in(server: PgCron) -> Iterator[Ground]:
    server.clear()
    stand_in = StandIn(server.url)
    stand_in.install()
    ground = Ground(server)
    try:
        stand_in.start()
        yield ground
    finally:
        ground.close()
        stand_in.close()


def _real(beside: PgCron) -> Iterator[Ground]:
    with psycopg.connect(beside.url) as session:
        if not session.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_net'").fetchone():
            pytest.skip("this PostgreSQL has no pg_net: only the stand-in was asked")
    server = PgCron({"shared_preload_libraries": "pg_cron,pg_net"})
    try:
        server.start()
        ground = Ground(server)
        ground.session.execute("CREATE EXTENSION pg_net")
        yield ground
        ground.close()
    finally:
        server.remove()


@pytest.fixture(autouse=True)
def _forget(ground: Ground) -> None:
    ground.target.forget()


COLUMNS = "SELECT string_agg(attname || ' ' || format_type(atttypid, NULL), ', ' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND attrelid = "
CATALOGUE = {
    "the arguments of http_post and their defaults": (
        "SELECT string_to_array(pg_get_function_arguments('net.http_post'::regproc), ', ')",
        ["url text", "body jsonb DEFAULT '{}'::jsonb", "params jsonb DEFAULT '{}'::jsonb", """headers jsonb DEFAULT '{"Content-Type": "application/json"}'::jsonb""", "timeout_milliseconds integer DEFAULT 5000"],
    ),
    "http_post runs as its caller and gives an id": (
        "SELECT prosecdef, prorettype::regtype::text FROM pg_proc WHERE oid = 'net.http_post'::regproc",
        (False, "bigint"),
    ),
    "the functions beside it": (
        "SELECT count(to_regprocedure(format('net.%s()', name))) FROM unnest('{wake,check_worker_is_up,worker_restart}'::text[]) AS name",
        3,
    ),
    "the queue": (
        COLUMNS + "'net.http_request_queue'::regclass",
        "id bigint, method net.http_method, url text, headers jsonb, body bytea, timeout_milliseconds integer",
    ),
    "the answers": (
        COLUMNS + "'net._http_response'::regclass",
        "id bigint, status_code integer, content_type text, headers jsonb, content text, timed_out boolean, error_msg text, created timestamp with time zone",
    ),
    "both and their ids are unlogged": (
        "SELECT string_agg(DISTINCT relpersistence::text, '') FROM pg_class WHERE relnamespace = 'net'::regnamespace AND relkind IN ('r', 'S')",
        "u",
    ),
    "the only index is on the time of answers": (
        "SELECT array_agg(pg_get_indexdef(indexrelid, 1, true)) FROM pg_index JOIN pg_class ON oid = indrelid WHERE relnamespace = 'net'::regnamespace",
        ["created"],
    ),
    "PUBLIC may do everything with both": (
        "SELECT array_agg(right_to ORDER BY right_to) FROM (SELECT privilege_type AS right_to FROM pg_class, aclexplode(relacl) WHERE relnamespace = 'net'::regnamespace AND relkind = 'r' AND grantee = 0 GROUP BY 1 HAVING count(*) = 2) AS granted",
        ["DELETE", "INSERT", "REFERENCES", "SELECT", "TRIGGER", "TRUNCATE", "UPDATE"],
    ),
    "the worker is seen by its name": ("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pg_net %'", 1),
}  # fmt: skip


@pytest.mark.parametrize("probe", CATALOGUE)
def test_catalogue(ground, probe):
    query, expected = CATALOGUE[probe]
    found = ground.session.execute(query).fetchone()
    assert (found[0] if len(found) == 1 else tuple(found)) == expected


REFUSED = {
    "another content type": ({"headers": {"Content-Type": "text/plain"}}, "must be .application/json"),
    "a charset": (
        {"headers": {"content-type": "application/json; charset=utf-8"}},
        "must be .application/json",
    ),
    "no timeout": ({"timeout_milliseconds": None}, 'null value in column "timeout_milliseconds"'),
    "another name": ({"content": {}}, "does not exist"),
}


@pytest.mark.parametrize("probe", REFUSED)
def test_refused(ground, probe):
    named, words = REFUSED[probe]
    with pytest.raises(psycopg.Error, match=words):
        ground.post(**named)


# What is posted; the path and query, the body and some headers that arrive.
SENT = {
    "nothing but the URL": ({}, "/", b"{}", JSON),
    "the body as jsonb writes it": ({"body": {"b": 1, "aé": "\U0001f600"}}, "/", '{"b": 1, "aé": "\U0001f600"}'.encode(), {}),
    "a length": ({"body": {"é": 1}}, "/", None, {"Content-Length": "9", "Transfer-Encoding": None}),
    "no body": ({"body": None}, "/", b"", {"Content-Length": "0"}),
    "params after the query there is": ({"url": "{target}/jobs?a=1", "params": {"b": "2", "cc": "3"}}, "/jobs?a=1&b=2&cc=3", None, {}),
    "params in lower-case percent signs": ({"params": {"a b": "é/~._-"}}, "/?a%20b=%c3%a9%2f~._-", None, {}),
    "a content type where none is given": ({"headers": {"X-One": "1"}}, "/", None, {"X-One": "1"} | JSON),
    "no second content type in another case": ({"headers": {"content-TYPE": "application/json"}}, "/", None, {"content-TYPE": "application/json", "Content-Type": None}),
    "libcurl's type where headers are NULL": ({"headers": None}, "/", None, {"Content-Type": "application/x-www-form-urlencoded"}),
    "names of headers in their own case": ({"headers": {"webhook-ID": "call_1"}}, "/", None, {"webhook-ID": "call_1"}),
    "libcurl's own headers": ({}, "/", None, {"Accept": "*/*", "User-Agent": re.compile(r"pg_net/\d.*"), "Accept-Encoding": None, "Connection": None, "Expect": None}),
    "an Accept of our own": ({"headers": {"accept": "text/html"}}, "/", None, {"accept": "text/html", "Accept": None}),
}  # fmt: skip


@pytest.mark.parametrize("probe", SENT)
def test_sent(ground, probe):
    named, path, body, headers = SENT[probe]
    if "url" in named:
        named = named | {"url": named["url"].format(target=ground.target.url)}

    ground.post(**named)

    (received,) = ground.target.wait()
    assert (received.method, received.path) == ("POST", path)
    assert body is None or received.body == body
    arrived = dict(received.headers)
    assert len(arrived) == len(received.headers), "a header came twice"
    for name, value in headers.items():
        assert value.fullmatch(arrived[name]) if isinstance(value, re.Pattern) else arrived.get(name) == value


def test_third_positional_argument_is_params(ground):
    ground.ask("SELECT net.http_post(%s, '{}', '{\"a\": \"b\"}')", f"{ground.target.url}/jobs")
    assert ground.target.wait()[0].path == "/jobs?a=b"


NOTHING = {"status_code": None, "content_type": None, "headers": None, "content": None}
# What the target replies; what is posted; columns of the answer.
ANSWERED = {
    **{
        f"status {status}": (Reply(status=status), {}, {"status_code": status, "content": "{}", "error_msg": None})
        for status in (200, 202, 400, 401, 404, 405, 413, 429, 500, 503)
    },
    "all columns": (
        Reply(status=202, body=b'{"call": 17}', headers={"content-TYPE": "application/json", "X-One": "1"}),
        {},
        {"id": int, "status_code": 202, "content_type": "application/json", "content": '{"call": 17}', "timed_out": False, "error_msg": None,
         "headers": {"content-TYPE": "application/json", "X-One": "1", "Content-Length": "12"}},
    ),
    "no body": (Reply(body=b""), {}, {"status_code": 200, "content": None}),
    "no type": (Reply(headers={}), {}, {"content_type": None, "content": "{}"}),
    "pieces": (Reply(body=b"<p>many</p>", chunked=True), {}, {"content": "<p>many</p>"}),
    "what follows a zero byte": (Reply(body=b"ab\0cd"), {}, {"content": "ab"}),
    "redirect to nowhere": (Reply(status=302), {}, {"status_code": 302, "content": "{}"}),
    "redirect for ever, which libcurl calls by a name of its version": (redirect("/"), {}, NOTHING | {"error_msg": re.compile(".+")}),
    "nobody listens": (Reply(), {"url": f"http://127.0.0.1:{free_port()}/"}, NOTHING | {"timed_out": False, "error_msg": re.compile("Could(n't| not) connect to server")}),
    "no such host": (Reply(), {"url": "http://nowhere.invalid/"}, NOTHING | {"timed_out": False, "error_msg": re.compile("Could(n't| not) resolve host ?name")}),
    "no such scheme": (Reply(), {"url": "ftp://127.0.0.1/"}, NOTHING | {"error_msg": "Unsupported protocol"}),
    "hung up": (Reply(hang_up=True), {}, NOTHING | {"timed_out": False, "error_msg": "Server returned nothing (no headers, no data)"}),
    "too slow": (
        Reply(delay=5),
        {"timeout_milliseconds": 200},
        NOTHING | {"timed_out": True, "error_msg": re.compile(
            r"Timeout of 200 ms reached\. Total time: 2\d\d\.\d+ ms \(DNS time: [\d.]+ ms, TCP/SSL handshake time: [\d.]+ ms, HTTP Request/Response time: [\d.]+ ms\)"
        )},
    ),
}  # fmt: skip


@pytest.mark.parametrize("probe", ANSWERED)
def test_answered(ground, probe):
    ground.target.reply, named, expected = ANSWERED[probe]
    row = ground.answer(ground.post(**named))
    for column, value in expected.items():
        found = getattr(row, column)
        if isinstance(value, re.Pattern):
            assert value.fullmatch(found), found
        elif isinstance(value, type):
            assert isinstance(found, value)
        else:
            assert found == value, column


@pytest.mark.parametrize(
    ("status", "method"), [(301, "GET"), (302, "GET"), (303, "GET"), (307, "POST"), (308, "POST")]
)
def test_redirect_is_followed(ground, status, method):
    ground.target.replies["/old"] = redirect("/new", status)
    ground.target.replies["/new"] = Reply(body=b"<p>welcome</p>", headers={"Content-Type": "text/html"})

    row = ground.answer(ground.post(url=f"{ground.target.url}/old", headers={"webhook-id": "call_1"}))

    _, second = ground.target.wait(2)
    assert (second.method, second.path) == (method, "/new")
    assert second.body == (b"{}" if method == "POST" else b"")
    assert second.header("webhook-id") == "call_1"
    assert (row.status_code, row.content, row.content_type) == (200, "<p>welcome</p>", "text/html")
    assert row.headers["Location"] == "/new", "the headers are those of the first answer"


def test_authorization_is_not_handed_to_another_origin(ground):
    other = Target().start()
    try:
        ground.target.reply = redirect(f"{other.url}/", 307)
        ground.answer(ground.post(headers={"Authorization": "Bearer canary", "X-One": "1"}))
        (received,) = other.wait()
        assert received.header("x-one") == "1"
        assert received.header("authorization") is None
    finally:
        other.stop()


def test_nothing_is_sent_before_commit_nor_after_rollback(ground):
    with psycopg.connect(ground.server.url) as session:
        ground.post(session, url=f"{ground.target.url}/rolled-back")
        ground.answer(ground.post(url=f"{ground.target.url}/meanwhile"))
        session.rollback()
        ground.post(session, url=f"{ground.target.url}/committed")
        ground.answer(ground.post(url=f"{ground.target.url}/meanwhile"))
        assert [received.path for received in ground.target.received] == ["/meanwhile"] * 2
        session.commit()
    assert ground.target.wait(3)[-1].path == "/committed"


@pytest.mark.slow
def test_row_without_a_wake_waits_for_the_next_one(ground):
    ground.answer(ground.post())
    time.sleep(2.5)  # until the worker has gone to sleep, which nothing tells
    request = ground.ask(
        "INSERT INTO net.http_request_queue (method, url, headers, timeout_milliseconds)"
        " VALUES ('GET', %s, '{}', 1000) RETURNING id",
        ground.target.url,
    )
    time.sleep(1.5)  # for what must not happen
    assert len(ground.target.received) == 1
    ground.ask("SELECT net.wake()")
    assert ground.answer(request).status_code == 200
    assert ground.target.received[-1].method == "GET"


def test_wake_is_lost_neither_during_a_batch_nor_after_it(ground):
    """Fails if a wake that ends the worker's pause is forgotten with it."""
    ground.target.replies["/slow"] = Reply(delay=0.3)
    for _ in range(3):
        slow = ground.post(url=f"{ground.target.url}/slow")
        ground.target.wait()
        during = ground.post()
        ground.answer(slow)
        after = ground.post()
        ground.answer(during, seconds=5)
        ground.answer(after, seconds=5)
        ground.target.received.clear()


def test_batch_is_sent_at_once_and_answered_with_its_slowest(ground):
    ground.target.replies["/slow"] = Reply(delay=1)
    with ground.session.transaction():
        fast = [ground.post() for _ in range(20)]
        slow = [ground.post(url=f"{ground.target.url}/slow") for _ in range(20)]

    ground.target.wait(40)
    began = time.monotonic()
    assert ground.ask("SELECT count(*) FROM net.http_request_queue") == 40, "seen until all are answered"
    assert ground.ask("SELECT count(*) FROM net._http_response WHERE id = ANY (%s)", fast) == 0
    ground.answer(fast[0])

    assert 0.5 < time.monotonic() - began < 10
    together = "SELECT count(*) FROM net._http_response WHERE id = ANY (%s) GROUP BY created"
    assert ground.session.execute(together, (fast + slow,)).fetchall() == [(40,)]
    assert ground.ask("SELECT count(*) FROM net.http_request_queue") == 0


def test_two_hundred_at_a_time(ground):
    with ground.session.transaction():
        requests = [ground.post() for _ in range(250)]
    ground.answer(requests[-1])
    sizes = ground.session.execute(
        "SELECT count(*) FROM net._http_response WHERE id = ANY (%s) GROUP BY created ORDER BY created",
        (requests,),
    ).fetchall()
    assert [size for (size,) in sizes] == [200, 50]


def test_connection_is_kept_and_a_dead_one_replaced(ground):
    ground.answer(ground.post())
    ground.answer(ground.post())
    first, second = ground.target.received
    assert first.connection == second.connection
    ground.target.stop()
    ground.target.start()
    assert ground.answer(ground.post()).status_code == 200


def test_any_role_may_post_read_and_empty_the_queue_but_not_see_the_worker(ground):
    ground.ask("SELECT net.check_worker_is_up()")
    ground.session.execute("CREATE ROLE stranger LOGIN")
    try:
        with psycopg.connect(ground.server.url, user="stranger", autocommit=True) as stranger:
            ground.answer(ground.post(stranger))
            assert stranger.execute("SELECT count(*) FROM net._http_response").fetchone() > (0,)
            stranger.execute("TRUNCATE net.http_request_queue")
            with pytest.raises(psycopg.Error, match="worker is not up"):
                stranger.execute("SELECT net.check_worker_is_up()")
    finally:
        ground.session.execute("DROP ROLE stranger")


@pytest.mark.slow
def test_restarted_worker_goes_on(ground):
    assert ground.ask("SELECT net.worker_restart()") is True
    assert ground.answer(ground.post()).status_code == 200


@pytest.mark.slow
def test_crash_of_the_server_empties_both_tables_and_ids_start_again(ground):
    """Fails if a table or the sequence is logged."""
    ground.answer(ground.post())
    ground.answer(ground.post())

    ground.restart()
    assert ground.ask("SELECT count(*) FROM net._http_response") > 1, "a clean restart keeps the answers"
    assert ground.post() > 2

    ground.restart(immediately=True)
    assert ground.ask("SELECT count(*) FROM net._http_response") == 0
    assert ground.post() == 1
    assert ground.answer(1).status_code == 200

"""What is asked, and what is answered before any work is done."""

from __future__ import annotations

import logging

import pytest
from tests.calls import OTHER_SECRET, RUNS, SECRET, bearer, body_of, signed

from jobmanager import Settings
from jobmanager.clock import SystemClock
from jobmanager.web.body import LARGEST, Call
from jobmanager.web.endpoint import TICK_ALL, Asked, Endpoint, Route, headers_of
from jobmanager.web.limit import Limits
from jobmanager.web.response import Response

BODY = body_of()
RUN = Route()


class Unhurried(SystemClock):
    """Real time for signatures; for limits no time passes, so that nothing is let in anew while a busy machine pauses."""

    def monotonic(self) -> float:
        return 100.0


def endpoint(limits: Limits | None = None, **settings) -> Endpoint:
    return Endpoint(Settings(**{"secret": SECRET, **settings}), limits, clock=Unhurried())


def asked(headers=(), *, path="/jobs/run", mount="", method="POST", client="10.0.0.1") -> Asked:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Asked(
        method, path, mount, client, headers_of([(name.encode(), value.encode()) for name, value in pairs])
    )


@pytest.mark.parametrize(
    ("mount", "path", "run_path"),
    [
        ("", "/jobs/run", "/jobs/run"),
        ("", "/jobs/run/", "/jobs/run"),
        (
            "/jobs",
            "/jobs/run",
            "/jobs/run",
        ),  # ASGI today: the path is whole, root_path says where we are mounted
        ("/jobs", "/run", "/jobs/run"),  # WSGI, and ASGI before 3.0 was clear: the remainder
        ("/jobs/", "/run", "/jobs/run"),
        ("/jobs/run", "", "/jobs/run"),
        ("/jobs/run", "/", "/jobs/run"),
        ("/jobs/run", "/jobs/run/", "/jobs/run"),
        ("/api", "/api/jobs/run", "/jobs/run"),
        ("/api", "/jobs/run", "/jobs/run"),
        ("/app/jobs", "/app/jobs/run", "/jobs/run"),  # a proxy's prefix, and a mount below it
        ("/app/jobs", "/run", "/jobs/run"),
        ("", "/cron", "/cron"),
        ("/cron", "/", "/cron"),
        ("/a", "/a/b/c/d", "/b/c/d"),
        ("/jobs", "/jobs/jobs/run", "/jobs/run"),  # mounted at a prefix that looks like ours
    ],
)
def test_the_path_of_the_calls_is_found_wherever_it_is_mounted(mount, path, run_path):
    assert endpoint(run_path=run_path).route(asked(path=path, mount=mount)) == RUN


@pytest.mark.parametrize(
    ("mount", "path"),
    [
        ("", "/"),
        ("", ""),
        ("", "/jobs"),
        ("", "/run"),
        ("", "/jobs/run/x"),
        ("", "/jobs/runs"),
        ("", "/jobs/run//"),
        ("", "//jobs/run"),
        ("", "/Jobs/run"),
        ("", "/x/jobs/run"),
        ("", "/jobs/x/../run"),
        ("/x", "/y/jobs/run"),
        ("", "/x/jobs/tick/report"),
        ("", "/x/jobs/tick"),
        ("", "/jobs/ticks"),
    ],
)
def test_no_other_path_is_ours(mount, path):
    assert endpoint().route(asked(path=path, mount=mount)) is None


@pytest.mark.parametrize(
    ("mount", "path", "run_path"),
    [
        ("", "/jobs/tick/report", "/jobs/run"),
        ("", "/jobs/tick/report/", "/jobs/run"),
        ("/jobs", "/tick/report", "/jobs/run"),
        ("/jobs", "/jobs/tick/report", "/jobs/run"),
        ("/api", "/api/jobs/tick/report", "/jobs/run"),
        ("", "/tick/report", "/cron"),
        ("", "/a/b/tick/report", "/a/b/c"),
    ],
)
def test_a_tick_names_its_job_beside_the_path_of_the_calls(mount, path, run_path):
    assert endpoint(run_path=run_path).route(asked(path=path, mount=mount)) == Route("report")


@pytest.mark.parametrize(
    ("mount", "path", "run_path"),
    [
        ("", "/jobs/tick", "/jobs/run"),
        ("", "/jobs/tick/", "/jobs/run"),
        ("/jobs", "/tick", "/jobs/run"),
        ("/api", "/api/jobs/tick", "/jobs/run"),
        ("", "/tick", "/cron"),
    ],
)
def test_a_tick_without_a_job_is_one_of_all_jobs(mount, path, run_path):
    assert endpoint(run_path=run_path).route(asked(path=path, mount=mount)) == TICK_ALL


def refused(made: Endpoint, request: Asked, route: Route = RUN) -> Response | None:
    return made.refusal(route, request)


def test_a_signed_call_passes_and_is_understood():
    made = endpoint()
    request = asked(signed(BODY))
    assert refused(made, request) is None
    call = made.call(request, BODY)
    assert isinstance(call, Call)
    assert call.runs == tuple(RUNS[:2])


def test_a_bearer_call_passes_where_the_setting_says_so_and_only_there():
    assert refused(endpoint(auth="bearer"), asked(bearer())) is None
    assert refused(endpoint(auth="bearer"), asked(signed(BODY))).status == 401
    assert refused(endpoint(), asked(bearer())).status == 401


def test_a_tick_takes_a_bearer_whatever_the_setting_says():
    for auth in ("signature", "bearer"):
        tick = asked(bearer(), path="/jobs/tick/report", method="GET")
        assert refused(endpoint(auth=auth), tick, Route("report")) is None
        assert refused(endpoint(auth=auth), asked(signed(b"")), Route("report")).status == 401


def test_both_secrets_are_valid_while_one_is_replaced():
    made = endpoint(secret=f"{SECRET} {OTHER_SECRET}")
    for secret in (SECRET, OTHER_SECRET):
        assert isinstance(made.call(asked(signed(BODY, secret)), BODY), Call)
        assert refused(made, asked(bearer(secret)), Route("report")) is None


@pytest.mark.parametrize(
    "method", ["GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "TRACE", "post", "X" * 99]
)
def test_the_path_of_the_calls_takes_post_alone(method):
    answer = refused(endpoint(), asked(signed(BODY), method=method))
    assert answer.status == 405
    assert (b"allow", b"POST") in answer.headers


@pytest.mark.parametrize("method", ["PUT", "HEAD", "DELETE", "OPTIONS"])
def test_a_tick_takes_get_and_post(method):
    answer = refused(endpoint(), asked(bearer(), method=method), Route("report"))
    assert answer.status == 405
    assert (b"allow", b"GET, POST") in answer.headers


def test_without_a_secret_the_door_is_locked_and_the_log_says_why(caplog):
    made = Endpoint(Settings(), clock=SystemClock())
    for headers in ({}, bearer(), bearer(""), signed(BODY)):
        answer = refused(made, asked(headers))
        assert answer.status == 503
        assert b"secret" not in answer.body.lower()
        assert refused(made, asked(headers), Route("report")).status == 503
    assert caplog.text.count("JOBMANAGER_SECRET is not set") == 1


def test_who_asks_comes_before_what_is_asked():
    """A stranger with a broken body, type or size learns nothing but that he is one."""
    made = endpoint()
    strange = {**signed(b"{", OTHER_SECRET), "content-type": "text/plain", "content-encoding": "gzip"}
    assert made.call(asked(strange), b"{").status == 401
    assert refused(made, asked({"content-length": "99999999"})).status == 401


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ('Application/JSON;charset="UTF-8"', True),
        ("application/json;", True),
        ("application/json; charset=latin-1", False),
        ("application/json; boundary=x", False),
        ("application/jsonp", False),
        ("application/vnd.api+json", False),
        ("text/plain", False),
        ("text/json", False),
        ("application/x-www-form-urlencoded", False),
        ("multipart/form-data; boundary=x", False),
        ("", False),
        ("application/json, text/plain", False),
    ],
)
def test_only_json_in_utf_8_is_read(content_type, taken):
    answer = endpoint().call(asked({**signed(BODY), "content-type": content_type}), BODY)
    assert isinstance(answer, Call) if taken else answer.status == 415


def test_a_type_that_is_missing_or_comes_twice_is_no_json():
    headers = [(name, value) for name, value in signed(BODY).items() if name != "content-type"]
    assert endpoint().call(asked(headers), BODY).status == 415
    twice = [*headers, ("content-type", "application/json"), ("content-type", "application/json")]
    assert endpoint().call(asked(twice), BODY).status == 415


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "x-gzip", "identity, gzip", "GZIP", "?"])
def test_a_compressed_body_is_not_unpacked(coding):
    assert endpoint().call(asked({**signed(BODY), "content-encoding": coding}), BODY).status == 415
    assert isinstance(endpoint().call(asked({**signed(BODY), "content-encoding": "identity"}), BODY), Call)


@pytest.mark.parametrize(
    ("length", "refused_at_once"),
    [(str(LARGEST), False), (str(LARGEST + 1), True), ("9" * 400, True), ("-1", False)],
)
def test_a_body_that_says_it_is_too_large_is_not_read(length, refused_at_once):
    answer = refused(endpoint(), asked({**signed(BODY), "content-length": length}))
    assert (answer is not None and answer.status == 413) is refused_at_once


def test_a_body_that_is_too_large_is_refused_whatever_it_said():
    large = b" " * (LARGEST + 1)
    assert endpoint().call(asked({**signed(large), "content-length": "10"}), large).status == 413


def test_what_is_wrong_with_a_call_of_ours_is_told():
    body = b'{"v":1,"call":17,"kind":"tick","runs":[]}'
    answer = endpoint().call(asked(signed(body)), body)
    assert (answer.status, answer.body) == (400, b'{"error":"kind must be ticks, plan or sweep"}')


STRICT = Limits(calls_per_second=1, calls_at_once=3, failures_per_second=0.5, failures_at_once=2)


def test_failures_are_limited_and_told_when_to_come_back():
    made = endpoint(STRICT)
    statuses = [refused(made, asked({})).status for _ in range(3)]
    assert statuses == [401, 401, 429]
    answer = made.call(asked(signed(BODY, OTHER_SECRET)), BODY)
    assert answer.status == 429
    assert (b"retry-after", b"2") in answer.headers
    assert refused(made, asked({}, client="10.0.0.2")).status == 401


@pytest.mark.parametrize(
    "claimed",
    [
        [f"203.0.113.{number}" for number in range(9)],
        [f"2001:db8::{number}" for number in range(9)],
        [f"fe80::1%{number}" for number in range(9)],
        [f"made up {number}" for number in range(9)],
    ],
)
def test_a_new_address_for_each_failure_evades_no_limit(claimed):
    """As where a server believes X-Forwarded-For."""
    made = endpoint(STRICT)
    statuses = [refused(made, asked({}, client=client)).status for client in claimed]
    assert statuses[-1] == 429
    assert refused(made, asked(signed(BODY))) is None


@pytest.mark.parametrize(
    "client", ["\x1b[31mred", "10.0.0.1\nforged", "fe80::1%\x1b[2J", "\u202e1.2.3.4", "x" * 9999]
)
def test_an_address_that_is_none_reaches_no_log(client, caplog):
    refused(endpoint(), asked({}, client=client))
    [line] = caplog.messages
    assert line.isprintable()
    assert len(line) < 200


def test_a_stranger_who_is_limited_keeps_nobody_else_at_his_address_out():
    """Behind a proxy all come from one address: fails if failures are refused before they are failures."""
    made = endpoint(STRICT)
    while refused(made, asked({})).status == 401:
        pass
    assert refused(made, asked(signed(BODY))) is None
    assert isinstance(made.call(asked(signed(BODY)), BODY), Call)


@pytest.mark.parametrize("auth", ["signature", "bearer"])
def test_authenticated_calls_are_limited_too_and_told_when_to_come_back(auth):
    made = endpoint(STRICT, auth=auth)
    headers = signed(BODY) if auth == "signature" else bearer()
    answers = [made.refusal(RUN, asked(headers)) or made.call(asked(headers), BODY) for _ in range(4)]
    assert [getattr(answer, "status", 0) for answer in answers] == [0, 0, 0, 429]
    assert (b"retry-after", b"1") in answers[-1].headers


def test_by_default_ten_thousand_calls_at_once_are_no_flood():
    made = endpoint()
    headers = asked(signed(BODY))
    assert all(isinstance(made.call(headers, BODY), Call) for _ in range(10_000))


def test_the_log_tells_why_a_call_is_refused_now_and_then_and_never_what_was_sent(caplog):
    made = endpoint(auth="bearer")
    with caplog.at_level(logging.DEBUG):
        for _ in range(50):
            refused(made, asked(bearer(OTHER_SECRET)))
    assert caplog.text.count("a call from 10.0.0.1 is refused: the bearer token is none of the secrets") == 1
    assert OTHER_SECRET not in caplog.text

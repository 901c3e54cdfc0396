"""Calls over WSGI: the same answers as over ASGI, and bodies as WSGI's servers hand them over."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.calls import OTHER_SECRET, RUNS, Jobs, ask, ask_wsgi, bearer, body_of, signed

from jobmanager.errors import StoreUnavailableError
from jobmanager.web import asgi, wsgi
from jobmanager.web.body import LARGEST

BODY = body_of()
BROKEN = b'{"v":1,"call":17'
LARGE = b" " * (LARGEST + 1)


def requests():
    """Each as body, headers and the rest, signed just now."""
    return {
        "a call": (BODY, signed(BODY), {}),
        "a plan": (body_of(1, [], "plan"), signed(body_of(1, [], "plan")), {}),
        "broken": (BROKEN, signed(BROKEN), {}),
        "a stranger": (BODY, signed(BODY, OTHER_SECRET), {}),
        "nobody": (BODY, {}, {}),
        "bearer": (BODY, bearer(), {}),
        "too large": (LARGE, signed(LARGE), {}),
        "compressed": (BODY, {**signed(BODY), "content-encoding": "gzip"}, {}),
        "no type": (BODY, {**signed(BODY), "content-type": "text/plain"}, {}),
        "get": (b"", {}, {"method": "GET"}),
        "head": (b"", {}, {"method": "HEAD"}),
        "slash": (BODY, signed(BODY), {"path": "/jobs/run/"}),
        "mounted": (BODY, signed(BODY), {"path": "/run", "mount": "/jobs"}),
        "not found": (BODY, signed(BODY), {"path": "/jobs/runs"}),
        "a tick": (b"", bearer(), {"path": "/jobs/tick/report", "method": "GET"}),
        "no job": (b"", bearer(), {"path": "/jobs/tick/\u00fcber", "method": "GET"}),
    }


@pytest.mark.parametrize("name", requests())
@pytest.mark.parametrize("wait", [False, True])
async def test_the_answers_over_wsgi_are_those_over_asgi(name, wait):
    body, headers, more = requests()[name]
    one, other = Jobs(wait=wait), Jobs(wait=wait)
    over_asgi = await ask(asgi(one), body, headers, **more)
    over_wsgi = ask_wsgi(wsgi(other), body, headers, **more)

    assert over_wsgi == over_asgi
    assert one.host.asked == other.host.asked


def test_a_repeated_call_gets_the_same_answer_also_during_the_first():
    jobs = Jobs()
    arrived, committed = threading.Event(), threading.Event()

    def before_accept():
        arrived.set()
        committed.wait(10)

    jobs.host.before_accept = before_accept
    app = wsgi(jobs)
    with ThreadPoolExecutor(3) as threads:
        answering = [threads.submit(ask_wsgi, app, BODY, signed(BODY)) for _ in range(3)]
        arrived.wait(10)
        committed.set()
        answers = [one.result(10) for one in answering]
    assert {answer.body for answer in [*answers, ask_wsgi(app, BODY, signed(BODY))]} == {
        b'{"call":17,"accepted":2,"known":2}'
    }
    assert jobs.host.verbs() == ["accept"]


def test_a_store_that_is_away_is_503():
    jobs = Jobs()
    jobs.host.troubles += [StoreUnavailableError("away")] * 2
    app = wsgi(jobs)
    assert ask_wsgi(app, BODY, signed(BODY)).status == 503
    assert ask_wsgi(app, BODY, signed(BODY)).status == 202


def test_a_body_in_chunks_is_read_where_the_server_says_where_it_ends():
    body = body_of(17, RUNS[:100])
    more = {"CONTENT_LENGTH": "", "wsgi.input_terminated": True}
    answer = ask_wsgi(wsgi(Jobs()), body, signed(body), **more)
    assert answer.said["accepted"] == 100
    assert ask_wsgi(wsgi(Jobs()), LARGE * 20, signed(BODY), **more).status == 413


@pytest.mark.parametrize("length", ["", "-5", "abc", "9" * 400])
def test_a_length_that_is_none_leaves_the_body_unread(length):
    unread = io.BytesIO(BODY)
    answer = ask_wsgi(
        wsgi(Jobs()), BODY, signed(BODY), CONTENT_LENGTH=length, **{"wsgi.input": unread}, watched=False
    )
    assert answer.status in {401, 413}
    assert unread.tell() == 0


def test_a_body_shorter_than_it_says_is_no_call_of_ours():
    answer = ask_wsgi(wsgi(Jobs()), BODY, signed(BODY + b"  "), CONTENT_LENGTH=str(len(BODY) + 2))
    assert answer.status == 401


def test_a_body_that_comes_in_dribs_is_read_whole():
    class Dribbling(io.BytesIO):
        def read(self, size=-1):
            return super().read(min(size, 3))

    answer = ask_wsgi(wsgi(Jobs()), BODY, signed(BODY), **{"wsgi.input": Dribbling(BODY)})
    assert answer.status == 202


def test_what_is_not_ours_goes_to_the_application_behind():
    def behind(environ, start_response):
        start_response("299 Elsewhere", [("Content-Type", "text/plain")])
        return [environ["PATH_INFO"].encode("latin-1")]

    app = wsgi(Jobs(), otherwise=behind)
    assert ask_wsgi(app, path="/other").body == b"/other"
    assert ask_wsgi(app, BODY, signed(BODY)).status == 202

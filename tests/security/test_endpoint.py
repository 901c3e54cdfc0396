"""The endpoint against strangers (S1) and hostile bodies (S2): one answer to all who fail, and never an error of ours."""

from __future__ import annotations

import gzip
import json
import logging
import time
import tracemalloc

import pytest
from tests.calls import (
    OTHER_SECRET,
    RUNS,
    SECRET,
    Jobs,
    Replied,
    ask,
    ask_wsgi,
    bearer,
    body_of,
    canary,
    sign_bytes,
    signed,
)
from tests.security.json_cases import ACCEPTED, REFUSED

from jobmanager import Settings
from jobmanager.errors import SettingsError
from jobmanager.web import asgi, endpoint, wsgi
from jobmanager.web.body import BodyError, strict_json

BODY = body_of()


async def over_asgi(jobs: Jobs, body: bytes = b"", headers=(), **more) -> Replied:
    return await ask(asgi(jobs), body, headers, **more)


async def over_wsgi(jobs: Jobs, body: bytes = b"", headers=(), **more) -> Replied:
    return ask_wsgi(wsgi(jobs), body, headers, **more)


BOTH = pytest.mark.parametrize("over", [over_asgi, over_wsgi])


# ---------------------------------------------------------------- S1: who may call


def strangers() -> dict[str, list[tuple[str, str]]]:
    """What almost looks like a call of ours, signed just now."""
    fine = signed(BODY)
    v1, now = fine["webhook-signature"], int(fine["webhook-timestamp"])

    def changed(**headers: str | None) -> list[tuple[str, str]]:
        given = {**fine, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return [(name, value) for name, value in given.items() if value is not None]

    return {
        "nothing": [],
        "no id": changed(webhook_id=None),
        "no timestamp": changed(webhook_timestamp=None),
        "no signature": changed(webhook_signature=None),
        "empty id": changed(webhook_id=""),
        "empty timestamp": changed(webhook_timestamp=""),
        "empty signature": changed(webhook_signature=""),
        "another id": changed(webhook_id="call_18"),
        "an id with a dot": changed(webhook_id="call.17"),
        "another timestamp": changed(webhook_timestamp=str(now - 1)),
        "the first digits of the timestamp": changed(webhook_timestamp=str(now)[:-1]),
        "a timestamp in milliseconds": changed(webhook_timestamp=str(now * 1000)),
        "a timestamp with a fraction": changed(webhook_timestamp=f"{now}.0"),
        "a negative timestamp": changed(webhook_timestamp=f"-{now}"),
        "a timestamp with a sign": changed(webhook_timestamp=f"+{now}"),
        "a timestamp with a blank": changed(webhook_timestamp=f" {now}"),
        "a timestamp with underscores": changed(webhook_timestamp="1_800_000_000"),
        "a timestamp that is no number": changed(webhook_timestamp="now"),
        "not a number": changed(webhook_timestamp="nan"),
        "a timestamp without end": changed(webhook_timestamp="9" * 5000),
        "signed 310 s ago": [*signed(BODY, at=time.time() - 310).items()],
        "signed 310 s ahead": [*signed(BODY, at=time.time() + 310).items()],
        "signed in 1970": [*signed(BODY, at=0).items()],
        "signed with another secret": [*signed(BODY, OTHER_SECRET).items()],
        "signed with the text of the secret": changed(
            webhook_signature=sign_bytes(SECRET.removeprefix("whsec_"), "call_17", now, BODY)
        ),
        "signed over another body": [*signed(BODY + b" ").items()],
        "signed over no body": [*signed(b"").items()],
        "a signature cut short": changed(webhook_signature=v1[:-1]),
        "a signature and a letter": changed(webhook_signature=v1 + "A"),
        "a signature in other case": changed(webhook_signature="v1," + v1[3:].swapcase()),
        "a signature in hexadecimal": changed(webhook_signature="v1," + "ab" * 32),
        "a signature without a version": changed(webhook_signature=v1[3:]),
        "a version alone": changed(webhook_signature="v1,"),
        "another version": changed(webhook_signature="v2," + v1[3:]),
        "a version in upper case": changed(webhook_signature="V1," + v1[3:]),
        "signatures with commas between": changed(webhook_signature=f"v1,AAAA,{v1}"),
        "signatures with tabs between": changed(webhook_signature=f"v1,AAAA\t{v1}"),
        "a thousand signatures": changed(webhook_signature=" ".join([v1] * 1000)),
        "a signature of a megabyte": changed(webhook_signature="v1," + "A" * 2**20),
        "a signature of other letters": changed(webhook_signature="v1,\xfc\xe9\xdf" * 10),
        "two ids": [*fine.items(), ("webhook-id", "call_17")],
        "two timestamps": [*fine.items(), ("webhook-timestamp", str(now))],
        "two signatures": [*fine.items(), ("webhook-signature", v1)],
        "the headers of Svix": [(name.replace("webhook", "svix"), value) for name, value in fine.items()],
        "a bearer where a signature is wanted": [*bearer().items()],
        "a password": [("authorization", "Basic amFuZTpzZWNyZXQ=")],
    }


TOKENS: dict[str, list[tuple[str, str]]] = {
    "nothing": [],
    "empty": [("authorization", "")],
    "a scheme alone": [("authorization", "Bearer")],
    "a scheme and a blank": [("authorization", "Bearer ")],
    "no scheme": [("authorization", SECRET)],
    "Basic": [("authorization", f"Basic {SECRET}")],
    "Token": [("authorization", f"Token {SECRET}")],
    "a scheme of one letter more": [("authorization", f"Bearers {SECRET}")],
    "a colon": [("authorization", f"Bearer: {SECRET}")],
    "another secret": [("authorization", f"Bearer {OTHER_SECRET}")],
    "one letter less": [("authorization", f"Bearer {SECRET[:-1]}")],
    "one letter more": [("authorization", f"Bearer {SECRET}A")],
    "other case": [("authorization", f"Bearer {SECRET.swapcase()}")],
    "without its prefix": [("authorization", f"Bearer {SECRET.removeprefix('whsec_')}")],
    "in quotes": [("authorization", f'Bearer "{SECRET}"')],
    "twice in one": [("authorization", f"Bearer {SECRET} {SECRET}")],
    "two headers": [("authorization", f"Bearer {SECRET}"), ("authorization", f"Bearer {SECRET}")],
    "two in one header": [("authorization", f"Bearer {SECRET}, Bearer {SECRET}")],
    "other letters": [("authorization", "Bearer \xfcber-\xe9t\xe9-" + "\xff" * 30)],
    "a megabyte": [("authorization", "Bearer " + "A" * 2**20)],
    "a NUL": [("authorization", f"Bearer {SECRET}\x00")],
    "null": [("authorization", "Bearer null")],
    "in another header": [("x-authorization", f"Bearer {SECRET}"), ("x-api-key", SECRET)],
    "in the proxy's": [("proxy-authorization", f"Bearer {SECRET}")],
    "in a cookie": [("cookie", f"Authorization=Bearer {SECRET}; token={SECRET}")],
    "a signature where a bearer is wanted": [*signed(BODY).items()],
}


def is_one_header(headers: list[tuple[str, str]]) -> bool:
    """WSGI's servers join headers that come twice; then there is one, and it is wrong."""
    return len({name for name, _ in headers}) == len(headers)


@BOTH
@pytest.mark.parametrize("name", strangers())
async def test_a_stranger_on_the_path_of_the_calls_is_told_nothing(over, name):
    headers = strangers()[name]
    if over is over_wsgi and not is_one_header(headers):
        joined: dict[str, str] = {}
        for key, value in headers:
            joined[key] = f"{joined[key]},{value}" if key in joined else value
        headers = [*joined.items()]
    jobs = Jobs()
    answer = await over(jobs, BODY, headers)
    assert (answer.status, answer.body) == (401, b'{"error":"unauthorized"}')
    assert answer.headers == (await over(Jobs(), BODY, [])).headers  # identical to the last header
    assert (jobs.host.asked, jobs.starts) == ([], 0)


@BOTH
@pytest.mark.parametrize("path", ["/jobs/run", "/jobs/tick/report"])
@pytest.mark.parametrize("name", TOKENS)
async def test_a_wrong_token_is_told_nothing(over, name, path):
    headers = TOKENS[name]
    if over is over_wsgi and not is_one_header(headers):
        headers = [("authorization", ",".join(value for _, value in headers))]
    jobs = Jobs(auth="bearer")
    answer = await over(
        jobs, BODY, headers, path=path, query=f"token={SECRET}&access_token={SECRET}&secret={SECRET}"
    )
    assert (answer.status, answer.body) == (401, b'{"error":"unauthorized"}')
    assert answer.headers == (await over(Jobs(auth="bearer"), BODY, [], path=path)).headers
    assert (jobs.host.asked, jobs.starts) == ([], 0)


@BOTH
async def test_a_token_in_the_query_is_never_looked_at(over):
    for query in (f"token={SECRET}", f"access_token={SECRET}", f"Authorization=Bearer%20{SECRET}"):
        assert (await over(Jobs(), BODY, {}, query=query)).status == 401
        assert (
            await over(Jobs(), BODY, {}, query=query, path="/jobs/tick/report", method="GET")
        ).status == 401


@BOTH
async def test_known_and_unknown_jobs_are_not_told_apart_before_authentication(over):
    answers = [
        await over(Jobs(), b"", bearer(OTHER_SECRET), path=f"/jobs/tick/{job}", method="GET")
        for job in ("report", "unknown", "%00", "x" * 5000, "\u00fcber", "..")
    ]
    assert {(answer.status, answer.body, *answer.headers.items()) for answer in answers} == {
        (401, b'{"error":"unauthorized"}', *answers[0].headers.items())
    }


@BOTH
async def test_a_stranger_s_body_is_never_parsed(over, monkeypatch):
    """Fails if the order is turned: parsing comes after authentication."""
    monkeypatch.setattr(endpoint, "read_call", lambda body: pytest.fail("parsed"))
    for auth in ("signature", "bearer"):
        for body in (b"", b"{", BODY, b"[" * 60_000):
            for headers in (signed(body, OTHER_SECRET), bearer(OTHER_SECRET)):
                assert (await over(Jobs(auth=auth), body, headers)).status == 401


@BOTH
@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"])
async def test_another_method_is_405_and_says_which_is_meant(over, method):
    for headers in (signed(BODY), {}):
        answer = await over(Jobs(), BODY, headers, method=method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")


@BOTH
@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "text/json", "multipart/form-data"]
)
async def test_a_wrong_type_is_415_which_also_keeps_forms_of_a_browser_out(over, content_type):
    assert (await over(Jobs(), BODY, {**signed(BODY), "content-type": content_type})).status == 415


@BOTH
@pytest.mark.parametrize(
    "path",
    ["/jobs/run/", "/jobs/run", "/jobs/tick/report/", "/jobs/run//", "/jobs/run?x", "//jobs/run", "/jobs"],
)
async def test_there_is_never_a_redirect(over, path):
    for method in ("GET", "POST"):
        answer = await over(Jobs(), BODY, signed(BODY), path=path, method=method)
        assert not 300 <= answer.status < 400
        assert "location" not in answer.headers


@BOTH
async def test_without_a_secret_nobody_gets_in(over, caplog):
    for headers in ({}, bearer(""), bearer("None"), bearer("***"), signed(BODY), signed(BODY, " " * 40)):
        jobs = Jobs(secret=None)
        assert (await over(jobs, BODY, headers)).status == 503
        assert (await over(jobs, BODY, headers, path="/jobs/tick/report")).status == 503
        assert jobs.host.asked == []
    assert "JOBMANAGER_SECRET is not set" in caplog.text


@pytest.mark.parametrize(
    "secret", ["", " ", "short", "x" * 64, "changeme" * 5, "your-secret-key-here-test-2014-test", "whsec_"]
)
def test_a_secret_that_is_none_stops_the_start(secret):
    with pytest.raises(SettingsError):
        Settings.from_env({"JOBMANAGER_SECRET": secret})


@BOTH
async def test_after_a_rotation_the_old_secret_is_a_stranger_s(over):
    during = Jobs(secret=f"{OTHER_SECRET} {SECRET}")
    assert (await over(during, BODY, signed(BODY, SECRET))).status == 202
    assert (await over(during, BODY, signed(BODY, OTHER_SECRET))).status == 202
    after = Jobs(secret=OTHER_SECRET)
    assert (await over(after, BODY, signed(BODY, SECRET))).status == 401
    assert (await over(after, BODY, signed(BODY, OTHER_SECRET))).status == 202


async def test_a_call_captured_is_answered_alike_for_five_minutes_and_refused_after(monkeypatch):
    """A thief who repeats it makes nothing happen; pg_net repeats as well and must hear the same."""
    jobs = Jobs()
    app = asgi(jobs)
    first = await ask(app, BODY, signed(BODY, at=time.time() - 280))
    again = await ask(app, BODY, signed(BODY, at=time.time() - 280))
    late = await ask(app, BODY, signed(BODY, at=time.time() - 301))
    assert (
        (first.status, first.body)
        == (again.status, again.body)
        == (202, b'{"call":17,"accepted":2,"known":2}')
    )
    assert late.status == 401
    assert jobs.host.verbs() == ["accept"]


@pytest.mark.parametrize("kind", ["signature", "bearer"])
async def test_a_flood_of_failures_is_told_to_come_back_later_and_keeps_nobody_out(kind):
    app = asgi(Jobs(auth=kind))
    ours = bearer() if kind == "bearer" else signed(BODY)
    began = time.monotonic()
    answers = [await ask(app, BODY, bearer(OTHER_SECRET)) for _ in range(300)]
    two_a_second = 2 * (time.monotonic() - began)
    statuses = [answer.status for answer in answers]
    assert statuses[:100] == [401] * 100
    assert set(statuses[100:]) <= {401, 429}
    assert statuses.count(401) <= 100 + two_a_second
    limited = [answer for answer in answers if answer.status == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in limited)
    assert limited
    assert (await ask(app, BODY, ours)).status == 202
    assert (await ask(app, BODY, bearer(OTHER_SECRET), client="10.9.9.9")).status == 401


@BOTH
async def test_no_secret_shows_in_logs_answers_or_representations(over, caplog):
    """Canaries in every place a secret can be given or sent."""
    ours, theirs = canary(), canary()
    with caplog.at_level(logging.DEBUG):
        for auth in ("signature", "bearer"):
            jobs = Jobs(secret=f"{ours} {canary()}", auth=auth)
            jobs.host.troubles += [RuntimeError("a bug")]
            answers = [
                await over(jobs, BODY, headers, path=path, query=f"token={theirs}")
                for headers in (
                    bearer(ours),
                    bearer(theirs),
                    signed(BODY, ours),
                    signed(BODY, theirs),
                    {**signed(BODY, ours), "authorization": f"Basic {theirs}"},
                )
                for path in ("/jobs/run", "/jobs/tick/report", "/jobs/tick/unknown")
            ]
            for kind in (asgi, wsgi):
                app = kind(jobs)
                caplog.handler.stream.write(
                    f"{app!r} {app._endpoint!r} {app._endpoint._keys!r} {jobs.settings!r}"
                )
            for answer in answers:
                caplog.handler.stream.write(f"{answer!r}")
    assert {answer.status for answer in answers} >= {202, 401, 404}
    seen = caplog.text
    for secret in (ours, theirs):
        assert secret not in seen
        assert secret.removeprefix("whsec_") not in seen


# ---------------------------------------------------------------- S2: what they may say


@pytest.mark.parametrize("body", ACCEPTED, ids=lambda body: repr(body[:24]))
def test_strict_json_is_read_as_the_standard_library_reads_it(body):
    assert strict_json(body) == json.loads(body)


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: repr(body[:24]))
def test_what_readers_disagree_on_is_refused_with_the_declared_error(body):
    with pytest.raises(BodyError):
        strict_json(body)


def sign_any(body: bytes) -> dict[str, str]:
    at = int(time.time())
    signature = sign_bytes(SECRET, "call_17", at, body)
    return {
        "content-type": "application/json",
        "webhook-id": "call_17",
        "webhook-timestamp": str(at),
        "webhook-signature": signature,
    }


@BOTH
async def test_every_body_of_the_collection_gets_an_answer_and_none_reaches_the_manager(over, caplog):
    """Each alone, as the list of runs, and as a run; all of them signed, as from a database gone mad."""
    jobs = Jobs()
    bodies = [
        shape.replace(b"%", body)
        for body in [*ACCEPTED, *REFUSED]
        for shape in (
            b"%",
            b'{"v":1,"call":17,"kind":"ticks","runs":%}',
            b'{"v":1,"call":17,"kind":"ticks","runs":[%]}',
        )
    ]
    statuses = {}
    for body in bodies:
        answer = await over(jobs, body, sign_any(body))
        statuses.setdefault(answer.status, []).append(body)
        assert isinstance(json.loads(answer.body), dict)
    assert set(statuses) == {202, 400, 413}
    assert all(b"[" in body and not json.loads(body)["runs"] for body in statuses[202])
    assert all(what == [] for _, what in jobs.host.asked)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@BOTH
async def test_a_compressed_body_is_refused_without_being_unpacked(over):
    """A bomb: 60 MB in 58 KB."""
    bomb = gzip.compress(b" " * 60_000_000)
    tracemalloc.start()
    try:
        for coding in ("gzip", "x-gzip", "deflate", "br", "zstd", "identity, gzip"):
            answer = await over(Jobs(), bomb, {**sign_any(bomb), "content-encoding": coding})
            assert answer.status == 415
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3_000_000
    assert (await over(Jobs(), bomb, sign_any(bomb))).status == 400  # sent as if it were JSON


@pytest.mark.parametrize(
    "length",
    ["0", "1", str(len(BODY) - 1), str(len(BODY) + 1), "65536", "-1", "abc", "1e3", "\xb2", "0x10", " 5"],
)
async def test_a_length_that_lies_decides_nothing_over_asgi(length):
    """What came is what is judged, whatever was announced."""
    assert (await over_asgi(Jobs(), BODY, {**signed(BODY), "content-length": length})).status == 202
    large = b" " * 70_000
    assert (await over_asgi(Jobs(), large, {**sign_any(large), "content-length": length})).status == 413


@pytest.mark.parametrize(
    "length",
    ["0", "1", str(len(BODY) - 1), str(len(BODY) + 1), "65536", "", "-1", "abc", "1e3", "\xb2", "0x10"],
)
async def test_a_length_that_lies_leads_nowhere_over_wsgi(length):
    jobs = Jobs()
    answer = ask_wsgi(wsgi(jobs), BODY, signed(BODY), CONTENT_LENGTH=length, watched=False)
    assert answer.status == (202 if length in {str(len(BODY) + 1), "65536"} else 401)


@pytest.mark.parametrize("size", [65_536, 65_537, 100_000, 5_000_000])
@pytest.mark.parametrize("piece", [1024, 65_536, 10**7])
async def test_64_kib_is_the_end_in_pieces_as_in_one(size, piece):
    body = BODY + b" " * (size - len(BODY))
    pieces = [body[start : start + piece] for start in range(0, len(body), piece)]
    answer = await ask(asgi(Jobs()), headers=sign_any(body), chunks=pieces)
    assert answer.status == (202 if size == 65_536 else 413)


@BOTH
async def test_a_call_with_more_than_it_may_have_is_refused(over):
    for body in (
        body_of(runs=RUNS[:1601]),
        body_of(payload={"amount": 1}),
        body_of(job="report"),
        body_of(runs=[{"id": RUNS[0]}]),
        body_of(v=[1]),
        body_of(kind="ticks\x00"),
    ):
        answer = await over(Jobs(), body, sign_any(body))
        assert answer.status in {400, 413}


def test_reading_the_worst_bodies_is_quick():
    """No pattern or walk of ours is worse than linear: 64 KiB of anything within a fraction of a second."""
    worst = [
        b'"' + b"\\\\" * 32_000 + b'"',
        b'"' * 65_000,
        b"[" + b'"",' * 20_000 + b'""]',
        b"{" + b",".join(b'"%d":%d' % (n, n) for n in range(5_000)) + b"}",
        b"[" + b"[]," * 21_000 + b"[]]",
        b'"' + b"\\u0041" * 10_000,
        b":" * 65_000,
        b"-" * 65_000,
        b"1" * 65_000,
        b"[" + b"1" * 4_000 + b"]",
    ]
    begun = time.perf_counter()
    for body in worst:
        try:
            strict_json(body)
        except BodyError:
            continue
    assert time.perf_counter() - begun < 2

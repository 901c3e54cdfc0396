"""A run that is sent to a receiver: the request, what each answer makes of the run, and receivers that misbehave."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme
from standardwebhooks import Webhook as Verifier
from tests.receivers import Connection, Receiver, Talk, answering

from jobmanager import JobManager, Retry, Run, Settings
from jobmanager.errors import ConfigurationError, DuplicateJobError, MissingExtraError
from jobmanager.testing import FakeClock
from jobmanager.webhooks import ApiKey, Basic, Bearer, Header
from jobmanager.webhooks.webhook import new_signing_secret

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
SECRET = new_signing_secret().get_secret_value()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as receiver:
        yield receiver


def manager(receiver: Receiver, clock: FakeClock | None = None) -> JobManager:
    settings = Settings(
        database_url="memory://", backend="noop", webhook_allow=f"{receiver.host}:{receiver.port}"
    )
    return JobManager(settings, clock=clock)


def sent(receiver: Receiver, *, retry: Retry | None = None, payload: Any = None, **options: Any) -> Run:
    """Return the run of a job that is sent to the receiver once."""
    jobs = manager(receiver)
    jobs.webhook("hook", receiver.url, **{"timeout": 2, **options})
    jobs.add_job("job", "hook", config={"days": 30}, **({"retry": retry} if retry else {}))
    return jobs.trigger_job("job", payload)


def answered(talk: Talk, **options: Any) -> Run:
    with Receiver(talk).listening() as receiver:
        return sent(receiver, **options)


# ---------------------------------------------------------------- the request


def test_the_request_says_which_run_it_is_and_is_signed(receiver: Receiver) -> None:
    run = sent(receiver, payload={"region": "eu"}, secret=SECRET, headers={"X-Tenant": "acme"})

    request = receiver.last
    assert request.line == "POST /hook HTTP/1.1"
    assert json.loads(request.body) == {
        "job": "job", "run": run.id, "instant": None, "attempt": 1, "config": {"days": 30}, "payload": {"region": "eu"},
    }  # fmt: skip
    assert request.headers["webhook-id"] == request.headers["idempotency-key"] == run.id
    assert request.headers["jobmanager-attempt"] == "1"
    assert request.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert request.headers["x-tenant"] == "acme"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["content-type"] == "application/json"
    version, trace, span, flags = request.headers["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    Verifier(SECRET).verify(request.body, request.headers)
    assert (run.status, run.output) == ("succeeded", {"ok": True})


def test_a_tick_is_sent_with_its_instant_and_its_key(receiver: Receiver) -> None:
    clock = FakeClock(NOON)
    settings = Settings(database_url="memory://", backend="local", webhook_allow="127.0.0.1")
    with JobManager(settings, clock=clock) as jobs:
        jobs.webhook("hook", receiver.url)
        jobs.schedule_cron_job("hourly", "Hourly", "hook", "0 * * * *")
        clock.advance(hours=1)

    assert json.loads(receiver.last.body)["instant"] == "2026-03-10T13:00:00+00:00"
    assert receiver.last.headers["idempotency-key"] == "hourly:2026-03-10T13:00:00+00:00"
    assert receiver.last.headers["webhook-timestamp"] == str(int((NOON + timedelta(hours=1)).timestamp()))


def test_two_secrets_sign_while_one_is_replaced(receiver: Receiver) -> None:
    newer = new_signing_secret().get_secret_value()
    sent(receiver, secret=f"{newer} {SECRET}")

    for secret in (newer, SECRET):
        Verifier(secret).verify(receiver.last.body, receiver.last.headers)


def test_every_attempt_has_the_same_id_and_its_own_number() -> None:
    answers = iter(["500 Oops", "502 Bad Gateway", "200 OK"])

    def talk(here: Connection) -> None:
        answering(b"{}", next(answers))(here)

    with Receiver(talk).listening() as receiver:
        run = sent(receiver, retry=Retry(max_attempts=3, delays=[0]), secret=SECRET)

    assert (run.status, run.attempt) == ("succeeded", 3)
    assert [request.headers["webhook-id"] for request in receiver.received] == [run.id] * 3
    assert [request.headers["jobmanager-attempt"] for request in receiver.received] == ["1", "2", "3"]
    assert len({request.headers["traceparent"].split("-")[1] for request in receiver.received}) == 1
    assert len({request.headers["traceparent"] for request in receiver.received}) == 3


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (Bearer("t0ken-1234"), "authorization", "Bearer t0ken-1234"),
        (Basic("ana", "pass:word"), "authorization", "Basic YW5hOnBhc3M6d29yZA=="),
        (ApiKey("k3y-12345"), "x-api-key", "k3y-12345"),
        (ApiKey("k3y-12345", header="X-Key"), "x-key", "k3y-12345"),
        (Header("X-Shared", "v4lue-12"), "x-shared", "v4lue-12"),
        (Bearer(env="HOOK_TOKEN"), "authorization", "Bearer from-outside"),
        (Basic("ana", env="HOOK_TOKEN"), "authorization", "Basic YW5hOmZyb20tb3V0c2lkZQ=="),
    ],
)
def test_every_way_to_prove_who_calls(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch, auth: Any, header: str, value: str
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "from-outside")
    sent(receiver, auth=auth)

    assert receiver.last.headers[header] == value
    assert auth.secret is None or auth.secret.get_secret_value() not in repr(auth)


def test_a_variable_that_is_not_set_is_named_and_nothing_is_sent(receiver: Receiver) -> None:
    run = sent(receiver, auth=Bearer(env="NO_SUCH_TOKEN"), retry=Retry(max_attempts=3, delays=[0]))

    assert run.error is not None
    assert (run.status, run.attempt, receiver.connections) == ("failed", 1, 0)
    assert "NO_SUCH_TOKEN is not set" in run.error.message


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_other_methods_carry_the_body(receiver: Receiver, method: str) -> None:
    sent(receiver, method=method)

    assert receiver.last.line.startswith(method)
    assert json.loads(receiver.last.body)["job"] == "job"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_methods_without_a_body_sign_an_empty_one(receiver: Receiver, method: str) -> None:
    sent(receiver, method=method, secret=SECRET)

    assert (receiver.last.line.split()[0], receiver.last.body) == (method, b"")
    Verifier(SECRET).verify(b"", receiver.last.headers, json_parse=False)


def test_a_key_that_no_header_can_carry_is_encoded(receiver: Receiver) -> None:
    jobs = manager(receiver)
    jobs.webhook("hook", receiver.url)
    jobs.trigger_job("hook", key="Größe 7\r\nX: y")

    assert receiver.last.headers["idempotency-key"] == "Gr%C3%B6%C3%9Fe%207%0D%0AX:%20y"


# ---------------------------------------------------------------- the answer


@pytest.mark.parametrize(
    ("body", "output"),
    [
        (b'{"made": [1, 2]}', {"made": [1, 2]}), (b"7", 7), (b"", None), (b"  \n", None), (b"done", "done"), (b"[1,", "[1,"),
        (b'"\xff"', "\ufffd"), (b"NaN", "NaN"), (b"9" * 5000, "9" * 5000), (b"[" * 3000, "[" * 3000),
    ],
)  # fmt: skip
def test_the_answer_is_the_output(body: bytes, output: Any) -> None:
    run = answered(answering(body, "201 Created"))

    assert run.status == "succeeded"
    assert str(run.output)[:200] == str(output)[:200]


@pytest.mark.parametrize(
    ("status", "attempts"),
    [(500, 2), (502, 2), (503, 2), (504, 2), (599, 2), (408, 2), (409, 2), (425, 2), (429, 2)]
    + [(status, 1) for status in (400, 401, 403, 404, 405, 410, 413, 418, 422, 451, 301, 302, 304, 307, 308)],
)
def test_what_may_change_is_tried_again_and_the_rest_is_not(status: int, attempts: int) -> None:
    run = answered(answering(b'{"why": "no"}', f"{status} X"), retry=Retry(max_attempts=2, delays=[0]))

    assert run.error is not None
    assert (run.status, run.attempt, run.error.kind) == ("failed", attempts, "http")
    assert f"answered {status}" in run.error.message
    assert "Traceback" not in run.error.traceback


def test_an_expected_status_is_success_and_another_one_is_not() -> None:
    assert answered(answering(b"{}", "409 Conflict"), expect=[200, 409]).status == "succeeded"
    assert answered(answering(b"{}", "202 Accepted"), expect=[200, 409]).status == "failed"
    assert answered(answering(b"{}", "404 Gone"), expect="200-299,404").status == "succeeded"


@pytest.mark.parametrize("status", ["429 Slow Down", "503 Busy"])
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7), ("0", 0), ("120", 120), ("999999999", 3600), (" 5 ", 5),
        (format_datetime(NOON + timedelta(minutes=4), usegmt=True), 240), (format_datetime(NOON - timedelta(hours=4), usegmt=True), 0),
        (format_datetime(NOON + timedelta(days=4000), usegmt=True), 3600), ("Tuesday, 10-Mar-26 12:01:00 GMT", 60),
    ],
)  # fmt: skip
def test_a_receiver_that_says_when_is_obeyed(status: str, value: str, seconds: int) -> None:
    clock = FakeClock(NOON)
    with Receiver(answering(b"", status, Retry_After=value)).listening() as receiver:
        settings = Settings(database_url="memory://", backend="local", webhook_allow="127.0.0.1")
        with JobManager(settings, clock=clock) as jobs:
            jobs.webhook("hook", receiver.url)
            jobs.add_job("job", "hook", retry=Retry(max_attempts=2, delays=[1800]))
            run = jobs.run(jobs.trigger_job("job").id)
            if seconds:
                assert (run.status, run.attempt) == ("pending", 1)
                assert (run.due_at - NOON).total_seconds() == seconds
            clock.advance()
            assert receiver.connections == (1 if seconds else 2)


@pytest.mark.parametrize("value", ["soon", "-1", "1.5", "", "Wed, 99 Foo 2026", "1e3", "٣"])
def test_a_retry_after_that_says_nothing_leaves_it_to_the_policy(value: str) -> None:
    clock = FakeClock(NOON)
    with Receiver(
        answering(b"", "503 Busy", Retry_After=value.encode().decode("latin-1"))
    ).listening() as receiver:
        settings = Settings(database_url="memory://", backend="local", webhook_allow="127.0.0.1")
        with JobManager(settings, clock=clock) as jobs:
            jobs.webhook("hook", receiver.url)
            jobs.add_job("job", "hook", retry=Retry(max_attempts=2, delays=[1800], jitter=0))
            run = jobs.run(jobs.trigger_job("job").id)

    assert (run.due_at - NOON).total_seconds() == 1800


# ---------------------------------------------------------------- receivers that misbehave


def endless(here: Connection) -> None:
    here.send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    for _ in range(16_000):
        here.send(b"x" * 65_536)


def endless_chunks(here: Connection) -> None:
    here.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(16_000):
        here.send("10000\r\n", b"x" * 65_536, "\r\n")


def endless_headers(here: Connection) -> None:
    here.send("HTTP/1.1 200 OK\r\n")
    for number in range(1_000_000):
        here.send(f"X-{number}: {'x' * 1000}\r\n")


def endless_hints(here: Connection) -> None:
    while not here.over.is_set():
        here.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 100)


def too_short(here: Connection) -> None:
    here.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")


HANGING: dict[str, Talk] = {
    "says nothing": lambda here: here.over.wait(20) and None,
    "drips its head": lambda here: here.drip(b"HTTP/1.1 200 OK\r\n" + b"X-Slow: yes\r\n" * 1000),
    "drips its body": lambda here: (here.send("HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"), here.drip(b"x" * 10_000))[1],
    "drips its chunks": lambda here: (here.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), here.drip(b"1\r\nx\r\n" * 2000))[1],
    "hints for ever": endless_hints,
}  # fmt: skip


@pytest.mark.parametrize("how", HANGING)
def test_no_receiver_takes_longer_than_the_time_for_the_whole_request(how: str) -> None:
    began = time.monotonic()
    run = answered(HANGING[how], timeout=0.5)

    assert run.error is not None
    assert (run.status, run.error.kind) == ("failed", "http")
    assert "did not answer within 0.5 s" in run.error.message
    assert time.monotonic() - began < 3


def test_a_receiver_that_reads_nothing_takes_no_longer_either() -> None:
    began = time.monotonic()
    with Receiver(HANGING["says nothing"], reads=False).listening() as receiver:
        run = sent(receiver, timeout=0.5, payload={"much": "x" * 60_000})

    assert run.status == "failed"
    assert time.monotonic() - began < 3


def test_a_name_server_that_says_nothing_takes_no_longer_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(3))
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    jobs.webhook("hook", "https://slow.example/", timeout=0.3)
    began = time.monotonic()
    run = jobs.trigger_job("hook")

    assert run.error is not None
    assert "did not answer within 0.3 s" in run.error.message
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("talk", [endless, endless_chunks])
def test_of_a_gigabyte_64_kib_are_read(talk: Talk) -> None:
    began = time.monotonic()
    run = answered(talk)

    assert run.status == "succeeded"
    assert len(str(run.output)) < 70_000
    assert "x" * 1000 in str(run.output)
    assert time.monotonic() - began < 3


def test_a_head_without_end_is_a_failure() -> None:
    run = answered(endless_headers)

    assert run.error is not None
    assert (run.status, run.error.kind) == ("failed", "http")


def test_what_is_compressed_is_not_unpacked() -> None:
    bomb = gzip.compress(b"0" * 50_000_000, 1)[:60_000]
    run = answered(answering(bomb, Content_Encoding="gzip"))

    assert run.status == "succeeded"
    assert run.output == "[60,000 bytes of 'gzip', not unpacked]"


@pytest.mark.parametrize(
    "talk",
    [
        too_short, lambda here: None, lambda here: here.send("SSH-2.0-OpenSSH_9.6\r\n"), lambda here: here.send("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"),
        lambda here: here.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456"), lambda here: here.send("HTTP/1.1 99999 X\r\n\r\n"),
        lambda here: here.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), lambda here: here.send(b"\x00" * 100_000),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_tried_again(talk: Talk) -> None:
    run = answered(talk, retry=Retry(max_attempts=2, delays=[0]))

    assert run.error is not None
    assert (run.status, run.attempt, run.error.kind) == ("failed", 2, "http")
    assert "could not be called" in run.error.message


def test_nobody_who_listens_is_tried_again() -> None:
    with Receiver().listening() as receiver:
        pass
    run = sent(receiver, retry=Retry(max_attempts=2, delays=[0]))

    assert (run.status, run.attempt) == ("failed", 2)


def test_a_body_longer_than_it_says_is_cut_there() -> None:
    run = answered(
        lambda here: here.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1 500 Oops\r\n\r\n")
    )

    assert (run.status, run.output) == ("succeeded", {})


# ---------------------------------------------------------------- TLS


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[trustme.CA]:
    from jobmanager.webhooks.connection import tls

    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    tls.cache_clear()
    yield authority
    tls.cache_clear()


def secured(certificate: trustme.LeafCert) -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return context


def over_tls(receiver: Receiver, host: str) -> Run:
    settings = Settings(database_url="memory://", backend="noop", webhook_allow="127.0.0.0/8")
    jobs = JobManager(settings)
    jobs.webhook("hook", f"https://{host}:{receiver.port}/hook", timeout=2)
    return jobs.trigger_job("hook")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_certificate_for_the_name_of_the_url_is_accepted(authority: trustme.CA, host: str) -> None:
    with Receiver(tls=secured(authority.issue_cert("localhost", "127.0.0.1"))).listening() as receiver:
        assert over_tls(receiver, host).status == "succeeded"

    assert receiver.last.headers["host"] == f"{host}:{receiver.port}"


def test_a_certificate_for_another_name_is_refused_and_nothing_is_sent(authority: trustme.CA) -> None:
    with Receiver(tls=secured(authority.issue_cert("other.example", "127.0.0.1"))).listening() as receiver:
        run = over_tls(receiver, "localhost")

    assert run.error is not None
    assert (run.status, run.error.kind, receiver.received) == ("failed", "http", [])
    assert "certificate" in run.error.message.lower()


def test_a_certificate_of_nobody_known_is_refused(authority: trustme.CA) -> None:
    with Receiver(tls=secured(trustme.CA().issue_cert("localhost"))).listening() as receiver:
        run = over_tls(receiver, "localhost")

    assert (run.status, receiver.received) == ("failed", [])


def test_a_handshake_that_never_ends_is_given_up(authority: trustme.CA) -> None:
    with Receiver(HANGING["says nothing"], reads=False).listening() as receiver:
        settings = Settings(database_url="memory://", backend="noop", webhook_allow="127.0.0.0/8")
        jobs = JobManager(settings)
        jobs.webhook("hook", f"https://localhost:{receiver.port}/hook", timeout=0.4)
        began = time.monotonic()
        run = jobs.trigger_job("hook")

    assert run.status == "failed"
    assert time.monotonic() - began < 3


# ---------------------------------------------------------------- declaring


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "BREW"}, "method='BREW'"), ({"timeout": 0}, "timeout=0"), ({"timeout": 1e6}, "timeout="), ({"auth": "Bearer x"}, "auth is none of Bearer"),
        ({"expect": [302]}, "redirects are failures"), ({"expect": range(200, 400)}, "redirects are failures"), ({"expect": []}, "expect="), ({"expect": "all"}, "expect="),
        ({"headers": {"Authorization": "x"}}, "auth=Header"), ({"headers": {"X-Api-Key": "x"}}, "auth=Header"), ({"headers": {"Host": "x"}}, "the request itself decides"),
        ({"headers": {"X": "a\r\nY: b"}}, "cannot be sent"), ({"headers": {"X Y": "a"}}, "no header name"), ({"headers": {"Content-Length": "9"}}, "the request itself decides"),
        ({"headers": {"X": "ü"}}, "cannot be sent"), ({"headers": ["X"]}, "headers"), ({"secret": "whsec_short"}, "no signing secret"), ({"secret": "whsec_!!!"}, "no signing secret"),
        ({"url": "ftp://example.com"}, "scheme"), ({"url": "https://u:p4ssw0rd@example.com"}, "user or password"), ({"url": "https://10.0.0.1/"}, "private"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_when_it_is_declared(options: dict[str, Any], told: str) -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))

    with pytest.raises(ConfigurationError, match=r"^Webhook 'hook': ") as refused:
        jobs.webhook("hook", **{"url": "https://example.com/", **options})

    assert told in str(refused.value)
    assert "p4ssw0rd" not in str(refused.value)
    assert "test_webhooks.py" in str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        Bearer, lambda: Bearer("t", env="T"), lambda: Bearer("a\nb"), lambda: Bearer(""), lambda: Bearer(env="A B"), lambda: Basic("a:b", "c"), lambda: Basic("a\n", "c"),
        lambda: ApiKey("k", header="Host"), lambda: ApiKey("k", header="a b"), lambda: Header("Webhook-Signature", "x"), lambda: Header("X", "ü"), lambda: Bearer(7),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_what_proves_nothing_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(ConfigurationError):
        make()


def test_a_declaration_may_be_repeated_and_not_contradicted() -> None:
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    for _ in range(2):
        jobs.webhook("hook", "https://example.com/", auth=Bearer(env="T"))
    with pytest.raises(DuplicateJobError):
        jobs.webhook("hook", "https://example.com/other", auth=Bearer(env="T"))

    (info,) = [handler for handler in jobs.handlers() if handler.kind == "webhook"]
    assert (info.key, info.kind, info.arguments["additionalProperties"]) == ("hook", "webhook", True)
    assert [(hook.key, hook.source, hook.auth) for hook in jobs.webhooks()] == [
        ("hook", "code", {"kind": "bearer", "env": "T"})
    ]


def test_without_the_extra_a_declaration_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "httpcore2", None)
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))

    with pytest.raises(MissingExtraError, match=r"pip install 'jobmanager-backends\[webhooks\]'"):
        jobs.webhook("hook", "https://example.com/")


def test_a_span_of_opentelemetry_is_passed_on(receiver: Receiver) -> None:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from jobmanager.observe.otel import OpenTelemetry

    settings = Settings(database_url="memory://", backend="noop", webhook_allow="127.0.0.1")
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    jobs = JobManager(settings, observers=[OpenTelemetry(tracer_provider=provider)])
    jobs.webhook("hook", receiver.url)
    jobs.trigger_job("hook")

    (span,) = exporter.get_finished_spans()
    numbers = f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-"
    assert receiver.last.headers["traceparent"].startswith(numbers)

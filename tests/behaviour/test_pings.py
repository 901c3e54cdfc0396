"""Pings: a service outside is called as it expects, never waited for, and never followed elsewhere."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.faults.conftest import until
from tests.receivers import Receiver

from jobmanager import JobManager, Settings
from jobmanager.errors import ConfigurationError, SettingsError
from jobmanager.notify.pings import MOST_WAITING, Pinger
from jobmanager.testing import FakeClock


class Service(BaseHTTPRequestHandler):
    """A service like Healthchecks."""

    got: list[tuple[str, str]]
    status = 200
    hangs: threading.Event | None = None

    def do_POST(self) -> None:
        if self.hangs is not None:
            self.hangs.wait(30)
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        type(self).got.append((self.path, body))
        self.send_response(type(self).status)
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Any]:
    handler = type("Handler", (Service,), {"got": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        handler.url = f"http://127.0.0.1:{running.server_address[1]}/check"  # type: ignore[attr-defined]
        yield handler
        running.shutdown()
        thread.join()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def manager(clock: FakeClock | None, **settings: Any) -> JobManager:
    return JobManager(Settings(**{"backend": "local", "database_url": "memory://", **settings}), clock=clock)


def test_start_success_and_failure_are_pinged(service: Any, clock: FakeClock) -> None:
    jobs = manager(clock)
    broken = [False]

    def work() -> None:
        if broken[0]:
            raise OSError("the disk is full, password=hunter2hunter2")

    jobs.add_job("work", work, every=3600, ping_url=service.url)
    with jobs:
        clock.advance(hours=1)
        broken[0] = True
        clock.advance(hours=1)

    failed, succeeded = jobs.runs("work")
    assert [path for path, _ in service.got] == [
        f"/check/start?rid={succeeded.id}",
        f"/check?rid={succeeded.id}",
        f"/check/start?rid={failed.id}",
        f"/check/fail?rid={failed.id}",
    ]
    assert "the disk is full" in service.got[3][1]
    assert "hunter2" not in service.got[3][1]


def test_a_job_without_url_is_not_pinged(service: Any, clock: FakeClock) -> None:
    jobs = manager(clock)
    jobs.add_job("work", lambda: None, every=3600)
    with jobs:
        clock.advance(hours=1)

    assert service.got == []


def test_a_redirect_is_not_followed(service: Any, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    service.status = 302
    Pinger(threaded=False).ping(service.url)

    assert [path for path, _ in service.got] == ["/check"]
    assert "failed" in caplog.text
    assert "/check" not in caplog.text, "the path is the secret of such services"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/x",
        "file:///etc/passwd",
        "gopher://host",
        "http://",
        "http://user:pw@host/",
        "javascript:x",
        "http://a b/",
    ],
)
def test_only_http_and_https_are_taken(url: str) -> None:
    with pytest.raises(ConfigurationError, match="ping_url"):
        manager(None).add_job("work", lambda: None, ping_url=url)
    with pytest.raises(SettingsError, match="HEARTBEAT_URL"):
        Settings(heartbeat_url=url)


# ---------------------------------------------------------------- where they may go


def stored(clock: FakeClock, ping_url: str, **settings: Any) -> JobManager:
    """A manager with a job that an operator made."""
    jobs = manager(clock, **settings)
    jobs.handler("work")(lambda: None)
    jobs.create_job("made", handler="work", every=3600, ping_url=ping_url)
    return jobs


def test_a_stored_job_pings_no_inner_address_but_one_that_is_allowed(service: Any, clock: FakeClock) -> None:
    """Fails if an operator can have a process connect where no webhook may go; code may."""
    with pytest.raises(
        ConfigurationError, match=r"ping_url cannot be used: .*loopback.*JOBMANAGER_WEBHOOK_ALLOW"
    ):
        stored(clock, service.url)
    other = stored(clock, "https://hc-ping.com/x")
    with pytest.raises(ConfigurationError, match="ping_url"):
        other.update_job("made", ping_url="http://169.254.169.254/latest")
    with stored(clock, service.url, webhook_allow="127.0.0.1") as jobs:
        clock.advance(hours=1)
        (run,) = jobs.runs("made")
    assert [path for path, _ in service.got] == [f"/check/start?rid={run.id}", f"/check?rid={run.id}"]


def looks_up(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """From now on the name hc.example has these addresses, one after the other."""
    truth, replies = socket.getaddrinfo, list(addresses)

    def getaddrinfo(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host == "hc.example":
            host = replies.pop(0) if len(replies) > 1 else replies[0]
        return truth(host, port, *args, **more)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def connections(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Where connections go from now on; none is made."""
    tried: list[tuple[str, int]] = []

    def create_connection(address: tuple[str, int], *_: object) -> object:
        tried.append(address)
        raise ConnectionRefusedError("not in a test")

    monkeypatch.setattr(socket, "create_connection", create_connection)
    return tried


def test_a_name_with_an_inner_address_is_not_connected_to(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks_up(monkeypatch, "127.0.0.1")
    tried = connections(monkeypatch)
    with stored(clock, "http://hc.example/check") as jobs:
        clock.advance(hours=1)
        assert [run.status for run in jobs.runs("made")] == ["succeeded"]
    assert tried == []
    assert "do not reach 127.0.0.1" in caplog.text
    assert "/check" not in caplog.text


def test_a_name_that_is_rebound_after_its_check_has_no_effect(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks_up(monkeypatch, "93.184.215.14", "127.0.0.1")
    tried = connections(monkeypatch)
    Pinger(threaded=False, addresses_of=manager(clock)._parts.webhooks.addresses_of).ping(
        "https://hc.example/check", checked=True
    )
    assert tried == [("93.184.215.14", 443)]


def test_what_speaks_no_http_stops_no_later_ping(service: Any) -> None:
    """Fails if the thread that pings ends with an error that it does not expect."""
    with Receiver(talk=lambda here: here.send("nonsense\r\n\r\n")).listening() as receiver:
        pinger = Pinger(within=5)
        pinger.ping(receiver.url)
        until(lambda: receiver.received)
        pinger.ping(service.url)
        until(lambda: service.got)


def test_a_service_that_hangs_holds_nothing_up(service: Any) -> None:
    service.hangs = threading.Event()
    pinger = Pinger(within=0.2)
    began = time.monotonic()
    for _ in range(MOST_WAITING + 50):
        pinger.ping(service.url)

    assert time.monotonic() - began < 2
    assert pinger.dropped >= 49
    service.hangs.set()


def test_each_look_that_finds_time_kept_pings_the_heartbeat(service: Any, clock: FakeClock) -> None:
    jobs = manager(clock, heartbeat_url=service.url)
    jobs.add_job("work", lambda: None, every=60)
    with jobs:
        for _ in range(10):
            clock.advance(seconds=30)
        assert {path for path, _ in service.got} == {"/check"}
        assert len(service.got) >= 9
        clock.release(jobs.backend._drain)  # type: ignore[attr-defined]
        for _ in range(10):
            clock.advance(seconds=30)

    path, body = service.got[-1]
    assert path == "/check/fail"
    assert "No tick comes" in body
    assert service.url not in repr(jobs.settings)

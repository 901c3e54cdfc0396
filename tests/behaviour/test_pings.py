"""Pings: a service outside is called as it expects, never waited for, and never followed elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

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

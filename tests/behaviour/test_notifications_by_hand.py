"""Notifications as operators and applications handle them: reading, sending again, dropping, and messages of one's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest
from tests.smtp_server import SmtpServer, smtp_server

from jobmanager import JobManager, Settings
from jobmanager.cli import main
from jobmanager.errors import ConfigurationError, NotificationNotFoundError, PayloadError
from jobmanager.testing import FakeClock


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with smtp_server() as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def jobs(clock: FakeClock, server: SmtpServer, tmp_path: Any) -> Iterator[JobManager]:
    url = f"sqlite:///{tmp_path}/jobs.db"
    settings = Settings(
        backend="local", database_url=url, smtp_url=server.url, alerts_email="ops@example.org"
    )
    manager = JobManager(settings, clock=clock)

    def fail() -> None:
        raise OSError("the disk is full")

    manager.add_job("nightly", fail, every=36_000, notify_on_failure=True)
    yield manager
    manager.stop()


def test_one_that_was_sent_is_sent_again(jobs: JobManager, clock: FakeClock, server: SmtpServer) -> None:
    jobs.start()
    clock.advance(hours=10)
    [sent] = jobs.notifications("sent", job="nightly")

    after = jobs.resend_notification(sent.id[-8:], by="ann")

    assert len(server.received) == 2
    assert (after.id, after.state) == (sent.id, "sent")
    [entry] = jobs.audit()
    assert (entry.action, entry.target, entry.target_id, entry.by) == (
        "resend",
        "notification",
        sent.id,
        "ann",
    )


def test_one_that_waits_is_dropped(jobs: JobManager, clock: FakeClock, server: SmtpServer) -> None:
    server.mode = "refuse"
    jobs.start()
    clock.advance(hours=10)
    [waiting] = jobs.notifications()
    server.mode = "well"

    assert jobs.drop_notification(waiting.id).state == "dropped"
    clock.advance(minutes=5)

    assert server.received == []
    assert [item.state for item in jobs.notifications(["dropped", "dead"])] == ["dropped"]


def test_its_message_is_shown_as_it_is_sent(jobs: JobManager, clock: FakeClock) -> None:
    jobs.start()
    clock.advance(hours=10)

    message = jobs.notification_message(jobs.notifications()[0].id)

    assert message.subject == "nightly failed: OSError: the disk is full"
    assert "failed for good" in message.text


@pytest.mark.parametrize("notification_id", ["", "nobody", "%", 3, None, "a\0"])
def test_one_that_there_is_none_of_is_named(jobs: JobManager, notification_id: Any) -> None:
    with pytest.raises(NotificationNotFoundError):
        jobs.notification(notification_id)


def test_a_word_that_is_no_state_is_refused(jobs: JobManager) -> None:
    with pytest.raises(PayloadError, match="state='lost'"):
        jobs.notifications("lost")


def test_an_application_tells_its_admins(jobs: JobManager, clock: FakeClock, server: SmtpServer) -> None:
    jobs.start()

    assert (
        jobs.notify_admins(
            "Low stock", "Three articles", "Order soon.", {"sku": 7, "password": "hunter2hunter2"}, ["shop"]
        )
        == 1
    )

    [got] = server.received
    assert str(got.mail["Subject"]) == "Low stock"
    text = got.mail.get_content()
    assert "Three articles\n\nOrder soon.\n\nsku: 7" in text.replace("\r\n", "\n")
    assert "hunter2" not in text


def test_the_same_message_in_a_loop_is_two_mails(
    jobs: JobManager, clock: FakeClock, server: SmtpServer
) -> None:
    jobs.start()
    for _ in range(100):
        jobs.notify_admins("Low stock")
    jobs.notify_admins("Something else")
    clock.advance(minutes=15, seconds=1)

    assert sorted(server.subjects) == ["Low stock", "Low stock (99 times)", "Something else"]


def test_without_an_address_it_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    jobs = JobManager(Settings(backend="local", database_url="memory://"))

    assert jobs.notify_admins("Low stock") == 0
    assert "no one is notified of 'Low stock'" in caplog.text


def test_a_test_says_what_went_wrong(jobs: JobManager, server: SmtpServer) -> None:
    assert jobs.test_notifications() == {"email": None}
    assert jobs.test_notifications("ann@example.org") == {"email:ann@example.org": None}
    server.mode = "refuse"
    [error] = jobs.test_notifications().values()

    assert error is not None
    assert "554" in error
    assert [got.receivers for got in server.received] == [["ops@example.org"], ["ann@example.org"]]
    with pytest.raises(ConfigurationError, match="neither an e-mail address nor a channel"):
        jobs.test_notifications("slak")


# ---------------------------------------------------------------- the command line


@pytest.fixture
def call(
    jobs: JobManager,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Any,
) -> Callable[..., tuple[int, str]]:
    jobs.start()
    clock.advance(hours=10)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("JOBMANAGER_DATABASE_URL", jobs.settings.database_url)
    monkeypatch.setenv("JOBMANAGER_SMTP_URL", jobs.settings.smtp_url or "")
    monkeypatch.setenv("JOBMANAGER_ALERTS_EMAIL", "ops@example.org")

    def call(*words: str) -> tuple[int, str]:
        code = main(["notifications", *words])
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def test_the_verbs_list_show_resend_and_drop(call: Callable[..., tuple[int, str]], jobs: JobManager) -> None:
    [sent] = jobs.notifications()

    _, listed = call("list")
    _, shown = call("show", sent.id[-8:])
    code, again = call("resend", sent.id)
    _, dropped = call("drop", sent.id, "--json")

    assert code == 0
    assert "failed" in listed
    assert "nightly" in listed
    assert "Subject: nightly failed: OSError: the disk is full" in shown
    assert "it is sent again" in again
    assert json.loads(dropped)["state"] == "dropped"
    assert json.loads(call("list", "--json")[1])[0]["event"] == "failed"
    assert call("list", "--state", "dead") == (0, "There are no notifications like that.\n")
    code, said = call("show", "nobody")
    assert code != 0
    assert "No notification 'nobody'" in said


def test_what_was_sent_is_not_dropped(call: Callable[..., tuple[int, str]], jobs: JobManager) -> None:
    code, said = call("drop", jobs.notifications()[0].id)

    assert code != 0
    assert "was sent already" in said


def test_the_verb_test_fails_where_nothing_arrives(
    call: Callable[..., tuple[int, str]], server: SmtpServer
) -> None:
    assert call("test") == (0, "email: sent\n")
    server.mode = "refuse"

    code, said = call("test", "--to", "ann@example.org")

    assert code != 0
    assert "554" in said


# ---------------------------------------------------------------- Apprise


OF_APPRISE = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")


class Service(BaseHTTPRequestHandler):
    """A service that Apprise posts JSON to."""

    got: list[Any]
    status = 200

    def do_POST(self) -> None:
        type(self).got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(type(self).status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def service() -> Iterator[Any]:
    pytest.importorskip("apprise")
    handler = type("Handler", (Service,), {"got": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        handler.url = f"json://127.0.0.1:{running.server_address[1]}/a-secret-path"  # type: ignore[attr-defined]
        yield handler
        running.shutdown()
        thread.join()


@OF_APPRISE
def test_a_service_of_apprise_is_told(service: Any, clock: FakeClock) -> None:
    jobs = JobManager(
        Settings(backend="local", database_url="memory://", alerts_urls=service.url), clock=clock
    )

    def fail() -> None:
        raise OSError("the disk is full")

    jobs.add_job("nightly", fail, every=3600, notify_on_failure=True)
    with jobs:
        clock.advance(hours=1)

    [message] = service.got
    assert message["title"] == "nightly failed: OSError: the disk is full"
    assert "a-secret-path" not in repr(jobs.settings)


@OF_APPRISE
def test_a_service_that_refuses_gets_it_again(service: Any, clock: FakeClock) -> None:
    jobs = JobManager(
        Settings(backend="local", database_url="memory://", alerts_urls=service.url), clock=clock
    )
    service.status = 500
    jobs.add_job("idle", lambda: None)
    with jobs:
        jobs.notify_admins("hello")
        assert [item.state for item in jobs.notifications()] == ["waiting"]
        service.status = 200
        clock.advance(minutes=2)
        assert [item.state for item in jobs.notifications()] == ["sent"]


@OF_APPRISE
def test_a_service_that_is_away_has_the_others_told_once(service: Any, clock: FakeClock) -> None:
    urls = f"{service.url} json://127.0.0.1:1/nobody"
    jobs = JobManager(Settings(backend="local", database_url="memory://", alerts_urls=urls), clock=clock)
    jobs.add_job("idle", lambda: None)
    with jobs:
        jobs.notify_admins("hello")
        clock.advance(minutes=5)
        assert {item.address: item.state for item in jobs.notifications()} == {"1": "sent", "2": "waiting"}

    assert len(service.got) == 1


@OF_APPRISE
def test_a_url_that_apprise_does_not_know_is_an_error_at_the_start() -> None:
    pytest.importorskip("apprise")
    jobs = JobManager(Settings(backend="local", database_url="memory://", alerts_urls="slak://secret-token"))

    with pytest.raises(ConfigurationError, match=r"URL number 1 \(slak://\.\.\.\)") as refused:
        jobs.start()

    assert "secret-token" not in str(refused.value)

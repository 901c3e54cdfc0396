"""Notifications from a failure to the mail that a server got: on a clock moved by hand, with a real SMTP server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from tests.smtp_server import SmtpServer, smtp_server

from jobmanager import JobManager, Retry, Settings
from jobmanager.access.acting import acting
from jobmanager.access.principal import Principal
from jobmanager.errors import ConfigurationError
from jobmanager.notify import Message, Notifier
from jobmanager.testing import FakeClock

Make = Callable[..., JobManager]


@pytest.fixture
def server() -> Iterator[SmtpServer]:
    with smtp_server() as running:
        yield running


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def make(clock: FakeClock, server: SmtpServer) -> Iterator[Make]:
    made: list[JobManager] = []

    def manager(*, how: dict[str, Any] | None = None, **settings: Any) -> JobManager:
        given = {
            "backend": "local",
            "database_url": "memory://",
            "smtp_url": server.url,
        }
        jobs = JobManager(Settings(**{**given, **settings}), clock=clock, **(how or {}))
        made.append(jobs)
        return jobs

    yield manager
    for jobs in made:
        jobs.stop()


class Failing:
    """A handler that fails until it is told otherwise."""

    def __init__(self) -> None:
        self.broken = True

    def __call__(self) -> None:
        if self.broken:
            raise OSError("the disk is full, password=hunter2hunter2")


def add(jobs: JobManager, handler: Any = None, **options: Any) -> Any:
    handler = handler or Failing()
    jobs.add_job(
        "nightly",
        handler,
        **{"every": 3600, "notify_on_failure": True, "alert_to": "ops@example.org", **options},
    )
    jobs.start()
    return handler


def test_a_failure_for_good_is_mailed(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make(dashboard_url="https://jobs.example.org")
    add(jobs)

    clock.advance(hours=1)

    [got] = server.received
    assert got.receivers == ["ops@example.org"]
    assert str(got.mail["Subject"]).startswith("nightly failed: OSError: the disk is full")
    text = got.mail.get_content()
    [run] = jobs.runs("nightly")
    assert f"jobmanager runs show {run.id}" in text
    assert f"https://jobs.example.org/runs/{run.id}" in text
    assert "2026-01-01 01:00:00 UTC" in text
    assert "Attempt:   1 of 1" in text
    assert "hunter2" not in text


def test_an_attempt_that_is_followed_by_another_is_not_mailed(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    jobs = make()
    handler = add(jobs, retry=Retry(max_attempts=2, delays=[10], jitter=0))

    clock.advance(minutes=60, seconds=1)
    assert server.received == []
    handler.broken = False
    clock.advance(seconds=30)

    assert server.received == []


def test_a_recovery_is_mailed_once(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    handler = add(jobs)
    clock.advance(hours=1)
    handler.broken = False

    clock.advance(hours=1)
    clock.advance(hours=1)

    assert [subject.partition(":")[0] for subject in server.subjects] == [
        "nightly failed",
        "nightly works again",
    ]


def test_a_job_without_notifications_tells_nobody(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    add(jobs, notify_on_failure=False)

    clock.advance(hours=2)

    assert server.connections == 0
    assert jobs.store.outbox.list("default") == []


def test_a_system_job_is_told_of_without_being_asked(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    jobs = make(alerts_email="ops@example.org")
    add(jobs, notify_on_failure=False, alert_to=(), visibility="system")

    clock.advance(hours=1)

    assert len(server.received) == 1


def test_every_end_of_a_system_job_is_told_where_that_is_wanted(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    jobs = make(alerts_on="ends", alerts_email="ops@example.org")
    add(jobs, lambda: None, notify_on_failure=False, alert_to=(), visibility="system")

    clock.advance(hours=1)

    assert server.subjects == ["nightly succeeded"]


def test_rules_of_a_job_name_events_and_addresses(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    add(
        jobs,
        lambda: None,
        notify_on_failure=False,
        alert_on=["ended"],
        alert_to=["ann@example.org", "ben@example.org"],
    )

    clock.advance(hours=1)

    assert sorted(got.receivers for got in server.received) == [["ann@example.org"], ["ben@example.org"]]


def test_who_started_a_run_is_told_how_it_ended(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make(how={"address_of": {"ann": "ann@example.org"}.get})
    handler = add(jobs, notify_on_failure=False, overlap="allow")
    handler.broken = False
    for _ in range(2):
        jobs.trigger_job("nightly", requested_by="ann", notify=True)
    clock.advance()

    assert [got.receivers for got in server.received] == [["ann@example.org"]] * 2, (
        "each start has its own mail"
    )
    assert set(server.subjects) == {"nightly succeeded"}
    assert "by ann" in server.received[0].mail.get_content()


def test_a_principal_is_told_at_its_own_address(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    add(jobs, notify_on_failure=False).broken = False

    with acting(Principal("ben", "operator", email="ben@example.org")):
        run = jobs.trigger_job("nightly", notify=True)
    clock.advance()

    assert run.requested_by == "ben <ben@example.org>"
    assert [got.receivers for got in server.received] == [["ben@example.org"]]


def test_a_start_that_nobody_could_be_told_of_is_refused(make: Make) -> None:
    jobs = make()
    add(jobs)

    with pytest.raises(ConfigurationError, match="no e-mail address of 'ann' is known"):
        jobs.trigger_job("nightly", requested_by="ann", notify=True)


def test_without_a_server_an_address_is_refused() -> None:
    jobs = JobManager(Settings(backend="local", database_url="memory://", alerts_email="ops@example.org"))

    with pytest.raises(ConfigurationError, match="JOBMANAGER_SMTP_URL"):
        jobs.start()


def test_a_channel_that_there_is_none_of_is_refused_at_start(make: Make) -> None:
    jobs = make()
    jobs.add_job("nightly", lambda: None, alert_to="slak:#ops")

    with pytest.raises(ConfigurationError, match="'slak:#ops' is neither an e-mail address nor a channel"):
        jobs.start()


# ---------------------------------------------------------------- a server that misbehaves


@pytest.mark.parametrize("mode", ["refuse", "refuse_text", "lose_before", "busy"])
def test_a_server_that_refuses_gets_it_again_later(
    make: Make, clock: FakeClock, server: SmtpServer, mode: str
) -> None:
    jobs = make()
    server.mode = mode
    add(jobs)
    clock.advance(hours=1)
    [waiting] = jobs.store.outbox.list("default")
    assert (waiting.state, waiting.attempts) == ("waiting", 1)
    assert "127.0.0.1" in (waiting.error or "")

    server.mode = "well"
    clock.advance(seconds=50)
    assert server.received == []
    clock.advance(seconds=20)

    assert len(server.received) == 1
    [sent] = jobs.store.outbox.list("default")
    assert (sent.state, sent.error) == ("sent", None)


def test_what_a_server_says_after_it_accepted_changes_nothing(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    jobs = make()
    server.mode = "rude"
    add(jobs)
    clock.advance(hours=1)
    clock.advance(minutes=5)

    assert len(server.received) == 1
    assert [item.state for item in jobs.store.outbox.list("default")] == ["sent"]


def test_five_failed_deliveries_are_the_last(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    server.mode = "refuse"
    add(jobs, every=36_000)

    clock.advance(hours=10)
    for _ in range(40):
        clock.advance(minutes=1)

    [dead] = jobs.store.outbox.list("default")
    assert (dead.state, dead.attempts, server.connections) == ("dead", 5, 5)


def test_a_mail_without_a_reply_is_sent_once_more(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    server.mode = "lose"
    add(jobs, every=36_000)

    clock.advance(hours=10)
    for _ in range(40):
        clock.advance(minutes=1)

    assert len(server.received) == 2
    assert len({got.mail["Message-ID"] for got in server.received}) == 1
    [unsure] = jobs.store.outbox.list("default")
    assert (unsure.state, unsure.unsure) == ("dead", 2)


# ---------------------------------------------------------------- many at once


def test_a_storm_is_one_mail_and_one_with_a_count(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    add(jobs, every=10)

    for _ in range(100):
        clock.advance(seconds=10)
    assert len(server.received) == 2
    clock.advance(seconds=1)

    first, second = server.subjects
    assert first.startswith("nightly failed: ")
    assert second.startswith("nightly failed 90 times: ")
    assert "... and 70 more" in server.received[1].mail.get_content()


def test_a_clock_that_is_set_back_holds_nothing_up(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make()
    server.mode = "refuse"
    add(jobs)
    clock.advance(hours=1)
    server.mode = "well"

    clock.step(-timedelta(hours=24))
    clock.advance(minutes=2)

    assert len(server.received) == 1


# ---------------------------------------------------------------- texts and channels


@pytest.mark.parametrize(
    "evil",
    [
        "x\r\nBcc: evil@example.org",
        "x\nSubject: other",
        "x\0\x1b[31m",
        "é\u202e\u2028ü" * 100,
        "=?utf-8?q?x?=",
    ],
)
def test_no_text_becomes_a_header(make: Make, clock: FakeClock, server: SmtpServer, evil: str) -> None:
    jobs = make()

    def fail() -> None:
        raise OSError(evil)

    jobs.add_job(
        "nightly",
        fail,
        every=3600,
        name=evil.replace("\0", ""),
        notify_on_failure=True,
        alert_to="ops@example.org",
    )
    jobs.start()
    clock.advance(hours=1)

    [got] = server.received
    assert got.receivers == ["ops@example.org"]
    assert got.mail["Bcc"] is None
    assert str(got.mail["Subject"]).startswith("nightly failed: OSError: ")
    assert len(got.mail.get_all("Subject")) == 1


def test_a_text_with_lines_of_dots_arrives_whole(make: Make, clock: FakeClock, server: SmtpServer) -> None:
    jobs = make(alerts_email="ops@example.org")
    jobs.add_job("idle", lambda: None)
    jobs.start()
    jobs.notify_admins("dots", body="one\n.\n..two\n.three")

    assert server.received[0].mail.get_content().splitlines()[:4] == ["one", ".", "..two", ".three"]


def test_texts_of_another_locale_are_taken_key_by_key(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    german = {"failed.subject": "{job} ist fehlgeschlagen: {error}", "failed.text": "{there_is_no_such_fact}"}
    jobs = make(locale="de-AT", how={"texts": {"de": german}})
    add(jobs)

    clock.advance(hours=1)

    assert server.subjects[0].startswith("nightly ist fehlgeschlagen: ")
    assert "nightly failed for good." in server.received[0].mail.get_content(), (
        "English, where a text cannot be used"
    )


class Chat(Notifier):
    """A channel of an application."""

    name = "chat"

    def __init__(self) -> None:
        self.got: list[Message] = []
        self.broken = False

    def send(self, message: Message) -> None:
        if self.broken:
            raise RuntimeError("no such room")
        self.got.append(message)


def test_a_channel_of_the_application_is_named_by_a_rule(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    chat = Chat()
    jobs = make(how={"notifiers": [chat]})
    add(jobs, alert_to=["chat:#ops", "ann@example.org"])

    clock.advance(hours=1)

    [message] = chat.got
    assert (message.to, message.event, message.job_id, message.count) == ("#ops", "failed", "nightly", 1)
    assert message.facts["attempt"] == 1
    assert len(server.received) == 1


def test_a_broken_channel_keeps_nothing_from_the_others(
    make: Make, clock: FakeClock, server: SmtpServer
) -> None:
    chat = Chat()
    chat.broken = True
    jobs = make(how={"notifiers": [chat]})
    add(jobs, alert_to=["chat", "ann@example.org"])

    clock.advance(hours=1)

    assert len(server.received) == 1
    assert {(found.channel, found.state) for found in jobs.store.outbox.list("default")} == {
        ("chat", "waiting"),
        ("email", "sent"),
    }

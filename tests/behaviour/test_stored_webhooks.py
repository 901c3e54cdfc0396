"""Webhooks that operators make: visible to every process, changed under a revision, audited, and their secrets kept."""

from __future__ import annotations

import asyncio
import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Verifier
from tests.receivers import Connection, Receiver, answering

from jobmanager import JobManager, Settings
from jobmanager.access.acting import acting
from jobmanager.access.principal import Principal
from jobmanager.doctor import examine
from jobmanager.errors import (
    ConfigurationError,
    DuplicateJobError,
    EditConflictError,
    HandlerNotFoundError,
    PermissionDeniedError,
    WebhookRefusedError,
)
from jobmanager.registry import HandlerInfo
from jobmanager.stores.webhooks import WebhookRow
from jobmanager.testing import FakeClock
from jobmanager.webhooks import Basic, Bearer

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
KEY, OTHER_KEY = (base64.b64encode(bytes([number]) * 16 + bytes(range(16))).decode() for number in (1, 2))
TOKEN = "t0ken-of-the-crm"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as receiver:
        yield receiver


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/jobs.db"


def manager(
    url: str, *, key: str | None = KEY, backend: str = "noop", clock: FakeClock | None = None, **more: Any
) -> JobManager:
    settings = Settings(
        database_url=url, backend=backend, webhook_allow="127.0.0.1", encryption_key=key, **more
    )
    return JobManager(settings, clock=clock or (FakeClock(NOON) if backend == "local" else None))


def file_of(url: str) -> bytes:
    path = Path(url.removeprefix("sqlite:///"))
    return b"".join(each.read_bytes() for each in path.parent.glob("jobs.db*"))


def hooks_of(jobs: JobManager) -> list[HandlerInfo]:
    """The handlers of the manager that are webhooks."""
    return [handler for handler in jobs.handlers() if handler.kind == "webhook"]


def test_a_webhook_is_made_named_by_a_job_and_sent(url: str, receiver: Receiver) -> None:
    jobs = manager(url)
    made = jobs.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN), by="ana")
    assert made.secret is not None
    jobs.create_job("nightly", handler="crm", cron="0 3 * * *", config={"days": 3})

    run = jobs.trigger_job("nightly", {"region": "eu"})

    assert (run.status, run.output) == ("succeeded", {"ok": True})
    assert receiver.last.headers["authorization"] == f"Bearer {TOKEN}"
    Verifier(made.secret.get_secret_value()).verify(receiver.last.body, receiver.last.headers)
    (handler,) = hooks_of(jobs)
    assert (handler.key, handler.kind, handler.creatable) == ("crm", "webhook", True)


def test_every_process_of_the_namespace_has_it_within_a_second(url: str, receiver: Receiver) -> None:
    clock = FakeClock(NOON)
    with manager(url, backend="local", clock=clock) as worker:
        operator = manager(url, clock=FakeClock(NOON))
        operator.create_webhook("crm", url=receiver.url)
        operator.create_job("minutely", handler="crm", cron="* * * * *")
        clock.advance(seconds=61)
        assert [run.status for run in worker.runs("minutely")] == ["succeeded"]

        operator.update_webhook("crm", headers={"X-Version": "2"})
        clock.advance(seconds=2)
        clock.advance(seconds=58)
        assert receiver.last.headers["x-version"] == "2"
        assert "crm" in {handler.key for handler in worker.handlers()}

        operator.delete_job("minutely")
        operator.delete_webhook("crm")
        clock.advance(seconds=2)
        assert hooks_of(worker) == []
    assert receiver.connections == 2


def test_other_namespaces_do_not_have_it(url: str, receiver: Receiver) -> None:
    manager(url).create_webhook("crm", url=receiver.url)
    other = manager(url, namespace="shop")

    assert other.webhooks() == hooks_of(other) == []
    other.create_webhook("crm", url=receiver.url)


def test_a_job_of_the_code_may_name_a_stored_webhook(url: str, receiver: Receiver) -> None:
    manager(url).create_webhook("crm", url=receiver.url)
    jobs = manager(url, backend="local")
    jobs.add_job("coded", "crm")
    with jobs:
        assert jobs.wait(jobs.trigger_job("coded").id).status == "succeeded"


def test_a_job_of_the_code_that_names_nothing_is_refused_at_the_start(url: str) -> None:
    manager(url).create_webhook("crm", url="https://example.com/")
    jobs = manager(url, backend="local")
    jobs.add_job("coded", "cmr")

    with pytest.raises(ConfigurationError, match="names handler 'cmr', which is not registered"):
        jobs.start()


def test_a_declaration_of_the_same_key_wins_and_says_so(
    url: str, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    manager(url).create_webhook("crm", url="https://example.com/")
    jobs = manager(url)
    jobs.webhook("crm", receiver.url)
    jobs.webhook("of-code", receiver.url)

    assert jobs.trigger_job("crm").status == "succeeded"
    assert [(hook.key, hook.source) for hook in jobs.webhooks()] == [("crm", "code"), ("of-code", "code")]
    assert "handler=crm is stored, and declared by code: the code decides" in caplog.text
    with pytest.raises(HandlerNotFoundError, match="is declared by code: change it there"):
        jobs.update_webhook("of-code", timeout=3)
    jobs.webhook("crm", receiver.url)


def test_a_key_that_code_has_here_or_elsewhere_is_taken(url: str) -> None:
    with manager(url, backend="local") as worker:
        worker.handler("export")(lambda: 1)
        worker.sync()
        for jobs in (worker, manager(url)):
            with pytest.raises(DuplicateJobError, match="a handler has that key already"):
                jobs.create_webhook("export", url="https://example.com/")


def test_twice_is_refused_and_a_deleted_one_makes_room(url: str) -> None:
    jobs = manager(url)
    jobs.create_webhook("crm", url="https://example.com/")
    with pytest.raises(DuplicateJobError):
        jobs.create_webhook("crm", url="https://example.com/")
    jobs.delete_webhook("crm")
    with pytest.raises(HandlerNotFoundError):
        jobs.delete_webhook("crm")
    assert jobs.create_webhook("crm", url="https://example.com/").rev is not None


def test_a_webhook_in_use_is_not_deleted(url: str) -> None:
    jobs = manager(url)
    jobs.create_webhook("crm", url="https://example.com/")
    jobs.create_job("nightly", handler="crm", cron="0 3 * * *")
    jobs.disable_job("nightly")

    with pytest.raises(ConfigurationError, match="is in use by job 'nightly'"):
        manager(url).delete_webhook("crm")


def test_what_is_not_given_stays(url: str, receiver: Receiver) -> None:
    jobs = manager(url)
    made = jobs.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN), timeout=3, headers={"X-A": "1"})
    assert made.secret is not None
    edited = jobs.update_webhook("crm", timeout=5, url=f"{receiver.url}/v2")

    assert (edited.timeout, edited.headers, edited.rev, edited.secret) == (5, {"X-A": "1"}, 2, None)
    assert jobs.test_webhook("crm").ok
    assert receiver.last.line == "POST /hook/v2 HTTP/1.1"
    assert receiver.last.headers["authorization"] == f"Bearer {TOKEN}"
    Verifier(made.secret.get_secret_value()).verify(receiver.last.body, receiver.last.headers)


def test_secrets_are_replaced_and_taken_away(url: str, receiver: Receiver) -> None:
    jobs = manager(url)
    first = jobs.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN)).secret
    second = jobs.update_webhook("crm", auth=Basic("ana", "pass-word"), secret=True).secret
    assert first is not None
    assert second is not None
    assert first != second
    jobs.test_webhook("crm")
    assert receiver.last.headers["authorization"].startswith("Basic ")
    Verifier(second.get_secret_value()).verify(receiver.last.body, receiver.last.headers)

    jobs.update_webhook("crm", auth=None, secret=False)
    jobs.test_webhook("crm")
    assert not {"authorization", "webhook-signature"} & receiver.last.headers.keys()
    assert [entry.after for entry in jobs.audit()][:2] == [
        {"auth": None, "signed": False},
        {"auth": {"kind": "basic", "username": "ana"}, "given": ["auth", "secret"]},
    ]


@pytest.mark.parametrize(
    "there", ["https://127.0.0.1:{port}/hook", "http://127.0.0.1:{other}/hook", "http://attacker.example/"]
)
def test_a_stored_secret_is_sent_to_nobody_else(url: str, receiver: Receiver, there: str) -> None:
    """Otherwise whoever may edit a webhook could read its secret at a receiver of their own."""
    jobs = manager(url)
    jobs.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
    elsewhere = there.format(port=receiver.port, other=receiver.port + 1)

    with pytest.raises(ConfigurationError, match=r"is sent nowhere else\. Give auth again"):
        jobs.update_webhook("crm", url=elsewhere)
    jobs.update_webhook("crm", url=elsewhere, auth=Bearer("another-token"))


def test_a_receiver_that_was_changed_in_the_database_gets_no_secret(url: str, receiver: Receiver) -> None:
    with Receiver().listening() as thief:
        jobs = manager(url)
        jobs.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as database:
            database.execute(
                "UPDATE jobmanager_webhooks SET words = replace(words, ?, ?)",
                (str(receiver.port), str(thief.port)),
            )
            database.commit()
        tested = manager(url).test_webhook("crm")

    assert (tested.ok, thief.connections) == (False, 0)
    assert "The stored secret was given for" in (tested.error or "")


def test_without_a_key_a_secret_is_refused_and_a_webhook_without_one_is_not(url: str) -> None:
    jobs = manager(url, key=None)
    for options in ({"auth": Bearer(TOKEN)}, {"secret": True}):
        with pytest.raises(
            ConfigurationError, match=r"Set JOBMANAGER_ENCRYPTION_KEY .* `openssl rand -base64 32`"
        ):
            jobs.create_webhook("crm", url="https://example.com/", **options)
    assert jobs.webhooks() == []
    assert not jobs.create_webhook("crm", url="https://example.com/").signed


def test_the_environment_belongs_to_code(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise whoever may make webhooks could have any variable of the process sent to them."""
    monkeypatch.setenv("DATABASE_PASSWORD", "x" * 20)
    with pytest.raises(ConfigurationError, match="belongs to code"):
        manager(url).create_webhook("crm", url="https://example.com/", auth=Bearer(env="DATABASE_PASSWORD"))


@pytest.mark.parametrize(
    "options",
    [
        {"colour": 1},
        {"secret": 7},
        {"url": "ftp://x"},
        {"url": "http://10.0.0.1/"},
        {"timeout": -1},
        {"by": 7},
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_is_stored(url: str, options: dict[str, Any]) -> None:
    jobs = manager(url)
    with pytest.raises((ConfigurationError, ValueError), match=r"^Webhook 'crm': "):
        jobs.create_webhook("crm", **{"url": "https://example.com/", **options})
    assert jobs.webhooks() == []


def test_of_two_edits_at_once_the_second_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = manager(url)
    jobs.create_webhook("crm", url="https://example.com/")
    before: WebhookRow | None = jobs.store.webhooks.get("default", "crm")
    jobs.update_webhook("crm", timeout=3)
    monkeypatch.setattr(jobs.store.webhooks, "get", lambda *_: before)

    with pytest.raises(EditConflictError, match="was changed meanwhile"):
        jobs.update_webhook("crm", timeout=4)


def test_every_change_is_in_the_audit_without_a_secret(url: str) -> None:
    jobs = manager(url)
    made = jobs.create_webhook("crm", url="https://example.com/", auth=Bearer(TOKEN), by="ana")
    jobs.update_webhook("crm", timeout=3, by="bea")
    jobs.rotate_webhooks(by="cy")
    jobs.delete_webhook("crm", by="dan")

    entries = jobs.audit(target="webhook", target_id="crm")
    assert [(entry.action, entry.by, entry.rev) for entry in entries] == [
        ("delete", "dan", 4), ("rotate", "cy", 3), ("edit", "bea", 2), ("create", "ana", 1),
    ]  # fmt: skip
    assert entries[2].before == {"timeout": 10.0}
    assert made.secret is not None
    assert TOKEN not in repr(entries)
    assert made.secret.get_secret_value()[6:] not in repr(entries)


def test_an_operator_may_test_and_an_administrator_may_make(url: str, receiver: Receiver) -> None:
    jobs = manager(url)
    jobs.create_webhook("crm", url=receiver.url)
    with acting(Principal("otto", "operator")):
        assert jobs.test_webhook("crm").ok
        with pytest.raises(PermissionDeniedError, match="jobs:admin"):
            jobs.update_webhook("crm", timeout=3)
    refused = jobs.audit(outcome="refused")
    assert [(entry.target, entry.target_id, entry.by) for entry in refused] == [("webhook", "crm", "otto")]


# ---------------------------------------------------------------- keys


def test_no_secret_is_in_the_file(url: str) -> None:
    jobs = manager(url)
    made = jobs.create_webhook("crm", url="https://example.com/", auth=Bearer(TOKEN))
    jobs.store.close()

    assert made.secret is not None
    content = file_of(url)
    assert b"example.com" in content
    for secret in (TOKEN, made.secret.get_secret_value().removeprefix("whsec_")):
        assert secret.encode() not in content
        assert base64.b64encode(secret.encode())[:-4] not in content


def test_a_new_key_reads_what_the_old_one_wrote_and_rotation_frees_the_old_one(
    url: str, receiver: Receiver
) -> None:
    manager(url).create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
    both = manager(url, key=f"{OTHER_KEY},{KEY}")
    assert both.test_webhook("crm").ok
    assert both.rotate_webhooks() == both.rotate_webhooks() == 1

    assert manager(url, key=OTHER_KEY).test_webhook("crm").ok
    assert not manager(url, key=KEY).test_webhook("crm").ok


@pytest.mark.parametrize(
    ("key", "told"), [(None, "there is no key in this process"), (OTHER_KEY, "no key fits")]
)
def test_a_secret_that_cannot_be_decrypted_is_a_finding_and_a_failure_that_is_not_repeated(
    url: str, receiver: Receiver, key: str | None, told: str
) -> None:
    manager(url).create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
    jobs = manager(url, key=key)
    jobs.create_job("nightly", handler="crm", retry=3)
    run = jobs.trigger_job("nightly")

    assert run.error is not None
    assert (run.status, run.attempt, receiver.connections) == ("failed", 1, 0)
    assert told in run.error.message
    (finding,) = [finding for finding in examine(jobs) if finding.check == "webhooks"]
    assert (finding.level, told in finding.text) == ("failing", True)
    assert "JOBMANAGER_ENCRYPTION_KEY" in finding.text
    with pytest.raises((WebhookRefusedError, ConfigurationError)):
        jobs.rotate_webhooks()


def test_a_secret_whose_key_is_lost_can_be_given_again(url: str, receiver: Receiver) -> None:
    manager(url).create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
    jobs = manager(url, key=OTHER_KEY)
    with pytest.raises(WebhookRefusedError):
        jobs.update_webhook("crm", timeout=3)
    jobs.update_webhook("crm", auth=Bearer("another-token"), secret=True)

    assert jobs.test_webhook("crm").ok
    assert [finding.level for finding in examine(jobs) if finding.check == "webhooks"] == ["ok"]


# ---------------------------------------------------------------- the ping


def test_the_ping_shows_what_the_receiver_said(url: str) -> None:
    with Receiver(answering(b'{"why": "who are you?"}', "401 Unauthorized")).listening() as receiver:
        jobs = manager(url)
        jobs.create_webhook("crm", url=receiver.url)
        tested = jobs.test_webhook("crm")

    assert (tested.ok, tested.status, tested.body) == (False, 401, {"why": "who are you?"})
    assert tested.seconds is not None
    assert "answered 401, and 200-299 is expected" in (tested.error or "")
    assert b'"payload": {"ping": true}' in receiver.last.body
    assert jobs.runs() == []


def test_the_ping_of_what_cannot_be_reached_says_so(url: str) -> None:
    jobs = manager(url)
    jobs.create_webhook("crm", url="http://127.0.0.1:1/")
    jobs.handler("code")(lambda: 1)

    assert "could not be called" in (jobs.test_webhook("crm").error or "")
    for key in ("code", "crn", "", 7, "a\0b"):
        with pytest.raises(HandlerNotFoundError):
            jobs.test_webhook(key)  # type: ignore[arg-type]


def test_the_same_from_an_event_loop(url: str, receiver: Receiver) -> None:
    async def all_of_it() -> None:
        aio = manager(url).aio
        await aio.create_webhook("crm", url=receiver.url)
        assert (await aio.update_webhook("crm", timeout=3)).timeout == 3
        assert (await aio.test_webhook("crm")).ok
        assert await aio.rotate_webhooks() == 1
        assert [hook.key for hook in await aio.webhooks()] == ["crm"]
        await aio.delete_webhook("crm")

    asyncio.run(all_of_it())


def test_a_process_without_the_extra_leaves_it_to_others(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    jobs = manager(url)
    jobs.create_webhook("crm", url="https://example.com/")
    jobs.create_job("nightly", handler="crm", cron="0 3 * * *")
    monkeypatch.setitem(__import__("sys").modules, "httpcore2", None)
    other = manager(url, backend="local")
    with other:
        assert hooks_of(other) == []
        assert "nightly" not in other.registry.jobs
    assert "1 stored webhooks are left to other processes" in caplog.text
    assert "pip install" in caplog.text


# ---------------------------------------------------------------- gone


def test_410_gone_switches_a_stored_webhook_off_until_it_is_edited(url: str, receiver: Receiver) -> None:
    """Fails if a receiver that is gone is called again, or if nothing says so."""
    jobs = manager(url)
    jobs.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN), by="ana")
    jobs.create_job("job", handler="crm")
    receiver.talk = answering(b"", "410 Gone")

    assert jobs.trigger_job("job").error.kind == "http"
    second = jobs.trigger_job("job")

    assert len(receiver.received) == 1
    assert f"is switched off: http://127.0.0.1:{receiver.port} answered 410 Gone" in second.error.message
    assert "jobmanager webhooks edit crm" in second.error.message
    entry = jobs.audit(target="webhook")[0]
    assert (entry.action, entry.target_id, entry.by, entry.outcome) == ("switch_off", "crm", None, "done")
    assert "410 Gone" in entry.after["off"]
    (info,) = jobs.webhooks()
    assert (info.off, info.rev) == (entry.after["off"], 2)
    assert [finding.level for finding in examine(jobs) if "switched off" in finding.text] == ["warning"]
    other = manager(url)
    assert other.trigger_job("job").error.message == second.error.message

    receiver.talk = answering()
    assert jobs.test_webhook("crm").ok
    assert jobs.update_webhook("crm", timeout=5, by="ana").off is None
    assert jobs.trigger_job("job").status == "succeeded"
    assert receiver.last.headers["authorization"] == f"Bearer {TOKEN}"


def test_410_that_is_expected_or_of_the_code_switches_nothing_off(url: str, receiver: Receiver) -> None:
    receiver.talk = answering(b"", "410 Gone")
    jobs = manager(url)
    jobs.webhook("code", receiver.url)
    jobs.create_webhook("stored", url=receiver.url, expect="200-299,410")
    jobs.create_job("job", handler="stored")
    assert [jobs.trigger_job(key).status for key in ("code", "code", "job", "job")] == [
        *("failed", "failed"),
        *("succeeded", "succeeded"),
    ]
    assert [info.off for info in jobs.webhooks()] == [None, None]
    assert len(receiver.received) == 4


def test_an_edit_that_comes_first_is_not_switched_off(url: str, receiver: Receiver) -> None:
    """Fails if the response to an old request takes the new address with it."""
    jobs = manager(url)
    jobs.create_webhook("crm", url=receiver.url)
    jobs.create_job("job", handler="crm")
    gone = answering(b"", "410 Gone")

    def edited_meanwhile(here: Connection) -> None:
        manager(url).update_webhook("crm", timeout=7, by="ben")
        gone(here)

    receiver.talk = edited_meanwhile
    assert jobs.trigger_job("job").status == "failed"

    (info,) = manager(url).webhooks()
    assert (info.off, info.timeout) == (None, 7)

"""The secrets of a webhook are in no sink: not in what the library returns, logs, stores, prints or raises."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import pytest
from tests.receivers import Connection, Receiver

from jobmanager import JobManager, Settings
from jobmanager.cli import main
from jobmanager.doctor import examine
from jobmanager.errors import JobManagerError
from jobmanager.webhooks import ApiKey, Auth, Basic, Bearer, Header

TOKEN = "Zq8Wx3Kv5-the-t0ken"
PASSWORD = "Zq8Wx3Kv5:pass/word"
KEY = base64.b64encode(b"Zq8Wx3Kv5-the-encryption-key-123").decode()
SIGNING = "whsec_" + base64.b64encode(b"Zq8Wx3Kv5-signs-every-request-there-is").decode()
PLANTED = [
    TOKEN, PASSWORD, KEY, SIGNING, SIGNING.removeprefix("whsec_"), base64.b64encode(f"ana:{PASSWORD}".encode()).decode(), "Zq8Wx3Kv5",
]  # fmt: skip
WAYS: dict[str, Callable[[], Auth]] = {
    "bearer": lambda: Bearer(TOKEN),
    "basic": lambda: Basic("ana", PASSWORD),
    "api_key": lambda: ApiKey(TOKEN),
    "header": lambda: Header("X-Shared", TOKEN),
}


def echoing(status: str) -> Callable[[Connection], None]:
    """Send back everything that came, in the reason, the headers and the body."""

    def talk(here: Connection) -> None:
        came = receivers[0].last
        everything = json.dumps({"headers": came.headers, "said": [str(came.headers)]}).encode()
        echo = "".join(f"X-Echo-{name}: {value}\r\n" for name, value in came.headers.items())
        here.send(f"HTTP/1.1 {status} {came.headers.get('authorization', '')}\r\n{echo}Content-Length: {len(everything)}\r\n\r\n", everything)  # fmt: skip

    return talk


receivers: list[Receiver] = []


@contextmanager
def repeating(status: str) -> Iterator[Receiver]:
    with Receiver(echoing(status)).listening() as made:
        receivers[:] = [made]
        yield made


def found(text: str) -> list[str]:
    return [secret for secret in PLANTED if secret in text]


@pytest.mark.parametrize(
    ("way", "status"),
    [("bearer", "200"), ("bearer", "422"), ("bearer", "500"), ("bearer", "302"), ("basic", "200"), ("api_key", "500"), ("header", "200")],
)  # fmt: skip
def test_no_secret_of_a_webhook_is_in_any_sink(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], way: str, status: str
) -> None:  # fmt: skip
    with repeating(status) as receiver:
        sinks = filled(receiver, way, tmp_path, monkeypatch, caplog, capsys)

    assert len(sinks) >= 14
    assert {name: found(text) for name, text in sinks.items() if found(text)} == {}
    assert receiver.connections >= 4


def filled(
    receiver: Receiver, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> dict[str, str]:  # fmt: skip
    """Do everything that can be done with a webhook, and return what every sink has of it."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JOBMANAGER_WEBHOOK_ALLOW", "127.0.0.1")
    monkeypatch.setenv("JOBMANAGER_ENCRYPTION_KEY", KEY)
    monkeypatch.setenv("JOBMANAGER_BACKEND", "noop")
    jobs = JobManager()
    jobs.start()  # records are captured from then on, before any filter of a logger sees them
    auth = WAYS[way]()
    made = jobs.create_webhook("stored", url=receiver.url, auth=auth, secret=SIGNING, by="ana")
    declared = jobs.webhook("coded", receiver.url, auth=auth, secret=SIGNING)
    edited = jobs.update_webhook("stored", timeout=3)
    jobs.create_job("nightly", handler="stored", retry=2)
    runs = [jobs.trigger_job("nightly"), jobs.trigger_job("coded")]
    tested = jobs.test_webhook("stored")
    jobs.rotate_webhooks()
    errors = list[str]()
    for wrong in (
        {"timeout": -1},
        {"colour": 1},
        {"url": "ftp://x"},
        {"headers": {"X-Token": TOKEN}},
        {"secret": SIGNING[:20]},
    ):
        with suppress(JobManagerError):
            try:
                jobs.update_webhook("stored", auth=auth, **wrong)
            except JobManagerError:
                errors.append(traceback.format_exc().replace(f'"{TOKEN}"', ""))
                raise
    for words in (
        ("webhooks", "list"), ("webhooks", "show", "stored"), ("webhooks", "show", "stored", "--json"), ("webhooks", "test", "stored"), ("webhooks", "test", "stored", "--json"),
        ("audit",), ("audit", "--json"), ("runs", "list"), ("runs", "show", runs[0].id), ("runs", "show", runs[0].id, "--json"), ("logs", runs[0].id), ("doctor",), ("doctor", "--json"),
        ("export", "jobs"),
    ):  # fmt: skip
        main(words)
    printed = capsys.readouterr()
    store = jobs.store
    jobs.stop()
    jobs.store.close()

    return {
        "repr of the auth": repr(auth),
        "repr of a declaration": repr(declared) + str(asdict(made)) + repr(made) + repr(edited),
        "webhooks": repr(jobs.webhooks()),
        "handlers": repr(jobs.handlers()) + repr(jobs.registry.handlers["stored"].target),
        "run": repr(runs) + repr(jobs.runs()) + repr([jobs.attempts(run.id) for run in runs]),
        "log lines of the runs": repr([store.history.lines(run.id) for run in runs]),
        "ping": repr(tested),
        "audit": repr(jobs.audit()),
        "errors": "".join(errors),
        "logs": caplog.text,
        "command line": printed.out + printed.err,
        "doctor": repr(examine(jobs)),
        "settings": repr(jobs.settings) + str(jobs.settings.shown()),
        "database": b"".join(each.read_bytes() for each in tmp_path.glob("jobmanager.db*")).decode("latin-1"),
        "job": repr(jobs.registry.jobs) + repr(store.jobs.rows()),
    }


@pytest.mark.parametrize("status", ["200", "422"])
def test_the_sinks_would_show_a_secret_that_nobody_hides(status: str) -> None:
    """Holds the page to account: the receiver does send everything back."""
    jobs = JobManager(Settings(database_url="memory://", backend="noop", webhook_allow="127.0.0.1"))
    with repeating(status) as receiver:
        jobs.webhook("coded", receiver.url, headers={"X-Plain": "in-clear-1"})
        run = jobs.trigger_job("coded")
    assert "in-clear-1" in repr(run)


def test_an_auth_cannot_be_pickled_by_accident_into_clear_text_of_a_child() -> None:
    """An isolated handler takes over its job alone: a webhook is refused there."""
    jobs = JobManager(Settings(database_url="memory://", backend="noop"))
    jobs.webhook("coded", "https://example.com/", auth=Bearer(TOKEN))
    jobs.add_job("isolated", "coded", isolation="process")
    with pytest.raises(JobManagerError) as refused:
        jobs.check()
    assert not found(str(refused.value))
    assert TOKEN.encode() not in pickle.dumps(jobs.registry.jobs["coded"])

"""Notifications as requests to a webhook: signed, with the facts, and again where the receiver refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from tests.receivers import Receiver

from jobmanager import JobManager, Settings
from jobmanager.testing import FakeClock
from jobmanager.webhooks.webhook import new_signing_secret

SECRET = new_signing_secret().get_secret_value()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as receiver:
        yield receiver


def failing(clock: FakeClock, receiver: Receiver, address: str) -> JobManager:
    jobs = JobManager(
        Settings(backend="local", database_url="memory://", webhook_allow=f"{receiver.host}:{receiver.port}"),
        clock=clock,
    )
    jobs.webhook("pager", receiver.url, secret=SECRET, timeout=5)

    def fail() -> None:
        raise OSError("no disk")

    jobs.add_job("nightly", fail, every=3600, notify_on_failure=True, alert_to=address)
    return jobs


def test_a_failure_is_a_signed_request(receiver: Receiver) -> None:
    clock = FakeClock()
    with failing(clock, receiver, "webhook:pager") as jobs:
        clock.advance(hours=1)
        [item] = jobs.notifications()

    [request] = receiver.received
    body = json.loads(request.body)
    assert (item.state, item.error) == ("sent", None)
    assert (body["job"], body["run"]) == ("nightly", item.id)
    assert body["payload"]["notification"]["subject"] == "nightly failed: OSError: no disk"
    assert request.headers["webhook-id"] == item.id
    assert request.headers["webhook-signature"].startswith("v1,")


def test_a_webhook_that_there_is_none_of_is_said(receiver: Receiver) -> None:
    clock = FakeClock()
    with failing(clock, receiver, "webhook:pagre") as jobs:
        clock.advance(hours=1)
        [item] = jobs.notifications()

    assert (item.state, item.error) == ("waiting", "There is no webhook 'pagre' here.")

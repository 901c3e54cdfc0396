"""QStash: its own client takes our fake for it, its own receiver our signatures, and its calls run jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from qstash import QStash, Receiver
from qstash.errors import QStashError
from tests.calls import ask, ask_wsgi
from tests.fakes.qstash import FakeQStash, signature
from tests.unit.web.visitor import Visitor

from jobmanager import JobManager, Settings
from jobmanager.access.principal import Principal
from jobmanager.testing import FakeClock
from jobmanager.web import dashboard
from jobmanager.web.asgi import Asgi
from jobmanager.web.wsgi import Wsgi

KEY, NEXT_KEY = "sig_2dAkLmNoPqRsTuVwXyZ0123456789", "sig_7bCdEfGhIjKlMnOpQrStUvWxYz0123456"
TOKEN = "eyJVc2VySUQiOiJjYW5hcnktdG9rZW4i"
URL = "https://shop.example.org/jobs/tick"
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)


clients: list[QStash] = []


@pytest.fixture
def fake() -> Iterator[FakeQStash]:
    fake = FakeQStash(TOKEN)
    fake.open()
    yield fake
    fake.close()
    while clients:
        clients.pop().http._client.close()


def client_of(fake: FakeQStash, token: str = TOKEN) -> QStash:
    clients.append(QStash(token, retry=False, base_url=fake.url))
    return clients[-1]


def manager(fake: FakeQStash, **more: Any) -> JobManager:
    given = {
        "qstash_token": TOKEN,
        "qstash_url": fake.url,
        "qstash_current_signing_key": KEY,
        "qstash_next_signing_key": NEXT_KEY,
        "public_url": "https://shop.example.org",
        "backend": "qstash",
        "database_url": "memory://",
        "wait": True,
        **more,
    }
    jobs = JobManager(Settings(**given), clock=FakeClock(NOON))
    jobs.add_job("daily", lambda: {"done": True}, cron="0 14 * * *", timezone="Europe/Berlin")
    return jobs


# ---------------------------------------------------------------- the fake is QStash to its own client


def test_the_official_client_takes_the_fake_for_qstash(fake: FakeQStash) -> None:
    client = client_of(fake)
    made = client.schedule.create(
        destination=f"{URL}/daily", cron="CRON_TZ=Europe/Berlin 0 14 * * *", schedule_id="jm:a:b:daily"
    )
    client.schedule.create(destination=f"{URL}/daily", cron="5 14 * * *", schedule_id=made, retries=1)

    [listed] = client.schedule.list()
    assert (listed.schedule_id, listed.cron, listed.method, listed.retries) == (made, "5 14 * * *", "POST", 1)
    client.schedule.pause(made)
    assert client.schedule.get(made).paused
    client.schedule.resume(made)
    assert not client.schedule.get(made).paused
    client.schedule.delete(made)
    assert client.schedule.list() == []
    with pytest.raises(QStashError, match="404"):
        client.schedule.get(made)
    with pytest.raises(QStashError, match="401"):
        client_of(fake, "wrong").schedule.list()


def test_the_official_client_reads_what_this_backend_wrote(fake: FakeQStash) -> None:
    with manager(fake) as jobs:
        [listed] = client_of(fake).schedule.list()
        assert listed.schedule_id == "jm:default:development:daily"
        assert listed.cron == "CRON_TZ=Europe/Berlin 0 14 * * *"
        assert (listed.method, listed.destination, listed.retries) == ("POST", f"{URL}/daily", 3)
        assert jobs.backend.entries()[0].drift == ""


# ---------------------------------------------------------------- who may call


def calls(now: datetime, body: bytes = b"") -> dict[str, tuple[str, bytes]]:
    """Return signatures with the bodies that come with them, each wrong in its own way."""
    at, url = now.timestamp(), f"{URL}/daily"
    fine = signature(KEY, url, body, at)
    head, claims, end = fine.split(".")
    return {
        "another key": (signature("sig_of_somebody_else", url, body, at), body),
        "another job": (signature(KEY, f"{URL}/weekly", body, at), body),
        "another body": (fine, b'{"scheduled_for": "2026-03-10T13:00:00Z"}'),
        "expired": (signature(KEY, url, body, at - 400), body),
        "not yet": (signature(KEY, url, body, at + 60), body),
        "another issuer": (signature(KEY, url, body, at, iss="Upstart"), body),
        "no times": (signature(KEY, url, body, at, exp=None), body),
        "cut": (fine[:-4], body),
        "claims of another": (f"{head}.{signature(KEY, URL, body, at).split('.')[1]}.{end}", body),
        "no signature": (f"{head}.{claims}.", body),
        "no jwt": ("Bearer", body),
        "empty": ("", body),
        "long": (f"{head}.{claims}.{'A' * 5000}", body),
        "alg none": (f"eyJhbGciOiJub25lIn0.{claims}.", body),
    }


@pytest.mark.parametrize("kind", [*calls(NOON)])
async def test_what_qstash_did_not_sign_is_refused(fake: FakeQStash, kind: str) -> None:
    jobs = manager(fake)
    given, body = calls(NOON)[kind]
    for answer in (
        await ask(
            Asgi(jobs, None, None, jobs._clock), body, {"upstash-signature": given}, path="/jobs/tick/daily"
        ),
        ask_wsgi(
            Wsgi(jobs, None, None, jobs._clock), body, {"upstash-signature": given}, path="/jobs/tick/daily"
        ),
    ):
        assert answer.status == 401
        assert answer.said == {"error": "unauthorized"}
    jobs.stop()


@pytest.mark.parametrize("key", [KEY, NEXT_KEY])
async def test_what_qstash_signed_is_taken_by_its_receiver_and_by_ours(fake: FakeQStash, key: str) -> None:
    now = datetime.now(UTC)  # its receiver has no other clock
    given = signature(key, f"{URL}/daily", b"{}", now.timestamp())
    Receiver(KEY, NEXT_KEY).verify(signature=given, body="{}", url=f"{URL}/daily")
    jobs = manager(fake)
    jobs._clock.step(now - jobs._clock.now())  # type: ignore[attr-defined]

    answer = await ask(
        Asgi(jobs, None, None, jobs._clock), b"{}", {"upstash-signature": given}, path="/jobs/tick/daily"
    )

    assert answer.status in (200, 425)
    jobs.stop()


async def test_a_call_of_qstash_runs_the_job_once(fake: FakeQStash) -> None:
    jobs = manager(fake).start()
    clock = jobs._clock
    clock.step(timedelta(hours=1, milliseconds=200))  # type: ignore[attr-defined]
    given = signature(KEY, f"{URL}/daily", b"", clock.now().timestamp())

    said = [
        (
            await ask(
                Asgi(jobs, None, None, jobs._clock),
                b"",
                {"upstash-signature": given},
                path="/jobs/tick/daily",
            )
        ).said
        for _ in range(2)
    ]

    assert [one["finding"] for one in said] == ["opened", "duplicate"]
    assert [(run.status, run.scheduled_for) for run in jobs.runs("daily")] == [
        ("succeeded", NOON + timedelta(hours=1))
    ]
    unknown = signature(KEY, f"{URL}/gone", b"", clock.now().timestamp())
    answer = await ask(
        Asgi(jobs, None, None, jobs._clock), b"", {"upstash-signature": unknown}, path="/jobs/tick/gone"
    )
    assert (answer.status, answer.said) == (200, {"job": "gone", "finding": "unknown_job"})
    answer = await ask(
        Asgi(jobs, None, None, jobs._clock),
        b"",
        {"upstash-signature": given, "authorization": "Bearer x"},
        path="/jobs/run",
    )
    assert answer.status == 503  # without JOBMANAGER_SECRET that path is closed
    jobs.stop()


# ---------------------------------------------------------------- seen and changed by operators


def test_operators_pause_remove_and_purge_and_the_audit_says_so(fake: FakeQStash) -> None:
    with manager(fake) as jobs:
        name = "jm:default:development:daily"
        assert [(entry.name, entry.job_id, entry.drift) for entry in jobs.entries()] == [(name, "daily", "")]
        assert jobs.set_entry_active("daily", False, by="ann")
        assert jobs.entries()[0].drift == "paused"
        assert not jobs.set_entry_active("daily", False, by="ann")
        jobs.unschedule_entry("daily", by="ann")
        assert jobs.entries()[0].drift == "not in QStash"
        jobs.sync(by="ann")
        assert jobs.entries()[0].drift == ""
        jobs.add_job("late", lambda: None, cron="0 1 * * *")
        jobs.sync()
        fake.add(type(fake.entries[name])(key="jm:default:development:old", text="* * * * *"))
        assert jobs.purge_orphans(by="ann").removed == ("jm:default:development:old",)
        noted = [(entry.action, entry.target_id) for entry in jobs.audit(limit=10) if entry.by == "ann"]
        assert ("pause", name) in noted
        assert ("unschedule", name) in noted
        assert ("purge", "default") in noted


def test_a_process_that_was_not_started_takes_no_entry_for_an_orphan(fake: FakeQStash) -> None:
    store_owner = manager(fake)
    with store_owner as jobs:
        looking = JobManager(jobs.settings, store=jobs.store, clock=jobs._clock)
        looking.add_job("daily", lambda: None, cron="0 14 * * *", timezone="Europe/Berlin")
        assert [entry.orphan for entry in looking.entries()] == [False]
        assert looking.purge_orphans().removed == ()
        elsewhere = JobManager(jobs.settings, store=jobs.store, clock=jobs._clock)
        elsewhere.add_job("other", lambda: None, cron="0 15 * * *")
        elsewhere.sync()
        assert sorted(fake.entries) == [f"jm:default:development:{job}" for job in ("daily", "other")]
        assert all(not entry.orphan for entry in elsewhere.entries())


def test_the_page_of_the_engine_shows_the_entries(fake: FakeQStash) -> None:
    with manager(fake) as jobs:
        fake.add(type(next(iter(fake.entries.values())))(key="jm:default:development:old", text="* * * * *"))
        ana = Principal("ana", ["admin"], authenticated_at=NOON)
        page = Visitor(dashboard(jobs, authorize=lambda _request: ana)).get("/engine").text
    assert "QStash keeps the time" in page
    assert "jm:default:development:daily" in page
    assert "CRON_TZ" not in page
    assert "Purge 1 orphan" in page
    assert TOKEN not in page
    assert json.dumps(KEY) not in page

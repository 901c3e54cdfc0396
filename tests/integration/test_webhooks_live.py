"""Webhooks that operators make, in processes that know nothing of them at their start: Celery's workers, and an application under pg_cron."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.celery_processes import Application, until
from tests.receivers import Receiver

from jobmanager import JobManager, Settings
from jobmanager.webhooks import Bearer

pytestmark = [pytest.mark.slow, pytest.mark.servers]

KEY = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
TOKEN = "t0ken-of-the-crm"
HANDLER = """
@jobs.handler("other")
def other(): pass
"""


def test_a_stored_webhook_is_sent_by_celery_workers_without_a_restart(tmp_path: Path, redis_url: str) -> None:
    """Fails if workers do not take over what is made after their start, or if its secret is in a message."""
    store = f"sqlite:///{tmp_path}/jobs.db"
    of_webhooks = {"webhook_allow": "127.0.0.1", "encryption_key": KEY}
    application = Application(tmp_path, redis_url, store, HANDLER, **of_webhooks)
    with Receiver().listening() as receiver:
        try:
            application.beat()
            application.worker()
            jobs = application.manager()
            until(lambda: len(jobs.store.processes.living()) == 2)
            operator = JobManager(Settings(database_url=store, backend="noop", **of_webhooks))
            operator.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
            operator.create_job("often", handler="crm", every=2)
            run = until(lambda: jobs.runs("often", status="succeeded"), 30)[-1]
            operator.store.close()
        finally:
            application.close()

    assert run.output == {"ok": True}
    assert receiver.received[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert receiver.received[0].headers["idempotency-key"].startswith("often:")


def test_a_stored_webhook_is_sent_under_pg_cron_without_a_restart(still_pg_cron_url: str) -> None:
    settings = Settings(
        database_url=still_pg_cron_url,
        backend="pg_cron",
        pg_cron_transport="notify",
        webhook_allow="127.0.0.1",
        encryption_key=KEY,
    )
    with Receiver().listening() as receiver, JobManager(settings) as keeper:
        operator = JobManager(settings)
        operator.create_webhook("crm", url=receiver.url, auth=Bearer(TOKEN))
        operator.create_job("minutely", handler="crm", cron="* * * * *")
        until(lambda: "minutely" in keeper.registry.jobs)
        run = operator.trigger_job("minutely")
        ended = until(lambda: keeper.runs("minutely", status="succeeded"), 30)[0]
        operator.store.close()
    keeper.store.close()

    assert (ended.id, ended.output) == (run.id, {"ok": True})
    assert receiver.received[0].headers["webhook-id"] == run.id

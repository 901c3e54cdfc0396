"""A signed ping to a receiver, sent by hand: whether it would accept a run, and what it says."""

from __future__ import annotations

from datetime import datetime

from jobmanager.errors import WebhookError
from jobmanager.run import new_id
from jobmanager.webhooks.handler import WebhookHandler, content_of, redactor_of
from jobmanager.webhooks.webhook import WebhookTest

PING = "ping"


def probe(handler: WebhookHandler, now: datetime) -> WebhookTest:
    """Send a ping as the first attempt of a run that does not exist, without a job; raise nothing that the receiver causes."""
    run_id = new_id(now)
    about = {"job": None, "run": run_id, "instant": None, "attempt": 1, "config": {}, "payload": {PING: True}}
    try:
        webhook = handler.opened()
        response = handler.send(webhook, about, key=run_id)
    except WebhookError as error:
        return WebhookTest(key=handler.webhook.key, ok=False, error=str(error))
    ok = webhook.expects(response.status)
    return WebhookTest(
        key=webhook.key,
        ok=ok,
        status=response.status,
        seconds=round(response.seconds, 3),
        body=redactor_of(webhook).value(content_of(response)),
        error=None
        if ok
        else f"{webhook.target.origin} answered {response.status}, and {webhook.expect} is expected.",
    )

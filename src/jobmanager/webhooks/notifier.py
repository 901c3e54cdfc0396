"""WebhookNotifier: notifications as signed requests, to the receivers that webhooks name."""

from __future__ import annotations

from collections.abc import Mapping

from jobmanager.errors import WebhookError
from jobmanager.notify.message import Message, Notifier, NotSentError
from jobmanager.registry import Handler
from jobmanager.webhooks.handler import WebhookHandler


class WebhookNotifier(Notifier):
    """Sends a message to the webhook whose key is the address: `alert_to="webhook:pager"`. `Webhook-Id` is the message's id, also when it is repeated."""

    name = "webhook"

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        self._handlers = handlers

    def send(self, message: Message) -> None:
        """Send the message as the payload of a request that stands for no run. NotSentError for any response that the webhook does not expect."""
        known = self._handlers.get(message.to)
        target = None if known is None else known.target
        if not isinstance(target, WebhookHandler):
            raise NotSentError(f"There is no webhook {message.to!r} here.")
        notification = {
            "event": message.event,
            "subject": message.subject,
            "text": message.text,
            "count": message.count,
            "subjects": list(message.subjects),
            "facts": dict(message.facts),
        }
        about = {
            "job": message.job_id or None,
            "run": message.id,
            "instant": None,
            "attempt": 1,
            "config": {},
            "payload": {"notification": notification},
        }
        try:
            target.send_and_judge(about, key=message.id)
        except WebhookError as error:
            raise NotSentError(str(error)) from None

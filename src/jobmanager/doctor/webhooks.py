"""The check of webhooks that sends none: whether they are switched on, and their secrets can be decrypted."""

from __future__ import annotations

from collections.abc import Iterator

from jobmanager.doctor.finding import Finding, counted
from jobmanager.errors import WebhookError
from jobmanager.explain import Told
from jobmanager.manager.manager import JobManager
from jobmanager.webhooks.handler import WebhookHandler, redactor_of


def webhooks(jobs: JobManager, _told: Told) -> Iterator[Finding]:
    """Check that every webhook is on, and that its secret can be read in this process; it shows in no finding."""
    good = 0
    for handler in jobs.registry.handlers.values():
        if not isinstance(handler.target, WebhookHandler):
            continue
        if handler.target.off is not None:
            yield Finding(
                check="webhooks",
                level="warning",
                text=f"Webhook {handler.key!r} is switched off: {handler.target.off}. Its runs fail.",
                fix=f"`jobmanager webhooks edit {handler.key} --url URL` switches it on; or delete the jobs that name it.",
            )
        try:
            redactor_of(handler.target.opened())
            good += 1
        except WebhookError as error:
            yield Finding(
                check="webhooks",
                level="failing",
                text=f"Webhook {handler.key!r}: {error}",
                fix=f"`jobmanager webhooks show {handler.key}` tells where its secret comes from.",
            )
    if good:
        yield Finding(
            check="webhooks", level="ok", text=f"the secrets of {counted(good, 'webhook')} can be read"
        )

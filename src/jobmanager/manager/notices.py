"""The methods of JobManager for notifications: what waits and was sent, sending again, and messages of the application's own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jobmanager.access.principal import ADMIN, WRITE
from jobmanager.errors import NotificationNotFoundError
from jobmanager.manager.guarding import changes, reads
from jobmanager.manager.parts import Parts
from jobmanager.notify.message import Message
from jobmanager.run import new_id
from jobmanager.stores.outbox import Notification, NotificationState
from jobmanager.validation.call_arguments import (
    check_arguments,
    mapping_of,
    may_be_id,
    text_of,
    texts_of,
    words_of,
)
from jobmanager.validation.printable import get_logger
from jobmanager.validation.texts import Located, naming_its_caller, shown

logger = get_logger(__name__)

LONGEST_BODY = 20_000


class Notices:
    """The methods for notifications. Any thread may call them."""

    _parts: Parts

    @naming_its_caller
    @reads
    def notifications(
        self,
        state: str | Collection[str] = (),
        *,
        job: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Notification]:
        """Return notifications of this namespace, newest first: those that wait, were sent, are dead or were dropped.

        `before` is the id of the last one of the previous page. PayloadError for a word that is no state.
        A principal sees those of jobs whose every run it sees; all others need `jobs:admin`.
        """
        check_arguments(limit=limit)
        states = words_of("state", state, NotificationState)
        if not all(may_be_id(text) for text in (job, before) if text is not None):
            return []
        found = self._parts.ready().store.outbox.list(
            self._parts.settings.namespace,
            states=states,
            job_id=job,
            before=before,
            limit=limit,
            seen=self._parts.view(),
        )
        return list(found)

    @reads
    def notification(self, notification_id: str) -> Notification:
        """Return the notification with this id, or whose id ends so; NotificationNotFoundError if there is none, or several."""
        namespace, found = self._parts.settings.namespace, None
        if notification_id and may_be_id(notification_id):
            outbox = self._parts.ready().store.outbox
            found = outbox.get(namespace, notification_id, seen=self._parts.view())
        if found is None:
            raise NotificationNotFoundError(
                f"No notification {shown(notification_id)} in namespace {namespace!r}, or several. `jobmanager notifications list` shows them.",
                notification_id=str(notification_id),
            )
        return found

    @reads
    def notification_message(self, notification_id: str) -> Message:
        """Return the message of one notification as it is sent when it is sent alone. Raises what `notification` raises.

        For who started a run by hand the address is looked up: NotSentError if there is none.
        """
        return self._parts.assembly.notifying.message_of(self.notification(notification_id))

    @naming_its_caller
    @changes(WRITE, "resend", "notification")
    def resend_notification(self, notification_id: str, *, by: str | None = None) -> Notification:
        """Have a notification sent again as if it were new, whatever became of it; return it. NotificationNotFoundError."""
        return self._marked(notification_id, NotificationState.WAITING, "resend", by)

    @naming_its_caller
    @changes(WRITE, "drop", "notification")
    def drop_notification(self, notification_id: str, *, by: str | None = None) -> Notification:
        """Have a notification not sent any more; return it. One that was sent stays as it is. Twice is safe. NotificationNotFoundError."""
        return self._marked(notification_id, NotificationState.DROPPED, "drop", by)

    @naming_its_caller
    @changes(WRITE, "notify_admins")
    def notify_admins(
        self,
        subject: str,
        title: str = "",
        body: str = "",
        details: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
        *,
        by: str | None = None,
    ) -> int:
        """Tell those of JOBMANAGER_ALERTS_EMAIL something of the application's own; return to how many addresses it goes.

        It is written into the outbox and sent by any living process; messages with the same subject are gathered like other
        events. Where no one is to be told it is logged, and 0 returned. Secrets in what is given are hidden. With `by` it is audited.
        PayloadError.
        """
        with Located("notify_admins"):
            check_arguments(by=by)
            told = {
                "title": text_of("subject", subject, 500),
                "heading": text_of("title", title, 500, least=0),
            }
            told["body"] = text_of("body", body, LONGEST_BODY, least=0)
            listed = _listed({} if details is None else mapping_of("details", details))
            words = texts_of("tags", tags)
        self._parts.check_not_disabled("No one is notified")
        assembly = self._parts.ready()
        facts = {**told, "listed": listed, "tags": words}
        hidden = assembly.notifying.presentable(facts)
        notices = assembly.notifying.alerts.of_system(
            "message", new_id(assembly.store.now()), hidden, fold=told["title"]
        )
        if not notices:
            logger.warning("no one is notified of %s: set JOBMANAGER_ALERTS_EMAIL", shown(told["title"]))
            return 0
        assembly.store.outbox.add(notices)
        assembly.notifying.wake()
        sent = {"subject": told["title"], "addresses": len(notices)}
        self._parts.record("notify_admins", "notification", self._parts.settings.namespace, by, sent)
        return len(notices)

    @naming_its_caller
    @changes(ADMIN, "test_notifications")
    def test_notifications(self, to: str | None = None, *, by: str | None = None) -> dict[str, str | None]:
        """Send a message to an address, or to all who are told of everything, at once; return by address what went wrong, None if nothing.

        Nothing of it is kept; with `by` it is audited where there is a store. Waits for the channels, a minute at most each.
        ConfigurationError where no one is to be told.
        """
        with Located("test_notifications"):
            check_arguments(by=by)
            if to is not None:
                to = text_of("to", to, 500)
        self._parts.check_not_disabled("No message is sent")
        outcome = self._parts.assembly.notifying.test(to)
        if self._parts.store.exists():
            failed = sorted(address for address, error in outcome.items() if error is not None)
            facts = {"addresses": sorted(outcome), "failed": failed}
            self._parts.record(
                "test_notifications", "notification", self._parts.settings.namespace, by, facts
            )
        return outcome

    def _marked(
        self, notification_id: str, state: NotificationState, action: str, by: str | None
    ) -> Notification:
        check_arguments(by=by)
        self._parts.check_not_disabled(f"No notification is changed, {shown(notification_id)} included")
        before = self.notification(notification_id)
        assembly = self._parts.ready()
        entry = assembly.auditor.entry(
            action,
            "notification",
            before.id,
            at=assembly.store.now(),
            by=by,
            job_id=before.job_id or None,
            before={"state": before.state.value},
            after={"state": state.value, "event": before.event},
        )
        if assembly.store.outbox.change(before.id, state, entry):
            assembly.notifying.wake()
        return self.notification(before.id)


def _listed(details: Mapping[str, Any]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in details.items())

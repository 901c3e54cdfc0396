"""Notifying: the parts of this room for one process, and the thread that looks for messages to send."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

from jobmanager.access.acting import current
from jobmanager.clock import Clock
from jobmanager.errors import ConfigurationError, UnsupportedError
from jobmanager.job import Job
from jobmanager.notify.alarms import Alarms
from jobmanager.notify.alerts import REQUESTER, Alerts, route_of
from jobmanager.notify.channels import Channels
from jobmanager.notify.delivery import Delivery
from jobmanager.notify.message import Message, Notifier, NotSentError
from jobmanager.notify.pings import Checked, JobPings, Pinger
from jobmanager.notify.texts import Catalogue, Texts, one_line
from jobmanager.process.background import BackgroundTasks
from jobmanager.process.bounded import ended_within
from jobmanager.process.health import Symptom
from jobmanager.run import Notice, new_id
from jobmanager.settings import Settings, is_address
from jobmanager.stores.base import RunStore
from jobmanager.stores.outbox import Letter, Notification, NotificationState
from jobmanager.stores.values import JobRow
from jobmanager.validation.printable import get_logger

logger = get_logger(__name__)

DELIVER = "delivery of notifications"
LOOK_EVERY = timedelta(seconds=10)
AT_MOST_EVERY = 1.0
"""Seconds between two looks that notices ask for; what comes between waits for the next one."""
DIRECTLY_WITHIN = 60.0
Lookup = Callable[[str], str | None]


class Hooks:
    """The parts that an application provides: the address and locale of a person, the texts, and further channels."""

    def __init__(
        self,
        *,
        address_of: Lookup | None = None,
        locale_of: Lookup | None = None,
        texts: Mapping[str, Catalogue] | None = None,
        notifiers: Sequence[Notifier] = (),
        made_when_named: Mapping[str, Callable[[], Notifier]] = MappingProxyType({}),
    ) -> None:
        self.address_of = address_of
        self.locale_of = locale_of
        self.texts = texts
        self.notifiers = notifiers
        self.made_when_named = made_when_named


class Notifying:
    """The notifications of this process: planned, delivered, looked after. Making it opens nothing; ConfigurationError for channels that cannot work."""

    def __init__(
        self,
        settings: Settings,
        store: Callable[[], RunStore],
        clock: Clock,
        hooks: Hooks,
        *,
        jobs: Callable[[], Mapping[str, Job]],
        declared: Container[str],
        addresses_of: Checked,
        symptoms: Callable[[], Sequence[Symptom]],
        hide: Callable[[str], str],
        threaded: bool,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._hooks = hooks
        self._hide = hide
        self._threaded = threaded
        self._store = store
        self.channels = Channels(settings, clock, hooks.notifiers, hooks.made_when_named)
        self.alerts = Alerts(
            settings.namespace,
            admins=self.channels.admins(settings),
            ends=settings.alerts_on == "ends",
            expanded=self.channels.expanded,
        )
        self._texts = Texts(hooks.texts, dashboard_url=settings.dashboard_url)
        self.delivery = Delivery(
            lambda: store().outbox,
            settings.namespace,
            lambda: self.channels.by_name,
            self.message,
            quiet=settings.quiet,
            threaded=threaded,
            hide=hide,
        )

        self._pinger = Pinger(threaded=threaded, addresses_of=addresses_of)
        self.pings = JobPings(self._pinger, jobs, declared)
        self._jobs = jobs
        self._unknown: set[str] = set()
        self._woken_at = float("-inf")
        self._alarms = Alarms(
            settings,
            store,
            clock,
            self.alerts,
            jobs=jobs,
            symptoms=symptoms,
            tell_directly=self._tell_directly,
        )

    @cached_property
    def _background(self) -> BackgroundTasks:
        background = BackgroundTasks(self._clock, name="jobmanager-notifier")
        background.add("alarms", self._look, every=self._settings.sweep)
        background.add(DELIVER, self._deliver, every=LOOK_EVERY)
        return background

    # ---------------------------------------------------------------- its life

    def start(self) -> None:
        """Begin to look and to deliver, where there is a channel or a heartbeat. Twice is once."""
        self.delivery.stopping = False
        if self.channels.by_name or self._settings.heartbeat_url:
            self._background.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Begin no further message. Twice is safe; what is being sent has at most `timeout` seconds to end."""
        self.delivery.stopping = True
        if "_background" in self.__dict__:
            self._background.stop(timeout)

    def wake(self) -> None:
        """Look for messages soon, at most once a second: a notice was written. Any thread."""
        now = self._clock.monotonic()
        if (
            self.channels.by_name and now - self._woken_at >= AT_MOST_EVERY
        ):  # a storm must not become as many claims
            self._woken_at = now
            self._background.run_task_soon(DELIVER)

    def _deliver(self) -> None:
        """Deliver what waits; the channels of jobs that operators made are loaded first, and a wrong one is logged."""
        for job in list(self._jobs().values()):
            for address in job.alert_to:
                if not self.channels.serves(address):
                    self._load(job.id, address)
        self.delivery.deliver()

    def _load(self, job_id: str, address: str) -> None:
        if address in self._unknown:
            return
        try:
            self.channels.check([address])
        except ConfigurationError as error:
            self._unknown.add(address)
            logger.error("job=%s tells nobody at %s: %s", job_id, address, error)

    def check(self, jobs: Sequence[Job]) -> None:
        """Raise ConfigurationError for an address that no channel serves; log which jobs would tell nobody."""
        unheard = []
        for job in jobs:
            self.channels.check(job.alert_to)
            if self.alerts.watches(job) and not (job.alert_to or self.alerts.admins):
                unheard.append(job.id)
        if unheard:
            told = ", ".join(unheard[:5]) + (", ..." if len(unheard) > 5 else "")
            logger.warning("no one is notified of %s: set JOBMANAGER_ALERTS_EMAIL, or alert_to", told)

    # ---------------------------------------------------------------- alarms

    def _look(self) -> None:
        """Look around, and ping the heartbeat: as failed where time is not kept."""
        symptoms = [symptom for symptom in self._alarms.look() if symptom.failing]
        if self._settings.heartbeat_url is not None:
            told = "\n".join(symptom.text for symptom in symptoms)
            self._pinger.ping(self._settings.heartbeat_url, "fail" if symptoms else "", body=told)

    def _tell_directly(self, notices: Sequence[Notice]) -> None:
        for address, error in self.send_directly(notices).items():
            if error is not None:
                logger.warning("%s was not told that the store is away: %s", address, error)

    def of_pause(self, row: JobRow) -> Sequence[Notice]:
        """Return what a pause by failures tells."""
        job = self._jobs().get(row.id)
        if job is None or row.state_at is None:
            return ()
        since = row.state_at.isoformat()
        return self.alerts.of_job(
            job, "paused", since, {"instant": since, "failures": row.pause_after_failures}
        )

    # ---------------------------------------------------------------- addresses and texts

    def address_of(self, requested_by: str | None) -> str | None:
        """Return the e-mail address of a person who starts a run; None if none is known, then the alerts' own serves.

        Calls the application's hook: not on a thread that runs wait for.
        """
        if not requested_by:
            return None
        found = None if self._hooks.address_of is None else self._hooks.address_of(requested_by)
        name, _, address = requested_by.rpartition("<")
        written = address.removesuffix(">") if name else requested_by
        return found or (written if is_address(written) else None)

    def reachable(self, requested_by: str | None) -> str | None:
        """Return who asks for a run with `notify=True` so that an e-mail finds that person: with the principal's own address, if it has one.

        Raises UnsupportedError if no e-mail could be sent to that person.
        """
        if "email" not in self.channels.by_name:
            raise UnsupportedError("notify=True: no e-mail can be sent. Set JOBMANAGER_SMTP_URL.")
        principal = current().principal
        if principal is not None and principal.email and requested_by in (None, principal.name):
            return f"{principal.name} <{principal.email}>"
        if self.address_of(requested_by) is None and not self._settings.alerts_email:
            raise UnsupportedError(
                f"notify=True: no e-mail address of {requested_by!r} is known. Give JobManager(address_of=...), "
                "or set JOBMANAGER_ALERTS_EMAIL."
            )
        return requested_by

    def message(self, letter: Letter) -> Message:
        """Return the message of a letter, with texts in the locale of who gets it."""
        first = letter.notifications[0] if letter.notifications else None
        facts = {} if first is None else first.details
        subject, text = self._texts.written(letter, self._locale(letter))
        return Message(
            id=letter.id if first is None else first.id,
            event=letter.event,
            subject=self._hide(subject),
            text=self._hide(text),
            to=self._receiver(letter),
            job_id=letter.job_id,
            count=letter.count,
            subjects=[found.subject for found in letter.notifications],
            tags=facts.get("tags") or (),
            facts=facts,
        )

    def message_of(self, notification: Notification) -> Message:
        """Return the message of one notification alone."""
        return self.message(_letter([notification]))

    def presentable(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Return facts of an application without secrets."""
        return {
            name: [self._hide(item) for item in value] if isinstance(value, list) else self._hide(value)
            for name, value in facts.items()
        }

    def test(self, to: str | None) -> dict[str, str | None]:
        """Send a message to this address, or to all admins, past the outbox; return what went wrong by address."""
        routes = list(self.alerts.admins) if to is None else [*self.channels.expanded(route_of(to))]
        if not routes:
            raise ConfigurationError("No one is to be told: set JOBMANAGER_ALERTS_EMAIL, or give an address.")
        for route in routes:
            self.channels.check_route(route, to or route.channel)
        notices = [
            Notice(
                namespace=self._settings.namespace,
                event="test",
                subject="test",
                channel=route.channel,
                address=route.address,
            )
            for route in routes
        ]
        return self.send_directly(notices)

    def send_directly(self, notices: Sequence[Notice]) -> dict[str, str | None]:
        """Send each of these past the outbox, and wait for it within a bound; return what went wrong by address."""
        outcome: dict[str, str | None] = {}
        for notice in notices:
            now = self._clock.now()
            row = Notification(
                id=new_id(now), state=NotificationState.WAITING, created_at=now, due_at=now, **asdict(notice)
            )
            outcome[f"{notice.channel}:{notice.address}".rstrip(":")] = self._sent_now(row)
        return outcome

    def _sent_now(self, row: Notification) -> str | None:
        channel, message = self.channels.by_name[row.channel], self.message_of(row)
        send = partial(channel.deliver, message, _nothing)
        try:
            if not self._threaded:
                send()
            elif not ended_within(DIRECTLY_WITHIN, send, name=f"notify-{channel.name}"):
                return f"no reply within {DIRECTLY_WITHIN:g} s"
        except Exception as error:  # noqa: BLE001 - whatever a channel raises is its outcome
            return one_line(self._hide(f"{error}" or type(error).__name__), 500)
        return None

    def _receiver(self, letter: Letter) -> str:
        if letter.address != REQUESTER:
            return letter.address
        by = letter.notifications[0].details.get("by") if letter.notifications else None
        address = self.address_of(by)
        if address is None and not self._settings.alerts_email:
            raise NotSentError(
                f"No address of {by!r} is known: give JobManager(address_of=...), or set JOBMANAGER_ALERTS_EMAIL."
            )
        return address or ""

    def _locale(self, letter: Letter) -> str:
        details = letter.notifications[0].details if letter.notifications else {}
        given, by = details.get("locale"), details.get("by")
        if not given and by and self._hooks.locale_of is not None:
            given = self._hooks.locale_of(by)
        return given or details.get("job_locale") or self._settings.locale


def _letter(notifications: Sequence[Notification]) -> Letter:
    first = notifications[0]
    return Letter(
        id=first.id,
        event=first.event,
        job_id=first.job_id,
        channel=first.channel,
        address=first.address,
        count=sum(item.count for item in notifications),
        notifications=notifications,
    )


def _nothing() -> None:
    """Note nowhere that a message may arrive."""
